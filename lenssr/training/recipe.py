"""Recipes of trainings: task, data and objectives, read from YAML and checked before anything starts."""

import inspect
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import torch

from lenssr._files import local_path, read_text
from lenssr._limits import check_memory, quoted
from lenssr._option import one_of
from lenssr._tensors import usual_torch
from lenssr._yaml import read_yaml
from lenssr.exceptions import InputError, short_line
from lenssr.networks.weights import load_weights, network_bytes, sane
from lenssr.simulation import BroadLenses, DeepLense
from lenssr.training.tasks import TASKS

RECIPE_FOLDER = Path(__file__).parent / "recipes"
DATASETS = {kind.__name__: kind for kind in (BroadLenses, DeepLense)}
# Largest recipe, and bytes that a training takes for a byte of weights (with gradients and Adam's moments),
# for a lens of a data set (its number), and for a pixel of a batch; measured.
MOST_RECIPE_BYTES, WEIGHT_FACTOR, LENS_BYTES, PIXEL_BYTES = 2**20, 6, 250, 20_000
# Least values of numbers; the others are positive.
_LEAST = {"warmup": 0, "seed": 0, "weight_decay": 0}


@dataclass(frozen=True)
class Optimisation:
    """Steps, learning rate and validation of a training.

    Attributes
    ----------
    steps : int
        Number of batches.
    batch_size : int
        Images in a batch.
    learning_rate : float
        Largest learning rate of Adam.
    warmup : int
        Steps in which the learning rate rises to that.
    schedule : {"cosine", "constant"}
        "cosine" lets it fall to a hundredth until the last step.
    weight_decay : float
        Weight decay of AdamW.
    gradient_clip : float
        Largest norm of a gradient.
    check_every : int
        Steps between two validations; a checkpoint is written after each. Divides ``steps``.
    patience : int or None
        Validations without improvement after which training ends; None for never.
    seed : int
        Seed of initial weights, order of the data and hidden pixels.
    """

    steps: int = 2000
    batch_size: int = 16
    learning_rate: float = 2e-3
    warmup: int = 100
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: float = 0.0
    gradient_clip: float = 1.0
    check_every: int = 100
    patience: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _check_section("optimisation", self)
        steps, every = self.steps, self.check_every
        if steps % every:
            given = f"optimisation.steps = {steps} is not a multiple of check_every = {every}"
            raise InputError(f"{given}: give {steps + every - steps % every}")

    def rate(self, step: int) -> float:
        """Learning rate of a step in units of ``learning_rate``."""
        rise = min(1.0, (step + 1) / (self.warmup + 1))
        if self.schedule == "constant":
            return rise
        done = min(max(step - self.warmup, 0) / max(self.steps - self.warmup, 1), 1.0)
        return rise * (0.01 + 0.99 * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * done)).item()))


@dataclass(frozen=True)
class Hardware:
    """Hardware, in the terms of Lightning.

    Attributes
    ----------
    accelerator : {"auto", "cpu", "cuda", "mps"}
    devices : int
        Number of devices of a node.
    num_nodes : int
    strategy : {"auto", "ddp", "ddp_find_unused_parameters_true", "fsdp"}
    precision : {"32-true", "16-mixed", "bf16-mixed"}
        The mixed ones need CUDA.
    threads : int or None
        Cores for a step on a CPU; None leaves it to PyTorch, which takes all. Batches are simulated on one
        more core: if that takes about as long as a step, divide two cores evenly.
    """

    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: int = 1
    num_nodes: int = 1
    strategy: Literal["auto", "ddp", "ddp_find_unused_parameters_true", "fsdp"] = "auto"
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    threads: int | None = None

    def __post_init__(self) -> None:
        _check_section("hardware", self)
        cuda = self.accelerator in ("auto", "cuda") and torch.cuda.is_available()
        if self.accelerator == "cuda" and not cuda:
            raise InputError("hardware.accelerator = 'cuda', but PyTorch sees no GPU: give 'auto' or 'cpu'")
        if "mixed" in self.precision and not cuda:
            raise InputError(f"hardware.precision = {self.precision!r} needs CUDA: give '32-true'")


