"""No physics: bicubic interpolation, the baseline that every table shows."""

import numpy as np
from astropy.table import QTable

from lenssr.grids import conserves_sum, resampling_factor
from lenssr.metrics import bicubic
from lenssr.reconstruction.fine_images import ccd
from lenssr.reconstruction.verdict import is_ok, judge
from lenssr.result import SuperResolution

__all__ = ["InterpolationReconstruction", "OneByOne", "fill_masked", "model_free"]


class OneByOne:
    """A reconstruction that solves one image after the other, by ``_solve_one`` of those that inherit it."""

    def parts(self, members):
        """Cut a list of (number, observation) into pieces: one each."""
        return [[member] for member in members]

    def solve(self, observations):
        """Solve images.

        Parameters
        ----------
        observations : list of `~lenssr.imaging.Observation`

        Returns
        -------
        results : list of `~lenssr.SuperResolution`
        """
        return [self._solve_one(observation) for observation in observations]


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
        return model_free(observation, self.settings, image, error, {"interpolated": True})


def model_free(observation, settings, image, error, measures):
    """The result of a finer image that no model of lens and source stands behind.

    Parameters
    ----------
    observation : `~lenssr.imaging.Observation`
    settings : `~lenssr.options.Settings`
    image, error : `~numpy.ndarray`, shape (scale ny, scale nx)
        Flux per finer pixel if that of a pixel is their sum, and its standard deviation.
    measures : dict
        For `~lenssr.reconstruction.verdict.judge`.

    Returns
    -------
    result : `~lenssr.SuperResolution`
        Without lens and source; its residual is that of the sums over pixels.
    """
    scale, unit, grid, mask = settings.scale, observation.unit, observation.grid, observation.mask
    factor = resampling_factor(unit, scale) * scale**2
    image = image * factor
    model = image.reshape(grid.shape[0], scale, grid.shape[1], scale)
    model = model.sum((1, 3)) if conserves_sum(unit) else model.mean((1, 3))
    sigma = fill_masked(observation.sigma(), mask)
    residual = np.where(mask, 0.0, observation.data - model)
    chi2_map = (residual / sigma) ** 2
    fine = grid.upsample(scale)
    fine_mask = np.kron(mask, np.ones((scale, scale), dtype=bool))
    flags = judge(measures, observation.flags)
    return SuperResolution(
        image=ccd(image, unit, wcs=fine.wcs, error=error * factor, mask=fine_mask, MODEL=False),
        lensed_source=None,
        lens_light_image=None,
        source=None,
        data=ccd(observation.data, unit, wcs=grid.wcs, error=sigma, mask=mask),
        model_image=ccd(model, unit, wcs=grid.wcs),
        residual=ccd(residual, unit, wcs=grid.wcs, error=sigma, mask=mask),
        chi2_map=chi2_map,
        reduced_chi2=float(chi2_map[~mask].mean()),
        lens=None,
        source_model=None,
        lens_light=None,
        sky=0 * unit,
        sky_error=0 * unit,
        parameters=QTable(names=PARAMETER_COLUMNS, dtype=(str, str, float, float, str, bool)),
        flags=flags,
        ok=is_ok(flags),
        meta={**settings.describe(), **observation.meta, "pixel_scale": grid.pixel_scale},
    )


# A new pixel sees four old ones along an axis, so that the responses to pixels this far apart do not overlap.
APART = 6
PARAMETER_COLUMNS = ("name", "component", "value", "error", "unit", "fixed")


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
