"""Positions of rays in pixels for accurate integrals of light, also of lights smaller than a pixel."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from lenssr.grids import transformed

__all__ = ["CompactLights", "KnownLights", "adaptive_rays", "gauss_rule", "midpoint_rule", "rays_in_cells"]

Brightness = Callable[[Tensor, Tensor], Tensor]
Rule = tuple[Tensor, Tensor]

# Rays whose brightness is computed at once: they fit into the cache.
_BLOCK = 2**17
# Cells whose quarters are looked at together.
MANY_CELLS = 2**18
# Most times that a cell is divided.
MAX_LEVEL = 12
# Brightness of a cell, over the brightest, below which the absolute error counts.
FLOOR = 0.01
# Share of the tolerance of a pixel that one cell may use: errors of neighbouring cells have the same sign.
CELL_SHARE = 0.1
# Weight of the differences of the quarters against their sum: for smooth light they are of third order, the
# sum of fourth.
QUARTER_WEIGHT = 0.1
# A cell may be this many times as large as the radius of a light before its rays can miss it: two and two
# Gauss points, and those of its quarters, then lie within the half width of a Gaussian.
CELL_RADII = 2.0
# Radii of a light around its centre in which its cells are divided: beyond, a Gaussian has 0.2 % of its flux.
REACH = 3.0
# Share of the size of a cell in the source plane by which it may bulge there beyond its corners.
BULGE = 0.25
# Lights are compact if a radius is below this many sides of a cell, since steep mass, which shrinks images,
# makes them smaller by about this factor.
COMPACT_SIDES = 2.0


# ---------------------------------------------------------------- rules


def midpoint_rule(number: int, *, dtype: torch.dtype = torch.float64, device: Any = "cpu") -> Rule:
    """Centres x, y (number**2,) of ``number`` x ``number`` parts of a unit cell around 0, rows from below."""
    nodes = (torch.arange(number, dtype=dtype, device=device) + 0.5) / number - 0.5
    y, x = torch.meshgrid(nodes, nodes, indexing="ij")
    return x.reshape(-1), y.reshape(-1)


def gauss_rule(*, dtype: torch.dtype = torch.float64, device: Any = "cpu") -> Rule:
    """X and y (4,) of the 2 x 2 Gauss-Legendre points of a unit cell around the origin; equal weights."""
    x, y = midpoint_rule(2, dtype=dtype, device=device)
    return x * (2 / math.sqrt(3)), y * (2 / math.sqrt(3))


def rays_in_cells(x: Tensor, y: Tensor, side: Any, rule: Rule) -> Rule:
    """Points (C * points,) of a rule in cells with centres (C,) and side ``side``, cell by cell."""
    return (x[:, None] + side * rule[0]).reshape(-1), (y[:, None] + side * rule[1]).reshape(-1)


def _brightness_in_cells(brightness: Brightness, x: Tensor, y: Tensor, side: float, rule: Rule) -> Tensor:
    """Brightness (..., C, points) at the points of a rule in cells."""
    points = len(rule[0])
    blocks = zip(x.split(_BLOCK // points), y.split(_BLOCK // points), strict=True)
    rays = (rays_in_cells(*block, side, rule) for block in blocks)
    return torch.cat([brightness(*ray).unflatten(-1, (-1, points)) for ray in rays], -2)


# ---------------------------------------------------------------- adaptive grid


@torch.no_grad()
def adaptive_rays(
    brightness: Brightness,
    x: Tensor,
    y: Tensor,
    side: float,
    *,
    unit_matrix: ArrayLike = ((1, 0), (0, 1)),
    compact: Callable[[Tensor, Tensor, float], Tensor] | None = None,
    tolerance: float = 3e-4,
    max_rays: int | None = None,
) -> tuple[Tensor, ...]:
    """Divide cells (C,) where the light is steep, until each has an accurate mean brightness.

    A cell, a square mapped by ``unit_matrix`` (determinant 1 or -1), starts with the 2 x 2 Gauss rule, which
    is compared with that on its quarters, in sum and one by one (in sum the errors of a cusp can cancel).
    Quarters replace a cell where they differ by more than ``CELL_SHARE`` of the ``tolerance``, relative to
    the cell or to ``FLOOR`` times the brightest. ``brightness`` takes (M,) to (..., M); any scene may divide
    a cell. Cells for which ``compact(x, y, side)`` says that a light may lie between the points are divided,
    too. ``max_rays`` (by default 50 000 plus 16 a cell) go to the worst cells first.

    Returns the numbers (D,) of divided cells, ascending; x, y and weight (M,) of their rays, which sum to 1
    in a cell; and the place (M,) of the cell of each ray among the D.
    """
    rule = transformed(unit_matrix, *gauss_rule(dtype=x.dtype, device=x.device))
    quarters = transformed(unit_matrix, *midpoint_rule(2, dtype=x.dtype, device=x.device))
    budget = max_rays or 50_000 + 16 * len(x)
    samples = _brightness_in_cells(brightness, x, y, side, rule)
    # Rays that are not finite must not raise the brightest mean, the reference of all other cells.
    mean = samples.mean(-1).abs().nan_to_num(0.0, posinf=0.0)
    owner = torch.arange(len(x), device=x.device)
    if compact is not None:
        mean = torch.maximum(mean, torch.as_tensor(_light_of_compact(brightness, compact, x, y, side)))
    allowed = tolerance * torch.maximum(mean, FLOOR * mean.amax(-1, keepdim=True))
    kept = [(x[:0], y[:0], x[:0], owner[:0])]
    for level in range(MAX_LEVEL + 1):
        child_side = side / 2 ** (level + 1)

        def divided(x: Tensor, y: Tensor, child_side: float = child_side) -> tuple[Tensor, ...]:
            """Centres of the quarters of cells, and the brightness in them."""
            places = rays_in_cells(x, y, 2 * child_side, quarters)
            return *places, _brightness_in_cells(brightness, *places, child_side, rule)

        # Of many cells few are divided: the quarters of all of them would take gigabytes.
        many = len(x) > MANY_CELLS
        if many:
            blocks = zip(x.split(MANY_CELLS), y.split(MANY_CELLS), samples.split(MANY_CELLS, -2), strict=True)
            error = torch.cat([_disagreement(part, divided(*cells)[2]) for *cells, part in blocks], -1)
        else:
            child_x, child_y, children = divided(x, y)
            error = _disagreement(samples, children)
        error = error / 4**level
        ratio = (error / allowed[..., owner]).nan_to_num(0.0).reshape(-1, len(x)).amax(0)
        if compact is not None:
            ratio[compact(x, y, 2 * child_side)] = torch.inf
        split = ratio > CELL_SHARE if level < MAX_LEVEL else torch.zeros_like(ratio, dtype=torch.bool)
        if 12 * int(split.sum()) > budget:
            worst = ratio.argsort(descending=True)[: budget // 12]
            split = torch.zeros_like(split).index_fill(0, worst, True)
        if level > 0:
            kept.append((x[~split], y[~split], torch.full_like(x[~split], 2 * child_side), owner[~split]))
        budget -= 12 * int(split.sum())
        if not split.any():
            break
        if many:
            x, y, samples = divided(x[split], y[split])
        else:
            four = split.repeat_interleave(4)
            x, y, samples = child_x[four], child_y[four], children[..., four, :]
        owner = owner[split].repeat_interleave(4)
    return _rays_of_cells(kept, side, rule)


def _light_of_compact(brightness: Brightness, compact: Any, x: Tensor, y: Tensor, side: float) -> Any:
    """Mean brightness of cells (..., C), or 0, as far as it comes from parts the size of compact lights."""
    quarters = midpoint_rule(2, dtype=x.dtype, device=x.device)
    cells, owner, part = len(x), torch.arange(len(x), device=x.device), side
    light: Any = 0.0
    for level in range(MAX_LEVEL):
        hides = compact(x, y, part)
        if level > 0 and not hides.all():
            seen = brightness(x[~hides], y[~hides]).abs().nan_to_num(0.0, posinf=0.0) * (part / side) ** 2
            light = light + seen.new_zeros(*seen.shape[:-1], cells).index_add(-1, owner[~hides], seen)
        if not hides.any():
            break
        x, y = rays_in_cells(x[hides], y[hides], part, quarters)
        owner, part = owner[hides].repeat_interleave(4), part / 2
    return light


def _disagreement(samples: Tensor, children: Tensor) -> Tensor:
    """Difference of the mean over a cell (..., C, 4) and over its quarters (..., 4 C, 4)."""
    near = (1 + math.sqrt(3) / 2) / 2
    line = samples.new_tensor([[near, 1 - near], [1 - near, near]])
    # Means over the quarters of the bilinear function through the points of the cell.
    expected = samples @ torch.kron(line, line)
    difference = (children.mean(-1).unflatten(-1, (-1, 4)) - expected) / 4
    return torch.maximum(difference.sum(-1).abs(), QUARTER_WEIGHT * difference.abs().sum(-1))


def _rays_of_cells(kept: Sequence[tuple[Tensor, ...]], side: float, rule: Rule) -> tuple[Tensor, ...]:
    """Rays of the cells kept at all levels."""
    x, y, own_side, owner = (torch.cat(parts) for parts in zip(*kept, strict=True))
    rays = rays_in_cells(x, y, own_side[:, None], rule)
    number = len(rule[0])
    weight = ((own_side / side) ** 2 / number).repeat_interleave(number)
    divided, index = torch.unique(owner.repeat_interleave(number), return_inverse=True)
    return divided, *rays, weight, index


# ---------------------------------------------------------------- compact lights


@dataclass(frozen=True)
class CompactLights:
    """Lights of known place and size in one plane, and which cells may hide them between their rays.

    ``x``, ``y`` (L,) are their centres and ``small``, ``large`` (L,) their half-light radii along minor and
    major axis, in arcsec; ``trace(x, y)`` says where rays (M,) land in that plane.
    """

    x: Tensor
    y: Tensor
    small: Tensor
    large: Tensor
    trace: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

    def below(self, side: float) -> CompactLights | None:
        """Lights that may be too small for cells of this side; None if there are none."""
        keep = self.small < COMPACT_SIDES * side
        if not keep.any():
            return None
        return CompactLights(self.x[keep], self.y[keep], self.small[keep], self.large[keep], self.trace)

    def __call__(self, x: Tensor, y: Tensor, side: float) -> Tensor:
        """Whether square cells (C,) of a side hold a light that is small against them."""
        blocks = zip(x.split(_BLOCK // 4), y.split(_BLOCK // 4), strict=True)
        return torch.cat([self._hidden(*block, side) for block in blocks])

    def _hidden(self, x: Tensor, y: Tensor, side: float) -> Tensor:
        half = side / 2
        corners = [(0.0, 0.0), (-half, -half), (half, -half), (-half, half), (half, half)]
        lands = self.trace(torch.cat([x + dx for dx, _ in corners]), torch.cat([y + dy for _, dy in corners]))
        low, high = ([part(axis.reshape(5, -1), 0) for axis in lands] for part in (torch.amin, torch.amax))
        size = torch.maximum(high[0] - low[0], high[1] - low[1]).unsqueeze(1)
        near = size > CELL_RADII * self.small
        reach = REACH * self.large + BULGE * size
        for place, first, last in zip((self.x, self.y), low, high, strict=True):
            near &= (place > first.unsqueeze(1) - reach) & (place < last.unsqueeze(1) + reach)
        return near.any(1)


@dataclass(frozen=True)
class KnownLights:
    """Brightness of a scene some of whose lights may be much smaller than the cells of an operator.

    ``brightness(x, y)`` is the ``refine`` of an `~lenssr.imaging.ImagingOperator`.
    """

    brightness: Brightness
    lights: tuple[CompactLights, ...]

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Brightness at rays."""
        return self.brightness(x, y)

    def compact(self, side: float) -> Callable[[Tensor, Tensor, float], Tensor] | None:
        """Function of x, y (C,) and side that finds cells which may hide a light; None for large lights.

        ``side`` is the largest of the cells.
        """
        small = [found for lights in self.lights if (found := lights.below(side)) is not None]
        if not small:
            return None
        return lambda x, y, side: torch.stack([lights(x, y, side) for lights in small]).any(0)
