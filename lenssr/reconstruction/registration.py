"""Images of one lens in one frame: by their WCSs, and by what they show."""

import logging
from dataclasses import replace

import numpy as np
from scipy import ndimage

from lenssr.exceptions import InputError

__all__ = ["in_one_frame", "offset_between"]

log = logging.getLogger(__name__)

# Largest offset that is looked for, as a share of the field: an Einstein radius away arcs look like others.
REACH = 0.15
# Pulls are compressed above this many sigma, so that arcs count beside the galaxy.
LINEAR_SIGMA = 3.0


def in_one_frame(observations, names, reference):
    """Observations with the grids of their pixels in the frame of a reference, by their WCSs.

    ``names`` are for the messages.

    Raises
    ------
    InputError
        If some have a WCS and others have none, or places on the sky differ by more than the field.
    """
    moved = []
    for observation, name in zip(observations, names, strict=True):
        if (observation.grid.wcs is None) != (reference.grid.wcs is None):
            raise InputError(
                f"{name} has {_has(observation)}, the first image {_has(reference)}: give all one"
            )
        if reference.grid.wcs is None:
            moved.append(observation)
            continue
        field = min(reference.grid.shape) * reference.grid.pixel_scale
        apart = separation(observation.grid, reference.grid)
        if not apart < field:
            raise InputError(
                f"{name} lies {apart:.4g} arcsec from the first image, whose field is {field:.4g} arcsec: "
                "give images of one lens"
            )
        moved.append(replace(observation, grid=observation.grid.seen_from(reference.grid)))
    return moved


def _has(observation):
    return "no WCS" if observation.grid.wcs is None else "a WCS"


def separation(grid, reference):
    """Distance of the centres of two grids in arcsec, on the sky where that is known."""
    if not (grid.wcs.has_celestial and reference.wcs.has_celestial):
        return 0.0
    return float(grid.to_sky(*grid.origin).separation(reference.to_sky(*reference.origin)).arcsec)


def offset_between(observation, reference):
    """How far to move an image (x, y, in arcsec) so that it lies on another, both in one frame.

    Where the correlation of both, smoothed to the same width and compressed, is largest: to some tenths of a
    pixel, which a fit of the pointing then makes better.
    """
    pixel = max(observation.grid.pixel_scale, reference.grid.pixel_scale)
    field = min(min(one.grid.shape) * one.grid.pixel_scale for one in (observation, reference))
    side = 2 * int(field / pixel / 2) + 1
    line = (np.arange(side) - side // 2) * pixel
    x, y = np.meshgrid(line, line)
    width = max(observation.psf_fwhm, reference.psf_fwhm, 2 * pixel) / 2.355
    first, second = (_on(x, y, one, width) for one in (reference, observation))
    shape = (2 * side, 2 * side)
    spectrum = np.fft.rfft2(first, shape) * np.conj(np.fft.rfft2(second, shape))
    correlation = np.fft.fftshift(np.fft.irfft2(spectrum, shape))
    reach = max(2, round(REACH * side))
    near = correlation[side - reach : side + reach + 1, side - reach : side + reach + 1]
    row, column = np.unravel_index(near.argmax(), near.shape)
    if min(row, column) == 0 or max(row, column) == 2 * reach:
        return 0.0, 0.0  # no maximum within reach: the WCS is all that there is
    steps = [
        _vertex(near[row, column - 1 : column + 2]) + column - reach,
        _vertex(near[row - 1 : row + 2, column]) + row - reach,
    ]
    return float(steps[0] * pixel), float(steps[1] * pixel)


def _vertex(values):
    """Place of the maximum of a parabola through three values, from the middle one."""
    before, here, after = values
    bend = before - 2 * here + after
    return 0.0 if bend >= 0 else 0.5 * (before - after) / bend


def _on(x, y, observation, width):
    """Compressed pulls at places of the frame, smoothed by a Gaussian of a width in arcsec."""
    grid, valid = observation.grid, observation.valid
    sigma = np.median(observation.sigma()[valid])
    pulls = np.where(valid, observation.data - np.median(observation.data[valid]), 0.0) / sigma
    pulls = ndimage.gaussian_filter(pulls, width / grid.pixel_scale)
    pulls = LINEAR_SIGMA * np.arcsinh(np.maximum(pulls, 0.0) / LINEAR_SIGMA)
    column, row = grid.to_pixel(x, y)
    found = ndimage.map_coordinates(pulls, [row, column], order=3, mode="constant")
    return found - found.mean()
