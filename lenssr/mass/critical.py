"""Critical curves and caustics of any lens, found on a quadtree and exact to rounding."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lenssr.exceptions import InputError
from lenssr.mass.mesh import INNERMOST, base_cells, field_of, graded_leaves
from lenssr.mass.rays import Array, Limits, Rays, rays_of
from lenssr.mass.zero_lines import zero_lines

__all__ = ["Curve", "curves_of", "einstein_radius", "einstein_radius_gradient"]

Curves: TypeAlias = list[tuple[Array, Array]]

CURVE_KINDS = ("all", "tangential", "radial")

SAGITTA = 1e-6
"""Distance of a curve from its chords, in units of the largest curve's radius."""

OWN = 3.0
"""How much larger this distance may be in units of a curve's own radius."""

MOST_CHORDS = 200
"""Chords of a piece of a curve between two points of a spline, at most."""

FIRST_CHORDS = 3
"""Chords of each of these pieces at first."""

SHORT = 0.2
"""Chord, in units of those beside it, below which its end is left out."""

# Half a step of central differences, in units of parameters and in Einstein radii.
SMALL = 1e-6
# Angles of the rings on which signs around a centre are looked at.
RING_ANGLES = 16
# Secant steps towards a curve, length of the first and way at most, in units of a chord, and the error
# in arcsec at which they end.
SECANTS, FIRST_STEP, REACH, CLOSE = 8, 1e-5, 2.0, 1e-12


@dataclass(frozen=True)
class Curve:
    """A critical curve: its kind, and points (2, n) in arcsec; a closed one ends where it begins."""

    kind: str
    points: Array

    @property
    def closed(self) -> bool:
        """Whether it ends where it begins."""
        return bool((self.points[:, 0] == self.points[:, -1]).all())


class _Levels:
    """Functions whose zero lines are critical curves, mapped to (-1, 1) without their poles."""

    def __init__(self, rays: Rays, kind: str) -> None:
        self.rays = rays
        self.kinds = CURVE_KINDS[1:] if kind == "all" else (kind,)
        if not rays.symmetric:
            self.kinds = ("all",)

    def all_at(self, x: Array, y: Array) -> list[Array]:
        """Values (n,) of each function."""
        if not self.rays.symmetric:
            value = self.rays.smallest(x, y)
            return [value / (1 + np.abs(value))]
        pair = dict(zip(CURVE_KINDS[1:], self.rays.eigenvalues(x, y), strict=True))
        return [pair[kind] / (1 + np.abs(pair[kind])) for kind in self.kinds]

    def at(self, places: Array, which: NDArray[np.intp]) -> Array:
        """Values (n,) at places (2, n) of the function with the number ``which`` (n,)."""
        values = self.all_at(places[0], places[1])
        return values[0] if len(values) == 1 else np.where(which == 0, values[0], values[1])


def curves_of(rays: Rays, extent: Any = None, *, kind: str = "all") -> list[Curve]:
    """All critical curves of a kind, tangential ones first."""
    if kind not in CURVE_KINDS:
        raise InputError(f"kind = {kind!r} is refused: give one of {', '.join(CURVE_KINDS)}")
    field, levels = field_of(rays, extent), _Levels(rays, kind)
    leaves = graded_leaves(rays, field, _depths(rays, field, levels))
    lines = [(which, line) for which, line in zero_lines(levels, leaves) if not _artefact(rays, line)]
    refined = [(which, points) for which, points in _refined(levels, lines) if points.shape[1] > 2]
    curves = [Curve(levels.kinds[which], points) for which, points in refined]
    if not rays.symmetric:
        curves = [Curve(_kind(rays, curve.points), curve.points) for curve in curves]
        curves = [curve for curve in curves if kind in ("all", curve.kind)]
    return sorted(curves, key=lambda curve: CURVE_KINDS.index(curve.kind))


def _depths(rays: Rays, field: Limits, levels: _Levels) -> Array:
    """Size of cells in arcsec down to which a quadtree is divided towards each centre.

    On rings around a centre it is where the signs of a function are not all those of the innermost ring.
    """
    if not len(rays.centres):
        return np.zeros(0)
    cell = 2 * max(field[2:]) / max(base_cells(rays, field))
    radii = np.exp2(np.arange(math.log2(2 * INNERMOST), math.log2(2 * cell), 1.0))
    angle = 0.1 + np.arange(RING_ANGLES) * (2 * math.pi / RING_ANGLES)
    ring = np.outer(radii, np.cos(angle)), np.outer(radii, np.sin(angle))
    x, y = (rays.centres[:, k, None, None] + ring[k] for k in (0, 1))
    if rays.limits is not None:
        x_c, y_c, half_x, half_y = rays.limits
        x, y = np.clip(x, x_c - half_x, x_c + half_x), np.clip(y, y_c - half_y, y_c + half_y)
    same = np.ones(x.shape[:2], dtype=bool)
    for values in levels.all_at(x.ravel(), y.ravel()):
        sign = values.reshape(x.shape) > 0
        same &= (sign == sign[:, :1, :1]).all(axis=-1)
    calm = np.where(same.all(axis=1), len(radii) - 1, np.argmin(same, axis=1))
    return np.maximum(radii[calm] / 4, INNERMOST / 2)


