"""The free-form source: a grid of nodes behind the lens, bilinear between them, and what rays see of it."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import scipy.sparse as sparse
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from lenssr.light.sersic import sersic_brightness, sersic_brightness_jacobian

__all__ = ["GridMotion", "SourceGrid", "SourceRays"]

# A lens enlarges its source if its parameters together can give the rays of the arcs this share of the
# (mean square) motion of a plain enlargement. Isothermal lenses with shear give 0.2 to 0.5, those with a free
# slope 0.95 and more.
ENLARGING = 0.8
# Share of the significant rays that may lie outside at each end: noise makes pixels significant anywhere.
OUTLIER_SHARE = 0.004
# Width of the grid over that of the significant light, which continues below the noise.
GRID_MARGIN = 1.25


@functools.lru_cache(maxsize=16)
def _line(side: int, stretch: float) -> NDArray:
    """Nodes (side,) of a row, from -1 to 1."""
    line = np.linspace(-1, 1, side)
    line = np.sinh(stretch * line) / np.sinh(stretch) if stretch else line
    line.setflags(write=False)
    return line


def _like(number: float | Tensor, place: Tensor) -> Tensor:
    """A number, or those of a batch, broadcast to rays (..., R)."""
    return torch.as_tensor(number, dtype=place.dtype, device=place.device).unsqueeze(-1)


@dataclass(frozen=True)
class SourceGrid:
    """A square grid of nodes in the source plane, bilinear between them and dark outside.

    Attributes
    ----------
    x_0, y_0 : float, or `torch.Tensor`, shape (B,)
        Centre in arcsec; of each grid of a batch.
    half : float, or `torch.Tensor`, shape (B,)
        Half its side, from the first node to the last, in arcsec.
    side : int
        Nodes along a side.
    stretch : float
        Concentration of the nodes: their distances grow outwards as cosh, up to cosh(stretch). 0 is an even
        grid.

    Examples
    --------
    >>> import torch
    >>> from lenssr.source import SourceGrid
    >>> grid = SourceGrid(0.0, 0.0, 1.0, side=3)
    >>> rays = grid.rays(torch.tensor([0.5, 2.0]), torch.tensor([0.0, 0.0]))
    >>> rays.interpolate(torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 2.0], [0.0, 0.0, 0.0]]))
    tensor([1.5000, 0.0000])
    """

    x_0: Any
    y_0: Any
    half: Any
    side: int
    stretch: float = 0.0

    @property
    def offsets(self) -> Any:
        """Distances of the nodes of a row from its middle, in arcsec, shape (side,) or (B, side)."""
        line = _line(self.side, self.stretch)
        if isinstance(self.half, torch.Tensor):
            return self.half.unsqueeze(-1) * torch.tensor(
                line, dtype=self.half.dtype, device=self.half.device
            )
        return self.half * line

    @property
    def spacing(self) -> Any:
        """Distance of neighbouring nodes in the middle, in arcsec."""
        return self.half * float(np.diff(_line(self.side, self.stretch)).min())

    @property
    def size(self) -> int:
        """Number of nodes."""
        return self.side**2

    @property
    def nodes(self) -> tuple[NDArray, NDArray]:
        """Positions x, y of the nodes of one grid in arcsec, each of shape (side^2,), rows first."""
        y, x = np.meshgrid(self.offsets + self.y_0, self.offsets + self.x_0, indexing="ij")
        return x.ravel(), y.ravel()

    @classmethod
    def around(cls, x: ArrayLike, y: ArrayLike, side: int, stretch: float = 0.0) -> Self:
        """The smallest square grid that holds all positions, with a node to spare on each side.

        Parameters
        ----------
        x, y : array
            Positions in arcsec.
        side : int
        stretch : float, optional

        Returns
        -------
        grid : `SourceGrid`
        """
        ends = [(float(np.min(axis)), float(np.max(axis))) for axis in (x, y)]
        x_0, y_0 = ((low + high) / 2 for low, high in ends)
        half = max(high - low for low, high in ends) / 2 / _line(side, stretch)[-2]
        return cls(x_0, y_0, float(half), side, stretch)

    @classmethod
    def around_significant(
        cls,
        x: Tensor,
        y: Tensor,
        significant: Tensor,
        side: int,
        stretch: float = 0.0,
        margin: float = GRID_MARGIN,
    ) -> Self:
        """The squares that hold nearly all significant rays of a batch.

        Parameters
        ----------
        x, y : `torch.Tensor`, shape (B, R)
            Positions of rays in the source plane, in arcsec.
        significant : `torch.Tensor` of bool, shape (B, R)
            Significant rays; all count where there is none.
        side : int
        stretch : float, optional
        margin : float, optional
            Width of the square over that of the significant rays; 1.25 by default.

        Returns
        -------
        grid : `SourceGrid`
        """
        significant = significant | ~significant.any(1, keepdim=True)
        shares = x.new_tensor([OUTLIER_SHARE, 1 - OUTLIER_SHARE])
        ends = [
            torch.nanquantile(torch.where(significant, axis, torch.nan), shares, dim=1) for axis in (x, y)
        ]
        (x_0, width), (y_0, height) = (((low + high) / 2, high - low) for low, high in ends)
        half = margin * torch.maximum(width, height) / 2
        return cls(x_0, y_0, half.clamp_min(torch.finfo(x.dtype).eps), side, stretch)

    @classmethod
    def batch(cls, grids: Sequence[SourceGrid], device: torch.device | str = "cpu") -> Self:
        """Grids of equally many nodes as one batch on a device."""
        numbers = torch.tensor([[g.x_0, g.y_0, g.half] for g in grids], dtype=torch.float64, device=device)
        x_0, y_0, half = numbers.unbind(1)
        return cls(x_0, y_0, half, grids[0].side, grids[0].stretch)

    def one(self, number: int) -> SourceGrid:
        """One grid of a batch, its place in plain numbers."""
        x_0, y_0, half = (float(values[number]) for values in (self.x_0, self.y_0, self.half))
        return SourceGrid(x_0, y_0, half, self.side, self.stretch)

    def select(self, index: Tensor) -> SourceGrid:
        """Some grids (b,) of a batch."""
        return replace(self, x_0=self.x_0[index], y_0=self.y_0[index], half=self.half[index])

    def refined(self, side: int) -> SourceGrid:
        """The same square with another number of nodes along a side."""
        return replace(self, side=side)

    def rays(self, x: Tensor, y: Tensor, sersic: Tensor | None = None) -> SourceRays:
        """`SourceRays` of rays that land at x and y, tensors (R,) or (B, R) in arcsec."""
        return SourceRays(self, x, y, sersic)

    def matrix(self, x: NDArray, y: NDArray) -> sparse.csr_array:
        """Bilinear interpolation from the nodes of one grid to rays.

        Parameters
        ----------
        x, y : `~numpy.ndarray`, shape (R,)
            Where the rays land, in arcsec.

        Returns
        -------
        matrix : sparse array, shape (R, side^2)
        """
        return self.rays(torch.as_tensor(x), torch.as_tensor(y)).matrix()

    def locate(self, place: Tensor, centre: float | Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Along one axis: node before each ray, share of the way to the next, step, and whether inside.

        ``place`` (..., R) and ``centre`` are in arcsec; each result has the shape of the first.
        """
        half, centre = _like(self.half, place), _like(centre, place)
        # Rays far outside, or not finite, belong to the outermost cells, and see nothing.
        offset = ((place - centre) / half).nan_to_num(2.0).clamp(-2, 2)
        along = offset.detach()
        if self.stretch:
            along = torch.asinh(along * math.sinh(self.stretch)) / self.stretch
        node = ((along + 1) * ((self.side - 1) / 2)).floor().long().clamp(0, self.side - 2)
        inside = offset.detach().abs() <= 1
        if not self.stretch:
            return node, (offset + 1) * ((self.side - 1) / 2) - node, 2 / (self.side - 1) * half, inside
        line = torch.tensor(_line(self.side, self.stretch), dtype=place.dtype, device=place.device)
        start, step = line[node], line.diff()[node]
        return node, (offset - start) / step, step * half, inside


