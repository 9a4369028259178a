"""Grids of nodes behind lenses, one for each image of a batch, and the maps between them and rays."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import avg_pool2d

from lenssr.source import SourceGrid

__all__ = ["Footprint", "SourcePlane", "lit_pixels"]

# A pixel is lit if so many pixels around it along a side hold so many sigma together.
WINDOW, LIT_SIGMA = 5, 5.0
# Of the lit rays this share may land outside at each end: noise lights pixels whose rays land anywhere.
OUTLIERS = 0.004
# Light goes on below the noise: so much wider is the grid than what is lit.
MARGIN = 1.25


@dataclass(frozen=True)
class SourcePlane:
    """Square grids of nodes, bilinear between them and dark outside: one `~lenssr.source.SourceGrid` each.

    Attributes
    ----------
    x_0, y_0 : `torch.Tensor`, shape (B,)
        Centres in arcsec.
    half : `torch.Tensor`, shape (B,)
        Half of their sides, from the first node to the last, in arcsec.
    side : int
        Nodes along a side.
    stretch : float
        By how much nodes crowd in the middle, as in `~lenssr.source.SourceGrid`.

    Examples
    --------
    >>> import torch
    >>> from lenssr.networks.source_plane import SourcePlane
    >>> plane = SourcePlane(torch.zeros(1), torch.zeros(1), torch.ones(1), side=3)
    >>> rays = plane.footprint(torch.tensor([[0.5, 2.0]]), torch.tensor([[0.0, 0.0]]))
    >>> rays.interpolate(torch.tensor([[[0.0, 0.0, 0.0], [0.0, 1.0, 2.0], [0.0, 0.0, 0.0]]]))
    tensor([[1.5000, 0.0000]])
    """

    x_0: torch.Tensor
    y_0: torch.Tensor
    half: torch.Tensor
    side: int
    stretch: float = 0.0

    @classmethod
    def around(cls, x, y, lit, side, stretch=0.0, margin=MARGIN):
        """The squares in which lit rays land, but for a few.

        Parameters
        ----------
        x, y : `torch.Tensor`, shape (B, R)
            Where rays land, in arcsec.
        lit : `torch.Tensor` of bool, shape (B, R)
            Which of them count; all, where none is lit.
        side : int
        stretch : float, optional
        margin : float, optional
            How much larger than what is lit; 1.25 by default.

        Returns
        -------
        plane : `SourcePlane`
        """
        lit = lit | ~lit.any(1, keepdim=True)
        shares = x.new_tensor([OUTLIERS, 1 - OUTLIERS])
        ends = [torch.nanquantile(torch.where(lit, axis, torch.nan), shares, dim=1) for axis in (x, y)]
        (x_0, width), (y_0, height) = (((low + high) / 2, high - low) for low, high in ends)
        half = margin * torch.maximum(width, height) / 2
        return cls(x_0, y_0, half.clamp_min(torch.finfo(x.dtype).eps), side, stretch)

    @property
    def offsets(self):
        """Distances of the nodes of a row from its middle in units of ``half``, shape (side,)."""
        return torch.as_tensor(SourceGrid(0.0, 0.0, 1.0, self.side, self.stretch).offsets).to(self.half)

    @property
    def spacing(self):
        """Distance of neighbouring nodes in the middle, in arcsec, shape (B,)."""
        return self.half * self.offsets.diff().min()

    def grid(self, number):
        """One of the grids.

        Parameters
        ----------
        number : int

        Returns
        -------
        grid : `~lenssr.source.SourceGrid`
        """
        numbers = (float(values[number]) for values in (self.x_0, self.y_0, self.half))
        return SourceGrid(*numbers, self.side, self.stretch)

    def footprint(self, x, y):
        """Where rays (B, R) land among the nodes.

        Parameters
        ----------
        x, y : `torch.Tensor`, shape (B, R)
            In arcsec.

        Returns
        -------
        footprint : `Footprint`
        """
        (column, right), (row, up) = (
            self._locate((place - centre[:, None]) / self.half[:, None])
            for place, centre in ((x, self.x_0), (y, self.y_0))
        )
        inside = ((right >= 0) & (right <= 1) & (up >= 0) & (up <= 1)).to(right)
        left, below = (1 - right) * inside, 1 - up
        right = right * inside
        weights = torch.stack([left * below, right * below, left * up, right * up], -1)
        return Footprint(row * self.side + column, weights, self.side)

    def _locate(self, offset):
        """The node before each offset (B, R), in units of ``half``, and the share of the way to the next."""
        # Rays that a lens throws far out, or that are not a number, stay in the outermost cells, outside.
        offset = offset.nan_to_num(2.0).clamp(-2, 2)
        line = offset.detach()
        if self.stretch:
            line = torch.asinh(line * np.sinh(self.stretch)) / self.stretch
        node = ((line + 1) * ((self.side - 1) / 2)).floor().long().clamp(0, self.side - 2)
        if not self.stretch:
            return node, (offset + 1) * ((self.side - 1) / 2) - node
        nodes = self.offsets
        start = nodes[node]
        return node, (offset - start) / (nodes[node + 1] - start)


class Footprint:
    """The bilinear map from nodes to rays, and its transpose.

    Parameters
    ----------
    node : `torch.Tensor` of int, shape (B, R)
        The lower left node of the cell of each ray.
    weights : `torch.Tensor`, shape (B, R, 4)
        Shares of that node, the one to the right of it, and the two above them.
    side : int
        Nodes along a side.
    """

    def __init__(self, node, weights, side):
        self.weights, self.side = weights, side
        corners = torch.tensor([0, 1, side, side + 1], device=node.device)
        self.index = (node[..., None] + corners).flatten(1)

    def interpolate(self, values):
        """Values at the rays.

        Parameters
        ----------
        values : `torch.Tensor`, shape (B, side, side)
            At the nodes.

        Returns
        -------
        values : `torch.Tensor`, shape (B, R)
        """
        corners = values.flatten(1).gather(1, self.index).reshape(self.weights.shape)
        return (corners * self.weights).sum(-1)

    def gather(self, values, *, power=1):
        """Sum what rays carry at the nodes: the transpose of `interpolate`.

        Parameters
        ----------
        values : `torch.Tensor`, shape (B, R)
        power : int, optional
            Of the weights, 1 by default; 2 gives the variance of the sum from those of the rays.

        Returns
        -------
        sums : `torch.Tensor`, shape (B, side, side)
        """
        weights = self.weights if power == 1 else self.weights**power
        shares = (values[..., None] * weights).flatten(1)
        sums = shares.new_zeros(len(shares), self.side**2).scatter_add(1, self.index, shares)
        return sums.reshape(-1, self.side, self.side)


def lit_pixels(image, sigma):
    """Which pixels light stands out in, together with those around them.

    Parameters
    ----------
    image, sigma : `torch.Tensor`, shape (B, ny, nx)
        Values and standard deviations; pixels whose deviation is not finite do not count.

    Returns
    -------
    lit : `torch.Tensor` of bool, shape (B, ny, nx)
    """
    seen = torch.isfinite(sigma)
    planes = torch.stack([torch.where(seen, image, 0), torch.where(seen, sigma, 0).square()], 1)
    total, variance = avg_pool2d(planes, WINDOW, 1, WINDOW // 2, divisor_override=1).unbind(1)
    return seen & (total > LIT_SIGMA * variance.sqrt())
