"""Names and keywords of lenstronomy for models of mass and light, and back; it does not import lenstronomy.

A model is here the name of its class with its numbers and other arguments; a model of lenstronomy is its
name with its keywords.
"""

import cmath
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from scipy.special import gammaincinv

from lenssr._limits import quoted
from lenssr.exceptions import InputError

__all__ = ["approximate_b", "light_from", "light_to", "mass_from", "mass_to", "same_b"]

Values: TypeAlias = dict[str, Any]
Named: TypeAlias = tuple[str, Values]
Ellipsoids: TypeAlias = Sequence[tuple[float, float]]

CENTRE = {"center_x": "x_0", "center_y": "y_0"}
ELLIPSE = {"e1": "e1", "e2": "e2", **CENTRE}

# Families that differ in names only: lenstronomy's name, and its keywords with ours.
RENAMED: dict[str, tuple[str, dict[str, str]]] = {
    "SIS": ("SIS", {"theta_E": "theta_E", **CENTRE}),
    "SIE": ("SIE", {"theta_E": "theta_E", **ELLIPSE}),
    "EPL": ("EPL", {"theta_E": "theta_E", "gamma": "gamma", **ELLIPSE}),
    "NFW": ("NFW", {"Rs": "r_s", "alpha_Rs": "alpha_rs", **CENTRE}),
    "TruncatedNFW": ("TNFW", {"Rs": "r_s", "alpha_Rs": "alpha_rs", "r_trunc": "r_t", **CENTRE}),
    "PointMass": ("POINT_MASS", {"theta_E": "theta_E", **CENTRE}),
    "Shear": ("SHEAR", {"gamma1": "gamma1", "gamma2": "gamma2", "ra_0": "x_0", "dec_0": "y_0"}),
    "ConvergenceSheet": ("CONVERGENCE", {"kappa": "kappa"}),
}
SAME = {"EPL_NUMBA": "EPL", "PEMD": "EPL"}
"""Other names of lenstronomy for one of these."""

OPTIONAL = {"center_x", "center_y", "ra_0", "dec_0", "e1", "e2"}
"""Keywords of lenstronomy that are 0 when they are missing."""


def approximate_b(n: Any) -> Any:
    """The b_n of Sérsics in lenstronomy and in COOLEST."""
    approximate = 1.9992 * n - 0.3271
    if np.any(np.asarray(approximate) <= 0):
        raise InputError(f"lenstronomy's b_n = 1.9992 n - 0.3271 is not positive at n = {n}: give n > 0.17")
    return approximate


def same_b(n: float) -> tuple[float, float]:
    """Factors on amplitude and radius of a Sérsic from the exact b_n to the approximate one."""
    exact, theirs = float(gammaincinv(2 * n, 0.5)), approximate_b(n)
    return math.exp(exact - theirs), (theirs / exact) ** n


def _modulus(values: Values) -> float:
    return math.hypot(values["e1"], values["e2"])


def _ellipse(values: Values) -> Values:
    return {theirs: values[ours] for theirs, ours in ELLIPSE.items()}


def _centre(values: Values) -> Values:
    return {theirs: values[ours] for theirs, ours in CENTRE.items()}


# ---------------------------------------------------------------- mass, to lenstronomy


def mass_to(name: str, values: Values) -> list[Named]:
    """Models of lenstronomy that are together one of ours.

    ``values`` holds the numbers of the family and its other arguments; those of a map are "x" and "y" of its
    columns and rows, the potential "f_" and its derivatives "f_x", "f_y", "f_xx", "f_xy" and "f_yy"; those of
    an elliptical NFW are "ellipsoids", core radii and strengths for a scale radius and a deflection of 1.
    """
    if name in RENAMED:
        theirs, keywords = RENAMED[name]
        return [(theirs, {key: values[ours] for key, ours in keywords.items()})]
    if name not in TO:
        raise InputError(f"lenstronomy has no {name}: leave it out, or give it as a PixelatedDeflection")
    return TO[name](values)


def _cored(values: Values) -> list[Named]:
    gamma, core = values["gamma"], values["core"]
    if gamma == 2:
        shape = {"theta_E": values["theta_E"], "s_scale": core, **_ellipse(values)}
        return [("NIE", shape)]
    if _modulus(values):
        raise InputError(
            f"lenstronomy has no elliptical CoredPowerLaw of gamma = {gamma}: give gamma = 2 or e1 = e2 = 0"
        )
    sigma0 = (3 - gamma) / 2 * (values["theta_E"] / core) ** (gamma - 1) / _projection(gamma)
    return [("SPL_CORE", {"sigma0": sigma0, "r_core": core, "gamma": gamma, **_centre(values)})]


