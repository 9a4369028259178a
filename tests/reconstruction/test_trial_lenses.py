"""Trial lenses find those that lenstronomy rendered, whatever the source looks like."""

import importlib

import astropy.units as u
import numpy as np
import pytest
import torch

from lenssr.grids import PixelGrid
from lenssr.imaging import Observation
from lenssr.model.fit import Constraints, bin_factor
from lenssr.model.initial_guess import light_start
from lenssr.options import Settings
from lenssr.reconstruction import decisions
from lenssr.reconstruction.parametric import ParametricReconstruction, stack_of
from lenssr.reconstruction.trial_lenses import _LensPrior, search_trial_lenses, solve_behind
from lenssr.reconstruction.trial_pixels import Pixels, _halo_left

pytestmark = pytest.mark.filterwarnings("ignore:`axes` should not be `None`:DeprecationWarning")


@pytest.fixture(scope="module")
def clumpy():
    """A clumpy galaxy behind a lens of 1.1 arcsec."""
    rendered = importlib.import_module("rendered_lenses")
    lens = (1.1, 0.12, -0.06, 0.02, -0.01, 0.03, -0.02)
    return rendered.RenderedLens(lens=lens, source=rendered.clumpy(0.09, -0.06), snr=40.0)


def prepared(rendered, change=None, **settings):
    """Stack, scene and constraints of a noisy image, as the search has them."""
    data = rendered.draw(1)
    if change is not None:
        change(data)
    settings = Settings(source="pixelated", lens_light="sersic" if rendered.light else None, **settings)
    psf = rendered.fwhm * u.arcsec
    observation = Observation.from_any(data, psf=psf, noise=rendered.sigma, pixel_scale=rendered.pixel_scale)
    stack = stack_of([observation], settings)
    scene = ParametricReconstruction(settings).scene(observation, "cpu")
    centre = torch.zeros(1, 2, dtype=torch.float64)
    constraints = Constraints.of(scene, 1).centred_on(scene, centre, decisions.CENTRE_BOUND)
    return stack, scene, constraints


def number(scene, lens, name):
    return float(lens[scene["lens"].column(name) - scene["lens"].start])


def test_the_likeliest_trial_lens_is_the_one_that_was_rendered(clumpy):
    stack, scene, constraints = prepared(clumpy)
    found = search_trial_lenses(stack, scene, constraints, np.random.default_rng(0))
    theta_E, e1, e2, x_0, y_0, *_ = clumpy.lens
    best = found[0].lens
    assert number(scene, best, "theta_E") == pytest.approx(theta_E, rel=0.02)
    assert number(scene, best, "e1") == pytest.approx(e1, abs=0.08)
    assert number(scene, best, "e2") == pytest.approx(e2, abs=0.08)
    assert np.hypot(number(scene, best, "x_0") - x_0, number(scene, best, "y_0") - y_0) < clumpy.pixel_scale
    assert found[0].extent < decisions.WIDEST_SOURCE
    posterior = [one.log_posterior for one in found]
    assert posterior == sorted(posterior, reverse=True)


def test_seeds_and_runs_agree(clumpy):
    prepared_once = prepared(clumpy)
    first, again, other = (
        search_trial_lenses(*prepared_once, np.random.default_rng(seed))[0].lens for seed in (0, 0, 5)
    )
    assert torch.equal(first, again)
    scene = prepared_once[1]
    assert number(scene, other, "theta_E") == pytest.approx(number(scene, first, "theta_E"), rel=0.01)


def test_a_few_bright_pixels_are_outliers(clumpy):
    def hit(data):
        for row, column in ((6, 9), (30, 33), (33, 8), (8, 31)):
            data.data[row : row + 2, column] += 200 * clumpy.sigma

    stack, scene, constraints = prepared(clumpy, hit)
    best = search_trial_lenses(stack, scene, constraints, np.random.default_rng(0))[0].lens
    assert number(scene, best, "theta_E") == pytest.approx(clumpy.lens[0], rel=0.03)


def test_an_image_without_arcs_has_no_trial_lens(clumpy):
    def darken(data):
        data.data[...] = np.random.default_rng(3).normal(0, clumpy.sigma, data.data.shape)

    assert search_trial_lenses(*prepared(clumpy, darken), np.random.default_rng(0)) == []


def test_evidence_falls_away_from_the_lens_and_a_weak_lens_has_a_wide_source(clumpy):
    stack, scene, _ = prepared(clumpy)
    pixels = Pixels.of(stack, scene)
    vector, block = scene.lens.vector.double(), scene["lens"]
    for name, value in zip(("theta_E", "e1", "e2", "x_0", "y_0"), clumpy.lens, strict=False):
        vector[block.column(name) - block.start] = value
    vectors = vector.expand(3, -1).clone()
    vectors[:, block.column("theta_E") - block.start] *= torch.tensor([1.0, 1.15, 0.35])
    behind = solve_behind(pixels, scene.lens, vectors)
    assert behind.evidence[0] > behind.evidence[1] + 50
    assert behind.extent[0] < 0.33 * 1.1 and behind.extent[2] > 0.33 * 0.35 * 1.1


