"""Critical curves, caustics, Einstein radius and images of a point, for any mass model."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import astropy.units as u
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from lenssr.exceptions import InputError
from lenssr.units import strip_unit

__all__ = ["caustics", "critical_curves", "einstein_radius", "image_positions"]

Array: TypeAlias = NDArray[np.float64]
Point: TypeAlias = tuple[float, float]
Curves: TypeAlias = list[tuple[Array, Array]]

GRID_CELLS = 200
"""Cells along a side of the grids for the search of curves and images."""

CELL_DIVISIONS = 4
"""Number of divisions of a cell, each into 4 x 4, in the search for images."""

# Bisections that refine a point of a curve, and largest half-width of a field in arcsec.
BISECTIONS = 50
# Half a step of central differences, in units of parameters and in Einstein radii.
SMALL = 1e-6
MAX_RADIUS = 1e4
# Corners of a cell in turn, along x and y.
CORNERS = np.array([[0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 1.0, 1.0]])[..., None]
CURVE_KINDS = ("all", "tangential", "radial")


def _jacobian(lens: Any, x: Array, y: Array) -> tuple[Array, Array, Array]:
    """Entries xx, xy, yy of the Jacobian of the lens equation."""
    jacobian = lens.jacobian(x, y)
    return jacobian[..., 0, 0], jacobian[..., 0, 1], jacobian[..., 1, 1]


def _eigenvalue(lens: Any, x: Array, y: Array, kind: str) -> Array:
    """Tangential (smaller) or radial eigenvalue of the Jacobian, mapped to (-1, 1) without its poles."""
    xx, xy, yy = _jacobian(lens, x, y)
    shear = np.hypot((xx - yy) / 2, xy)
    value = (xx + yy) / 2 + (shear if kind == "radial" else -shear)
    return value / (1 + np.abs(value))


def _source_position(lens: Any, x: Array, y: Array) -> tuple[Array, Array]:
    ax, ay = lens.deflection(x, y)
    return x - ax, y - ay


def _field(lens: Any, extent: Any, source: Point | None = None) -> tuple[float, float, float]:
    """Centre and half-width in arcsec of the square that holds all critical curves and images.

    Without an extent it grows until, on circles from there outward, the tangential eigenvalue is positive
    and, if there is a source, positions map outside of it.
    """
    if extent is not None:
        half = float(strip_unit(extent, u.arcsec, "extent"))
        if not 0 < half < math.inf:
            raise InputError(f"extent = {extent} is refused: give the half-width in arcsec, above 0")
        return 0.0, 0.0, half
    if lens._field is not None:
        return lens._field
    centres = np.array(lens._centres() or [(0.0, 0.0)])
    centre = centres.mean(axis=0)
    radius = 0.05 + np.hypot(*(centres - centre).T).max()
    if source is not None:
        radius += math.hypot(source[0] - centre[0], source[1] - centre[1])
    angle = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    cos, sin = np.cos(angle), np.sin(angle)
    calm = 0
    while calm < 3 and radius < MAX_RADIUS:
        x, y = centre[0] + radius * cos, centre[1] + radius * sin
        quiet = (_eigenvalue(lens, x, y, "tangential") > 0).all()
        if source is not None:
            bx, by = _source_position(lens, x, y)
            quiet &= ((bx - source[0]) * cos + (by - source[1]) * sin > 0).all()
        calm = calm + 1 if quiet else 0
        radius *= 1.25
    # The last three circles were outside: take the first of them.
    return centre[0], centre[1], radius / 1.25**2


def critical_curves(lens: Any, extent: Any = None, *, kind: str = "all") -> Curves:
    """Critical curves as a list of (x, y), see `lenssr.mass.MassModel.critical_curves`."""
    if kind not in CURVE_KINDS:
        raise InputError(f"kind = {kind!r} is refused: give one of {', '.join(CURVE_KINDS)}")
    x_c, y_c, half = _field(lens, extent)
    x = x_c + np.linspace(-half, half, GRID_CELLS + 1)
    y = y_c + np.linspace(-half, half, GRID_CELLS + 1)
    kinds = CURVE_KINDS[1:] if kind == "all" else (kind,)
    return [curve for name in kinds for curve in _zero_lines(partial(_eigenvalue, lens, kind=name), x, y)]


def _zero_lines(function: Callable[..., Array], x: Array, y: Array) -> Curves:
    """Contours where a function vanishes, from its signs on a grid, refined along the edges of the grid."""
    from contourpy import contour_generator

    values = function(*np.meshgrid(x, y))
    lines: Any = contour_generator(z=values, name="serial", line_type="Separate").lines(0.0)
    curves = []
    for line in lines:
        closed = (line[0] == line[-1]).all()
        # Each point lies on an edge of the grid: one of its indices is an integer.
        off = np.abs(line - np.round(line))
        whole = off <= off[:, ::-1]
        low, high = (np.where(whole, np.round(line), end(line)) for end in (np.floor, np.ceil))
        low, high, line = (_at_index(c, x, y) for c in (low, high, line))
        sign = np.sign(function(*low))
        crosses = sign * np.sign(function(*high)) < 0
        low, high = np.where(crosses, low, line), np.where(crosses, high, line)
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            below = np.sign(function(*middle)) == sign
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        # A curve that shrinks to a point surrounds the capped centre of a singular lens.
        if np.ptp(low, axis=1).max() > 1e-7:
            points = (low + high) / 2
            points[:, -1] = points[:, 0] if closed else points[:, -1]
            curves.append((points[0], points[1]))
    return curves


def _at_index(index: Array, x: Array, y: Array) -> Array:
    whole = np.arange(len(x))
    return np.stack((np.interp(index[:, 0], whole, x), np.interp(index[:, 1], whole, y)))


def caustics(lens: Any, extent: Any = None, *, kind: str = "all") -> Curves:
    """Caustics as a list of (x, y), see `lenssr.mass.MassModel.caustics`."""
    return [_source_position(lens, x, y) for x, y in critical_curves(lens, extent, kind=kind)]


def einstein_radius(lens: Any, extent: Any = None) -> float:
    """Effective Einstein radius in arcsec, see `lenssr.mass.MassModel.einstein_radius`."""
    return math.sqrt(_area(*_einstein_curve(lens, extent)) / math.pi)


def einstein_radius_gradient(lens: Any) -> tuple[float, Array]:
    """Effective Einstein radius in arcsec, and its derivatives (P,) by the parameters, in their units.

    The curve is where the tangential eigenvalue v vanishes. When a parameter p moves it, the area inside
    changes by the integral of -(dv/dp) / |grad v| along it.
    """
    places, steps = _einstein_curve(lens, None)
    radius = math.sqrt(_area(places, steps) / math.pi)
    values = lens.vector.numpy()

    def eigenvalue(model: Any, at: Array) -> Array:
        return _eigenvalue(model, at[0], at[1], "tangential")

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
    """Nodes of the closed tangential critical curve that is largest by area, as `_nodes` has them."""
    curves = critical_curves(lens, extent, kind="tangential")
    closed = [_nodes(*curve) for curve in curves if np.hypot(*(c[0] - c[-1] for c in curve)) == 0]
    if not any(places.size for places, _ in closed):
        raise InputError(f"{lens!r} has no closed tangential critical curve, so no Einstein radius")
    return max(closed, key=lambda nodes: _area(*nodes))


def _area(places: Array, steps: Array) -> float:
    """Area inside a closed curve, of its nodes."""
    (px, py), (dx, dy) = places, steps
    return abs(np.sum(px * dy - py * dx) / 2)


def _nodes(x: Array, y: Array) -> tuple[Array, Array]:
    """Positions (2, n) along a closed smooth curve, and steps (2, n) for integrals, by a periodic spline."""
    step = np.hypot(np.diff(x), np.diff(y))
    keep = np.flatnonzero(np.append(True, step > 0.2 * np.median(step)))
    points = np.stack((x, y), axis=1)[keep]
    points[-1] = points[0]
    length = np.append(0, np.cumsum(np.hypot(*np.diff(points, axis=0).T)))
    if len(points) < 5:
        return np.zeros((2, 0)), np.zeros((2, 0))
    spline = CubicSpline(length, points, bc_type="periodic")
    nodes, weights = np.polynomial.legendre.leggauss(4)
    half = np.diff(length)[:, None] / 2
    where = (length[:-1, None] + half * (1 + nodes)).ravel()
    return spline(where).T, spline(where, 1).T * (half * weights).ravel()


def image_positions(lens: Any, source: Point, extent: Any = None) -> tuple[Array, Array]:
    """Images of a point source, brightest first, see `lenssr.mass.MassModel.image_positions`."""
    x_c, y_c, half = _field(lens, extent, source)
    size = 2 * half / GRID_CELLS
    edge = np.arange(GRID_CELLS) * size - half
    x, y = (corner.ravel() for corner in np.meshgrid(x_c + edge, y_c + edge))
    guesses = []
    for _ in range(CELL_DIVISIONS):
        corners_x, corners_y = x + size * CORNERS[0], y + size * CORNERS[1]
        bx, by = _source_position(lens, corners_x, corners_y)
        bx, by = bx - source[0], by - source[1]
        guesses.append(_guesses(corners_x, corners_y, bx, by))
        # Two images may share a cell at critical curves and at singular centres: divide these cells.
        divide = _central(lens, x, y, size)
        near = np.flatnonzero(~divide & _surrounds(bx) & _surrounds(by))
        parity = np.sign(_determinant(lens, corners_x[:, near], corners_y[:, near]))
        divide[near] = (parity != parity[0]).any(axis=0)
        size /= 4
        sub_x, sub_y = (c.ravel()[:, None] * size for c in np.meshgrid(np.arange(4), np.arange(4)))
        x, y = (x[divide] + sub_x).ravel(), (y[divide] + sub_y).ravel()
    x, y = _polish(lens, source, *np.concatenate(guesses, axis=1), reach=half / GRID_CELLS)
    with np.errstate(divide="ignore"):
        magnification = 1 / np.abs(_determinant(lens, x, y))
    # A position in a capped centre is not an image, and two starts may reach the same one.
    chosen: list[int] = []
    for k in np.argsort(-magnification):
        apart = all(math.hypot(x[k] - x[j], y[k] - y[j]) > 1e-7 for j in chosen)
        if magnification[k] > 1e-12 and apart:
            chosen.append(k)
    return x[chosen], y[chosen]


def _determinant(lens: Any, x: Array, y: Array) -> Array:
    xx, xy, yy = _jacobian(lens, x, y)
    return xx * yy - xy**2


def _central(lens: Any, x: Array, y: Array, size: float) -> NDArray[np.bool_]:
    """Cells that touch a lens centre."""
    found = np.zeros(x.shape, dtype=bool)
    for x_0, y_0 in lens._centres():
        found |= (np.abs(x + size / 2 - x_0) < 1.5 * size) & (np.abs(y + size / 2 - y_0) < 1.5 * size)
    return found


def _surrounds(offset: Array) -> NDArray[np.bool_]:
    """Whether the range of the corners, widened by its width because cells may fold, contains the source."""
    low, high = offset.min(axis=0), offset.max(axis=0)
    return (2 * low - high <= 0) & (2 * high - low >= 0)


def _guesses(x: Array, y: Array, bx: Array, by: Array) -> Array:
    """Positions in the triangles whose images (bx, by) contain the origin."""
    found = []
    for corners in ([0, 1, 2], [0, 2, 3]):
        px, py = bx[corners], by[corners]
        # Areas of the triangles of the source with two corners have one sign if it is inside.
        areas = np.stack([px[k - 2] * py[k - 1] - px[k - 1] * py[k - 2] for k in range(3)])
        tiny = 1e-9 * np.abs(areas).max(axis=0)
        inside = ((areas >= -tiny).all(axis=0) | (areas <= tiny).all(axis=0)) & (tiny > 0)
        share = areas[:, inside] / areas[:, inside].sum(axis=0)
        found.append([(share * places[corners][:, inside]).sum(axis=0) for places in (x, y)])
    return np.concatenate(found, axis=1)


def _polish(lens: Any, source: Point, x: Array, y: Array, *, reach: float) -> tuple[Array, Array]:
    """Converged positions of Newton iterations from every guess, with steps up to ``reach``."""
    for _ in range(60):
        bx, by = _source_position(lens, x, y)
        xx, xy, yy = _jacobian(lens, x, y)
        determinant = xx * yy - xy**2
        determinant = np.where(np.abs(determinant) < 1e-14, 1e-14, determinant)
        rx, ry = source[0] - bx, source[1] - by
        dx, dy = (yy * rx - xy * ry) / determinant, (xx * ry - xy * rx) / determinant
        step = np.hypot(dx, dy)
        shorten = np.minimum(1, reach / np.maximum(step, 1e-300))
        x, y = x + shorten * dx, y + shorten * dy
        if (step < 1e-13).all():
            break
    bx, by = _source_position(lens, x, y)
    good = (np.hypot(bx - source[0], by - source[1]) < 1e-10) & (step < 1e-7)
    return x[good], y[good]
