"""Planes that lie in files or arrays of their own: errors, weights, masks and exposures."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.nddata import NDData

from lenssr.exceptions import InputError
from lenssr.imaging.bit_masks import BitMask
from lenssr.imaging.fits_files import is_file, open_fits, shape_of
from lenssr.imaging.image_file import ROLES, ImageFile, float_plane, hdu_label
from lenssr.imaging.planes import UNCERTAINTIES, Planes, Request, same_shape
from lenssr.imaging.readers import standard
from lenssr.imaging.weight_maps import stated_kind

__all__ = ["add_planes", "is_stored"]

# Field and power of errors by the words of a file's or HDU's name.
_WORDS = {
    "variance": ("var", "variance", "stat"),
    "inverse_variance": ("ivm", "ivar", "invvar"),
}
_POWERS = {name: power for name, power in UNCERTAINTIES.values()}


def is_stored(value: Any) -> bool:
    """Whether a plane is given as a file or HDU, rather than as an array."""
    return is_file(value) or isinstance(
        value, (fits.HDUList, fits.ImageHDU, fits.PrimaryHDU, fits.CompImageHDU)
    )


class _Plane:
    """One plane: its pixels, its header, and what it is called."""

    def __init__(
        self, value: Any, name: str, roles: tuple[str, ...], planes: Planes, request: Request
    ) -> None:
        self.header, self.label, self.headers = fits.Header(), name, [fits.Header()]
        if is_file(value):
            with open_fits(value) as opened:
                self._read(opened, roles, planes, request)
            if not hasattr(value, "read"):
                self.label = f"{Path(value).name} ({self.label})"
        elif isinstance(value, fits.HDUList):
            self._read(value, roles, planes, request)
        elif is_stored(value):
            self._read(fits.HDUList([fits.PrimaryHDU(), value]), roles, planes, request)
        elif isinstance(value, NDData):
            self.pixels = planes.cut(value.data)
        else:
            self.pixels = planes.cut(value)
        if isinstance(self.pixels, u.Quantity):
            self.header["BUNIT"], self.pixels = self.pixels.unit.to_string(), self.pixels.value

    def _read(self, opened: Any, roles: tuple[str, ...], planes: Planes, request: Request) -> None:
        images = [hdu for hdu in opened if len(shape_of(hdu)) >= 2]
        named = (hdu for role in roles for name in ROLES[role] for hdu in images if hdu.name.upper() == name)
        found = next(named, images[0] if images else None)
        if found is None:
            raise InputError(f"{self.label}: the file holds no two-dimensional image")
        number = next(i for i, hdu in enumerate(opened) if hdu is found)
        own = Request(hdus={"sci": number}, band=request.band)
        file = ImageFile(opened, own)
        file.window = self._window(found, planes)
        self.pixels = file.read(found)
        self.header, self.headers = found.header, [found.header, opened[0].header]
        self.label = hdu_label(opened, found)

    @staticmethod
    def _window(hdu: Any, planes: Planes) -> tuple[slice, slice] | None:
        """The window of the image, for a plane of the whole frame."""
        shape = planes.data.shape
        if planes.frame is None or shape_of(hdu)[-2:] != planes.frame:
            return None
        column, row = planes.meta["corner"]
        return slice(row, row + shape[0]), slice(column, column + shape[1])


def add_planes(planes: Planes, request: Request, beside: Mapping[str, Any]) -> None:
    """Add planes of their own to those of an image; they replace the image's own."""
    for name, add in (
        ("error", _add_error),
        ("weight", _add_weight),
        ("mask", _add_mask),
        ("exposure", _add_exposure),
    ):
        value = beside.get(name)
        if value is not None:
            add(planes, request, value)


def _kind_by_name(plane: _Plane, planes: Planes) -> str:
    """Kind of an error plane: by words of its name, or by a unit that is the square of the image's."""
    words = set(re.split(r"[^a-z]+", plane.label.lower()))
    for kind, known in _WORDS.items():
        if words & set(known):
            return kind
    unit, spelled = standard.unit_of(planes), str(plane.header.get("BUNIT", "")).strip()
    if unit is not None and unit != u.dimensionless_unscaled and spelled:
        own = standard.parse_unit(spelled)
        return next((kind for kind, power in _POWERS.items() if own.is_equivalent(unit**power)), "error")
    return "error"


def _add_error(planes: Planes, request: Request, value: Any) -> None:
    plane = _Plane(value, "error", ("err", "var", "ivm"), planes, request)
    kind, unit = _kind_by_name(plane, planes), standard.unit_of(planes)
    values = float_plane(plane.pixels)
    if values.ndim == 0:
        values = np.full(planes.data.shape, float(values))
    same_shape(values, planes.data.shape, f"the error plane ({plane.label})")
    values = standard.in_unit_of_image(values, plane.header.get("BUNIT"), unit, _POWERS[kind], plane.label)
    for field in _POWERS:
        setattr(planes, field, values if field == kind else None)
        planes.found.pop(field.replace("_", " "), None)
    planes.found[kind.replace("_", " ")] = plane.label


def _add_weight(planes: Planes, request: Request, value: Any) -> None:
    plane = _Plane(value, "weight", ("wht", "ivm", "exptime"), planes, request)
    values = float_plane(plane.pixels)
    same_shape(values, planes.data.shape, f"the weight map ({plane.label})")
    stated, where = stated_kind(plane.headers)
    words = set(re.split(r"[^a-z]+", plane.label.lower()))
    named = "inverse_variance" if words & set(_WORDS["inverse_variance"]) else None
    known = (
        (request.weight_kind, "you"),
        (stated, where),
        (named, "its name"),
        (planes.weight_kind, "the archive"),
    )
    kind, where = next(((kind, why) for kind, why in known if kind is not None), (None, ""))
    if kind != "exposure":
        for field in _POWERS:
            setattr(planes, field, None)
    standard.use_weight(planes, values, kind, plane.label, where)


def _add_mask(planes: Planes, request: Request, value: Any) -> None:
    plane = _Plane(value, "mask", ("mask",), planes, request)
    bits: BitMask | None = standard.bits_of_header(plane.header) or planes.bits
    standard.use_mask(planes, np.asarray(plane.pixels), bits, request, plane.label)


def _add_exposure(planes: Planes, request: Request, value: Any) -> None:
    if np.ndim(value) == 0 and not is_stored(value):
        seconds = u.Quantity(value, u.s).value if isinstance(value, u.Quantity) else value
        planes.exposure, planes.found["exposure"] = float(seconds), "you"
        return
    plane = _Plane(value, "exposure", ("exptime", "wht"), planes, request)
    values = float_plane(plane.pixels)
    same_shape(values, planes.data.shape, f"the exposure map ({plane.label})")
    planes.exposure, planes.found["exposure"] = values, plane.label
    standard.hide(planes, ~(np.isfinite(values) & (values > 0)), f"{plane.label} is 0")
