"""Lights of known place and size, and which cells of a grid are too large to see them."""

from dataclasses import dataclass

import torch

__all__ = ["CompactLights", "KnownLights"]

# A cell may be this many times as large as the radius of a light before its rays can miss it: two and two
# Gauss points, and those of its quarters, then lie within the half width of a Gaussian.
CELL_RADII = 2.0
# Radii of a light around its centre in which its cells are divided: beyond, a Gaussian has 0.2 % of its flux.
REACH = 3.0
# Share of the size of a cell in the source plane by which it may bulge there beyond its corners.
BULGE = 0.25
# Lights are compact if a radius is below this many sides of a cell: a lens that shrinks images, as inside a
# steep mass, makes them smaller by about that.
COMPACT_SIDES = 2.0
# Cells traced at once.
_BLOCK = 2**15


@dataclass(frozen=True)
class CompactLights:
    """Lights of known place and size in one plane, and which cells may hide them between their rays.

    Attributes
    ----------
    x, y : `torch.Tensor`, shape (L,)
        Their centres in that plane, in arcsec.
    small, large : `torch.Tensor`, shape (L,)
        Half-light radii along their minor and major axes, in arcsec.
    trace : callable
        ``trace(x, y)`` of rays (M,): where they land in that plane.

    Examples
    --------
    >>> import torch
    >>> from lenssr.imaging.compact_light import CompactLights
    >>> place, size = torch.tensor([0.3]).double(), torch.tensor([0.001]).double()
    >>> lights = CompactLights(place, place, size, size, trace=lambda x, y: (x, y))
    >>> middle = torch.tensor([-0.5, 0.5]).double()
    >>> lights(middle, middle, 1.0), lights(middle, middle, 0.001)
    (tensor([False,  True]), tensor([False, False]))
    """

    x: torch.Tensor
    y: torch.Tensor
    small: torch.Tensor
    large: torch.Tensor
    trace: object

    def below(self, side):
        """Those of the lights that may be too small for cells of this side; None if there are none."""
        keep = self.small < COMPACT_SIDES * side
        if not keep.any():
            return None
        return CompactLights(*(part[keep] for part in (self.x, self.y, self.small, self.large)), self.trace)

    def __call__(self, x, y, side):
        """Whether square cells (C,) of a side hold a light that is small against them."""
        blocks = zip(x.split(_BLOCK), y.split(_BLOCK), strict=True)
        return torch.cat([self._hidden(*block, side) for block in blocks])

    def _hidden(self, x, y, side):
        corners = [
            (side / 2 * right, side / 2 * up) for right, up in ((0, 0), (-1, -1), (1, -1), (-1, 1), (1, 1))
        ]
        landed = self.trace(
            *(torch.cat([axis + step[k] for step in corners]) for k, axis in enumerate((x, y)))
        )
        low, high = ([part(axis.reshape(5, -1), 0) for axis in landed] for part in (torch.amin, torch.amax))
        size = torch.maximum(high[0] - low[0], high[1] - low[1]).unsqueeze(1)
        near = size > CELL_RADII * self.small
        for place, first, last in zip((self.x, self.y), low, high, strict=True):
            reach = REACH * self.large + BULGE * size
            near &= (place > first.unsqueeze(1) - reach) & (place < last.unsqueeze(1) + reach)
        return near.any(1)


@dataclass(frozen=True)
class KnownLights:
    """Brightness of a scene whose lights may be much smaller than the cells of an operator.

    Attributes
    ----------
    brightness : callable
        ``brightness(x, y)`` of the image plane, as ``refine`` of `~lenssr.imaging.ImagingOperator`.
    lights : tuple of `CompactLights`
        What is known of its parts.
    """

    brightness: object
    lights: tuple

    def __call__(self, x, y):
        """Brightness at rays."""
        return self.brightness(x, y)

    def compact(self, side):
        """Which cells may hide a light, a function of x, y (C,) and their side; None for large lights.

        ``side`` is that of the largest cells.
        """
        small = [found for lights in self.lights if (found := lights.below(side)) is not None]
        if not small:
            return None
        return lambda x, y, side: torch.stack([lights(x, y, side) for lights in small]).any(0)
