"""Light of a source beyond the grid that a network has drawn it on."""

import numpy as np

__all__ = ["with_wings"]

# At most so many rings of nodes are added; the nodes of most networks crowd, and theirs double the grid.
MOST_RINGS = 16
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
    grid : `~lenssr.inversion.SourceGrid`
    values : `~numpy.ndarray`, shape (n,)
        Brightness at its nodes.
    rays : tuple of `~numpy.ndarray`, shape (R,)
        Where the rays of the image land, x and y in arcsec.
    faintest : float
        Brightness that an image still shows.

    Returns
    -------
    grid : `~lenssr.inversion.SourceGrid`
        Its nodes are those of the other one and, where the wings are brighter than that, some around them.
    values : `~numpy.ndarray`, shape (m,)
    """
    x_0, y_0 = middle = _middle(grid, values)
    slope = _slope(grid, values, middle)
    wide = grid.ringed(MOST_RINGS)
    x, y = wide.nodes
    share = _share_inside(grid, middle, x, y)
    rim = x_0 + share * (x - x_0), y_0 + share * (y - y_0)
    light = (grid.matrix(*rim) @ values) * share**slope
    light = light.reshape(wide.side, wide.side)
    light[MOST_RINGS:-MOST_RINGS, MOST_RINGS:-MOST_RINGS] = values.reshape(grid.side, grid.side)
    bright = wide.matrix(*rays) @ light.ravel() > faintest
    centre = np.array([[grid.x_0], [grid.y_0]])
    reach = np.abs(np.stack(rays)[:, bright] - centre).max(initial=0.0)
    rings = next((k for k in range(MOST_RINGS) if grid.ringed(k).half >= reach), MOST_RINGS)
    kept = slice(MOST_RINGS - rings, wide.side - MOST_RINGS + rings)
    return grid.ringed(rings), light[kept, kept].ravel()


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
