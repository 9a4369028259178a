"""Importance sampling and ensembles on densities that are known."""

import numpy as np
import pytest
import torch
from arviz_stats.base import array_stats
from scipy import stats

from lenssr.exceptions import InputError
from lenssr.posterior.ensembles import r_hat
from lenssr.posterior.sampling import draw

CENTRE = np.array([1.0, -2.0, 0.5])
HALF = np.array([[1.0, 0.0, 0.0], [0.5, 0.3, 0.0], [0.0, -0.2, 2.0]])
COVARIANCE = HALF @ HALF.T


class Known:
    """A target of three parameters with a density of scipy; ``taken`` is what a fit finds."""

    names, units, size = ("lens.a", "lens.b", "sky"), ("arcsec", "", ""), 3
    physical = torch.zeros(3)

    def __init__(self, density, taken=COVARIANCE, lower=-np.inf, upper=np.inf):
        self.log_posterior, self.covariance, self.centre = density, taken, CENTRE
        self.bounds = np.full(3, lower), np.full(3, upper)

    def inside(self, vectors):
        return ((vectors >= self.bounds[0]) & (vectors <= self.bounds[1])).all(axis=1)

    def outward(self, vectors):
        return vectors


GAUSSIAN = stats.multivariate_normal(CENTRE, COVARIANCE).logpdf
MOVED = stats.multivariate_normal(CENTRE + [0.3, 0.1, -0.5], COVARIANCE).logpdf
HEAVY = stats.multivariate_t(CENTRE, COVARIANCE, df=2).logpdf


def half_of_it(vectors):
    density = stats.multivariate_normal(CENTRE, np.diag([1.0, 0.09, 1.0])).logpdf(vectors)
    return np.where(vectors[:, 1] >= -2.0, density, -np.inf)


def above_a_half(vectors):
    return np.where(vectors[:, 0] >= 0.5, GAUSSIAN(vectors), -np.inf)


def test_laplace_draws_have_the_covariance_of_the_fit():
    draws, _ = draw(Known(GAUSSIAN), 20000, "laplace", seed=1)
    np.testing.assert_allclose(np.cov(draws.values.T), COVARIANCE, atol=0.1)
    np.testing.assert_allclose(draws.values.mean(0), CENTRE, atol=0.06)


def test_weights_move_draws_to_where_the_posterior_is():
    draws, _ = draw(Known(MOVED), 4000, "psis", seed=1)
    error = np.sqrt(np.diag(COVARIANCE) / draws.effective_size)
    assert np.all(np.abs(draws.summary["mean"] - CENTRE - [0.3, 0.1, -0.5]) < 4 * error)
    assert draws.pareto_k < 0.5 and not draws.doubtful


def test_tails_that_the_gaussian_lacks_raise_pareto_k():
    draws, _ = draw(Known(HEAVY), 1000, "psis", seed=1)
    assert draws.pareto_k > 0.7 and draws.doubtful


def test_weights_that_a_few_draws_have_are_no_error():
    elsewhere = stats.multivariate_normal(CENTRE + 60.0, COVARIANCE * 1e-4).logpdf
    draws, _ = draw(Known(elsewhere), 300, "psis", seed=1)
    assert draws.doubtful and draws.effective_size < 2
    assert np.isfinite(draws.weights).all()


def test_k_is_that_of_arviz_for_the_same_ratios():
    target = Known(MOVED)
    draws, vectors = draw(target, 500, "psis", seed=3)
    ratios = MOVED(vectors) - stats.multivariate_normal(CENTRE, COVARIANCE).logpdf(vectors)
    assert draws.pareto_k == pytest.approx(array_stats.psislw(-ratios)[1], rel=1e-6)


@pytest.mark.parametrize(
    ("density", "first"),
    [(HEAVY, stats.t(2, 1.0)), (above_a_half, stats.truncnorm(-0.5, np.inf, 1.0, 1.0))],
    ids=["heavy", "cut"],
)
def test_ensembles_end_at_the_quantiles_of_the_posterior(density, first):
    draws, _ = draw(Known(density), 4000, "emcee", seed=2, steps=250)
    shares = (0.16, 0.5, 0.84)
    found = [draws.quantile("lens.a", share).value for share in shares]
    np.testing.assert_allclose(found, first.ppf(shares), atol=0.15)
    assert max(draws.diagnostics["r_hat"].values()) < 1.05


def test_walkers_leave_a_bound_on_which_the_fit_ended():
    target = Known(half_of_it, np.diag([1.0, 0.0, 1.0]))
    target.bounds = np.array([-np.inf, -2.0, -np.inf]), np.array([np.inf, 3.0, np.inf])
    draws, _ = draw(target, 4000, "emcee", seed=2, steps=200)
    # The half above its lower bound, which is at the maximum.
    assert draws.summary["mean"][1] == pytest.approx(-2 + 0.3 * np.sqrt(2 / np.pi), abs=0.05)


@pytest.mark.parametrize("method", ["laplace", "psis"])
def test_a_parameter_on_its_bound_has_half_a_gaussian(method):
    target = Known(half_of_it, np.diag([1.0, 0.0, 1.0]))
    target.bounds = np.array([-np.inf, -2.0, -np.inf]), np.array([np.inf, 3.0, np.inf])
    draws, _ = draw(target, 4000, method, seed=2)
    # "laplace" takes the next of some widths.
    near = 0.1 if method == "laplace" else 0.02
    assert draws.summary["mean"][1] == pytest.approx(-2 + 0.3 * np.sqrt(2 / np.pi), abs=near)


def test_r_hat_is_that_of_arviz_for_chains_of_one_walker():
    apart = np.array([0.0, 0.4]) * np.arange(4)[:, None, None, None]
    chains = np.random.default_rng(4).standard_normal((4, 400, 1, 2)) + apart
    options = {"chain_axis": 0, "draw_axis": 1, "method": "split"}
    expected = [array_stats.rhat(chains[:, :, 0, k], **options) for k in (0, 1)]
    np.testing.assert_allclose(r_hat(chains), expected, rtol=0.005)
    assert expected[1] > 1.05


def test_the_seed_decides_and_chains_are_continued_alike():
    first, again, other = (draw(Known(GAUSSIAN), 50, "emcee", seed=s, steps=20)[0] for s in (1, 1, 2))
    np.testing.assert_array_equal(first.values, again.values)
    assert np.abs(first.values - other.values).max() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "n = 0: give an integer"),
        ({"method": "nuts"}, "method = 'nuts': give one of 'laplace', 'psis', 'emcee'"),
        ({"n": 10, "method": "psis"}, "n = 10 with method='psis': give 25 or more"),
        ({"seed": -1}, "seed = -1: give an integer"),
        ({"steps": 0, "method": "emcee"}, "steps = 0: give an integer"),
        ({"jobs": 0, "method": "emcee"}, "jobs = 0: give a number of processes"),
    ],
)
def test_arguments_are_checked(options, message):
    arguments = {"n": 100, "method": "laplace", **options}
    n, method = arguments.pop("n"), arguments.pop("method")
    with pytest.raises(InputError, match=message):
        draw(Known(GAUSSIAN), n, method, **arguments)


def test_a_density_that_is_nowhere_is_refused():
    target = Known(lambda vectors: np.full(len(vectors), -np.inf))
    for method in ("psis", "emcee"):
        with pytest.raises(InputError, match="is possible by the data"):
            draw(target, 100, method)
