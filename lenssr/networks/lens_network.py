"""The network that says where the fit of an unknown lens begins, in front of images."""

import torch

from lenssr.exceptions import InputError
from lenssr.model.initial_guess import light_start, without_light
from lenssr.networks.variance import variance_from_neighbours
from lenssr.networks.weights import load

__all__ = ["LensNetwork"]


class LensNetwork:
    """A `~lenssr.networks.DeflectionNetwork` that says where the fit of an unknown lens begins.

    ``weights`` are those that come with lenssr by name, or a file; `InputError` if of another network.
    """

    def __init__(self, weights):
        try:
            self.network, _ = load(weights, kind="DeflectionNetwork")
        except InputError as error:
            raise InputError(f"start: {error}") from error
        self.network.requires_grad_(False)

    @torch.no_grad()
    def estimate(self, stack, scene):
        """`~lenssr.networks.LensEstimate` of all images, the light of the lens and the sky subtracted."""
        shape = (len(stack), *stack.grid.shape)
        valid = stack.valid.reshape(shape)
        arcs = without_light(stack, scene, light_start(stack, scene)).reshape(shape)
        variance = variance_from_neighbours(stack.data.reshape(shape), stack.noise, valid)
        # Other units may leave the range of single precision.
        unit = torch.where(valid, variance, 0).mean((-2, -1), keepdim=True).sqrt()
        sigma = (variance.sqrt() / unit).masked_fill(~valid, torch.inf)
        network = self.network.to(stack.device)
        return network((arcs / unit).float(), sigma.float(), stack.grid.pixel_scale)
