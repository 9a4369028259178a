"""The camera of a simulated data set: from scenes to noise-free images at two resolutions."""

from functools import cached_property

import torch

from lenssr.imaging.forward import ImagingOperator
from lenssr.simulation.item import sky_grid

__all__ = ["Camera"]

# Rays that are traced at once: on a processor the arrays of one image stay in its cache.
_TOGETHER = 2**24


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
    rays : int, optional
        With ``rays`` x ``rays`` rays in each high pixel, the low image is the sum over high ones. 0, the
        default, samples light at the centres of the low and of the high pixels instead, as the first
        DeepLense simulations do; there is no PSF then.
    """

    def __init__(self, pixels, pixel_scale, scale, psf=None, rays=0):
        self.pixels, self.pixel_scale, self.scale = pixels, float(pixel_scale), scale
        self.psf, self.rays = psf, rays
        self._planes = {}

    @cached_property
    def grid(self):
        """Low pixels, a `~lenssr.grids.PixelGrid`."""
        return sky_grid((self.pixels, self.pixels), self.pixel_scale)

    @property
    def oversampling(self):
        """How a model has to be integrated over pixels, as `~lenssr.SuperResolver` takes it."""
        return "auto" if self.rays else 1

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
        step = 1 if like.device.type == "cpu" else max(1, _TOGETHER // sum(len(plane.x) for plane in planes))
        parts = [scenes.select(slice(row, row + step)) for row in range(0, len(scenes), step)]
        images = [torch.cat([plane(part) for part in parts]) for plane in planes]
        if len(images) == 1:
            shape = len(scenes), self.pixels, self.scale, self.pixels, self.scale
            images.append(images[0].reshape(shape).sum((2, 4)))
        return images

    def _planes_for(self, device, dtype, traced):
        key = str(device), dtype, traced
        if key not in self._planes:
            fine = self.grid.upsample(self.scale)
            options = {"dtype": dtype, "device": device}
            if self.rays:
                kernel = None if self.psf is None else self.psf.kernel(fine.pixel_scale)
                operators = [ImagingOperator(fine, kernel, oversampling=self.rays, **options)]
            else:
                operators = [ImagingOperator(grid, oversampling=1, **options) for grid in (fine, self.grid)]
            self._planes[key] = [_Plane(operator, traced) for operator in operators]
        return self._planes[key]

    def __getstate__(self):
        # rays are soon traced again; workers need not be sent them
        return {**self.__dict__, "_planes": {}}


class _Plane:
    """The rays of one grid, traced through the one lens of all scenes where there is one."""

    def __init__(self, operator, lens):
        self._operator, self._lens = operator, lens
        self.x, self.y = operator.x, operator.y
        if lens is not None:
            x, y = self.x.double()[None], self.y.double()[None]
            alpha = lens.deflection_at(x, y, lens.vector[None].to(x))
            self._beta = [(ray - shift).to(self.x) for ray, shift in zip((x, y), alpha, strict=True)]

    def __call__(self, scenes):
        """Images of scenes."""
        x, y = self.x[None], self.y[None]
        if self._lens is None:
            return self._operator(scenes.brightness(x, y))
        beta_x, beta_y = self._beta
        if scenes.subhalos is not None:
            alpha_x, alpha_y = scenes.substructure_deflection(x, y)
            beta_x, beta_y = beta_x - alpha_x, beta_y - alpha_y
        return self._operator(scenes.source(beta_x, beta_y))
