"""What a network is shown of a batch of simulated lenses, and how its answer becomes an image."""

from functools import cached_property

import torch
from astropy.stats import gaussian_fwhm_to_sigma

from lenssr.imaging.operator import ImagingOperator
from lenssr.imaging.render_scene import kernel_options
from lenssr.networks.variance import told_variance

__all__ = ["Telescopes", "View"]

# Where light is integrated over pixels, so many rays along a side of one are enough to train with.
RAYS = 2
KEPT = 8


class Telescopes:
    """Operators from rays to pixels, built once for each camera; the last few are kept."""

    def __init__(self):
        self._known = {}

    def __call__(self, batch, scale=1):
        """Return the operator of a batch.

        Parameters
        ----------
        batch : `~lenssr.simulation.LensBatch`
        scale : int, optional
            How many of its pixels lie along one of the data's; 1 by default.

        Returns
        -------
        operator : `~lenssr.imaging.ImagingOperator`
        """
        # The PSF is a part of the value too: what is referred to keeps its id.
        key = batch.grid.shape, batch.pixel_scale, id(batch.psf), scale, batch.low.dtype, batch.device
        if key not in self._known:
            if len(self._known) >= KEPT:
                self._known.pop(next(iter(self._known)))
            self._known[key] = batch.psf, _operator(batch, scale)
        return self._known[key][1]


def _operator(batch, scale):
    grid = batch.grid.upsample(scale)
    rays = RAYS if batch.oversampling == "auto" else batch.oversampling
    kernel, options = kernel_options(batch.psf, grid.pixel_scale, oversampling=rays)
    options |= {"dtype": batch.low.dtype, "device": batch.device}
    return ImagingOperator(grid, kernel, oversampling=rays, **options)


class View:
    """A batch as an observer has it: images, their noise as far as they tell it, and the lens.

    Parameters
    ----------
    batch : `~lenssr.simulation.LensBatch`
    telescopes : `Telescopes`
    hidden : `torch.Tensor` of bool, shape (B, ny, nx), optional
        Pixels that are kept from the network; none by default.

    Attributes
    ----------
    image : `torch.Tensor`, shape (B, ny, nx)
        The noisy images.
    """

    def __init__(self, batch, telescopes, hidden=None):
        self.batch, self.image, self.hidden = batch, batch.low, hidden
        self._telescopes = telescopes

    @cached_property
    def variance(self):
        """Variance of the images as they tell it themselves, shape (B, ny, nx)."""
        seen = None if self.hidden is None else ~self.hidden
        return told_variance(self.image, self.batch.noise, seen)

    @cached_property
    def sigma(self):
        """Standard deviation, infinite where a pixel is hidden; shape (B, ny, nx)."""
        sigma = self.variance.sqrt()
        return sigma if self.hidden is None else sigma.masked_fill(self.hidden, torch.inf)

    @property
    def psf_sigma(self):
        """Standard deviation of the PSF along an axis in arcsec, 0 where there is none."""
        return self.batch.psf_fwhm * gaussian_fwhm_to_sigma

    @cached_property
    def operator(self):
        """`~lenssr.imaging.ImagingOperator` of the images."""
        return self._telescopes(self.batch)

    @cached_property
    def fine_operator(self):
        """The same of pixels ``batch.scale`` times finer."""
        return self._telescopes(self.batch, self.batch.scale)

    @cached_property
    def rays(self):
        """Where the rays of `operator` land in the source plane, x and y of shape (B, R)."""
        return self._trace(self.operator)

    @cached_property
    def fine_rays(self):
        """Where those of `fine_operator` land."""
        return self._trace(self.fine_operator)

    def _trace(self, operator):
        # What is known of a lens is the lens itself; substructure is not.
        scenes = self.batch.scenes
        alpha = scenes.lens.deflection_at(operator.x, operator.y, scenes.lens_vector)
        return tuple(place - shift for place, shift in zip((operator.x, operator.y), alpha, strict=True))

    def expected(self, model):
        """Expected data (B, ny, nx) of noise-free images: noise may shift them."""
        return self.batch.noise.moments(model)[0]
