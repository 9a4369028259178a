"""Forward model for profiles with cusps without a PSF: integrals over pixels."""

import numpy as np
import torch

from lenssr.exceptions import InputError
from lenssr.imaging.cusp_operator import CuspOperator

__all__ = ["IntegratingOperator"]

# Number of pixels on each side of the central one in which rays follow the centre.
NEAR_PIXELS = 3
# Nodes along a side of a pixel next to the cusp, per node of a far pixel; exponent of their concentration
# towards it; nodes of other near pixels.
CUSP_NODES, CUSP_POWER, NEAR_NODES = 8, 5, 4


class IntegratingOperator(CuspOperator):
    """Integrals of profiles over pixels (ny, nx), in place of a `TrackingOperator` where there is no PSF.

    The 7 x 7 pixels around the centre of a profile are integrated with rays that move with it: its pixel is
    divided at the centre into four, and nodes concentrate towards the centre as the fifth power of
    Gauss-Legendre nodes. Other pixels have ``points`` nodes a side. Profiles of r_eff = 2 to 8 pixels, n =
    0.5 to 6, are right within 0.1 % of their norm.

    >>> import torch
    >>> from lenssr.imaging.integrating_operator import IntegratingOperator
    >>> operator = IntegratingOperator((9, 9))
    >>> centre = torch.zeros(2, 1, 1).double()
    >>> x, y, share = operator.rays(*centre)
    >>> image = operator.collect(torch.exp(-(x**2 + y**2) / 8).unsqueeze(1), *centre, share)
    >>> round(float(image[0, 0, 4, 4]), 2)
    0.98
    """

    def __init__(self, shape, *, points=2, dtype=torch.float64, device="cpu"):
        if not isinstance(points, int) or points < 1:
            raise InputError(f"points = {points!r}: give a positive integer")
        self.shape, self.step, self._points = tuple(shape), 1 / points, points
        self.lattice = tuple(size * points for size in shape)
        options = {"dtype": dtype, "device": device}
        nodes, weights = _gauss(points)
        self._weights = torch.as_tensor(weights).to(**options)
        inside = torch.as_tensor(nodes - 0.5).to(**options)
        self._pixels = [torch.arange(size, **options) - (size - 1) / 2 for size in shape]
        rows, columns = ((pixels[:, None] + inside).flatten() for pixels in self._pixels)
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        self.x, self.y = x.reshape(1, -1), y.reshape(1, -1)
        parts = (torch.as_tensor(part).to(**options) for part in _pieces(CUSP_NODES * points))
        self._start, self._length, self._moves, self._within, self._weight, self._member = parts

    def rays(self, x_0, y_0):
        """Nodes in all pixels, then those near the centre; see `CuspOperator.rays`."""
        (rows, near_y, _), (columns, near_x, _) = self._near(y_0, 0), self._near(x_0, 1)
        far = [
            ((torch.arange(len(pixels), device=first.device) - first).abs() > NEAR_PIXELS).repeat_interleave(
                self._points, dim=1
            )
            for pixels, first in zip(self._pixels, (rows, columns), strict=True)
        ]
        share = (far[0].unsqueeze(2) | far[1].unsqueeze(1)).flatten(1).to(self.x.dtype)
        near_y, near_x = torch.broadcast_tensors(near_y.unsqueeze(2), near_x.unsqueeze(1))
        x = torch.cat([self.x.expand(len(x_0), -1), near_x.flatten(1)], 1)
        y = torch.cat([self.y.expand(len(y_0), -1), near_y.flatten(1)], 1)
        return x, y, share

    def collect(self, values, x_0, y_0, share):
        """Integrals over the pixels; see `CuspOperator.collect`."""
        number, points, (ny, nx) = self.x.shape[1], self._points, self.shape
        # A profile may be infinite at its centre: exclude nodes of share 0, since 0 * inf is NaN.
        far = torch.where(share.unsqueeze(1) > 0, values[..., :number], 0)
        far = far.reshape(*values.shape[:2], ny, points, nx, points)
        cells = torch.einsum("bpyixj,i,j->bpyx", far, self._weights, self._weights).flatten(2)
        (rows, near_y, over_rows), (columns, near_x, over_columns) = self._near(y_0, 0), self._near(x_0, 1)
        own = values[..., number:].reshape(*values.shape[:2], near_y.shape[1], near_x.shape[1])
        patch = over_rows.mT.unsqueeze(1) @ own @ over_columns.unsqueeze(1)
        reach = torch.arange(-NEAR_PIXELS, NEAR_PIXELS + 1, device=values.device)
        rows, columns = rows + reach, columns + reach
        inside = ((rows >= 0) & (rows < ny)).unsqueeze(2) & ((columns >= 0) & (columns < nx)).unsqueeze(1)
        index = rows.clamp(0, ny - 1).unsqueeze(2) * nx + columns.clamp(0, nx - 1).unsqueeze(1)
        patch = torch.where(inside.unsqueeze(1), patch, 0).flatten(2)
        index = index.flatten(1).unsqueeze(1).expand(-1, values.shape[1], -1)
        return cells.scatter_add(-1, index, patch).reshape(*values.shape[:2], ny, nx)

    def convolve(self, cells):
        """Return the cells, which are the pixels."""
        return cells

    def _near(self, centre, axis):
        """Pixel (B, 1) of a centre (B, 1), rays (B, K), and their weights (B, K, W) in the pixels near it."""
        at = centre - self._pixels[axis][0]
        nearest = at.round()
        shift = at - nearest
        start = self._start + self._moves[0] * shift
        length = self._length + self._moves[1] * shift
        places = nearest + self._pixels[axis][0] + start + length * self._within
        return nearest.long(), places, (length.abs() * self._weight).unsqueeze(2) * self._member


def _gauss(number):
    """Gauss-Legendre nodes and weights on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(number)
    return (nodes + 1) / 2, weights / 2


def _pieces(number):
    """Rays along an axis: start and length of their pieces, how both move, nodes, weights, and pixels."""
    nodes, weights = _gauss(number)
    crowded = nodes**CUSP_POWER, weights * CUSP_POWER * nodes ** (CUSP_POWER - 1)
    plain = _gauss(NEAR_NODES)
    # Start and length for a centre in the middle of its pixel; their derivatives by the centre; pixel; nodes.
    pieces = [(0.0, -0.5, 1.0, -1.0, 0, crowded), (0.0, 0.5, 1.0, -1.0, 0, crowded)]
    for side in (-1, 1):
        pieces.append((side * 0.5, side, 0.0, 0.0, side, crowded))
        pieces += [(side * (k - 0.5), side, 0.0, 0.0, side * k, plain) for k in range(2, NEAR_PIXELS + 1)]
    start, length, starts, lengths, pixels = (
        np.concatenate([np.full(len(piece[5][0]), float(piece[k])) for piece in pieces]) for k in range(5)
    )
    within, weight = (np.concatenate([piece[5][k] for piece in pieces]) for k in (0, 1))
    member = (pixels[:, None] == np.arange(-NEAR_PIXELS, NEAR_PIXELS + 1)).astype(float)
    return start, length, np.stack([starts, lengths]), within, weight, member
