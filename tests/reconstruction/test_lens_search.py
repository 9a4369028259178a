"""How a lens is found: from radii, from a network, behind a free-form source, and where other modes lie."""

import pickle
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from astropy.wcs.utils import proj_plane_pixel_scales

from lenssr import SIE, InputError, SuperResolver
from lenssr.imaging import Observation
from lenssr.light import Sersic
from lenssr.light.sersic import SersicProfile
from lenssr.mass import Shear
from lenssr.model.scene import Scene
from lenssr.networks.deflection import LensEstimate
from lenssr.networks.network_source import LensNetwork
from lenssr.options import PARAMETRIC, SOURCES, Source
from lenssr.reconstruction import decisions, lens_search
from lenssr.reconstruction.lens_modes import Mode, other_starts, posterior_modes
from lenssr.simulation import BroadLenses, LensPopulation


@pytest.fixture(scope="module")
def item():
    return BroadLenses(sources=["sersic"], size=4, seed=3)[0]


def exponential():
    return SersicProfile(Sersic(n=1.0, fixed={"n": True}))


def resolve(item, **options):
    nothing = {"source": "sersic", "lens_light": None, "mask": None}
    return SuperResolver(**nothing, psf=item.psf, noise=item.noise, **options)(item.low)


def test_a_network_finds_the_lens(item):
    found = resolve(item, start="network")
    assert found.meta["lens_from"] == "network" and found.meta["start"] == "network"
    assert found.lens[0].theta_E.value == pytest.approx(item.lens[0].theta_E.value, rel=0.02)


def test_a_network_that_errs_is_not_believed(item, monkeypatch):
    """It is sure of a lens three times too small."""
    wrong = item.lens.vector[None, :7].clone()
    wrong[:, 0] /= 3
    half = max(item.low.shape) * proj_plane_pixel_scales(item.low.wcs)[0] * 3600 / 2
    free = LensEstimate(torch.zeros(1, 7, dtype=torch.float64), torch.eye(7)[None].double(), half).miss(wrong)
    sure = LensEstimate(free, 100 * torch.eye(7, dtype=torch.float64)[None], half)
    monkeypatch.setattr(LensNetwork, "estimate", lambda self, stack, scene: sure)
    found = resolve(item, start="network")
    assert found.lens[0].theta_E.value == pytest.approx(item.lens[0].theta_E.value, rel=0.02)


def test_a_galaxy_that_is_no_sersic_does_not_bend_the_lens():
    """A clumpy one, whose Einstein radius a Sérsic takes off by 7 %, 3.5 sigma off the network's."""
    item = BroadLenses(size=100, seed=11)[55]
    found = resolve(item, start="network", scale=1)
    theta_E, truth = found.lens[0].theta_E, item.lens[0].theta_E.value
    assert found.meta["lens_from"] == "pixelated" and "bad_arc_chi2" in found.flags
    assert theta_E.value == pytest.approx(truth, rel=0.03)
    assert abs(theta_E.value - truth) < 3 * theta_E.std
    covariance = found.covariance
    assert covariance.shape == (len(found.covariance_names),) * 2
    assert np.linalg.eigvalsh(covariance).min() > -1e-9 * covariance.max()


def test_a_source_that_another_process_registered_may_be_doubted(monkeypatch):
    monkeypatch.setitem(SOURCES, "disc", Source(method=PARAMETRIC, profile=exponential))
    sent = pickle.dumps(SuperResolver(source="disc", lens_light=None, start="network", scale=1).settings)
    monkeypatch.delitem(SOURCES, "disc")
    item = BroadLenses(size=100, seed=11)[55]
    observation = Observation.from_any(item.low, **item.given)
    (solved,) = pickle.loads(sent).method().solve([observation], lambda solved, _: solved)
    assert solved.fit.lens_from == "pixelated"


def test_a_lens_behind_hopeless_arcs_is_looked_for_though_the_network_agrees():
    """The Sérsic misses the arcs by far, the lens by 5 %, and is 2 standard deviations from the network's."""
    item = BroadLenses(size=6400, seed=13)[33 * 64]
    found = resolve(item, start="network", scale=1)
    assert found.meta["lens_from"] == "pixelated"
    assert found.lens[0].theta_E.value == pytest.approx(item.lens[0].theta_E.value, rel=0.01)


@pytest.mark.parametrize(
    ("residual", "agreement"),
    [(1.0, decisions.AGREES), (1.5, decisions.AGREES_WITH_ARCS_LEFT), (5.0, 0.0)],
    ids=["noise", "more than noise", "hopeless"],
)
def test_the_more_is_left_of_arcs_the_nearer_a_network_has_to_be(residual, agreement):
    """Arcs on the first 100 pixels, residuals of so many sigma; the rest does not count."""
    source, weight = torch.zeros(300), torch.full((300,), 4.0)
    source[:100] = 10.0
    data = source + residual / 2
    data[100:] = 100.0
    fit = SimpleNamespace(lensed_source=source, model=source, weight=weight)
    assert lens_search.agreement_wanted(fit, data) == agreement


