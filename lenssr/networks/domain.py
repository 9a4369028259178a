"""Networks with where they come from, and whether an image is like what they know."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch

from lenssr.exceptions import InputError
from lenssr.networks.bundle import is_bundle, load_bundle
from lenssr.networks.library import available, find, load
from lenssr.networks.relensing import RelensingNetwork
from lenssr.networks.sisr import SISR
from lenssr.networks.variance import signal_to_noise
from lenssr.networks.weights import Card

__all__ = ["KnownNetwork", "known_networks", "seen_of"]

# Which weights are tried where none are named, the narrow ones first.
RELENSING = ("relensing", "relensing-broad")
# So far beyond the range of its training a network may be used without a word: the range is that of a few
# of the images.
BEYOND = {"pixel_scale": 1.02, "psf_fwhm": 1.05, "snr": 1.5}
WORDS = {
    "pixel_scale": 'pixel scale {value:.4g}", trained on {low:.4g}" to {high:.4g}"',
    "psf_fwhm": 'FWHM of the PSF {value:.4g}", trained on {low:.4g}" to {high:.4g}"',
    "snr": "signal-to-noise ratio {value:.4g}, trained on {low:.4g} to {high:.4g}",
}


@dataclass(frozen=True)
class KnownNetwork:
    """A network with where it comes from.

    Attributes
    ----------
    name : str
        That of the weights that come with lenssr, or of the file.
    network : `~lenssr.networks.RelensingNetwork` or `~lenssr.networks.SISR`
    card : `~lenssr.networks.Card`
    checksum : str
        SHA-256 of the file; of the network itself, ``weights.checksum_of``, where there is
        none.
    """

    name: str
    network: torch.nn.Module
    card: Card
    checksum: str

    def unlike(self, seen):
        """How an image differs from all that the network was trained on, in words.

        Parameters
        ----------
        seen : dict of str to float
            ``pixel_scale`` and ``psf_fwhm`` in arcsec, and ``snr``.

        Returns
        -------
        words : list of str
            Empty if it does not.
        """
        found = []
        for name, (low, high) in self.card.limits.items():
            value, more = seen[name], BEYOND[name]
            if not low / more <= value <= high * more:
                found.append(WORDS[name].format(value=value, low=low, high=high))
        return found

    @property
    def told(self):
        """Where it comes from, as plain values."""
        return {"name": self.name, "checksum": self.checksum}

    def describe(self):
        """Name, kind and checksum as plain values."""
        return {"name": self.name, "kind": self.network.kind, "checksum": self.checksum}


def known_networks(weights):
    """The networks that a choice of weights stands for.

    Parameters
    ----------
    weights : str or None
        As of `~lenssr.NetworkSource`.

    Returns
    -------
    networks : list of `KnownNetwork`

    Raises
    ------
    InputError
        If none come with lenssr, or these draw no images.
    """
    names = [weights] if weights is not None else [name for name in RELENSING if name in available()]
    if not names:
        raise InputError("no weights come with this copy of lenssr: name a file, NetworkSource(weights=...)")
    found = []
    for name in names:
        if is_bundle(find(name)):
            saved = load_bundle(find(name))[1]
            found += [
                KnownNetwork(network=net.requires_grad_(False), card=card, **told)
                for net, card, told in saved
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
        found.append(KnownNetwork(label, network.requires_grad_(False), card, digest))
    return found


def seen_of(observation, image, variance):
    """What cards of networks have ranges of, for one image.

    Parameters
    ----------
    observation : `~lenssr.imaging.Observation`
    image, variance : `torch.Tensor`, shape (1, ny, nx)
        The arcs alone, in any unit; pixels whose variance is not finite do not count.

    Returns
    -------
    seen : dict of str to float
        ``pixel_scale`` and ``psf_fwhm`` in arcsec, ``snr``.
    """
    return {
        "pixel_scale": observation.grid.pixel_scale,
        "psf_fwhm": observation.psf_fwhm,
        "snr": float(signal_to_noise(image, variance)),
    }
