"""Gauss-Newton for a positive source s = exp(g) and the parameters of lens and sky, with its evidence."""

from dataclasses import dataclass

import numpy as np
import scipy.linalg as linalg
import scipy.sparse as sparse

from lenssr.inversion.priors import to_banded

__all__ = ["Solution", "maximise_evidence", "solve"]

STEP = 2.0  # a node may brighten or fade by e^2 in one step
STRENGTHS = 10.0 ** np.arange(4.0, -3.1, -1.0)
SEARCH_GAIN = 0.5  # evidences are compared before the last digits are found


@dataclass
class Solution:
    """Where the inversion ended for one strength of the prior.

    Attributes
    ----------
    log_source : `~numpy.ndarray`, shape (n,)
    parameters : `~numpy.ndarray`, shape (K,)
    strength : float
    chi2 : float
    evidence : float
        Logarithm of the Laplace evidence, up to what data alone determine.
    factor : object
        Factor of the Gauss-Newton matrix at the end: solves with it, and draws from its inverse.
    prior : `~lenssr.inversion.priors.Prior`
    iterations : int
    converged : bool
    """

    log_source: np.ndarray
    parameters: np.ndarray
    strength: float
    chi2: float
    evidence: float
    factor: object
    prior: object
    iterations: int
    converged: bool

    def samples(self, number, rng):
        """Draws (number, n + K) of log source and parameters from the Laplace posterior."""
        offsets = self.factor.sample(rng.standard_normal((self.factor.size, number)))
        return np.concatenate([self.log_source, self.parameters]) + offsets.T


class Factor:
    """Cholesky factor of [[A, B], [B^T, C]]: A banded or dense (n, n), C the few parameters (K, K)."""

    def __init__(self, curvature, cross, corner):
        self.banded = isinstance(curvature, tuple)
        self.count, self.parameters = cross.shape
        if self.banded:
            self.lower = linalg.cholesky_banded(
                curvature[0], lower=True, overwrite_ab=True, check_finite=False
            )
            diagonal = self.lower[0]
        else:
            self.lower = linalg.cholesky(curvature, lower=True, overwrite_a=True, check_finite=False)
            diagonal = np.diagonal(self.lower)
        self.half = self._forward(cross)
        self.schur = linalg.cholesky(corner - self.half.T @ self.half, lower=True)
        self.log_determinant = 2 * float(np.log(diagonal).sum() + np.log(np.diagonal(self.schur)).sum())

    @property
    def size(self):
        """Nodes and parameters."""
        return self.count + self.parameters

    def _forward(self, right):
        if self.banded:
            return linalg.lapack.dtbtrs(self.lower, right, uplo="L")[0]
        return linalg.solve_triangular(self.lower, right, lower=True, check_finite=False)

    def _backward(self, right):
        if self.banded:
            return linalg.lapack.dtbtrs(self.lower, right, uplo="L", trans="T")[0]
        return linalg.solve_triangular(self.lower, right, lower=True, trans=1, check_finite=False)

    def solve(self, right):
        """Solution of the system for one right-hand side (n + K,)."""
        above = self._forward(right[: self.count, None])[:, 0]
        below = linalg.solve_triangular(self.schur, right[self.count :] - self.half.T @ above, lower=True)
        return self._join(above[:, None], below[:, None])[:, 0]

    def sample(self, normals):
        """Vectors (n + K, S) whose covariance is the inverse of the matrix, from standard normals."""
        return self._join(normals[: self.count], normals[self.count :])

    def _join(self, above, below):
        parameters = linalg.solve_triangular(self.schur, below, lower=True, trans=1)
        return np.concatenate([self._backward(above - self.half @ parameters), parameters])

    @property
    def parameter_covariance(self):
        """Covariance (K, K) of the parameters."""
        inverse = linalg.solve_triangular(self.schur, np.eye(self.parameters), lower=True)
        return inverse.T @ inverse


def solve(problem, prior, strength, log_source, parameters, *, max_iterations=30, tolerance=0.05):
    """Maximise the posterior for one strength of the prior.

    Parameters
    ----------
    problem : object
        ``problem.linearise(source, parameters)`` gives model (N,), matrix (N, n) and Jacobian (N, K);
        ``problem.data``, ``problem.weight`` (N,), ``problem.mean`` (the prior's mean of g), and
        ``problem.parameter_prior`` (mean, inverse variance) and ``problem.bounds`` (lower, upper), each (K,).
    prior : `~lenssr.inversion.priors.Prior`
    strength : float
    log_source, parameters : `~numpy.ndarray`, shapes (n,), (K,)
        Where to begin.
    max_iterations : int, optional
    tolerance : float, optional
        Converged once a step gains less than this in twice the log posterior.

    Returns
    -------
    solution : `Solution`
    """
    state = _State(problem, prior, strength, log_source, parameters)
    iteration, converged = 0, False
    while iteration < max_iterations and not converged:
        iteration += 1
        factor = state.factorise()
        step = factor.solve(state.gradient())
        step *= min(1.0, STEP / max(np.abs(step[: factor.count]).max(), 1e-300))
        converged = state.advance(step) < tolerance
    factor = state.factorise()
    return Solution(
        state.g, state.p, strength, state.chi2, state.evidence(factor), factor, prior, iteration, converged
    )


