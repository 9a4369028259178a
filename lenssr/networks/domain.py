"""Trained networks with their origin, and the domain of images that they were trained on."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch

from lenssr.exceptions import InputError
from lenssr.networks.relensing import RelensingNetwork
from lenssr.networks.sisr import SISR
from lenssr.networks.variance import signal_to_noise
from lenssr.networks.weights import Card, available, find, is_bundle, load, load_bundle

__all__ = ["TrainedNetwork", "image_properties", "trained_networks"]

# Default weights, those with the narrower training ranges first.
DEFAULT_WEIGHTS = ("relensing", "relensing-broad")
# Factors on the ends of the training ranges, which were measured on a sample of the images.
RANGE_TOLERANCE = {"pixel_scale": 1.02, "psf_fwhm": 1.05, "snr": 1.5}
MESSAGES = {
    "pixel_scale": 'pixel scale {value:.4g}", trained on {low:.4g}" to {high:.4g}"',
    "psf_fwhm": 'FWHM of the PSF {value:.4g}", trained on {low:.4g}" to {high:.4g}"',
    "snr": "signal-to-noise ratio {value:.4g}, trained on {low:.4g} to {high:.4g}",
}


@dataclass(frozen=True)
class TrainedNetwork:
    """A network with its origin.

    ``name`` is that of the weights that come with lenssr, or of the file; ``checksum`` the SHA-256 of the
    file, or that of ``weights.checksum_of`` without a file.
    """

    name: str
    network: torch.nn.Module
    card: Card
    checksum: str

    def out_of_domain(self, properties):
        """Properties of an image that lie outside the training ranges, in words; empty if none does.

        ``properties`` holds ``pixel_scale`` and ``psf_fwhm`` in arcsec, and ``snr``.
        """
        found = []
        for name, (low, high) in self.card.limits.items():
            value, more = properties[name], RANGE_TOLERANCE[name]
            if not low / more <= value <= high * more:
                found.append(MESSAGES[name].format(value=value, low=low, high=high))
        return found

    @property
    def origin(self):
        """Name and checksum as plain values, as saved resolvers store them."""
        return {"name": self.name, "checksum": self.checksum}

    def describe(self):
        """Name, kind and checksum as plain values."""
        return {"name": self.name, "kind": self.network.kind, "checksum": self.checksum}


def trained_networks(weights):
    """`TrainedNetwork` list for the weights of a `~lenssr.NetworkSource`; by default those of lenssr."""
    names = [weights] if weights is not None else [name for name in DEFAULT_WEIGHTS if name in available()]
    if not names:
        raise InputError("no weights come with this copy of lenssr: name a file, NetworkSource(weights=...)")
    found = []
    for name in names:
        if is_bundle(find(name)):
            saved = load_bundle(find(name))[1]
            found += [
                TrainedNetwork(network=net.requires_grad_(False), card=card, **origin)
                for net, card, origin in saved
            ]
            continue
        network, card = load(name)
        if not isinstance(network, RelensingNetwork | SISR):
            raise InputError(
                f"weights = {name!r} are of a {network.kind}, which draws no image: give those of a "
                "RelensingNetwork or of an SISR"
            )
        path = find(name)
        label = name if name in available() else Path(path).name
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        found.append(TrainedNetwork(label, network.requires_grad_(False), card, digest))
    return found


def image_properties(observation, image, variance):
    """Properties that cards have ranges of, from the arcs (1, ny, nx) of an image and their variance."""
    return {
        "pixel_scale": observation.grid.pixel_scale,
        "psf_fwhm": observation.psf_fwhm,
        "snr": float(signal_to_noise(image, variance)),
    }
