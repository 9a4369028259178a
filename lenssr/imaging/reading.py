"""Reading images: FITS files, HDU lists, NDData and arrays become the same few planes, in a known unit."""

import contextlib
import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.io.fits.verify import VerifyWarning
from astropy.nddata import InverseVariance, NDData, StdDevUncertainty, VarianceUncertainty
from astropy.units import photometric
from astropy.utils.exceptions import AstropyUserWarning
from astropy.wcs import WCS, FITSFixedWarning
from numpy.typing import NDArray

from lenssr._limits import check_unit_text
from lenssr._quiet import quiet
from lenssr.exceptions import InputError
from lenssr.imaging.fits_checks import read_checked, refuse_unreadable, same_hdus
from lenssr.units import strip_unit

__all__ = ["Planes", "find_image", "open_fits", "parse_unit", "read_planes"]

log = logging.getLogger(__name__)

# Planes of an image, and samples of kernels.
Array: TypeAlias = NDArray[np.float64]
Mask: TypeAlias = NDArray[np.bool_]

# Field of `Planes`, and the names under which archives store it, in the order in which they are looked for.
_ROLES = {
    "sci": ("data", "SCI", "IMAGE"),
    "err": ("error", "ERR", "RMS"),
    "var": ("variance", "VAR", "VARIANCE"),
    "ivm": ("inverse_variance", "IVM", "WHT"),
    "mask": ("mask", "DQ", "MASK"),
    "psf": ("psf", "PSF", "PSFIMAGE"),
    "exptime": ("exposure", "EXPTIME"),
}
_KNOWN_NAMES = {"UNCERT"}.union(*(names[1:] for names in _ROLES.values()))
_HDU_ALIASES = {"ivar": "ivm", "wht": "ivm", "rms": "err", "dq": "mask", "exposure": "exptime"}
# Field and power of the image's unit. CCDData writes its uncertainty into one HDU whose UTYPE is the class.
UNCERTAINTIES = {
    StdDevUncertainty: ("error", 1),
    VarianceUncertainty: ("variance", 2),
    InverseVariance: ("inverse_variance", -2),
}
_KEPT_KEYWORDS = ("TELESCOP", "INSTRUME", "DETECTOR", "FILTER", "OBJECT", "DATE-OBS")


# ---------------------------------------------------------------- units

_WORDS = {
    u.electron: "electron electrons elec e e-",
    u.ct: "count counts cts ct cnts",
    u.ph: "photon photons ph",
    u.adu: "adu adus",
    u.DN: "dn dns",
    u.s: "s sec secs second seconds",
    u.Jy: "jy janskys",
    photometric.nmgy: "nanomaggy nanomaggies nmgy",
    photometric.mgy: "maggy maggies",
    u.AA: "a angstrom",
    u.sr: "sr steradian",
    u.arcsec**2: "arcsec2 sqarcsec",
    u.dimensionless_unscaled: "pix pixel pixels",
}
_WORDS |= {unit: str(unit).lower() for unit in (u.mJy, u.uJy, u.nJy, u.erg, u.cm**2, u.Hz, u.beam)}
SPELLINGS = {word: unit for unit, words in _WORDS.items() for word in words.split()}
"""Spellings in any case, alone or in quotients such as ``ELECTRONS/S`` and ``counts/pixel/s``.

``pixel`` stands for 1, because images hold values per pixel. Case matters for ``mJy`` and ``MJy`` only.
"""

_CASED = {"MJy": u.MJy, "MJY": u.MJy, "mJy": u.mJy, "Mjy": u.MJy}
_MAGNITUDES = re.compile(r"^(ab|st|vega|m_?)?mags?\b|\bmags?\b|magnitude", re.IGNORECASE)


