"""Sérsic profiles fitted to images through their lenses, the targets of LensSR with source."""

import hashlib

import torch

from lenssr.imaging.render_scene import kernel_options
from lenssr.light.sersic import sersic_brightness
from lenssr.model.fit import fit_known_lens
from lenssr.model.image_stack import ImageStack
from lenssr.model.scene import Scene

__all__ = ["SersicFitter"]


class SersicFitter:
    """Fit a Sérsic behind the known lens of each image, once, and lens it at the finer resolution."""

    def __init__(self):
        self._fitted_vectors = {}

    def __call__(self, view):
        """Lensed profiles (B, ny * scale, nx * scale) in flux per finer pixel."""
        x, y = view.fine_rays
        vectors = self.vectors(view.batch).to(x)
        return view.fine_operator(sersic_brightness(x, y, *vectors.T.unsqueeze(-1)))

    def vectors(self, batch):
        """Parameters (B, 7) of the profiles, as `~lenssr.light.sersic_brightness` takes them."""
        keys = [hashlib.blake2b(image.cpu().numpy().tobytes()).digest() for image in batch.low]
        new = [row for row, key in enumerate(keys) if key not in self._fitted_vectors]
        if new:
            for row, vector in zip(new, _fitted(batch, new), strict=True):
                self._fitted_vectors[keys[row]] = vector
        return torch.stack([self._fitted_vectors[key] for key in keys])


def _fitted(batch, rows):
    grid, oversampling = batch.grid, batch.oversampling
    kernel, options = kernel_options(batch.psf, grid.pixel_scale, oversampling=oversampling)
    data = batch.low[rows].double()
    stack = ImageStack(
        data,
        torch.ones_like(data, dtype=torch.bool),
        batch.noise.select(torch.tensor(rows, device=batch.device)),
        grid,
        kernel,
        oversampling=oversampling,
        device=batch.device,
        **options,
    )
    scene = Scene(
        lens=batch.scenes.lens,
        lens_free=False,
        lens_light=0,
        sky=False,
        extent=0.5 * max(grid.shape) * grid.pixel_scale,
        device=batch.device,
    )
    fits = fit_known_lens(stack, scene, batch.scenes.lens_vector[rows].double())
    source = scene["source"].slice
    return [fit.physical[source].cpu() for fit in fits]
