"""The posterior of one band, once the other bands have said what they know of the lens."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lenssr.source.linalg import Factor

__all__ = ["BoundFactor"]


class BoundFactor(Factor):
    """A `~lenssr.source.Factor` of one band whose first parameters, the lens, have another covariance.

    Given the lens, everything else in the band is as the band alone has it: with X the covariance of
    everything with the lens, P the inverse of that of the lens, and S the covariance of the lens by all bands
    together, the covariance of everything is C + X P (S - P^-1) P X^T.

    Parameters
    ----------
    factor : `~lenssr.source.Factor`
        Of the band, with its share of the prior of the lens.
    covariance : `~numpy.ndarray`, shape (L, L)
        Of the lens, by all bands.
    """

    def __init__(self, factor: Factor, covariance: NDArray) -> None:
        vars(self).update(vars(factor))
        lens = len(covariance)
        self.lens = slice(self.count, self.count + lens)
        right = np.zeros((self.size, lens))
        right[self.lens] = np.eye(lens)
        with_lens = super().solve(right)
        alone = with_lens[self.lens]
        self.follow = with_lens @ np.linalg.inv(alone)  # how everything moves with the lens
        self.more = covariance - alone
        # Draws of the lens by one band become draws by all with this matrix.
        root, own = (np.linalg.cholesky((one + one.T) / 2) for one in (covariance, alone))
        self.turn = root @ np.linalg.inv(own) - np.eye(lens)

    def solve(self, right: NDArray) -> NDArray:
        """The covariance times right-hand sides (n + K, m)."""
        return super().solve(right) + self.follow @ (self.more @ (self.follow.T @ right))

    def sample(self, normals: NDArray) -> NDArray:
        """Vectors (n + K, m) with the covariance, from standard normals."""
        draws = super().sample(normals)
        return draws + self.follow @ (self.turn @ draws[self.lens])

    @property
    def parameter_covariance(self) -> NDArray:
        """Covariance (K, K) of the parameters."""
        follow = self.follow[self.count :]
        return super().parameter_covariance + follow @ self.more @ follow.T

    def node_variances(self, dtype: DTypeLike = np.float64) -> NDArray:
        """Posterior variances (n,) of the nodes."""
        follow = self.follow[: self.count]
        # The parent's sum over parameters must not come through the solutions of this class.
        own = Factor.__new__(Factor)
        vars(own).update({name: value for name, value in vars(self).items()})
        return own.node_variances(dtype) + ((follow @ self.more) * follow).sum(axis=1)