def parse_unit(text: str | u.UnitBase) -> u.UnitBase:
    """Unit of an image from BUNIT or the user: `SPELLINGS`, quotients of them, or astropy's.

    Magnitudes and unknown units are refused.
    """
    if isinstance(text, str):
        check_unit_text(text, "unit")
    try:
        unit = _from_spelling(text.strip()) if isinstance(text, str) else u.Unit(text)
    except TypeError:
        raise InputError(f"unit = {text!r} is not a unit: give one such as 'electron/s'") from None
    if isinstance(unit, u.function.FunctionUnitBase) or {u.mag, u.dex} & set(unit.bases):
        raise _magnitude(text)
    if isinstance(unit, u.UnrecognizedUnit) or not 0 < abs(getattr(unit, "scale", 1.0)) < math.inf:
        raise _unknown(text)
    return unit


def _from_spelling(text: str) -> u.UnitBase:
    if _MAGNITUDES.search(text):
        raise _magnitude(text)
    quotient = _quotient(text)
    if quotient is not None:
        return quotient
    for form in (None, "fits"):
        with contextlib.suppress(ValueError, TypeError, ArithmeticError), quiet(u.UnitsWarning):
            return u.Unit(text, format=form) if text else u.dimensionless_unscaled
    raise _unknown(text)


def _quotient(text: str) -> u.UnitBase | None:
    """Unit of ``a / b / c`` of known spellings, and ``a b-1``; None if a part is unknown."""
    words = re.sub(r"\s+|\bper\b", lambda match: "/" if "per" in match[0] else " ", text, flags=re.IGNORECASE)
    words = re.sub(r"\s*/\s*", "/", words)
    words = re.sub(r"[ .*]+s(ec)?(\^|\*\*)?\(?-1\)?$", "/s", words.strip(), flags=re.IGNORECASE)
    words = words.replace("(", "").replace(")", "") if words.count("/") else words
    words = re.sub(r"(arcsec|cm)(\^|\*\*)?2", r"\g<1>2", words, flags=re.IGNORECASE)
    unit = None
    for part in words.split("/"):
        known = _CASED.get(part.strip(), SPELLINGS.get(part.strip().lower()))
        if known is None:
            return None
        unit = known if unit is None else unit / known
    return unit


def _magnitude(text: Any) -> InputError:
    return InputError(f"unit {text} is a magnitude: convert the image to a flux, which adds up, such as nJy")


def _unknown(text: Any) -> InputError:
    return InputError(f"unit {text!r} is not known: give unit=, for example unit='electron/s'")


# ---------------------------------------------------------------- planes


@dataclass
class Planes:
    """Unchecked contents of an input; None where it has none.

    The unit may be a str as in the header, the exposure (s) a number; the gain is in electrons per adu, the
    zero point the AB magnitude of one unit; flags name guesses.
    """

    data: Array
    error: Array | None = None
    variance: Array | None = None
    inverse_variance: Array | None = None
    mask: NDArray[Any] | None = None
    psf: Any = None
    exposure: Array | float | None = None
    unit: u.UnitBase | str | None = None
    wcs: WCS | None = None
    gain: float | None = None
    zero_point: float | None = None
    flags: list[str] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)


def read_planes(image: Any, hdus: Mapping[str, str | int] | None = None) -> Planes:
    """Planes of an image in any form, as `~lenssr.imaging.Observation.from_any` takes it."""
    if isinstance(image, (str, PathLike)):
        with open_fits(image) as opened, as_input_error(image):
            planes = _from_hdus(opened, hdus)
        planes.meta["file"] = Path(image).name
        return planes
    if isinstance(image, fits.HDUList):
        refuse_unreadable(image, _KNOWN_NAMES)
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
def as_input_error(path: Any) -> Iterator[None]:
    """Turn whatever a damaged header makes astropy raise into an `InputError` with the exception's type."""
    try:
        yield
    except (InputError, Warning):
        raise
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise InputError(f"{path} cannot be used ({why}): correct its header, or get it again") from error


