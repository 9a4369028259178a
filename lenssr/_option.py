"""Options: their declaration, their checks, values from texts of the command line, forms in files."""

import argparse
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from importlib import import_module
from numbers import Integral, Real
from typing import Any

import numpy as np

from lenssr._limits import check_unit_text, memory_size, quoted
from lenssr.exceptions import InputError

# Words that options may be: where an unknown lens is looked for, pixels as the PSF of the output, and None on
# the command line.
SEARCH, NETWORK, PIXEL, NONE = "search", "network", "pixel", "none"


def named(path: str) -> Any:
    """Import the object that ``"module:name"`` stands for, when it is needed."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def late(path: str) -> Callable[..., Any]:
    """Make a function that calls the one which `named` finds."""
    return lambda *values: named(path)(*values)


def shows_keywords(typed: type) -> Callable[[type], type]:
    """Decorator of a class: methods that take the keywords of a typed dict by two stars show them by name.

    What asks for their signatures sees them, such as the completion of a shell, and the docs.
    """
    kinds = {name: getattr(kind, "__forward_arg__", kind) for name, kind in typed.__annotations__.items()}
    named = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for name, kind in kinds.items()
    ]

    def showing(cls: type) -> type:
        for method in filter(inspect.isfunction, vars(cls).values()):
            signature = inspect.signature(method)
            own = list(signature.parameters.values())
            if own and own[-1].annotation == f"Unpack[{typed.__name__}]":
                method.__dict__["__signature__"] = signature.replace(parameters=[*own[:-1], *named])
        return cls

    return showing


# ---------------------------------------------------------------- declarations


@dataclass(frozen=True, kw_only=True)
class Option:
    """One choice: what it means, and how the command line and files spell it."""

    help: str  #: one line for people
    default: Any = None  #: its value where nobody gives one
    check: Callable[[str, Any], object] | None = None  #: raises InputError for (name, value)
    flag: str | None = None  #: such as "--scale", where the command line has it
    metavar: str | None = None  #: stands for its value there
    parse: Callable[[str], Any] | None = None  #: makes a value of the text there; by default the text itself
    choices: Callable[[], tuple[Any, ...]] | None = None  #: values that the command line takes
    switch: bool = False  #: whether the flag takes no value and means True
    none: bool = False  #: whether the command line's word "none" means None
    save: Callable[[Any], Any] | None = None  #: plain data of a value for a file; by default the value itself
    load: Callable[[Any], Any] | None = None  #: and back

    @property
    def meaning(self) -> str:
        """The help line with the choices."""
        # Without a metavar argparse lists the choices itself.
        choices = f": {', '.join(self.choices())}" if self.choices and self.metavar else ""
        return self.help + choices

    @property
    def text(self) -> str:
        """The help line with choices and default."""
        return self.meaning + ("" if self.default is None else f" (default: {self.default})")

    def given(self, value: Any) -> Any:
        """The value that the command line means: the default where nothing was given."""
        if value is None:
            return self.default
        return None if self.none and value == NONE else value

    def add_to(self, parser: argparse.ArgumentParser, name: str) -> None:
        """Add it to a parser of the command line, under its name."""
        if self.switch:
            parser.add_argument(self.flag, dest=name, action="store_true", default=None, help=self.text)
            return
        about = {"metavar": self.metavar, "type": self.parse, "choices": self.choices and self.choices()}
        parser.add_argument(self.flag, dest=name, help=self.text, **about)


def option(help: str, **more: Any) -> Any:
    """Make a field of a dataclass that is an `Option`, kept in its metadata."""
    one = Option(help=help, **more)
    return field(default=one.default, metadata={"option": one})


class Options:
    """Base of dataclasses whose fields are options; they are checked when an object is built."""

    device: str

    def __post_init__(self) -> None:
        for name, one in self.options().items():
            if one.check is not None:
                one.check(name, getattr(self, name))

    @classmethod
    def options(cls) -> dict[str, Option]:
        """The options by name, in order."""
        return {one.name: one.metadata["option"] for one in fields(cls) if "option" in one.metadata}

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Names of the options, in order."""
        return tuple(cls.options())

    @property
    def torch_device(self):
        """The device that "auto" stands for here."""
        return named("lenssr._tensors:choose_device")(self.device)


