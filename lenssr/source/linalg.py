"""Normal matrices of the inversion, banded or dense, and the factor of what is solved."""

import numpy as np
import scipy.linalg as linalg
import scipy.sparse as sparse

__all__ = ["Factor", "NormalMatrix", "band_blocks", "to_banded"]

# A band wider than this share of the matrix costs more than the whole matrix.
WIDEST_BAND = 0.2
# Least stiffness of a combination of parameters, as a share of their own, where none follows.
SOFTEST = 1e-3
# From so many right-hand sides on, a banded factor is solved block by block.
MANY = 32


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


def band_blocks(lower):
    """A banded lower triangular matrix in blocks as large as its band: it is block bidiagonal.

    Parameters
    ----------
    lower : `~numpy.ndarray`, shape (width + 1, n)
        As LAPACK has it.

    Returns
    -------
    blocks : list of (place, diagonal, below)
        A slice of rows, the block D on the diagonal at their columns and the one E below it, which has no
        rows for the last one. Only the lower triangle of D and the upper one of E belong to the matrix.
    """
    reach, size = len(lower) - 1, lower.shape[1]
    width = max(reach, 1)
    # Element (i, j) lies at i + j * width: blocks are plain views, in the order of Fortran.
    columns = lower if reach else np.concatenate([lower, np.zeros_like(lower)])
    flat = np.ascontiguousarray(columns.T).ravel()

    def block(first, last, start, stop):
        strides = flat.itemsize, flat.itemsize * width
        part = flat[first + start * width :]
        return np.lib.stride_tricks.as_strided(part, (last - first, stop - start), strides, writeable=False)

    blocks = []
    for start in range(0, size, width):
        stop, last = min(start + width, size), min(start + 2 * width, size)
        diagonal = block(start, stop, start, stop)
        below = block(stop, last, start, stop) if last > stop else np.zeros((0, stop - start), lower.dtype)
        blocks.append((slice(start, stop), diagonal, below))
    return blocks


class NormalMatrix:
    """M^T W M of a map M from a source to pixels with weights W.

    Parameters
    ----------
    matrix : sparse array, shape (N, n)
    weight : `~numpy.ndarray`, shape (N,)
    """

    def __init__(self, matrix, weight):
        self.size = matrix.shape[1]
        used = np.flatnonzero((weight > 0) & (np.diff(matrix.indptr) > 0))
        scaled = sparse.diags_array(np.sqrt(weight[used])) @ matrix[used]
        self.band = self.dense = None
        self.offsets = ()
        if scaled.nnz > WIDEST_BAND * scaled.shape[0] * self.size / 4:
            self._fill(scaled)
            return
        product = (scaled.T @ scaled).tocoo()
        width = int((product.row - product.col).max(initial=0))
        if width > WIDEST_BAND * self.size:
            self.dense = product.toarray()
        else:
            self.band = to_banded(product, width)
            self.offsets = np.flatnonzero(self.band.any(axis=1))

    @property
    def diagonal(self):
        """Its diagonal, shape (n,)."""
        return np.diagonal(self.dense) if self.band is None else self.band[0]

    def _fill(self, scaled):
        # Rows of C are columns of Fortran: the transpose needs no copy.
        self.dense = linalg.blas.dsyrk(1.0, scaled.toarray().T, lower=1)

    def factor(self, slope, prior, strength, cross, corner):
        """Factor [[D M^T W M D + strength C, B], [B^T, K]].

        Parameters
        ----------
        slope : `~numpy.ndarray`, shape (n,)
            The diagonal D: how brightness changes with what is solved for.
        prior : `~lenssr.source.priors.Prior`
            C.
        strength : float
        cross, corner : `~numpy.ndarray`, shapes (n, K), (K, K)
            B and K.

        Returns
        -------
        factor : `~lenssr.source.Factor`
        """
        if self.band is None or not prior.is_sparse:
            whole = self._lower() * slope[:, None]
            whole *= slope[None, :]
            if prior.is_sparse:
                entries = prior.matrix.tocoo()
                whole[entries.row, entries.col] += strength * entries.data
            else:
                whole += strength * prior.matrix
            return Factor(whole, cross, corner)
        width = max(len(self.band) - 1, prior.width)
        band = np.zeros((width + 1, self.size))
        band[: prior.width + 1] = strength * prior.band
        for offset in self.offsets:
            count = self.size - offset
            band[offset, :count] += self.band[offset, :count] * slope[offset:] * slope[:count]
        return Factor(band, cross, corner, banded=True)

    def _lower(self):
        """The matrix with at least its lower half right."""
        if self.dense is None:
            self.dense = np.zeros((self.size, self.size))
            for offset in self.offsets:
                columns = np.arange(self.size - offset)
                self.dense[columns + offset, columns] = self.band[offset, columns]
        return self.dense