def test_slopes_are_those_of_differences(clumpy):
    """The projected gradient at a fixed source, against a small step of the lens."""
    stack, scene, _ = prepared(clumpy)
    pixels = Pixels.of(stack, scene)
    block = scene["lens"]
    vector = scene.lens.vector.double()
    vector[block.column("theta_E") - block.start] = 1.05
    behind = solve_behind(pixels, scene.lens, vector[None])
    column, step = block.column("theta_E") - block.start, 1e-3
    moved = vector.clone()
    moved[column] += step
    there = solve_behind(pixels, scene.lens, moved[None], last=behind)
    uphill = float((behind.slope[0, column] * behind.trust[0] * behind.residual[0]).sum())
    gain = float(there.evidence - behind.evidence) / step
    assert np.sign(uphill) == np.sign(gain)
    assert torch.linalg.eigvalsh(behind.projected[0][:5, :5]).min() > -1e-6


def test_they_tell_lens_light_from_arcs():
    """The light is a sum of Gaussians of its shape behind each lens, where lenstronomy rendered a Sérsic."""
    rendered = importlib.import_module("rendered_lenses")
    light, source = rendered.sersic(8.0, 0.4, 2.5, 0.02, -0.01, 0.1, -0.02), rendered.clumpy(0.09, -0.06)
    lens = rendered.RenderedLens(
        lens=(1.1, 0.12, -0.06, 0.02, -0.01, 0.03, -0.02), source=source, light=light
    )
    stack, scene, constraints = prepared(lens)
    first = light_start(stack.binned(bin_factor(stack.grid)), scene)
    assert first[0, 3:5].tolist() == pytest.approx([0.02, -0.01], abs=lens.pixel_scale)
    found = search_trial_lenses(stack, scene, constraints, np.random.default_rng(0), first)
    assert number(scene, found[0].lens, "theta_E") == pytest.approx(1.1, rel=0.03)
    pixels = Pixels.of(stack, scene, first)
    assert len(pixels.light) > 5  # and the sky
    torch.testing.assert_close(pixels.light.norm(dim=1), torch.ones(len(pixels.light), dtype=torch.float64))
    assert pixels.shape.tolist() == pytest.approx([0.1, -0.02], abs=0.05)


@pytest.mark.parametrize("follows", [True, False])
def test_shapes_of_trial_lenses_lie_around_that_of_the_light_or_not(follows):
    rendered = importlib.import_module("rendered_lenses")
    light = rendered.sersic(8.0, 0.4, 2.5, 0.02, -0.01, 0.15, -0.1)
    lens = rendered.RenderedLens(
        lens=(1.1, -0.12, 0.06, 0.02, -0.01, 0.0, 0.0), source=rendered.clumpy(0.09, -0.06), light=light
    )
    stack, scene, constraints = prepared(lens, mass_follows_light=follows)
    first = light_start(stack.binned(bin_factor(stack.grid)), scene)
    pixels = Pixels.of(stack, scene, first)
    assert pixels.shape[0] > 0.05 and pixels.shape[1] < -0.02
    prior = _LensPrior.of(scene, constraints, pixels)
    columns = [scene["lens"].column(name) - scene["lens"].start for name in ("e1", "e2")]
    assert prior.mean[columns].tolist() == pytest.approx((pixels.shape * follows).tolist())
    width = decisions.FOLLOWS_LIGHT if follows else 0.2
    assert prior.stiffness[columns].tolist() == pytest.approx([width**-2] * 2)


def test_the_rest_of_a_halo_goes_and_arcs_stay():
    """Patches of a halo that is flatter outside than the first lens light, beside a thin arc."""
    grid = PixelGrid((48, 48), 0.15)
    x, y = (torch.as_tensor(axis.ravel()) for axis in (grid.x, grid.y))
    radius, angle = torch.hypot(x, y), torch.atan2(y, x)
    flat = torch.exp(-((x / 3.0) ** 2 + (y / 1.5) ** 2) / 2) - torch.exp(-(radius**2) / 2 / 2.0**2)
    arc = 8 * torch.exp(-((radius - 1.2) ** 2) / 2 / 0.1**2) * (angle.abs() < 1.0)
    noise = torch.as_tensor(np.random.default_rng(2).normal(size=len(x)))
    residual, galaxy = 20 * flat + arc + noise, torch.zeros(4, dtype=torch.float64)
    left = residual - _halo_left(residual, torch.ones_like(x), x, y, grid, galaxy)
    patches = 20 * flat > 3
    assert residual[patches].mean() > 3 and left[patches & (arc < 0.1)].mean().abs() < 0.5
    assert left[arc > 4].mean() > 0.85 * (arc + noise)[arc > 4].mean()
    hollow = 20 * flat < -3
    assert residual[hollow].mean() < -3 and left[hollow & (arc < 0.1)].mean().abs() < 0.5
    again = {
        (_halo_left(residual, torch.ones_like(x), x, y, grid, galaxy) + 0).numpy().tobytes()
        for _ in range(30)
    }
    assert len(again) == 1  # not so of torch.linalg.lstsq
