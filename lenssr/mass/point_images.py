"""Images of a point source: cells that may hold one are divided until the map of each is nearly linear."""

import math
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lenssr.exceptions import InputError
from lenssr.mass.critical import Curve, area_of, curves_of, nodes
from lenssr.mass.mesh import INNERMOST, base_cells, field_of, graded_leaves
from lenssr.mass.rays import Array, Limits, Rays

__all__ = ["image_positions", "seen_centres"]

Point: TypeAlias = tuple[float, float]

DISC = 2.5
"""Radius in base cells of the disc around a centre where cells are polar, and so fit singular lenses."""

NEIGHBOUR = 0.45
"""Largest radius of a disc in distances to the next centre."""

SECTORS, RING_RATIO = 12, 1.8
"""Polar cells around a centre, and ratio of the radii of their rings."""

MARGIN = 1.5
"""How much further a cell may reach in the source plane than its second derivatives say."""

LINEAR = 0.6
"""Change of the Jacobian over a cell, in units of itself, below which it holds one image at most."""

DIVISIONS = 4
"""A cell is divided into 4 x 4."""

SMALLEST_CELL = 1e-8
"""Size in arcsec of cells that are not divided further."""

RING_CELLS, MOST_CELLS = 2500, 100_000
"""Cells at once from which a ring is suspected, and from which the search is given up."""

RING = 3e-9
"""Distance in arcsec of the source from a caustic that is a point, below which its image is a ring."""

NEARLY_RING = 1e-6
"""The same in sizes of the critical curve, below which images are looked for along the curve."""

SAME = 1e-7
"""Distance in arcsec below which two positions of one parity are one image."""

FAINTEST = 1e-12
"""Magnification below which a position is one of the capped centre of a singular lens."""

SOLVED = 1e-10
"""Largest distance in arcsec between the source and where an image maps to."""

CONVERGED = 1e-13
"""Error in arcsec of a position at which Newton's method ends."""

NEWTON_STEPS = 30