def _projection(gamma: float) -> float:
    """Convergence over density times core radius, lenstronomy's ``sigma0``, at the centre of ``SPL_CORE``."""
    return math.sqrt(math.pi) * math.gamma((gamma - 1) / 2) / math.gamma(gamma / 2)


def _elliptical_nfw(values: Values) -> list[Named]:
    r_s, shape = values["r_s"], _ellipse(values)
    scale = values["alpha_rs"] * r_s**2
    return [("CSE", {"a": scale * a, "s": r_s * s, **shape}) for s, a in values["ellipsoids"]]


def _dpie(values: Values) -> list[Named]:
    theta_E, shape = values["theta_E"], _ellipse(values)
    scales = ((theta_E, values["core"]), (-theta_E, values["edge"]))
    return [("NIE", {"theta_E": strength, "s_scale": scale, **shape}) for strength, scale in scales]


def _sersic_mass(values: Values) -> list[Named]:
    amplitude, radius = same_b(values["n"])
    k_eff = values["amplitude"] * values["mass_to_light"] * amplitude
    e = _modulus(values)
    kwargs = {"k_eff": k_eff, "R_sersic": values["r_eff"] * radius, "n_sersic": values["n"]}
    if not e:
        return [("SERSIC", {**kwargs, **_centre(values)})]
    # Its ellipticity has the modulus 1 - q, and its radius lies on the major axis.
    q = (1 - e) / (1 + e)
    kwargs["R_sersic"] /= math.sqrt(q)
    turned = {key: values[key] * (1 - q) / e for key in ("e1", "e2")}
    return [("SERSIC_ELLIPSE_KAPPA", {**kwargs, **turned, **_centre(values)})]


def _gaussian_mass(values: Values) -> list[Named]:
    amp = values["kappa_0"] * 2 * math.pi * values["sigma"] ** 2
    return [("GAUSSIAN_ELLIPSE_KAPPA", {"amp": amp, "sigma": values["sigma"], **_ellipse(values)})]


def _strength(values: Values) -> Values:
    """Modulus and direction of a multipole."""
    a_m, angle = cmath.polar(complex(values["a1"], values["a2"]))
    return {"m": values["m"], "a_m": a_m, "phi_m": angle / values["m"], **_centre(values)}


def _multipole(values: Values) -> list[Named]:
    return [("MULTIPOLE", {**_strength(values), "r_E": 1.0})]


def _elliptical_multipole(values: Values) -> list[Named]:
    m, e1, e2 = values["m"], values["e1"], values["e2"]
    if not _modulus(values):
        return _multipole(values)
    if e2 or e1 < 0 or m != 4:
        raise InputError(
            f"lenstronomy's MULTIPOLE_ELL holds no EllipticalMultipole of m = {m}, e1 = {e1}, e2 = {e2}: "
            "give m = 4 with the major axis along x (e1 > 0, e2 = 0)"
        )
    return [("MULTIPOLE_ELL", {**_strength(values), "q": (1 - e1) / (1 + e1), "r_E": 1.0})]


def _interpolated(values: Values) -> list[Named]:
    maps = {key: values[key] for key in ("f_", "f_x", "f_y", "f_xx", "f_yy", "f_xy")}
    return [("INTERPOL", {"grid_interp_x": values["x"], "grid_interp_y": values["y"], **maps})]


TO: dict[str, Callable[[Values], list[Named]]] = {
    "CoredPowerLaw": _cored,
    "DPIE": _dpie,
    "EllipticalNFW": _elliptical_nfw,
    "SersicMass": _sersic_mass,
    "GaussianMass": _gaussian_mass,
    "Multipole": _multipole,
    "EllipticalMultipole": _elliptical_multipole,
    "PixelatedDeflection": _interpolated,
}


# ---------------------------------------------------------------- mass, from lenstronomy


def mass_from(names: Sequence[str], kwargs: Sequence[Values], ellipsoids: Ellipsoids) -> list[Named]:
    """Models of ours from the names and keywords of lenstronomy.

    ``ellipsoids`` are core radii and strengths of what makes up an elliptical NFW, as in `mass_to`.
    """
    return list(_read(names, kwargs, _one_mass, ellipsoids))


