"""A network makes an image finer, without the lens equation."""

import numpy as np
import torch

from lenssr.exceptions import InputError
from lenssr.imaging.noise import stack_noise
from lenssr.networks.network_source import image_properties
from lenssr.networks.variance import variance_from_neighbours
from lenssr.options import SEARCH
from lenssr.reconstruction.model_free import ModelFree, OneByOne, fill_masked

__all__ = ["SISRReconstruction"]

# Noisy twins of an image that give its errors, each to a fifth; all the time of a result is theirs.
TWINS = 16


class SISRReconstruction(OneByOne):
    """Solve images with an `~lenssr.networks.SISR`.

    Errors are those that the noise of the data leaves in what the network makes of them: its own mistakes are
    not in them. The residual tells whether sums over finer pixels are what was seen.

    Parameters
    ----------
    settings : `~lenssr.options.Settings`
    known : `~lenssr.networks.network_source.TrainedNetwork`

    Raises
    ------
    InputError
        If the settings ask for what this network does not know.
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
            "lens": settings.lens is not None,
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
        settings, device = self.settings, self.settings.torch_device
        image = torch.as_tensor(fill_masked(observation.data, observation.mask), device=device)[None]
        variance = self._variance(image, observation)
        sigma = fill_masked(variance[0].sqrt().cpu().numpy(), observation.mask)
        sigma = torch.as_tensor(sigma, device=device)
        rng = np.random.default_rng(settings.seed)
        normals = torch.as_tensor(rng.standard_normal((TWINS, *observation.shape)), device=device)
        finer = self._finer(torch.cat([image, image + sigma * normals]), sigma)
        error = (finer[1:] - finer[:1]).square().mean(0).sqrt()
        finer, error = finer[0].cpu().numpy(), error.cpu().numpy()
        hidden = torch.as_tensor(observation.mask, device=device)
        seen = image_properties(observation, image, variance.masked_fill(hidden, torch.inf))
        words = self.known.out_of_domain(seen)
        facts = {"not_relensed": True, "unlike_training": bool(words)}
        meta = {"network": {**self.known.describe(), "unlike_training": words}}
        return ModelFree(finer, error, facts, meta)

    def _variance(self, image, observation):
        valid = torch.as_tensor(~observation.mask, device=image.device)[None]
        return variance_from_neighbours(image, stack_noise([observation.noise]).on(image.device), valid)

    @torch.no_grad()
    def _finer(self, images, sigma):
        """Finer images, made in single precision in units of the noise."""
        unit = sigma.mean()
        network = self.known.network.to(images.device)
        noise = (sigma / unit).float().expand_as(images) if network.with_noise else None
        return network((images / unit).float(), noise).double() * unit
