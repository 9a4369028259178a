"""Which trial lenses are looked at once more, and which of them wins."""

from types import SimpleNamespace

import astropy.units as u
import numpy as np
import pytest
import torch

from lenssr import SIE, Sersic, Shear, SuperResolver
from lenssr.grids import PixelGrid
from lenssr.imaging import PSF, Observation, render
from lenssr.model.fit import Constraints
from lenssr.model.initial_guess import light_start
from lenssr.reconstruction import decisions
from lenssr.reconstruction.parametric import ParametricReconstruction, stack_of
from lenssr.reconstruction.rival_lenses import likeliest, rivals, rough_fit
from lenssr.reconstruction.trial_lenses import TrialLens, _oddity


def trial(log_posterior, extent=0.2, reach=1.3, oddity=0.0):
    return TrialLens(torch.ones(9), log_posterior, extent, reach, 1.0, oddity)


def end(evidence, temperature=1.0):
    """What a look ends with; one at another temperature says how much its chi2 is too high."""
    return SimpleNamespace(
        temperature=temperature, evidence_at=lambda coolest: evidence * temperature / coolest
    )


def test_lenses_that_are_nearly_as_likely_are_rivals():
    trials = [
        trial(-100.0),
        trial(-100.0 - 0.9 * decisions.RIVAL_TRIAL),
        trial(-100.0 - 1.1 * decisions.RIVAL_TRIAL),
    ]
    assert rivals(trials) == trials[:2]


@pytest.mark.parametrize("odd", [{"extent": 0.7}, {"reach": 0.8}])
def test_the_likeliest_of_the_usual_lenses_is_a_rival_however_far_behind(odd):
    trials = [trial(-100.0, **odd), trial(-110.0, **odd), trial(-900.0), trial(-950.0)]
    assert rivals(trials) == [trials[0], trials[2], trials[1]]


def test_without_a_rival_nothing_has_to_be_looked_at():
    assert likeliest([("only", 50.0)], begin=None) == ("only", None)


def test_evidence_of_one_temperature_decides_less_what_is_lost_for_being_odd():
    ends = {"odd": end(-50.0), "usual": end(-90.0), "poor": end(-70.0, temperature=2.0)}
    fits = [("odd", 30.0), ("usual", 0.0), ("poor", 0.0)]
    assert likeliest(fits, ends.get) == ("odd", ends["odd"])
    assert likeliest([("odd", 50.0), *fits[1:]], ends.get) == ("usual", ends["usual"])


def test_nothing_is_lost_for_being_odd_within_the_limits():
    extent, reach = torch.tensor([0.1, 0.33, 0.66, 0.1]), torch.tensor([1.2, 1.0, 1.2, 0.5])
    lost = _oddity(extent, reach)
    assert lost[:2].tolist() == [0, 0]
    # ln(2)^2 of what the limits are multiplied with
    assert lost[2:].tolist() == pytest.approx([0.48045 * decisions.WIDE, 0.48045 * decisions.NEAR], rel=1e-4)


def test_a_source_that_is_no_sersic_does_not_move_a_trial_lens():
    """Of two clumps one Sérsic makes a lens that spreads it over both."""
    grid, psf, sigma = PixelGrid((50, 50), 0.08), PSF.from_fwhm(0.15 * u.arcsec), 0.3
    lens = SIE(1.0, 0.1, -0.05) + Shear(0.03, -0.02)
    clumps = [Sersic(40.0, r_eff=0.06, n=1.0, x_0=x, y_0=y) for x, y in ((0.22, -0.05), (-0.1, 0.25))]
    galaxy = Sersic(900.0, r_eff=0.5, n=3.0, e1=0.1)
    low = sum(render(grid, psf=psf, lens=lens, source=one) for one in clumps)
    low = low + render(grid, psf=psf, source=galaxy)
    data = low + np.random.default_rng(3).normal(0, sigma, low.shape)
    image = Observation.from_any(data, noise=sigma, pixel_scale=0.08, psf=psf, unit="electron")
    settings = SuperResolver(source="pixelated", lens_light="mge").settings
    stack = stack_of([image], settings)
    scene = ParametricReconstruction(settings).scene(image, "cpu")
    plain, light = scene.with_plain_light(), light_start(stack, scene)
    true = lens.vector
    fit = rough_fit(true, stack, scene, plain, light, Constraints.of(plain, 1), 100.0)
    assert (fit.physical[scene["lens"].slice][: len(true)] - true).abs().max() < 0.01
