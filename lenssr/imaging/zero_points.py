"""AB magnitude of one unit, from what archives write into headers."""

from __future__ import annotations

import math
from typing import Any

import astropy.units as u
from astropy.units import photometric

from lenssr.imaging.image_file import ImageFile

__all__ = ["AB_ZERO", "zero_point_of_unit", "zero_point_of_header"]

AB_ZERO = 3631 * u.Jy
# Keywords that hold the AB magnitude of one unit.
_DIRECT = ("MAGZERO", "MAGZPT", "ABMAGZP", "PHOTZP", "MAGZP", "ZP_AB", "ABZP")
# STmag of one unit less its AB magnitude, from the pivot wavelength in Angstrom (Sirianni et al. 2005):
# ABMAG_ZEROPOINT = -2.5 log10(PHOTFLAM) - 5 log10(PHOTPLAM) - 2.408.
_ST_TO_AB = 2.408


def zero_point_of_unit(unit: u.UnitBase | None, wavelength: float | None = None) -> float | None:
    """AB magnitude of one unit of flux density, or of surface brightness over one arcsec2.

    Parameters
    ----------
    unit : `~astropy.units.Unit` or None
        Unit of the pixels.
    wavelength : float, optional
        Pivot wavelength in Angstrom, for units per wavelength.

    Returns
    -------
    zero_point : float or None
        None where the unit says nothing about fluxes in physical units.
    """
    if unit is None or u.beam in unit.bases:
        return None
    for maggies, magnitude in ((photometric.nmgy, 22.5), (photometric.mgy, 0.0)):
        if unit.is_equivalent(maggies):
            return magnitude - 2.5 * math.log10(unit.to(maggies))
    flux = 1 * unit
    if (unit * u.sr).is_equivalent(u.Jy) or (unit * u.sr * u.AA).is_equivalent(u.Jy * u.Hz):
        flux = flux * u.arcsec**2
    through = u.spectral_density(wavelength * u.AA) if wavelength else []
    if not flux.unit.is_equivalent(u.Jy, through):
        return None
    return -2.5 * math.log10(flux.to_value(u.Jy, through) / AB_ZERO.value)


def zero_point_of_header(
    file: ImageFile, unit: u.UnitBase | None, exposure: float | None
) -> tuple[float | None, str]:
    """AB magnitude of one unit from the keywords of an image, and which they are; (None, "") without."""
    value, name = file.numbered(*_DIRECT)
    if value is not None:
        return value, name
    value, name = file.numbered("FLUXMAG0")
    if value is not None and value > 0 and zero_point_of_unit(unit) is None:
        return 2.5 * math.log10(value), name
    wavelength = file.number("PHOTPLAM")
    own = zero_point_of_unit(unit, wavelength)
    if own is not None:
        return own, "the unit" if wavelength is None else "the unit and PHOTPLAM"
    # Sensitivities are those of one count a second; images of counts hold as many as in the exposure.
    late = 0.0
    if unit is not None and _counts(unit):
        if not exposure:
            return None, ""
        late = 2.5 * math.log10(exposure)
    value, name = file.numbered("PHOTFNU")
    if value is not None and value > 0:
        return -2.5 * math.log10(value / AB_ZERO.value) + late, name
    value, name = file.numbered("PHOTFLAM")
    if value is not None and value > 0 and wavelength:
        found = -2.5 * math.log10(value) - 5 * math.log10(wavelength) - _ST_TO_AB
        return found + late, "PHOTFLAM and PHOTPLAM"
    return None, ""


def _counts(unit: Any) -> bool:
    """Whether a unit is counts, not a rate."""
    return any(unit.is_equivalent(one) for one in (u.electron, u.ct, u.adu, u.DN, u.ph))
