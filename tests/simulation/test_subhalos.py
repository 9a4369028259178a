"""Draws of dark substructure: as the code of the DeepLense simulations has them, and with options."""

import numpy as np
import pytest

from lenssr.exceptions import InputError
from lenssr.simulation import AxionVortex, ColdSubhalos, DeepLense


def many(kind, times=400):
    drawn = [kind.draw(np.random.default_rng(seed)) for seed in range(times)]
    return [np.concatenate([one[column] for one in drawn]) for column in range(3)]


@pytest.mark.parametrize("slope", [-0.9, -1.9, -1.0])
def test_masses_follow_their_power_law(slope):
    masses, _, _ = many(ColdSubhalos(slope=slope))
    assert masses.min() >= 1e6 and masses.max() <= 1e10
    edges = np.geomspace(1e6, 1e10, 9)
    power = slope + 1
    below = np.log(edges) if abs(power) < 1e-9 else edges**power
    expected = np.diff(below) / (below[-1] - below[0])
    share = np.histogram(masses, edges)[0] / masses.size
    assert share == pytest.approx(expected, abs=4 * np.sqrt(0.25 / masses.size))


def test_subhalos_are_uniform_in_radius_and_angle():
    _, x, y = many(ColdSubhalos())
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    for values, low, high in ((radius, 0.25, 2.0), (angle, -np.pi, np.pi)):
        share = np.histogram(values, np.linspace(low, high, 9))[0] / values.size
        assert values.min() >= low - 1e-12 and values.max() <= high + 1e-12
        assert share == pytest.approx(1 / 8, abs=4 * np.sqrt(0.11 / values.size))


def test_number_is_fixed_or_poisson():
    def numbers(kind):
        return [len(kind.draw(np.random.default_rng(seed))[0]) for seed in range(300)]

    assert set(numbers(ColdSubhalos())) == {25}
    drawn = numbers(ColdSubhalos(poisson=True))
    assert np.mean(drawn) == pytest.approx(25, abs=1) and np.var(drawn) == pytest.approx(25, rel=0.3)


def test_a_vortex_is_a_line_through_the_centre():
    masses, x, y, numbers = AxionVortex().draw(np.random.default_rng(3))
    assert masses.sum() == pytest.approx(3e10) and len(set(masses)) == 1 and len(masses) == 100
    half = 0.03e-22 / 10 ** numbers["log_axion_mass"]
    along = np.hypot(x, y) * np.sign(x * x[0] + y * y[0])
    assert np.abs(x * y[0] - y * x[0]).max() < 1e-12 * half**2
    assert along == pytest.approx(np.linspace(half, -half, 100))


def test_axion_masses_are_uniform_in_the_logarithm():
    drawn = [AxionVortex().draw(np.random.default_rng(seed))[3]["log_axion_mass"] for seed in range(500)]
    assert np.histogram(drawn, np.linspace(-24, -22, 5))[0] / 500 == pytest.approx(0.25, abs=0.08)


def test_einstein_radii_are_those_of_the_data_set():
    masses, x, y, _ = ColdSubhalos().draw(DeepLense(substructure="cdm").rng(4, 3))
    subhalos = DeepLense(substructure="cdm").batch([4]).scenes.subhalos[0].numpy()
    assert subhalos[:, 0] == pytest.approx(1.28149057 * np.sqrt(masses / 1e12), rel=1e-6)
    assert subhalos[:, 1:] == pytest.approx(np.stack([x, y], axis=1), rel=1e-6)


@pytest.mark.parametrize("kind", [ColdSubhalos(slope=-1.9, poisson=True), AxionVortex(1e10, number=7)])
def test_repr_makes_the_same(kind):
    assert eval(repr(kind)) == kind
    assert DeepLense(substructure=kind).settings()["substructure"] == repr(kind)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: ColdSubhalos(0), "number = 0"),
        (lambda: ColdSubhalos(slope=np.nan), "slope"),
        (lambda: ColdSubhalos(masses=(1e10, 1e6)), "masses"),
        (lambda: ColdSubhalos(radii=(-1, 2)), "radii"),
        (lambda: AxionVortex(-1), "mass"),
        (lambda: AxionVortex(number=1), "number = 1"),
        (lambda: AxionVortex(log_axion_mass=(-22, -24)), "log_axion_mass"),
    ],
)
def test_settings_are_checked(make, match):
    with pytest.raises(InputError, match=match):
        make()
