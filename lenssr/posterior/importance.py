"""Draws from the Gaussian around the most likely lens, as they are (Laplace) or weighed by the posterior."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lenssr.exceptions import InputError
from lenssr.posterior.targets import Target

__all__ = ["Gaussian", "laplace", "psis"]

Array = NDArray[np.float64]

# Draws beyond the bounds are drawn again, so often.
ROUNDS = 100
# Fewest draws of which the tail of the weights can be measured.
FEWEST = 25
# Range of the logarithms of weights below which these are equal but for rounding.
SAME = 1e-9
# Draws that are weighed between two reports of the progress.
AT_ONCE = 16


class Gaussian:
    """The Gaussian around the most likely vector, within the bounds of the fit.

    Parameters that ended on a bound have no width and stay there.
    """

    def __init__(self, target: Target) -> None:
        self.target, self.centre = target, target.centre
        values, vectors = np.linalg.eigh(target.covariance)
        kept = values > values.max(initial=0.0) * 1e-14
        self.root = vectors[:, kept] * np.sqrt(values[kept])

    def draw(self, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """Vectors (n, F) within the bounds, and the logarithms (n,) of their density, up to a constant."""
        normals = rng.standard_normal((n, self.root.shape[1]))
        for _ in range(ROUNDS):
            vectors = self.centre + normals @ self.root.T
            outside = ~self.target.inside(vectors)
            if not outside.any():
                break
            normals[outside] = rng.standard_normal((int(outside.sum()), self.root.shape[1]))
        else:
            raise InputError("the errors reach far beyond the bounds of the fit: use method='emcee'")
        return vectors, -0.5 * (normals**2).sum(axis=1)


def laplace(target: Target, n: int, rng: np.random.Generator) -> tuple[Array, Array, dict[str, Any]]:
    """Vectors (n, F), their weights and diagnostics: a Gaussian in the variables of the fit."""
    vectors, _ = Gaussian(target).draw(n, rng)
    return vectors, np.ones(n), {}


def psis(
    target: Target, n: int, rng: np.random.Generator, step: Callable[[int], Any]
) -> tuple[Array, Array, dict[str, Any]]:
    """Vectors (n, F), smoothed weights, and ``pareto_k``; ``step(number)`` is told of draws that are done.

    References
    ----------
    Vehtari et al. 2024, JMLR 25, 72 (Pareto smoothed importance sampling).
    """
    try:
        from arviz_stats.base import array_stats
    except ImportError as error:
        raise InputError("method='psis' needs arviz-stats: pip install 'lenssr[posterior]'") from error
    if n < FEWEST:
        raise InputError(f"n = {n} with method='psis': give {FEWEST} or more, whose weights have a tail")
    vectors, density = Gaussian(target).draw(n, rng)
    ratios = []
    for start in range(0, n, AT_ONCE):
        piece = slice(start, start + AT_ONCE)
        ratios.append(target.log_posterior(vectors[piece]) - density[piece])
        step(len(ratios[-1]))
    ratio = np.concatenate(ratios)
    if not np.isfinite(ratio).any():
        raise InputError("no draw is possible by the data: the fit is not at a maximum, see the flags")
    # A draw that is impossible has no weight; the smoothing wants finite numbers.
    ratio = np.where(np.isfinite(ratio), ratio, np.nanmin(ratio[np.isfinite(ratio)]) - 700.0)
    if np.ptp(ratio) < SAME:  # the posterior is that Gaussian: there is no tail to measure
        return vectors, np.ones(n), {"pareto_k": 0.0, "effective_size": float(n)}
    # It takes the negative logarithms, as of cross-validation.
    smooth, k = array_stats.psislw(ratio.max() - ratio)
    weights = np.exp(smooth - smooth.max())
    weights /= weights.sum()
    size = 1 / float((weights**2).sum())
    return vectors, weights, {"pareto_k": float(k), "effective_size": size}
