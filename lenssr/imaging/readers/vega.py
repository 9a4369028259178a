"""Surveys whose zero points are Vega magnitudes under the names that others use for AB: none is taken."""

from lenssr.imaging.image_file import ImageFile
from lenssr.imaging.planes import Planes
from lenssr.imaging.readers.registry import register_reader
from lenssr.imaging.readers.standard import standard_planes

_CAMERAS = ("WFCAM", "VIRCAM")
_SURVEYS = ("2MASS", "WISE")


def _matches(file: ImageFile) -> bool:
    survey = " ".join(file.says(name) for name in ("ORIGIN", "TELESCOP", "SURVEY"))
    return file.says("INSTRUME") in _CAMERAS or any(name in survey for name in _SURVEYS)


@register_reader("vega", "UKIDSS, VISTA, 2MASS, WISE: zero points are Vega magnitudes", _matches)
def read_vega(file: ImageFile) -> Planes:
    """Read an image without its zero point, which ``zero_point=`` gives in AB magnitudes."""
    planes = standard_planes(file, unit="adu", weight="relative")
    name = file.numbered("MAGZPT", "MAGZP", "MAGZERO")[1]
    if name and planes.zero_point is not None:
        planes.zero_point = None
        planes.found["zero point"] = f"none: {name} is a Vega magnitude, give zero_point= in AB"
    return planes
