"""Reading images: FITS files, HDU lists, NDData and arrays become the same few planes."""

import contextlib
import logging
import math
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.io.fits.verify import VerifyWarning
from astropy.nddata import InverseVariance, NDData, StdDevUncertainty, VarianceUncertainty
from astropy.utils.exceptions import AstropyUserWarning
from astropy.wcs import WCS, FITSFixedWarning

from lenssr.exceptions import InputError

__all__ = ["Planes", "find_image", "open_fits", "read_planes"]

log = logging.getLogger(__name__)

# The names under which archives store each plane, in the order in which they are looked for.
HDU_NAMES = {
    "sci": ("SCI", "IMAGE"),
    "err": ("ERR", "RMS"),
    "var": ("VAR", "VARIANCE"),
    "ivm": ("IVM", "WHT"),
    "mask": ("DQ", "MASK"),
    "psf": ("PSF", "PSFIMAGE"),
    "exptime": ("EXPTIME",),
}
_HDU_ALIASES = {"ivar": "ivm", "wht": "ivm", "rms": "err", "dq": "mask", "exposure": "exptime"}
# CCDData writes its uncertainty into one HDU whose UTYPE says which kind it is.
_UNCERTAINTY_KEYS = {"StdDevUncertainty": "err", "VarianceUncertainty": "var", "InverseVariance": "ivm"}
_KEPT_KEYWORDS = ("TELESCOP", "INSTRUME", "DETECTOR", "FILTER", "OBJECT", "DATE-OBS")


@dataclass
class Planes:
    """What an input holds, before any of it is checked.

    Attributes
    ----------
    data : `~numpy.ndarray`
        The image, float64.
    error, variance, inverse_variance, mask, psf, exposure : `~numpy.ndarray` or None
        The other planes; the exposure may be a number, in seconds.
    unit : `~astropy.units.Unit`, str or None
        The image's unit, if it says; a string as the header has it.
    wcs : `~astropy.wcs.WCS` or None
        Where it lies on the sky, if it says.
    gain, zero_point : float or None
        Electrons per adu, and the AB magnitude of one unit, if it says.
    flags : list of str
        What had to be guessed.
    meta : dict
        Telescope, filter and the like.
    """

    data: np.ndarray
    error: object = None
    variance: object = None
    inverse_variance: object = None
    mask: object = None
    psf: object = None
    exposure: object = None
    unit: object = None
    wcs: object = None
    gain: float | None = None
    zero_point: float | None = None
    flags: list = field(default_factory=list)
    meta: dict = field(default_factory=dict)


def read_planes(image, hdus=None):
    """Planes of whatever a user calls an image.

    Parameters
    ----------
    image : path, `~astropy.io.fits.HDUList`, `~astropy.nddata.NDData`, Quantity or array
        The image.
    hdus : dict, optional
        For files with names of their own: which HDU (name or number) holds ``sci``, ``err``, ``var``,
        ``ivm``, ``mask``, ``psf``, ``exptime``.

    Returns
    -------
    planes : `Planes`

    Raises
    ------
    InputError
        If it cannot be read.
    """
    if isinstance(image, (str, Path)):
        with open_fits(image) as opened:
            planes = _from_hdus(opened, hdus)
        planes.meta["file"] = Path(image).name
        return planes
    if isinstance(image, fits.HDUList):
        return _from_hdus(image, hdus)
    if hdus is not None:
        raise InputError(f"hdus = {hdus} names HDUs, but the image is a {type(image).__name__}: leave it out")
    if isinstance(image, (fits.ImageHDU, fits.PrimaryHDU, fits.CompImageHDU)):
        return _from_hdus(fits.HDUList([fits.PrimaryHDU(image.data, image.header)]), None)
    if isinstance(image, NDData):
        return _from_nddata(image)
    unit = image.unit if isinstance(image, u.Quantity) else None
    values = image.value if isinstance(image, u.Quantity) else image
    mask = None
    if isinstance(values, np.ma.MaskedArray):
        mask, values = np.ma.getmaskarray(values), values.data
    return Planes(_as_image(values, "the image"), unit=unit, mask=mask)