# ---------------------------------------------------------------- values from texts of the command line


def angle(text):
    """Read ``0.1arcsec``; a bare number is refused, since its unit is not known."""
    import astropy.units as u

    try:
        check_unit_text(text, "an angle")
        read = u.Quantity(text)
    except (TypeError, ValueError, ArithmeticError):
        read = np.nan * u.arcsec
    if read.unit.is_equivalent(u.dimensionless_unscaled):
        raise argparse.ArgumentTypeError(f"{text!r} has no unit: write {text}arcsec if it is in arcsec")
    if not is_angle(read):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive angle: write, for example, 0.1arcsec")
    return read


def memory_text(text):
    """Read a size of memory such as ``2GB``."""
    try:
        return memory_size(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def whole_number(text, least=1):
    """Read an integer of at least ``least``."""
    try:
        number = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from error
    if number < least:
        raise argparse.ArgumentTypeError(f"{text} is below {least}: give {least} or more")
    return number


def psf_text(text):
    """Read a width with a unit, or else the name of a file."""
    import astropy.units as u

    try:
        check_unit_text(text, "a width")
        width = u.Quantity(text)
    except (TypeError, ValueError, ArithmeticError):
        return text
    return width if width.unit == u.pix else angle(text)


def bits_text(text):
    """Read a number, or names with commas."""
    return int(text, 0) if text.isdigit() or text.lower().startswith("0x") else text


def word_or(word, parse):
    """Make a parser that leaves a word as it is."""
    return lambda text: text if text == word else parse(text)


def names_text(text):
    """Read ``sersic``, or ``sersic,mge`` as a list."""
    names = [name.strip() for name in text.split(",")]
    return names if len(names) > 1 else names[0]


# ---------------------------------------------------------------- checks


def such(test, wanted):
    """Make a check that ``test`` holds for a value; otherwise an `InputError` names both."""

    def check(name, value):
        if not test(value):
            raise InputError(f"{name} = {quoted(value)}: give {wanted}")

    return check


def whole(least):
    """Make a check that a value is an integer of at least ``least``."""
    return such(
        lambda value: isinstance(value, Integral) and not isinstance(value, bool) and value >= least,
        f"an integer, {least} or larger",
    )


def one_of(choices):
    """Make a check that a value is one of these words, numbers, or None."""
    return such(
        lambda value: isinstance(value, str | int | np.generic | None) and value in choices,
        f"one of {', '.join(map(repr, choices))}",
    )


def unless(others, check):
    """Make a check that takes other values (words, or None), too."""

    def either(name, value):
        if not isinstance(value, str | None) or value not in others:
            check(name, value)

    return either


def checked_by(path):
    """Make a check by a function of the value alone, which `named` finds."""
    return lambda name, value: named(path)(value)


def pair(value, name, *, integer=False):
    """One or two positive numbers as a pair; an `InputError` names the value."""
    try:
        values = (value, value) if np.ndim(value) == 0 else tuple(value)
    except (TypeError, ValueError):
        values = ()
    good = len(values) == 2 and all(isinstance(v, Real) and np.isfinite(v) and v > 0 for v in values)
    if not good or (integer and any(int(v) != v for v in values)):
        kind = "integers" if integer else "numbers"
        raise InputError(f"{name} = {quoted(value)}: give one or two positive {kind}")
    return tuple(int(v) if integer else float(v) for v in values)


def is_angle(value):
    """Whether a value is one positive angle with a unit."""
    import astropy.units as u

    known = isinstance(value, u.Quantity) and value.isscalar and value.unit.is_equivalent(u.arcsec)
    return known and 0 < value.value < np.inf
