"""BUNIT as archives spell it."""

import astropy.units as u
import pytest

from lenssr.exceptions import InputError
from lenssr.imaging.archive_units import parse_unit

FLAM = u.erg / u.s / u.cm**2 / u.AA


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("erg s^-1 cm^-2 A^-1", FLAM),
        ("ergs/cm^2/s/A", FLAM),
        ("ERGS/CM2/S/A", FLAM),
        ("erg/(s cm2 Angstrom)", FLAM),
        ("1E-17 erg/s/cm^2/Ang", 1e-17 * FLAM),
        ("10**(-20)*erg/s/cm**2/Angstrom", 1e-20 * FLAM),
        ("(10**(-20)*erg/s/cm**2/Angstrom)**2", (1e-20 * FLAM) ** 2),
        ("cps", u.ct / u.s),
        ("CPS", u.ct / u.s),
        ("count s-1", u.ct / u.s),
        ("counts per second", u.ct / u.s),
        ("microJy", u.uJy),
        ("muJy", u.uJy),
        ("uJansky", u.uJy),
        ("10.0*nanoJansky", 10 * u.nJy),
        ("nJy**2", u.nJy**2),
        ("MJy2 / sr2", (u.MJy / u.sr) ** 2),
        ("el/s", u.electron / u.s),
        ("e-", u.electron),
        ("MJY/SR", u.MJy / u.sr),
        ("mjy", u.mJy),
        ("JY/BEAM", u.Jy / u.beam),
        ("Jy beam-1", u.Jy / u.beam),
    ],
)
def test_spellings(text, unit):
    found = parse_unit(text)
    assert found.to(unit) == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("text", ["N/A", "UNCALIB", "none", "furlongs", "12"])
def test_what_is_no_unit_is_refused(text):
    if text == "12":
        assert parse_unit(text).is_equivalent(u.dimensionless_unscaled)
        return
    with pytest.raises(InputError, match="is not known: give unit="):
        parse_unit(text)


@pytest.mark.parametrize("text", ["MJY", "MJY/BEAM", "1e-3 MJY"])
def test_mega_or_milli_in_capitals_is_refused(text):
    with pytest.raises(InputError, match="is MJy or mJy, a factor of 1e9"):
        parse_unit(text)
