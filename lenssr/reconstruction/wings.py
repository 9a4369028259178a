"""Light of a source beyond the grid that a network has drawn it on."""

from dataclasses import replace

import numpy as np
from scipy.optimize import brentq

__all__ = ["with_wings"]

# The grid grows to so many times its size at most, and its nodes crowd no more than so.
REACH, STRETCH = 2.0, 3.0
# Where the slope of the wings is read off: between means over these rings, as shares of the way to the rim.
INNER, OUTER = (0.55, 0.75), (0.8, 1.0)
# Brightness falls as radius to the power of minus this: a light that the image holds, and no cliff.
SLOPES = 2.0, 12.0


def with_wings(grid, values, rays, faintest):
    """Let a source go on beyond its grid as far as the image would show it.

    A network draws a source where it stands out of the noise. Where an image has next to none, in dark pixels
    that count photons, the wings beyond matter: they fall as the drawing does towards its rim, along the
    lines from its middle.

    Parameters
    ----------
    grid : `~lenssr.source.SourceGrid`
    values : `~numpy.ndarray`, shape (n,)
        Brightness at its nodes, positive.
    rays : tuple of `~numpy.ndarray`, shape (R,)
        Where the rays of the image land, x and y in arcsec.
    faintest : float
        Brightness that an image still shows.

    Returns
    -------
    grid : `~lenssr.source.SourceGrid`
        Around the same middle, with as many nodes, which crowd there as they did. The same one if it holds
        all that is brighter than that.
    values : `~numpy.ndarray`, shape (n,)
    """
    middle, logs = _middle(grid, values), np.log(values)
    slope = _slope(grid, values, middle)

    def light(x, y):
        share = _share_inside(grid, middle, x, y)
        rim = (start + share * (axis - start) for axis, start in zip((x, y), middle, strict=True))
        return np.exp(grid.matrix(*rim) @ logs) * share**slope

    bright = light(*rays) > faintest
    ways = (np.abs(axis[bright] - at) for axis, at in zip(rays, (grid.x_0, grid.y_0), strict=True))
    reach = min(max(way.max(initial=0.0) for way in ways), REACH * grid.half)
    if reach <= grid.half:
        return grid, values
    wider = replace(grid, half=reach, stretch=_stretch(grid, reach))
    return wider, light(*wider.nodes)


def _stretch(grid, half):
    """The stretch at which a larger grid of as many nodes has the spacing of this one in its middle."""
    asked = _spacing(grid.stretch) * grid.half / half
    if _spacing(STRETCH) > asked:
        return STRETCH
    return float(brentq(lambda stretch: _spacing(stretch) - asked, grid.stretch, STRETCH))


def _spacing(stretch):
    """Distance of nodes in the middle, over that of even ones."""
    return stretch / np.sinh(stretch) if stretch else 1.0


def _middle(grid, values):
    """Centre of light, x and y in arcsec."""
    light = values * _areas(grid)
    return tuple(float(light @ axis / light.sum()) for axis in grid.nodes)


def _areas(grid):
    step = np.gradient(grid.offsets)
    return np.outer(step, step).ravel()


def _slope(grid, values, middle):
    """How steeply the mean brightness around the middle falls with radius towards the rim."""
    x, y = grid.nodes
    radius, area = np.hypot(x - middle[0], y - middle[1]), _areas(grid)
    off = max(abs(middle[0] - grid.x_0), abs(middle[1] - grid.y_0))
    rim, ends = max(grid.half - off, 0.2 * grid.half), []
    for low, high in (INNER, OUTER):
        ring = (radius >= low * rim) & (radius < high * rim)
        ends.append([np.log(np.average(each[ring], weights=area[ring])) for each in (values, radius)])
    (inside, near), (outside, far) = ends
    return float(np.clip((inside - outside) / (far - near), *SLOPES))


def _share_inside(grid, middle, x, y):
    """The share of the way from the middle to each point that lies on the grid, at most 1."""
    share = np.ones(len(x))
    for axis, start, centre in zip((x, y), middle, (grid.x_0, grid.y_0), strict=True):
        way = axis - start
        end = np.where(way > 0, centre + grid.half, centre - grid.half) - start
        ratio = np.divide(end, way, out=np.full(len(x), np.inf), where=np.abs(way) > 1e-12 * grid.half)
        share = np.minimum(share, ratio)
    return share * (1 - 1e-9)  # on the rim is on the grid, but for rounding
