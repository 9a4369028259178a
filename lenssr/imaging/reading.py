"""Reading images: files, HDU lists, NDData and arrays become the same few planes, in a known unit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from lenssr.exceptions import InputError
from lenssr.imaging import python_inputs
from lenssr.imaging.fits_checks import refuse_unreadable
from lenssr.imaging.fits_files import as_input_error, is_file, open_fits
from lenssr.imaging.image_file import PLANE_NAMES, ImageFile
from lenssr.imaging.planes import Planes, Request
from lenssr.imaging.readers import find_reader, standard_planes
from lenssr.imaging.readers.standard import KEPT, read_keywords, read_zero_point
from lenssr.imaging.separate_planes import add_planes

__all__ = ["read_planes"]

# The checksum of a larger file would take longer than to cut it: that of the pixels stands for it. In bytes.
WHOLE_CHECKSUM = 2**26
_HDUS = (fits.ImageHDU, fits.PrimaryHDU, fits.CompImageHDU)


def read_planes(
    image: Any, request: Request | None = None, beside: Mapping[str, Any] | None = None
) -> Planes:
    """Planes of an image in any form, as `~lenssr.imaging.Observation.from_any` takes it.

    ``beside`` holds planes in files or arrays of their own: ``error``, ``weight``, ``mask``, ``exposure``.
    """
    request = request or Request()
    planes = _read(image, request)
    planes.meta.setdefault("input_checksum", _checksum(np.ascontiguousarray(planes.data, ">f8"), "pixels"))
    add_planes(planes, request, beside or {})
    for option, plane in (("weight_kind", "weight"), ("mask_bits", "mask")):
        if getattr(request, option) is not None and plane not in planes.found:
            raise InputError(
                f"{option} = {getattr(request, option)!r}, but there is no {plane}: leave it out"
            )
    if planes.found:
        planes.meta["reading"] = dict(planes.found)
    return planes


def _checksum(content: Any, what: str = "file") -> str:
    """Say which input this was: a SHA-256 of the file, or of the pixels that were read."""
    return f"sha256 of {what}: {hashlib.sha256(content).hexdigest()[:40]}"


def _read(image: Any, request: Request) -> Planes:
    if isinstance(image, Mapping) and not isinstance(image, fits.Header):
        return _read(python_inputs.pick_band(image, request.band), replace(request, band=None))
    if is_file(image):
        return _from_path(image, request)
    if isinstance(image, fits.HDUList):
        return _from_hdus(image, request)
    if isinstance(image, _HDUS):
        first = [] if isinstance(image, fits.PrimaryHDU) else [fits.PrimaryHDU()]
        return _from_hdus(fits.HDUList([*first, image]), request)
    if request.band is not None:
        kind = type(image).__name__
        raise InputError(f"band = {request.band!r}, but the image is a {kind}, which has one: leave it out")
    if request.hdus is not None:
        named = dict(request.hdus)
        raise InputError(
            f"hdus = {named} names HDUs, but the image is a {type(image).__name__}: leave it out"
        )
    if isinstance(image, tuple) and len(image) == 2 and isinstance(image[1], (fits.Header, WCS)):
        data, header = image
        planes = python_inputs.from_array(data, header, request)
        return planes if isinstance(header, WCS) else _with_keywords(planes, [header])
    if python_inputs.is_nddata(image):
        planes = python_inputs.from_nddata(image, request)
        return _with_keywords(planes, python_inputs.headers_of(image))
    return python_inputs.from_array(image, None, request)


def _from_path(path: Any, request: Request) -> Planes:
    name = str(getattr(path, "name", path))
    if name.lower().endswith(".asdf"):
        from lenssr.imaging.asdf_files import read_asdf

        planes = python_inputs.from_nddata(read_asdf(path), request)
    else:
        with open_fits(path, whole=not request.cuts) as opened, as_input_error(name):
            planes = _from_hdus(opened, request, name)
    if not hasattr(path, "read"):
        planes.meta["file"] = Path(path).name
        if Path(path).stat().st_size <= WHOLE_CHECKSUM:
            planes.meta["input_checksum"] = _checksum(Path(path).read_bytes())
    return planes


def _from_hdus(opened: fits.HDUList, request: Request, path: str | None = None) -> Planes:
    refuse_unreadable(opened, PLANE_NAMES)
    file = ImageFile(opened, request, path)
    reader = find_reader(file)
    planes = standard_planes(file) if reader is None else reader.read(file)
    planes.found = {
        "reader": "standard names" if reader is None else f"{reader.name}: {reader.title}"
    } | planes.found
    return planes


def _with_keywords(planes: Planes, headers: list[Any]) -> Planes:
    """Fill in what a header or a meta says, as of a file with that header."""
    if not headers:
        return planes
    given, unit = fits.Header(), planes.unit
    kept = (*KEPT, "BUNIT")
    for header in reversed(headers):
        for key in header:
            value, name = header[key], str(key).upper()
            simple = isinstance(value, (str, int, float, np.integer, np.floating)) and len(name) <= 8
            if simple and (name in kept or not isinstance(value, str)) and name.replace("-", "").isalnum():
                given[name] = value.item() if isinstance(value, np.generic) else value
    file = ImageFile(fits.HDUList([fits.PrimaryHDU(np.zeros((2, 2)), _storable(given))]))
    read_keywords(planes, file)
    if unit is not None:
        planes.unit = unit
    read_zero_point(planes, file)
    return planes


def _storable(header: fits.Header) -> fits.Header:
    """A header without keywords of structure, and without numbers that FITS cannot hold."""
    new = fits.Header()
    for key, value in header.items():
        finite = not isinstance(value, float) or np.isfinite(value)
        if finite and not key.startswith(
            ("NAXIS", "SIMPLE", "BITPIX", "EXTEND", "XTENSION", "BSCALE", "BZERO")
        ):
            new[key] = value
    return new
