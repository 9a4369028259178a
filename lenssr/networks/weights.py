"""Weights of networks with a card of their training, in safetensors files, which cannot run code."""

import hashlib
import json
import sys
from dataclasses import asdict, dataclass, field, fields
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from lenssr._files import atomic, local_file, local_path, package_version
from lenssr._limits import check_memory, quoted
from lenssr._quiet import same_filters
from lenssr._tensors import usual_torch
from lenssr.exceptions import InputError
from lenssr.networks.deflection import DeflectionNetwork
from lenssr.networks.relensing import RelensingNetwork
from lenssr.networks.sisr import SISR

Network: TypeAlias = SISR | RelensingNetwork | DeflectionNetwork
Tensors: TypeAlias = dict[str, Tensor]

PRETRAINED_FOLDER = Path(__file__).parent / "pretrained"
# Classes of networks by the kind that files name, and the kind of a file of a saved resolver.
NETWORK_KINDS: dict[str, Any] = {kind.kind: kind for kind in (SISR, RelensingNetwork, DeflectionNetwork)}
BUNDLE = "SuperResolver"
# Largest number among the settings of a network: its layers are made one by one.
LARGEST_SETTING = 4096
# Key of the description in the metadata of a file.
ENTRY = "lenssr"
# First bytes of files of other kinds.
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

    def to_markdown(self, kind: str) -> str:
        """The card of a network of this kind as a page."""
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        scores = [f"| {name} | {value:.4g} |" for name, value in self.scores.items()]
        ranges = [f"| {name} | {low:.4g} | {high:.4g} |" for name, (low, high) in self.limits.items()]
        lines = [f"# {kind}", "", f"- Trained by the recipe below, seed {self.seed}, {self.steps} steps."]
        lines += [f"- On {self.device}, {self.minutes:.1f} minutes.", f"- With {versions}."]
        lines += ["", self.notes] if self.notes else []
        lines += ["", "| score on data held back | value |", "| --- | --- |", *scores]
        lines += ["", "| range of the training data | from | to |", "| --- | --- | --- |", *ranges]
        return "\n".join([*lines, "", "```json", json.dumps(self.recipe, indent=1), "```", ""])


def _training_versions() -> dict[str, str]:
    return {"lenssr": package_version(), "torch": torch.__version__, "python": sys.version.split()[0]}


# ---------------------------------------------------------------- one network


def save_weights(network: Network, path: str | Path, card: Card) -> None:
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
    tensors = _tensors_of(network)
    spoiled = next((name for name, one in tensors.items() if not bool(torch.isfinite(one).all())), None)
    if spoiled is not None:
        raise InputError(f"{spoiled} holds values that are not finite: lower the learning rate")
    _write(path, _described(network, card), tensors)
    with atomic(Path(path).with_suffix(".md")) as temporary:
        temporary.write_text(card.to_markdown(network.kind), encoding="utf-8")