@contextlib.contextmanager
def open_fits(path: str | PathLike[str]) -> Iterator[fits.HDUList]:
    """Open a FITS file in memory; an `InputError` says why it cannot be read."""
    content, number = read_checked(path)
    with quiet(VerifyWarning), quiet(message=".*truncated.*", category=AstropyUserWarning, action="error"):
        try:
            with fits.open(content, memmap=False, lazy_load_hdus=False) as hdus:
                for hdu in hdus:
                    if hdu.is_image:
                        hdu.data  # noqa: B018 - reading reveals a truncated file
            same_hdus(path, hdus, number)
            refuse_unreadable(hdus, _KNOWN_NAMES)
        except AstropyUserWarning as error:
            raise InputError(f"{path} is truncated ({error}): copy or download it again") from error
        except InputError:
            raise
        except Exception as error:  # whatever astropy raises for a header that it cannot take
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise InputError(f"{path} is not a readable FITS file ({reason}): give one") from error
    log.debug("read %s: %s", path, ", ".join(hdu.name or "no name" for hdu in hdus))
    yield hdus


def find_image(hdus: fits.HDUList, names: Sequence[str], chosen: str | int | None = None) -> Any:
    """Image HDU that was chosen, or has one of the names, or else the first two-dimensional one."""
    found = _pick(hdus, names, chosen)
    if found is not None:
        return found
    others = _KNOWN_NAMES - set(names)
    for hdu in hdus:
        if hdu.is_image and hdu.data is not None and hdu.data.ndim == 2 and hdu.name.upper() not in others:
            return hdu
    known = ", ".join(f"{hdu.name or 'unnamed'} {hdu.shape if hdu.is_image else 'table'}" for hdu in hdus)
    raise InputError(f"no two-dimensional image among the HDUs ({known}): name it, such as hdus={{'sci': 1}}")


def _from_hdus(opened: fits.HDUList, hdus: Mapping[str, str | int] | None) -> Planes:
    chosen = {}
    for key, value in (hdus or {}).items():
        name = _HDU_ALIASES.get(key.lower(), key.lower())
        if name not in _ROLES:
            raise InputError(f"hdus has a key {key!r}: use {', '.join(_ROLES)}")
        if value is not None:
            chosen[name] = value
    usual = _ROLES["sci"][1:]
    science = find_image(opened, usual, chosen.get("sci"))
    planes = Planes(_as_image(science.data, f"HDU {science.name or 0}"))
    if "sci" not in chosen and _pick(opened, usual) is None and _rivals(opened, science):
        planes.flags.append("hdu_guessed")
    uncertainty = _pick(opened, ("UNCERT",))
    if uncertainty is not None and uncertainty is not science:
        utype = uncertainty.header.get("UTYPE", "StdDevUncertainty")
        for kind, (name, _) in UNCERTAINTIES.items():
            if kind.__name__ == utype:
                setattr(planes, name, np.array(uncertainty.data, dtype=np.float64))
    for key, (name, *names) in _ROLES.items():
        hdu = _pick(opened, names, chosen.get(key))
        if hdu is not None and hdu is not science and key != "sci":
            setattr(planes, name, np.array(hdu.data, dtype=np.float64))
    with quiet(FITSFixedWarning):
        planes.wcs = _meaningful(WCS(science.header, fobj=opened))
    _read_keywords(planes, [science.header] if science is opened[0] else [science.header, opened[0].header])
    return planes


def _from_nddata(image: NDData) -> Planes:
    if image.data is None:
        raise InputError("the NDData holds no data")
    planes = Planes(_as_image(image.data, "the image"), unit=image.unit, psf=getattr(image, "psf", None))
    planes.mask = None if image.mask is None else _spread(image.mask, planes.data)
    if image.wcs is not None:
        wcs = getattr(image.wcs, "low_level_wcs", image.wcs)
        if not isinstance(wcs, WCS):
            raise InputError(f"the image's WCS is a {type(wcs).__name__}: give an astropy.wcs.WCS")
        planes.wcs = _meaningful(wcs)
    if image.uncertainty is not None:
        _read_uncertainty(planes, image.uncertainty, image.unit)
    _read_keywords(planes, [image.meta] if image.meta else [])
    return planes


