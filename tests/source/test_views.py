"""Several exposures of one lens, and several bands, solved together."""

from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
import torch
from scipy.interpolate import RegularGridInterpolator
from scipy.signal import fftconvolve

from lenssr import SIE, Sersic, Shear
from lenssr.exceptions import InputError
from lenssr.grids import PixelGrid
from lenssr.imaging import PSF, GaussianNoise
from lenssr.model.fit import Constraints
from lenssr.model.image_stack import ImageStack
from lenssr.model.scene import Scene
from lenssr.source import Prior, Problem, Request, SourceGrid, View, linalg, solve, solve_bands

LENS = SIE(0.8, 0.1, -0.05) + Shear(0.02, 0.01)
SOURCE = Sersic(20.0, r_eff=0.2, n=1.0, x_0=0.1, y_0=-0.05, e1=0.1, e2=0.0)
SIDE, SIGMA, PIXEL = 20, 0.02, 0.12
ANGLE = np.radians(20)
TURNED = PIXEL * np.array([[np.cos(ANGLE), -np.sin(ANGLE)], [np.sin(ANGLE), np.cos(ANGLE)]])
# The second exposure is turned by 20 degrees and dithered by half a pixel, behind a wider PSF.
EXPOSURES = {
    "first": (PixelGrid((22, 24), PIXEL), 0.2),
    "second": (PixelGrid((24, 22), matrix=TURNED, origin=(PIXEL / 2, -PIXEL / 2)), 0.3),
}


def kernel_of(fwhm):
    return PSF.from_fwhm(fwhm * u.arcsec).kernel(PIXEL)


def view_of(name, seed, *, source=SOURCE, sky=0.0, shift=(0.0, 0.0), pointing=0.0, lens=LENS):
    """An exposure whose place in the frame is off by a shift."""
    grid, fwhm = EXPOSURES[name]
    scene = Scene(lens=lens, lens_free=False, lens_light=0, sky=True, extent=1.5)
    physical = torch.cat([lens.vector, source.vector, torch.tensor([sky], dtype=torch.float64)])[None]
    there = PixelGrid(grid.shape, matrix=grid.matrix, origin=tuple(np.add(grid.origin, shift)))
    noise, options = [GaussianNoise(SIGMA)], {"oversampling": 4}
    empty = np.zeros((1, *grid.shape))
    truth = ImageStack(empty, empty == 0, noise, there, kernel_of(fwhm), **options).image(scene, physical)
    data = truth.numpy().reshape(empty.shape) + np.random.default_rng(seed).normal(0, SIGMA, empty.shape)
    stack = ImageStack(data, empty == 0, noise, grid, kernel_of(fwhm), **options)
    weight = np.full(grid.shape[0] * grid.shape[1], SIGMA**-2)
    return View(stack, stack, weight, np.zeros(len(weight)), pointing)


def problem_of(views, *, free=False, lens=LENS, stiffness=0.0):
    scene = Scene(lens=lens, lens_free=free, lens_light=0, sky=True, extent=1.5, source=0)
    physical = torch.cat([lens.vector, torch.zeros(1, dtype=torch.float64)])
    constraints = Constraints.of(scene, 1)
    constraints.mean[:], constraints.stiffness[:] = physical, 0.0
    constraints.stiffness[:, :-1] = stiffness
    return Problem(views, scene, physical, constraints, SourceGrid(0.1, -0.05, 0.75, SIDE, 0.3))


@pytest.fixture
def two_exposures():
    """Two exposures with skies of their own."""
    return problem_of([view_of("first", 1, sky=0.05), view_of("second", 2, sky=-0.03)])


def design(grid, fwhm, lens, nodes):
    """Nodes to pixels of an exposure (N, n), by interpolation and convolution of scipy on fine rays."""
    margin, fine = 6, 4
    wide = grid.padded(margin).upsample(fine)
    a_x, a_y = (a.reshape(wide.shape) for a in lens.deflection(wide.x.ravel(), wide.y.ravel()))
    lines = nodes.offsets + nodes.y_0, nodes.offsets + nodes.x_0
    columns = np.eye(SIDE**2).reshape(SIDE, SIDE, -1)
    source = RegularGridInterpolator(lines, columns, bounds_error=False, fill_value=0.0)
    light = source((wide.y - np.asarray(a_y), wide.x - np.asarray(a_x)))
    shape = wide.shape[0] // fine, fine, wide.shape[1] // fine, fine, -1
    light = light.reshape(shape).mean((1, 3)) * grid.pixel_area
    seen = fftconvolve(light, kernel_of(fwhm)[:, :, None], mode="same", axes=(0, 1))
    return seen[margin:-margin, margin:-margin].reshape(-1, SIDE**2)


