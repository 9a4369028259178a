"""Areas in the source plane: cuts of singular isothermal lenses, and where a source has how many images."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lenssr.exceptions import InputError
from lenssr.mass.critical import Curve, curves_of
from lenssr.mass.mesh import field_of
from lenssr.mass.point_images import image_positions
from lenssr.mass.rays import Array, Rays

__all__ = ["cross_section", "cuts"]

RADIUS = 1e-6
"""Radius in arcsec of the smallest of three circles around a centre from which its cut is extrapolated."""

CUT_POINTS = 2880
"""Points of a cut."""

ISOTHERMAL = 1e-7
"""Largest share of the deflection at a centre that changes otherwise than linearly with radius there."""

POINT = 1e-9
"""Size in arcsec below which a caustic is a point."""

# Lines on which the widths of areas are summed.
SCAN_LINES = 8192

Whole = NDArray[np.int64]


def cuts(rays: Rays) -> list[Array]:
    """Points (2, n) of the cut of each centre where the deflection jumps, counter-clockwise around it.

    On small circles around the centre of an isothermal lens rays land on one closed curve; around others on
    curves that shrink to a point, or grow without end.
    """
    angle = np.append(np.arange(CUT_POINTS), 0) * (2 * math.pi / CUT_POINTS)
    circle = np.stack((np.cos(angle), np.sin(angle)))
    found = []
    for centre in rays.centres:
        near, next_, far = (np.stack(rays.trace(*(centre[:, None] + n * RADIUS * circle))) for n in (1, 2, 4))
        limit = 2 * near - next_
        spread = np.hypot(*(limit - limit[:, :-1].mean(axis=1, keepdims=True))).max()
        bend = np.abs(far - 3 * next_ + 2 * near).max()
        if spread > 1e-9 and bend < ISOTHERMAL * spread + 1e-13:
            found.append(limit)
    return found


def cross_section(rays: Rays, least: int, extent: Any = None) -> float:
    """Area in arcsec2 of the source plane where a source has at least so many images.

    Inside a caustic there are two images more, inside a cut one. Winding numbers of all of them add up.
    """
    curves = curves_of(rays, extent)
    if not all(curve.closed for curve in curves):
        raise InputError("critical curves leave the field, so that areas are open: give a wider extent")
    weights, loops = [], []
    for curve in curves:
        loop = np.stack(rays.trace(curve.points[0], curve.points[1]))
        # That of a round lens is a point.
        if np.ptp(loop, axis=1).max() > POINT:
            weights.append(2 * _more_inside(rays, curve, loop))
            loops.append(loop)
    for loop in cuts(rays):
        turned = float(np.sum(loop[0, :-1] * loop[1, 1:] - loop[0, 1:] * loop[1, :-1]))
        weights.append(1 if turned > 0 else -1)
        loops.append(loop)
    far = _far_images(rays, loops, extent)
    if far >= least:
        return math.inf
    return _area(loops, weights, least - far) if loops else 0.0


def _far_images(rays: Rays, loops: list[Array], extent: Any) -> int:
    """Number of images of a source outside of all curves."""
    x_c, y_c, half_x, half_y = field_of(rays, extent)
    every = np.concatenate(loops, axis=1) if loops else np.array([[x_c], [y_c]])
    middle, reach = every.mean(axis=1), np.ptp(every, axis=1).max() or min(half_x, half_y)
    source = middle + 1.3 * reach * np.array([math.cos(1.0), math.sin(1.0)])
    return len(image_positions(rays, (source[0], source[1]), extent)[0])


def _more_inside(rays: Rays, curve: Curve, loop: Array) -> int:
    """1 if there are more images to the left of a caustic, in its direction, and -1 if to the right.

    Rays on both sides of a critical curve land on the same side of the caustic.
    """
    places = curve.points[:, 1:-1]
    xx, xy, yx, yy = rays.jacobian(places[0], places[1])
    # The direction that the Jacobian does not see.
    null = np.where(np.hypot(xx, xy) > np.hypot(yx, yy), (-xy, xx), (-yy, yx))
    chord = np.hypot(*np.diff(curve.points, axis=1))
    step = null / np.hypot(*null) * np.minimum(chord[1:], chord[:-1])
    (bx, by), (cx, cy) = (rays.trace(*(places + sign * step)) for sign in (1, -1))
    tangent = loop[:, 2:] - loop[:, :-2]
    inwards = (bx + cx) / 2 - loop[0, 1:-1], (by + cy) / 2 - loop[1, 1:-1]
    return 1 if np.sum(tangent[0] * inwards[1] - tangent[1] * inwards[0]) > 0 else -1


def _area(loops: list[Array], weights: list[int], more: int) -> float:
    """Area in which the sum of weighted winding numbers of closed loops is at least ``more``."""
    x_1, y_1, x_2, y_2 = (
        np.concatenate([loop[k, part] for loop in loops])
        for part in (slice(None, -1), slice(1, None))
        for k in (0, 1)
    )
    weight = np.concatenate([np.full(loop.shape[1] - 1, w) for loop, w in zip(loops, weights, strict=True)])
    # Lines are denser towards the ends, where widths change as square roots.
    angle = (np.arange(SCAN_LINES) + 0.5) * (math.pi / SCAN_LINES) - math.pi / 2
    low, high = y_1.min(), y_1.max()
    lines = (low + high) / 2 + (high - low) / 2 * np.sin(angle)
    first, last = (np.searchsorted(lines, end(y_1, y_2)) for end in (np.minimum, np.maximum))
    count = last - first
    edge = np.repeat(np.arange(len(count)), count)
    line = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    share = (lines[line] - y_1[edge]) / (y_2 - y_1)[edge]
    x = x_1[edge] + share * (x_2 - x_1)[edge]
    # A loop counter-clockwise goes down at its left: there its winding number rises by one.
    rise = np.where(y_2 < y_1, weight, -weight)[edge]
    order = np.lexsort((x, line))
    x, line, total = x[order], line[order], np.cumsum(rise[order])
    inside = (total[:-1] >= more) & (line[1:] == line[:-1])
    widths = np.where(inside, np.diff(x), 0.0)
    return float(np.sum(widths * np.cos(angle)[line[:-1]]) * (high - low) / 2 * math.pi / SCAN_LINES)