def _read(
    names: Sequence[str], kwargs: Sequence[Values], one: Callable[..., Named], ellipsoids: Ellipsoids = ()
) -> Iterator[Named]:
    if isinstance(names, str) or len(names) != len(kwargs):
        raise InputError(
            f"{quoted(names)} and {len(kwargs)} dictionaries: give a list of names, and one each"
        )
    left = [(str(name), dict(values)) for name, values in zip(names, kwargs, strict=True)]
    while left:
        name, values = left.pop(0)
        if name == "NIE" and left and _is_edge(values, left[0]):
            yield "DPIE", _from_pair(values, left.pop(0)[1])
        elif name == "CSE" and ellipsoids:
            others, left = left[: len(ellipsoids) - 1], left[len(ellipsoids) - 1 :]
            yield "EllipticalNFW", _from_ellipsoids([(name, values), *others], ellipsoids)
        else:
            yield one(name, values)


def _from_ellipsoids(found: list[Named], ellipsoids: Ellipsoids) -> Values:
    """The elliptical NFW that these ellipsoids with a core make up, and no others."""
    s, a = ellipsoids[0]
    keywords = {"a": "a", "s": "s", **ELLIPSE}
    numbers = _numbers("CSE", found[0][1], keywords)
    numbers["r_s"] = numbers.pop("s") / s
    numbers["alpha_rs"] = numbers.pop("a") / (a * numbers["r_s"] ** 2)
    wanted = _elliptical_nfw({**numbers, "ellipsoids": ellipsoids})
    if len(found) != len(wanted) or not all(map(_is_same, found, wanted)):
        raise InputError(
            f"lenstronomy's CSE has no counterpart here, unless it is one of the {len(wanted)} that an "
            "EllipticalNFW is written as: give NFW_ELLIPSE_CSE"
        )
    return numbers


def _is_same(found: Named, wanted: Named) -> bool:
    """Whether two models have the same name and numbers, to rounding."""
    (name, values), (other, numbers) = found, wanted
    return name == other and all(
        math.isclose(values.get(key, 0.0), number, rel_tol=1e-9) for key, number in numbers.items()
    )


def _is_edge(core: Values, other: Named) -> bool:
    """Whether two cored isothermal ellipsoids differ in their cores and in their signs only."""
    name, edge = other
    theirs = {key: value for key, value in edge.items() if key not in ("theta_E", "s_scale")}
    ours = {key: value for key, value in core.items() if key not in ("theta_E", "s_scale")}
    return name == "NIE" and theirs == ours and edge.get("theta_E") == -core.get("theta_E", 0.0) != 0


def _from_pair(core: Values, edge: Values) -> Values:
    shape = _numbers("NIE", core, {"theta_E": "theta_E", "s_scale": "core", **ELLIPSE})
    return {**shape, "edge": float(edge["s_scale"])}


def _one_mass(name: str, values: Values) -> Named:
    theirs = SAME.get(name, name)
    for ours, (known, keywords) in RENAMED.items():
        if known == theirs:
            if known == "CONVERGENCE":
                _refuse_other(name, values, {"ra_0": 0.0, "dec_0": 0.0})
            return ours, _numbers(name, values, keywords)
    if name not in FROM:
        known = ", ".join(sorted({*FROM, *SAME, *(one for one, _ in RENAMED.values())}))
        raise InputError(f"lenstronomy's {quoted(name)} has no counterpart here: give one of {known}")
    return FROM[name](values)


def _numbers(name: str, values: Values, keywords: dict[str, str]) -> Values:
    """Numbers by our names; missing centres and ellipticities are 0, others and unknown ones are refused."""
    unknown = [key for key in values if key not in keywords]
    if unknown:
        raise InputError(f"{name} has no {quoted(unknown[0])}: give {', '.join(keywords)}")
    missing = [key for key in keywords if key not in values and key not in OPTIONAL]
    if missing:
        raise InputError(f"{name} lacks {missing[0]}: give {', '.join(keywords)}")
    return {ours: float(values.get(theirs, 0.0)) for theirs, ours in keywords.items()}


def _refuse_other(name: str, values: Values, wanted: Values) -> None:
    """Take keywords out that have the values that we can hold, and refuse others."""
    for key, value in wanted.items():
        if values.pop(key, value) != value:
            raise InputError(f"{name} with another {key} than {value} is refused: it only shifts the source")


def _from_nie(values: Values) -> Named:
    keywords = {"theta_E": "theta_E", "s_scale": "core", **ELLIPSE}
    return "CoredPowerLaw", {"gamma": 2.0, **_numbers("NIE", values, keywords)}


