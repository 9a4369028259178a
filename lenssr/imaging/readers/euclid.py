"""Euclid: MER mosaics and cutouts, VIS frames; zero points in MAGZERO, errors and flags often beside."""

from lenssr.imaging.bit_masks import BitMask
from lenssr.imaging.image_file import ImageFile
from lenssr.imaging.planes import Planes
from lenssr.imaging.readers.registry import register_reader
from lenssr.imaging.readers.standard import standard_planes

# Data Product Description Document of Euclid 1.1, VIS Flag Map; mosaics carry the bits of their frames. Edges
# of quadrants, objects, ghosts, starlight and charge that was put back leave a pixel usable.
_BITS = {
    "INVALID": 0, "HOT": 1, "COLD": 2, "SAT": 3, "COSMIC": 4, "GHOST": 5, "QUADEDGE": 6, "BAD_COLUMN": 7,
    "BAD_CLUSTER": 8, "CR_REGION": 9, "OVRCOL": 12, "EXTOBJ": 13, "SCATLIGHT": 14, "CHARINJ": 15,
    "SATXTALKGHOST": 17, "STARSIGNAL": 18, "SATURATEDSTAR": 19, "CTICORRECTION": 20, "ADCMAX": 21,
    "NO_DATA": 22, "STITCHBLOCK": 23, "OBJECTS": 24,
}  # fmt: skip
BITS = BitMask(
    {name: 1 << bit for name, bit in _BITS.items()},
    (
        "INVALID", "HOT", "COLD", "SAT", "COSMIC", "BAD_COLUMN", "BAD_CLUSTER", "OVRCOL", "CHARINJ", "ADCMAX",
        "NO_DATA",
    ),
    "Euclid Data Product Description Document 1.1, VIS Flag Map",
)  # fmt: skip


@register_reader("euclid", "Euclid MER mosaics and cutouts", lambda file: "EUCLID" in file.says("TELESCOP"))
def read_euclid(file: ImageFile) -> Planes:
    """Read a mosaic, one of its cutouts, or a detector's quadrant; bits of NISP are not those of VIS."""
    names = {"err": ("RMS",), "mask": ("FLG", "FLAG", "DQ")}
    infrared = "NIS" in file.says("INSTRUME") or file.says("FILTER").startswith("NIR")
    return standard_planes(file, weight="inverse_variance", bits=None if infrared else BITS, names=names)
