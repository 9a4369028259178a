"""The sky of an image: its level, its rms against the error plane, and how its pixels correlate.

Drizzling and resampling spread the noise of one detector pixel over several image pixels. Their errors are
then not independent, and a fit that takes them to be so has errors that are too small.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from astropy.stats import sigma_clipped_stats
from numpy.typing import ArrayLike
from scipy import ndimage

from lenssr.imaging.planes import Array, Mask

if TYPE_CHECKING:
    from lenssr.imaging.observation import Observation

__all__ = ["SkyNoise", "measure_sky", "noise_rms", "residual_noise", "sky_noise", "source_mask"]

# Least number of pixels of sky, to measure correlations of a tenth. Theory: their error is 200**-0.5.
FEWEST_PIXELS = 200
# Correlation of neighbouring pixels above which noise counts as correlated. Theory: two errors at
# FEWEST_PIXELS.
CORRELATED_ABOVE = 0.15
# Least significance of the pixels of a source in the smoothed image, and least number of connected pixels.
# Chosen: smoothed noise makes smaller islands.
SOURCE_SIGMA, FEWEST_SOURCE_PIXELS = 2.0, 25
# Pixels: light that changes more slowly than this is a galaxy's halo or a gradient of the sky, not noise.
_SMOOTH_SCALE = 8.0
# Differences of neighbours below this share of those of pixels two apart mean noise that is spread so widely
# that pixels three apart are compared. Theory: noise smoothed by 0.6 pixels has 0.65, by 1 pixel 0.4.
_WIDE_SHARE = 0.5
# Rms of the sky over that of differences above which light is in it. Theory: 1.4 for noise smoothed by 1.5
# pixels, which correlates by 0.9.
_MOST_OVER_DIFFERENCES = 1.5


@dataclass(frozen=True)
class SkyNoise:
    """Noise of an image as measured in its sky.

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
        Factor by which to widen errors of parameters that many pixels determine: the square root of the
        autocorrelation's sum over all lags, times ``rms_ratio`` if that is below 1, but never less than 1.
    pixels : int
        Number of pixels of sky.

    Notes
    -----
    With fewer than 200 pixels of sky nothing is measured, and ``lag1`` is 0, ``factor`` and
    ``rms_ratio`` are 1.
    """

    level: float = 0.0
    rms: float = 0.0
    rms_ratio: float = 1.0
    lag1: float = 0.0
    factor: float = 1.0
    pixels: int = 0

    @property
    def correlated(self) -> bool:
        """Whether the neighbours' correlation is above 0.15, which is flagged ``correlated_noise``."""
        return self.lag1 > CORRELATED_ABOVE


