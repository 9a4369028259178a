"""Several networks in one file, with plain values beside them: what a resolver is saved as."""

from dataclasses import asdict
from pathlib import Path

import torch

from lenssr.exceptions import InputError
from lenssr.networks.weights import KINDS, Card
from lenssr.networks.weights_file import check_tensors, fill, read_tensors, write_tensors

__all__ = ["BUNDLE", "is_bundle", "load_bundle", "save_bundle"]

BUNDLE = "SuperResolver"


def save_bundle(path, settings, networks):
    """Write networks and settings, in the safetensors format: nothing in it can be run.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        Ends in ``.safetensors``. A file there is replaced, at once and whole.
    settings : dict
        Plain values, which JSON can hold.
    networks : list of (module, `Card`, dict)
        Each with what else is to be told of it, in plain values.

    Raises
    ------
    InputError
        If the path ends otherwise.
    ImportError
        If safetensors is not installed (extra ``networks``).
    """
    tensors, told = {}, []
    for number, (network, card, more) in enumerate(networks):
        tensors |= {f"{number}.{name}": one.cpu().contiguous() for name, one in network.state_dict().items()}
        told.append({"kind": network.kind, "settings": network.settings, "card": asdict(card), "told": more})
    tensors = tensors or {"none": torch.zeros(1)}  # a file needs one
    about = {"kind": BUNDLE, "settings": settings, "card": {}, "networks": told}
    write_tensors(path, about, tensors)


def load_bundle(path):
    """Read a file of `save_bundle`.

    Parameters
    ----------
    path : str or `~pathlib.Path`

    Returns
    -------
    settings : dict
    networks : list of (module, `Card`, dict)

    Raises
    ------
    InputError
        If the file is no such one, or damaged.
    ImportError
        If safetensors is not installed (extra ``networks``).
    """
    path = Path(path)
    about, tensors = read_tensors(path)
    if about["kind"] != BUNDLE:
        raise InputError(f"{path} holds a {about['kind']}, not a saved resolver: NetworkSource takes it")
    check_tensors(path, about, tensors)
    found = []
    for number, told in enumerate(about["networks"]):
        network = KINDS[told["kind"]](**told["settings"])
        start = f"{number}."
        own = {name.removeprefix(start): one for name, one in tensors.items() if name.startswith(start)}
        fill(path, network, own)
        found.append((network.eval(), Card(**told["card"]), told["told"]))
    return about["settings"], found


def is_bundle(path):
    """Whether a file is one of `save_bundle`."""
    about, _ = read_tensors(Path(path))
    return about["kind"] == BUNDLE
