"""Parameters of mass models."""

import math

import astropy.units as u

from lenssr.exceptions import InputError
from lenssr.units import strip_unit

__all__ = ["Parameter"]


class Parameter:
    """One number of a mass model, with the vocabulary of `astropy.modeling.Parameter`.

    In a class body it declares the parameter; on an instance it holds the value.

    Parameters
    ----------
    description : str
        Its meaning.
    unit : `~astropy.units.Unit`, optional
        Its unit; dimensionless by default.
    limits : tuple of float, optional
        The open interval of allowed values; others are refused.
    fixed : bool, optional
        Whether fits hold it by default.

    Attributes
    ----------
    value : float
        The value, in ``unit``.
    bounds : tuple
        Lower and upper bound for fits, None for an open end, as in astropy.
    std : float or None
        Standard error, after a fit.
    """

    def __init__(
        self, description, *, unit=u.dimensionless_unscaled, limits=(-math.inf, math.inf), fixed=False
    ):
        self.name = None
        self.description = description
        self.unit = unit
        self.limits = limits
        self.fixed = fixed
        self.std = None
        self._bounds = (None, None)
        self._value = None

    def __set_name__(self, owner, name):
        self.name = name

    def __get__(self, instance, owner):
        return self if instance is None else instance._parameters[self.name]

    def __set__(self, instance, value):
        instance._parameters[self.name].value = value
        instance._validate()

    @property
    def value(self):
        """The value in ``unit``."""
        return self._value

    @value.setter
    def value(self, value):
        number = strip_unit(value, self.unit, self.name)
        try:
            number = float(number)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"{self.name} = {value!r} is not one number: a model holds one lens, batches go through "
                "deflection_at(x, y, params)"
            ) from error
        low, high = self.limits
        if not math.isfinite(number) or not low < number < high:
            raise InputError(
                f"{self.name} = {number} is refused: give a finite number between {low} and {high}"
            )
        self._value = number

    @property
    def quantity(self):
        """The value as a `~astropy.units.Quantity`."""
        return self._value * self.unit

    @property
    def bounds(self):
        """Lower and upper end for fits; None leaves an end open."""
        return self._bounds

    @bounds.setter
    def bounds(self, bounds):
        try:
            low, high = (None if b is None else float(strip_unit(b, self.unit, self.name)) for b in bounds)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"bounds of {self.name} = {bounds!r}: give a pair (lower, upper) or None"
            ) from error
        if low is not None and high is not None and not low < high:
            raise InputError(f"bounds of {self.name} = ({low}, {high}): the lower must be below the upper")
        self._bounds = (low, high)

    def __float__(self):
        return self._value

    def __repr__(self):
        parts = [f"value={self._value}"]
        if self.unit != u.dimensionless_unscaled:
            parts.append(f"unit={self.unit}")
        parts += ["fixed=True"] if self.fixed else []
        parts += [f"bounds={self._bounds}"] if self._bounds != (None, None) else []
        parts += [f"std={self.std}"] if self.std is not None else []
        return f"Parameter({self.name!r}, {', '.join(parts)})"
