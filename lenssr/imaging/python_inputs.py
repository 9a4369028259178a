"""What people hold in Python: NDData and its kin, Cutout2D, masked arrays, (data, header), other WCSs."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.nddata import Cutout2D, NDData
from astropy.utils.masked import Masked
from astropy.wcs import WCS
from numpy.typing import NDArray

from lenssr import _wcs
from lenssr.exceptions import InputError
from lenssr.imaging.cutting import window_of
from lenssr.imaging.image_file import meaningful, wcs_of
from lenssr.imaging.planes import UNCERTAINTIES, Array, Planes, Request, as_image
from lenssr.units import strip_unit

__all__ = ["from_array", "from_nddata", "is_nddata", "pick_band"]

_PLANES = ("error", "variance", "inverse_variance", "mask", "exposure")


def is_nddata(image: Any) -> bool:
    """Whether an object has data with what belongs to them, as NDData, NDCube and Cutout2D do."""
    return isinstance(image, (NDData, Cutout2D)) or (
        hasattr(image, "data") and hasattr(image, "wcs") and not isinstance(image, np.ndarray)
    )


def pick_band(images: Mapping[Any, Any], band: Any) -> Any:
    """One image of a dict of them by band.

    Raises
    ------
    InputError
        If the dict is empty, or has several and none was chosen.
    """
    names = {str(name).lower(): name for name in images}
    if band is not None and str(band).lower() in names:
        return images[names[str(band).lower()]]
    if band is None and len(images) == 1:
        return next(iter(images.values()))
    known = ", ".join(map(str, images)) or "none"
    asked = "" if band is None else f", not {band!r}"
    raise InputError(f"the image is a dict of bands ({known}){asked}: choose one by band=")


def from_nddata(image: Any, request: Request) -> Planes:
    """Planes of an NDData or an object like it."""
    if image.data is None:
        raise InputError("the NDData holds no data")
    unit = getattr(image, "unit", None)
    planes = Planes(as_image(_plain(image.data), "the image"), unit=unit, psf=getattr(image, "psf", None))
    planes.found["image"] = f"the data of a {type(image).__name__}"
    shape = planes.data.shape
    mask = _or_none(getattr(image, "mask", None))
    if mask is not None:
        planes.mask = _spread(mask, planes.data)
    own = getattr(image.data, "mask", None)
    if own is not None and np.any(own):
        planes.mask = np.asarray(own) | (False if planes.mask is None else np.asarray(planes.mask) != 0)
    if image.wcs is not None:
        planes.wcs = simple_wcs(image.wcs, shape)
    uncertainty = getattr(image, "uncertainty", None)
    if uncertainty is not None:
        _read_uncertainty(planes, uncertainty, unit)
    return _cut(planes, request)


def from_array(values: Any, header: Any, request: Request) -> Planes:
    """Planes of an array, a Quantity or a masked one; with a header where there is one."""
    mask, unit = None, None
    if isinstance(values, Masked):
        mask, values = np.asarray(values.mask), values.unmasked
    if isinstance(values, u.Quantity):
        unit, values = values.unit, values.value
    if isinstance(values, np.ma.MaskedArray):
        mask, values = np.ma.getmaskarray(values), values.data
    planes = Planes(as_image(values, "the image"), unit=unit, mask=mask)
    planes.found["image"] = "an array"
    if header is not None:
        planes.wcs = header if isinstance(header, WCS) else wcs_of(header)
    return _cut(planes, request)


def _or_none(mask: Any) -> Any:
    """Return a mask; None where it says nothing."""
    return None if mask is None or mask is np.ma.nomask else mask


def _plain(values: Any) -> Any:
    return values.unmasked if isinstance(values, Masked) else values


def _spread(values: Any, data: Array) -> NDArray[Any]:
    """Return one value as a plane, a plane as it is."""
    values = np.asarray(values)
    return np.broadcast_to(values, data.shape) if values.ndim == 0 else values


def _read_uncertainty(planes: Planes, uncertainty: Any, unit: u.UnitBase | None) -> None:
    found = [place for kind, place in UNCERTAINTIES.items() if isinstance(uncertainty, kind)]
    if not found:
        kind, known = type(uncertainty).__name__, ", ".join(one.__name__ for one in UNCERTAINTIES)
        raise InputError(f"an uncertainty of type {kind} does not say sigma: give one of {known}")
    (name, power), values = found[0], np.asarray(uncertainty.array, dtype=np.float64)
    if uncertainty.unit is not None and unit is not None:
        values = strip_unit(values * uncertainty.unit, unit**power, "the uncertainty")
    setattr(planes, name, _spread(values, planes.data))
    planes.found[name.replace("_", " ")] = f"a {type(uncertainty).__name__}"


def simple_wcs(wcs: Any, shape: tuple[int, int]) -> WCS | None:
    """Two-dimensional astropy WCS of any WCS: itself, a slice of one, or the closest affine one.

    Raises
    ------
    InputError
        If it has no celestial axes, or distortions that matter.
    """
    low = getattr(wcs, "low_level_wcs", wcs)
    if isinstance(low, WCS):
        return meaningful(low)
    sliced = _unsliced(low)
    if sliced is not None:
        return meaningful(sliced)
    if not hasattr(low, "pixel_to_world_values"):
        raise InputError(f"the image's WCS is a {type(low).__name__}: give an astropy.wcs.WCS")
    if low.pixel_n_dim != 2:
        raise InputError(f"the image's WCS has {low.pixel_n_dim} pixel axes: give one of two")
    return _wcs.affine_wcs(low, shape, (0, 0), type(low).__name__)


def _unsliced(low: Any) -> WCS | None:
    """The WCS that a slice of one stands for, where no axis that it lost matters."""
    inner, slices = getattr(low, "_wcs", None), getattr(low, "_slices_array", None)
    if not isinstance(inner, WCS) or slices is None or _wcs.distortions(inner):
        return None
    if not all(isinstance(one, slice) for one in slices):
        if len(slices) < 3 or not all(isinstance(one, slice) for one in slices[-2:]):
            return None
        inner, slices = inner.celestial, slices[-2:]
    with contextlib.suppress(ValueError, IndexError, NotImplementedError):
        return inner.slice(tuple(slices))
    return None


def _cut(planes: Planes, request: Request) -> Planes:
    """Cut all planes about the place that the user asked for."""
    window = window_of(planes.wcs, planes.data.shape, request)
    if window is None or planes.wcs is None:
        return planes
    shape = planes.data.shape
    for name in ("data", *_PLANES):
        plane = getattr(planes, name)
        if np.shape(plane) == shape:
            setattr(planes, name, np.asarray(plane)[window])
    rows, columns = window
    planes.wcs = _wcs.cut_wcs(planes.wcs, planes.data.shape, (columns.start, rows.start))
    planes.meta["corner"], planes.frame = [int(columns.start), int(rows.start)], shape
    return planes


def headers_of(image: Any) -> list[Any]:
    """Headers that an object carries in its meta."""
    meta = getattr(image, "meta", None)
    if not meta:
        return []
    nested = meta.get("header") if isinstance(meta, Mapping) else None
    return [meta, nested] if isinstance(nested, (fits.Header, Mapping)) else [meta]
