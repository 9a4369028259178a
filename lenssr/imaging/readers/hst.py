"""HST: drizzled images whose WHT is exposure time or inverse variance, and single exposures with their DQ."""

from lenssr.imaging.bit_masks import BitMask
from lenssr.imaging.image_file import ImageFile
from lenssr.imaging.planes import Planes
from lenssr.imaging.readers.registry import register_reader
from lenssr.imaging.readers.standard import standard_planes

# ACS Data Handbook, table 3.4; WFC3 Data Handbook, table 3.3. Stable hot and warm pixels were corrected.
_VALUES = {
    "LOST": 1, "FILL": 2, "BAD_DETECTOR": 4, "APERTURE": 8, "HOT": 16, "UNSTABLE": 32, "WARM": 64,
    "BIAS": 128, "SATURATED": 256, "BAD_FLAT": 512, "TRAP": 1024, "A2D_SATURATED": 2048, "COSMIC_RAY": 4096,
    "CR_REJECTED": 8192,
}  # fmt: skip
_BAD = (
    "LOST", "FILL", "BAD_DETECTOR", "APERTURE", "UNSTABLE", "BIAS", "SATURATED", "BAD_FLAT", "TRAP",
    "A2D_SATURATED", "COSMIC_RAY", "CR_REJECTED",
)  # fmt: skip
BITS = BitMask(_VALUES, _BAD, "ACS and WFC3 Data Handbooks")
# WFC3/IR corrects hits during the ramp (8192), and its blobs (512) are in the flat field.
IR_BITS = BitMask(
    _VALUES,
    tuple(name for name in _BAD if name not in ("BAD_FLAT", "CR_REJECTED", "TRAP")) + ("HOT",),
    "WFC3 Data Handbook",
)


def _is_hst(file: ImageFile) -> bool:
    return file.says("TELESCOP") == "HST"


def _is_drizzled(file: ImageFile) -> bool:
    """Whether exposures were combined: a weight, the number of exposures, or the name says so."""
    weights = any(hdu.name in ("WHT", "CTX", "CON") for hdu in file.hdus)
    named = file.path is not None and any(part in file.path.name for part in ("_drz", "_drc", "_sx"))
    return weights or named or file.has("NDRIZIM", "D001OUUN")


@register_reader("hst-exposure", "HST flt/flc: SCI, ERR, DQ of single exposures", _is_hst)
def read_exposure(file: ImageFile) -> Planes:
    """Read one chip of an exposure: its cosmic rays are in it."""
    planes = standard_planes(file, bits=IR_BITS if file.says("DETECTOR") == "IR" else BITS)
    alone = any(hdu.name == "DQ" for hdu in file.hdus) and (file.number("NCOMBINE") or 1) < 2
    if alone and file.says("DETECTOR") != "IR":
        planes.flags.append("single_exposure")
    return planes


@register_reader(
    "hst-drizzled",
    "HST drz/drc: SCI, WHT by final_wht_type",
    lambda file: _is_hst(file) and _is_drizzled(file),
)
def read_drizzled(file: ImageFile) -> Planes:
    """Read a drizzled image; the header states what WHT is, or it is the exposure time, or it is guessed."""
    return standard_planes(file, unit="electron/s")
