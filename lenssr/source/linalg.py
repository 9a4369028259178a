"""Normal matrices of the inversion, as bands, and the factor of what is solved."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg as linalg
import scipy.sparse as sparse
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

__all__ = [
    "BandedFactors",
    "DenseFactors",
    "Factor",
    "NormalMatrix",
    "band_blocks",
    "band_columns",
    "refined_within_box",
    "within_box",
]

NOT_POSITIVE = "the matrix of the inversion is not positive"

# Largest number of operations of a factorisation: 2e8 (5 ms) with a band that holds all of a normal matrix;
# 4e9 (0.1 s) with one that drops a first share of it, or else a second share. Chosen on 48 x 48 nodes behind
# simulated PSFs, those of HST and of Euclid: ln evidence is right within 0.03, errors within 0.9 %.
CHEAP, DROPPED = 2e8, 6e-3
COSTLY, DROPPED_IF_COSTLY = 4e9, 3e-2
# Share that steps may drop, above this number of operations (25 ms).
QUICK, DROPPED_FROM_STEPS = 1e9, 7e-2
ROWS_AT_ONCE, BLOCK = 2048, 128  # of a normal matrix, to bound the memory; columns of a dense product
# Power of a node, in units of the median, below which its weight fades.
FAINT_NODE = 0.1
# A product of sparse arrays takes the time of a dense one where it has this share of its operations.
SPARSE_SHARE = 0.01
# Least stiffness of a combination of parameters, as a share of their own.
SOFTEST = 1e-3
# Rounds in which parameters that a step would take past their ends are held there.
BOX_ROUNDS = 3
# Conjugate gradients: most of them, the most that need no new matrix, and the share of what all have gained
# that ends them.
GRADIENTS, QUICKLY, ENOUGH = 40, 20, 1e-3
TINY = 1e-300
# Number of right-hand sides above which a banded factor is solved block by block.
MANY = 8


def band_columns(matrix: sparse.sparray, width: int) -> NDArray:
    """The lower band of a symmetric sparse matrix (n, n), column by column, (n, width + 1)."""
    entries = matrix.tocoo()
    offset = entries.row - entries.col
    keep = (offset >= 0) & (offset <= width)
    columns = np.zeros((matrix.shape[0], width + 1))
    np.add.at(columns, (entries.col[keep], offset[keep]), entries.data[keep])
    return columns


def band_blocks(lower: NDArray) -> list[tuple[slice, NDArray, NDArray]]:
    """Blocks (place, diagonal D, below E) of a banded lower triangle (width + 1, n), as large as its band.

    ``place`` is a slice of rows; E has no rows for the last one. Only the lower triangle of D and the upper
    one of E belong to the matrix, which is block bidiagonal.
    """
    reach, size = len(lower) - 1, lower.shape[1]
    width = max(reach, 1)
    # Element (i, j) lies at i + j * width: blocks are plain views, in the order of Fortran.
    columns = lower if reach else np.concatenate([lower, np.zeros_like(lower)])
    flat = np.ascontiguousarray(columns.T).ravel()

    def block(first: int, last: int, start: int, stop: int) -> NDArray:
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
    """M^T M of a map M from a source to pixels in units of their noise, cut to a band.

    Nodes that a PSF joins though they lie far apart have small entries, and these are left out. Nothing is
    put in their place: to first order the determinant changes by their product with the inverse, which is
    small there as well. A band that turns out not to be positive is made wider.

    Parameters
    ----------
    matrix : sparse array, shape (N, n)
    side : int
        Nodes along a side of the grid of the source.
    dtype : dtype, optional
        Of the products that make it, double precision by default.

    Attributes
    ----------
    columns : `~numpy.ndarray`, shape (n, width + 1)
        Entry (j, k) is that of row j + k and column j, as LAPACK has a lower band in memory.
    """

    def __init__(self, matrix: sparse.sparray, side: int, dtype: DTypeLike = np.float64) -> None:
        self.size, self._map, self.dtype = matrix.shape[1], matrix.tocsr(), dtype
        width, self._for_steps = _widths(self._map, side)
        self._fill(width)

    def _fill(self, width: int) -> None:
        self.columns = np.zeros((self.size, width + 1))
        pairs = (np.diff(self._map.indptr).astype(float) ** 2).sum()
        if pairs > SPARSE_SHARE * self._map.shape[0] * self.size * (width + BLOCK):
            self._fill_from_dense(self._map, width)
        else:
            self._fill_from_sparse(self._map)

    def _fill_from_sparse(self, scaled: sparse.csr_array) -> None:
        transposed, width = scaled.T.tocsr(), self.columns.shape[1]
        for start in range(0, self.size, ROWS_AT_ONCE):
            # Rows of the transpose are columns: these, by those that they reach.
            these = transposed[start : start + ROWS_AT_ONCE]
            product = these @ transposed[start : start + ROWS_AT_ONCE + width].T
            column = np.repeat(np.arange(product.shape[0]), np.diff(product.indptr))
            below = product.indices - column
            held = (below >= 0) & (below < width)
            self.columns[start + column[held], below[held]] = product.data[held]

    def _fill_from_dense(self, scaled: sparse.csr_array, width: int) -> None:
        touched = _blocks_touched(scaled)
        for first in range(0, scaled.shape[0], ROWS_AT_ONCE):
            part = scaled[first : first + ROWS_AT_ONCE].astype(self.dtype)
            whole = np.zeros((part.shape[0], self.size + width), self.dtype)
            whole[:, : self.size] = part.toarray()
            for block, start in enumerate(range(0, self.size, BLOCK)):
                stop = min(start + BLOCK, self.size)
                reached = whole[touched[first : first + ROWS_AT_ONCE, block], start : stop + width]
                product = reached[:, : stop - start].T @ reached
                # Entry (a, a + k) of the product is entry k of column a of the band.
                strides = product.strides[0] + product.itemsize, product.itemsize
                shape = (stop - start, width + 1)
                self.columns[start:stop] += np.lib.stride_tricks.as_strided(product, shape, strides)

    def diagonal(self) -> NDArray:
        """Its diagonal, shape (n,)."""
        return self.columns[:, 0]

    def factor(self, slope, prior, strength, cross, corner, *, for_step=False):
        """`~lenssr.source.Factor` of [[D M^T M D + strength C, B], [B^T, K]].

        Parameters
        ----------
        slope : `~numpy.ndarray`, shape (n,)
            The diagonal D: derivative of the brightness by the field.
        prior : `~lenssr.source.Prior`
            C.
        strength : float
        cross, corner : `~numpy.ndarray`, shapes (n, K), (K, K)
            B and K.
        for_step : bool, optional
            Whether it serves a step only, for which a narrower band is enough.
        """
        width = self._for_steps if for_step else self.columns.shape[1] - 1
        while True:
            try:
                return Factor(self._sum(slope, prior, strength, width).T, cross, corner)
            except linalg.LinAlgError:
                if width >= self.size - 1:
                    raise
                width = min(2 * width, self.size - 1)
                self._for_steps = max(width, self._for_steps)
                if width >= self.columns.shape[1]:
                    self._fill(width)

    def _sum(self, slope: NDArray, prior: Any, strength: float, width: int) -> NDArray:
        """The columns of D M^T M D + strength C, with ``width`` diagonals below the main one."""
        width = width + 1
        columns = np.zeros((self.size, max(width, prior.width + 1)))
        # Row j of the windows holds the slopes of the rows that column j reaches.
        reached = np.lib.stride_tricks.sliding_window_view(np.pad(slope, (0, width - 1)), width)
        np.multiply(self.columns[:, :width], reached, out=columns[:, :width])
        columns[:, :width] *= slope[:, None]
        columns[:, : prior.width + 1] += strength * prior.columns
        return columns


def _blocks_touched(matrix: sparse.csr_array) -> NDArray:
    """Which rows of a matrix (N, n) have entries in which blocks of its columns, (N, n / BLOCK)."""
    touched = np.zeros((matrix.shape[0], -(-matrix.shape[1] // BLOCK)), dtype=bool)
    touched[np.repeat(np.arange(len(touched)), np.diff(matrix.indptr)), matrix.indices // BLOCK] = True
    return touched


def _widths(scaled: sparse.csr_array, side: int) -> tuple[int, ...]:
    """Diagonals below the main one that hold nearly all of S^T S, S of shape (N, n); and enough for steps.

    Each node has equal weight, unless it is nearly dark. Sums of a row of S along the rows of nodes give the
    shares of the product by the distance of rows.
    """
    (rows, size), across = scaled.shape, scaled.shape[1] // side
    power = np.bincount(scaled.indices, scaled.data**2, minlength=size)
    typical = np.median(power[power > 0]) if power.any() else 1.0
    scale = 1 / np.sqrt(power + FAINT_NODE * typical)
    place = np.repeat(np.arange(rows) * across, np.diff(scaled.indptr)) + scaled.indices // side
    shares = np.abs(scaled.data) * scale[scaled.indices]
    sums = np.bincount(place, shares, minlength=rows * across).reshape(rows, across)
    products = sums.T @ sums
    apart = np.array([(2 if k else 1) * np.trace(products, k) for k in range(len(products))])
    beyond = np.append(apart[:0:-1].cumsum()[::-1], 0.0) / max(apart.sum(), np.finfo(float).tiny)

    def enough(share: float) -> int:
        return 1 + int(np.argmax(beyond <= share))

    def within(operations: float) -> int:
        return math.ceil(math.sqrt(operations / size) / side)

    rows = enough(0.0)
    if rows > within(CHEAP):
        rows = max(within(CHEAP), enough(DROPPED))
    if rows > within(COSTLY):
        rows = max(within(COSTLY), enough(DROPPED_IF_COSTLY))
    few = min(rows, max(within(QUICK), enough(DROPPED_FROM_STEPS)))
    return tuple(min(number * side, size - 1) for number in (rows, few))


def _solve_few(lower: NDArray, right: NDArray, *, trans: int = 0) -> NDArray:
    """Solve with the triangular matrix of the parameters, of which there may be none."""
    if not right.size:
        return right  # older LAPACK wrappers take an empty matrix for a mistake
    return linalg.solve_triangular(lower, right, lower=True, trans=trans)


class Factor:
    """Cholesky factor of [[A, B], [B^T, C]].

    Parameters
    ----------
    band : `~numpy.ndarray`, shape (width + 1, n)
        The lower band of A, as LAPACK wants it, column by column in memory; overwritten.
    cross, corner : `~numpy.ndarray`, shapes (n, K), (K, K)
        B and C, of the few parameters.
    """

    def __init__(self, band: NDArray, cross: NDArray, corner: NDArray) -> None:
        self.count, self.parameters = cross.shape
        self.lower = linalg.cholesky_banded(band, lower=True, overwrite_ab=True, check_finite=False)
        self.half = self._forward(cross)
        schur = torch.as_tensor(corner - self.half.T @ self.half)[None]
        self.schur = _roots(schur, torch.as_tensor(corner)[None].diagonal(dim1=1, dim2=2))[0].numpy()
        self.log_determinant = 2 * float(np.log(self.lower[0]).sum() + np.log(np.diagonal(self.schur)).sum())

    @property
    def size(self) -> int:
        """Nodes and parameters."""
        return self.count + self.parameters

    def _forward(self, right: NDArray) -> NDArray:
        if not right.shape[1]:
            return right  # LAPACK's banded solver does not survive an empty right-hand side
        return linalg.lapack.dtbtrs(self.lower, right, uplo="L")[0]

    def _backward(self, right: NDArray) -> NDArray:
        if right.shape[1] > MANY:
            return self._backward_many(right)
        return linalg.lapack.dtbtrs(self.lower, right, uplo="L", trans="T")[0]

    def _backward_many(self, right: NDArray) -> NDArray:
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

    def solve(self, right: NDArray) -> NDArray:
        """Solutions of the system for right-hand sides (n + K, m)."""
        above = self._forward(right[: self.count])
        below = _solve_few(self.schur, right[self.count :] - self.half.T @ above)
        return self._join(above, below)

    def sample(self, normals: NDArray) -> NDArray:
        """Vectors (n + K, m) whose covariance is the inverse of the matrix, from standard normals."""
        return self._join(normals[: self.count], normals[self.count :])

    def _join(self, above: NDArray, below: NDArray) -> NDArray:
        parameters = _solve_few(self.schur, below, trans=1)
        return np.concatenate([self._backward(above - self.half @ parameters), parameters])

    @property
    def parameter_covariance(self) -> NDArray:
        """Covariance (K, K) of the parameters."""
        inverse = _solve_few(self.schur, np.eye(self.parameters))
        return inverse.T @ inverse

    def node_variances(self, dtype: DTypeLike = np.float64) -> NDArray:
        """Posterior variances (n,) of the nodes, the diagonal of the inverse, without draws."""
        held = _diagonal_of_inverse(self.lower.astype(dtype))
        if not self.parameters:
            return held
        # Contribution of the few parameters: A^-1 B S^-1 B^T A^-1, with S = C - B^T A^-1 B.
        root = np.concatenate([np.zeros((self.count, self.parameters)), self.schur])
        return held + (self.solve(root)[: self.count] ** 2).sum(axis=1)


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


class BandedFactors:
    """A `Factor` of each lens of a batch, on a CPU, as tensors; arguments as of `NormalMatrix.factor`.

    ``failed`` (b,) are the lenses whose matrix is not positive; their other results have no meaning.
    """

    def __init__(self, normal, slope, prior, strength, cross, corner, *, for_step=False):
        self.count, self._factors = slope.shape[1], []
        rows = zip(normal, slope.numpy(), strength.tolist(), cross.numpy(), corner.numpy(), strict=True)
        for one, its_slope, its_strength, *blocks in rows:
            try:
                parts = its_slope, prior.of_one, its_strength, *blocks
                self._factors.append(one.factor(*parts, for_step=for_step))
            except linalg.LinAlgError:
                self._factors.append(None)
        self.failed = torch.tensor([factor is None for factor in self._factors])
        self.log_determinant = self._each(lambda factor: factor.log_determinant, np.nan)

    def _each(self, function: Callable[[Factor], Any], otherwise: float) -> Tensor:
        return torch.as_tensor(
            np.stack([otherwise if factor is None else function(factor) for factor in self._factors])
        )

    def of_one(self) -> Factor:
        """The only `Factor`; raises where its matrix is not positive."""
        if self._factors[0] is None:
            raise linalg.LinAlgError(NOT_POSITIVE)
        return self._factors[0]

    def solve(self, right: Tensor) -> Tensor:
        """Solutions (b, n + K, m) for right-hand sides of that shape."""
        pairs = zip(self._factors, right.numpy(), strict=True)
        return torch.as_tensor(np.stack([one if f is None else f.solve(one) for f, one in pairs]))

    def trace(self, prior: Any, probes: NDArray) -> Tensor:
        """Traces (b,) of (inverse, its first n rows and columns) C, by fixed probes z (n + K, P).

        They are z^T z - strength x^T C x with x = L^-T z, distributed as the posterior: only the determined
        directions scatter, so that a few probes are enough.
        """

        def of(factor: Factor) -> float:
            fields = factor.sample(probes)[: self.count]
            return (fields * prior.of_one.apply(fields)).sum() / probes.shape[1]

        return self._each(of, np.nan)


class DenseFactors:
    """Cholesky factors of whole matrices of a batch, on any device; otherwise like `BandedFactors`."""

    def __init__(self, normal, slope, prior, strength, cross, corner, *, for_step=False):
        self.count = slope.shape[1]
        curvature = torch.stack(list(normal)).mul_(slope.unsqueeze(2)).mul_(slope.unsqueeze(1))
        curvature.addcmul_(strength[:, None, None], prior.matrix)
        self.lower, info = torch.linalg.cholesky_ex(curvature)
        self.half = torch.linalg.solve_triangular(self.lower, cross, upper=False)
        self.schur = _roots(corner - self.half.mT @ self.half, corner.diagonal(dim1=1, dim2=2))
        first, second = (part.diagonal(dim1=1, dim2=2).log().sum(1) for part in (self.lower, self.schur))
        self.log_determinant = 2 * (first + second)
        self.failed = (info != 0) | ~self.log_determinant.isfinite()

    def solve(self, right: Tensor) -> Tensor:
        """Solutions (b, n + K, m) for right-hand sides of that shape."""
        above = torch.linalg.solve_triangular(self.lower, right[:, : self.count], upper=False)
        below = right[:, self.count :] - self.half.mT @ above
        below = torch.linalg.solve_triangular(self.schur, below, upper=False)
        below = torch.linalg.solve_triangular(self.schur.mT, below, upper=True)
        above = torch.linalg.solve_triangular(self.lower.mT, above - self.half @ below, upper=True)
        return torch.cat([above, below], dim=1)

    def trace(self, prior: Any, probes: NDArray) -> Tensor:
        """Traces (b,) of (inverse, its first n rows and columns) C; exact, without probes."""
        inside = torch.linalg.solve_triangular(self.lower, prior.root.expand_as(self.lower), upper=False)
        # Parameters of lens, light and sky contribute too: the inverse is L^-T (1 + h h^T) L^-1.
        h = torch.linalg.solve_triangular(self.schur, self.half.mT, upper=False)
        return inside.square().sum((1, 2)) + (h @ inside).square().sum((1, 2))


def within_box(factors: Any, step: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Steps (b, n + K) whose parameters stop at ends (b, K) that they would pass, the rest following.

    The minimum of the quadratic form with some parameters given lies at x - Z_a Z_aa^-1 (x_a - given), with
    the inverse matrix Z.
    """
    count, held = factors.count, torch.zeros_like(lower, dtype=torch.bool)
    for _ in range(BOX_ROUNDS):
        asked = step[:, count:]
        passed = (asked < lower) | (asked > upper)
        if not bool((passed & ~held).any()):
            break
        held |= passed
        columns = held.any(0).nonzero().flatten()
        units = torch.zeros_like(step).unsqueeze(2).repeat(1, 1, len(columns))
        units[:, count + columns, torch.arange(len(columns), device=step.device)] = 1.0
        inverse, mine = factors.solve(units), held[:, columns]
        excess = torch.where(mine, (asked - asked.clamp(lower, upper))[:, columns], 0.0)
        both = mine.unsqueeze(2) & mine.unsqueeze(1)
        block = torch.where(both, inverse[:, count + columns], torch.eye(len(columns)).to(inverse))
        step = step - (inverse @ torch.linalg.solve(block, excess.unsqueeze(2))).squeeze(2)
    return step


