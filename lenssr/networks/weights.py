"""Weights of networks in files that cannot run code, with a card that says where they come from."""

import hashlib
import json
import os
import sys
from dataclasses import asdict, dataclass, field, fields
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from lenssr.exceptions import InputError
from lenssr.networks.deflection import DeflectionNetwork
from lenssr.networks.relensing import RelensingNetwork
from lenssr.networks.sisr import SISR

__all__ = ["Card", "checksum_of", "load_weights", "save_weights"]

KINDS = {kind.kind: kind for kind in (SISR, RelensingNetwork, DeflectionNetwork)}
ENTRY = "lenssr"
# How files of other kinds begin.
MAGIC = {
    b"PK\x03\x04": "a pickle of PyTorch, or another zip archive",
    b"\x80": "a Python pickle",
    b"SIMPLE": "a FITS file",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a NumPy array",
    b"GGUF": "a GGUF model",
}


@dataclass(frozen=True)
class Card:
    """Where weights come from, and where they hold.

    Attributes
    ----------
    recipe : dict
        What they were trained by: task, objectives, data sets, optimisation.
    seed : int
    versions : dict of str to str
        Of lenssr, PyTorch and Python.
    device : str
    minutes : float
        That training took there.
    steps : int
    scores : dict of str to float
        On data held back.
    limits : dict of str to list of float
        Ranges of the training data by name: ``pixel_scale`` and ``psf_fwhm`` in arcsec (0: no PSF), ``snr``
        of an image. Beyond, nobody has looked.
    notes : str
        What else one should know, such as which galaxies were kept for tests.
    """

    recipe: dict
    seed: int
    device: str
    minutes: float
    steps: int
    scores: dict
    limits: dict
    notes: str = ""
    versions: dict = field(default_factory=lambda: _versions())

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


def _versions():
    try:
        own = version("lenssr")
    except PackageNotFoundError:
        own = "unknown"
    return {"lenssr": own, "torch": torch.__version__, "python": sys.version.split()[0]}


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
    save = _library("safetensors.torch").save
    path = _checked_path(path)
    tensors = {name: one.detach().cpu().contiguous() for name, one in network.state_dict().items()}
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise InputError(
                f"{name} holds values that are not finite: train again, with a lower learning rate"
            )
    about = {"kind": network.kind, "settings": network.settings, "card": asdict(card)}
    about["checksum"] = _checksum(about, tensors)
    _replace(path, save(tensors, {ENTRY: json.dumps(about)}))
    _replace(path.with_suffix(".md"), card.to_markdown(network.kind).encode())


def load_weights(path, *, kind=None):
    """Read a network from a file of `save_weights`. Nothing in it is run.

    Parameters
    ----------
    path : str or `~pathlib.Path`
    kind : {"SISR", "RelensingNetwork", "DeflectionNetwork"}, optional
        What it has to be; by default any.

    Returns
    -------
    network : `SISR`, `RelensingNetwork` or `DeflectionNetwork`
        On the CPU, ready to be applied.
    card : `Card`

    Raises
    ------
    InputError
        If the file is none of these, holds another kind, is damaged (a checksum tells), or its shapes are not
        those of the network that it says it holds.
    ImportError
        If safetensors is not installed (extra ``networks``).
    """
    path = Path(path)
    about, tensors = _read(path)
    if about.get("checksum") != _checksum(about, tensors):
        raise InputError(f"{path} is damaged: its checksum is another one; get the file again")
    found = about["kind"]
    if found not in KINDS:
        raise InputError(
            f"{path} holds a {found}, which this release does not know: it has {', '.join(KINDS)}"
        )
    if kind is not None and found != kind:
        raise InputError(f"{path} holds a {found}, not a {kind}: give a file of that kind")
    try:
        network = KINDS[found](**about["settings"])
    except (TypeError, InputError) as error:
        raise InputError(f"{path} describes a {found} of another release: {error}") from error
    _fill(path, network, tensors)
    known = {entry.name for entry in fields(Card)}
    return network.eval(), Card(**{name: value for name, value in about["card"].items() if name in known})


def checksum_of(network):
    """SHA-256 of what a network is: its kind, its settings and its numbers.

    Parameters
    ----------
    network : `SISR`, `RelensingNetwork` or `DeflectionNetwork`

    Returns
    -------
    checksum : str
    """
    tensors = {name: one.detach().cpu() for name, one in network.state_dict().items()}
    return _checksum({"kind": network.kind, "settings": network.settings}, tensors)


def _library(name):
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError("weights need safetensors: pip install lenssr[networks]") from error


def _checked_path(path):
    path = Path(path)
    if path.suffix != ".safetensors":
        raise InputError(f"{path}: give a name that ends in .safetensors")
    return path


def _replace(path, content):
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _checksum(about, tensors):
    """Of everything: what a file says, and names, kinds, shapes and values of its numbers."""
    told = {key: value for key, value in about.items() if key != "checksum"}
    laid = {name: [str(one.dtype), list(one.shape)] for name, one in tensors.items()}
    digest = hashlib.sha256(json.dumps([told, laid], sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()


def _read(path):
    """What a file says of itself, and its tensors by name."""
    library = _library("safetensors")
    try:
        with library.safe_open(path, framework="pt") as file:
            told = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (library.SafetensorError, OSError) as error:
        raise InputError(_why_not(path, error)) from error
    try:
        about = json.loads(told[ENTRY])
        about["kind"], about["settings"], about["card"]  # noqa: B018 - only whether they are there
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} is a safetensors file, but not of lenssr: it does not say what it holds"
        ) from error
    return about, tensors


def _why_not(path, error):
    """Say what a file is that does not open."""
    try:
        with open(path, "rb") as file:
            start = file.read(16)
    except OSError as unread:
        return f"{path} cannot be read: {unread.strerror or unread}"
    if start[8:9] == b"{":
        return f"{path} is damaged: {error}; get the file again"
    named = next((name for magic, name in MAGIC.items() if start.startswith(magic)), "of another kind")
    return f"{path} is {named}, not a safetensors file: only these are read, since they run no code"


def _fill(path, network, tensors):
    """Put weights into a network, if they are exactly its own."""
    expected = network.state_dict()
    wrong = sorted(set(expected) ^ set(tensors))
    wrong += [name for name in expected if name in tensors and expected[name].shape != tensors[name].shape]
    if wrong:
        raise InputError(
            f"{path} does not fit the {network.kind} that it describes: {wrong[0]}, {len(wrong)} in all; it "
            "was written by another release"
        )
    network.load_state_dict(tensors)
