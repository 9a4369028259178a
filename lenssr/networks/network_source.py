"""Trained networks at work: for the source, with the domain of their images, and for the start of a lens."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lenssr._limits import quoted
from lenssr.exceptions import InputError
from lenssr.imaging.detection import signal_to_noise, variance_from_neighbours
from lenssr.model.initial_guess import light_start, without_light
from lenssr.networks.deflection import LensEstimate
from lenssr.networks.relensing import RelensingNetwork
from lenssr.networks.sisr import SISR
from lenssr.networks.weights import Card, available, find, load, load_networks
from lenssr.units import positive_integer

# Default weights, those with the narrower training ranges first.
DEFAULT_WEIGHTS = ("relensing", "relensing-broad")
# Largest number of Gauss-Newton steps: a fit ends after some ten.
MOST_STEPS = 1000
# Training ranges: their names for people, unit, and the factor on their ends, which were measured on a sample
# of the images.
RANGES = {
    "pixel_scale": ("pixel scale", '"', 1.02),
    "psf_fwhm": ("FWHM of the PSF", '"', 1.05),
    "snr": ("signal-to-noise ratio", "", 1.5),
}


@dataclass(frozen=True)
class NetworkSource:
    """A trained network draws the source; ``SuperResolver(source=NetworkSource(...))``.

    Parameters
    ----------
    weights : str or path, optional
        One of the weights that come with lenssr (`~lenssr.networks.available`), or a file of
        `~lenssr.networks.save_weights`. By default weights of a `~lenssr.networks.RelensingNetwork` that were
        trained on images like the given one. An `~lenssr.networks.SISR` makes the image finer without
        a lens and without a source.
    refine : int, optional
        Gauss-Newton steps of the free-form source that follow, beginning with the source of the network; 0
        by default. An unknown lens moves with them.

    Raises
    ------
    InputError
        If there are no such weights, or the number of steps has no meaning.

    Examples
    --------
    >>> from lenssr import NetworkSource
    >>> NetworkSource(refine=2)
    NetworkSource(weights=None, refine=2)
    """

    weights: Any = None
    refine: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.weights, PathLike):
            object.__setattr__(self, "weights", fspath(self.weights))
        if self.weights is not None:
            find(self.weights)
        refine = positive_integer(self.refine, "refine", 0)
        if refine > MOST_STEPS:
            raise InputError(f"refine = {quoted(self.refine)}: give at most {MOST_STEPS} steps")
        object.__setattr__(self, "refine", refine)


@dataclass(frozen=True)
class TrainedNetwork:
    """A network with the name of its weights, and the SHA-256 of their file (else `weights.checksum_of`)."""

    name: str
    network: torch.nn.Module
    card: Card
    checksum: str

    def out_of_domain(self, properties: dict[str, float]) -> list[str]:
        """Those `image_properties` that lie outside the training ranges, in words."""
        found = []
        for name, (low, high) in ((name, ends) for name, ends in self.card.limits.items() if name in RANGES):
            value, (what, unit, more) = properties[name], RANGES[name]
            if not low / more <= value <= high * more:
                found.append(f"{what} {value:.4g}{unit}, trained on {low:.4g}{unit} to {high:.4g}{unit}")
        return found

    @property
    def origin(self) -> dict[str, str]:
        """Name and checksum as plain values, as saved resolvers store them."""
        return {"name": self.name, "checksum": self.checksum}

    def describe(self) -> dict[str, Any]:
        """Name, kind and checksum as plain values."""
        return {**self.origin, "kind": self.network.kind}


def trained_networks(weights: str | None) -> list[TrainedNetwork]:
    """Networks for the weights of a `NetworkSource`; by default the ones of lenssr."""
    names = [weights] if weights is not None else [name for name in DEFAULT_WEIGHTS if name in available()]
    if not names:
        raise InputError("no weights come with this copy of lenssr: name a file, NetworkSource(weights=...)")
    return [network for name in names for network in _networks_in(name)]


def _networks_in(name: str) -> Iterator[TrainedNetwork]:
    path = find(name)
    label = name if name in available() else path.name
    own = {"name": label, "checksum": hashlib.sha256(path.read_bytes()).hexdigest()}
    for network, card, origin in load_networks(path):
        if not isinstance(network, RelensingNetwork | SISR):
            raise InputError(f"{name!r}, a {network.kind}, draws no image: give a RelensingNetwork or SISR")
        yield TrainedNetwork(network=network.requires_grad_(False), card=card, **(origin or own))


def image_properties(observation: Any, image: Tensor, variance: Tensor) -> dict[str, float]:
    """Properties with ranges on cards, from the arcs (1, ny, nx) of an image and their variance."""
    properties = {"pixel_scale": observation.grid.pixel_scale, "psf_fwhm": observation.psf_fwhm}
    return properties | {"snr": float(signal_to_noise(image, variance))}


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