def test_likely_lenses_are_one_sigma_apart():
    torch.manual_seed(1)
    root = torch.randn(2, 7, 7, dtype=torch.float64).tril(-1) / 10
    root = root + torch.diag_embed(torch.rand(2, 7, dtype=torch.float64) + 1)
    estimate = LensEstimate(torch.randn(2, 7, dtype=torch.float64) / 3, root, 2.0)
    likely = estimate.likely()
    torch.testing.assert_close(likely[:, 0], estimate.vector)
    for number, expected in enumerate((0.0, 1.0, 1.0)):
        distance = estimate.distance(likely[:, number])
        torch.testing.assert_close(distance, torch.full_like(distance, expected), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": "nowhere"}, "start: weights = 'nowhere'"),
        ({"start": "relensing"}, "holds a RelensingNetwork, not a DeflectionNetwork"),
        ({"start": "network", "lens": SIE(1.0)}, "is for a fit of an unknown lens: leave it out"),
    ],
)
def test_starts_without_meaning_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        SuperResolver(**options)


# ---------------------------------------------------------------- other modes

LENS = SIE(1.2) + Shear(0.0, 0.0)
WIDTHS = np.array([0.12, 0.2, 0.2, 0.1, 0.1, 0.1, 0.1])


class Problem:
    """What is asked of a problem: a free lens with priors, and a sky."""

    scene = Scene(lens=LENS, lens_free=True, lens_light=0, sky=True, source=0, extent=2.0)
    bounds = np.full(8, -0.5), np.full(8, 1.5)
    parameter_prior = np.zeros(8), np.array([0.0, *WIDTHS[1:] ** -2, 0.0])

    def physical(self, parameters):
        template = torch.cat([LENS.vector, torch.zeros(1)])[None].double()
        return self.scene.to_physical(torch.as_tensor(parameters)[None], template)


class Solution:
    """An end of an inversion whose lens is uncertain along one direction, by a share of the widths."""

    evidence = -100.0
    parameters = np.array([1.2, 0.1, 0.0, 0.02, -0.01, 0.03, 0.0, 0.5])

    def __init__(self, soft, error):
        soft = np.array(soft) / np.linalg.norm(soft)
        scaled = 1e-6 * np.eye(7) + error**2 * np.outer(soft, soft)
        self.parameter_covariance = np.eye(8)
        self.parameter_covariance[:7, :7] = scaled * np.outer(WIDTHS, WIDTHS)
        self.factor = self


@pytest.mark.parametrize(("error", "reach"), [(0.05, 0.25), (0.6, 1.0)])
def test_starts_lie_along_what_is_determined_worst(error, reach):
    soft = np.array([0, 0, 0, 0, 1, 0, -1])
    solution = Solution(soft, error)
    starts = other_starts(Problem(), solution, [])
    moved = np.array([start - solution.parameters for start in starts])
    assert len(starts) == 2
    np.testing.assert_allclose(moved[0], -moved[1], atol=1e-12)
    assert moved[0][4] * moved[0][6] < 0
    assert np.linalg.norm(moved[0][:7] / WIDTHS) == pytest.approx(reach, rel=1e-2)
    np.testing.assert_allclose(moved[0][[0, 1, 2, 3, 5, 7]], 0, atol=1e-3)


def test_modes_within_the_bounds_are_starts():
    place = Problem().physical(Solution.parameters)[0]
    near, far = place.clone(), place.clone()
    near[0], far[0] = 1.1, 3.0
    starts = other_starts(Problem(), Solution([1, 0, 0, 0, 0, 0, 0], 0.05), [(3.0, near), (4.0, far)])
    assert len(starts) == 3
    assert starts[2][0] == 1.1
    assert starts[2][7] == Solution.parameters[7]


def test_another_lens_is_told_with_its_evidence():
    best = Mode.of(Problem(), Solution([1, 0, 0, 0, 0, 0, 0], 0.05))
    within = replace(best, evidence=-101.0, lens=best.lens + 2 * np.sqrt(2 * best.variance))
    elsewhere = replace(best, evidence=-104.0, lens=best.lens + [0, 0, 0.1, 0, 0, 0, 0])
    modes = posterior_modes(best, [best, within, elsewhere])
    assert modes == [(8.0, elsewhere.physical)]


@pytest.mark.slow
def test_where_no_trial_lens_is_right_that_of_a_sersic_is():
    """A bright compact source: trial lenses are half as wide, and no Sérsic explains the binned pixels."""
    item = LensPopulation(size=1, seed=6, lens_light=False, scale=2)[0]
    result = SuperResolver(source="pixelated", psf=item.psf, noise=item.noise)(item.low)
    assert result.ok and result.R_E.value == pytest.approx(item.lens.einstein_radius().value, rel=0.02)
