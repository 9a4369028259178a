"""Inputs of a network from a batch of simulated lenses, and operators for its output."""

from functools import cached_property

import torch
from astropy.stats import gaussian_fwhm_to_sigma

from lenssr.imaging.operator import ImagingOperator
from lenssr.imaging.render_scene import kernel_options
from lenssr.networks.variance import variance_from_neighbours

__all__ = ["Telescopes", "View"]

# Rays along a side of a pixel, if light is integrated: enough for training. Operators that are kept.
RAYS = 2
OPERATORS_KEPT = 8


class Telescopes:
    """Operators from rays to pixels, built once for each camera; the last few are kept."""

    def __init__(self):
        self._operators = {}

    def __call__(self, batch, scale=1):
        """Operator of a batch, for ``scale`` times finer pixels."""
        # The value holds the PSF, too, so that its id stays unique.
        key = batch.grid.shape, batch.pixel_scale, id(batch.psf), scale, batch.low.dtype, batch.device
        if key not in self._operators:
            if len(self._operators) >= OPERATORS_KEPT:
                self._operators.pop(next(iter(self._operators)))
            self._operators[key] = batch.psf, _operator(batch, scale)
        return self._operators[key][1]


def _operator(batch, scale):
    grid = batch.grid.upsample(scale)
    rays = RAYS if batch.oversampling == "auto" else batch.oversampling
    kernel, options = kernel_options(batch.psf, grid.pixel_scale, oversampling=rays)
    options |= {"dtype": batch.low.dtype, "device": batch.device}
    return ImagingOperator(grid, kernel, oversampling=rays, **options)


class View:
    """A batch as an observer has it: images, their noise estimated from them, and the lens.

    ``hidden`` (B, ny, nx) marks pixels that the network must not see.
    """

    def __init__(self, batch, telescopes, hidden=None):
        self.batch, self.image, self.hidden = batch, batch.low, hidden
        self._telescopes = telescopes

    @cached_property
    def variance(self):
        """Variance of the images, shape (B, ny, nx), estimated from them."""
        seen = None if self.hidden is None else ~self.hidden
        return variance_from_neighbours(self.image, self.batch.noise, seen)

    @cached_property
    def sigma(self):
        """Standard deviation, infinite where a pixel is hidden; shape (B, ny, nx)."""
        sigma = self.variance.sqrt()
        return sigma if self.hidden is None else sigma.masked_fill(self.hidden, torch.inf)

    @property
    def psf_sigma(self):
        """Standard deviation of the PSF along an axis in arcsec, 0 without a PSF."""
        return self.batch.psf_fwhm * gaussian_fwhm_to_sigma

    @cached_property
    def operator(self):
        """`~lenssr.imaging.ImagingOperator` of the images."""
        return self._telescopes(self.batch)

    @cached_property
    def fine_operator(self):
        """Operator of ``batch.scale`` times finer pixels."""
        return self._telescopes(self.batch, self.batch.scale)

    @cached_property
    def rays(self):
        """Positions of the rays of `operator` in the source plane, x and y of shape (B, R)."""
        return self._trace(self.operator)

    @cached_property
    def fine_rays(self):
        """The same for the rays of `fine_operator`."""
        return self._trace(self.fine_operator)

    def _trace(self, operator):
        # The network knows the lens, but not its substructure.
        scenes = self.batch.scenes
        alpha = scenes.lens.deflection_at(operator.x, operator.y, scenes.lens_vector)
        return tuple(place - shift for place, shift in zip((operator.x, operator.y), alpha, strict=True))

    def expected(self, model):
        """Expected data (B, ny, nx) of noise-free images; noise may shift the mean."""
        return self.batch.noise.moments(model)[0]