class SourceRays:
    """Rays in the source plane of one grid, or of each grid of a batch, and the brightness at them.

    Brightness is interpolated between nodes; or, with a Sérsic, that profile times the interpolated values,
    so that they need not follow its cusp.

    Parameters
    ----------
    grid : `SourceGrid`
    x, y : `torch.Tensor`, shape (R,) or (B, R)
        Positions in arcsec.
    sersic : `torch.Tensor`, shape (7,) or (B, 7), optional
        As of `~lenssr.light.sersic.sersic_brightness`.

    Attributes
    ----------
    index, weights : `torch.Tensor`, shape (..., R, 4)
        The nodes around each ray, and the derivatives of its brightness by their values.
    """

    def __init__(self, grid: SourceGrid, x: Tensor, y: Tensor, sersic: Tensor | None = None) -> None:
        self.x, self.y, self.side = x, y, grid.side
        self._sersic: Any = sersic
        left, right, self._step_x, inside_x = grid.locate(x, grid.x_0)
        below, up, self._step_y, inside_y = grid.locate(y, grid.y_0)
        self._right, self._up, self._inside = right, up, (inside_x & inside_y).to(x)
        around = torch.tensor([0, 1, grid.side, grid.side + 1], device=x.device)
        self.index = (below * grid.side + left).unsqueeze(-1) + around
        self._bilinear = torch.stack(
            [(1 - right) * (1 - up), right * (1 - up), (1 - right) * up, right * up], dim=-1
        ) * self._inside.unsqueeze(-1)
        self.weights = self._bilinear
        if sersic is not None:
            self.weights = self._bilinear * self._profile.unsqueeze(-1)

    @cached_property
    def _profile(self) -> Tensor:
        return sersic_brightness(self.x, self.y, *self._sersic.unsqueeze(-1).unbind(-2))

    def _around(self, values: Tensor) -> Tensor:
        """Values (..., R, 4) at the nodes around each ray, of nodes (..., n)."""
        return values.gather(-1, self.index.flatten(-2)).reshape(self.index.shape)

    def interpolate(self, values: Tensor) -> Tensor:
        """Brightness (..., R) of node values (..., side, side)."""
        return self.brightness(values.flatten(-2))

    def brightness(self, values: Tensor) -> Tensor:
        """Brightness (..., R) of node values (..., n)."""
        return (self._around(values) * self.weights).sum(-1)

    def adjoint(self, values: Tensor, *, power: int = 1) -> Tensor:
        """Adjoint of `interpolate`: weighted sums at the nodes (..., side, side) of values of rays (..., R).

        ``power=2`` gives the variance of the sum from variances of the rays.
        """
        weights = self.weights if power == 1 else self.weights**power
        shares = (values.unsqueeze(-1) * weights).flatten(-2)
        sums = shares.new_zeros(*shares.shape[:-1], self.side**2)
        return sums.scatter_add(-1, self.index.flatten(-2), shares).unflatten(-1, (self.side, self.side))

    def slope(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Slopes of the brightness along x and y, each (..., R), of node values (..., n)."""
        lower_left, lower_right, upper_left, upper_right = self._around(values).unbind(-1)
        right, up = self._right, self._up
        along_x = (1 - up) * (lower_right - lower_left) + up * (upper_right - upper_left)
        along_y = (1 - right) * (upper_left - lower_left) + right * (upper_right - lower_right)
        along_x, along_y = along_x * self._inside / self._step_x, along_y * self._inside / self._step_y
        if self._sersic is None:
            return along_x, along_y
        (profile, d_x, d_y, _), between = self._sersic_jacobian, self._between(values)
        return profile * along_x + d_x * between, profile * along_y + d_y * between

    def sersic_slopes(self, values: Tensor, log: Tensor) -> Tensor:
        """Derivatives (..., 7, R) by the Sérsic's parameters, or their logarithms where ``log`` (7,)."""
        scale = torch.where(log, self._sersic, torch.ones_like(self._sersic))
        return self._sersic_jacobian[3] * scale.unsqueeze(-1) * self._between(values).unsqueeze(-2)

    @cached_property
    def _sersic_jacobian(self) -> tuple[Tensor, ...]:
        return sersic_brightness_jacobian(self.x, self.y, *self._sersic.unsqueeze(-1).unbind(-2))

    def _between(self, values: Tensor) -> Tensor:
        """Interpolated values (..., R), without the Sérsic."""
        return (self._around(values) * self._bilinear).sum(-1)

    def matrix(self) -> sparse.csr_array:
        """The sparse map (R, n) from the nodes of one grid to rays."""
        return _sparse(self.index, self.weights, len(self.index), self.side**2)

    def matrices(self, share: Tensor, rows: int) -> list[sparse.csr_array]:
        """Maps (rows, n) of each grid to sums over equally many rays in a row, each times its share (R,)."""
        pairs = zip(self.index, self.weights * share.unsqueeze(-1), strict=True)
        return [_sparse(index, weights, rows, self.side**2) for index, weights in pairs]


def _sparse(index: Tensor, weights: Tensor, rows: int, size: int) -> sparse.csr_array:
    """A sparse array (rows, size) of entries (R, 4), equally many of them in each row."""
    starts = np.linspace(0, index.numel(), rows + 1).astype(np.int32)
    entries = weights.detach().cpu().numpy().ravel(), index.cpu().numpy().ravel().astype(np.int32), starts
    return sparse.csr_array(entries, shape=(rows, size))


@dataclass(frozen=True)
class GridMotion:
    """Motion and growth of the grid of a source with the parameters of the lens; of one grid or of a batch.

    Attributes
    ----------
    drift : `torch.Tensor`, shape (..., 2, L)
        Derivatives of its centre x, y in arcsec.
    growth : `torch.Tensor`, shape (..., L)
        Derivatives of the logarithm of its size.
    """

    drift: Tensor
    growth: Tensor

    @classmethod
    def none(cls, count: int) -> Self:
        """The motion of a grid that stays, for ``count`` parameters."""
        return cls(*(torch.zeros(*lead, count, dtype=torch.float64) for lead in ((2,), ())))

    @classmethod
    def following(
        cls, grid: SourceGrid, slopes: Sequence[Tensor], x: Tensor, y: Tensor, weights: Tensor, free: Tensor
    ) -> Self:
        """The motion that keeps weighted rays at their mean place on a grid, and at their mean size.

        The size is kept only if the lens can change it: a family of lenses with a fixed profile, such as
        isothermal ones, distorts its source more than it enlarges it.

        Parameters
        ----------
        grid : `SourceGrid`
        slopes : tuple of `torch.Tensor`, shape (L, R)
            Derivatives of the rays along x and y by the parameters of the lens.
        x, y, weights : `torch.Tensor`, shape (R,)
            Positions of the rays, and their weights.
        free : `torch.Tensor` of bool, shape (L,)
            Which of the parameters change.

        Returns
        -------
        motion : `GridMotion`
        """
        total = weights.sum()
        drift = torch.stack([slope @ weights for slope in slopes]) / total
        place = torch.stack([x, y]) @ weights / total
        # Rays around their mean, by the root of their weights: what a lens may stretch, and how it does.
        root = (weights / total).sqrt()
        size = torch.cat([(x - place[0]) * root, (y - place[1]) * root])
        moved = torch.cat([(s - m[:, None]) * root for s, m in zip(slopes, drift, strict=True)], dim=1)
        along, spread = moved @ size, size @ size
        # Share of the enlargement in the mixture of motions that is most like it.
        mixture = torch.linalg.pinv(moved[free] @ moved[free].T, hermitian=True) @ along[free]
        if mixture @ along[free] < ENLARGING * spread or spread == 0:
            return cls(drift, torch.zeros_like(along))
        growth = along / spread
        centre = torch.tensor([grid.x_0, grid.y_0], dtype=place.dtype)
        return cls(drift - growth * (place - centre)[:, None], growth)

    def applied(self, grid: SourceGrid, change: Tensor) -> SourceGrid:
        """The grids after changes (..., L) of the parameters."""
        shift = (self.drift @ change.unsqueeze(-1)).squeeze(-1)
        numbers = shift[..., 0], shift[..., 1], (self.growth * change).sum(-1).exp()
        x, y, factor = numbers if isinstance(grid.half, Tensor) else map(float, numbers)
        return replace(grid, x_0=grid.x_0 + x, y_0=grid.y_0 + y, half=grid.half * factor)

    def at(self, grid: SourceGrid, x: Tensor, y: Tensor, keep: Tensor) -> tuple[Tensor, ...]:
        """Motion along x and y, each (..., K, R), of points fixed to a grid with the K parameters kept."""
        growth = self.growth[..., keep].unsqueeze(-1)
        places = zip((x, y), (grid.x_0, grid.y_0), self.drift[..., keep].unbind(-2), strict=True)
        return tuple(
            drift.unsqueeze(-1) + growth * (place - _like(centre, place)).unsqueeze(-2)
            for place, centre, drift in places
        )
