"""Draws of parameters from the posterior of a result, in memory and in files."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from astropy.modeling.models import Sersic2D
from lenstronomy.LensModel.lens_model import LensModel

from lenssr import SuperResolution, SuperResolver
from lenssr.exceptions import InputError
from lenssr.light import Sersic
from lenssr.mass import SIE
from lenssr.posterior import PosteriorDraws


@pytest.fixture(scope="module")
def sharp():
    """A fit of a Sérsic to pixels sampled at their centres, for another code to repeat."""
    rng, shape, side = np.random.default_rng(2), (40, 40), 0.1
    lens, galaxy = SIE(1.0, 0.1, 0.05), Sersic(20.0, 0.3, 1.2, 0.1, -0.05, 0.1, 0.0)
    y, x = (np.indices(shape) - 19.5) * side
    a_x, a_y = lens.deflection(x, y)
    data = galaxy(x - a_x, y - a_y) * side**2 + rng.normal(0, 0.01, shape)
    resolver = SuperResolver(source="sersic", lens=lens, fit_lens=True, oversampling=1, sky=None)
    return resolver(data, noise=0.01, pixel_scale=side, unit="electron/s")


def chi2_by_others(result, values):
    """Chi2 of parameters (K,), deflections by lenstronomy and light by astropy."""
    named = dict(zip(result.covariance_names, values, strict=True))
    lens = {key: named[f"lens.{key}"] for key in ("theta_E", "e1", "e2")}
    centre = {"center_x": named["lens.x_0"], "center_y": named["lens.y_0"]}
    y, x = (np.indices(result.data.shape) - 19.5) * 0.1
    at = LensModel(["SIE"]).ray_shooting(x.ravel(), y.ravel(), [{**lens, **centre}])
    e1, e2 = named["source.e1"], named["source.e2"]
    q = (1 - np.hypot(e1, e2)) / (1 + np.hypot(e1, e2))
    light = Sersic2D(
        *(named[f"source.{key}"] for key in ("amplitude", "r_eff", "n", "x_0", "y_0")),
        1 - q,
        np.arctan2(e2, e1) / 2,
    )
    pulls = (result.data.data.ravel() - light(*at) * 0.1**2) / 0.01
    return float((pulls[result.chi2_map.ravel() > 0] ** 2).sum())


def test_the_posterior_has_the_likelihood_of_other_codes(sharp):
    target = sharp.posterior.target()
    vectors = target.centre + np.linalg.cholesky(target.covariance) @ np.array(
        [1.0, -1, 0.5, 2, 1, 0, 1, -2, 1, 1, 1, 0.3]
    )
    both = np.stack([target.centre, vectors])
    expected = [-0.5 * chi2_by_others(sharp, values) / target.temperature for values in target.outward(both)]
    found = target.log_posterior(both)
    assert found[1] - found[0] == pytest.approx(expected[1] - expected[0], abs=0.05)
    assert abs(found[1] - found[0]) > 2


def test_the_priors_of_the_fit_count(sharp):
    target = sharp.posterior.target()
    given, free = target.constraints, torch.nonzero(target.scene.free).squeeze(1)
    stiffness = given.stiffness.clone()
    stiffness[0, free[1]] = 0.2**-2
    narrow = replace(target, constraints=replace(given, stiffness=stiffness))
    vectors = np.stack([target.centre, target.centre + 0.01 * np.eye(target.size)[1]])
    gained = narrow.log_posterior(vectors) - target.log_posterior(vectors)
    np.testing.assert_allclose(gained, -0.5 * (vectors[:, 1] / 0.2) ** 2, atol=1e-9)


def test_nothing_lies_beyond_the_bounds(sharp):
    target = sharp.posterior.target()
    beyond = target.centre[None].copy()
    beyond[0, 1] = target.bounds[1][1] + 1e-6
    assert target.log_posterior(beyond)[0] == -np.inf


def test_laplace_draws_have_errors_and_names_of_the_result(sharp):
    draws = sharp.sample_posterior(4000, "laplace", seed=1)
    assert draws.names == sharp.covariance_names
    np.testing.assert_allclose(draws.summary["std"], np.sqrt(np.diag(sharp.covariance)), rtol=0.06)
    assert draws["source.r_eff"].unit == "arcsec"
    middle = draws.quantile("source.r_eff", 0.5).value
    assert middle == pytest.approx(sharp.source_model.r_eff.value, abs=0.05 * draws.summary["std"][6])


def test_images_of_draws_scatter_by_the_errors(sharp):
    draws = sharp.sample_posterior(40, "laplace", seed=1, images=True)
    assert draws.image.shape == (40, *sharp.image.shape) and draws.source.shape == (40, *sharp.source.shape)
    error = sharp.image.uncertainty.array
    strong = error > 0.3 * error.max()
    assert np.median(draws.image.value.std(0)[strong] / error[strong]) == pytest.approx(1, abs=0.2)
    off = (draws.image.value.mean(0) - sharp.image.data)[strong] / error[strong]
    assert np.abs(off).max() < 1


def test_psis_agrees_with_the_chains(sharp):
    weighed = sharp.sample_posterior(400, "psis", seed=1)
    assert weighed.pareto_k < 0.7
    near = np.abs(weighed.summary["mean"] - sharp.sample_posterior(2000, "laplace").summary["mean"])
    assert np.all(near < 0.5 * weighed.summary["std"])


@pytest.mark.parametrize("source", ["sersic", "pixelated"])
def test_sample_survives_a_file(solve, source, tmp_path):
    result = solve(source, lens=solve.lens, fit_lens=True)
    result.write(tmp_path / "out.fits")
    again = SuperResolution.read(tmp_path / "out.fits")
    for name in ("image", "source"):
        before, after = (getattr(one.sample(3, seed=1), name).value for one in (result, again))
        scale = getattr(result, name).uncertainty.array.max()
        np.testing.assert_allclose(after, before, atol=1e-4 * scale)
    first, second = (one.sample_posterior(50, "laplace", seed=1) for one in (result, again))
    np.testing.assert_allclose(second.values, first.values, rtol=1e-9)
    again.write(tmp_path / "again.fits")
    third = SuperResolution.read(tmp_path / "again.fits").sample_posterior(50, "laplace", seed=1)
    np.testing.assert_array_equal(third.values, second.values)


def test_draws_survive_a_file(sharp, tmp_path):
    draws = sharp.sample_posterior(30, seed=2, images=True)
    result = sharp.with_draws(draws)
    result.write(tmp_path / "out.fits")
    again = SuperResolution.read(tmp_path / "out.fits").draws
    assert again.names == draws.names and again.units == draws.units and again.method == "psis"
    np.testing.assert_array_equal(again.values, draws.values)
    np.testing.assert_array_equal(again.weights, draws.weights)
    np.testing.assert_array_equal(again.image.value, draws.image.value)
    assert again.source.unit == draws.source.unit
    assert again.pareto_k == draws.pareto_k


@pytest.mark.parametrize(("k", "flagged"), [(0.69, False), (0.71, True)])
def test_a_large_pareto_k_is_a_flag(sharp, k, flagged):
    names, units = sharp.covariance_names, [""] * len(sharp.covariance_names)
    about = {"names": names, "units": tuple(units), "method": "psis", "diagnostics": {"pareto_k": k}}
    result = sharp.with_draws(PosteriorDraws(values=np.zeros((3, len(names))), **about))
    assert ("posterior_not_gaussian" in result.flags) is flagged
    assert result.meta["measures"]["posterior_not_gaussian"] == k
    assert result.ok == sharp.ok and sharp.draws is None
    # Draws that are better take it back.
    about["diagnostics"] = {}
    better = result.with_draws(PosteriorDraws(values=np.zeros((3, len(names))), **about))
    assert "posterior_not_gaussian" not in better.flags


def test_draws_of_another_result_are_refused(sharp):
    draws = PosteriorDraws(names=("sky",), values=np.zeros((3, 1)), units=("",), method="psis")
    with pytest.raises(InputError, match="draws of sky are not of this result, which has lens.theta_E"):
        sharp.with_draws(draws)


def test_results_without_posterior_say_so(make, solve):
    with pytest.raises(InputError, match="no posterior: run SuperResolver again"):
        make().sample_posterior(30)
    with pytest.raises(InputError, match="no posterior: run SuperResolver again"):
        solve("interpolation").sample(2)


@pytest.mark.slow
def test_the_evidence_of_a_linear_source_is_exact(solve):
    """Beside the density of the data, with the covariance of source and noise as one dense matrix."""
    result = solve("pixelated", lens=solve.lens, fit_lens=True, positive=False)
    target = result.posterior.target()
    moved = target.centre + 1.5 * np.linalg.cholesky(target.covariance)[:, 0]
    expected = []
    for vector in (target.centre, moved):
        problem, solution = target.held(vector), target.solution
        data, used = problem.data, problem.weight > 0
        eye = torch.eye(len(data), dtype=torch.float64)[None]
        response = problem.model.adjoint(eye, torch.zeros(1, 0), problem.model.everything)[0].numpy()
        light = problem.predict(np.zeros(problem.grid.size), np.zeros(0))
        of_source = response @ np.linalg.solve(solution.strength * solution.prior.dense, response.T)
        covariance = (of_source + np.diag(1 / np.where(used, problem.weight, 1.0)))[np.ix_(used, used)]
        rest = (data - light)[used]
        quadratic = rest @ np.linalg.solve(covariance, rest)
        expected.append(-0.5 * (np.linalg.slogdet(covariance)[1] + quadratic))
    found = target.log_likelihood(np.stack([target.centre, moved]))
    assert found[1] - found[0] == pytest.approx(expected[1] - expected[0], abs=0.05)


@pytest.mark.slow
def test_ensembles_of_a_lens_in_two_processes(sharp):
    one, two = (sharp.sample_posterior(50, "emcee", steps=20, jobs=jobs) for jobs in (1, 2))
    np.testing.assert_array_equal(one.values, two.values)
    assert one.diagnostics["ensembles"] == 4 and not one.diagnostics["converged"]
