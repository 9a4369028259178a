"""No physics: bicubic interpolation, the baseline that every table shows."""

from dataclasses import dataclass, field

import numpy as np

from lenssr.grids import conserves_sum, resampling_factor
from lenssr.metrics import bicubic
from lenssr.reconstruction.assemble import make_result
from lenssr.reconstruction.fine_images import ccd
from lenssr.reconstruction.verdict import Run

__all__ = ["InterpolationReconstruction", "ModelFree", "OneByOne", "fill_masked"]


class OneByOne:
    """A reconstruction that solves one image after the other, by ``_solve_one`` of those that inherit it."""

    def parts(self, members):
        """Cut a list of (number, observation) into pieces: one each."""
        return [[member] for member in members]

    def solve(self, observations, finish):
        """What ``finish(solved, observation)`` makes of every image; ``solved`` is a `ModelFree`."""
        return [finish(self._solve_one(observation), observation) for observation in observations]


class InterpolationReconstruction(OneByOne):
    """Interpolate images; a masked pixel takes the mean of its neighbours first.

    Parameters
    ----------
    settings : `~lenssr.options.Settings`
    """

    def __init__(self, settings):
        self.settings = settings

    def _solve_one(self, observation):
        scale, planes = self.settings.scale, (observation.data, observation.sigma())
        filled, sigma = (fill_masked(plane, observation.mask) for plane in planes)
        image, error = bicubic(filled, scale), _bicubic_error(sigma, scale)
        return ModelFree(image, error, {"interpolated": True})


@dataclass(frozen=True, eq=False)
class ModelFree:
    """A finer image that no model of lens and source stands behind.

    Attributes
    ----------
    image, error : `~numpy.ndarray`, shape (scale ny, scale nx)
        Flux per finer pixel if that of a pixel is their sum, and its standard deviation.
    facts, meta : dict
        As of `~lenssr.reconstruction.assemble.make_result`.
    """

    image: np.ndarray
    error: np.ndarray
    facts: dict
    meta: dict = field(default_factory=dict)

    def result(self, observation, settings, elapsed):
        """The `~lenssr.SuperResolution`, without lens and source; its residual is of sums over pixels."""
        scale, unit, grid, mask = settings.scale, observation.unit, observation.grid, observation.mask
        factor = resampling_factor(unit, scale) * scale**2
        image = self.image * factor
        model = image.reshape(grid.shape[0], scale, grid.shape[1], scale)
        model = model.sum((1, 3)) if conserves_sum(unit) else model.mean((1, 3))
        # Masked pixels have a weight too, for a noise that is finite everywhere; their residual is 0.
        weight = fill_masked(observation.sigma(), mask) ** -2.0
        run = Run(observation, settings, model, weight, np.count_nonzero(~mask), self.facts)
        fine_mask = np.kron(mask, np.ones((scale, scale), dtype=bool))
        seen = {"error": self.error * factor, "mask": fine_mask, "MODEL": False}
        image = ccd(image, unit, wcs=grid.upsample(scale).wcs, **seen)
        fields = {"image": image, "sky": 0 * unit, "sky_error": 0 * unit}
        return make_result(run, fields, meta=self.meta, elapsed=elapsed)


# A new pixel sees four old ones along an axis, so that the responses to pixels this far apart do not overlap.
APART = 6


def fill_masked(array, mask):
    """Replace masked pixels by the mean of what is near, growing inwards until none is left.

    Parameters
    ----------
    array : `~numpy.ndarray`, shape (ny, nx)
    mask : `~numpy.ndarray` of bool, shape (ny, nx)

    Returns
    -------
    filled : `~numpy.ndarray`, shape (ny, nx)
    """
    from scipy.ndimage import uniform_filter

    array, known = np.where(mask, 0.0, array), ~mask
    while not known.all():
        weight = uniform_filter(known.astype(float), 3, mode="constant")
        total = uniform_filter(np.where(known, array, 0.0), 3, mode="constant")
        reached = ~known & (weight > 1e-6)
        array[reached] = total[reached] / weight[reached]
        known = known | reached
    return array


def _bicubic_error(sigma, scale):
    """Propagate independent errors through the bicubic kernel, whose two axes separate."""
    rows, columns = (_bicubic_matrix(size, scale) ** 2 for size in sigma.shape)
    return np.sqrt((columns @ (rows @ sigma**2).T).T) / scale**2


def _bicubic_matrix(size, scale):
    """The one-dimensional interpolation, sparse, shape (scale size, size)."""
    from scipy.sparse import csr_array

    new = np.arange(scale * size)
    place = (new + 0.5) / scale - 0.5
    matrix = csr_array((scale * size, size))
    for first in range(min(APART, size)):
        comb = np.zeros((1, size))
        comb[:, first::APART] = 1
        response = bicubic(comb, scale)[0] * scale**2
        tooth = np.clip(np.round((place - first) / APART), 0, (size - 1 - first) // APART).astype(int)
        matrix = matrix + csr_array((response, (new, first + APART * tooth)), shape=matrix.shape)
    return matrix
