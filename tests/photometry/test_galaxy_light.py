"""A bright galaxy with a wide halo, and faint ones on it."""

import astropy.units as u
import numpy as np
import pytest
import torch

from lenssr import SersicPhotometry
from lenssr.light.sersic import sersic_flux
from lenssr.photometry import decode_flags
from lenssr.photometry.galaxy_light import NeighbourLight, _chi2_of_light

SIGMA = 0.02
SHAPE = (101, 111)
WHERE = {"x": [50.0, 80.0, 22.0], "y": [50.0, 55.0, 20.0]}
BRIGHT = {"amplitude": 0.3, "r_eff": 9.0, "n": 3.0, "x": 50.3, "y": 49.8, "ellip": 0.3}
FAINT = {"amplitude": 0.15, "r_eff": 3.0, "n": 1.0, "x": 80.2, "y": 55.1, "ellip": 0.3, "theta": 100.0}
PARTS = BRIGHT, FAINT, FAINT | {"x": 21.7, "y": 20.3, "ellip": 0.1}
OPTIONS = {"psf": 2.5 * u.pix, "intervals": "gaussian"}


@pytest.fixture(scope="module")
def fitted(galaxy, noisy):
    """The object, the image and the table."""
    data = noisy(sum(galaxy(SHAPE, **part) for part in PARTS))
    phot = SersicPhotometry(**OPTIONS)
    return phot, data, phot(data, error=SIGMA, init_params=WHERE)


@pytest.mark.parametrize("name", ["flux", "r_eff", "n"])
@pytest.mark.parametrize("row", range(3))
def test_neighbours_have_the_shape_that_they_have_alone(fitted, row, name):
    table = fitted[2]
    galaxy = PARTS[row]
    truth = galaxy.get(name)
    if name == "flux":
        shape = (torch.tensor(galaxy[n], dtype=torch.float64) for n in ("amplitude", "r_eff", "n"))
        truth = (1 - galaxy["ellip"]) * float(sersic_flux(*shape))
    value, error = (float(getattr(table[n][row], "value", table[n][row])) for n in (name, f"{name}_err"))
    assert abs(value - truth) < 3 * error
    assert error < 0.2 * truth


def test_the_residual_has_no_step_where_a_stamp_ends(fitted):
    phot, data, _ = fitted
    left = (data - phot.make_model_image(SHAPE, include_sky=True)) / SIGMA
    inside = np.zeros(SHAPE, dtype=bool)
    inside[25:76, 25:76] = True
    ring = np.zeros(SHAPE, dtype=bool)
    ring[19:82, 19:82] = True
    assert abs(left[ring & ~inside].mean()) < 0.15
    assert abs(left.std() - 1) < 0.05


def test_light_is_drawn_as_far_as_it_reaches(fitted):
    model = fitted[0].make_model_image(SHAPE)
    assert model[[0, 0, -1, -1], [0, -1, 0, -1]].min() > 0
    steps = np.abs(np.diff(model, axis=1))[:10]
    assert steps.max() < 0.2 * SIGMA


def test_the_sky_of_a_model_has_no_steps(galaxy, noisy):
    data = noisy(galaxy((51, 140), x=25.0, y=25.0) + galaxy((51, 140), x=110.0, y=25.0))
    data[:, 70:] += 0.1
    phot = SersicPhotometry(**OPTIONS)
    table = phot(data, error=SIGMA, init_params={"x": [25.0, 110.0], "y": [25.0, 25.0]})
    shape = data.shape
    sky = phot.make_model_image(shape, include_sky=True) - phot.make_model_image(shape)
    assert sky[25, [25, 110]] == pytest.approx(table["sky"].tolist(), abs=0.005)
    assert np.abs(np.diff(sky)).max() < 0.005


def test_flags_say_what_is_wrong(fitted):
    found = [set(decode_flags(flags)) for flags in fitted[2]["flags"]]
    assert "BLENDED" not in found[0]
    assert found[1] == {"BLENDED"}


def test_galaxies_apart_are_fitted_as_if_alone(galaxy, noisy):
    data = noisy(galaxy((51, 160), x=25.0, y=25.0) + galaxy((51, 160), x=130.0, y=25.0))
    phot = SersicPhotometry(**OPTIONS)
    both = phot(data, error=SIGMA, init_params={"x": [25.0, 130.0], "y": [25.0, 25.0]})
    alone = phot(data, error=SIGMA, init_params={"x": [25.0], "y": [25.0]})
    for name in ("flux", "n", "n_err", "sky", "iterations"):
        # Batches of two and of one round in other orders.
        assert both[name][0] == pytest.approx(alone[name][0], rel=1e-5)
    assert both["flags"][0] == alone["flags"][0] == 0


def test_chi2_of_light_is_its_variance_about_the_best_constant():
    rng = np.random.default_rng(0)
    light, weight = rng.uniform(0, 5, (2, 9, 11))
    mean = np.average(light, weights=weight)
    expected = weight.sum() * np.average((light - mean) ** 2, weights=weight)
    assert _chi2_of_light(light, weight) == pytest.approx(expected)
    assert _chi2_of_light(np.full((9, 11), 3.0), weight) == pytest.approx(0, abs=1e-9)
    assert _chi2_of_light(light, 0 * weight) == 0


def test_light_of_others_is_the_model_without_ones_own(fitted):
    phot = fitted[0]
    rows, solver = phot._rows, phot._solver
    tasks = [rows.fits[k][0].task for k in range(3)]
    lights = NeighbourLight(tasks, rows, solver)
    everything = phot.make_model_image(SHAPE)
    for k, task in enumerate(tasks):
        inside = task.cut(everything)
        assert lights.others(task, 0) + lights.of(k, task, 0) == pytest.approx(inside, abs=1e-9)
    lights.take(tasks[0])
    near_bright = lights.others(tasks[0], 0)
    assert near_bright.max() < 0.2 * tasks[0].cut(everything).max()


def test_hidden_and_foreign_pixels_have_no_weight(fitted):
    task = fitted[0]._rows.fits[1][0].task
    weight = task.weight(0)
    assert np.array_equal(weight > 0, task.own_pixels)
    assert weight[task.own_pixels] == pytest.approx(SIGMA**-2)
