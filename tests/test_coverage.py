"""Errors mean what they say: the 68 % intervals of simulated lenses hold the truth 68 % of the time."""

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.nddata import CCDData

from lenssr import SIE, Sersic, Shear, SuperResolver
from lenssr.grids import PixelGrid
from lenssr.imaging import PSF, PoissonNoise, render

UNIT = u.electron / u.s
SHAPE, PIXEL_SCALE, SCALE = (45, 45), 0.08, 2
NOISE = PoissonNoise(1000 * u.s, 0.01 * UNIT)
LENSES = 64
GROUPS = {
    "theta_E": "lens",
    "lens shape": "lens",
    "lens centre": "lens",
    "shear": "lens",
    "source place": "source",
    "source shape": "source",
    "source profile": "source",
    "sky": "sky",
}
MEMBERS = {
    "theta_E": ("theta_E_0",),
    "lens shape": ("e1_0", "e2_0"),
    "lens centre": ("x_0_0", "y_0_0"),
    "shear": ("gamma1_1", "gamma2_1"),
    "source place": ("x_0", "y_0"),
    "source shape": ("e1", "e2"),
    "source profile": ("amplitude", "r_eff", "n"),
    "sky": ("sky",),
}


class Simulated:
    """One lens with everything that is true of it."""

    psf = PSF.from_fwhm(0.2 * u.arcsec)

    def __init__(self, seed):
        rng = np.random.default_rng([seed, 4711])
        self.lens = SIE(
            rng.uniform(0.6, 1.1), *rng.normal(0, 0.1, 2).clip(-0.25, 0.25), *rng.normal(0, 0.05, 2)
        )
        self.lens += Shear(*rng.normal(0, 0.03, 2))
        place, turn = rng.uniform(0.02, 0.25), rng.uniform(0, 2 * np.pi)
        self.source = Sersic(
            rng.uniform(10, 40) * UNIT / u.arcsec**2,
            r_eff=rng.uniform(0.12, 0.25),
            n=rng.uniform(0.7, 2.5),
            x_0=place * np.cos(turn),
            y_0=place * np.sin(turn),
            e1=rng.normal(0, 0.1),
            e2=rng.normal(0, 0.1),
        )
        self.sky = rng.uniform(0, 0.02)
        grid = PixelGrid(SHAPE, PIXEL_SCALE)
        light = {"lens": self.lens, "source": self.source, "psf": self.psf, "scale": SCALE}
        self.truth = render(grid, sky=self.sky * UNIT, **light).value
        low = self.truth.reshape(SHAPE[0], SCALE, SHAPE[1], SCALE).sum((1, 3))
        noise = PoissonNoise(1000, 0.01)
        self.image = CCDData(noise.draw(low, rng), unit=UNIT)
        near = self.lens.vector.clone()
        near[:7] += 0.01 * torch.as_tensor(rng.normal(size=7))
        self.near = self.lens.with_vector(near)

    def values(self):
        lens = {
            ("lens", name): float(v) for name, v in zip(self.lens.param_names, self.lens.vector, strict=True)
        }
        source = {
            ("source", name): float(getattr(self.source, name).value) for name in self.source.param_names
        }
        return {**lens, **source, ("sky", "sky"): self.sky}

    def check(self, result):
        """Pulls of all parameters, and of the image pixels with S/N > 3."""
        truth = self.values()
        rows = result.parameters[~result.parameters["fixed"]]
        pulls = {
            (row["component"], row["name"]): (row["value"] - truth[row["component"], row["name"]])
            / row["error"]
            for row in rows
        }
        image, error = result.image.data, result.image.uncertainty.array
        bright = image > 3 * error
        return pulls, ((image - self.truth) / error)[bright]


def within_one_sigma(pulls):
    return float(np.mean(np.abs(pulls) < 1))


@pytest.fixture(scope="module")
def checked():
    found = []
    for seed in range(LENSES):
        lens = Simulated(seed)
        resolver = SuperResolver(
            source="sersic", lens=lens.near, fit_lens=True, psf=lens.psf, noise=NOISE, scale=SCALE
        )
        found.append(lens.check(resolver(lens.image, pixel_scale=PIXEL_SCALE)))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("group", MEMBERS)
def test_intervals_of_parameters_hold_the_truth(checked, group):
    keys = [(GROUPS[group], name) for name in MEMBERS[group]]
    pulls = np.array([[pulls[key] for key in keys] for pulls, _ in checked])
    # Four binomial standard deviations beside the 7 %: members of a group are correlated, so they count once.
    scatter = np.sqrt(0.68 * 0.32 / len(pulls))
    assert abs(within_one_sigma(pulls) - 0.683) < 0.07 + 2 * scatter
    assert abs(np.median(pulls)) < 4 * 1.25 / np.sqrt(len(pulls))


@pytest.mark.slow
def test_intervals_of_pixels_hold_the_truth(checked):
    shares = [within_one_sigma(pixels) for _, pixels in checked]
    assert abs(np.mean(shares) - 0.683) < 0.07 + 2 * np.std(shares) / np.sqrt(len(shares))
