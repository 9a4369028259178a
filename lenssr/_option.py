"""Options: their declaration, their checks, values from texts of the command line, forms in files."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from typing import Any

import numpy as np

from lenssr.exceptions import InputError

# Words that options may be: where an unknown lens is looked for, and pixels as the PSF of the output.
SEARCH, NETWORK, PIXEL = "search", "network", "pixel"


# ---------------------------------------------------------------- declarations


@dataclass(frozen=True, kw_only=True)
class Option:
    """One choice: what it means, and how the command line and files spell it."""

    help: str  # one line for people
    default: Any = None
    check: Callable[[str, Any], object] | None = None  # raises InputError for (name, value)
    flag: str | None = None  # such as "--scale", where the command line has it
    metavar: str | None = None  # stands for its value there
    parse: Callable[[str], Any] | None = None  # makes a value of the text there; by default the text itself
    choices: Callable[[], tuple[Any, ...]] | None = None  # values that the command line takes
    switch: bool = False  # whether the flag takes no value and means True
    save: Callable[[Any], Any] | None = None  # plain data of a value for a file; by default the value itself
    load: Callable[[Any], Any] | None = None  # and back

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

    def add_to(self, parser: argparse.ArgumentParser, name: str) -> None:
        """Add it to a parser of the command line, under its name."""
        if self.switch:
            parser.add_argument(self.flag, dest=name, action="store_true", default=None, help=self.text)
            return
        choices = self.choices() if self.choices else None
        about = {"metavar": self.metavar, "type": self.parse, "choices": choices, "help": self.text}
        parser.add_argument(self.flag, dest=name, **about)


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
        from lenssr._tensors import choose_device

        return choose_device(self.device)


# ---------------------------------------------------------------- values from texts of the command line


def angle(text):
    """Read ``0.1arcsec``; a bare number is refused, since its unit is not known."""
    import astropy.units as u

    try:
        read = u.Quantity(text)
    except (TypeError, ValueError) as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an angle: write, for example, 0.1arcsec"
        ) from error
    if read.unit.is_equivalent(u.dimensionless_unscaled):
        raise argparse.ArgumentTypeError(f"{text!r} has no unit: write {text}arcsec if it is in arcsec")
    if not read.isscalar or not read.unit.is_equivalent(u.arcsec) or not 0 < read.value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive angle: write, for example, 0.1arcsec")
    return read


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
        width = u.Quantity(text)
    except (TypeError, ValueError):
        return text
    return width if width.unit == u.pix else angle(text)


def psf_out_text(text):
    return text if text == PIXEL else angle(text)


def side_text(text):
    return text if text == "auto" else whole_number(text)


def names_text(text):
    """Read ``sersic``, or ``sersic,mge`` as a list."""
    names = [name.strip() for name in text.split(",")]
    return names if len(names) > 1 else names[0]


# ---------------------------------------------------------------- checks


def such(test, wanted):
    """Make a check that ``test`` holds for a value; otherwise an `InputError` names both."""

    def check(name, value):
        if not test(value):
            raise InputError(f"{name} = {value!r}: give {wanted}")

    return check


def whole(least):
    """Make a check that a value is an integer of at least ``least``."""
    return such(
        lambda value: isinstance(value, Integral) and not isinstance(value, bool) and value >= least,
        f"an integer, {least} or larger",
    )


def one_of(choices):
    """Make a check that a value is one of these names, or None where that is among them."""
    return such(
        lambda value: (value is None or isinstance(value, str)) and value in choices,
        f"one of {', '.join(map(repr, choices))}",
    )


check_fit_lens = such(lambda value: value in (None, True, False), "True, False or None")
check_positive = such(lambda value: isinstance(value, bool | np.bool_), "True or False")
check_components = such(lambda value: value in (1, 2), "1, or 2 for a bulge and a disc")
check_grouper = such(
    lambda value: value is None or callable(value) or (isinstance(value, str) and value == "auto"),
    "a photutils SourceGrouper, 'auto' or None",
)


def or_auto(check):
    """Make a check that takes "auto" too."""
    return lambda name, value: None if isinstance(value, str) and value == "auto" else check(name, value)


def pair(value, name, *, integer=False):
    """One or two positive numbers as a pair; an `InputError` names the value."""
    values = (value, value) if np.ndim(value) == 0 else tuple(value)
    good = len(values) == 2 and all(isinstance(v, Real) and np.isfinite(v) and v > 0 for v in values)
    if not good or (integer and any(int(v) != v for v in values)):
        raise InputError(
            f"{name} = {value!r}: give one or two positive {'integers' if integer else 'numbers'}"
        )
    return tuple(int(v) if integer else float(v) for v in values)


def check_lens(name, value):
    if value is None:
        return
    from lenssr.mass.base import MassModel

    if not isinstance(value, MassModel):
        raise InputError(
            f"{name} = {value!r} is not a mass model: give one, such as SIE(1.2), or None to fit one"
        )


def check_lens_light(name, value):
    from lenssr.light.lens_light import check_lens_light

    check_lens_light(value)


def check_device(name, value):
    from lenssr._tensors import choose_device

    choose_device(value)


def check_psf_out(name, value):
    if value is None or (isinstance(value, str) and value == PIXEL):
        return
    import astropy.units as u

    if not isinstance(value, u.Quantity) or not value.isscalar:
        raise InputError(f"{name} = {value!r}: give a FWHM such as 0.1 * u.arcsec, 'pixel' or None")
    if not value.unit.is_equivalent(u.arcsec) or not 0 < value.value < np.inf:
        raise InputError(f"{name} = {value} is not a positive angle: give arcsec")


def check_fit_shape(name, value):
    pair(value, name, integer=True)


def check_xy_bounds(name, value):
    if value is not None:
        pair(value, name)


# ---------------------------------------------------------------- forms in files


def save_lens(lens):
    return None if lens is None else lens.to_dict()


def load_lens(plain):
    from lenssr.mass import from_dict

    return None if plain is None else from_dict(plain)


def save_light(light):
    from lenssr.light import to_dict

    return to_dict(light)


def load_light(plain):
    from lenssr.light import from_dict

    return from_dict(plain)


def save_psf_out(value):
    return value if value is None or isinstance(value, str) else [float(value.value), str(value.unit)]


def load_psf_out(plain):
    import astropy.units as u

    return u.Quantity(*plain) if isinstance(plain, list) else plain
