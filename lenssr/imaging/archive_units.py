"""Spellings of units in the BUNIT of archives."""

import re
import warnings

import astropy.units as u
from astropy.units import photometric

from lenssr.exceptions import InputError

__all__ = ["SPELLINGS", "parse_unit"]

SPELLINGS = {
    "electron": u.electron,
    "electrons": u.electron,
    "elec": u.electron,
    "e": u.electron,
    "e-": u.electron,
    "count": u.ct,
    "counts": u.ct,
    "cts": u.ct,
    "ct": u.ct,
    "cnts": u.ct,
    "photon": u.ph,
    "photons": u.ph,
    "ph": u.ph,
    "adu": u.adu,
    "adus": u.adu,
    "dn": u.DN,
    "dns": u.DN,
    "s": u.s,
    "sec": u.s,
    "secs": u.s,
    "second": u.s,
    "seconds": u.s,
    "jy": u.Jy,
    "mjy": u.mJy,
    "ujy": u.uJy,
    "njy": u.nJy,
    "janskys": u.Jy,
    "erg": u.erg,
    "cm2": u.cm**2,
    "a": u.AA,
    "angstrom": u.AA,
    "hz": u.Hz,
    "nanomaggy": photometric.nmgy,
    "nanomaggies": photometric.nmgy,
    "nmgy": photometric.nmgy,
    "maggy": photometric.mgy,
    "maggies": photometric.mgy,
    "sr": u.sr,
    "steradian": u.sr,
    "arcsec2": u.arcsec**2,
    "sqarcsec": u.arcsec**2,
    "pix": u.dimensionless_unscaled,
    "pixel": u.dimensionless_unscaled,
    "pixels": u.dimensionless_unscaled,
    "beam": u.beam,
}
"""Spellings in any case, alone or in quotients such as ``ELECTRONS/S`` and ``counts/pixel/s``.

``pixel`` stands for 1, because images hold values per pixel. Case matters for ``mJy`` and ``MJy`` only.
"""

_CASED = {"MJy": u.MJy, "MJY": u.MJy, "mJy": u.mJy, "Mjy": u.MJy}
_MAGNITUDES = re.compile(r"^(ab|st|vega|m_?)?mags?\b|\bmags?\b|magnitude", re.IGNORECASE)


def parse_unit(text):
    """Unit of an image from BUNIT or the user: `SPELLINGS`, quotients of them, or astropy's.

    Magnitudes and unknown units are refused.

    >>> from lenssr.imaging.archive_units import parse_unit
    >>> parse_unit("ELECTRONS/S"), parse_unit("MJy/sr")
    (Unit("electron / s"), Unit("MJy / sr"))
    """
    if isinstance(text, str):
        unit = _from_spelling(text.strip())
    else:
        try:
            unit = u.Unit(text)
        except TypeError:
            raise InputError(f"unit = {text!r} is not a unit: give one such as 'electron/s'") from None
    logarithmic = isinstance(unit, u.function.FunctionUnitBase) or {u.mag, u.dex} & set(unit.bases)
    if logarithmic or isinstance(unit, u.UnrecognizedUnit):
        raise _magnitude(text) if logarithmic else _unknown(text)
    return unit


def _from_spelling(text):
    if _MAGNITUDES.search(text):
        raise _magnitude(text)
    quotient = _quotient(text)
    if quotient is not None:
        return quotient
    for form in (None, "fits"):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", u.UnitsWarning)
                return u.Unit(text, format=form) if text else u.dimensionless_unscaled
        except (ValueError, TypeError):
            continue
    raise _unknown(text)


def _quotient(text):
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


def _magnitude(text):
    return InputError(f"unit {text} is a magnitude: convert the image to a flux, which adds up, such as nJy")


def _unknown(text):
    return InputError(f"unit {text!r} is not known: give unit=, for example unit='electron/s'")
