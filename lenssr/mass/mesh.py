"""Where curves and images are looked for: the field, and a quadtree that is finer towards every centre."""

import math
from dataclasses import dataclass
from typing import Any

import astropy.units as u
import numpy as np
from numpy.typing import NDArray

from lenssr.exceptions import InputError
from lenssr.mass.rays import Array, Limits, Rays, common_limits
from lenssr.units import strip_unit

__all__ = ["INNERMOST", "Leaves", "base_cells", "field_of", "graded_leaves"]

Whole = NDArray[np.int64]

INNERMOST = 1e-8
"""Radius in arcsec around a centre inside which nothing is looked for; ten times the core of `kernels`."""

BASE_CELLS = 20
"""Cells along the longer side of a field, before any is divided."""

MOST_BASE_CELLS = 400
"""The same for maps of deflections, whose cells are two pixels wide."""

# Circles on which the edge of a field is looked for: smallest and largest radius in arcsec, ratio, angles.
SMALLEST, LARGEST, RATIO, ANGLES = 0.05, 1e4, 1.25, 48
SHIFT = 1e-6
"""Share by which cells are wider than a field, or narrower where a lens has limits."""

# Bits of the integer coordinates of the quadtree along an axis.
BITS = 31


def field_of(rays: Rays, extent: Any, source: tuple[float, float] | None = None) -> Limits:
    """Centre and half-widths in arcsec of the rectangle that holds all critical curves and images.

    Without an extent it is the smallest of many circles, from which outward no eigenvalue changes its sign
    and, if there is a source, rays land around it as they do far out.
    """
    if extent is not None:
        half = strip_unit(extent, u.arcsec, "extent")
        if np.ndim(half) or not 0 < float(half) < math.inf:
            raise InputError(f"extent = {extent} is refused: give the half-width in arcsec, above 0")
        square = 0.0, 0.0, float(half), float(half)
        field = square if rays.limits is None else common_limits(square, rays.limits)
        if min(field[2:]) <= 0:
            raise InputError(f"extent = {extent} holds nothing of the map: give a wider one")
        return field
    if rays.limits is not None:
        return rays.limits
    centres = rays.centres if len(rays.centres) else np.zeros((1, 2))
    centre = centres.mean(axis=0)
    radius = SMALLEST + np.hypot(*(centres - centre).T).max()
    if source is not None:
        radius += math.hypot(source[0] - centre[0], source[1] - centre[1])
    number = 3 + max(0, math.ceil(math.log(LARGEST / radius) / math.log(RATIO)))
    radii = radius * RATIO ** np.arange(number)
    angle = np.arange(ANGLES) * (2 * math.pi / ANGLES)
    cos, sin = np.cos(angle), np.sin(angle)
    x, y = (centre[k] + np.outer(radii, c) for k, c in enumerate((cos, sin)))
    quiet = _quiet(rays, x, y, cos, sin, source)
    # The first circle from which all are quiet.
    first = number - int(np.argmin(quiet[::-1])) if not quiet.all() else 0
    half = float(radii[min(first, number - 1)])
    return float(centre[0]), float(centre[1]), half, half


def _quiet(
    rays: Rays, x: Array, y: Array, cos: Array, sin: Array, source: tuple[float, float] | None
) -> NDArray[np.bool_]:
    """Whether each circle, a row of x and y, is one beyond which nothing happens, as on the last one."""
    entries = [entry.reshape(x.shape) for entry in rays.jacobian(x.ravel(), y.ravel())]
    xx, xy, yx, yy = entries
    mean, determinant = (xx + yy) / 2, xx * yy - xy * yx
    kinds = np.where(determinant < 0, 0, np.where(mean > 0, 1, 2))
    # So far out that a model overflows, nothing is said.
    known = np.isfinite(determinant).all(axis=1)
    last = kinds[np.flatnonzero(known)[-1], 0] if known.any() else 1
    quiet: NDArray[np.bool_] = (kinds == last).all(axis=1) | ~known
    if source is not None:
        bx, by = (b.reshape(x.shape) for b in rays.trace(x.ravel(), y.ravel()))
        # Back in the image plane by the mean Jacobian, rays have to land outwards from the source.
        mxx, mxy, myx, myy = (entry.mean(axis=1, keepdims=True) for entry in entries)
        dx, dy = bx - source[0], by - source[1]
        along = (myy * dx - mxy * dy) * cos + (mxx * dy - myx * dx) * sin
        quiet &= (along * (mxx * myy - mxy * myx) > 0).all(axis=1) | ~known
    return quiet


