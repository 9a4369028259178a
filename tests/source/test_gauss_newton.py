"""The inversion: optimum, errors and evidence on small problems whose answers are known otherwise."""

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sparse
import torch
from scipy.optimize import lsq_linear, minimize

from lenssr.source import NormalMatrix, Prior, choose_prior, linalg, solve
from lenssr.source.linalg import DenseFactors, Factor, band_columns, refined_within_box, within_box
from lenssr.source.priors import LINKS, BatchPrior, log_field


def row(values):
    """Numbers of the only lens of a batch."""
    return torch.as_tensor(np.asarray(values, dtype=float))[None]


def in_sigma(matrix, weight):
    """A map to pixels (N, n) in units of their noise."""
    return sparse.diags_array(np.sqrt(weight)) @ matrix


class Blurred:
    """A positive source on a small grid seen through a random matrix, on a sky: problem and forward model."""

    device, dense = torch.device("cpu"), False
    everything, log_floor = torch.arange(1), torch.full((1,), -torch.inf, dtype=torch.float64)
    bounds, bright = (row([-np.inf]), row([np.inf])), torch.tensor([False])
    reach = torch.tensor([torch.inf])

    refines_steps = False

    def __init__(self, rng, side=6, full=False, sigma=0.05):
        # Neighbours only, as interpolation makes it: a banded normal matrix.
        self.side = side
        nodes = rng.integers(0, side**2 - side - 1, 90)
        corners = nodes[:, None] + np.array([0, 1, side, side + 1])
        self.matrix = sparse.csr_array(
            (rng.random(360), corners.ravel(), np.arange(0, 361, 4)), shape=(90, side**2)
        )
        if full:
            self.matrix = sparse.csr_array(rng.random((90, 90)) @ self.matrix) / 20
        self.truth = rng.normal(0, 0.5, side**2)
        self.weight = row(np.full(90, sigma**-2))
        self.data = row(self.matrix @ np.exp(self.truth) + 0.3 + rng.normal(0, sigma, 90))
        self.parameter_prior = row([0.0]), row([0.0])
        self.model = self

    def predict(self, source, parameters, index):
        return row(self.matrix @ source[0].numpy()) + parameters

    def jacobian(self, source, parameters, index):
        return torch.ones(1, 1, 90, dtype=torch.float64)

    def adjoint(self, values, parameters, index):
        return row((self.matrix.T @ values[0].numpy().T).T)

    def normal(self, parameters, index, *, exact=False, loosely=False):
        return [NormalMatrix(in_sigma(self.matrix, self.weight[0].numpy()), self.side)]


@pytest.mark.parametrize("log_floor", [-np.inf, np.log(0.2)])
def test_a_field_is_the_logarithm_above_the_floor(log_floor):
    brightness = np.geomspace(1e-90, 1e6, 40)
    field = log_field(brightness, log_floor)
    found, slope = LINKS["log"].on_arrays(field, log_floor)
    np.testing.assert_allclose(found, brightness, rtol=1e-9)
    assert field[-1] == pytest.approx(np.log(1e6), abs=1e-6)
    step = 1e-6
    upper, lower = (LINKS["log"].on_arrays(field + sign * step, log_floor)[0] for sign in (1, -1))
    np.testing.assert_allclose(slope, (upper - lower) / (2 * step), rtol=1e-4)


def test_below_the_floor_a_source_is_dark_and_stays_finite():
    field = np.array([-1e4, -10.0, -3.0, 3.0])
    for values in LINKS["log"].on_arrays(field, 0.0):
        assert np.isfinite(values).all() and (values[:2] < 1e-90).all()


def objective(problem, prior, strength):
    def function(vector):
        g, sky = vector[:-1], vector[-1:]
        residual = problem.data[0].numpy() - problem.matrix @ np.exp(g) - sky
        return problem.weight[0].numpy() @ residual**2 + strength * g @ (prior.matrix @ g)

    return function


@pytest.mark.parametrize("full", [False, True])
def test_optimum_is_that_of_a_general_minimiser(full, rng):
    problem, prior = Blurred(rng, full=full), Prior("curvature", 6)
    found = solve(
        problem,
        prior,
        2.0,
        np.zeros(36),
        np.zeros(1),
        mean=0.0,
        adapt=False,
        max_iterations=50,
        tolerance=1e-9,
    )
    function = objective(problem, prior, 2.0)
    ours = np.concatenate([found.field, found.parameters])
    other = minimize(function, np.zeros(37), method="BFGS", options={"gtol": 1e-6, "maxiter": 5000})
    assert found.converged
    assert function(ours) <= other.fun * (1 + 1e-8)
    np.testing.assert_allclose(ours, other.x, atol=2e-3)


