"""The sky of an image: its level, its rms against the error plane, and how its pixels correlate.

Drizzling and resampling spread the noise of one detector pixel over several image pixels. Their errors are
then not independent, and a fit that takes them to be so believes itself too much.
"""

import math
from dataclasses import dataclass

import numpy as np
from astropy.stats import sigma_clipped_stats
from scipy import ndimage

__all__ = ["SkyNoise", "measure_sky", "residual_noise", "sky_noise", "source_mask"]

# Fewer pixels of sky than this say nothing about correlations of a tenth. Theory: their error is 200**-0.5.
FEWEST_PIXELS = 200
# Correlation of neighbouring pixels above which noise counts as correlated. Theory: two errors at
# FEWEST_PIXELS.
CORRELATED_ABOVE = 0.15
# Connected pixels above the threshold that are a source. Chosen: smoothed noise makes smaller islands.
FEWEST_SOURCE_PIXELS = 25
# Pixels: light that changes more slowly than this is a galaxy's halo or a gradient of the sky, not noise.
_SMOOTH_SCALE = 8.0


@dataclass(frozen=True)
class SkyNoise:
    """What the sky of an image says about its noise.

    Attributes
    ----------
    level : float
        Median of the sky in the image's unit.
    rms : float
        Standard deviation of the sky in the image's unit.
    rms_ratio : float
        Standard deviation of the sky in units of the given errors: 1 if they are right.
    lag1 : float
        Autocorrelation of horizontal and vertical neighbours, the mean of both.
    factor : float
        By how much errors of parameters that many pixels determine are to be widened: the square root of the
        autocorrelation's sum over all lags, times ``rms_ratio`` if that is below 1, but never less than 1.
    pixels : int
        Number of pixels of sky.

    Notes
    -----
    With fewer than 200 pixels of sky nothing is measured, and ``lag1`` is 0, ``factor`` and
    ``rms_ratio`` are 1.
    """

    level: float
    rms: float
    rms_ratio: float
    lag1: float
    factor: float
    pixels: int

    @property
    def correlated(self):
        """Whether the neighbours' correlation is above 0.15, which is flagged ``correlated_noise``."""
        return self.lag1 > CORRELATED_ABOVE


def measure_sky(observation, *, radius=3):
    """Measure level, rms and autocorrelation of the sky of an image.

    Parameters
    ----------
    observation : `~lenssr.imaging.Observation`
        The image.
    radius : int, optional
        Lags up to this many pixels are taken in; 3 by default.

    Returns
    -------
    sky : `SkyNoise`

    Notes
    -----
    Sky is what lies outside the mask of the sources. With normalised pixels z, the autocorrelation at
    lag d is ``<z(p) z(p + d)> / <z^2>`` over pairs that are both sky; the variance of a weighted sum of many
    pixels is larger than for independent ones by its sum over d. Correlations under three times their
    own standard error are left out of the sum, so that white noise gives 1. What changes over 8 pixels or
    more is subtracted before, since halos and gradients are not noise.

    Examples
    --------
    >>> import numpy as np
    >>> from lenssr.imaging import Observation, measure_sky
    >>> white = np.random.default_rng(1).normal(size=(100, 100))
    >>> image = Observation.from_any(white, pixel_scale=0.05, noise=1, unit="electron/s")
    >>> round(measure_sky(image).factor, 1)
    1.0
    """
    free = observation.valid & ~source_mask(observation)
    if np.count_nonzero(free) < FEWEST_PIXELS:
        good = observation.data[observation.valid]
        _, level, rms = (float(value) for value in sigma_clipped_stats(good, sigma=3))
        return SkyNoise(level, rms, 1.0, 0.0, 1.0, int(np.count_nonzero(free)))
    return sky_noise(observation.data, observation.sigma(), free, radius=radius)


