"""SDSS frames: nanomaggies in the first HDU, calibration and sky behind it."""

from lenssr.imaging.image_file import ImageFile
from lenssr.imaging.planes import Planes
from lenssr.imaging.readers.registry import register_reader
from lenssr.imaging.readers.standard import standard_planes


def _matches(file: ImageFile) -> bool:
    return file.has("NMGYPER") or (file.has("RERUN") and file.has("CAMCOL"))


@register_reader("sdss", "SDSS frames: nanomaggies", _matches)
def read_sdss(file: ImageFile) -> Planes:
    """Read a frame; the exposure of a drift scan says nothing of the counts in a nanomaggy."""
    file.chosen.setdefault("sci", 0)
    planes = standard_planes(file, unit="nanomaggy")
    planes.exposure = None
    planes.found.pop("exposure", None)
    return planes
