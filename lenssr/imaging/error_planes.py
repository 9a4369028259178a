"""Error planes that were made from the counts that were seen, and the noise model that they stand for."""

import numpy as np
from scipy import ndimage

from lenssr.imaging.noise import PoissonNoise
from lenssr.imaging.sky import FEWEST_PIXELS, source_mask

__all__ = ["noise_of_counts"]

# Pixels: what changes over this many is light or exposure, what is left is noise.
_WINDOW = 5
# Rank correlation of noise and variance in the sky above which the plane knows the noise, and the share
# of its own scatter that may be left once the counts are taken out. A plane from a model has 0 and 1.
_FOLLOWS = 0.5
_LEFT = 0.5
# Within this of the photons of the known exposure, the slope is theirs.
_SAME_SLOPE = 0.1
_POSITIVE_SHARE = 0.99
_FLOOR = 1e-2


def noise_of_counts(observation, counts=None):
    """Find the photon noise in an error plane whose variance follows the very counts that were seen.

    Parameters
    ----------
    observation : `~lenssr.imaging.Observation`
        With an error plane.
    counts : float or `~numpy.ndarray`, shape (ny, nx), optional
        Detected counts in one unit of the image, if they are known.

    Returns
    -------
    noise : `~lenssr.imaging.PoissonNoise` or None
        Photon noise, and as background the rest of the plane: the plane itself where the model equals the
        data. None where the plane does not follow the counts beyond doubt, and for fewer than 200 pixels
        of sky.

    Notes
    -----
    Archives and users make error planes as ``sigma^2 = background^2 + max(data, 0) / exposure``. A pixel that
    happens to be low then has a smaller error than its neighbour that happens to be high, and pulls a fit
    down: by one count in every pixel, since ``sum (d - m) / d`` vanishes for m = 1 / <1 / d>, which is
    <d> - 1. The remedy is the one of photon noise everywhere: the variance takes the counts that
    the model expects.

    The plane knows the noise if, in the sky and after a running median is subtracted from both,
    variance and data correlate (rank correlation above 0.5), and if taking a multiple of the data out,
    clipped at zero or not, removes more than half of the scatter of the variance. Neither holds for constant
    errors, weight maps, or variances made from a model.

    References
    ----------
    Mighell 1999, ApJ 518, 380; Humphrey, Liu & Buote 2009, ApJ 693, 822.

    Examples
    --------
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
    # Planes of one value, and those in steps of the readout, need no statistics.
    if np.ptp(variance) <= 1e-6 * variance.max():
        return None
    sky = observation.valid & ~source_mask(observation)
    if np.count_nonzero(sky) < FEWEST_PIXELS:
        return None
    ripple = _ripple(variance)
    if not stats.spearmanr(_ripple(data)[sky], ripple[sky]).statistic > _FOLLOWS:
        return None
    found = [_without(variance, ripple, seen, sky, observation.valid, counts) for seen in _seen(data)]
    left, counts, rest = min(found, key=lambda one: one[0])
    if left > _LEFT * _width(ripple[sky]) or (rest > 0)[observation.valid].mean() < _POSITIVE_SHARE:
        return None
    floor = _FLOOR * float(np.median(rest[sky]))
    # What a masked pixel holds is no observation, but a noise model has to be finite there too.
    rest = np.where(observation.valid, np.maximum(rest, floor), np.median(rest[sky]))
    return PoissonNoise(counts, np.sqrt(rest)) if floor > 0 else None


def _seen(data):
    """What the variance may hold of the data: no negative counts, or all, if a sky was subtracted."""
    return np.maximum(data, 0), data


def _without(variance, ripple, seen, sky, valid, counts):
    """Scatter of the variance in the sky once photons are taken out, their counts per unit, and the rest."""
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
    return image - ndimage.median_filter(image, _WINDOW)


def _width(values):
    low, high = np.percentile(values, (16, 84))
    return high - low