def sky_noise(image, sigma, free, *, radius=3):
    """Level, rms and autocorrelation of the pixels that are known to be sky, or residuals of a good model.

    Parameters
    ----------
    image : `~numpy.ndarray`, shape (ny, nx)
        The image, or data - model.
    sigma : `~numpy.ndarray`, shape (ny, nx)
        Standard deviation of every pixel.
    free : `~numpy.ndarray` of bool, shape (ny, nx)
        Which pixels to use.
    radius : int, optional
        Lags up to this many pixels are taken in; 3 by default.

    Returns
    -------
    sky : `SkyNoise`
        As `measure_sky` defines it.
    """
    if np.count_nonzero(free) < FEWEST_PIXELS:
        return SkyNoise(0.0, 0.0, 1.0, 0.0, 1.0, int(np.count_nonzero(free)))
    values = image[free]
    level = float(np.median(values))
    sigma = np.where(free, sigma, 1.0)
    z = np.where(free, (image - level) / sigma, 0.0)
    z = np.where(free, z - _smooth_part(z, free), 0.0)
    variance = float((z[free] ** 2).mean())
    if variance == 0:
        return SkyNoise(level, 0.0, 1.0, 0.0, 1.0, values.size)
    correlation = _autocorrelation(z, free, variance, radius)
    lag1 = 0.5 * (correlation[0, 1][0] + correlation[1, 0][0])
    # Every lag but (0, 0) stands for itself and its opposite.
    total = 1 + 2 * sum(rho for rho, error in correlation.values() if abs(rho) > 3 * error)
    # What resampling moves into correlations pixels by themselves lack: where they scatter less than their
    # errors say, the errors of sums are too small by less. A sky estimate makes none smaller than given.
    factor = max(math.sqrt(max(total, 0.0)) * min(math.sqrt(variance), 1.0), 1.0)
    rms = float((z * sigma)[free].std())
    return SkyNoise(level, rms, math.sqrt(variance), float(lag1), factor, values.size)


def residual_noise(observation, model, weight, sky):
    """Noise of the residual where the model is faint: arcs that fill a small field would pass for sky.

    Parameters
    ----------
    observation : `~lenssr.imaging.Observation`
        The image.
    model : array, shape (ny, nx) or (ny * nx,)
        Expected data.
    weight : array, shape (ny, nx) or (ny * nx,)
        Inverse variance that was used, 0 where no pixel was.
    sky : float
        The fitted sky of a pixel.

    Returns
    -------
    noise : `SkyNoise`
        As `measure_sky` defines it.
    """
    model, weight = (np.asarray(plane).reshape(observation.shape) for plane in (model, weight))
    sigma = np.where(weight > 0, 1 / np.sqrt(np.where(weight > 0, weight, 1)), np.inf)
    free = (weight > 0) & (np.abs(model - sky) < sigma)
    return sky_noise(observation.data - model, sigma, free)


def source_mask(observation, *, threshold=2.0):
    """Where an image has sources, from connected pixels of the smoothed image, grown outward.

    Parameters
    ----------
    observation : `~lenssr.imaging.Observation`
        The image.
    threshold : float, optional
        In standard deviations of the smoothed sky; 2 by default.

    Returns
    -------
    mask : `~numpy.ndarray` of bool, shape (ny, nx)
        True on sources.
    """
    valid = observation.valid
    level = sigma_clipped_stats(observation.data[valid], sigma=3, maxiters=20)[1]
    z = np.where(valid, (observation.data - level) / observation.sigma(), 0.0)
    smooth = ndimage.gaussian_filter(z, 2.0)
    _, middle, scatter = sigma_clipped_stats(smooth[valid], sigma=3, maxiters=20)
    if scatter <= 0:
        return np.zeros(valid.shape, dtype=bool)
    labels, number = ndimage.label(smooth > middle + threshold * scatter)
    large = np.bincount(labels.ravel(), minlength=number + 1) >= FEWEST_SOURCE_PIXELS
    large[0] = False
    return ndimage.binary_dilation(large[labels], iterations=4)


def _smooth_part(z, free):
    weight = ndimage.gaussian_filter(free.astype(float), _SMOOTH_SCALE)
    smooth = ndimage.gaussian_filter(z, _SMOOTH_SCALE)
    return np.divide(smooth, weight, out=np.zeros_like(z), where=weight > 1e-3)


def _autocorrelation(z, free, variance, radius):
    """Correlation and its standard error at each lag of a half-plane within the radius."""
    result = {}
    rows, columns = z.shape
    for dy in range(0, min(radius, rows - 1) + 1):
        for dx in range(-radius, radius + 1):
            if (dy == 0 and dx <= 0) or dx**2 + dy**2 > radius**2 or abs(dx) >= columns:
                continue
            here = (slice(0, rows - dy), slice(max(0, -dx), columns - max(0, dx)))
            there = (slice(dy, rows), slice(max(0, dx), columns - max(0, -dx)))
            pairs = np.count_nonzero(free[here] & free[there])
            mean = float((z[here] * z[there]).sum()) / max(pairs, 1)
            result[dy, dx] = (mean / variance, 1 / math.sqrt(max(pairs, 1)))
    return result