def test_two_exposures_equal_one_dense_least_squares_solution(two_exposures, monkeypatch):
    """Exposures dithered by half a pixel, turned by 20 degrees, behind different PSFs; nothing is stacked."""
    monkeypatch.setattr(linalg, "DROPPED", 0.0)
    problem, prior, strength = two_exposures, Prior("curvature", SIDE), 0.02
    options = {"link": "linear", "adapt": False, "tolerance": 1e-9}
    found = solve(problem, prior, strength, np.ones(SIDE**2), problem.start(), **options)
    blocks = [design(*EXPOSURES[name], LENS, problem.grid) for name in EXPOSURES]
    skies = [np.repeat([[1.0, 0.0]], len(blocks[0]), 0), np.repeat([[0.0, 1.0]], len(blocks[1]), 0)]
    whole = np.hstack([np.vstack(blocks), np.vstack(skies)])
    curvature = whole.T @ whole / SIGMA**2
    curvature[: SIDE**2, : SIDE**2] += strength * prior.dense
    expected = np.linalg.solve(curvature, whole.T @ problem.data / SIGMA**2)
    covariance = np.linalg.inv(curvature)
    errors = np.sqrt(np.diagonal(covariance))
    np.testing.assert_allclose((found.field - expected[:-2]) / errors[:-2], 0, atol=0.05)
    np.testing.assert_allclose((found.parameters - expected[-2:]) / errors[-2:], 0, atol=0.05)
    # The curvature sees the PSF cut to its core.
    ours = np.sqrt(np.diagonal(found.factor.solve(np.eye(found.factor.size))))
    np.testing.assert_allclose(ours / errors, 1, atol=0.03)
    assert found.parameters == pytest.approx([0.05, -0.03], abs=4 * errors[-2:].max())


def test_two_exposures_say_more_than_one(two_exposures):
    one = problem_of(two_exposures.views[:1])
    errors = []
    for problem in (one, two_exposures):
        options = {"link": "linear", "adapt": False}
        found = solve(problem, Prior("curvature", SIDE), 0.02, np.ones(SIDE**2), problem.start(), **options)
        errors.append(np.sqrt(np.diagonal(found.factor.solve(np.eye(found.factor.size)))[: SIDE**2]))
    assert np.median(errors[1] / errors[0]) < 0.95
    assert (errors[1] < errors[0] * (1 + 1e-6)).all()


@pytest.mark.parametrize("lights", [0, 1])
def test_derivatives_by_sky_and_pointing_are_those_of_finite_differences(lights):
    views = [view_of("first", 1), view_of("second", 2, pointing=0.1)]
    light = Sersic(30.0, r_eff=0.3, n=1.0, x_0=0.3, y_0=0.2)
    scene = Scene(lens=LENS, lens_free=True, lens_light=lights, sky=True, extent=1.5, source=0)
    parts = [LENS.vector, *[light.vector] * lights, torch.tensor([0.1], dtype=torch.float64)]
    problem = Problem(
        views, scene, torch.cat(parts), Constraints.of(scene, 1), SourceGrid(0.1, -0.05, 0.75, SIDE)
    )
    start = problem.start()
    assert len(start) == len(scene.free_index) + 3
    nodes = problem.grid.nodes
    values = np.exp(-0.5 * ((nodes[0] - 0.1) ** 2 + (nodes[1] + 0.05) ** 2) / 0.2**2)
    start[-2:] = 0.02, -0.03
    jacobian = problem.jacobian(values, start)
    for number in range(len(start)):
        step = np.zeros(len(start))
        step[number] = 1e-6
        ends = [problem.predict(values, start + sign * step) for sign in (1, -1)]
        slope = (ends[0] - ends[1]) / 2e-6
        same = np.isclose(slope, jacobian[:, number], rtol=1e-3, atol=2e-3 * np.abs(slope).max())
        assert same.mean() > 0.95, number


def test_the_first_exposure_may_point_elsewhere_too():
    """As in a band whose frame is that of another: its two columns follow those of the scene."""
    views = [view_of("second", 1, pointing=0.2), view_of("first", 2, pointing=0.1)]
    problem = problem_of(views)
    start = problem.start()
    assert len(start) == 1 + 2 + 3
    np.testing.assert_allclose(problem.parameter_prior[1][1:], [25.0, 25.0, 0.0, 100.0, 100.0])
    values = np.exp(-0.5 * np.sum(np.square(problem.grid.nodes), axis=0) / 0.2**2)
    jacobian = problem.jacobian(values, start)
    pixels = views[0].stack.data.shape[1]
    assert not jacobian[pixels:, 1:3].any()
    assert not jacobian[:pixels, 3:].any()
    for number in (1, 2):
        step = 1e-6 * np.eye(len(start))[number]
        slope = (problem.predict(values, start + step) - problem.predict(values, start - step)) / 2e-6
        same = np.isclose(slope, jacobian[:, number], rtol=1e-3, atol=2e-3 * np.abs(slope).max())
        assert same.mean() > 0.95


def test_a_pointing_that_is_off_is_found():
    shift = np.array([0.03, -0.02])
    views = [view_of("first", 1), view_of("second", 2, shift=shift, pointing=0.1)]
    problem = problem_of(views)
    field = np.log(np.full(SIDE**2, 1.0))
    found = solve(problem, Prior("curvature", SIDE), None, field, problem.start(), tolerance=1e-3)
    error = np.sqrt(np.diagonal(found.factor.parameter_covariance))[-2:]
    assert (error < 0.01).all()
    assert (np.abs(found.parameters[-2:] - shift) < 4 * error).all()
    held = problem_of([views[0], replace(views[1], pointing=0.0)])
    worse = solve(held, Prior("curvature", SIDE), None, field, held.start(), tolerance=1e-3)
    assert worse.chi2 > found.chi2 + 20


