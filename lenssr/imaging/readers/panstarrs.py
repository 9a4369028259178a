"""Pan-STARRS stacks: asinh-scaled (made linear where pixels are read), zero point 25 + 2.5 log10(EXPTIME)."""

import math

from lenssr.imaging.image_file import ImageFile
from lenssr.imaging.planes import Planes
from lenssr.imaging.readers.registry import register_reader
from lenssr.imaging.readers.standard import standard_planes

# AB magnitude of one count per second (Waters et al. 2020, section 4).
ZERO_POINT = 25.0


def _matches(file: ImageFile) -> bool:
    names = {"BSOFTEN", "FPA.ZP", "HIERARCH FPA.ZP", "FPA.TELESCOPE"}
    return "PS1" in file.says("TELESCOP") or file.has(*names) or "GPC1" in file.says("INSTRUME")


@register_reader("pan-starrs", "Pan-STARRS stacks: BSOFTEN, BOFFSET; weights are variances", _matches)
def read_panstarrs(file: ImageFile) -> Planes:
    """Read a stack, its mask by the names in its header."""
    planes = standard_planes(file, unit="adu", weight="variance")
    if planes.zero_point is None and isinstance(planes.exposure, float):
        planes.zero_point = ZERO_POINT + 2.5 * math.log10(planes.exposure)
        planes.found["zero point"] = f"{planes.zero_point:.4f} by EXPTIME: 25 + 2.5 log10(EXPTIME)"
    return planes
