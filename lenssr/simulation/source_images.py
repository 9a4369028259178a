"""Sources that are pictures: clumpy discs, and shapes of real galaxies, on one number of nodes."""

import math

import numpy as np
from scipy import ndimage

__all__ = ["HALF_BOX", "NODES", "blend", "clumpy_disc", "half_light_radius", "oriented", "shape_nodes"]

NODES = 128
"""Nodes along a side of a picture; light is bilinear between them."""

HALF_BOX = 3.5
"""Half the side of the box of a clumpy disc, in effective radii of the disc."""

# Exponents of brightness in a blend; how much of its length remains across; how large the second picture is.
_EXPONENTS, _SQUEEZES, _SECOND = (0.7, 1.5), (0.6, 1.0), (0.3, 0.8)

# Light of a disc fades out between these shares of half the box, so that no edge shows.
_FADE = 0.8, 1.0


def clumpy_disc(rng, r_eff, q, phi):
    """Draw a disc with clumps.

    Three to ten Gaussian clumps hold a fifth to three fifths of the light; they are as wide as 0.12 to 0.3
    effective radii and scatter about the centre as the disc's light does. The disc is a Sérsic profile with
    an index of 0.6 to 1.6.

    Parameters
    ----------
    rng : `numpy.random.Generator`
        Where the randomness comes from.
    r_eff : float
        Product-average effective radius of the disc in arcsec.
    q, phi : float
        Its axis ratio, and the direction of its major axis in radians.

    Returns
    -------
    picture : `~numpy.ndarray`, shape (NODES, NODES)
        Surface brightness per arcsec2 for a flux of one.
    step : float
        Distance of the nodes in arcsec.
    """
    step = 2 * HALF_BOX * r_eff / NODES
    # in units of r_eff, along and across the major axis of an ellipse with the area of the circle
    places = (np.arange(NODES) + 0.5) * (step / r_eff) - HALF_BOX
    x, y = places, places[:, None]
    cos, sin, root = math.cos(phi), math.sin(phi), math.sqrt(q)
    square = ((x * cos + y * sin) * root) ** 2 + ((y * cos - x * sin) / root) ** 2
    n = rng.uniform(0.6, 1.6)
    disc = np.exp(-(2 * n - 1 / 3) * square ** (0.5 / n))

    number, share = int(rng.integers(3, 11)), rng.uniform(0.2, 0.6)
    along, across = 0.8 * rng.standard_normal((2, number))
    centre_x = (along * cos / root - across * sin * root)[:, None]
    centre_y = (along * sin / root + across * cos * root)[:, None]
    width, flux = rng.uniform(0.12, 0.3, (number, 1)), rng.uniform(0.3, 1.0, (number, 1))
    columns = np.exp(-(((x - centre_x) / width) ** 2) / 2) * (flux / width)
    rows = np.exp(-(((x - centre_y) / width) ** 2) / 2) / width
    clumps = rows.T @ columns

    low, high = _FADE
    fade = np.clip((high - np.hypot(x, y) / HALF_BOX) / (high - low), 0.0, 1.0)
    picture = ((1 - share) * disc / disc.sum() + share * clumps / clumps.sum()) * fade**2 * (3 - 2 * fade)
    return picture / (picture.sum() * step**2), step


def shape_nodes(shape):
    """Cubic spline of a cutout on the nodes.

    Parameters
    ----------
    shape : array, shape (side, side)
        Dark at its rim.

    Returns
    -------
    picture : `~numpy.ndarray`, shape (NODES, NODES)
        Its sum is one.
    """
    side = len(shape)
    places = (np.arange(NODES) + 0.5) / NODES * side - 0.5
    grid = np.meshgrid(places, places, indexing="ij")
    picture = np.maximum(ndimage.map_coordinates(shape, grid, order=3, mode="grid-constant"), 0.0)
    return picture / picture.sum()


def blend(rng, first, second):
    """Draw a galaxy that looks like no other, from two that there are.

    Of each, brightness is raised to a power of 0.7 to 1.5, which makes its core less or more prominent, and
    it is squeezed to 0.6 to 1 of its length along one axis and turned by any angle. The second one is made
    smaller, to 0.3 to 0.8, lies anywhere within the box, and holds up to half of the light.

    Parameters
    ----------
    rng : `numpy.random.Generator`
        Where the randomness comes from.
    first, second : array, shape (NODES, NODES)
        Pictures, dark outside the circle that fits into the box.

    Returns
    -------
    picture : `~numpy.ndarray`, shape (NODES, NODES)
        Its sum is one.
    """
    size = rng.uniform(*_SECOND)
    reach, angle = 0.5 * (1 - size) * math.sqrt(rng.uniform()), rng.uniform(0, 2 * math.pi)
    place = reach * NODES * np.array([math.sin(angle), math.cos(angle)])
    share = rng.uniform(0.0, 0.5)
    return (1 - share) * _deformed(rng, first) + share * _deformed(rng, second, size, place)


def _deformed(rng, picture, size=1.0, place=(0.0, 0.0)):
    """A picture of other contrast, squeezed, turned, smaller, and moved by so many nodes; its sum is one."""
    exponent, squeeze = rng.uniform(*_EXPONENTS), rng.uniform(*_SQUEEZES)
    first, second = (_turn(rng.uniform(0, 2 * math.pi)) for _ in range(2))
    # From where light shall be to where it comes from.
    matrix = second @ np.diag([1.0, 1 / squeeze]) @ first / size
    middle = (NODES - 1) / 2
    offset = middle - matrix @ (middle + np.asarray(place))
    deformed = ndimage.affine_transform(picture**exponent, matrix, offset, order=1)
    return deformed / deformed.sum()


def _turn(angle):
    return np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])


def half_light_radius(picture):
    """Radius of a circle as large as the brightest pixels that hold half of the light.

    Parameters
    ----------
    picture : array, shape (side, side)
        Not negative.

    Returns
    -------
    radius : float
        Over the side of the picture.
    """
    half = picture.sum() / 2
    bright = picture[picture > half / picture.size]
    if bright.sum() < half:
        bright = picture
    light = np.cumsum(np.sort(bright, axis=None)[::-1])
    number = np.searchsorted(light, half) + 1
    return math.sqrt(number / math.pi) / len(picture)


def oriented(picture, number):
    """Turn a picture by a multiple of 90 degrees, and mirror it.

    Parameters
    ----------
    picture : array, shape (side, side)
    number : int
        Which of the eight ways, 0 to 7.

    Returns
    -------
    picture : `~numpy.ndarray`, shape (side, side)
    """
    turned = np.rot90(picture, number % 4)
    return turned[:, ::-1] if number >= 4 else turned
