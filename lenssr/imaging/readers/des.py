"""Dark Energy Survey coadds: SCI, MSK, WGT, zero point 30."""

from lenssr.imaging.bit_masks import BitMask
from lenssr.imaging.image_file import ImageFile
from lenssr.imaging.planes import Planes
from lenssr.imaging.readers.registry import register_reader
from lenssr.imaging.readers.standard import standard_planes

# Morganson et al. 2018, table 9; those of stars, satellites near and fixed pixels leave the pixel usable.
_NAMES = (
    "BPM SATURATE INTERP BADAMP CRAY STAR TRAIL EDGEBLEED SSXTALK EDGE STREAK SUSPECT FIXED NEAREDGE TAPEBUMP"
).split()
BITS = BitMask(
    {name: 1 << bit for bit, name in enumerate(_NAMES)},
    ("BPM", "SATURATE", "INTERP", "BADAMP", "CRAY", "TRAIL", "EDGEBLEED", "EDGE", "STREAK"),
    "Morganson et al. 2018",
)


def _matches(file: ImageFile) -> bool:
    names = {hdu.name for hdu in file.hdus}
    return {"MSK", "WGT"} <= names or file.has("DESFNAME")


@register_reader("des", "DES coadds: SCI, MSK, WGT", _matches)
def read_des(file: ImageFile) -> Planes:
    """Read a coadd; WGT is an inverse variance."""
    return standard_planes(file, weight="inverse_variance", bits=BITS)
