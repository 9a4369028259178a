"""The camera of a simulated data set: from scenes to noise-free images at two resolutions."""

import math
from functools import cached_property

import numpy as np
import torch

from lenssr.imaging.operator import ImagingOperator
from lenssr.imaging.quadrature import gauss_rule, midpoint_rule, rays_in_cells
from lenssr.simulation.item import sky_grid

__all__ = ["Camera"]

# Rays that are traced at once, by the kind of device; on a processor those of one image stay in its cache.
_TOGETHER = {"cpu": 1, "other": 2**24}
# The steepest pixels of an image, and into how many parts along a side they are divided.
_STEEP, _PARTS = 48, 5


class Camera:
    """A camera with square images, which renders scenes in batches.

    Parameters
    ----------
    pixels : int
        How many lie along a side of the low image.
    pixel_scale : float
        Their side in arcsec.
    scale : int
        How many high pixels lie along a low one.
    psf : `~lenssr.imaging.PSF`, optional
        Point spread function, applied at the sampling of the high pixels. Default: none.
    integrate : bool, optional
        Whether light is integrated over the high pixels, by 2 x 2 Gauss-Legendre points, 10 x 10 points in
        the 48 steepest pixels of an image, and the low image is the sum over high pixels; True by default.
        Otherwise it is sampled at the centres of the low and of the high pixels, as the first DeepLense
        simulations do; there is no PSF then.
    """

    def __init__(self, pixels, pixel_scale, scale, psf=None, integrate=True):
        self.pixels, self.pixel_scale, self.scale = pixels, float(pixel_scale), scale
        self.psf, self.integrate = psf, integrate
        self._planes = {}

    @cached_property
    def grid(self):
        """Low pixels, a `~lenssr.grids.PixelGrid`."""
        return sky_grid((self.pixels, self.pixels), self.pixel_scale)

    @property
    def oversampling(self):
        """How a model has to be integrated over pixels, as `~lenssr.SuperResolver` takes it."""
        return "auto" if self.integrate else 1

    def render(self, scenes, traced=None):
        """Noise-free images.

        Parameters
        ----------
        scenes : `~lenssr.simulation.LensScenes`
            Their device and type are those of the images.
        traced : `~lenssr.mass.MassModel`, optional
            The one lens of all scenes, if it is the same: then rays are traced through it once, and only
            through substructure anew.

        Returns
        -------
        truth : `torch.Tensor`, shape (B, ny * scale, nx * scale)
        low_truth : `torch.Tensor`, shape (B, ny, nx)
            In electron / s per pixel.

        Notes
        -----
        What one image is does not depend on the others: on a processor scenes are rendered one after the
        other, elsewhere many at once, as memory allows.
        """
        like = scenes.lens_vector
        planes = self._planes_for(like.device, like.dtype, traced)
        together = _TOGETHER.get(like.device.type, _TOGETHER["other"])
        step = max(1, together // sum(len(plane.x) for plane in planes))
        low, high = self.pixels, self.pixels * self.scale
        truth, low_truth = (_empty((len(scenes), side, side), like) for side in (high, low))
        for row in range(0, len(scenes), step):
            rows = slice(row, row + step)
            part = scenes.select(rows)
            images = [plane(part) for plane in planes]
            if len(images) == 1:
                images.append(images[0].reshape(-1, low, self.scale, low, self.scale).sum((2, 4)))
            truth[rows], low_truth[rows] = images
        return truth, low_truth

    def _planes_for(self, device, dtype, traced):
        key = str(device), dtype, traced
        if key not in self._planes:
            fine = self.grid.upsample(self.scale)
            options = {"dtype": dtype, "device": device}
            if self.integrate:
                kernel = None if self.psf is None else self.psf.kernel(fine.pixel_scale)
                operators = [ImagingOperator(fine, kernel, **options)]
            else:
                operators = [ImagingOperator(grid, oversampling=1, **options) for grid in (fine, self.grid)]
            self._planes[key] = [_Plane(operator, traced) for operator in operators]
        return self._planes[key]

    def __getstate__(self):
        # rays are soon traced again; workers need not be sent them
        return {**self.__dict__, "_planes": {}}


def _empty(shape, like):
    """Memory for images; numpy asks the system for large pages, which are several times faster to get."""
    if like.device.type != "cpu":
        return like.new_empty(shape)
    return torch.from_numpy(np.empty(shape, dtype=like[:0].numpy().dtype))


class _Plane:
    """The rays of one grid, traced through the one lens of all scenes where there is one.

    Rays are in the order of their place in the pixel, then of the pixel, so that sums over a pixel are over
    long rows.
    """

    def __init__(self, operator, lens):
        self._operator, self._lens = operator, lens
        number = math.prod(operator.shape)
        self.shape = operator.shape
        self.x, self.y = (ray.reshape(number, -1).T.reshape(-1) for ray in (operator.x, operator.y))
        if lens is not None:
            x, y = self.x.double()[None], self.y.double()[None]
            alpha = lens.deflection_at(x, y, lens.vector[None].to(x))
            self._beta = [(ray - shift).to(self.x) for ray, shift in zip((x, y), alpha, strict=True)]
        self._finer = self._pixels = None
        if len(self.x) > number:
            self._pixels = [ray.reshape(-1, number).mean(0) for ray in (self.x, self.y)]
            parts = rays_in_cells(*midpoint_rule(_PARTS), 1 / _PARTS, gauss_rule())
            self._finer = [(offset * operator.grid.pixel_scale).to(self.x) for offset in parts]

    def __call__(self, scenes):
        """Images of scenes."""
        values = self._values(scenes)
        values = values.reshape(len(scenes), -1, math.prod(self.shape))
        pixels = values[:, 0] if self._finer is None else self._refined(scenes, values)
        pixels = pixels.reshape(len(scenes), *self.shape)
        return self._operator.convolve(pixels.mul_(self._operator.grid.pixel_area))

    def _values(self, scenes):
        x, y = self.x[None], self.y[None]
        if self._lens is None:
            return scenes.brightness(x, y)
        beta_x, beta_y = self._beta
        if scenes.subhalos is not None:
            alpha_x, alpha_y = scenes.substructure_deflection(x, y)
            beta_x, beta_y = beta_x - alpha_x, beta_y - alpha_y
        return scenes.source(beta_x, beta_y)

    def _refined(self, scenes, values):
        """Means over pixels, from many more rays where the few differ most: cusps, and light near a mass."""
        means = values.mean(1)
        number = min(_STEEP, means.shape[1])
        steep = (values.amax(1) - values.amin(1)).topk(number, dim=1, sorted=False).indices
        x, y = (
            (middle[steep].unsqueeze(-1) + offset).flatten(1)
            for middle, offset in zip(self._pixels, self._finer, strict=True)
        )
        finer = scenes.brightness(x, y).reshape(len(scenes), number, -1).mean(-1)
        return means.scatter(1, steep, finer)