class _State:
    """Log source and parameters with what they predict."""

    def __init__(self, problem, prior, strength, g, p):
        self.problem, self.prior, self.strength = problem, prior, strength
        self._move(g, p)

    def _predict(self, g, p):
        source = np.exp(g)
        model, matrix, jacobian = self.problem.linearise(source, p)
        residual = self.problem.data - model
        chi2 = float((self.problem.weight * residual**2).sum())
        mean, stiffness = self.problem.parameter_prior
        rough = g - self.problem.mean
        penalty = self.strength * float(rough @ (self.prior.matrix @ rough)) + float(
            (stiffness * (p - mean) ** 2).sum()
        )
        return source, matrix, jacobian, residual, chi2, penalty

    def _move(self, g, p):
        self.g, self.p = g, p
        self.source, self.matrix, self.jacobian, self.residual, self.chi2, self.penalty = self._predict(g, p)

    def gradient(self):
        """Half the gradient of the log posterior, (n + K,)."""
        weighted = self.problem.weight * self.residual
        rough = self.prior.matrix @ (self.g - self.problem.mean)
        mean, stiffness = self.problem.parameter_prior
        return np.concatenate(
            [
                self.source * (self.matrix.T @ weighted) - self.strength * rough,
                self.jacobian.T @ weighted - stiffness * (self.p - mean),
            ]
        )

    def factorise(self):
        """Factor the Gauss-Newton matrix."""
        weight, source = self.problem.weight, self.source
        weighted = self.jacobian * weight[:, None]
        cross = source[:, None] * (self.matrix.T @ weighted)
        corner = self.jacobian.T @ weighted + np.diag(self.problem.parameter_prior[1])
        if sparse.issparse(self.matrix):
            scaled = sparse.diags_array(np.sqrt(weight)) @ self.matrix @ sparse.diags_array(source)
            side = self.prior.side
            width = max(self.prior.width, side + 1)
            band = to_banded((scaled.T @ scaled), width)
            band[: self.prior.width + 1] += self.strength * self.prior.band
            return Factor((band,), cross, corner)
        normal = self.problem.normal(self.matrix) * (source[:, None] * source[None, :])
        normal += self.strength * self.prior.dense
        return Factor(normal, cross, corner)

    def advance(self, step):
        """Move along a step, shortened until the posterior grows; returns the gain."""
        before = self.chi2 + self.penalty
        count = len(self.g)
        for _ in range(8):
            g, p = self.g + step[:count], np.clip(self.p + step[count:], *self.problem.bounds)
            trial = self._predict(g, p)
            gain = before - trial[4] - trial[5]
            if gain > 0:
                self.g, self.p = g, p
                self.source, self.matrix, self.jacobian, self.residual, self.chi2, self.penalty = trial
                return gain
            step = step / 3
        return 0.0

    def evidence(self, factor):
        """Laplace evidence: fit, prior, and the ratio of the volumes of posterior and prior."""
        volume = self.prior.log_determinant + len(self.g) * np.log(self.strength) - factor.log_determinant
        stiffness = self.problem.parameter_prior[1]
        volume += float(np.log(stiffness[stiffness > 0]).sum())
        return 0.5 * (volume - self.chi2 - self.penalty)


def maximise_evidence(problem, prior, log_source, parameters, *, strengths=STRENGTHS):
    """Solve for strengths from high to low until the evidence falls, then for those between the best ones.

    Parameters
    ----------
    problem, prior, log_source, parameters
        As for `solve`.
    strengths : sequence of float, optional
        From high to low; each fit begins where the last one ended.

    Returns
    -------
    solution : `Solution`
        Of the strength with the highest evidence, fully converged.
    """
    best = None
    for strength in strengths:
        solution = solve(
            problem, prior, strength, log_source, parameters, max_iterations=10, tolerance=SEARCH_GAIN
        )
        log_source, parameters = solution.log_source, solution.parameters
        if best is not None and solution.evidence < best.evidence:
            break
        best = solution
    step = np.sqrt(strengths[0] / strengths[1]) if len(strengths) > 1 else 1.0
    for strength in (best.strength * step, best.strength / step) if step > 1 else ():
        between = solve(
            problem,
            prior,
            strength,
            best.log_source,
            best.parameters,
            max_iterations=10,
            tolerance=SEARCH_GAIN,
        )
        best = max(best, between, key=lambda solution: solution.evidence)
    return solve(problem, prior, best.strength, best.log_source, best.parameters)