@usual_torch()
def load_weights(path: str | Path, *, kind: str | None = None) -> tuple[Any, Card]:
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
    """
    path = local_path(path, "weights")
    about, tensors = _read(path)
    if kind is not None and about["kind"] in NETWORK_KINDS and about["kind"] != kind:
        raise InputError(f"{path} holds a {about['kind']}, not a {kind}: give a file of that kind")
    return _network(path, about, tensors)


def checksum_of(network: Network) -> str:
    """SHA-256 of the kind, the settings and the weights of a network."""
    return _checksum({"kind": network.kind, "settings": network.settings}, _tensors_of(network))


# ---------------------------------------------------------------- those that come with lenssr


def available() -> tuple[str, ...]:
    """Names of the weights that come with lenssr.

    Examples
    --------
    >>> from lenssr.networks import available
    >>> isinstance(available(), tuple)
    True
    """
    return tuple(sorted(path.stem for path in PRETRAINED_FOLDER.glob("*.safetensors")))


def find(weights: str | Path) -> Path:
    """Path of the file of weights: one of `available`, or a file; `InputError` if there is none."""
    if isinstance(weights, str) and weights in available():
        return PRETRAINED_FOLDER / f"{weights}.safetensors"
    if isinstance(weights, str | Path) and local_path(weights, "weights").is_file():
        return Path(weights)
    names = ", ".join(map(repr, available())) or "not installed"
    raise InputError(f"weights = {str(weights)!r}: no file, and none that come with lenssr: {names}")


def load(weights: str | Path, *, kind: str | None = None) -> tuple[Any, Card]:
    """Read a network that comes with lenssr, or one from a file.

    Parameters
    ----------
    weights : str or `~pathlib.Path`
        One of `available`, or a file of `save_weights`.
    kind : {"SISR", "RelensingNetwork", "DeflectionNetwork"}, optional
        Required kind; by default any.

    Returns
    -------
    network, card
        As `load_weights` does, whose errors it raises; `InputError` for an unknown name.
    """
    return load_weights(find(weights), kind=kind)


# ---------------------------------------------------------------- several in one file: a saved resolver


def save_bundle(path: str | Path, settings: dict, networks: list[tuple[Network, Card, dict]]) -> None:
    """Write ``settings`` (plain values) and networks, (module, `Card`, plain values) each."""
    tensors: Tensors = {}
    told = []
    for number, (network, card, more) in enumerate(networks):
        tensors |= {f"{number}.{name}": one for name, one in _tensors_of(network).items()}
        told.append({**_described(network, card), "told": more})
    tensors = tensors or {"none": torch.zeros(1)}  # a file needs one
    _write(path, {"kind": BUNDLE, "settings": settings, "card": {}, "networks": told}, tensors)


def load_bundle(path: str | Path) -> dict:
    """Settings of a file of `save_bundle`."""
    about, _ = _read(local_path(path))
    if about["kind"] != BUNDLE:
        raise InputError(f"{path} holds a {about['kind']}, not a saved resolver: NetworkSource takes it")
    return about["settings"]


@usual_torch()
def load_networks(path: str | Path) -> list[tuple[Any, Card, dict]]:
    """Networks of a file of `save_bundle`, or the one of `save_weights` (without plain values)."""
    path = Path(path)
    about, tensors = _read(path)
    if about["kind"] != BUNDLE:
        return [(*_network(path, about, tensors), {})]
    found = []
    for number, told in enumerate(_told_networks(path, about)):
        start = f"{number}."
        own = {name.removeprefix(start): one for name, one in tensors.items() if name.startswith(start)}
        found.append((*_network(path, told, own), told["told"]))
    return found


def _told_networks(path: Path, about: dict[str, Any]) -> list[dict[str, Any]]:
    """Descriptions of the networks of a saved resolver, of the right types."""
    told = about.get("networks")
    kinds = {"kind": str, "settings": dict, "card": dict, "told": dict}
    entries: list[Any] = told if isinstance(told, list) and len(told) <= 100 else [None]
    for one in entries:
        good = isinstance(one, dict) and all(isinstance(one.get(name), kind) for name, kind in kinds.items())
        names = one["told"] if good else {}
        if not good or not all(isinstance(value, str) for value in names.values()):
            raise InputError(f"{path} is damaged: its networks are not described; get the file again")
    return entries


# ---------------------------------------------------------------- the file


def _tensors_of(network: Network) -> Tensors:
    """Weights of a network by name, as files hold them."""
    return {name: one.detach().cpu().contiguous() for name, one in network.state_dict().items()}


def _described(network: Network, card: Card) -> dict[str, Any]:
    return {"kind": network.kind, "settings": network.settings, "card": asdict(card)}


@same_filters()  # torch imports what changes them
def _network(path: Path, about: dict[str, Any], tensors: Tensors) -> tuple[Any, Card]:
    """Network and `Card` of what a file says; refuse tensors whose names or shapes differ."""
    kind = about["kind"]
    if kind not in NETWORK_KINDS:
        raise InputError(f"{path} holds a {kind}, not one of {', '.join(NETWORK_KINDS)}: update lenssr")
    network = _without_values(path, kind, about["settings"])
    expected = network.state_dict()
    wrong = sorted(set(expected) ^ set(tensors))
    for name in expected.keys() & tensors.keys():
        same = expected[name].shape == tensors[name].shape and expected[name].dtype == tensors[name].dtype
        wrong += [] if same else [name]
    if wrong:
        raise InputError(f"{path} does not fit the {kind} that it describes ({wrong[0]}): get it anew")
    spoiled = next((name for name, one in tensors.items() if not bool(torch.isfinite(one).all())), None)
    if spoiled is not None:
        raise InputError(f"{path} holds values in {spoiled} that are not finite: get it anew")
    network = network.to_empty(device="cpu")
    network.load_state_dict(tensors)
    return network.eval(), _card(path, about["card"])


def _without_values(path: Path, kind: str, settings: Any) -> Any:
    """Network of a kind whose weights have shapes only, so that its size is known before it takes memory.

    It draws no random numbers, either.
    """
    if not isinstance(settings, dict) or not sane(settings):
        raise InputError(f"{path} describes a {kind} with settings {quoted(settings)}: get it anew")
    try:
        with torch.device("meta"):
            network = NETWORK_KINDS[kind](**settings)
    except Exception as error:  # whatever a class does with settings of another kind
        why = error if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        raise InputError(f"{path} describes a {kind} of another release: {why}") from error
    network = network.float()
    check_memory(network_bytes(network), f"the {kind} in {path}", "give a smaller one")
    return network


def network_bytes(network: torch.nn.Module) -> float:
    """Bytes of the weights of a network, also of one that has only their shapes."""
    return float(sum(one.numel() * one.element_size() for one in network.state_dict().values()))


def sane(value: Any, depth: int = 0) -> bool:
    """Whether plain settings are few and small enough to build a network from them."""
    if isinstance(value, dict | list | tuple):
        items = value.values() if isinstance(value, dict) else value
        return depth < 4 and len(value) <= 64 and all(sane(one, depth + 1) for one in items)
    if isinstance(value, int | float):
        return abs(value) <= LARGEST_SETTING
    return value is None or isinstance(value, str) and len(value) <= 1000


def _card(path: Path, told: Any) -> Card:
    """Card of plain values, each of its type."""
    kinds: dict[str, Any] = {"recipe": dict, "seed": int, "device": str, "minutes": int | float, "steps": int}
    kinds |= {"scores": dict, "limits": dict, "notes": str, "versions": dict}
    card = {entry.name: told[entry.name] for entry in fields(Card) if entry.name in told}
    wrong = [name for name, value in card.items() if not isinstance(value, kinds[name])]
    numbers = [*card.get("scores", {}).values()] if not wrong else []
    for pair in card.get("limits", {}).values() if not wrong else ():
        wrong += [] if isinstance(pair, list | tuple) and len(pair) == 2 else ["limits"]
        numbers += pair if isinstance(pair, list | tuple) else []
    wrong += [] if all(isinstance(one, int | float) for one in numbers) else ["scores or limits"]
    try:
        if not wrong:
            return Card(**card)
    except TypeError as error:
        wrong = [str(error)]
    raise InputError(f"the card in {path} is damaged ({wrong[0]}): get the file again")


def _write(path: str | Path, about: dict[str, Any], tensors: Tensors) -> None:
    """Write tensors, a description of them (JSON values), and a checksum of both; replaced atomically."""
    save, path = _library("safetensors.torch").save, Path(path)
    if path.suffix != ".safetensors":
        raise InputError(f"{path}: give a name that ends in .safetensors")
    about = json.loads(json.dumps(about))  # as it will be read
    about["checksum"] = _checksum(about, tensors)
    with atomic(path) as temporary:
        temporary.write_bytes(save(tensors, {ENTRY: json.dumps(about)}))


def _read(path: Path) -> tuple[dict[str, Any], Tensors]:
    """Description and tensors of a file of `_write`, not damaged."""
    library = _library("safetensors")
    path = local_file(path, "weights") if path.exists() else path
    check_memory(3 * path.stat().st_size if path.exists() else 0, str(path), "give a smaller file")
    try:
        with library.safe_open(path, framework="pt") as file:
            told = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except Exception as error:  # the library has errors of its own, and of Rust
        raise InputError(_why_not(path, error)) from error
    try:
        about = json.loads(told[ENTRY])
        kind, card = about["kind"], about["card"]
        about["settings"]  # noqa: B018 - only whether it is there
        if not isinstance(kind, str) or not isinstance(card, dict):
            raise TypeError("kind or card")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is a safetensors file, but not of lenssr") from error
    if about.get("checksum") != _checksum(about, tensors):
        raise InputError(f"{path} is damaged: its checksum differs; get the file again")
    return about, tensors


def _checksum(about: dict[str, Any], tensors: Tensors) -> str:
    """SHA-256 of the description (without its checksum) and of names, types, shapes and values of tensors."""
    told = {key: value for key, value in about.items() if key != "checksum"}
    laid = {name: [str(one.dtype), list(one.shape)] for name, one in tensors.items()}
    digest = hashlib.sha256(json.dumps([told, laid], sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError("weights need safetensors: pip install lenssr[networks]") from error


def _why_not(path: Path, error: Exception) -> str:
    """Explain why a file cannot be opened."""
    try:
        with open(path, "rb") as file:
            start = file.read(16)
    except OSError as unread:
        return f"{path} cannot be read: {unread.strerror or unread}"
    if start[8:9] == b"{":
        return f"{path} is damaged: {error}; get the file again"
    named = next((name for magic, name in MAGIC.items() if start.startswith(magic)), "of another kind")
    return f"{path} is {named}, not a safetensors file: only these are read, since they run no code"