def _artefact(rays: Rays, line: Array) -> bool:
    """Whether a line only surrounds the capped centre of a singular lens."""
    return bool(np.ptp(line, axis=1).max() < 6 * INNERMOST)


def _kind(rays: Rays, points: Array) -> str:
    """Kind of a curve where eigenvalues may be complex: the other one of them is positive, or negative."""
    xx, _, _, yy = rays.jacobian(points[0], points[1])
    return "tangential" if np.mean(xx + yy > 0) > 0.5 else "radial"


def _refined(levels: _Levels, lines: list[tuple[int, Array]]) -> list[tuple[int, Array]]:
    """Lines with points so close that chords are exact, and all of them moved onto the curve.

    The second time they start from points that are exact, and so near to it that a step or two are enough.
    """
    sizes = [np.ptp(line, axis=1).max() / 2 for _, line in lines]
    sagittas = [SAGITTA * min(max(sizes), OWN * size) for size in sizes]
    lines = _moved(levels, lines, sagittas, FIRST_CHORDS)
    return _moved(levels, lines, sagittas, None)


def _moved(
    levels: _Levels, lines: list[tuple[int, Array]], sagittas: list[float], chords: int | None
) -> list[tuple[int, Array]]:
    """Points of splines through lines, moved onto the curve; pieces have so many chords, or as needed."""
    if not lines:
        return []
    denser = [_denser(line, sagitta, chords) for (_, line), sagitta in zip(lines, sagittas, strict=True)]
    which = np.concatenate([np.full(points.shape[1], lines[k][0]) for k, (points, _) in enumerate(denser)])
    points = np.concatenate([points for points, _ in denser], axis=1)
    steps = np.concatenate([steps for _, steps in denser], axis=1)
    points, good = _onto(levels, points, steps, which)
    found, start = [], 0
    for (number, line), (old, _) in zip(lines, denser, strict=True):
        part = slice(start, start + old.shape[1])
        start += old.shape[1]
        kept = points[:, part][:, good[part]]
        if (line[:, 0] == line[:, -1]).all():
            kept = np.concatenate((kept, kept[:, :1]), axis=1)
        found.append((number, kept))
    return found


def _denser(line: Array, sagitta: float, number: int | None) -> tuple[Array, Array]:
    """Points (2, n) of a spline through a line, and the chords there; a closed one is not repeated."""
    closed = bool((line[:, 0] == line[:, -1]).all())
    kept = _apart(line)
    length = np.append(0, np.cumsum(np.hypot(*np.diff(kept, axis=1))))
    if closed and kept.shape[1] < 4 or kept.shape[1] < 3:
        return line[:, : -1 if closed else None], np.ones_like(line[:, : -1 if closed else None])
    spline = _spline(length, kept, closed)
    gap = np.diff(length)
    chords = _chords(spline(length, 2), gap, sagitta) if number is None else np.full(len(gap), number)
    first = np.repeat(np.cumsum(chords) - chords, chords)
    share = (np.arange(chords.sum()) - first) / np.repeat(chords, chords)
    where = np.repeat(length[:-1], chords) + share * np.repeat(gap, chords)
    if not closed:
        where = np.append(where, length[-1])
    steps = spline(where, 1) * np.resize(np.append(np.repeat(gap / chords, chords), gap[-1]), len(where))
    return spline(where), steps


def _chords(bend: Array, gap: Array, sagitta: float) -> NDArray[np.intp]:
    """Number of chords of pieces of a spline, whose second derivatives (2, n + 1) are at their ends."""
    bent = np.hypot(*bend)
    needed = np.ceil(gap * np.sqrt(np.maximum(bent[1:], bent[:-1]) / (8 * sagitta)))
    return np.clip(needed, 1, MOST_CHORDS).astype(np.intp)


def _apart(line: Array) -> Array:
    """The points of a line without those that are much closer to the one before than others nearby are."""
    chord = np.hypot(*np.diff(line, axis=1))
    nearby = np.minimum(np.roll(chord, 1), np.roll(chord, -1))
    keep = np.append(True, chord > SHORT * nearby)
    kept = line[:, keep]
    kept[:, -1] = line[:, -1]
    return kept


