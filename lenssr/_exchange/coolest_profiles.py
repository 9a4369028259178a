"""Profiles of COOLEST for models of mass and light, and back; it does not import the package.

A profile is here its type with its parameters. Angles are in degrees from +y to -x, in (-90, 90]; lengths are
on the intermediate axis, as here.
"""

import cmath
import math
from collections.abc import Callable
from typing import Any, TypeAlias

from lenssr._exchange.lenstronomy_names import same_b
from lenssr._limits import quoted
from lenssr.exceptions import InputError

__all__ = ["FIELDS", "light_of", "mass_of", "profile_of_light", "profile_of_mass"]

Values: TypeAlias = dict[str, Any]
Named: TypeAlias = tuple[str, Values]

FIELDS = ("ExternalShear", "ConvergenceSheet")
"""Profiles that belong to no galaxy."""

LEAST_INDEX, LARGEST_INDEX = 0.5, 10.0
"""Sérsic indices that the format allows."""


def folded(angle: float) -> float:
    """An angle in degrees within (-90, 90]."""
    return 90.0 - (90.0 - angle) % 180.0


def _shape(values: Values) -> Values:
    e, turn = cmath.polar(complex(values["e1"], values["e2"]))
    phi = folded(math.degrees(turn / 2) - 90) if e else 0.0
    return {"q": (1 - e) / (1 + e), "phi": phi, "center_x": values["x_0"], "center_y": values["y_0"]}


def _ellipse(values: Values) -> Values:
    q, phi = values["q"], math.radians(values["phi"] + 90)
    e = cmath.rect((1 - q) / (1 + q), 2 * phi)
    return {"e1": e.real, "e2": e.imag, "x_0": values["center_x"], "y_0": values["center_y"]}


# ---------------------------------------------------------------- to COOLEST


def profile_of_mass(name: str, values: Values) -> Named | None:
    """The profile of a mass model, or None where the format has none.

    The package evaluates and draws its PEMD but not its SIE, so that isothermal lenses are a PEMD of slope 2.
    """
    if name in ("SIS", "SIE", "EPL"):
        shape = _shape({"e1": 0.0, "e2": 0.0, **values})
        return "PEMD", {"theta_E": values["theta_E"], "gamma": values.get("gamma", 2.0), **shape}
    if name == "DPIE":
        return "Chameleon", {
            "b": values["theta_E"],
            "s_c": values["core"],
            "s_t": values["edge"],
            **_shape(values),
        }
    if name == "Shear" and values["x_0"] == values["y_0"] == 0:
        gamma, turn = cmath.polar(complex(values["gamma1"], values["gamma2"]))
        return "ExternalShear", {"gamma_ext": gamma, "phi_ext": folded(math.degrees(turn / 2) - 90)}
    if name == "ConvergenceSheet":
        return "ConvergenceSheet", {"kappa_s": values["kappa"]}
    return None


def profile_of_light(name: str, values: Values) -> Named | None:
    """The profile of a light model, or None where the format has none; brightness per arcsec2."""
    if name != "Sersic" or not LEAST_INDEX <= values["n"] <= LARGEST_INDEX:
        return None
    amplitude, radius = same_b(values["n"])
    shape = _shape(values)
    size = {"theta_eff": values["r_eff"] * math.sqrt(shape["q"]) * radius, "n": values["n"]}
    return "Sersic", {"I_eff": values["amplitude"] * amplitude, **size, **shape}


# ---------------------------------------------------------------- and back


def mass_of(kind: str, values: Values, isothermal: bool = False) -> Named:
    """The mass model of a profile; ``isothermal`` if the slope of a PEMD is held at 2."""
    if kind == "NFW":
        raise InputError(
            "an NFW of COOLEST has no counterpart here: the format leaves the unit of rho_c open; give "
            "lenssr.NFW.from_mass a mass and a concentration instead"
        )
    if kind not in MASSES:
        raise InputError(f"a {quoted(kind)} of COOLEST has no counterpart here: give {', '.join(MASSES)}")
    return MASSES[kind](values, isothermal)


def _power_law(values: Values, isothermal: bool) -> Named:
    numbers = {"theta_E": values["theta_E"], **_ellipse(values)}
    gamma = values.get("gamma", 2.0)
    return ("SIE", numbers) if isothermal and gamma == 2 else ("EPL", {**numbers, "gamma": gamma})


def _with_core(values: Values, isothermal: bool) -> Named:
    theta_E, core, gamma = values["theta_E"], values["r_core"], values.get("gamma", 2.0)
    if not core:
        return _power_law(values, isothermal or "gamma" not in values)
    # The mean convergence within theta_E is 1, as in all of COOLEST; the b of its formulas is ours.
    grown = math.hypot(theta_E, core) ** (3 - gamma) - core ** (3 - gamma)
    strength = (theta_E**2 / grown) ** (1 / (gamma - 1))
    return "CoredPowerLaw", {"theta_E": strength, "gamma": gamma, "core": core, **_ellipse(values)}


def _chameleon(values: Values, _: bool) -> Named:
    return "DPIE", {
        "theta_E": values["b"],
        "core": values["s_c"],
        "edge": values["s_t"],
        **_ellipse(values),
    }


def _shear(values: Values, _: bool) -> Named:
    gamma = cmath.rect(values["gamma_ext"], 2 * math.radians(values["phi_ext"] + 90))
    return "Shear", {"gamma1": gamma.real, "gamma2": gamma.imag}


MASSES: dict[str, Callable[[Values, bool], Named]] = {
    "SIE": lambda values, _: _power_law(values, True),
    "PEMD": _power_law,
    "NIE": _with_core,
    "SPEMD": _with_core,
    "Chameleon": _chameleon,
    "ExternalShear": _shear,
    "ConvergenceSheet": lambda values, _: ("ConvergenceSheet", {"kappa": values["kappa_s"]}),
}


def light_of(kind: str, values: Values) -> Named:
    """The light model of a profile."""
    if kind != "Sersic":
        raise InputError(
            f"a {quoted(kind)} of COOLEST has no counterpart here: give a Sersic or a PixelatedRegularGrid"
        )
    amplitude, radius = same_b(values["n"])
    numbers = {"amplitude": values["I_eff"] / amplitude, "n": values["n"], **_ellipse(values)}
    return "Sersic", {**numbers, "r_eff": values["theta_eff"] / math.sqrt(values["q"]) / radius}