def _from_spl_core(values: Values) -> Named:
    keywords = {"sigma0": "sigma0", "r_core": "core", "gamma": "gamma", **CENTRE}
    numbers = _numbers("SPL_CORE", values, keywords)
    gamma, sigma0 = numbers["gamma"], numbers.pop("sigma0") * _projection(numbers["gamma"])
    strength = (2 * sigma0 / (3 - gamma)) ** (1 / (gamma - 1))
    return "CoredPowerLaw", {"theta_E": numbers["core"] * strength, **numbers}


def _from_elliptical_nfw(values: Values) -> Named:
    keywords = {"Rs": "r_s", "alpha_Rs": "alpha_rs", **ELLIPSE}
    return "EllipticalNFW", _numbers("NFW_ELLIPSE_CSE", values, keywords)


def _from_pjaffe(values: Values) -> Named:
    keywords = {"sigma0": "sigma0", "Ra": "core", "Rs": "edge", **CENTRE}
    numbers = _numbers("PJAFFE", values, keywords)
    core, edge = sorted((numbers["core"], numbers["edge"]))
    theta_E = 2 * numbers.pop("sigma0") * core * edge / (edge - core)
    return "DPIE", {**numbers, "theta_E": theta_E, "core": core, "edge": edge}


SERSIC_MASS = {"k_eff": "amplitude", "R_sersic": "r_eff", "n_sersic": "n"}


def _from_sersic_mass(values: Values) -> Named:
    numbers = _numbers("SERSIC", values, {**SERSIC_MASS, **CENTRE})
    amplitude, radius = same_b(numbers["n"])
    numbers["amplitude"] /= amplitude
    numbers["r_eff"] /= radius
    return "SersicMass", numbers


def _from_sersic_ellipse(values: Values) -> Named:
    shape = _numbers("SERSIC_ELLIPSE_KAPPA", values, {**SERSIC_MASS, **ELLIPSE})
    theirs, e1, e2 = _modulus(shape), shape.pop("e1"), shape.pop("e2")
    round_one = {key: values[key] for key in values if key not in ("e1", "e2")}
    name, numbers = _from_sersic_mass(round_one)
    q = 1 - theirs
    if not 0 < q <= 1:
        raise InputError(f"e1 = {e1}, e2 = {e2} of SERSIC_ELLIPSE_KAPPA are refused: their modulus is 1 - q")
    factor = 1 / (1 + q)  # of (1 - q) / (1 + q) over 1 - q
    numbers["r_eff"] *= math.sqrt(q)
    return name, {**numbers, "e1": e1 * factor, "e2": e2 * factor}


def _from_gaussian_mass(values: Values) -> Named:
    numbers = _numbers("GAUSSIAN_ELLIPSE_KAPPA", values, {"amp": "kappa_0", "sigma": "sigma", **ELLIPSE})
    numbers["kappa_0"] /= 2 * math.pi * numbers["sigma"] ** 2
    return "GaussianMass", numbers


def _from_multipole(values: Values) -> Named:
    _refuse_other("MULTIPOLE", values, {"r_E": 1.0} if values.get("m") == 1 else {})
    values.pop("r_E", None)
    numbers = _numbers("MULTIPOLE", values, {"m": "m", "a_m": "a_m", "phi_m": "phi_m", **CENTRE})
    m = int(numbers["m"])
    a = cmath.rect(numbers.pop("a_m"), m * numbers.pop("phi_m"))
    return "Multipole", {**numbers, "m": m, "a1": a.real, "a2": a.imag}


def _from_elliptical_multipole(values: Values) -> Named:
    q = float(values.pop("q", 1.0))
    if q != 1 and int(values.get("m", 0)) != 4:
        raise InputError(
            f"MULTIPOLE_ELL of m = {values.get('m')} is refused: its uniform deflection differs; give m = 4"
        )
    numbers = _from_multipole(values)[1]
    return "EllipticalMultipole", {**numbers, "e1": (1 - q) / (1 + q), "e2": 0.0}


def _from_interpol(values: Values) -> Named:
    x, y = (np.asarray(values[f"grid_interp_{axis}"], dtype=float) for axis in "xy")
    steps = np.concatenate([np.diff(x), np.diff(y)])
    if abs(x[0] + x[-1]) + abs(y[0] + y[-1]) > 1e-9 or np.ptp(steps) > 1e-6 * abs(steps[0]):
        raise InputError("the grid of INTERPOL has to have square pixels around (0, 0): resample it")
    return "PixelatedDeflection", {
        "alpha_x": np.asarray(values["f_x"], dtype=float),
        "alpha_y": np.asarray(values["f_y"], dtype=float),
        "pixel_scale": float(steps.mean()),
    }


