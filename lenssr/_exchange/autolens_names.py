"""Profiles of PyAutoLens as models of mass and light; it does not import PyAutoLens.

Its pairs have y first, its Einstein radius is another one, and its intensities are those of a pixel.
"""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

from lenssr._limits import quoted
from lenssr.exceptions import InputError

__all__ = ["light_from_autolens", "mass_from_autolens"]

Values: TypeAlias = dict[str, Any]
Named: TypeAlias = tuple[str, Values]


def _taken(
    name: str, values: Values, *needed: str, pairs: tuple[str, ...] = ("centre", "ell_comps")
) -> Values:
    """Our centre and ellipticity, and the needed numbers by their names; others are refused."""
    unknown = [key for key in values if key not in (*needed, *pairs)]
    missing = [key for key in needed if key not in values]
    if unknown or missing:
        what = f"lacks {missing[0]}" if missing else f"has no {quoted(unknown[0])}"
        raise InputError(f"{name} {what}: give {', '.join((*needed, *pairs))}")
    found = {key: float(values[key]) for key in needed}
    for key, names in (("centre", ("y_0", "x_0")), ("ell_comps", ("e2", "e1"))):
        if key in pairs:
            found |= dict(zip(names, map(float, values.get(key, (0.0, 0.0))), strict=True))
    return found


def _power_law(name: str, values: Values) -> Named:
    steep = "PowerLaw" in name
    round_one = name.endswith("Sph")
    needed = ("einstein_radius", "slope") if steep else ("einstein_radius",)
    numbers = _taken(name, values, *needed, pairs=("centre",) if round_one else ("centre", "ell_comps"))
    radius, slope = numbers.pop("einstein_radius"), numbers.pop("slope", 2.0)
    e = math.hypot(numbers.get("e1", 0.0), numbers.get("e2", 0.0))
    q = (1 - e) / (1 + e)
    # Its convergence is (3 - slope) / (1 + q) (R / sqrt(x^2 + y^2 / q^2))^(slope - 1).
    theta_E = radius * math.sqrt(q) * (2 / (1 + q)) ** (1 / (slope - 1))
    if steep:
        return "EPL", {"theta_E": theta_E, "gamma": slope, **numbers}
    return ("SIS" if round_one else "SIE"), {"theta_E": theta_E, **numbers}


def _shear(name: str, values: Values) -> Named:
    numbers = _taken(name, values, "gamma_1", "gamma_2", pairs=())
    return "Shear", {"gamma1": numbers["gamma_1"], "gamma2": numbers["gamma_2"]}


def _point(name: str, values: Values) -> Named:
    numbers = _taken(name, values, "einstein_radius", pairs=("centre",))
    return "PointMass", {"theta_E": numbers.pop("einstein_radius"), **numbers}


MASSES: dict[str, Callable[[str, Values], Named]] = {
    "Isothermal": _power_law,
    "IsothermalSph": _power_law,
    "PowerLaw": _power_law,
    "PowerLawSph": _power_law,
    "ExternalShear": _shear,
    "PointMass": _point,
}


def mass_from_autolens(name: str, values: Values) -> Named:
    """The mass model of a mass profile of PyAutoLens."""
    if name not in MASSES:
        raise InputError(f"PyAutoLens's {quoted(name)} is not translated: give one of {', '.join(MASSES)}")
    return MASSES[name](name, values)


def light_from_autolens(name: str, values: Values, pixel_scale: float) -> Named:
    """The light model of a light profile of PyAutoLens; ``pixel_scale`` is that of its image in arcsec."""
    if name not in ("Sersic", "SersicSph"):
        raise InputError(f"PyAutoLens's {quoted(name)} is not translated: give one of Sersic, SersicSph")
    pairs = ("centre",) if name == "SersicSph" else ("centre", "ell_comps")
    numbers = _taken(name, values, "intensity", "effective_radius", "sersic_index", pairs=pairs)
    e = math.hypot(numbers.get("e1", 0.0), numbers.get("e2", 0.0))
    amplitude = numbers.pop("intensity") / pixel_scale**2
    r_eff = numbers.pop("effective_radius") * math.sqrt((1 + e) / (1 - e))
    return "Sersic", {"amplitude": amplitude, "r_eff": r_eff, "n": numbers.pop("sersic_index"), **numbers}
