"""Information of the data on a free-form source, node by node."""

from __future__ import annotations

import numpy as np
import scipy.linalg as linalg
from numpy.typing import DTypeLike, NDArray

from lenssr.source.gauss_newton import Solution
from lenssr.source.linalg import Factor, band_blocks
from lenssr.source.problem import Problem

__all__ = ["LEAST_INFORMATION", "information", "leverage", "node_variances"]

# Below this a pixel of the source is prior rather than data.
LEAST_INFORMATION = 0.5
# Draws for the leverage of pixels, which is summed over regions.
DRAWS, DRAW_SEED = 16, 1821


def information(solution: Solution) -> NDArray:
    """1 - (posterior variance) / (prior variance) of the field at every node, (n,): 1 is data, 0 is prior.

    The variance of the prior is conditional on its free modes (see `~lenssr.source.Prior`): any data
    determine these, and with their own variance the ratio would be near 0 everywhere.
    """
    prior = solution.prior.local_variance / solution.strength
    return np.clip(1 - node_variances(solution.factor, np.float32) / prior, 0.0, 1.0)


def leverage(problem: Problem, solution: Solution) -> NDArray:
    """Diagonal (N,) of the hat matrix by draws, to a third for a single pixel.

    Its sum over a region is the number of parameters that the region determines; its pixels less that number
    are the expectation of their chi2, if prior and noise are right.
    """
    factor, parameters = solution.factor, solution.parameters
    signs = np.random.default_rng(DRAW_SEED).choice([-1.0, 1.0], (factor.size, DRAWS))
    draws = factor.sample(signs)
    of_parameters = problem.jacobian(solution.values, parameters) @ draws[factor.count :]
    nodes = solution.slope[:, None] * draws[: factor.count]
    of_source = np.stack([problem.lensed_source(column, parameters) for column in nodes.T], axis=1)
    return problem.weight * ((of_source + of_parameters) ** 2).mean(axis=1)


def node_variances(factor: Factor, dtype: DTypeLike = np.float64) -> NDArray:
    """Posterior variances (n,) of the nodes: the diagonal of the inverse, without draws, in a precision."""
    held = _diagonal_of_inverse(factor.lower.astype(dtype))
    if not factor.parameters:
        return held
    # Contribution of the parameters of lens, light and sky: A^-1 B S^-1 B^T A^-1, with S = C - B^T A^-1 B.
    root = np.concatenate([np.zeros((factor.count, factor.parameters)), factor.schur])
    return held + (factor.solve(root)[: factor.count] ** 2).sum(axis=1)


def _diagonal_of_inverse(lower: NDArray) -> NDArray:
    """Diagonal of the inverse from the factor's band, block by block from the last one.

    Z_i = D_i^-T (1 + E_i^T Z_(i+1) E_i) D_i^-1, with the blocks of `band_blocks`, are the blocks on the
    diagonal of the inverse; there is no subtraction (Takahashi, Fagan & Chen 1973, Proc. 8th PICA Conference,
    63).
    """
    (invert,) = linalg.get_lapack_funcs(("trtri",), (lower,))
    variances, after = np.zeros(lower.shape[1]), None
    for place, diagonal, below in reversed(band_blocks(lower)):
        inverse = np.tril(invert(diagonal, lower=1)[0])
        here = inverse.T @ inverse
        if after is not None:
            passed = np.triu(below) @ inverse
            here += passed.T @ (after @ passed)
        variances[place], after = np.diagonal(here), here
    return variances