def lower_band(matrix):
    """All of a symmetric matrix as LAPACK has a lower band."""
    return np.stack([np.pad(np.diagonal(matrix, -k), (0, k)) for k in range(len(matrix))])


def test_factor_solves_and_samples_the_joint_matrix(rng):
    root = rng.normal(size=(12, 12))
    whole = root @ root.T + 5 * np.eye(12)
    factor = Factor(lower_band(whole[:10, :10]), whole[:10, 10:].copy(), whole[10:, 10:].copy())
    right = rng.normal(size=(12, 2))
    np.testing.assert_allclose(factor.solve(right), np.linalg.solve(whole, right))
    np.testing.assert_allclose(factor.parameter_covariance, np.linalg.inv(whole)[10:, 10:])
    assert factor.log_determinant == pytest.approx(np.linalg.slogdet(whole)[1])
    root = factor.sample(np.eye(12))
    np.testing.assert_allclose(root @ root.T, np.linalg.inv(whole), atol=1e-12)


def test_factor_without_parameters(rng):
    """A scene with nothing to fit but the source; an empty right-hand side crashes LAPACK's banded solver."""
    band = np.stack([np.full(30, 4.0), np.full(30, -1.0)])
    factor = Factor(band.copy(), np.zeros((30, 0)), np.zeros((0, 0)))
    whole = np.diag(band[0]) + np.diag(band[1, :-1], -1) + np.diag(band[1, :-1], 1)
    right = rng.normal(size=(30, 3))
    np.testing.assert_allclose(factor.solve(right), np.linalg.solve(whole, right))
    assert factor.parameter_covariance.shape == (0, 0)


@pytest.mark.parametrize("full", [False, True])
def test_normal_matrix_is_that_of_numpy(full, rng, monkeypatch):
    monkeypatch.setattr(linalg, "DROPPED", 0.0)
    problem, prior = Blurred(rng, side=16, full=full), Prior("curvature", 16)
    (normal,), slope = problem.normal(None, None), rng.random(256)
    factor = normal.factor(slope, prior, 3.0, np.zeros((256, 0)), np.zeros((0, 0)))
    matrix = problem.matrix.toarray() * slope
    whole = matrix.T @ (matrix * problem.weight[0].numpy()[:, None]) + 3.0 * prior.dense
    assert factor.log_determinant == pytest.approx(np.linalg.slogdet(whole)[1])


def seen_through_a_telescope(side=24, pixels=40, width=1.2):
    """A map from nodes to the pixels of an image that a Gaussian blurs, and weights that favour some."""
    line = np.linspace(0, side - 1, pixels)
    along = np.maximum(0, 1 - np.abs(line[:, None] - np.arange(side)))
    blur = np.exp(-0.5 * ((np.arange(pixels)[:, None] - np.arange(pixels)) / width) ** 2)
    along = blur @ along / blur.sum(1)[:, None]
    matrix = np.kron(along, along)
    matrix[np.abs(matrix) < 1e-4 * matrix.max()] = 0
    return sparse.csr_array(matrix), np.linspace(1, 400, pixels**2)


def test_what_lies_outside_the_band_hardly_matters(monkeypatch):
    """Against the whole matrix: ln evidence within 0.1, the errors of the nodes within 2 %."""
    side = 24
    monkeypatch.setattr(linalg, "CHEAP", 0.0)
    (matrix, weight), prior = seen_through_a_telescope(side), Prior("curvature", side)
    normal, slope = NormalMatrix(in_sigma(matrix, weight), side), np.geomspace(0.3, 3, side**2)
    assert normal.columns.shape[1] < 0.5 * side**2
    factor = normal.factor(slope, prior, 3.0, np.zeros((side**2, 0)), np.zeros((0, 0)))
    dense = matrix.toarray() * slope
    whole = dense.T @ (dense * weight[:, None]) + 3.0 * prior.dense
    assert factor.log_determinant == pytest.approx(np.linalg.slogdet(whole)[1], abs=0.2)
    errors = np.sqrt(np.diagonal(factor.solve(np.eye(side**2))) / np.diagonal(np.linalg.inv(whole)))
    np.testing.assert_allclose(errors, 1, atol=0.02)


def test_a_band_that_is_not_positive_is_made_wider(monkeypatch):
    monkeypatch.setattr(linalg, "DROPPED", 0.4)
    monkeypatch.setattr(linalg, "CHEAP", 0.0)
    (matrix, weight), prior = seen_through_a_telescope(width=4), Prior("curvature", 24)
    normal = NormalMatrix(in_sigma(matrix, weight), 24)
    width = normal.columns.shape[1]
    with pytest.raises(np.linalg.LinAlgError):
        Factor(normal._sum(np.ones(576), prior, 1e-8, width - 1).T, np.zeros((576, 0)), np.zeros((0, 0)))
    factor = normal.factor(np.ones(576), prior, 1e-8, np.zeros((576, 0)), np.zeros((0, 0)))
    assert normal.columns.shape[1] > width and np.isfinite(factor.log_determinant)


