"""Grids of nodes in the source planes of a batch of lenses, and the bilinear maps between nodes and rays."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import avg_pool2d

from lenssr.source import SourceGrid

__all__ = ["BilinearWeights", "SourcePlane", "significant_pixels"]

# Side of the window, in pixels, and significance of its sum, in sigma, that makes its central pixel
# significant.
WINDOW_SIDE, WINDOW_SIGMA = 5, 5.0
# Share of the significant rays that may lie outside at each end: noise makes pixels significant anywhere.
OUTLIER_SHARE = 0.004
# Width of the grid over that of the significant light, which continues below the noise.
GRID_MARGIN = 1.25


@dataclass(frozen=True)
class SourcePlane:
    """Square grids of nodes, one for each image: bilinear between nodes, zero outside.

    Attributes
    ----------
    x_0, y_0 : `torch.Tensor`, shape (B,)
        Centres in arcsec.
    half : `torch.Tensor`, shape (B,)
        Half of their sides, from the first node to the last, in arcsec.
    side : int
        Nodes along a side.
    stretch : float
        Concentration of the nodes towards the middle, as in `~lenssr.source.SourceGrid`.

    Examples
    --------
    >>> import torch
    >>> from lenssr.networks.source_plane import SourcePlane
    >>> plane = SourcePlane(torch.zeros(1), torch.zeros(1), torch.ones(1), side=3)
    >>> rays = plane.weights_at(torch.tensor([[0.5, 2.0]]), torch.tensor([[0.0, 0.0]]))
    >>> rays.interpolate(torch.tensor([[[0.0, 0.0, 0.0], [0.0, 1.0, 2.0], [0.0, 0.0, 0.0]]]))
    tensor([[1.5000, 0.0000]])
    """

    x_0: torch.Tensor
    y_0: torch.Tensor
    half: torch.Tensor
    side: int
    stretch: float = 0.0

    @classmethod
    def around(cls, x, y, significant, side, stretch=0.0, margin=GRID_MARGIN):
        """The squares that hold nearly all significant rays.

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
        plane : `SourcePlane`
        """
        significant = significant | ~significant.any(1, keepdim=True)
        shares = x.new_tensor([OUTLIER_SHARE, 1 - OUTLIER_SHARE])
        ends = [
            torch.nanquantile(torch.where(significant, axis, torch.nan), shares, dim=1) for axis in (x, y)
        ]
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
        """One of the grids, as a `~lenssr.source.SourceGrid`."""
        numbers = (float(values[number]) for values in (self.x_0, self.y_0, self.half))
        return SourceGrid(*numbers, self.side, self.stretch)

    def weights_at(self, x, y):
        """Bilinear weights of the nodes at rays (B, R), x and y in arcsec."""
        (column, right), (row, up) = (
            self._locate((place - centre[:, None]) / self.half[:, None])
            for place, centre in ((x, self.x_0), (y, self.y_0))
        )
        inside = ((right >= 0) & (right <= 1) & (up >= 0) & (up <= 1)).to(right)
        left, below = (1 - right) * inside, 1 - up
        right = right * inside
        weights = torch.stack([left * below, right * below, left * up, right * up], -1)
        return BilinearWeights(row * self.side + column, weights, self.side)

    def _locate(self, offset):
        """Node before each offset (B, R), in units of ``half``, and the fraction of the way to the next."""
        # Rays far outside, or not finite, belong to the outermost cells, with weight 0.
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


class BilinearWeights:
    """The bilinear map from nodes to rays, and its adjoint.

    ``node`` (B, R) is the lower left node of the cell of each ray; ``weights`` (B, R, 4) are those of that
    node, the one to the right of it, and the two above them; ``side`` is the number of nodes along a side.
    """

    def __init__(self, node, weights, side):
        self.weights, self.side = weights, side
        corners = torch.tensor([0, 1, side, side + 1], device=node.device)
        self.index = (node[..., None] + corners).flatten(1)

    def interpolate(self, values):
        """Values at the rays (B, R) from those at the nodes (B, side, side)."""
        corners = values.flatten(1).gather(1, self.index).reshape(self.weights.shape)
        return (corners * self.weights).sum(-1)

    def adjoint(self, values, *, power=1):
        """Adjoint of `interpolate`: weighted sums at the nodes (B, side, side) of values of rays (B, R).

        ``power=2`` gives the variance of the sum from variances of the rays.
        """
        weights = self.weights if power == 1 else self.weights**power
        shares = (values[..., None] * weights).flatten(1)
        sums = shares.new_zeros(len(shares), self.side**2).scatter_add(1, self.index, shares)
        return sums.reshape(-1, self.side, self.side)


def significant_pixels(image, sigma):
    """Pixels (B, ny, nx) in or near significant light; those with infinite ``sigma`` are ignored."""
    seen = torch.isfinite(sigma)
    planes = torch.stack([torch.where(seen, image, 0), torch.where(seen, sigma, 0).square()], 1)
    total, variance = avg_pool2d(planes, WINDOW_SIDE, 1, WINDOW_SIDE // 2, divisor_override=1).unbind(1)
    return seen & (total > WINDOW_SIGMA * variance.sqrt())
