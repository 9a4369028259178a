"""Several networks in one file, with plain values: the form of a saved resolver."""

from dataclasses import asdict
from pathlib import Path

import torch

from lenssr.exceptions import InputError
from lenssr.networks.weights import NETWORK_KINDS, Card
from lenssr.networks.weights_file import check_tensors, fill, read_tensors, write_tensors

__all__ = ["BUNDLE", "is_bundle", "load_bundle", "save_bundle"]

BUNDLE = "SuperResolver"


def save_bundle(path, settings, networks):
    """Write ``settings`` (plain values) and networks, (module, `Card`, plain values) each, as safetensors."""
    tensors, told = {}, []
    for number, (network, card, more) in enumerate(networks):
        tensors |= {f"{number}.{name}": one.cpu().contiguous() for name, one in network.state_dict().items()}
        told.append({"kind": network.kind, "settings": network.settings, "card": asdict(card), "told": more})
    tensors = tensors or {"none": torch.zeros(1)}  # a file needs one
    about = {"kind": BUNDLE, "settings": settings, "card": {}, "networks": told}
    write_tensors(path, about, tensors)


def load_bundle(path):
    """Settings and networks of a file of `save_bundle`; refuse other and damaged files."""
    path = Path(path)
    about, tensors = read_tensors(path)
    if about["kind"] != BUNDLE:
        raise InputError(f"{path} holds a {about['kind']}, not a saved resolver: NetworkSource takes it")
    check_tensors(path, about, tensors)
    found = []
    for number, told in enumerate(about["networks"]):
        network = NETWORK_KINDS[told["kind"]](**told["settings"])
        start = f"{number}."
        own = {name.removeprefix(start): one for name, one in tensors.items() if name.startswith(start)}
        fill(path, network, own)
        found.append((network.eval(), Card(**told["card"]), told["told"]))
    return about["settings"], found


def is_bundle(path):
    """Whether a file is one of `save_bundle`."""
    about, _ = read_tensors(Path(path))
    return about["kind"] == BUNDLE
