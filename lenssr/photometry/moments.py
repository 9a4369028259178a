"""What moments say of a galaxy before a fit."""

import math

import numpy as np

__all__ = ["border_level", "moments"]

LEAST_RADIUS, MOST_ELLIPTICITY = 0.4, 0.45


def border_level(data, valid):
    """Median of the outermost pixels of stamps.

    Parameters
    ----------
    data : `~numpy.ndarray`, shape (B, ny, nx)
    valid : `~numpy.ndarray` of bool, shape (B, ny, nx)

    Returns
    -------
    level : `~numpy.ndarray`, shape (B,)
        0 where no pixel of the border is valid.
    """
    depth = [max(1, size // 12) for size in data.shape[1:]]
    border = np.ones(data.shape[1:], dtype=bool)
    border[depth[0] : -depth[0] or None, depth[1] : -depth[1] or None] = False
    level = np.zeros(len(data))
    for i, (image, good) in enumerate(zip(data, valid & border, strict=True)):
        level[i] = np.median(image[good]) if good.any() else 0.0
    return level


def moments(light, valid, centres, fwhm):
    """Flux, half-light radius and shape of galaxies in one stamp.

    Parameters
    ----------
    light : `~numpy.ndarray`, shape (ny, nx)
        Without sky.
    valid : `~numpy.ndarray` of bool, shape (ny, nx)
    centres : `~numpy.ndarray`, shape (G, 2)
        (x, y) relative to the middle of the stamp.
    fwhm : float
        Of the PSF in pixels.

    Returns
    -------
    guesses : `~numpy.ndarray`, shape (G, 4)
        Flux, mean half-light radius without the PSF, e1, e2.
    """
    rows, columns = (np.arange(size) - (size - 1) / 2 for size in light.shape)
    dx, dy = np.broadcast_arrays(columns - centres[:, :1, None], rows[:, None] - centres[:, 1:, None])
    radius = np.hypot(dx, dy)
    nearest = radius.argmin(0)
    found = np.empty((len(centres), 4))
    for g in range(len(centres)):
        own = valid & (nearest == g)
        flux, half = _growth(light[own], radius[g][own])
        squared = max(half**2 - (0.45 * fwhm) ** 2, LEAST_RADIUS**2)
        found[g] = flux, math.sqrt(squared), *_shape(light[own], dx[g][own], dy[g][own], max(half, fwhm / 2))
    return found


def _growth(light, radius):
    """Flux and the radius that holds half of it, from means over rings, which masked pixels do not bias."""
    if not len(light):
        return 0.0, 1.0
    ring = radius.astype(int)
    number = np.bincount(ring)
    mean = np.bincount(ring, weights=light) / np.maximum(number, 1)
    edges = np.arange(len(mean) + 1.0)
    # Corners of the stamp are not whole rings, and their sky is all there is in them.
    within = np.cumsum(mean * np.pi * np.diff(edges**2) * (number > 0.3 * np.pi * (2 * edges[:-1] + 1)))
    flux = within.max()
    if flux <= 0:
        return max(float(np.abs(light).sum()) * 1e-3, 1e-30), 2.0
    last = int(within.argmax()) + 1
    growth = np.maximum.accumulate(np.concatenate([[0.0], within[:last]]))
    return float(flux), float(np.interp(flux / 2, growth, edges[: last + 1]))


def _shape(light, dx, dy, scale):
    weight = light * np.exp(-(dx**2 + dy**2) / (2 * (1.5 * scale) ** 2))
    total = weight.sum()
    if total <= 0:
        return 0.0, 0.0
    xx, yy, xy = ((weight * part).sum() / total for part in (dx * dx, dy * dy, dx * dy))
    if xx + yy <= 0 or xx * yy <= xy**2:
        return 0.0, 0.0
    size = xx + yy + 2 * math.sqrt(xx * yy - xy**2)
    # The weight is round and hides about a third of the shape.
    e1, e2 = 1.5 * (xx - yy) / size, 3 * xy / size
    shrink = min(1.0, MOST_ELLIPTICITY / max(math.hypot(e1, e2), 1e-9))
    return e1 * shrink, e2 * shrink