def base_cells(rays: Rays, field: Limits) -> tuple[int, int]:
    """Number of cells along x and y."""
    longer = max(field[2:])
    number = BASE_CELLS
    if rays.cell is not None:
        number = min(max(number, math.ceil(longer / rays.cell)), MOST_BASE_CELLS)
    along_x, along_y = (max(2, math.ceil(number * half / longer)) for half in field[2:])
    return along_x, along_y


@dataclass
class Leaves:
    """Cells of a quadtree: integer coordinates of their lower corners, and sizes, in its finest unit."""

    x: Whole
    y: Whole
    size: Whole
    origin: tuple[float, float]
    unit: tuple[float, float]

    def place(self, ix: Whole, iy: Whole) -> tuple[Array, Array]:
        """Positions in arcsec of integer coordinates."""
        x, y = (
            o + unit * c.astype(np.float64)
            for o, unit, c in zip(self.origin, self.unit, (ix, iy), strict=True)
        )
        return x, y

    def take(self, chosen: Any) -> "Leaves":
        """Some of the leaves."""
        return self.made_of(self.x[chosen], self.y[chosen], self.size[chosen])

    def made_of(self, x: Whole, y: Whole, size: Whole) -> "Leaves":
        """Other leaves of the same tree."""
        return Leaves(x, y, size, self.origin, self.unit)

    def divided(self) -> "Leaves":
        """Four children of each."""
        half = self.size // 2
        x = np.concatenate((self.x, self.x + half, self.x, self.x + half))
        y = np.concatenate((self.y, self.y, self.y + half, self.y + half))
        return self.made_of(x, y, np.tile(half, 4))

    def with_others(self, other: "Leaves") -> "Leaves":
        """These and other leaves."""
        pairs = ((self.x, other.x), (self.y, other.y), (self.size, other.size))
        return self.made_of(*(np.concatenate(pair) for pair in pairs))


def graded_leaves(rays: Rays, field: Limits, depths: Array) -> Leaves:
    """Cells over a field, divided around each centre until they are smaller than its depth in arcsec."""
    x_c, y_c, half_x, half_y = field
    number = base_cells(rays, field)
    whole = 1 << (BITS - math.ceil(math.log2(max(number) + 1)))
    # What lies in the middle of the field, mostly a centre, is not to be a corner of cells: shift them.
    stretch = 1 - SHIFT if rays.limits else 1 + SHIFT
    unit = 2 * half_x * stretch / number[0] / whole, 2 * half_y * stretch / number[1] / whole
    ix, iy = (c.ravel() * whole for c in np.meshgrid(np.arange(number[0]), np.arange(number[1])))
    size = np.full(ix.shape, whole)
    active = Leaves(ix, iy, size, (x_c - half_x, y_c - half_y), unit)
    found = []
    while len(active.x):
        side = max(unit) * active.size
        x, y = active.place(active.x + active.size // 2, active.y + active.size // 2)
        away = np.maximum(np.abs(x[:, None] - rays.centres[:, 0]), np.abs(y[:, None] - rays.centres[:, 1]))
        coarse = (away < 1.5 * side[:, None]) & (side[:, None] > depths) & (active.size[:, None] > 2)
        divide = coarse.any(axis=1)
        found.append(active.take(~divide))
        active = active.take(divide).divided()
    leaves = found[0]
    for others in found[1:]:
        leaves = leaves.with_others(others)
    return leaves