@dataclass(frozen=True)
class Recipe:
    """Settings of a training.

    Attributes
    ----------
    task : str
        Training task: one of ``bicubic``, ``lenssr-no-source``, ``lenssr-with-source``, ``relensing``,
        ``deflection``, ``supervised``.
    objectives : dict of str to float
        Weights of the objectives; others are not computed.
    data, validation : list of dict
        Data sets: ``dataset`` names a class of `lenssr.simulation`, the rest are its options.
    network : dict
        Options of the network.
    hidden : float
        Share of the pixels that are hidden from the network, for the objective ``hidden_pixels``.
    start : dict of str to str
        Files of initial weights by the names of the networks in the task (``image``, ``source``, ``lens``);
        the others are initialised from the seed.
    optimisation : `Optimisation`
    hardware : `Hardware`

    Raises
    ------
    InputError
        If anything is missing, unknown or invalid; the message names the key and the remedy.

    Examples
    --------
    >>> from lenssr.training import Recipe
    >>> recipe = Recipe.load("relensing", {"optimisation.steps": 100})
    >>> recipe.task, recipe.optimisation.steps
    ('relensing', 100)
    """

    task: str
    objectives: dict
    data: list
    validation: list
    network: dict = field(default_factory=dict)
    hidden: float = 0.0
    start: dict = field(default_factory=dict)
    optimisation: Optimisation = field(default_factory=Optimisation)
    hardware: Hardware = field(default_factory=Hardware)

    def __post_init__(self) -> None:
        one_of(TASKS)("task", self.task)
        for section in ("objectives", "network", "start"):
            check_keys(section, getattr(self, section))
        if not 0 <= _checked_number("hidden", self.hidden) <= 0.9:
            raise InputError(f"hidden = {self.hidden}: give a share of the pixels between 0 and 0.9")
        self._check_objectives()
        self._check_sizes()
        scale = self.build().scale
        for name in ("data", "validation"):
            for number, dataset in enumerate(self.datasets(name)):
                if scale not in (None, dataset.scale):
                    place = f"{name}.{number}.scale = {dataset.scale}"
                    raise InputError(f"{place}, of the network {scale}: give both the same scale")

    def _check_objectives(self) -> None:
        known = TASKS[self.task].objectives
        check_keys("objectives", self.objectives, known)
        for name, weight in self.objectives.items():
            if _checked_number(f"objectives.{name}", weight) < 0:
                raise InputError(f"objectives.{name} = {weight}: give a weight that is not negative")
        if not any(self.objectives.values()):
            raise InputError(f"objectives are empty: give a weight to one of {_listed(known)}")
        if "hidden_pixels" in self.objectives and not self.hidden:
            raise InputError("objectives.hidden_pixels needs hidden pixels: give hidden, for example 0.3")

    def _check_sizes(self) -> None:
        """Refuse what would take more memory than there is, before any of it is made."""
        check_keys("network", self.network, TASKS[self.task].options())
        if not sane(self.network):
            raise InputError(f"network = {quoted(self.network)}: give fewer and smaller numbers")
        with torch.device("meta"):
            weights = network_bytes(self._task())
        check_memory(WEIGHT_FACTOR * weights, f"the network {quoted(self.network)}", "give a smaller one")
        batch = self.optimisation.batch_size
        names: tuple[Literal["data", "validation"], ...] = ("data", "validation")
        for name in names:
            for number, dataset in enumerate(self.datasets(name)):
                place = f"{name}.{number}"
                what = f"{place} with size = {dataset.size}"
                check_memory(LENS_BYTES * dataset.size, what, "give fewer lenses")
                pixels = getattr(dataset, "pixels", 75) ** 2 * min(batch, dataset.size)
                what = f"a batch of {place} with batch_size = {batch}"
                check_memory(PIXEL_BYTES * pixels, what, "give a smaller batch_size or fewer pixels")

    def _task(self) -> Any:
        try:
            return TASKS[self.task](self.network, self.hidden)
        except InputError:
            raise
        except Exception as error:  # such as a list instead of a number
            given = f"network = {quoted(self.network)}"
            raise InputError(
                f"{given}: {type(error).__name__}, {error}; see the class for its options"
            ) from error

    def build(self) -> torch.nn.Module:
        """Make the task, a `torch.nn.Module` with its networks, initial weights from the seed."""
        check_keys("network", self.network, TASKS[self.task].options())
        with usual_torch(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.optimisation.seed % 2**63)
            task: Any = self._task().float()
        check_keys("start", self.start, task.networks)
        for name, path in self.start.items():
            _load_start(name, task.networks[name], path)
        return task

    def datasets(self, name: Literal["data", "validation"]) -> list[BroadLenses | DeepLense]:
        """Make the data sets, each a `~lenssr.simulation.BatchedLenses`."""
        entries = getattr(self, name)
        if not isinstance(entries, list) or not entries:
            raise InputError(f"{name} = {quoted(entries)}: give a list of data sets, each with dataset:")
        return [_dataset(f"{name}.{number}", entry) for number, entry in enumerate(entries)]

    def to_dict(self) -> dict[str, Any]:
        """All settings as plain values, as in YAML."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Recipe":
        """Read a recipe from plain values."""
        check_keys("recipe", values, inspect.signature(cls).parameters)
        for name in ("task", "objectives", "data", "validation"):
            if name not in values:
                raise InputError(f"the recipe has no {name}: add it")
        sections: dict[str, Any] = {}
        for name, kind in {"optimisation": Optimisation, "hardware": Hardware}.items():
            section = values.get(name, {})
            check_keys(name, section, inspect.signature(kind).parameters)
            sections[name] = kind(**section)
        return cls(**values | sections)

    @classmethod
    def load(cls, source: str | Path, changes: dict[str, Any] | None = None) -> "Recipe":
        """Read a recipe from a YAML file, or one of those that come with lenssr.

        Parameters
        ----------
        source : str or `~pathlib.Path`
            A file, or a name (see `recipe_names`).
        changes : dict of str to object, optional
            Values to put in place of the file's, by keys such as ``"optimisation.steps"`` or
            ``"data.0.size"``.

        Raises
        ------
        InputError
            If there is no such recipe, or anything is missing, unknown or invalid; the message names the key
            and the remedy.
        """
        own = str(source) in recipe_names()
        path = RECIPE_FOLDER / f"{source}.yaml" if own else local_path(source, "recipe")
        if not path.exists():
            raise InputError(f"{short_line(source, 95)} is no file, and none of {_listed(recipe_names())}")
        values = read_yaml(read_text(path, MOST_RECIPE_BYTES), str(source))
        check_keys(str(source), values)
        for key, value in (changes or {}).items():
            _put(values, key, value)
        return cls.from_dict(values)


def recipe_names() -> list[str]:
    """Names of the recipes that come with lenssr.

    Examples
    --------
    >>> from lenssr.training import recipe_names
    >>> "relensing" in recipe_names()
    True
    """
    return sorted(path.stem for path in RECIPE_FOLDER.glob("*.yaml"))


def _load_start(name: str, network: Any, path: str) -> None:
    found, _ = load_weights(local_path(path, f"start.{name}"), kind=network.kind)
    for key, own in network.settings.items():
        held = found.settings[key]
        if held != own:
            raise InputError(f"start.{name} = {path} has {key} = {held!r}, the recipe {own!r}: give the same")
    network.load_state_dict(found.state_dict())


def _dataset(place: str, entry: Any) -> Any:
    check_keys(place, entry)
    options = dict(entry)
    name = options.pop("dataset", None)
    one_of(DATASETS)(f"{place}.dataset", name)
    check_keys(place, options, inspect.signature(DATASETS[name]).parameters)
    try:
        return DATASETS[name](**options)
    except InputError as error:
        raise InputError(f"{place}: {error}") from error
    except Exception as error:  # such as a list instead of a number
        raise InputError(f"{place} = {quoted(entry)}: {type(error).__name__}, {error}") from error


def _put(values: Any, key: str, value: Any) -> None:
    """Set a value by a dotted key: list items by their number; a missing section starts empty."""
    if len(key) > 200:
        raise InputError(f"{quoted(key)} is no key of a recipe: give one such as optimisation.steps")
    place, (*path, last) = values, key.split(".")
    for name in path:
        entry = _entry(key, name, place)
        place = place.setdefault(entry, {}) if isinstance(place, dict) else place[entry]
    place[_entry(key, last, place)] = value


def _entry(key: str, name: str, place: Any) -> Any:
    """Key or position of a name in a section."""
    if isinstance(place, dict):
        return name
    if not isinstance(place, list):
        raise InputError(f"{key}: {name} is in no section of the recipe; see the file for its keys")
    if not name.isdigit() or int(name) >= len(place):
        raise InputError(f"{key}: {name!r} is not a position in a list: give 0 to {len(place) - 1}")
    return int(name)


def read_changes(texts: Iterable[str]) -> dict[str, Any]:
    """Changes of a recipe from texts ``KEY=VALUE``, values in YAML."""
    changes = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise InputError(f"--set {quoted(text)}: write KEY=VALUE, for example optimisation.steps=100")
        if key in changes:
            raise InputError(f"--set gives {quoted(key)} twice: give it once")
        changes[key] = read_yaml(value, f"--set {quoted(key)}")
    return changes


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))


def check_keys(place: str, values: Any, known: Iterable[str] = ()) -> None:
    """Refuse what is not a dictionary, or has other keys than the known ones (empty: any)."""
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise InputError(f"{place} = {quoted(values)}: give keys and values")
    prefix = "" if place == "recipe" else f"{place}."
    for key in values:
        if known and key not in known:
            raise InputError(f"{prefix}{quoted(key)[1:-1]} is not known: give {_listed(known)}")


def _check_section(section: str, holder: Any) -> None:
    """Refuse values of a dataclass that are not of the type of their field, or out of range."""
    for one in fields(holder):
        key, value, least = f"{section}.{one.name}", getattr(holder, one.name), _LEAST.get(one.name, 1)
        if get_origin(one.type) is Literal:
            one_of(get_args(one.type))(key, value)
        elif one.type is float:
            bound = "of at least 0" if least == 0 else "above 0"
            if _checked_number(key, value) < 0 or value == 0 < least:
                raise InputError(f"{key} = {quoted(value)}: give a number {bound}")
        elif value is not None or one.type is int:
            whole = isinstance(value, int) and not isinstance(value, bool)
            if not whole or not least <= value < 2**63:
                raise InputError(f"{key} = {quoted(value)}: give an integer of at least {least}")


def _checked_number(key: str, value: Any) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not abs(value) < math.inf:
        raise InputError(f"{key} = {quoted(value)} is not a number: write, for example, 0.001 or 1.0e-3")
    return value
