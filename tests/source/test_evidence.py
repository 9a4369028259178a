"""Evidence of problems so small that it is known otherwise: a normal distribution, and an integral."""

import itertools

import numpy as np
import pytest
import scipy.sparse as sparse
import torch
from scipy import stats
from scipy.optimize import minimize

from lenssr.source import NormalMatrix, Prior, laplace_evidence, solve

SKY, SKY_ERROR = 0.2, 0.5


def row(values):
    """Numbers of the only lens of a batch."""
    return torch.as_tensor(np.asarray(values, dtype=float))[None]


class Pixels:
    """A source on side x side nodes, each pixel a random sum of four of them, on a sky with a prior."""

    device, dense = torch.device("cpu"), False
    everything, log_floor = torch.arange(1), torch.full((1,), -torch.inf, dtype=torch.float64)
    bounds, bright = (row([-np.inf]), row([np.inf])), torch.tensor([False])
    reach = torch.tensor([torch.inf])
    parameter_prior = row([SKY]), row([SKY_ERROR**-2])

    refines_steps = False

    def __init__(self, rng, side, pixels, sigma):
        self.side = side
        corners = rng.integers(0, side**2 - side - 1, pixels)[:, None] + np.array([0, 1, side, side + 1])
        ends = np.arange(0, 4 * pixels + 1, 4)
        self.matrix = sparse.csr_array((rng.random(4 * pixels), corners.ravel(), ends), (pixels, side**2))
        self.sigma = sigma * rng.uniform(0.5, 2, pixels)
        self.weight = row(self.sigma**-2)
        brightness = np.exp(rng.normal(0, 0.4, side**2))
        self.data = row(self.matrix @ brightness + 0.3 + rng.normal(0, self.sigma))
        self.model = self

    def predict(self, source, parameters, index):
        return row(self.matrix @ source[0].numpy()) + parameters

    def jacobian(self, source, parameters, index):
        return torch.ones(1, 1, len(self.sigma), dtype=torch.float64)

    def adjoint(self, values, parameters, index):
        return row((self.matrix.T @ values[0].numpy().T).T)

    def normal(self, parameters, index, *, exact=False, loosely=False):
        return [NormalMatrix(sparse.diags_array(1 / self.sigma) @ self.matrix, self.side)]

    @property
    def of_the_data(self):
        """What ln(evidence) is short of: it is known up to what data alone determine."""
        return stats.norm.logpdf(0, scale=self.sigma).sum()


def found(problem, prior, strength, link):
    start = np.zeros(problem.side**2) if link == "log" else np.ones(problem.side**2)
    options = {"link": link, "mean": 0.0, "adapt": False, "tolerance": 1e-12, "max_iterations": 100}
    return solve(problem, prior, strength, start, np.array([SKY]), **options)


# ---------------------------------------------------------------- a linear source


@pytest.mark.parametrize("strength", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("name", ["gradient", "curvature"])
def test_a_linear_source_has_the_evidence_of_a_normal_distribution(name, strength, rng):
    """Data are normal: noise, the prior of the source, and that of the sky, through the same matrix."""
    problem, prior = Pixels(rng, 5, 60, 0.05), Prior(name, 5)
    matrix = np.hstack([problem.matrix.toarray(), np.ones((60, 1))])
    of_prior = np.zeros((26, 26))
    of_prior[:25, :25] = np.linalg.inv(strength * prior.dense)
    of_prior[25, 25] = SKY_ERROR**2
    exact = stats.multivariate_normal(
        np.full(60, SKY), matrix @ of_prior @ matrix.T + np.diag(problem.sigma**2)
    )
    ours = found(problem, prior, strength, "linear").evidence + problem.of_the_data
    assert ours == pytest.approx(exact.logpdf(problem.data[0].numpy()), abs=1e-6)


# ---------------------------------------------------------------- the logarithm of a source


def log_density(problem, prior, strength, points):
    """Logarithms of likelihood times priors of fields and skies (n + 1, m)."""
    fields, skies = points[:-1], points[-1]
    model = problem.matrix @ np.exp(fields) + skies
    likelihood = stats.norm.logpdf(problem.data[0].numpy()[:, None], model, problem.sigma[:, None]).sum(0)
    covariance = np.linalg.inv(strength * prior.dense)
    of_field = stats.multivariate_normal(np.zeros(len(fields)), covariance).logpdf(fields.T)
    return likelihood + of_field + stats.norm.logpdf(skies, SKY, SKY_ERROR)


def integral(problem, prior, strength):
    """Logarithm of the integral over field and sky, by Gauss-Hermite quadrature about the maximum."""

    def minus(point):
        return -log_density(problem, prior, strength, point[:, None])[0]

    best = minimize(minus, np.append(np.zeros(problem.side**2), SKY), method="BFGS", options={"gtol": 1e-8})
    size, step = len(best.x), 1e-3
    hessian = np.empty((size, size))
    for i, j in itertools.product(range(size), repeat=2):
        a, b = step * np.eye(size)[i], step * np.eye(size)[j]
        signs = ((a + b, 1), (a - b, -1), (b - a, -1), (-a - b, 1))
        hessian[i, j] = sum(sign * minus(best.x + move) for move, sign in signs) / (4 * step**2)
    root = np.linalg.cholesky(np.linalg.inv((hessian + hessian.T) / 2))
    nodes, weights = np.polynomial.hermite_e.hermegauss(7)
    grid = np.array(list(itertools.product(nodes, repeat=size))).T
    share = np.prod(list(itertools.product(weights, repeat=size)), axis=1)
    values = log_density(problem, prior, strength, best.x[:, None] + root @ grid)
    largest = values.max()
    total = (share * np.exp(values - largest + 0.5 * (grid**2).sum(0))).sum()
    return largest + np.log(total) + np.log(np.diag(root)).sum()


@pytest.mark.parametrize("strength", [0.3, 3.0])
@pytest.mark.parametrize(("sigma", "within"), [(0.01, 0.005), (0.1, 0.1)])
def test_a_log_source_has_the_evidence_of_the_integral(sigma, within, strength, rng):
    """The Laplace form takes the posterior for normal, which it is the more, the less the noise."""
    problem, prior = Pixels(rng, 2, 16, sigma), Prior("gradient", 2)
    ours = found(problem, prior, strength, "log").evidence + problem.of_the_data
    assert ours == pytest.approx(integral(problem, prior, strength), abs=within)


def test_the_formula_is_that_of_one_normal_number():
    """A number with a normal prior, measured once with normal noise."""
    value, noise, width = 1.3, 0.4, 0.7
    precision = noise**-2 + width**-2
    best = value * noise**-2 / precision
    penalty = ((value - best) / noise) ** 2 + (best / width) ** 2
    found = laplace_evidence(np.log(width**-2), np.log(precision), penalty)
    exact = stats.norm.logpdf(value, 0, np.hypot(noise, width))
    assert found + stats.norm.logpdf(0, scale=noise) == pytest.approx(exact)
