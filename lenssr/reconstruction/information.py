"""What the data say of a free-form source, node by node."""

import numpy as np
import scipy.linalg as linalg

__all__ = ["LEAST_INFORMATION", "information", "node_variances"]

# Below this a pixel of the source is prior rather than data.
LEAST_INFORMATION = 0.5


def information(solution):
    """1 - (posterior variance) / (prior variance) of the field at every node.

    The prior's is that which is left once its free modes are known, see `lenssr.inversion.Prior`: any data
    determine these, and with their own variance the ratio would be near nothing everywhere.

    Parameters
    ----------
    solution : `~lenssr.inversion.Solution`

    Returns
    -------
    information : `~numpy.ndarray`, shape (n,)
        Near 1 where the data determine the source, 0 where they say nothing.
    """
    prior = solution.prior.local_variance / solution.strength
    return np.clip(1 - node_variances(solution.factor) / prior, 0.0, 1.0)


def node_variances(factor):
    """Posterior variances of the nodes: the diagonal of the inverse, without draws.

    Parameters
    ----------
    factor : `~lenssr.inversion.Factor`

    Returns
    -------
    variances : `~numpy.ndarray`, shape (n,)
    """
    held = _banded(factor.lower) if factor.banded else _dense(factor.lower)
    if not factor.parameters:
        return held
    # What the parameters of lens, light and sky add: A^-1 B S^-1 B^T A^-1, with S = C - B^T A^-1 B.
    root = np.concatenate([np.zeros((factor.count, factor.parameters)), factor.schur])
    return held + (factor.solve(root)[: factor.count] ** 2).sum(axis=1)


def _dense(lower):
    # The transpose of the factor is what lies in memory as LAPACK wants it.
    inverse, info = linalg.lapack.dtrtri(np.asfortranarray(lower.T), lower=0)
    if info:
        raise linalg.LinAlgError(f"the factor of the inversion is singular (row {info})")
    return np.einsum("ij,ij->i", inverse, inverse)


def _banded(lower):
    """Diagonal of the inverse from the factor's band, block by block from the last one.

    In blocks as large as the band the factor is block bidiagonal, with blocks D on and E below its diagonal,
    and the blocks on the diagonal of the inverse are Z_i = D_i^-T (1 + E_i^T Z_(i+1) E_i) D_i^-1.

    References
    ----------
    Takahashi, Fagan & Chen 1973, Proc. 8th PICA Conference, 63.
    """
    width, size = max(len(lower) - 1, 1), lower.shape[1]
    variances, after = np.zeros(size), None
    for start in reversed(range(0, size, width)):
        stop = min(start + width, size)
        diagonal = _block(lower, start, stop, start, stop)
        inverse = linalg.solve_triangular(diagonal, np.eye(stop - start), lower=True)
        if after is not None:
            below = _block(lower, stop, stop + len(after), start, stop) @ inverse
            after = inverse.T @ inverse + below.T @ after @ below
        else:
            after = inverse.T @ inverse
        variances[start:stop] = np.diagonal(after)
    return variances


def _block(lower, first, last, start, stop):
    """A block of the factor, rows ``first`` to ``last`` and columns ``start`` to ``stop``, from its band."""
    offset = np.arange(first, last)[:, None] - np.arange(start, stop)[None, :]
    inside = (offset >= 0) & (offset < len(lower))
    columns = np.broadcast_to(np.arange(start, stop), offset.shape)
    return np.where(inside, lower[np.clip(offset, 0, len(lower) - 1), columns], 0.0)