def _read_uncertainty(planes: Planes, uncertainty: Any, unit: u.UnitBase | None) -> None:
    found = [place for kind, place in UNCERTAINTIES.items() if isinstance(uncertainty, kind)]
    if not found:
        kind, known = type(uncertainty).__name__, ", ".join(one.__name__ for one in UNCERTAINTIES)
        raise InputError(f"an uncertainty of type {kind} does not say sigma: give one of {known}")
    (name, power), values = found[0], np.asarray(uncertainty.array, dtype=np.float64)
    if uncertainty.unit is not None and unit is not None:
        values = strip_unit(values * uncertainty.unit, unit**power, "the uncertainty")
    setattr(planes, name, _spread(values, planes.data))


def _read_keywords(planes: Planes, headers: list[Any]) -> None:
    """Fill in unit, exposure, gain and zero point from the first header that has them."""

    def number(*names: str) -> float | None:
        found = (header.get(name) for header in headers for name in names)
        real = (one for one in found if isinstance(one, (int, float)) and not isinstance(one, bool))
        return next((float(one) for one in real if math.isfinite(one)), None)

    if planes.unit is None:
        spellings = (str(header["BUNIT"]) for header in headers if str(header.get("BUNIT", "")).strip())
        planes.unit = next(spellings, None)
    if planes.exposure is None:
        exposure = number("EXPTIME", "TEXPTIME")
        planes.exposure = exposure if exposure is not None and exposure > 0 else None
    planes.gain = number("GAIN", "CCDGAIN", "EGAIN")
    planes.zero_point = number("MAGZERO", "MAGZPT", "ABMAGZP")
    for name in _KEPT_KEYWORDS:
        value = next((header[name] for header in headers if name in header), None)
        if isinstance(value, (str, int, float)):
            planes.meta[name] = value


def _pick(hdus: fits.HDUList, names: Sequence[str], chosen: str | int | None = None) -> Any:
    """Image HDU that was chosen by name or number, or else has one of the names; None if there is none."""
    if chosen is None:
        images = [hdu for hdu in hdus if hdu.is_image and hdu.data is not None]
        return next((hdu for name in names for hdu in images if hdu.name.strip().upper() == name), None)
    try:
        hdu = hdus[chosen]
    except (KeyError, IndexError):
        known = ", ".join(repr(hdu.name) for hdu in hdus)
        raise InputError(f"there is no HDU {chosen!r}: the file has {known}") from None
    if not hdu.is_image or hdu.data is None:
        raise InputError(f"HDU {chosen!r} holds no image: name another")
    return hdu


def _rivals(hdus: fits.HDUList, science: Any) -> bool:
    """Whether another HDU could be the image as well."""
    images = (hdu for hdu in hdus if hdu is not science and hdu.is_image and hdu.shape == science.shape)
    return any(hdu.name.upper() not in _KNOWN_NAMES for hdu in images)


def _meaningful(wcs: WCS) -> WCS | None:
    """Return None for the WCS that astropy makes of a header without one."""
    blank = not wcs.has_celestial and not any(str(unit) for unit in wcs.wcs.cunit)
    return None if blank else wcs


def _spread(values: Any, data: Array) -> NDArray[Any]:
    """Return one value as a plane, a plane as it is."""
    values = np.asarray(values)
    return np.broadcast_to(values, data.shape) if values.ndim == 0 else values


def _as_image(values: Any, name: str) -> Array:
    if np.iscomplexobj(values):
        raise InputError(f"{name} is complex: give its real part or its modulus")
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is a {type(values).__name__}: give a file, NDData or 2-D array") from error
    if array.ndim != 2:
        raise InputError(f"{name} has {array.ndim} dimensions, shape {array.shape}: give a 2-D image")
    if 0 in array.shape:
        raise InputError(f"{name} is empty, shape {array.shape}: give an image")
    return array
