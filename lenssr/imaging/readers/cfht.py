"""MegaCam stacks of MegaPipe and TERAPIX: PHOTZP, weights in a file of their own that are relative."""

from lenssr.imaging.image_file import ImageFile
from lenssr.imaging.planes import Planes
from lenssr.imaging.readers.registry import register_reader
from lenssr.imaging.readers.standard import standard_planes


@register_reader("cfht", "CFHT MegaCam stacks: PHOTZP", lambda file: file.says("TELESCOP").startswith("CFHT"))
def read_cfht(file: ImageFile) -> Planes:
    """Read a stack of SWarp, whose weights are proportional to the inverse variance."""
    return standard_planes(file, unit="adu", weight="relative")