@contextlib.contextmanager
def open_fits(path):
    """Open a FITS file; whatever is wrong with it becomes an `InputError` that names it.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        The file.

    Yields
    ------
    hdus : `~astropy.io.fits.HDUList`
        Read into memory.
    """
    if not Path(path).is_file():
        raise InputError(f"{path} does not exist or is no file: check the name")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VerifyWarning)
        warnings.filterwarnings("error", message=".*truncated.*", category=AstropyUserWarning)
        try:
            # astropy does not close a file that it fails to read.
            with open(path, "rb") as file, fits.open(file, memmap=False, lazy_load_hdus=False) as hdus:
                for hdu in hdus:
                    if hdu.is_image:
                        hdu.data  # noqa: B018 - reading is what finds a truncated file out
        except AstropyUserWarning as error:
            raise InputError(f"{path} is truncated ({error}): copy or download it again") from error
        except (OSError, TypeError, ValueError, EOFError) as error:
            raise InputError(f"{path} is no readable FITS file ({_first_line(error)}): give one") from error
    log.debug("read %s: %s", path, ", ".join(hdu.name or "no name" for hdu in hdus))
    yield hdus


def find_image(hdus, names, chosen=None):
    """Find an image HDU by name, or the first two-dimensional one.

    Parameters
    ----------
    hdus : `~astropy.io.fits.HDUList`
        Where to look.
    names : tuple of str
        Names to look for, in this order.
    chosen : str or int, optional
        The one to take instead.

    Returns
    -------
    hdu : `~astropy.io.fits.ImageHDU`

    Raises
    ------
    InputError
        If there is none.
    """
    if chosen is not None:
        return _chosen_hdu(hdus, chosen)
    named = _named_hdu(hdus, names)
    if named is not None:
        return named
    others = {"UNCERT"}.union(*HDU_NAMES.values()) - set(names)
    for hdu in hdus:
        if hdu.is_image and hdu.data is not None and hdu.data.ndim == 2 and hdu.name.upper() not in others:
            return hdu
    found = ", ".join(f"{hdu.name or 'unnamed'} {hdu.shape if hdu.is_image else 'table'}" for hdu in hdus)
    raise InputError(f"no two-dimensional image among the HDUs ({found}): name it, such as hdus={{'sci': 1}}")


def _from_hdus(opened, hdus):
    chosen = {}
    for key, value in (hdus or {}).items():
        name = _HDU_ALIASES.get(key.lower(), key.lower())
        if name not in HDU_NAMES:
            raise InputError(f"hdus has a key {key!r}: use {', '.join(HDU_NAMES)}")
        if value is not None:
            chosen[name] = value
    science = find_image(opened, HDU_NAMES["sci"], chosen.get("sci"))
    planes = Planes(_as_image(science.data, f"HDU {science.name or 0}"))
    if "sci" not in chosen and _named_hdu(opened, HDU_NAMES["sci"]) is None and _rivals(opened, science):
        planes.flags.append("hdu_guessed")
    arrays = {}
    for key in ("err", "var", "ivm", "mask", "psf", "exptime"):
        hdu = _chosen_hdu(opened, chosen[key]) if key in chosen else _named_hdu(opened, HDU_NAMES[key])
        if hdu is not None and hdu is not science:
            arrays[key] = _native(hdu.data)
    uncertainty = _named_hdu(opened, ("UNCERT",))
    if uncertainty is not None and uncertainty is not science:
        key = _UNCERTAINTY_KEYS.get(uncertainty.header.get("UTYPE", "StdDevUncertainty"))
        if key is not None:
            arrays.setdefault(key, _native(uncertainty.data))
    planes.error, planes.variance, planes.inverse_variance = (arrays.get(k) for k in ("err", "var", "ivm"))
    planes.mask, planes.psf, planes.exposure = (arrays.get(k) for k in ("mask", "psf", "exptime"))
    headers = [science.header] if science is opened[0] else [science.header, opened[0].header]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        planes.wcs = _meaningful(WCS(science.header, fobj=opened))
    _read_keywords(planes, headers)
    return planes


def _from_nddata(image):
    if image.data is None:
        raise InputError("the NDData holds no data")
    planes = Planes(_as_image(image.data, "the image"))
    planes.unit = image.unit
    planes.mask = None if image.mask is None else _spread(image.mask, planes.data)
    wcs = image.wcs
    if wcs is not None:
        wcs = getattr(wcs, "low_level_wcs", wcs)
        if not isinstance(wcs, WCS):
            raise InputError(f"the image's WCS is a {type(wcs).__name__}: give an astropy.wcs.WCS")
        planes.wcs = _meaningful(wcs)
    planes.psf = getattr(image, "psf", None)
    if image.uncertainty is not None:
        _read_uncertainty(planes, image.uncertainty, image.unit)
    _read_keywords(planes, [image.meta] if image.meta else [])
    return planes


