"""Estimates of sky, flux, size and shape from moments, before a fit."""

import math

import numpy as np

__all__ = ["border_median", "moments"]

# Smallest half-light radius, in pixels, and largest modulus of the ellipticity that moments may give. Chosen.
MIN_HALF_LIGHT_RADIUS, MAX_ELLIPTICITY = 0.4, 0.45


def border_median(data, valid):
    """Median (B,) of the outermost pixels of stamps (B, ny, nx); 0 where none is valid."""
    depth = [max(1, size // 12) for size in data.shape[1:]]
    border = np.ones(data.shape[1:], dtype=bool)
    border[depth[0] : -depth[0] or None, depth[1] : -depth[1] or None] = False
    level = np.zeros(len(data))
    for i, (image, good) in enumerate(zip(data, valid & border, strict=True)):
        level[i] = np.median(image[good]) if good.any() else 0.0
    return level


def moments(light, valid, centres, fwhm):
    """Flux, half-light radius without the PSF, e1 and e2 (G, 4) of the galaxies of a stamp without sky.

    ``centres`` (G, 2) are (x, y) relative to the middle of the stamp; these and the ``fwhm`` of the PSF are
    in pixels.
    """
    rows, columns = (np.arange(size) - (size - 1) / 2 for size in light.shape)
    dx, dy = np.broadcast_arrays(columns - centres[:, :1, None], rows[:, None] - centres[:, 1:, None])
    radius = np.hypot(dx, dy)
    nearest = radius.argmin(0)
    found = np.empty((len(centres), 4))
    for g in range(len(centres)):
        own = valid & (nearest == g)
        flux, half = _growth(light[own], radius[g][own])
        squared = max(half**2 - (0.45 * fwhm) ** 2, MIN_HALF_LIGHT_RADIUS**2)
        found[g] = (
            flux,
            math.sqrt(squared),
            *_windowed_ellipticity(light[own], dx[g][own], dy[g][own], max(half, fwhm / 2)),
        )
    return found


def _growth(light, radius):
    """Flux and half-light radius from means over rings, which masked pixels do not bias."""
    if not len(light):
        return 0.0, 1.0
    ring = radius.astype(int)
    number = np.bincount(ring)
    mean = np.bincount(ring, weights=light) / np.maximum(number, 1)
    edges = np.arange(len(mean) + 1.0)
    # Rings that are mostly outside the stamp hold hardly anything but sky.
    within = np.cumsum(mean * np.pi * np.diff(edges**2) * (number > 0.3 * np.pi * (2 * edges[:-1] + 1)))
    flux = within.max()
    if flux <= 0:
        return max(float(np.abs(light).sum()) * 1e-3, 1e-30), 2.0
    last = int(within.argmax()) + 1
    growth = np.maximum.accumulate(np.concatenate([[0.0], within[:last]]))
    return float(flux), float(np.interp(flux / 2, growth, edges[: last + 1]))


def _windowed_ellipticity(light, dx, dy, scale):
    weight = light * np.exp(-(dx**2 + dy**2) / (2 * (1.5 * scale) ** 2))
    total = weight.sum()
    if total <= 0:
        return 0.0, 0.0
    xx, yy, xy = ((weight * part).sum() / total for part in (dx * dx, dy * dy, dx * dy))
    if xx + yy <= 0 or xx * yy <= xy**2:
        return 0.0, 0.0
    size = xx + yy + 2 * math.sqrt(xx * yy - xy**2)
    # The round weight hides about a third of the ellipticity.
    e1, e2 = 1.5 * (xx - yy) / size, 3 * xy / size
    shrink = min(1.0, MAX_ELLIPTICITY / max(math.hypot(e1, e2), 1e-9))
    return e1 * shrink, e2 * shrink
