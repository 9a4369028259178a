"""Gaussian priors on the logarithm of a source: how rough it may be."""

from functools import cached_property

import numpy as np
import scipy.sparse as sparse

from lenssr.exceptions import InputError

__all__ = ["PRIORS", "Prior", "to_banded"]

# Powers of the lattice Laplacian: with a quadratic form g L^p g, p = 1 punishes gradients, 2 curvature.
PRIORS = {"gradient": 1, "curvature": 2, "laplacian3": 3}
# A constant offset of a whole grid is free but for this share, which makes the prior normalisable.
RIDGE = 1e-3


def to_banded(matrix, width):
    """The lower band of a symmetric sparse matrix, as LAPACK wants it.

    Parameters
    ----------
    matrix : sparse array, shape (n, n)
    width : int
        Diagonals below the main one.

    Returns
    -------
    band : `~numpy.ndarray`, shape (width + 1, n)
    """
    entries = matrix.tocoo()
    offset = entries.row - entries.col
    keep = (offset >= 0) & (offset <= width)
    band = np.zeros((width + 1, matrix.shape[0]))
    np.add.at(band, (offset[keep], entries.col[keep]), entries.data[keep])
    return band


class Prior:
    """The precision matrix of a stationary Gaussian prior on a square grid, for unit strength.

    Parameters
    ----------
    name : {"gradient", "curvature", "laplacian3"}
    side : int
        Nodes along a side.
    """

    def __init__(self, name, side):
        if name not in PRIORS:
            raise InputError(f"prior = {name!r}: give one of {', '.join(map(repr, PRIORS))}")
        self.name, self.side, self.power = name, side, PRIORS[name]

    @cached_property
    def matrix(self):
        """Sparse array (n, n)."""
        step = sparse.diags_array([-1.0, 1.0], offsets=[0, 1], shape=(self.side - 1, self.side))
        line = step.T @ step
        eye = sparse.eye_array(self.side)
        laplacian = sparse.kron(line, eye) + sparse.kron(eye, line) + RIDGE * sparse.eye_array(self.side**2)
        matrix = laplacian
        for _ in range(self.power - 1):
            matrix = matrix @ laplacian
        return matrix.tocsr()

    @property
    def width(self):
        """Half the bandwidth."""
        return self.power * self.side

    @cached_property
    def band(self):
        """The lower band of the matrix."""
        return to_banded(self.matrix, self.width)

    @cached_property
    def dense(self):
        """The whole matrix."""
        return self.matrix.toarray()

    @cached_property
    def log_determinant(self):
        """Logarithm of the determinant, from the eigenvalues of the lattice Laplacian."""
        line = 2 - 2 * np.cos(np.pi * np.arange(self.side) / self.side)
        return float(self.power * np.log(line[:, None] + line[None, :] + RIDGE).sum())
