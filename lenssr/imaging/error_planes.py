"""Noise models for error planes that were made from the observed counts."""

import numpy as np
from scipy import ndimage

from lenssr.imaging.noise import PoissonNoise
from lenssr.imaging.sky import FEWEST_PIXELS, source_mask

__all__ = ["noise_of_counts"]

# Side of the running median, in pixels, that separates light and exposure from noise.
_MEDIAN_SIDE = 5
# A plane follows the noise if the rank correlation of noise and variance in the sky is above the first, and
# the scatter that remains without the counts is below the second. A plane from a model has 0 and 1.
_LEAST_CORRELATION = 0.5
_LARGEST_REST = 0.5
# Largest relative difference between the slope and that of the known exposure that counts as equal.
_SAME_SLOPE = 0.1
# Least share of pixels with positive remaining variance; least remaining variance over its median.
_POSITIVE_SHARE = 0.99
_FLOOR = 1e-2


def noise_of_counts(observation, counts=None):
    """Photon noise model for an error plane that follows the observed counts; None if it does not.

    ``counts`` is the number of counts in a unit of the image, (ny, nx) or one number, if known. The model's
    background is the rest of the plane, so that its variance equals the plane's where the model equals the
    data. Planes with fewer than 200 pixels of sky give None.

    Error planes are often made as ``sigma^2 = background^2 + max(data, 0) / exposure``. A pixel with a low
    count then has a smaller error than its neighbour with a high one, and biases a fit: by one count in every
    pixel, since ``sum (d - m) / d`` vanishes for m = 1 / <1 / d>, which is <d> - 1. The variance has to
    follow the expected counts instead. A plane follows the data if, in the sky and after subtracting a
    running median from both, variance and data have a rank correlation above 0.5, and if subtracting a
    multiple of the data, clipped at zero or not, removes more than half of the scatter of the variance.
    Neither holds for constant errors, weight maps, or variances of a model. Mighell 1999, ApJ 518, 380;
    Humphrey, Liu & Buote 2009, ApJ 693, 822.

    >>> import numpy as np
    >>> from lenssr.imaging import Observation
    >>> from lenssr.imaging.error_planes import noise_of_counts
    >>> data = np.random.default_rng(1).poisson(4.0, (40, 40)).astype(float)
    >>> options = {"pixel_scale": 0.05, "unit": "electron"}
    >>> noise_of_counts(Observation.from_any(data, noise=2.0, **options)) is None
    True
    >>> seen = Observation.from_any(data, noise=np.sqrt(1 + data), **options)
    >>> seen.flags, seen.noise
    (('errors_follow_counts',), PoissonNoise(exposure=1.0, background_rms=1.0))
    """
    from scipy import stats

    variance, data = observation.error**2, observation.data
    # Constant planes need no statistics.
    if np.ptp(variance) <= 1e-6 * variance.max():
        return None
    sky = observation.valid & ~source_mask(observation)
    if np.count_nonzero(sky) < FEWEST_PIXELS:
        return None
    ripple = _ripple(variance)
    if not stats.spearmanr(_ripple(data)[sky], ripple[sky]).statistic > _LEAST_CORRELATION:
        return None
    found = [
        _without_photons(variance, ripple, seen, sky, observation.valid, counts)
        for seen in _photon_parts(data)
    ]
    left, counts, rest = min(found, key=lambda one: one[0])
    if left > _LARGEST_REST * _width(ripple[sky]) or (rest > 0)[observation.valid].mean() < _POSITIVE_SHARE:
        return None
    floor = _FLOOR * float(np.median(rest[sky]))
    # A noise model has to be finite in masked pixels, too.
    rest = np.where(observation.valid, np.maximum(rest, floor), np.median(rest[sky]))
    return PoissonNoise(counts, np.sqrt(rest)) if floor > 0 else None


def _photon_parts(data):
    """Data that the variance may follow: without negative counts, or all if a sky was subtracted."""
    return np.maximum(data, 0), data


def _without_photons(variance, ripple, seen, sky, valid, counts):
    """Scatter of the variance in the sky without photon noise, counts per unit, remaining variance."""
    scale = 1.0 if counts is None else 1 / np.asarray(counts)
    step = _ripple(seen * scale)
    slope = float((step * ripple)[valid].sum() / max((step**2)[valid].sum(), np.finfo(float).tiny))
    if counts is not None and abs(slope - 1) < _SAME_SLOPE:
        slope = 1.0
    if slope <= 0:
        return np.inf, 1.0, variance
    rest = variance - slope * scale * seen
    return _width(_ripple(rest)[sky]), 1 / (slope * scale), rest


def _ripple(image):
    return image - ndimage.median_filter(image, _MEDIAN_SIDE)


def _width(values):
    low, high = np.percentile(values, (16, 84))
    return high - low
