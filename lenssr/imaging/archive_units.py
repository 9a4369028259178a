"""Units as archives spell them in BUNIT."""

import contextlib
import math
import re
from typing import Any

import astropy.units as u
from astropy.units import photometric

from lenssr._limits import check_unit_text
from lenssr._quiet import quiet
from lenssr.exceptions import InputError

__all__ = ["SPELLINGS", "parse_unit"]

_WORDS = {
    u.electron: "electron electrons elec e e- el els",
    u.ct: "count counts cts ct cnts cnt",
    u.ph: "photon photons ph",
    u.adu: "adu adus",
    u.DN: "dn dns",
    u.s: "s sec secs second seconds",
    photometric.nmgy: "nanomaggy nanomaggies nmgy nmgys nanomgy",
    photometric.mgy: "maggy maggies",
    u.erg: "erg ergs",
    u.cm: "cm",
    u.AA: "a aa ang angstrom angstroms",
    u.um: "um micron microns",
    u.sr: "sr steradian ster",
    u.arcsec: "arcsec arcsecs",
    u.cm**2: "cm2",
    u.arcsec**2: "arcsec2 sqarcsec",
    u.Hz: "hz",
    u.beam: "beam",
    u.dimensionless_unscaled: "pix pixel pixels",
    u.Jy: "jy jansky janskys janskies",
    u.mJy: "mjy millijy millijansky millijanskys",
    u.uJy: "ujy mujy microjy ujansky microjansky microjanskys microjanskies",
    u.nJy: "njy nanojy njansky nanojansky nanojanskys nanojanskies",
    u.MJy: "megajy megajansky megajanskys",
}
SPELLINGS = {word: unit for unit, words in _WORDS.items() for word in words.split()}
"""Spellings in any case, alone or in products and quotients such as ``ELECTRONS/S`` and ``counts/pixel/s``.

``pixel`` stands for 1, because images hold values per pixel. Case matters for ``mJy`` and ``MJy`` only;
``MJY`` is refused unless it is per steradian.
"""

_CASED = {"MJy": u.MJy, "MJY": u.MJy, "mJy": u.mJy, "Mjy": u.MJy, "MJansky": u.MJy, "mJansky": u.mJy}
# In capitals mega and milli are the same; nobody has mJy/sr.
_CAPITAL = re.compile(r"\bMJY\b")
_RATES = {"cps": u.ct / u.s, "eps": u.electron / u.s}
_UNKNOWN = frozenset("n/a na none null unknown uncalib uncalibrated undefined".split())
_MAGNITUDES = re.compile(r"^(ab|st|vega|m_?)?mags?\b|\bmags?\b|magnitude", re.IGNORECASE)
# A number in front, as in 1E-17, 10.0*, 10**-20, 10^-20 and 10**(-20)*.
_FACTOR = re.compile(
    r"^\(?\s*(?:10\s*(?:\^|\*\*)\s*\(?\s*(?P<power>[-+]?\d+)\s*\)?"
    r"|(?P<number>\d+\.?\d*(?:[eE][-+]?\d+)?))(?P<closed>\s*\))?(?=$|[\s*a-zA-Z])\s*\*?\s*(?!\*)"
)
_TOKEN = re.compile(r"(?P<word>[eE]-(?!\d)|[A-Za-zµ]+)(?:(?:\^|\*\*)?\(?(?P<power>[-+]?\d+)\)?)?")
_SQUARE = re.compile(r"^\((?P<unit>.+)\)\s*(?:\^|\*\*)\s*\(?(?P<power>[-+]?\d+)\)?$")


def parse_unit(text: str | u.UnitBase) -> u.UnitBase:
    """Unit of an image from BUNIT or the user: `SPELLINGS`, products and quotients of them, or astropy's.

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
    if text.lower() in _UNKNOWN:
        raise _unknown(text)
    known = _known(text)
    if known is not None:
        if _CAPITAL.search(text) and u.sr not in known.bases:
            raise InputError(f"unit {text!r} is MJy or mJy, a factor of 1e9: give unit= (--unit)")
        return known
    for form in (None, "fits"):
        with contextlib.suppress(ValueError, TypeError, ArithmeticError), quiet(u.UnitsWarning):
            return u.Unit(text, format=form) if text else u.dimensionless_unscaled
    raise _unknown(text)


def _known(text: str) -> u.UnitBase | None:
    """Unit of known spellings with a number in front; None if a part is unknown."""
    squared = _SQUARE.match(text)
    if squared is not None:
        inner = _known(squared["unit"].strip())
        return None if inner is None else inner ** int(squared["power"])
    number, factor = 1.0, _FACTOR.match(text)
    if factor is not None:
        number = 10.0 ** int(factor["power"]) if factor["power"] else float(factor["number"])
        text = text[factor.end() :]
        if text.count("(") != text.count(")"):
            text = text.strip("()")
        if not text:
            return None  # a number alone is no unit
    unit = _product(text)
    if unit is None or number == 1:
        return unit
    return u.CompositeUnit(number, unit.bases, unit.powers) if unit.scale == 1 else u.Unit(number * unit)


def _product(text: str) -> u.UnitBase | None:
    """Unit of words with powers, behind ``/`` or ``per`` inverted; None if a word is unknown."""
    text = re.sub(r"\bper\b", "/", text.replace("µ", "u"), flags=re.IGNORECASE)
    if "(" in re.sub(r"(\^|\*\*)?\(([-+]?\d+)\)", "", text):
        inside = re.fullmatch(r"([^()/]*)/\s*\(([^()]+)\)", text)
        if inside is None:
            return None
        above, below = _product(inside[1]), _product(inside[2])
        return None if above is None or below is None else above / below
    unit = None
    for gap, word, power in _words(text):
        known = _CASED.get(word, _RATES.get(word.lower(), SPELLINGS.get(word.lower())))
        if known is None or (gap and not re.fullmatch(r"[\s*./]*", gap)) or gap.count("/") > 1:
            return None
        known = known ** (-power if "/" in gap else power)
        unit = known if unit is None else unit * known
    return unit


def _words(text: str) -> list[tuple[str, str, int]]:
    """Text before each word, the word, and its power; the gap of a rest that is no word is not a gap."""
    found, end = [], 0
    for match in _TOKEN.finditer(text.strip()):
        power = int(match["power"]) if match["power"] else 1
        found.append((text.strip()[end : match.start()], match["word"], power))
        end = match.end()
    rest = text.strip()[end:]
    return [*found, (rest, "?", 1)] if rest.strip() else found


def _magnitude(text: Any) -> InputError:
    return InputError(f"unit {text} is a magnitude: convert the image to a flux, which adds up, such as nJy")


def _unknown(text: Any) -> InputError:
    return InputError(f"unit {text!r} is not known: give unit=, for example unit='electron/s'")