# Corners of a cell in turn, and lower corners of its parts, in units of its sides.
CORNERS = np.array([[0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
PARTS = np.stack(np.meshgrid(*2 * [np.arange(DIVISIONS) / DIVISIONS])).reshape(2, -1)


@dataclass
class Cells:
    """Cells in coordinates a, b of their own: x and y from (x_0, y_0), or ln(r) and the angle around it."""

    x_0: Array
    y_0: Array
    polar: NDArray[np.bool_]
    a: Array
    b: Array
    side_a: Array
    side_b: Array

    def take(self, chosen: Any) -> "Cells":
        """Some of the cells."""
        return Cells(*(getattr(self, part.name)[chosen] for part in fields(self)))

    def divided(self) -> "Cells":
        """The parts of each."""
        a, b = ((low[:, None] + side[:, None] * part).ravel() for low, side, part in self._sides())
        many = self.take(np.repeat(np.arange(len(self.a)), PARTS.shape[1]))
        sides = many.side_a / DIVISIONS, many.side_b / DIVISIONS
        return Cells(many.x_0, many.y_0, many.polar, a, b, *sides)

    def _sides(self) -> list[tuple[Array, Array, Array]]:
        return [(self.a, self.side_a, PARTS[0]), (self.b, self.side_b, PARTS[1])]

    def place(self, a: Array, b: Array) -> tuple[Array, Array, Array]:
        """Positions x, y of coordinates (n, ...), and the radius where they are polar."""
        shape = (-1,) + (1,) * (a.ndim - 1)
        x_0, y_0, polar = self.x_0.reshape(shape), self.y_0.reshape(shape), self.polar.reshape(shape)
        radius = np.exp(np.where(polar, a, 0.0))
        x = x_0 + np.where(polar, radius * np.cos(b), a)
        return x, y_0 + np.where(polar, radius * np.sin(b), b), radius

    def map(self, rays: Rays, a: Array, b: Array) -> tuple[Array, Array]:
        """Where coordinates (n, k) land, (2, n, k), and derivatives of that by a and b, (2, 2, n, k)."""
        x, y, _ = self.place(a, b)
        landed, entries = rays.all_at(x.ravel(), y.ravel())
        xx, xy, yx, yy = (entry.reshape(x.shape) for entry in entries)
        polar = self.polar[:, None]
        dx, dy = x - self.x_0[:, None], y - self.y_0[:, None]
        along = np.where(polar, dx, 1.0), np.where(polar, dy, 0.0)
        across = np.where(polar, -dy, 0.0), np.where(polar, dx, 1.0)
        columns = [(xx * v + xy * w, yx * v + yy * w) for v, w in (along, across)]
        return np.stack(landed).reshape(2, *x.shape), np.array(columns)

    @property
    def middle(self) -> tuple[Array, Array]:
        """Coordinates of the middles."""
        return self.a + self.side_a / 2, self.b + self.side_b / 2

    @property
    def size(self) -> Array:
        """Longest side in arcsec."""
        sides = np.maximum(self.side_a, self.side_b)
        return np.where(self.polar, np.exp(np.where(self.polar, self.a + self.side_a, 0.0)), 1.0) * sides


def image_positions(rays: Rays, source: Point, extent: Any = None) -> tuple[Array, Array]:
    """Images of a point source, brightest first, see `lenssr.mass.MassModel.image_positions`."""
    field = field_of(rays, extent, source)
    cells = _first_cells(rays, field)
    guesses: list[tuple[Cells, Array]] = []
    ring_possible = True
    while len(cells.a):
        kept, linear, start = _examined(rays, cells, source)
        guesses.append((cells.take(kept[linear]), start[:, linear]))
        cells = cells.take(kept[~linear])
        small = cells.size < SMALLEST_CELL
        guesses.append((cells.take(small), np.full((2, int(small.sum())), 0.5)))
        # A cell of a centre that is not nearly linear is singular.
        cells = cells.take(~small & (cells.size > 4 * INNERMOST))
        if len(cells.a) > RING_CELLS and ring_possible:
            cells, on_rings = _without_rings(rays, source, extent, cells)
            guesses += on_rings
            ring_possible = False
        if len(cells.a) > MOST_CELLS:
            raise InputError(f"source position {source} has images all over the field: move it")
        cells = cells.divided()
    x, y = _polished(rays, source, guesses, field)
    return _distinct(rays, x, y, field)


def seen_centres(front: Rays, centres: list[Point]) -> list[Point]:
    """Where centres of lenses behind others are seen; those that are seen as rings are left out."""
    seen: list[Point] = []
    for centre in centres:
        try:
            seen += zip(*(c.tolist() for c in image_positions(front, centre)), strict=True)
        except InputError:
            continue
    return seen


def _first_cells(rays: Rays, field: Limits) -> Cells:
    """Squares over the field without discs around centres, polar cells in those, and innermost squares."""
    size = 2 * max(field[2:]) / max(base_cells(rays, field))
    centres = rays.centres
    apart = np.hypot(*(centres[:, None] - centres[None]).transpose(2, 0, 1)) + np.diag(
        np.full(len(centres), np.inf)
    )
    discs = np.minimum(DISC * size, NEIGHBOUR * apart.min(axis=1, initial=np.inf))
    leaves = graded_leaves(rays, field, discs / DISC * 1.001)
    x, y = leaves.place(leaves.x, leaves.y)
    side_x, side_y = (leaves.size * unit for unit in leaves.unit)
    if len(centres):
        far = [
            np.maximum(np.abs(low[:, None] - c), np.abs(low[:, None] + side[:, None] - c))
            for low, side, c in zip((x, y), (side_x, side_y), centres.T, strict=True)
        ]
        outside = (np.hypot(*far) > discs).all(axis=1)
        x, y, side_x, side_y = x[outside], y[outside], side_x[outside], side_y[outside]
    zero = np.zeros(len(x))
    parts: list[tuple[NDArray[Any], ...]] = [(zero, zero, zero > 0, x, y, side_x, side_y)]
    for (x_0, y_0), disc in zip(centres, discs, strict=True):
        number = max(1, math.ceil(math.log(disc / INNERMOST) / math.log(RING_RATIO)))
        step, sector = math.log(disc / INNERMOST) / number, 2 * math.pi / SECTORS
        a, b = np.meshgrid(math.log(INNERMOST) + step * np.arange(number), sector * np.arange(SECTORS))
        one = np.ones(a.size)
        parts.append((x_0 * one, y_0 * one, one > 0, a.ravel(), b.ravel(), step * one, sector * one))
        square = np.array([x_0 - INNERMOST]), np.array([y_0 - INNERMOST]), *2 * [np.array([2 * INNERMOST])]
        parts.append((np.zeros(1), np.zeros(1), np.zeros(1, dtype=bool), *square))
    return Cells(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _examined(rays: Rays, cells: Cells, source: Point) -> tuple[NDArray[np.intp], NDArray[np.bool_], Array]:
    """Cells that may hold an image, which of them are nearly linear, and where in these (2, n) it is.

    The image of a cell lies in the hull of the images of its corners, widened by what second derivatives add
    between them; both are looked at along and across the image's longest side.
    """
    a = cells.a[:, None] + cells.side_a[:, None] * CORNERS[0]
    b = cells.b[:, None] + cells.side_b[:, None] * CORNERS[1]
    landed, (by_a, by_b) = cells.map(rays, a, b)
    offset = landed - np.array(source)[:, None, None]
    by_a, by_b = by_a * cells.side_a[:, None], by_b * cells.side_b[:, None]
    mean_a, mean_b = by_a.mean(axis=2), by_b.mean(axis=2)
    if (np.hypot(*(by_a**2 + by_b**2)) < 1e-24 * cells.size[:, None] ** 2).all():
        raise InputError(f"source position {source} has images all over the field: move it")
    change_a, change_b = by_a - mean_a[..., None], by_b - mean_b[..., None]
    sides = np.roll(landed, -1, axis=2) - landed
    lengths = np.hypot(*sides)
    longest = np.arange(len(lengths)), lengths.argmax(axis=1)
    tx, ty = sides[:, *longest] / np.maximum(lengths[longest], 1e-300)
    possible = np.ones(len(tx), dtype=bool)
    for ux, uy in ((tx[:, None], ty[:, None]), (-ty[:, None], tx[:, None])):
        shadow = ux * offset[0] + uy * offset[1]
        spread = sum(np.abs(ux * c[0] + uy * c[1]).max(axis=1) for c in (change_a, change_b))
        margin = MARGIN / 4 * spread + 1e-12
        possible &= (shadow.min(axis=1) <= margin) & (shadow.max(axis=1) >= -margin)
    kept = np.flatnonzero(possible)
    mean_a, mean_b, change_a, change_b = (c[:, kept] for c in (mean_a, mean_b, change_a, change_b))
    offset = offset[:, kept].mean(axis=2)
    determinant = mean_a[0] * mean_b[1] - mean_a[1] * mean_b[0]
    determinant = np.where(np.abs(determinant) < 1e-300, 1e-300, determinant)
    square = np.zeros(change_a.shape[1:])
    for change in (change_a, change_b):
        for mean in (mean_a, mean_b):
            square += (
                (change[0] * mean[1][:, None] - change[1] * mean[0][:, None]) / determinant[:, None]
            ) ** 2
    linear = square.max(axis=1, initial=0.0) < LINEAR**2
    linear &= np.abs(determinant) > 1e-12 * ((mean_a**2).sum(axis=0) + (mean_b**2).sum(axis=0)) + 1e-200
    start = np.stack(
        (
            0.5 - (offset[0] * mean_b[1] - offset[1] * mean_b[0]) / determinant,
            0.5 - (mean_a[0] * offset[1] - mean_a[1] * offset[0]) / determinant,
        )
    )
    # The image of a nearly linear cell is near where the linear map has it.
    inside = (np.abs(start - 0.5) < 1.25).all(axis=0)
    chosen = inside | ~linear
    return kept[chosen], linear[chosen], np.clip(start[:, chosen], -0.25, 1.25)


def _polished(
    rays: Rays, source: Point, guesses: list[tuple[Cells, Array]], field: Limits
) -> tuple[Array, Array]:
    """Converged positions of Newton's method from a guess in each cell, in its coordinates."""
    cells = Cells(*(np.concatenate([getattr(part, f.name) for part, _ in guesses]) for f in fields(Cells)))
    share = np.concatenate([start for _, start in guesses], axis=1)
    if not share.size:
        return np.zeros(0), np.zeros(0)
    a, b = cells.a + share[0] * cells.side_a, cells.b + share[1] * cells.side_b
    for _ in range(NEWTON_STEPS):
        landed, ((ax, ay), (bx, by)) = (part[..., 0] for part in cells.map(rays, a[:, None], b[:, None]))
        rx, ry = source[0] - landed[0], source[1] - landed[1]
        determinant = ax * by - ay * bx
        determinant = np.where(np.abs(determinant) < 1e-300, 1e-300, determinant)
        step_a, step_b = (rx * by - ry * bx) / determinant, (ax * ry - ay * rx) / determinant
        length = np.maximum(np.abs(step_a) / cells.side_a, np.abs(step_b) / cells.side_b)
        shorten = 1 / np.maximum(length, 1)
        a, b = _within(cells, a + shorten * step_a, b + shorten * step_b, field)
        if (length * cells.size < CONVERGED).all():
            break
    x, y, _ = cells.place(a, b)
    landed = np.stack(rays.trace(x, y))
    good = np.hypot(landed[0] - source[0], landed[1] - source[1]) < SOLVED
    return x[good], y[good]


def _within(cells: Cells, a: Array, b: Array, field: Limits) -> tuple[Array, Array]:
    """Coordinates, those of squares kept inside the field."""
    x_c, y_c, half_x, half_y = field
    inside_a = np.clip(a, x_c - half_x, x_c + half_x)
    return np.where(cells.polar, a, inside_a), np.where(
        cells.polar, b, np.clip(b, y_c - half_y, y_c + half_y)
    )


def _distinct(rays: Rays, x: Array, y: Array, field: Limits) -> tuple[Array, Array]:
    """Images inside the field, each once, brightest first."""
    x_c, y_c, half_x, half_y = field
    inside = (np.abs(x - x_c) <= half_x * (1 + 1e-12)) & (np.abs(y - y_c) <= half_y * (1 + 1e-12))
    x, y = x[inside], y[inside]
    determinant = rays.determinant(x, y) if len(x) else np.zeros(0)
    with np.errstate(divide="ignore"):
        magnification = 1 / np.abs(determinant)
        # Of two that are as bright, but for rounding, the one of positive parity arrives first.
        brightness = np.round(np.log(magnification), 6)
    chosen: list[int] = []
    for k in np.lexsort((determinant < 0, -brightness)):
        same = (
            math.hypot(x[k] - x[j], y[k] - y[j]) < SAME and (determinant[k] > 0) == (determinant[j] > 0)
            for j in chosen
        )
        if magnification[k] > FAINTEST and not any(same):
            chosen.append(int(k))
    return x[chosen], y[chosen]


def _without_rings(
    rays: Rays, source: Point, extent: Any, cells: Cells
) -> tuple[Cells, list[tuple[Cells, Array]]]:
    """Cells away from critical curves that nearly map to the source, and guesses of the images on these.

    If a whole curve maps to it, its image is a ring, which is refused. If the curve maps to a point nearby,
    or to a tiny caustic, images are where rays from the curve miss the source neither to one side nor to the
    other.
    """
    guesses = []
    for curve in curves_of(rays, extent):
        landed = np.stack(rays.trace(curve.points[0], curve.points[1]))
        off = np.array(source)[:, None] - landed
        reach = np.hypot(*off).max()
        if reach < RING:
            _refuse_ring(source, curve)
        if reach < NEARLY_RING * np.ptp(curve.points, axis=1).max():
            from scipy.spatial import cKDTree

            distance, _ = cKDTree(curve.points.T).query(np.stack(cells.place(*cells.middle)[:2]).T)
            cells = cells.take(distance > 2 * cells.size + 10 * reach)
            guesses.append(_ring_guesses(rays, curve, off))
    return cells, guesses


def _ring_guesses(rays: Rays, curve: Curve, off: Array) -> tuple[Cells, Array]:
    """Guesses of images near a critical curve whose rays miss the source by ``off``, (2, n)."""
    along = np.gradient(curve.points, axis=1)
    aside = (along * off).sum(axis=0)
    k = np.flatnonzero((aside[:-1] >= 0) != (aside[1:] >= 0))
    share = aside[k] / (aside[k] - aside[k + 1])
    places, miss = (part[:, k] + share * (part[:, k + 1] - part[:, k]) for part in (curve.points, off))
    entries = np.stack(rays.jacobian(places[0], places[1]), axis=-1).reshape(-1, 2, 2)
    # Across the curve, as the Jacobian is singular along it.
    x, y = places + (np.linalg.pinv(entries, rcond=1e-3) @ miss.T[..., None])[..., 0].T
    side = np.full(len(x), 1e-3 * np.ptp(curve.points, axis=1).max())
    zero = np.zeros(len(x))
    cells = Cells(zero, zero, zero > 0, x - side / 2, y - side / 2, side, side)
    return cells, np.full((2, len(x)), 0.5)


def _refuse_ring(source: Point, curve: Curve) -> None:
    """Refuse a source whose image is a whole critical curve."""
    places, steps = nodes(curve.points)
    weights = np.hypot(*steps)
    middle = ((places * weights).sum(axis=1) / weights.sum()).round(9) + 0.0
    radius = math.sqrt(area_of(places, steps) / math.pi)
    raise InputError(
        f"source position {source} is refused: its image is a ring of radius {radius:.9g} arcsec "
        f"around ({middle[0]:.6g}, {middle[1]:.6g}); take critical_curves(), or move the source"
    )