def refined_within_box(
    times: Any, factors: Any, right: Tensor, lower: Tensor, upper: Tensor
) -> tuple[Tensor, bool]:
    """The same for a matrix of which the factors are only nearly those, by conjugate gradients.

    ``times`` multiplies (b, n + K) by it, ``right`` (b, n + K) is the right-hand side. Returned is also
    whether that went quickly, as it does while the factors are nearly right.
    """
    count, most = factors.count, 0
    step, free = torch.zeros_like(right), torch.ones_like(right)
    for _ in range(BOX_ROUNDS + 1):
        step, number = _conjugate_gradients(times, factors, right, step, free)
        most = max(most, number)
        asked = step[:, count:]
        passed = ((asked < lower) | (asked > upper)) & (free[:, count:] > 0)
        if not bool(passed.any()):
            break
        step[:, count:] = torch.where(passed, asked.clamp(lower, upper), asked)
        free[:, count:][passed] = 0.0
    step[:, count:] = step[:, count:].clamp(lower, upper)
    return step, most <= QUICKLY


def _conjugate_gradients(times, factors, right, start, free):
    """Solve for the entries (b, n + K) that are free (1, else 0), the others held, from a start.

    Ends where one more step gains less than ENOUGH of what all have gained; returns the number of steps, too.
    """
    found, left = start, free * (right - times(start))
    along, before, gained = torch.zeros_like(right), None, 0.0
    number = 0
    while number < GRADIENTS:
        number += 1
        better = free * factors.solve(left.unsqueeze(2)).squeeze(2)
        now = (left * better).sum(1, keepdim=True)
        along = better if before is None else better + now / before.clamp_min(TINY) * along
        curved = free * times(along)
        length = now / (along * curved).sum(1, keepdim=True).clamp_min(TINY)
        found, left, before = found + length * along, left - length * curved, now
        gained = gained + length * now
        if bool((length * now <= ENOUGH * gained).all()):
            break
    return found, number


def _roots(schur: Tensor, diagonal: Tensor) -> Tensor:
    """Lower Cholesky factors of Schur complements (b, K, K), with the diagonals (b, K) of their corners.

    Where the curvature of the nodes is truncated (a wide PSF, a lens that has moved) and the data are
    precise, one may not be positive: parameters then get a stiffness in proportion to their own.
    """
    lower, info = torch.linalg.cholesky_ex(schur)
    if not schur.shape[1] or not bool((info != 0).any()):
        return lower
    scale = torch.where(diagonal > 0, diagonal, 1.0).sqrt()
    scale = scale.unsqueeze(2) * scale.unsqueeze(1)
    values, vectors = torch.linalg.eigh(torch.nan_to_num(schur / scale))
    positive = (vectors * values.abs().clamp_min(SOFTEST).unsqueeze(1)) @ vectors.mT
    mended = torch.linalg.cholesky_ex(positive * scale)[0]
    return torch.where((info != 0)[:, None, None], mended, lower)
