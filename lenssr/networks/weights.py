"""Weights of networks in files that cannot run code, with a card of their training."""

import json
import sys
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import torch

from lenssr._versions import package_version
from lenssr.exceptions import InputError
from lenssr.networks.deflection import DeflectionNetwork
from lenssr.networks.relensing import RelensingNetwork
from lenssr.networks.sisr import SISR
from lenssr.networks.weights_file import check_tensors, checksum, fill, read_tensors, write_tensors

__all__ = ["NETWORK_KINDS", "Card", "checksum_of", "load_weights", "save_weights"]

# Classes of networks by the kind that files name.
NETWORK_KINDS = {kind.kind: kind for kind in (SISR, RelensingNetwork, DeflectionNetwork)}


@dataclass(frozen=True)
class Card:
    """How weights were trained, and on which range of images.

    Attributes
    ----------
    recipe : dict
        Recipe of the training: task, objectives, data sets, optimisation.
    seed : int
    versions : dict of str to str
        Of lenssr, PyTorch and Python.
    device : str
    minutes : float
        Duration of the training.
    steps : int
    scores : dict of str to float
        On validation data.
    limits : dict of str to list of float
        Ranges of the training data by name: ``pixel_scale`` and ``psf_fwhm`` in arcsec (0: no PSF), ``snr``
        of an image. The network has not been tested outside.
    notes : str
        Further remarks, such as which galaxies were kept for tests.
    """

    recipe: dict
    seed: int
    device: str
    minutes: float
    steps: int
    scores: dict
    limits: dict
    notes: str = ""
    versions: dict = field(default_factory=lambda: _training_versions())

    def to_markdown(self, kind):
        """Write the card as a page.

        Parameters
        ----------
        kind : str
            Of the network.

        Returns
        -------
        text : str
        """
        lines = [f"# {kind}", ""]
        lines += [f"- Trained by the recipe below, seed {self.seed}, {self.steps} steps."]
        lines += [f"- On {self.device}, {self.minutes:.1f} minutes."]
        lines += [f"- With {', '.join(f'{name} {number}' for name, number in self.versions.items())}."]
        lines += ["", self.notes] if self.notes else []
        lines += ["", "| score on data held back | value |", "| --- | --- |"]
        lines += [f"| {name} | {value:.4g} |" for name, value in self.scores.items()]
        lines += ["", "| range of the training data | from | to |", "| --- | --- | --- |"]
        lines += [f"| {name} | {low:.4g} | {high:.4g} |" for name, (low, high) in self.limits.items()]
        return "\n".join([*lines, "", "```json", json.dumps(self.recipe, indent=1), "```", ""])


def _training_versions():
    return {"lenssr": package_version(), "torch": torch.__version__, "python": sys.version.split()[0]}


def save_weights(network, path, card):
    """Write a network, in the safetensors format, and its card as a page beside it.

    Parameters
    ----------
    network : `SISR`, `RelensingNetwork` or `DeflectionNetwork`
    path : str or `~pathlib.Path`
        Ends in ``.safetensors``; the page ends in ``.md`` instead. Files there are
        replaced, each at once and whole.
    card : `Card`

    Raises
    ------
    InputError
        If the path ends otherwise, or a weight is not finite.
    ImportError
        If safetensors is not installed (extra ``networks``).
    """
    tensors = {name: one.detach().cpu().contiguous() for name, one in network.state_dict().items()}
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise InputError(
                f"{name} holds values that are not finite: train again, with a lower learning rate"
            )
    about = {"kind": network.kind, "settings": network.settings, "card": asdict(card)}
    write_tensors(path, about, tensors, page=card.to_markdown(network.kind))


def load_weights(path, *, kind=None):
    """Read a network from a file of `save_weights`. Nothing in it is run.

    Parameters
    ----------
    path : str or `~pathlib.Path`
    kind : {"SISR", "RelensingNetwork", "DeflectionNetwork"}, optional
        Required kind; by default any.

    Returns
    -------
    network : `SISR`, `RelensingNetwork` or `DeflectionNetwork`
        On the CPU, ready to be applied.
    card : `Card`

    Raises
    ------
    InputError
        If the file is of another form or kind, is damaged (its checksum differs), or its shapes do not fit
        the network that it describes.
    ImportError
        If safetensors is not installed (extra ``networks``).
    """
    path = Path(path)
    about, tensors = read_tensors(path)
    check_tensors(path, about, tensors)
    found = about["kind"]
    if found not in NETWORK_KINDS:
        raise InputError(
            f"{path} holds a {found}, which this release does not know: it has {', '.join(NETWORK_KINDS)}"
        )
    if kind is not None and found != kind:
        raise InputError(f"{path} holds a {found}, not a {kind}: give a file of that kind")
    try:
        network = NETWORK_KINDS[found](**about["settings"])
    except (TypeError, InputError) as error:
        raise InputError(f"{path} describes a {found} of another release: {error}") from error
    fill(path, network, tensors)
    known = {entry.name for entry in fields(Card)}
    return network.eval(), Card(**{name: value for name, value in about["card"].items() if name in known})


def checksum_of(network):
    """SHA-256 of the kind, the settings and the weights of a network."""
    tensors = {name: one.detach().cpu() for name, one in network.state_dict().items()}
    return checksum({"kind": network.kind, "settings": network.settings}, tensors)
