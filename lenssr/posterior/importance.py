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
# Shares of the range of a parameter on its bound among which its width is looked for, and their number.
WIDTHS, TRIALS = (1e-4, 0.5), 24
# Fewest draws of which the tail of the weights can be measured.
FEWEST = 25
# Range of the logarithms of weights below which these are equal but for rounding.
SAME = 1e-9
# Draws that are weighed between two reports of the progress.
AT_ONCE = 16


class Gaussian:
    """The Gaussian around the most likely vector, within the bounds of the fit.

    A parameter that ended on a bound gets half a Gaussian of its own, which is as wide as the posterior is
    there while all else is held.
    """

    def __init__(self, target: Target) -> None:
        self.target, self.centre = target, target.centre
        values, vectors = np.linalg.eigh(target.covariance)
        kept = values > values.max(initial=0.0) * 1e-14
        self.root = vectors[:, kept] * np.sqrt(values[kept])
        self.edges = np.flatnonzero(np.diag(target.covariance) <= 0)
        self.inward = np.array([self._width(int(k)) for k in self.edges]).reshape(-1)

    def _width(self, k: int) -> float:
        """How far off its bound the posterior of a parameter has fallen by exp(-1/2), with its sign."""
        lower, upper = (float(end[k]) for end in self.target.bounds)
        whole = upper - lower if np.isfinite(upper - lower) else 1.0
        sign = 1.0 if self.centre[k] - lower < upper - self.centre[k] else -1.0
        steps = np.concatenate([[0.0], np.geomspace(*WIDTHS, TRIALS) * whole])
        vectors = np.tile(self.centre, (len(steps), 1))
        vectors[:, k] += sign * steps
        value = self.target.log_posterior(vectors)
        fallen = value[0] - value > 0.5
        return sign * float(steps[np.argmax(fallen) if fallen.any() else -1])

    def draw(self, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """Vectors (n, F) within the bounds, and the logarithms (n,) of their density, up to a constant."""
        size = self.root.shape[1]
        normals = rng.standard_normal((n, size + len(self.edges)))
        for _ in range(ROUNDS):
            vectors = self.centre + normals[:, :size] @ self.root.T
            vectors[:, self.edges] += np.abs(normals[:, size:]) * self.inward
            outside = ~self.target.inside(vectors)
            if not outside.any():
                break
            normals[outside] = rng.standard_normal((int(outside.sum()), normals.shape[1]))
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
        # Its psislw takes the negative of the logarithms, as of cross-validation.
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
    with np.errstate(all="ignore"):
        smooth, k = array_stats.psislw(ratio.max() - ratio)
    if not (np.isfinite(smooth).all() and np.isfinite(k)):
        # A few draws have all of the weight, and there is no tail to fit.
        smooth, k = ratio, np.inf
    weights = np.exp(smooth - smooth.max())
    weights /= weights.sum()
    size = 1 / float((weights**2).sum())
    return vectors, weights, {"pareto_k": float(k), "effective_size": size}
