"""Weights of networks in files that cannot run code, with a card that says where they come from."""

import hashlib
import json
import os
import sys
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from lenssr.exceptions import InputError
from lenssr.networks.deflection import DeflectionNetwork
from lenssr.networks.relensing import RelensingNetwork
from lenssr.networks.sisr import SISR

__all__ = ["Card", "load_weights", "save_weights"]

KINDS = {kind.kind: kind for kind in (SISR, RelensingNetwork, DeflectionNetwork)}
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "I64": torch.int64}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
ENTRY = "lenssr"
LONGEST_HEADER = 1 << 20
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
    """

    recipe: dict
    seed: int
    device: str
    minutes: float
    steps: int
    scores: dict
    limits: dict
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
    """
    path = _checked_path(path)
    header, parts, place = {}, [], 0
    for name, tensor in sorted(network.state_dict().items()):
        if not bool(torch.isfinite(tensor).all()):
            raise InputError(
                f"{name} holds values that are not finite: train again, with a lower learning rate"
            )
        data = tensor.detach().cpu().contiguous().numpy().tobytes()
        end = place + len(data)
        header[name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [place, end],
        }
        parts.append(data)
        place = end
    body = b"".join(parts)
    about = {"kind": network.kind, "settings": network.settings, "card": asdict(card)}
    about["checksum"] = _checksum(about, header, body)
    header["__metadata__"] = {ENTRY: json.dumps(about)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    _replace(path, len(text).to_bytes(8, "little") + text + body)
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
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    header, body = _split(path, content)
    about = _about(path, header)
    if about.get("checksum") != _checksum(about, header, body):
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
    _fill(path, network, _tensors(path, header, body))
    known = {entry.name for entry in fields(Card)}
    return network.eval(), Card(**{name: value for name, value in about["card"].items() if name in known})


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


def _checksum(about, header, body):
    """Of everything: what it says, how it is laid out, the numbers."""
    told = {key: value for key, value in about.items() if key != "checksum"}
    laid = {key: value for key, value in header.items() if key != "__metadata__"}
    digest = hashlib.sha256(json.dumps([told, laid], sort_keys=True).encode())
    digest.update(body)
    return digest.hexdigest()


def _split(path, content):
    """Header and numbers of a file, which may be anything."""
    length = int.from_bytes(content[:8], "little") if len(content) > 8 else 0
    if not 2 <= length <= min(LONGEST_HEADER, len(content) - 8) or content[8:9] != b"{":
        named = next((name for start, name in MAGIC.items() if content.startswith(start)), "of another kind")
        raise InputError(
            f"{path} is {named}, not a safetensors file: only these are read, since they run no code"
        )
    try:
        header = json.loads(content[8 : 8 + length])
    except ValueError as error:
        raise InputError(f"{path} is damaged: its header is no JSON; get the file again") from error
    return header, content[8 + length :]


def _about(path, header):
    try:
        about = json.loads(header["__metadata__"][ENTRY])
        about["kind"], about["settings"], about["card"]  # noqa: B018 - only whether they are there
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} is a safetensors file, but not of lenssr: it does not say what it holds"
        ) from error
    return about


def _tensors(path, header, body):
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, end = entry["data_offsets"]
        dtype = DTYPES.get(entry["dtype"])
        size = dtype.itemsize if dtype else 0
        for side in entry["shape"]:
            size *= side
        if dtype is None or not 0 <= start <= end <= len(body) or end - start != size:
            raise InputError(f"{path} is damaged: {name} does not lie where it should; get the file again")
        numbers = bytearray(body[start:end])
        flat = torch.frombuffer(numbers, dtype=dtype) if numbers else torch.empty(0, dtype=dtype)
        tensors[name] = flat.reshape(entry["shape"])
    return tensors


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
