"""Rubin and HSC (afw): IMAGE, MASK, VARIANCE; the bits of the mask by the names in its header."""

from lenssr.imaging.image_file import ImageFile
from lenssr.imaging.planes import Planes
from lenssr.imaging.readers.registry import register_reader
from lenssr.imaging.readers.standard import standard_planes


def _matches(file: ImageFile) -> bool:
    names = {hdu.name for hdu in file.hdus}
    bits = any(key.startswith("MP_") for hdu in file.hdus[:6] for key in hdu.header)
    return bits or ({"IMAGE", "MASK", "VARIANCE"} <= names and file.has("FLUXMAG0", "EXTTYPE"))


@register_reader("rubin", "Rubin and HSC: IMAGE, MASK with MP_ names, VARIANCE", _matches)
def read_rubin(file: ImageFile) -> Planes:
    """Read a coadd or an exposure; FLUXMAG0 of older files gives the zero point."""
    return standard_planes(file)