def _root(schur, diagonal):
    """Lower Cholesky factor of the Schur complement, which must be positive.

    Where the curvature of the nodes is cut short (a wide PSF, a lens that has moved) and the data are
    precise, it may not be: parameters then get a stiffness in proportion to their own.
    """
    try:
        return linalg.cholesky(schur, lower=True)
    except linalg.LinAlgError:
        scale = np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
        values, vectors = linalg.eigh(schur / scale[:, None] / scale[None, :])
        positive = (vectors * np.maximum(np.abs(values), SOFTEST)) @ vectors.T
        return linalg.cholesky(positive * scale[:, None] * scale[None, :], lower=True)


def _solve_few(lower, right, *, trans=0):
    """Solve with the triangular matrix of the parameters, of which there may be none."""
    if not right.size:
        return right  # older LAPACK wrappers take an empty matrix for a mistake
    return linalg.solve_triangular(lower, right, lower=True, trans=trans)


class Factor:
    """Cholesky factor of [[A, B], [B^T, C]].

    Parameters
    ----------
    curvature : `~numpy.ndarray`, shape (n, n) or, banded, (width + 1, n)
        The lower half of A; overwritten.
    cross, corner : `~numpy.ndarray`, shapes (n, K), (K, K)
        B and C, of the few parameters.
    banded : bool, optional
        Whether A is given by its band.
    """

    def __init__(self, curvature, cross, corner, *, banded=False):
        self.banded = banded
        self.count, self.parameters = cross.shape
        if banded:
            self.lower = linalg.cholesky_banded(curvature, lower=True, overwrite_ab=True, check_finite=False)
            diagonal = self.lower[0]
        else:
            # LAPACK works on columns: the transpose of a row-wise array spares a copy.
            upper, info = linalg.lapack.dpotrf(curvature.T, lower=0, overwrite_a=1, clean=1)
            if info:
                raise linalg.LinAlgError(f"the matrix of the inversion is not positive (row {info})")
            self.lower = upper.T
            diagonal = np.diagonal(self.lower)
        self.half = self._forward(cross)
        self.schur = _root(corner - self.half.T @ self.half, np.diagonal(corner))
        self.log_determinant = 2 * float(np.log(diagonal).sum() + np.log(np.diagonal(self.schur)).sum())

    @property
    def size(self):
        """Nodes and parameters."""
        return self.count + self.parameters

    def _forward(self, right):
        if not right.shape[1]:
            return right  # LAPACK's banded solver does not survive an empty right-hand side
        if self.banded:
            return linalg.lapack.dtbtrs(self.lower, right, uplo="L")[0]
        return linalg.solve_triangular(self.lower, right, lower=True, check_finite=False)

    def _backward(self, right):
        if self.banded and right.shape[1] > MANY:
            return self._backward_many(right)
        if self.banded:
            return linalg.lapack.dtbtrs(self.lower, right, uplo="L", trans="T")[0]
        return linalg.solve_triangular(self.lower, right, lower=True, trans=1, check_finite=False)

    def _backward_many(self, right):
        found, after = np.empty_like(right), None
        for place, diagonal, below in reversed(band_blocks(self.lower)):
            rest = right[place]
            if after is not None:
                whole = len(below) == below.shape[1]  # and the product is one of triangles
                rest = rest - (
                    linalg.blas.dtrmm(1.0, below, after, trans_a=1) if whole else np.triu(below).T @ after
                )
            after = linalg.blas.dtrsm(1.0, diagonal, rest, lower=1, trans_a=1)
            found[place] = after
        return found

    def solve(self, right):
        """Solutions of the system for right-hand sides (n + K, m)."""
        above = self._forward(right[: self.count])
        below = _solve_few(self.schur, right[self.count :] - self.half.T @ above)
        return self._join(above, below)

    def sample(self, normals):
        """Vectors (n + K, m) whose covariance is the inverse of the matrix, from standard normals."""
        return self._join(normals[: self.count], normals[self.count :])

    def _join(self, above, below):
        parameters = _solve_few(self.schur, below, trans=1)
        return np.concatenate([self._backward(above - self.half @ parameters), parameters])

    @property
    def parameter_covariance(self):
        """Covariance (K, K) of the parameters."""
        inverse = _solve_few(self.schur, np.eye(self.parameters))
        return inverse.T @ inverse
