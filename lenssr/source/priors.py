"""Gaussian priors on the roughness of a source or of its logarithm, and the links between the two."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import scipy.fft
import scipy.sparse as sparse
import scipy.sparse.linalg
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import lambertw
from torch import Tensor

from lenssr.exceptions import InputError
from lenssr.source.linalg import band_columns

__all__ = ["PRIORS", "LocalPrior", "Prior"]

#: Priors by name. Spectra of the precision in the eigenvalue of the lattice Laplacian (its square wave
#: number for long waves), as powers. Integer ones are sparse stencils: 1 punishes gradients, 2 curvature.
#: The spectrum of a Matern field of smoothness 3/2 in two dimensions is (3 / length^2 + k^2)^(5/2), which
#: is not; near the waves that data of lenses just determine the sum of the powers 2 and 3 is like it.
PRIORS: dict[str, tuple[Any, ...]] = {
    "gradient": (1,),
    "curvature": (2,),
    "curvature+laplacian3": (2, 3),
    "laplacian3": (3,),
    "matern32": (2.5,),
}
# Scales in shares of the side of the grid, so that a prior means the same on a coarser one. Waves as long as
# RIDGE are left to the data but for what makes the prior normalisable; at CROSSING powers 2 and 3 are even.
RIDGE = 0.53
CROSSING = 0.03
MATERN_LENGTH = 1 / 3
# Roughness of a field around a node: rms, over AROUND of the side, of its curvature smoothed by GRAIN nodes.
# Stiffness is its inverse to the power LOCALITY, within MOST_LOCAL e-folds.
GRAIN, AROUND, LOCALITY, MOST_LOCAL = 0.7, 0.1, 0.9, 2.3
# Largest e-folds below the floor of a logarithm: beyond e^-240 all is dark.
DEEPEST = np.log(240.0)


@dataclass(frozen=True)
class Link:
    """Brightness and its derivative, as functions of the field (b, n) that has the prior, and a floor."""

    on_tensors: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    is_linear: bool

    def on_arrays(self, field: NDArray, log_floor: float) -> tuple[NDArray, ...]:
        """Brightness and its derivative as arrays (n,)."""
        floor = torch.as_tensor(log_floor, dtype=torch.float64)
        return tuple(part.numpy() for part in self.on_tensors(torch.as_tensor(field), floor))


def _log(field: Tensor, log_floor: Tensor) -> tuple[Tensor, Tensor]:
    fading = (log_floor - field).clamp_max(DEEPEST).exp()
    brightness = (field - fading).exp()
    return brightness, brightness * (1 + fading)


def _linear(field: Tensor, log_floor: Tensor) -> tuple[Tensor, Tensor]:
    return field, torch.ones_like(field)


LINKS = {"log": Link(_log, False), "linear": Link(_linear, True)}


def log_field(brightness: NDArray, log_floor: float) -> NDArray:
    """The field g of a positive brightness s under the "log" link with a floor f: log s = g - f exp(-g).

    Well above the floor s is exp(g) - f; below, it fades to nothing within a few units of g.
    """
    return np.log(brightness) + lambertw(np.exp(log_floor) / brightness).real


@functools.lru_cache(maxsize=8)
def _stencil(side: int, ridge: float, terms: tuple[tuple[Any, float], ...]) -> sparse.csr_array:
    """Sum of powers of (L + ridge), a sparse array (n, n), from pairs (power, weight); kept for later."""
    step = sparse.diags_array([-1.0, 1.0], offsets=[0, 1], shape=(side - 1, side))
    line = step.T @ step
    eye = sparse.eye_array(side)
    laplacian = sparse.kron(line, eye) + sparse.kron(eye, line) + ridge * sparse.eye_array(side**2)
    return sum(weight * sparse.linalg.matrix_power(laplacian, power) for power, weight in terms).tocsr()


@functools.lru_cache(maxsize=8)
def _stencil_columns(side: int, ridge: float, terms: tuple[tuple[Any, float], ...]) -> NDArray:
    return band_columns(_stencil(side, ridge, terms), terms[-1][0] * side)


class Prior:
    """A stationary Gaussian prior on a square grid with reflecting edges, for unit strength.

    Its precision matrix is a power of (L + ridge), or a sum of two, where L is the lattice Laplacian; the
    discrete cosine transform turns it into a list of numbers, which gives determinant, variances and draws in
    closed form.

    Parameters
    ----------
    name : {"gradient", "curvature", "curvature+laplacian3", "laplacian3", "matern32"}
        Powers 1, 2, 2 and 3, 3, and 5/2.
    side : int
        Nodes along a side.
    length : float, optional
        Correlation length of "matern32" as a share of the side, by default a third; the others have none.

    Raises
    ------
    InputError
        If the name or the length is not valid.

    References
    ----------
    Suyu et al. 2006, MNRAS 371, 983 (priors on pixelated sources and their strength); Vernardos & Koopmans
    2022, MNRAS 516, 1347 (Matern priors on sources).

    Examples
    --------
    >>> from lenssr.source import Prior
    >>> prior = Prior("curvature", 5)
    >>> prior.matrix.shape
    (25, 25)
    """

    def __init__(self, name: str, side: int, *, length: float | None = None) -> None:
        if name not in PRIORS:
            raise InputError(f"prior = {name!r}: give one of {', '.join(map(repr, PRIORS))}")
        if length is not None and name != "matern32":
            raise InputError(f"length = {length!r}: only 'matern32' has one, not {name!r}")
        self.name, self.side, self.powers = name, side, PRIORS[name]
        self.length = (length or MATERN_LENGTH) if name == "matern32" else None
        self.ridge = ((RIDGE if self.length is None else self.length / math.sqrt(3)) * side) ** -2

    @property
    def _terms(self) -> list[tuple[Any, float]]:
        """Pairs of power and weight."""
        return [(power, (CROSSING * self.side) ** (2 * (power - self.powers[0]))) for power in self.powers]

    def finer(self, side: int) -> float:
        """Factor of its strength on a grid with ``side`` nodes along the same side.

        The lattice Laplacian scales with the squared distance of nodes, and so does their number: a power p
        of it, summed over the nodes, with that distance to 2 p - 2.
        """
        return (side / self.side) ** (2 * self.powers[0] - 2)

    @property
    def is_sparse(self) -> bool:
        """Whether the matrix is a stencil."""
        return all(isinstance(power, int) for power in self.powers)

    @cached_property
    def spectrum(self) -> NDArray:
        """Eigenvalues of the matrix, shape (side, side), by wave numbers along y and x."""
        line = 2 - 2 * np.cos(np.pi * np.arange(self.side) / self.side)
        laplacian = line[:, None] + line[None, :] + self.ridge
        return sum(weight * laplacian**power for power, weight in self._terms)

    @cached_property
    def matrix(self) -> Any:
        """Precision: a sparse array (n, n), or a dense one where it is not a stencil."""
        if not self.is_sparse:
            return self.apply(np.eye(self.side**2))
        return _stencil(self.side, self.ridge, tuple(self._terms))

    @property
    def width(self) -> int:
        """Half the bandwidth of the matrix."""
        return self.powers[-1] * self.side if self.is_sparse else self.side**2 - 1

    @cached_property
    def columns(self) -> NDArray:
        """The lower band of the matrix, column by column, (n, width + 1): as LAPACK has it in memory."""
        if not self.is_sparse:
            return np.stack([np.pad(column[k:], (0, k)) for k, column in enumerate(self.matrix)])
        return _stencil_columns(self.side, self.ridge, tuple(self._terms))

    @cached_property
    def dense(self) -> NDArray:
        """The whole matrix."""
        return self.matrix.toarray() if self.is_sparse else self.matrix

    def apply(self, values: NDArray) -> NDArray:
        """The matrix times a source (n,), or times each column of (n, m)."""
        if self.is_sparse:
            return self.matrix @ values
        planes = values.reshape(self.side, self.side, -1)
        waves = scipy.fft.dctn(planes, axes=(0, 1), norm="ortho") * self.spectrum[:, :, None]
        return scipy.fft.idctn(waves, axes=(0, 1), norm="ortho").reshape(values.shape)

    @cached_property
    def local_variance(self) -> NDArray:
        """Variances (n,) of the nodes at unit strength, given its free modes.

        A power p of the Laplacian leaves polynomials of a degree below p free: a level, a slope, and so on.
        Their own variance only depends on the ridge and on the size of the grid. They are taken for the waves
        with fewer than p half periods along x and y together. A Matern field has none.
        """
        waves = np.add.outer(np.arange(self.side), np.arange(self.side))
        minded = waves >= (self.powers[-1] if self.length is None else 0)
        return self._variance(minded / self.spectrum)

    def _variance(self, powers: NDArray) -> NDArray:
        """Variances (n,) of a field whose waves along y and x have these powers (side, side)."""
        waves = scipy.fft.dct(np.eye(self.side), axis=0, norm="ortho") ** 2
        return (waves.T @ powers @ waves).ravel()

    @cached_property
    def log_determinant(self) -> float:
        """Logarithm of the determinant of the matrix."""
        return float(np.log(self.spectrum).sum())


class LocalPrior(Prior):
    """A prior on a square grid that is stricter in some places than in others, for unit strength.

    Its precision matrix is W C W, where C is that of a stationary prior with the powers 2 and 4, and W has
    the stiffness of each node on its diagonal.

    Parameters
    ----------
    side : int
        Nodes along a side.
    stiffness : `~numpy.ndarray`, shape (side**2,)
        Positive; twice as much allows half the roughness.

    Examples
    --------
    >>> import numpy as np
    >>> from lenssr.source import LocalPrior
    >>> prior = LocalPrior(5, np.linspace(1, 2, 25))
    >>> prior.matrix.shape
    (25, 25)
    """

    def __init__(self, side: int, stiffness: NDArray) -> None:
        super().__init__("curvature+laplacian3", side)
        self.name, self.powers, self.stiffness = "local", (2, 4), stiffness

    @classmethod
    def like(cls, field: NDArray, side: int) -> Self:
        """A prior that is as strict as a field is smooth around each node.

        Parameters
        ----------
        field : `~numpy.ndarray`, shape (side**2,)
        side : int

        Returns
        -------
        prior : `LocalPrior`
        """
        plane = ndimage.gaussian_filter(field.reshape(side, side), GRAIN)
        rough = np.sqrt(ndimage.gaussian_filter(ndimage.laplace(plane) ** 2, AROUND * side)).ravel()
        rough = np.log(np.maximum(rough, np.finfo(float).tiny))
        return cls(side, np.exp(np.clip(-LOCALITY * (rough - rough.mean()), -MOST_LOCAL, MOST_LOCAL)))

    @cached_property
    def matrix(self) -> Any:
        """Precision, a sparse array (n, n)."""
        stiffness = sparse.diags_array(self.stiffness)
        return (stiffness @ _stencil(self.side, self.ridge, tuple(self._terms)) @ stiffness).tocsr()

    @cached_property
    def columns(self) -> NDArray:
        """The lower band of the matrix, column by column, (n, width + 1)."""
        return band_columns(self.matrix, self.width)

    @cached_property
    def log_determinant(self) -> float:
        """Logarithm of the determinant of the matrix."""
        return float(np.log(self.spectrum).sum() + 2 * np.log(self.stiffness).sum())

    def _variance(self, powers: NDArray) -> NDArray:
        return super()._variance(powers) / self.stiffness**2


class BatchPrior:
    """A prior of a batch of fields on one device, with ``matrix`` and ``root`` (n, n) if ``dense``."""

    def __init__(self, prior: Prior, device: torch.device | str, *, dense: bool) -> None:
        self.of_one, self.log_determinant = prior, prior.log_determinant
        self.trace = float(prior.matrix.trace() if prior.is_sparse else np.trace(prior.matrix))
        self.matrix: Any = None
        if dense:
            self.matrix = torch.as_tensor(prior.dense, dtype=torch.float64, device=device)
            self.root = torch.linalg.cholesky(self.matrix)

    def apply(self, fields: Tensor) -> Tensor:
        """The precision times each of fields (b, n)."""
        if self.matrix is not None:
            return fields @ self.matrix
        return torch.as_tensor(np.ascontiguousarray(self.of_one.apply(fields.numpy().T).T))
