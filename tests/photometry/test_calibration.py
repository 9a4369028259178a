"""The promise of calibrated errors: 68 % intervals hold the truth 68 % of the time."""

import astropy.units as u
import numpy as np
import pytest
from scipy.stats import binom

from lenssr import SersicPhotometry
from lenssr.light import sersic_flux

SIDE, GALAXIES = 49, 150
NAMES = ("x", "y", "r_eff", "n", "ellip", "flux")


def _number(column):
    return np.asarray(u.Quantity(column).value, dtype=float)


@pytest.fixture(scope="module")
def sample(galaxy, noisy):
    """Truths, images and sigmas of galaxies whose stamps are 8 r_eff or more."""
    rng = np.random.default_rng(5)
    truths, images, sigmas = [], [], []
    for k in range(GALAXIES):
        indices, signals = (((0.5, 2.5), (50, 300)), ((2.5, 6.0), (200, 1000)))[k % 2]
        truth = {name: rng.uniform(*ends) for name, ends in {
            "x": (23.5, 24.5), "y": (23.5, 24.5), "r_eff": (2.0, 6.0), "n": indices, "ellip": (0.05, 0.7),
            "theta": (0.0, 180.0)}.items()}  # fmt: skip
        mean_radius = truth["r_eff"] * np.sqrt(1 - truth["ellip"])
        truth["flux"] = float(sersic_flux(1.0, mean_radius, truth["n"]))
        image = galaxy((SIDE, SIDE), **truth)
        sigma = np.sqrt((image**2).sum()) / np.exp(rng.uniform(*np.log(signals)))
        truths.append(truth)
        images.append(noisy(image, sigma, seed=k))
        sigmas.append(sigma)
    return truths, images, sigmas


@pytest.mark.slow
def test_intervals_hold_the_truth_as_often_as_they_say(sample):
    truths, images, sigmas = sample
    phot = SersicPhotometry(psf=2.5 * u.pix, fit_shape=SIDE)
    found = phot.map(images, error=sigmas, init_params={"x": [24.0], "y": [24.0]})
    least, most = binom.interval(0.999, GALAXIES, 0.68)
    for name in NAMES:
        true = np.array([truth[name] for truth in truths])
        value, error = _number(found[name]), _number(found[f"{name}_err"])
        if f"{name}_lower" in found.colnames:
            inside = (_number(found[f"{name}_lower"]) <= true) & (true <= _number(found[f"{name}_upper"]))
        else:
            inside = np.abs(value - true) <= error
        assert least <= inside.sum() <= most, (name, inside.sum())
        # The mean of so many pulls scatters by 1 / sqrt(N) about a bias of at most 0.2.
        pulls = (value - true)[error > 0] / error[error > 0]
        assert abs(pulls.mean()) < 0.2 + 3.5 / np.sqrt(GALAXIES), (name, pulls.mean())
