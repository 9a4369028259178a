"""The free-form source: a grid of nodes behind the lens, and the linear map from it to rays."""

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy.sparse as sparse
import torch

from lenssr.light.sersic import sersic_brightness, sersic_brightness_jacobian

__all__ = ["GridMotion", "SourceGrid", "SourceMap"]

# A lens enlarges its source if its parameters together can give the rays of the arcs this share of the
# (mean square) motion of a plain enlargement. Isothermal lenses with shear give 0.2 to 0.5, those with a free
# slope 0.95 and more.
ENLARGING = 0.8


@dataclass(frozen=True)
class SourceGrid:
    """A square grid of nodes in the source plane, bilinear between them and dark outside.

    Attributes
    ----------
    x_0, y_0 : float
        Centre in arcsec.
    half : float
        Half its side, from the first node to the last, in arcsec.
    side : int
        Nodes along a side.
    stretch : float
        By how much nodes crowd in the middle: their distances grow outwards as cosh, up to cosh(stretch).
        At 0 they are all the same.
    """

    x_0: float
    y_0: float
    half: float
    side: int
    stretch: float = 0.0

    @cached_property
    def offsets(self):
        """Distances of the nodes of a row from its middle, in arcsec."""
        line = np.linspace(-1, 1, self.side)
        return self.half * (np.sinh(self.stretch * line) / np.sinh(self.stretch) if self.stretch else line)

    @property
    def spacing(self):
        """Distance of neighbouring nodes in the middle, in arcsec."""
        return float(np.diff(self.offsets).min())

    @property
    def size(self):
        """Number of nodes."""
        return self.side**2

    @property
    def nodes(self):
        """Positions x, y of the nodes in arcsec, each of shape (side^2,), rows first."""
        y, x = np.meshgrid(self.offsets + self.y_0, self.offsets + self.x_0, indexing="ij")
        return x.ravel(), y.ravel()

    @classmethod
    def around(cls, x, y, side, stretch=0.0):
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
        unit = cls(0.0, 0.0, 1.0, side, stretch)
        half = max(high - low for low, high in ends) / 2 / unit.offsets[-2]
        return cls(x_0, y_0, half, side, stretch)

    def refined(self, side):
        """The same square with another number of nodes along a side."""
        return replace(self, side=side)

    def moved(self, x, y, growth=0.0):
        """The same grid farther along x and y, in arcsec, and larger by a factor of exp(growth)."""
        x_0, y_0 = self.x_0 + float(x), self.y_0 + float(y)
        return replace(self, x_0=x_0, y_0=y_0, half=self.half * math.exp(growth))

    def locate(self, x, y):
        """Cells of rays: the lower left node, the shares along x and y, and which lie inside, each (R,)."""
        places = []
        for distance in (x - self.x_0, y - self.y_0):
            cell = np.clip(np.searchsorted(self.offsets, distance, side="right") - 1, 0, self.side - 2)
            share = (distance - self.offsets[cell]) / (self.offsets[cell + 1] - self.offsets[cell])
            places.append((cell, share, (distance >= self.offsets[0]) & (distance <= self.offsets[-1])))
        (left, right, inside_x), (below, up, inside_y) = places
        return below * self.side + left, right, up, inside_x & inside_y

    def matrix(self, x, y):
        """Bilinear interpolation to rays.

        Parameters
        ----------
        x, y : `~numpy.ndarray`, shape (R,)
            Where the rays land, in arcsec.

        Returns
        -------
        matrix : sparse array, shape (R, side^2)
        """
        node, right, up, inside = self.locate(x, y)
        corners = node[:, None] + np.array([0, 1, self.side, self.side + 1])
        weights = np.stack([(1 - right) * (1 - up), right * (1 - up), (1 - right) * up, right * up], axis=1)
        weights[~inside] = 0.0
        starts = np.arange(0, 4 * len(x) + 1, 4)
        return sparse.csr_array((weights.ravel(), corners.ravel(), starts), shape=(len(x), self.size))

    def slope(self, values, x, y):
        """Slopes of the interpolated source at rays, along x and y, each of shape (R,)."""
        node, right, up, inside = self.locate(x, y)
        lower_left, lower_right = values[node], values[node + 1]
        upper_left, upper_right = values[node + self.side], values[node + self.side + 1]
        along_x = (1 - up) * (lower_right - lower_left) + up * (upper_right - upper_left)
        along_y = (1 - right) * (upper_left - lower_left) + right * (upper_right - lower_right)
        step = np.diff(self.offsets)
        return along_x * inside / step[node % self.side], along_y * inside / step[node // self.side]


@dataclass(frozen=True)
class GridMotion:
    """How the grid of a source moves and grows with the parameters of the lens.

    Attributes
    ----------
    drift : `~numpy.ndarray`, shape (2, L)
        How far it moves along x and y with each of them, in arcsec.
    growth : `~numpy.ndarray`, shape (L,)
        How much the logarithm of its size grows.
    """

    drift: np.ndarray
    growth: np.ndarray

    @classmethod
    def none(cls, count):
        """Of a grid that stays, whatever becomes of so many parameters."""
        return cls(np.zeros((2, count)), np.zeros(count))

    @classmethod
    def following(cls, grid, slopes, x, y, weights, free):
        """The motion that leaves weighted rays the mean place that they have on a grid, and their mean size.

        The size only if the lens can change it: a family of lenses with a fixed profile, such as an
        isothermal one, distorts its source more than it enlarges it, whichever way it changes.

        Parameters
        ----------
        grid : `SourceGrid`
        slopes : tuple of `~numpy.ndarray`, shape (L, R)
            How far the rays move along x and y with each parameter of the lens.
        x, y : `~numpy.ndarray`, shape (R,)
            Where they land.
        weights : `~numpy.ndarray`, shape (R,)
        free : `~numpy.ndarray` of bool, shape (L,)
            Which of the parameters change.

        Returns
        -------
        motion : `GridMotion`
        """
        total = weights.sum()
        drift = np.stack([slope @ weights for slope in slopes]) / total
        place = np.stack([x, y]) @ weights / total
        # Rays around their mean, by the root of their weights: what a lens may stretch, and how it does.
        root = np.sqrt(weights / total)
        size = np.concatenate([(x - place[0]) * root, (y - place[1]) * root])
        moved = np.concatenate([(s - m[:, None]) * root for s, m in zip(slopes, drift, strict=True)], axis=1)
        along, spread = moved @ size, size @ size
        # What the likest mixture of motions has of the enlargement.
        mixture = np.linalg.pinv(moved[free] @ moved[free].T, hermitian=True) @ along[free]
        if mixture @ along[free] < ENLARGING * spread or spread == 0:
            return cls(drift, np.zeros(len(free)))
        growth = along / spread
        return cls(drift - growth * (place - [grid.x_0, grid.y_0])[:, None], growth)

    def applied(self, grid, change):
        """A grid after a change (L,) of the parameters."""
        return grid.moved(*(self.drift @ change), float(self.growth @ change))

    def at(self, grid, x, y, keep):
        """How far what is fixed to a grid moves at positions (M,) with the K parameters kept: two (K, M)."""
        growth = self.growth[keep, None]
        drift_x, drift_y = self.drift[:, keep, None]
        return drift_x + growth * (x - grid.x_0), drift_y + growth * (y - grid.y_0)


class SourceMap:
    """How the brightness of the source at a ray follows from values at the nodes.

    It is the interpolated values; or, with a Sérsic, that profile times them, so that they need not follow
    its cusp.

    Parameters
    ----------
    grid : `SourceGrid`
    sersic : `torch.Tensor`, shape (7,), optional
        As `~lenssr.light.sersic.sersic_brightness` takes it.
    """

    def __init__(self, grid, sersic=None):
        self.grid = grid
        self.sersic = None if sersic is None else sersic.reshape(1, 7, 1).unbind(1)

    def matrix(self, x, y):
        """Values at the nodes (n,) to brightness at rays (R,), a sparse array (R, n)."""
        matrix = self.grid.matrix(x, y)
        if self.sersic is not None:
            matrix.data *= np.repeat(self.profile(x, y), 4)
        return matrix

    def profile(self, x, y):
        """What the values are multiplied with at positions (M,)."""
        if self.sersic is None:
            return np.ones(len(x))
        return sersic_brightness(torch.as_tensor(x), torch.as_tensor(y), *self.sersic)[0].numpy()

    def brightness(self, values):
        """Brightness at the nodes."""
        return values * self.profile(*self.grid.nodes)

    def slope(self, values, x, y):
        """Slopes of the brightness at rays, along x and y, each of shape (R,)."""
        along_x, along_y = self.grid.slope(values, x, y)
        if self.sersic is None:
            return along_x, along_y
        profile, d_x, d_y, _ = (
            part[0].numpy()
            for part in sersic_brightness_jacobian(torch.as_tensor(x), torch.as_tensor(y), *self.sersic)
        )
        between = self.grid.matrix(x, y) @ values
        return profile * along_x + d_x * between, profile * along_y + d_y * between

    def sersic_slopes(self, values, x, y, log):
        """Derivatives (7, M) of the brightness at positions by the Sérsic's parameters.

        By their logarithms where ``log`` (7,) says so.
        """
        rays = torch.as_tensor(x), torch.as_tensor(y)
        derivative = sersic_brightness_jacobian(*rays, *self.sersic)[3][0]
        scale = torch.where(log, torch.cat(self.sersic).flatten(), torch.ones(7, dtype=derivative.dtype))
        return (derivative * scale[:, None]).numpy() * (self.grid.matrix(x, y) @ values)
