"""PyAutoLens's parameters: against its formulas, and the numbers of a lens that its authors simulated."""

import numpy as np
import pytest

from lenssr import mass
from lenssr.exceptions import InputError
from lenssr.light import from_autolens as light_from_autolens

# The public mock as its authors describe it (PyAutoLabs/autolens_profiling, MIT licence).
MASS = [
    ("Isothermal", {"centre": (0.0, 0.0), "einstein_radius": 1.6, "ell_comps": (0.0526, 0.0)}),
    ("ExternalShear", {"gamma_1": 0.05, "gamma_2": 0.05}),
]
LIGHT = {"intensity": 2.0, "effective_radius": 0.6, "sersic_index": 3.0, "ell_comps": (0.0526, 0.0)}


def test_numbers_of_the_public_mock():
    lens = mass.from_autolens(MASS)
    expected = {"theta_E": 1.5978, "e1": 0.0, "e2": 0.0526, "gamma1": 0.05, "gamma2": 0.05}
    for name, value in expected.items():
        assert getattr(lens, name).value == pytest.approx(value, abs=5e-5)
    light = light_from_autolens([("Sersic", LIGHT)], 0.05)
    assert light.amplitude.value * 0.05**2 == pytest.approx(2.0)
    assert light.r_eff_circ == pytest.approx(0.6)
    assert (light.e1.value, light.e2.value) == (0.0, 0.0526)


@pytest.mark.parametrize("slope", [2.0, 1.7, 2.3])
def test_convergence_is_their_formula(slope):
    """(3 - slope) / (1 + q) (R / sqrt(x^2 + y^2 / q^2))^(slope - 1) along axes turned by 30 degrees."""
    q, angle, radius = 0.7, np.radians(30), 1.4
    e = (1 - q) / (1 + q)
    values = {"einstein_radius": radius, "ell_comps": (e * np.sin(2 * angle), e * np.cos(2 * angle))}
    lens = mass.from_autolens([("PowerLaw", {**values, "slope": slope, "centre": (0.3, -0.1)})])
    along, across = np.random.default_rng(0).normal(size=(2, 20))
    x = along * np.cos(angle) - across * np.sin(angle) - 0.1
    y = along * np.sin(angle) + across * np.cos(angle) + 0.3
    theirs = (3 - slope) / (1 + q) * (radius / np.hypot(along, across / q)) ** (slope - 1)
    np.testing.assert_allclose(lens.convergence(x, y), theirs, rtol=1e-10)


@pytest.mark.parametrize(
    ("name", "kind"), [("IsothermalSph", mass.SIS), ("PowerLawSph", mass.EPL), ("PointMass", mass.PointMass)]
)
def test_round_lenses_keep_their_radius(name, kind):
    values = {"einstein_radius": 1.3, "centre": (0.2, 0.1)} | ({"slope": 2.2} if "Law" in name else {})
    lens = mass.from_autolens([(name, values)])
    assert isinstance(lens, kind)
    assert lens.theta_E.value == pytest.approx(1.3)
    assert (lens.x_0.value, lens.y_0.value) == (0.1, 0.2)


@pytest.mark.parametrize(
    ("profile", "match"),
    [
        (("NFW", {}), "not translated"),
        (("Isothermal", {}), "lacks einstein_radius"),
        (("Isothermal", {"einstein_radius": 1.0, "slope": 2.0}), "no 'slope'"),
    ],
)
def test_profiles_that_are_refused(profile, match):
    with pytest.raises(InputError, match=match):
        mass.from_autolens([profile])
    if match == "not translated":
        with pytest.raises(InputError, match=match):
            light_from_autolens([profile], 0.05)
