"""Euclid: MER mosaics and cutouts; zero points in MAGZERO, errors and flags in files of their own."""

from lenssr.imaging.bit_masks import BitMask
from lenssr.imaging.image_file import ImageFile
from lenssr.imaging.planes import Planes
from lenssr.imaging.readers.registry import register_reader
from lenssr.imaging.readers.standard import standard_planes

# Bits of VIS calibrated frames (Euclid data product description, DpdVisCalibratedFrame).
BITS = BitMask(
    {"INVALID": 1, "HOT": 2, "COLD": 4, "SATURATED": 8, "COSMIC": 16, "GHOST": 32},
    ("INVALID", "HOT", "COLD", "SATURATED", "COSMIC"),
    "Euclid data product description",
)


@register_reader("euclid", "Euclid MER mosaics and cutouts", lambda file: "EUCLID" in file.says("TELESCOP"))
def read_euclid(file: ImageFile) -> Planes:
    """Read a mosaic or one of its cutouts."""
    names = {"err": ("RMS",), "mask": ("FLG", "FLAG")}
    return standard_planes(file, weight="inverse_variance", bits=BITS, names=names)