def measure_sky(observation: Observation, *, radius: int = 3) -> SkyNoise:
    """Measure level, rms and autocorrelation of the sky of an image.

    Parameters
    ----------
    observation : `~lenssr.imaging.Observation`
        The image.
    radius : int, optional
        Largest lag in pixels; 3 by default.

    Returns
    -------
    sky : `SkyNoise`

    Notes
    -----
    Sky is everything outside the mask of the sources. With normalised pixels z, the autocorrelation at
    lag d is ``<z(p) z(p + d)> / <z^2>`` over pairs that are both sky; the variance of a weighted sum of many
    pixels is larger than for independent ones by its sum over d. Correlations under three times their
    own standard error are left out of the sum, so that white noise gives 1. Light that changes over 8 pixels
    or more is subtracted before, since halos and gradients are not noise.

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
        rms = min(rms, _rms_of_differences(observation.data, observation.valid) or rms)
        return SkyNoise(level, rms, pixels=int(np.count_nonzero(free)))
    return sky_noise(observation.data, observation.sigma(), free, radius=radius)


def sky_noise(image: Array, sigma: Array, free: Mask, *, radius: int = 3) -> SkyNoise:
    """`measure_sky` of pixels (``free``) known to be sky, or of the residuals of a good model.

    All have the shape (ny, nx); ``sigma`` is the standard deviation of every pixel.
    """
    if np.count_nonzero(free) < FEWEST_PIXELS:
        return SkyNoise(pixels=int(np.count_nonzero(free)))
    values = image[free]
    level = float(np.median(values))
    sigma = np.where(free, sigma, 1.0)
    z = np.where(free, (image - level) / sigma, 0.0)
    smooth, share = (ndimage.gaussian_filter(part, _SMOOTH_SCALE) for part in (z, free.astype(float)))
    z = np.where(free, z - smooth / np.maximum(share, np.finfo(float).tiny), 0.0)
    variance = float((z[free] ** 2).mean())
    if variance == 0:
        return SkyNoise(level, pixels=values.size)
    correlation = _autocorrelation(z, free, variance, radius)
    lag1 = 0.5 * (correlation[0, 1][0] + correlation[1, 0][0])
    # Every lag but (0, 0) stands for itself and its opposite.
    total = 1 + 2 * sum(rho for rho, error in correlation.values() if abs(rho) > 3 * error)
    # Resampling moves variance of single pixels into correlations: where pixels scatter less than their
    # errors say, errors of sums are less too small. The factor of an estimated sky makes no error smaller.
    factor = max(math.sqrt(max(total, 0.0)) * min(math.sqrt(variance), 1.0), 1.0)
    rms = float((z * sigma)[free].std())
    return SkyNoise(level, rms, math.sqrt(variance), float(lag1), factor, values.size)


def noise_rms(image: Array, good: Mask) -> float:
    """Rms of the noise of an image that light may fill: of its sky, or of differences where there is little.

    0 where the image is constant.
    """
    _, level, clipped = (float(one) for one in sigma_clipped_stats(image[good], sigma=3, maxiters=20))
    free = good & ~_light(image, good, level, clipped) if clipped > 0 else np.zeros_like(good)
    steps = _rms_of_differences(image, good) or clipped
    if np.count_nonzero(free) < FEWEST_PIXELS:
        return min(clipped, steps)
    rms = sky_noise(image, np.full(image.shape, clipped), free).rms or clipped
    return min(clipped, rms if rms < _MOST_OVER_DIFFERENCES * steps else steps)


def _rms_of_differences(image: Array, good: Mask) -> float:
    """Rms of the noise from second differences, which light enters where it is sharp; 0 where there are none.

    The median of ``|2 d_i - d_(i-s) - d_(i+s)|`` over the image, times 1.4826 / 6^0.5, with s = 2 pixels
    (DER_SNR: Stoehr et al. 2008, ASPC 394, 505).
    """
    image = np.where(good, image, 0.0)
    near, far, wide = (_second_differences(image, good, step) for step in (1, 2, 3))
    return wide if near < _WIDE_SHARE * far else far


def _second_differences(image: Array, good: Mask, step: int) -> float:
    found = []
    for values, used in ((image, good), (image.T, good.T)):
        here, before, after = slice(step, -step), slice(None, -2 * step), slice(2 * step, None)
        complete = used[here] & used[before] & used[after]
        found.append((2 * values[here] - values[before] - values[after])[complete])
    sizes = np.abs(np.concatenate(found))
    return 1.4826 / math.sqrt(6) * float(np.median(sizes)) if sizes.size else 0.0


def residual_noise(observation: Observation, model: ArrayLike, weight: ArrayLike, sky: float) -> SkyNoise:
    """`measure_sky` of the residual where the model is faint, since arcs may fill a small field.

    ``model`` is the expected data, ``weight`` the inverse variance, 0 in unused pixels, (ny, nx) or flat;
    ``sky`` is the fitted sky of a pixel.
    """
    model, weight = (np.asarray(plane).reshape(observation.shape) for plane in (model, weight))
    sigma = np.where(weight > 0, 1 / np.sqrt(np.where(weight > 0, weight, 1)), np.inf)
    free = (weight > 0) & (np.abs(model - sky) < sigma)
    return sky_noise(observation.data - model, sigma, free)


def source_mask(observation: Observation) -> Mask:
    """Sources (ny, nx): connected pixels of the smoothed image that are significant, grown outward."""
    valid = observation.valid
    level = sigma_clipped_stats(observation.data[valid], sigma=3, maxiters=20)[1]
    return _light(observation.data, valid, level, observation.sigma())


def _light(image: Array, valid: Mask, level: float, sigma: Array | float) -> Mask:
    """`source_mask` of an image whose sky has this level."""
    z = np.where(valid, (image - level) / sigma, 0.0)
    smooth = ndimage.gaussian_filter(z, 2.0)
    _, middle, scatter = sigma_clipped_stats(smooth[valid], sigma=3, maxiters=20)
    if scatter <= 0:
        return np.zeros(valid.shape, dtype=bool)
    labels, number = ndimage.label(smooth > middle + SOURCE_SIGMA * scatter)
    large = np.bincount(labels.ravel(), minlength=number + 1) >= FEWEST_SOURCE_PIXELS
    large[0] = False
    return ndimage.binary_dilation(large[labels], iterations=4)


def _autocorrelation(z: Array, free: Mask, variance: float, radius: int) -> dict[tuple, tuple[float, float]]:
    """Correlation and its standard error at each lag of a half-plane within the radius."""
    # Pixels that wrap around land in a frame that is no sky.
    z, free = np.pad(z, radius), np.pad(free, radius)
    reach = range(-radius, radius + 1)
    result = {}
    for lag in ((dy, dx) for dy in reach for dx in reach if (dy, dx) > (0, 0) and dx**2 + dy**2 <= radius**2):
        pairs = max(int(np.count_nonzero(free & np.roll(free, lag, (0, 1)))), 1)
        mean = float((z * np.roll(z, lag, (0, 1))).sum()) / pairs
        result[lag] = mean / variance, 1 / math.sqrt(pairs)
    return result