def test_evidence_of_a_linear_inversion_is_the_gaussian_integral(rng):
    """With a linear source all is Gaussian: data ~ N(0, W^-1 + M C^-1 M^T), the sky held by its prior."""
    problem, prior = Blurred(rng), Prior("gradient", 6)
    problem.parameter_prior = row([0.0]), row([4.0])
    matrix, data, noise = problem.matrix.toarray(), problem.data[0].numpy(), 1 / problem.weight[0].numpy()

    def exact(strength):
        covariance = np.diag(noise) + 0.25 + matrix @ np.linalg.inv(strength * prior.dense) @ matrix.T
        return -0.5 * (np.linalg.slogdet(covariance)[1] + data @ np.linalg.solve(covariance, data))

    def ours(strength):
        options = {"link": "linear", "adapt": False, "tolerance": 1e-12}
        return solve(problem, prior, strength, np.ones(36), np.zeros(1), **options).evidence

    strengths = (0.01, 1.0, 30.0)
    offsets = [ours(strength) - exact(strength) for strength in strengths]
    np.testing.assert_allclose(offsets, offsets[0], atol=1e-6)


@pytest.mark.parametrize("link", ["linear", "log"])
def test_the_strength_is_where_the_evidence_is_highest(link, rng):
    problem, prior = Blurred(rng), Prior("gradient", 6)
    start = np.ones(36) if link == "linear" else np.zeros(36)
    best = solve(problem, prior, None, start, np.zeros(1), link=link)
    assert best.converged
    options = {"link": link, "adapt": False, "mean": best.mean}
    others = [
        solve(problem, prior, factor * best.strength, best.field, best.parameters, **options).evidence
        for factor in (0.2, 5.0)
    ]
    assert best.evidence > max(others)


def test_determined_nodes_are_those_of_the_trace(rng):
    problem, prior = Blurred(rng), Prior("gradient", 6)
    found = solve(problem, prior, 2.0, np.zeros(36), np.zeros(1), adapt=False)
    inverse = found.factor.solve(np.eye(37))[:36, :36]
    exact = 36 - 2.0 * np.trace(inverse @ prior.dense)
    assert found.determined == pytest.approx(exact, rel=0.1)


def test_priors_are_compared_by_evidence(rng):
    problem = Blurred(rng)
    found = choose_prior(problem, [Prior("gradient", 6), Prior("laplacian3", 6)], np.zeros(36), np.zeros(1))
    assert {solution.prior.name for solution in found} == {"gradient", "laplacian3"}
    assert found[0].evidence >= found[1].evidence


def test_a_matrix_that_is_not_positive_is_an_error(rng, monkeypatch):
    def refuse(self, *blocks, for_step):
        raise np.linalg.LinAlgError("not positive")

    monkeypatch.setattr(NormalMatrix, "factor", refuse)
    with pytest.raises(np.linalg.LinAlgError, match="not positive"):
        solve(Blurred(rng), Prior("gradient", 6), 1.0, np.zeros(36), np.zeros(1))


def test_an_unknown_option_is_refused(rng):
    with pytest.raises(TypeError, match="max_iteration"):
        solve(Blurred(rng), Prior("gradient", 6), 1.0, np.zeros(36), np.zeros(1), max_iteration=3)


def dense_factors(whole, prior=None):
    """Factors of matrices (b, n + 2, n + 2) whose last two rows are those of parameters."""
    count = whole.shape[1] - 2
    ones = torch.ones(len(whole), count, dtype=torch.float64)
    prior = prior or BatchPrior(Prior("gradient", 2), "cpu", dense=True)
    blocks = whole[:, :count, :count].clone(), whole[:, :count, count:], whole[:, count:, count:]
    return DenseFactors(blocks[0], ones, prior, torch.zeros(len(whole), dtype=torch.float64), *blocks[1:])


def test_whole_matrices_of_a_batch_are_solved_and_traced(rng):
    prior = BatchPrior(Prior("gradient", 3), "cpu", dense=True)
    roots = torch.as_tensor(rng.normal(size=(3, 11, 11)))
    whole = roots @ roots.mT + 5 * torch.eye(11)
    factors = dense_factors(whole, prior)
    right = torch.as_tensor(rng.normal(size=(3, 11, 2)))
    torch.testing.assert_close(factors.solve(right), torch.linalg.solve(whole, right))
    torch.testing.assert_close(factors.log_determinant, torch.linalg.slogdet(whole)[1])
    expected = (torch.linalg.inv(whole)[:, :9, :9] * prior.matrix).sum((1, 2))
    torch.testing.assert_close(factors.trace(prior, None), expected)
    assert not factors.failed.any()


