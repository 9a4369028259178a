"""The network that estimates an unknown lens, where its fit begins, applied to images."""

from pathlib import Path
from typing import Any

import torch

from lenssr.exceptions import InputError
from lenssr.model.initial_guess import light_start, without_light
from lenssr.networks.deflection import LensEstimate
from lenssr.networks.variance import variance_from_neighbours
from lenssr.networks.weights import load

__all__ = ["LensNetwork"]


class LensNetwork:
    """A `~lenssr.networks.DeflectionNetwork` for images; its weights are a name of lenssr's, or a file."""

    def __init__(self, weights: str | Path) -> None:
        try:
            self.network, _ = load(weights, kind="DeflectionNetwork")
        except InputError as error:
            raise InputError(f"start: {error}") from error
        self.network.requires_grad_(False)

    @torch.no_grad()
    def estimate(self, stack: Any, scene: Any) -> LensEstimate:
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
