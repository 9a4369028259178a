"""Images of sources, (NODES, NODES): clumpy discs, and shapes of real galaxies."""

import math

import numpy as np
from scipy import ndimage

__all__ = [
    "HALF_BOX",
    "NODES",
    "blend_galaxies",
    "clumpy_disc",
    "half_light_radius",
    "resample_shape",
    "rotate_or_mirror",
]

NODES = 128
"""Nodes along a side of an image; light is bilinear between them."""

HALF_BOX = 3.5
"""Half the side of the box of a clumpy disc, in effective radii of the disc."""

# Ranges in a blend: exponent of the brightness, ratio of the axes of the squeeze, scale of the second galaxy.
_EXPONENTS, _SQUEEZES, _SECOND = (0.7, 1.5), (0.6, 1.0), (0.3, 0.8)

# Radii, over half the box, between which the light of a disc fades to zero.
_FADE = 0.8, 1.0


def clumpy_disc(rng, r_eff, q, phi):
    """Draw a clumpy disc: surface brightness (NODES, NODES) per arcsec2 for a flux of 1, and step in arcsec.

    The disc is a Sérsic profile of product-average radius ``r_eff``, with an index of 0.6 to 1.6. Three to
    ten Gaussian clumps, 0.12 to 0.3 effective radii wide, hold a fifth to three fifths of the light and
    follow that of the disc.
    """
    step = 2 * HALF_BOX * r_eff / NODES
    # Positions in units of r_eff, along and across the major axis.
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
    image = ((1 - share) * disc / disc.sum() + share * clumps / clumps.sum()) * fade**2 * (3 - 2 * fade)
    return image / (image.sum() * step**2), step


def resample_shape(shape):
    """Cubic spline of a cutout (side, side), dark at its rim, on the nodes; its sum is 1."""
    side = len(shape)
    places = (np.arange(NODES) + 0.5) / NODES * side - 0.5
    grid = np.meshgrid(places, places, indexing="ij")
    image = np.maximum(ndimage.map_coordinates(shape, grid, order=3, mode="grid-constant"), 0.0)
    return image / image.sum()


def blend_galaxies(rng, first, second):
    """Draw a new galaxy from the images (NODES, NODES) of two; its sum is 1.

    The brightness of each is raised to a power of 0.7 to 1.5, which changes the contrast of its core; each is
    squeezed to 0.6 to 1 along one axis and rotated. The second is scaled by 0.3 to 0.8, lies anywhere within
    the box, and holds up to half of the light.
    """
    size = rng.uniform(*_SECOND)
    reach, angle = 0.5 * (1 - size) * math.sqrt(rng.uniform()), rng.uniform(0, 2 * math.pi)
    place = reach * NODES * np.array([math.sin(angle), math.cos(angle)])
    share = rng.uniform(0.0, 0.5)
    return (1 - share) * _deformed(rng, first) + share * _deformed(rng, second, size, place)


def _deformed(rng, image, size=1.0, place=(0.0, 0.0)):
    """Change contrast, squeeze, rotate, scale, and shift an image by ``place`` nodes; its sum is 1."""
    exponent, squeeze = rng.uniform(*_EXPONENTS), rng.uniform(*_SQUEEZES)
    first, second = (_turn(rng.uniform(0, 2 * math.pi)) for _ in range(2))
    # The transform maps the new position of light to the old one.
    matrix = second @ np.diag([1.0, 1 / squeeze]) @ first / size
    middle = (NODES - 1) / 2
    offset = middle - matrix @ (middle + np.asarray(place))
    deformed = ndimage.affine_transform(image**exponent, matrix, offset, order=1)
    return deformed / deformed.sum()


def _turn(angle):
    return np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])


def half_light_radius(image):
    """Radius, over the side, of a circle as large as the brightest pixels that hold half of the light."""
    half = image.sum() / 2
    bright = image[image > half / image.size]
    if bright.sum() < half:
        bright = image
    light = np.cumsum(np.sort(bright, axis=None)[::-1])
    number = np.searchsorted(light, half) + 1
    return math.sqrt(number / math.pi) / len(image)


def rotate_or_mirror(image, number):
    """One of the eight rotations by 90 degrees and mirror images of an image; ``number`` is 0 to 7."""
    turned = np.rot90(image, number % 4)
    return turned[:, ::-1] if number >= 4 else turned
