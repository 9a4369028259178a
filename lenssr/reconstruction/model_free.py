"""Finer images without a model of lens and source: bicubic interpolation (the baseline) and SISR."""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from scipy.sparse import csr_array

from lenssr.exceptions import InputError
from lenssr.grids import conserves_sum, resampling_factor
from lenssr.imaging.detection import variance_from_neighbours
from lenssr.imaging.noise import stack_noise
from lenssr.metrics import bicubic
from lenssr.networks.network_source import image_properties
from lenssr.options import ISOTHERMAL, SEARCH
from lenssr.reconstruction.assemble import make_result
from lenssr.reconstruction.fine_images import ccd
from lenssr.reconstruction.verdict import Run

# Pixels along an axis between bicubic responses that do not overlap: each new pixel sees four old ones.
APART = 6
# Noisy copies of an image that give the errors of an SISR, to a fifth; they take all the time of a result.
COPIES = 16


class ModelFreeReconstruction:
    """Solve images one after the other, by ``_solve_one`` of subclasses; they know no objects."""

    def parts(self, members):
        """Cut a list of (number, observation) into pieces: one each."""
        return [[member] for member in members]

    def solve(self, observations, finish):
        """Results of ``finish(solved, observation)`` for every image; ``solved`` is a `ModelFree`."""
        return [finish(self._solve_one(observation), observation) for observation in observations]


class InterpolationReconstruction(ModelFreeReconstruction):
    """Interpolate images; a masked pixel takes the mean of its neighbours first."""

    def __init__(self, settings):
        self.settings = settings

    def _solve_one(self, observation):
        scale, planes = self.settings.scale, (observation.data, observation.sigma())
        filled, sigma = (fill_masked(plane, observation.mask) for plane in planes)
        return ModelFree(bicubic(filled, scale), _bicubic_error(sigma, scale), {"interpolated": True})


class SISRReconstruction(ModelFreeReconstruction):
    """Solve images with an `~lenssr.networks.SISR`, the ``known`` network.

    Errors are what the noise of the data leaves in the output of the network; its own mistakes are not in
    them. The residual tells whether sums over finer pixels agree with the data.
    """

    def __init__(self, settings, known):
        self.settings, self.known, self.networks = settings, known, [known]
        own = known.network.scale
        if settings.scale != own:
            raise InputError(
                f"scale = {settings.scale} with weights {known.name!r}: the network makes images {own} times "
                "finer, give that scale"
            )
        refused = {
            "lens": settings.lens != ISOTHERMAL,
            "start": settings.start != SEARCH,
            "lens_light": settings.lens_light is not None,
            "psf_out": settings.psf_out is not None,
            "prior": settings.prior != "auto",
            "refine": settings.network.refine > 0,
        }
        for name in (name for name, asked in refused.items() if asked):
            raise InputError(
                f"{name} with weights {known.name!r}: an SISR makes an image finer without a model of lens "
                "and source, leave it out"
            )

    def _solve_one(self, observation):
        device, mask = self.settings.torch_device, observation.mask
        image = torch.as_tensor(fill_masked(observation.data, mask), device=device)[None]
        hidden = torch.as_tensor(mask, device=device)
        noise = stack_noise([observation.noise]).on(device)
        variance = variance_from_neighbours(image, noise, ~hidden[None])
        sigma = torch.as_tensor(fill_masked(variance[0].sqrt().cpu().numpy(), mask), device=device)
        normals = np.random.default_rng(self.settings.seed).standard_normal((COPIES, *observation.shape))
        noisy = image + sigma * torch.as_tensor(normals, device=device)
        finer = self._finer(torch.cat([image, noisy]), sigma)
        error = (finer[1:] - finer[:1]).square().mean(0).sqrt()
        seen = image_properties(observation, image, variance.masked_fill(hidden, torch.inf))
        words = self.known.out_of_domain(seen)
        facts = {"not_relensed": True, "unlike_training": bool(words)}
        meta = {"network": {**self.known.describe(), "unlike_training": words}}
        return ModelFree(finer[0].cpu().numpy(), error.cpu().numpy(), facts, meta)

    @torch.no_grad()
    def _finer(self, images, sigma):
        """Finer images, made in single precision in units of the noise."""
        unit = sigma.mean()
        network = self.known.network.to(images.device)
        noise = (sigma / unit).float().expand_as(images) if network.with_noise else None
        return network((images / unit).float(), noise).double() * unit


@dataclass(frozen=True, eq=False)
class ModelFree:
    """A finer image (scale ny, scale nx) without a model of lens and source, and its standard deviation.

    Both are flux per finer pixel if that of a pixel is their sum. ``facts`` and ``meta`` are those of
    `~lenssr.reconstruction.assemble.make_result`.
    """

    image: NDArray
    error: NDArray
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


def fill_masked(array: NDArray, mask: NDArray) -> NDArray:
    """Replace masked pixels (ny, nx) by the mean of their neighbours, growing inwards until none is left."""
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
