"""``CCDData.read`` of products: each plane with its own mask and errors.

Astropy's reader takes the HDU MASK as the mask of whatever is read, and refuses a plane of another shape.
Once `lenssr.result` is imported, ``CCDData.read`` knows its files by their first header, and looks for
``NAME_MASK`` and ``NAME_ERR`` of the plane NAME instead.
"""

from __future__ import annotations

from typing import Any

from astropy.io import fits, registry
from astropy.nddata import CCDData
from astropy.nddata.ccddata import fits_ccddata_reader

__all__ = ["is_product", "read_plane"]

# Products say in one of their first cards what wrote them. In bytes.
_CREATOR, _HEAD = b"CREATOR = 'lenssr ", 2880
_ENDS = {"hdu_mask": "MASK", "hdu_uncertainty": "ERR"}


def is_product(origin: str, path: Any, fileobj: Any, *args: Any, **options: Any) -> bool:
    """Whether a file that is open was written by lenssr."""
    if origin != "read" or fileobj is None:
        return False
    place = fileobj.tell()
    try:
        return _CREATOR in fileobj.read(_HEAD)
    finally:
        fileobj.seek(place)


def read_plane(
    path: Any, hdu: Any = 0, *, hdu_mask: str | None = "", hdu_uncertainty: str | None = "", **options: Any
) -> CCDData:
    """Read a plane of a product as a `~astropy.nddata.CCDData`.

    ``hdu`` is SCI by default. ``hdu_mask`` and ``hdu_uncertainty`` are the plane's own by default; None for
    none. ``options`` are those of astropy's reader.
    """
    hdus = fits.open(path)
    try:
        if hdu == 0 and hdus[0].data is None:
            hdu = next(number for number, one in enumerate(hdus) if one.is_image and one.shape)
        given = {"hdu_mask": hdu_mask, "hdu_uncertainty": hdu_uncertainty}
        named = {key: _own(hdus, hdu, key) if name == "" else name for key, name in given.items()}
    finally:
        hdus.close(closed=not hasattr(path, "seek"))
    if hasattr(path, "seek"):
        path.seek(0)
    return fits_ccddata_reader(path, hdu, **named, **options)


def _own(hdus: fits.HDUList, hdu: Any, key: str) -> str | None:
    """Name of the HDU that holds a plane's mask or errors; None without one."""
    name, end = hdus[hdu].name, _ENDS[key]
    # Products of layouts 1 and 2 have those of SCI under the short name only.
    return next((one for one in (f"{name}_{end}", end if name == "SCI" else "") if one in hdus), None)


registry.register_identifier("lenssr", CCDData, is_product)
# Files that astropy's reader knows, too: the higher priority decides.
registry.register_reader("lenssr", CCDData, read_plane, priority=1)
