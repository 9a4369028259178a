"""The Dawn JWST Archive (grizli): multiples of nJy, WHT an inverse variance."""

from lenssr.imaging.image_file import ImageFile
from lenssr.imaging.planes import Planes
from lenssr.imaging.readers.registry import register_reader
from lenssr.imaging.readers.standard import standard_planes


def _matches(file: ImageFile) -> bool:
    return file.has("GRIZLIV", "OKXWRAP") or "NANOJANSKY" in file.says("BUNIT")


@register_reader("dja", "DAWN JWST Archive (grizli): SCI, WHT of each filter", _matches)
def read_dja(file: ImageFile) -> Planes:
    """Read one filter."""
    return standard_planes(file, weight="inverse_variance")
