"""The free-form source: a grid of nodes behind the lens, and the linear map from it to the pixels."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse

__all__ = ["SourceGrid"]


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
    """

    x_0: float
    y_0: float
    half: float
    side: int

    @property
    def spacing(self):
        """Distance of neighbouring nodes in arcsec."""
        return 2 * self.half / (self.side - 1)

    @property
    def size(self):
        """Number of nodes."""
        return self.side**2

    @property
    def nodes(self):
        """Positions x, y of the nodes in arcsec, each of shape (side^2,), rows first."""
        axis = np.linspace(-self.half, self.half, self.side)
        y, x = np.meshgrid(axis + self.y_0, axis + self.x_0, indexing="ij")
        return x.ravel(), y.ravel()

    @classmethod
    def around(cls, x, y, side):
        """The smallest square grid that holds all positions, with a node to spare on each side.

        Parameters
        ----------
        x, y : array
            Positions in arcsec.
        side : int

        Returns
        -------
        grid : `SourceGrid`
        """
        ends = [(float(np.min(axis)), float(np.max(axis))) for axis in (x, y)]
        half = max(high - low for low, high in ends) / 2 * (side - 1) / (side - 3)
        x_0, y_0 = ((low + high) / 2 for low, high in ends)
        return cls(x_0, y_0, half, side)

    def locate(self, x, y):
        """Cells of rays: the lower left node, the shares along x and y, and which lie inside, each (R,)."""
        column, row = (x - self.x_0 + self.half) / self.spacing, (y - self.y_0 + self.half) / self.spacing
        inside = (column >= 0) & (row >= 0) & (column <= self.side - 1) & (row <= self.side - 1)
        left = np.clip(np.floor(column), 0, self.side - 2).astype(np.int64)
        below = np.clip(np.floor(row), 0, self.side - 2).astype(np.int64)
        return below * self.side + left, column - left, row - below, inside

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
        scale = inside / self.spacing
        return along_x * scale, along_y * scale
