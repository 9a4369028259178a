"""The inversion: optimum, errors and evidence on small problems whose answers are known otherwise."""

import numpy as np
import pytest
import scipy.sparse as sparse
from scipy.optimize import minimize

from lenssr.inversion import Prior, maximise_evidence, solve
from lenssr.inversion.solve import Factor


class Blurred:
    """A positive source on a small grid seen through a random matrix, on a sky."""

    mean = 0.0
    bounds = np.full(1, -np.inf), np.full(1, np.inf)

    def __init__(self, rng, side=6, dense=False, sigma=0.05):
        # Neighbours only, as interpolation makes it: a banded normal matrix.
        nodes = rng.integers(0, side**2 - side - 1, 90)
        corners = nodes[:, None] + np.array([0, 1, side, side + 1])
        matrix = sparse.csr_array(
            (rng.random(360), corners.ravel(), np.arange(0, 361, 4)), shape=(90, side**2)
        )
        self.matrix = matrix.toarray() if dense else matrix
        self.truth = rng.normal(0, 0.5, side**2)
        self.weight = np.full(90, sigma**-2)
        self.data = matrix @ np.exp(self.truth) + 0.3 + rng.normal(0, sigma, 90)
        self.parameter_prior = np.zeros(1), np.zeros(1)

    def linearise(self, source, parameters):
        return self.matrix @ source + parameters[0], self.matrix, np.ones((90, 1))

    def normal(self, matrix):
        return matrix.T @ (matrix * self.weight[:, None])


def objective(problem, prior, strength):
    def function(vector):
        g, sky = vector[:-1], vector[-1:]
        model = problem.linearise(np.exp(g), sky)[0]
        return (problem.weight * (problem.data - model) ** 2).sum() + strength * g @ (prior.matrix @ g)

    return function


@pytest.mark.parametrize("dense", [False, True])
def test_optimum_is_that_of_a_general_minimiser(dense, rng):
    problem, prior = Blurred(rng, dense=dense), Prior("curvature", 6)
    found = solve(problem, prior, 2.0, np.zeros(36), np.zeros(1), max_iterations=50, tolerance=1e-9)
    function = objective(problem, prior, 2.0)
    ours = np.concatenate([found.log_source, found.parameters])
    other = minimize(function, np.zeros(37), method="BFGS", options={"gtol": 1e-6, "maxiter": 5000})
    assert found.converged
    assert function(ours) <= other.fun * (1 + 1e-8)
    np.testing.assert_allclose(ours, other.x, atol=2e-3)


def test_factor_solves_and_samples_the_joint_matrix(rng):
    root = rng.normal(size=(12, 12))
    whole = root @ root.T + 5 * np.eye(12)
    factor = Factor(whole[:10, :10].copy(), whole[:10, 10:].copy(), whole[10:, 10:].copy())
    right = rng.normal(size=12)
    np.testing.assert_allclose(factor.solve(right), np.linalg.solve(whole, right))
    np.testing.assert_allclose(factor.parameter_covariance, np.linalg.inv(whole)[10:, 10:])
    assert factor.log_determinant == pytest.approx(np.linalg.slogdet(whole)[1])
    root = factor.sample(np.eye(12))
    np.testing.assert_allclose(root @ root.T, np.linalg.inv(whole), atol=1e-12)


def test_evidence_of_a_linear_gaussian_problem_is_exact(rng):
    """Without a source that matters the Laplace evidence is the Gaussian integral over the sky."""
    problem, prior = Blurred(rng), Prior("gradient", 6)
    weak = [solve(problem, prior, strength, problem.truth, np.zeros(1)).evidence for strength in (1e-4, 1e-5)]
    # A prior so weak that it only multiplies the volume: each decade costs n / 2 ln 10 of evidence.
    assert weak[0] - weak[1] == pytest.approx(18 * np.log(10), rel=0.2)


def test_the_evidence_finds_a_strength_between_the_ends(rng):
    problem, prior = Blurred(rng), Prior("gradient", 6)
    best = maximise_evidence(problem, prior, np.zeros(36), np.zeros(1))
    ends = [solve(problem, prior, strength, np.zeros(36), np.zeros(1)).evidence for strength in (1e4, 1e-3)]
    assert best.evidence > max(ends)
    assert 1e-2 < best.strength < 1e3