def test_what_is_not_positive_fails_or_is_mended_alone(rng):
    root = rng.normal(size=(6, 6))
    good = root @ root.T + 5 * np.eye(6)
    stiff = good.copy()
    stiff[4:, 4:] -= 0.99 * good[4:, 4:]
    factors = dense_factors(torch.as_tensor(np.stack([good, stiff, -good])))
    assert factors.failed.tolist() == [False, False, True]
    for number, one in enumerate((good, stiff)):
        alone = Factor(lower_band(one[:4, :4]), one[:4, 4:].copy(), one[4:, 4:].copy())
        np.testing.assert_allclose(factors.schur[number], alone.schur, rtol=1e-8, atol=1e-10)
        assert float(factors.log_determinant[number]) == pytest.approx(alone.log_determinant)


@pytest.mark.parametrize("seed", range(4))
def test_a_step_within_a_box_is_the_least_squares_solution_there(seed):
    """Against the bounded least squares of scipy."""
    rng, nodes = np.random.default_rng(seed), 12
    matrix, data = rng.normal(size=(40, nodes + 3)), 3 * rng.normal(size=40)
    normal, right = matrix.T @ matrix, matrix.T @ data
    low, high = np.full(3, -0.2), np.array([0.1, 0.05, 5.0])
    factor = Factor(
        band_columns(sparse.csr_array(normal[:nodes, :nodes]), nodes - 1).T.copy(order="F"),
        normal[:nodes, nodes:],
        normal[nodes:, nodes:],
    )
    whole = SimpleNamespace(
        count=nodes, solve=lambda right: torch.as_tensor(factor.solve(right[0].numpy()))[None]
    )
    step = within_box(whole, row(factor.solve(right[:, None])[:, 0]), row(low), row(high))[0].numpy()
    ends = [np.concatenate([np.full(nodes, end), part]) for end, part in ((-np.inf, low), (np.inf, high))]
    expected = lsq_linear(matrix, data, ends, tol=1e-12)
    assert (step[nodes:] >= low - 1e-12).all() and (step[nodes:] <= high + 1e-12).all()
    # What is held stays held, which may cost a little beside the true minimum.
    found = ((matrix @ step - data) ** 2).sum()
    assert found <= 2 * expected.cost * 1.05
    if np.allclose(step[nodes:], expected.x[nodes:], atol=1e-9):
        np.testing.assert_allclose(step, expected.x, atol=1e-6)
    free = factor.solve(right[:, None])[:, 0]
    assert not np.allclose(free, step)


@pytest.mark.parametrize("seed", range(4))
def test_a_refined_step_is_that_of_the_whole_matrix(seed):
    """Found with factors of a narrow band of it, it ends at the bounds where the whole one does."""
    rng, nodes = np.random.default_rng(seed), 40
    near = np.exp(-0.5 * np.subtract.outer(np.arange(nodes), np.arange(nodes)) ** 2 / 2.0**2)
    matrix = np.concatenate([near, rng.normal(size=(nodes, 3))], axis=1)
    normal = matrix.T @ matrix + np.diag(np.full(nodes + 3, 1.0))
    right = torch.as_tensor(matrix.T @ (3 * rng.normal(size=nodes)))[None]
    low, high = row(np.full(3, -0.2)), row(np.array([0.1, 0.05, 5.0]))

    def factors(width):
        band = band_columns(sparse.csr_array(normal[:nodes, :nodes]), width).T.copy(order="F")
        one = Factor(band, normal[:nodes, nodes:], normal[nodes:, nodes:])
        return SimpleNamespace(
            count=nodes, solve=lambda right: torch.as_tensor(one.solve(right[0].numpy()))[None]
        )

    whole, cut = factors(nodes - 1), factors(6)
    expected = within_box(whole, whole.solve(right.unsqueeze(2))[..., 0], low, high)[0].numpy()
    asked = torch.as_tensor(normal)
    step, _ = refined_within_box(lambda vector: vector @ asked, cut, right, low, high)
    found, roughly = step[0].numpy(), within_box(cut, cut.solve(right.unsqueeze(2))[..., 0], low, high)[0]

    def loss(at):
        return at @ normal @ at - 2 * at @ right[0].numpy()

    assert loss(found) <= loss(expected) + 2e-2 * abs(loss(expected))
    assert loss(roughly.numpy()) > loss(found)
    assert (found[nodes:] >= low[0].numpy() - 1e-12).all() and (
        found[nodes:] <= high[0].numpy() + 1e-12
    ).all()