def _from_shear_polar(values: Values) -> Named:
    keywords = {"gamma_ext": "gamma", "psi_ext": "angle", "ra_0": "x_0", "dec_0": "y_0"}
    numbers = _numbers("SHEAR_GAMMA_PSI", values, keywords)
    gamma = cmath.rect(numbers.pop("gamma"), 2 * numbers.pop("angle"))
    return "Shear", {**numbers, "gamma1": gamma.real, "gamma2": gamma.imag}


FROM: dict[str, Callable[[Values], Named]] = {
    "NIE": _from_nie,
    "NFW_ELLIPSE_CSE": _from_elliptical_nfw,
    "SPL_CORE": _from_spl_core,
    "PJAFFE": _from_pjaffe,
    "SERSIC": _from_sersic_mass,
    "SERSIC_ELLIPSE_KAPPA": _from_sersic_ellipse,
    "GAUSSIAN_ELLIPSE_KAPPA": _from_gaussian_mass,
    "MULTIPOLE": _from_multipole,
    "MULTIPOLE_ELL": _from_elliptical_multipole,
    "INTERPOL": _from_interpol,
    "SHEAR_GAMMA_PSI": _from_shear_polar,
}


# ---------------------------------------------------------------- light


def light_to(name: str, values: Values) -> Named:
    """The model of lenstronomy of a light profile; brightness in the image's unit per arcsec2."""
    if name == "Sersic":
        amplitude, radius = same_b(values["n"])
        e = _modulus(values)
        circular = values["r_eff"] * math.sqrt((1 - e) / (1 + e))
        size = {"R_sersic": circular * radius, "n_sersic": values["n"]}
        return "SERSIC_ELLIPSE", {"amp": values["amplitude"] * amplitude, **size, **_ellipse(values)}
    if name == "MultiGaussian":
        amounts = {"amp": np.asarray(values["flux"]), "sigma": np.asarray(values["sigma"])}
        return "MULTI_GAUSSIAN_ELLIPSE", {**amounts, **_ellipse(values)}
    if name == "PixelatedSource":
        image = {"image": np.asarray(values["image"]), "amp": values["amplitude"], "phi_G": 0.0}
        return "INTERPOL", {**image, "scale": values["pixel_scale"], **_centre(values)}
    raise InputError(f"lenstronomy has no {name}: give a Sersic, a MultiGaussian or a PixelatedSource")


def light_from(names: Sequence[str], kwargs: Sequence[Values]) -> list[Named]:
    """Light profiles of ours from the names and keywords of lenstronomy."""
    return list(_read(names, kwargs, _one_light))


def _one_light(name: str, values: Values) -> Named:
    if name in ("SERSIC", "SERSIC_ELLIPSE"):
        keywords = {"amp": "amplitude", "R_sersic": "r_eff", "n_sersic": "n", **ELLIPSE}
        numbers = _numbers(name, values, keywords)
        amplitude, radius = same_b(numbers["n"])
        e = _modulus(numbers)
        numbers["amplitude"] /= amplitude
        numbers["r_eff"] *= math.sqrt((1 + e) / (1 - e)) / radius
        return "Sersic", numbers
    if name in ("GAUSSIAN", "MULTI_GAUSSIAN", "MULTI_GAUSSIAN_ELLIPSE"):
        shape = {key: value for key, value in values.items() if key not in ("amp", "sigma")}
        amounts = {key: np.atleast_1d(np.asarray(values[key], dtype=float)) for key in ("amp", "sigma")}
        numbers = _numbers(name, shape, ELLIPSE)
        return "MultiGaussian", {"sigma": amounts["sigma"], "flux": amounts["amp"], **numbers}
    if name == "INTERPOL":
        _refuse_turned(values.pop("phi_G", 0.0))
        image = np.asarray(values.pop("image"), dtype=float)
        numbers = _numbers(
            name, {"amp": 1.0, **values}, {"amp": "amplitude", "scale": "pixel_scale", **CENTRE}
        )
        return "PixelatedSource", {"image": image, **numbers}
    known = "SERSIC, SERSIC_ELLIPSE, GAUSSIAN, MULTI_GAUSSIAN, MULTI_GAUSSIAN_ELLIPSE, INTERPOL"
    raise InputError(f"lenstronomy's {quoted(name)} has no counterpart here: give one of {known}")


def _refuse_turned(angle: float) -> None:
    if angle != 0:
        raise InputError(f"phi_G = {angle} of INTERPOL is refused: resample the image along x and y")