def _read_uncertainty(planes, uncertainty, unit):
    names = {StdDevUncertainty: "error", VarianceUncertainty: "variance", InverseVariance: "inverse_variance"}
    powers = {"error": 1, "variance": 2, "inverse_variance": -2}
    for kind, name in names.items():
        if isinstance(uncertainty, kind):
            values = np.asarray(uncertainty.array, dtype=np.float64)
            if uncertainty.unit is not None and unit is not None:
                target = unit ** powers[name]
                try:
                    values = values * uncertainty.unit.to(target)
                except u.UnitConversionError:
                    raise InputError(
                        f"the uncertainty is in {uncertainty.unit}, the image in {unit}: give {target}"
                    ) from None
            setattr(planes, name, _spread(values, planes.data))
            return
    raise InputError(
        f"an uncertainty of type {type(uncertainty).__name__} says nothing about sigma: give a "
        "StdDevUncertainty, VarianceUncertainty or InverseVariance"
    )


def _read_keywords(planes, headers):
    """Fill in unit, exposure, gain and zero point from the first header that has them."""

    def number(*names):
        for header in headers:
            for name in names:
                value = header.get(name)
                if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
                    return float(value)
        return None

    if planes.unit is None:
        spelling = next((h["BUNIT"] for h in headers if str(h.get("BUNIT", "")).strip()), None)
        planes.unit = None if spelling is None else str(spelling)
    if planes.exposure is None:
        exposure = number("EXPTIME", "TEXPTIME")
        planes.exposure = exposure if exposure is not None and exposure > 0 else None
    planes.gain = number("GAIN", "CCDGAIN", "EGAIN")
    planes.zero_point = number("MAGZERO", "MAGZPT", "ABMAGZP")
    for name in _KEPT_KEYWORDS:
        value = next((h[name] for h in headers if name in h), None)
        if isinstance(value, (str, int, float)):
            planes.meta[name] = value


def _named_hdu(hdus, names):
    for name in names:
        for hdu in hdus:
            if hdu.is_image and hdu.name.strip().upper() == name and hdu.data is not None:
                return hdu
    return None


def _chosen_hdu(hdus, chosen):
    try:
        hdu = hdus[chosen]
    except (KeyError, IndexError):
        names = ", ".join(repr(hdu.name) for hdu in hdus)
        raise InputError(f"there is no HDU {chosen!r}: the file has {names}") from None
    if not hdu.is_image or hdu.data is None:
        raise InputError(f"HDU {chosen!r} holds no image: name another")
    return hdu


def _rivals(hdus, science):
    """Whether another HDU could as well have been the image."""
    known = {"UNCERT"}.union(*HDU_NAMES.values())
    return any(
        hdu is not science and hdu.is_image and hdu.shape == science.shape and hdu.name.upper() not in known
        for hdu in hdus
    )


def _meaningful(wcs):
    """Return None for the WCS that astropy makes of a header without one."""
    blank = not wcs.has_celestial and not any(str(unit) for unit in wcs.wcs.cunit)
    return None if blank else wcs


def _spread(values, data):
    """Return one value as a plane, a plane as it is."""
    values = np.asarray(values)
    return np.broadcast_to(values, data.shape) if values.ndim == 0 else values


def _native(values):
    """Return floats in native byte order."""
    return np.array(values, dtype=np.float64)


def _as_image(values, name):
    if np.iscomplexobj(values):
        raise InputError(f"{name} is complex: give its real part or its modulus")
    try:
        array = _native(values)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is a {type(values).__name__}: give a file, NDData or 2-D array") from error
    if array.ndim != 2:
        raise InputError(f"{name} has {array.ndim} dimensions, shape {array.shape}: give a 2-D image")
    if 0 in array.shape:
        raise InputError(f"{name} is empty, shape {array.shape}: give an image")
    return array


def _first_line(error):
    return str(error).splitlines()[0] if str(error) else type(error).__name__