BLUE = Sersic(25.0, r_eff=0.15, n=1.0, x_0=0.12, y_0=-0.03, e1=-0.1, e2=0.1)


def bands():
    """Two bands with different sources, each in one exposure, behind the same lens."""
    views = view_of("first", 3), view_of("second", 4, source=BLUE)
    return [problem_of([view], free=True, stiffness=25.0) for view in views]


def request(problem):
    options = {"tolerance": 1e-5}
    start = np.log(np.full(SIDE**2, 1.0)), problem.start()
    return Request(problem, Prior("curvature", SIDE), None, *start, options)


def test_two_bands_give_the_lens_of_the_product_of_their_posteriors():
    problems = bands()
    both = solve_bands([request(problem) for problem in problems])
    # Each band alone has half of the prior of the lens, so that the product has all of it.
    halves = []
    for problem, band in zip(problems, both.bands, strict=True):
        halved = problem_of(problem.views, free=True, stiffness=12.5)
        one = request(halved)
        # The strengths of the priors settle only to within a tenth: here they are the same.
        held = {"tolerance": 1e-5, "adapt": False, "mean": band.mean}
        found = solve(halved, one.prior, band.strength, one.field, one.parameters, **held)
        halves.append((found.parameters[:7], found.factor.parameter_covariance[:7, :7]))
    precision = sum(np.linalg.inv(covariance) for _, covariance in halves)
    mean = np.linalg.solve(precision, sum(np.linalg.inv(c) @ lens for lens, c in halves))
    covariance = np.linalg.inv(precision)
    errors = np.sqrt(np.diagonal(covariance))
    off = np.abs((both.lens - mean) / errors)
    assert off[0] < 0.1  # the Einstein radius; posteriors are not quite Gaussian
    assert off.max() < 0.5
    np.testing.assert_allclose(np.sqrt(np.diagonal(both.lens_covariance)) / errors, 1, atol=0.05)
    truth = LENS.vector[:1].numpy()
    assert np.abs(both.lens[:1] - truth) < 4 * errors[:1]
    for one in both.bands:
        np.testing.assert_allclose(one.parameters[:7], both.lens, atol=1e-8)


def test_one_band_is_a_plain_solution():
    (problem, _) = bands()
    one = request(problem)
    both = solve_bands([one])
    alone = solve(problem, one.prior, one.strength, one.field, one.parameters, **one.options)
    np.testing.assert_allclose(both.lens, alone.parameters[:7], atol=1e-10)
    np.testing.assert_allclose(both.lens_covariance, alone.factor.parameter_covariance[:7, :7], rtol=1e-6)
    assert both.evidence == pytest.approx(alone.evidence, abs=1e-6)


def test_the_evidence_of_bands_is_the_gaussian_integral():
    """With linear sources and a lens that hardly moves, all is Gaussian: against one dense joint matrix."""
    problems = [problem_of(problem.views, free=True, stiffness=1e10) for problem in bands()]
    options = {"link": "linear", "adapt": False, "tolerance": 1e-9}
    requests = [
        Request(p, Prior("curvature", SIDE), 0.05, np.ones(SIDE**2), p.start(), options) for p in problems
    ]
    both = solve_bands(requests)
    matrices, size = [], SIDE**2 + 1
    joint = np.zeros((7 + 2 * size, 7 + 2 * size))
    for number, (one, problem) in enumerate(zip(both.bands, problems, strict=True)):
        factor = one.factor  # with half of the prior of the lens
        whole = np.linalg.inv(factor.solve(np.eye(factor.size)))
        order = np.r_[SIDE**2 : SIDE**2 + 7, 0 : SIDE**2, SIDE**2 + 7]
        matrices.append(whole[np.ix_(order, order)])
        place = np.r_[0:7, 7 + number * size : 7 + (number + 1) * size]
        joint[np.ix_(place, place)] += matrices[-1]
        assert problem.parameter_prior[1][0] == 1e10
    np.testing.assert_allclose(both.lens_covariance, np.linalg.inv(joint)[:7, :7], rtol=1e-6)
    prior = Prior("curvature", SIDE)
    log_prior = 2 * (prior.log_determinant + SIDE**2 * np.log(0.05)) + 7 * np.log(1e10)
    penalty = sum(one.chi2 + 0.05 * one.field @ prior.apply(one.field) for one in both.bands)
    penalty += 1e10 * ((both.lens - LENS.vector[problems[0].scene.free_of("lens")].numpy()) ** 2).sum()
    expected = 0.5 * (log_prior - np.linalg.slogdet(joint)[1] - penalty)
    assert both.evidence == pytest.approx(expected, abs=1e-3)


def test_bands_with_other_lenses_are_refused():
    one, _ = bands()
    other = problem_of(one.views, free=False)
    with pytest.raises(InputError, match="give all the same lens"):
        solve_bands([request(one), request(other)])