def _onto(
    levels: _Levels, points: Array, steps: Array, which: NDArray[np.intp]
) -> tuple[Array, NDArray[np.bool_]]:
    """Points moved onto the curve across their chords by the secant method, and which of them got there.

    The error after a step is at most about the product of it and the one before, in units of chords.
    """
    across = np.stack((-steps[1], steps[0]))
    size = np.hypot(*across)
    place, last = np.full(len(size), FIRST_STEP), np.full(len(size), FIRST_STEP)
    old = levels.at(points, which)
    good = np.zeros(len(size), dtype=bool)
    left = np.arange(len(size))
    for _ in range(SECANTS):
        moved = points[:, left] + place[left] * across[:, left]
        new = levels.at(moved, which[left])
        slope = new - old
        step = np.where(slope == 0, 0.0, -new * last[left] / np.where(slope == 0, 1.0, slope))
        step = np.clip(place[left] + step, -REACH, REACH) - place[left]
        error = np.abs(step) * np.minimum(np.abs(last[left]) + np.abs(step), 1) * size[left]
        place[left] += step
        last[left] = step
        good[left] = (error < 1e-9) & (np.abs(place[left]) < REACH)
        missing = (error >= CLOSE) & (step != 0)
        left, old = left[missing], new[missing]
        if not len(left):
            break
    return points + place * across, good


def _spline(length: Array, points: Array, closed: bool) -> Any:
    """Cubic spline through points (2, n) at lengths along their line."""
    from scipy.interpolate import CubicSpline  # it imports much of scipy

    return CubicSpline(length, points, axis=1, bc_type="periodic" if closed else "not-a-knot")


# ---------------------------------------------------------------- areas


def nodes(points: Array) -> tuple[Array, Array]:
    """Positions (2, n) along a closed smooth curve, and steps (2, n) for integrals, by a periodic spline."""
    points = _apart(points)
    if points.shape[1] < 5:
        return np.zeros((2, 0)), np.zeros((2, 0))
    length = np.append(0, np.cumsum(np.hypot(*np.diff(points, axis=1))))
    spline = _spline(length, points, closed=True)
    places, weights = np.polynomial.legendre.leggauss(4)
    half = np.diff(length)[:, None] / 2
    where = (length[:-1, None] + half * (1 + places)).ravel()
    return spline(where), spline(where, 1) * (half * weights).ravel()


def area_of(places: Array, steps: Array) -> float:
    """Area inside a closed curve, of its nodes."""
    (px, py), (dx, dy) = places, steps
    return float(abs(np.sum(px * dy - py * dx) / 2))


def caustic_nodes(rays: Rays, curve: Curve) -> tuple[Array, Array]:
    """Nodes of a closed caustic, by those of its critical curve, which has no cusps."""
    places, (dx, dy) = nodes(curve.points)
    xx, xy, yx, yy = rays.jacobian(places[0], places[1])
    return np.stack(rays.trace(places[0], places[1])), np.stack((xx * dx + xy * dy, yx * dx + yy * dy))


# ---------------------------------------------------------------- the Einstein radius


def einstein_radius(lens: Any, extent: Any = None) -> float:
    """Effective Einstein radius in arcsec, see `lenssr.mass.MassModel.einstein_radius`."""
    return math.sqrt(area_of(*_einstein_curve(lens, extent)) / math.pi)


def einstein_radius_gradient(lens: Any) -> tuple[float, Array]:
    """Effective Einstein radius in arcsec, and its derivatives (P,) by the parameters, in their units.

    The curve is where the tangential eigenvalue v vanishes. When a parameter p moves it, the area inside
    changes by the integral of -(dv/dp) / |grad v| along it.
    """
    places, steps = _einstein_curve(lens, None)
    radius = math.sqrt(area_of(places, steps) / math.pi)
    values = lens.vector.numpy()

    def eigenvalue(model: Any, at: Array) -> Array:
        return rays_of(model).eigenvalues(at[0], at[1])[0]

    def across(step: Array) -> Array:
        return eigenvalue(lens, places + step) - eigenvalue(lens, places - step)

    def move(step: Array) -> Array:
        high, low = (lens.with_vector(values + sign * step) for sign in (1, -1))
        return eigenvalue(high, places) - eigenvalue(low, places)

    # The factors 2 of central differences cancel in the ratio.
    gradient = [across(axis * radius) / radius for axis in SMALL * np.eye(2)[..., None]]
    weights = np.hypot(*steps) / np.hypot(*gradient)
    area_slopes = [-np.sum(move(step) * weights) for step in SMALL * np.eye(len(values))]
    return radius, np.array(area_slopes) / (2 * math.pi * radius)


def _einstein_curve(lens: Any, extent: Any) -> tuple[Array, Array]:
    """Nodes of the closed tangential critical curve that is largest by area."""
    curves: Sequence[Curve] = curves_of(rays_of(lens), extent, kind="tangential")
    closed = [nodes(curve.points) for curve in curves if curve.closed]
    if not any(places.size for places, _ in closed):
        raise InputError(f"{lens!r} has no closed tangential critical curve, so no Einstein radius")
    return max(closed, key=lambda pair: area_of(*pair))
