"""The boundary between users and the numerics: units are stripped and restored here only.

Inside lenssr a position is a torch tensor in arcsec. Users may give a `~astropy.units.Quantity`, a number, a
`~numpy.ndarray` or a `torch.Tensor`, and get the same kind back.
"""

from typing import Any

import astropy.units as u
import numpy as np
import torch

from lenssr.exceptions import InputError

__all__ = ["Boundary", "positive_integer", "positive_number", "strip_unit"]


def strip_unit(value: Any, unit: u.UnitBase, name: str, *, bare: bool = True) -> Any:
    """Turn a Quantity, number, array or tensor into a plain one in a given unit.

    A number without a unit is taken to be in ``unit``, or refused unless ``bare`` (angles in degrees never
    are bare). ``name`` stands in the message of the `~lenssr.exceptions.InputError`.
    """
    if isinstance(value, u.Quantity):
        try:
            stripped = value.to_value(unit)
        except u.UnitConversionError as error:
            raise InputError(f"{name} = {value} is not convertible to {unit}: give it in {unit}") from error
        return float(stripped) if np.ndim(stripped) == 0 else stripped
    if not bare:
        raise InputError(f"{name} = {value} has no unit: give a Quantity, for example {value} * u.{unit}")
    return value


def positive_number(value: Any, unit: u.UnitBase | None, name: str, *, bare: bool = True) -> float:
    """`strip_unit` of one value that has to be positive and finite."""
    number = strip_unit(value, unit, name, bare=bare)
    known = isinstance(number, float | int | np.number | np.ndarray | torch.Tensor)
    if not known or np.ndim(number) or not (np.isfinite(number) and number > 0):
        remedy = "give one" if unit in (None, u.dimensionless_unscaled) else f"give one in {unit}"
        raise InputError(f"{name} = {value} is not a positive number: {remedy}")
    return float(number)


def positive_integer(value: Any, name: str, least: int = 1) -> int:
    """Return a value that has to be an integer of at least ``least``."""
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not number or value < least or value % 1 != 0:
        raise InputError(f"{name} = {value!r}: give an integer of at least {least}")
    return int(value)


class Boundary:
    """Convert arguments to float64 tensors in arcsec, and results back to the kind the user gave.

    ``values`` are the positions of one call, which are in ``unit`` inside. If one is a Quantity, results are;
    otherwise if one is a tensor, results are.
    """

    def __init__(self, *values: Any, unit: u.UnitBase = u.arcsec) -> None:
        self.quantity = any(isinstance(value, u.Quantity) for value in values)
        self.tensor = not self.quantity and any(isinstance(value, torch.Tensor) for value in values)
        self.tensors = tuple(self._enter(value, unit) for value in values)

    @staticmethod
    def _enter(value: Any, unit: u.UnitBase) -> torch.Tensor:
        if isinstance(value, torch.Tensor):
            return value if value.is_floating_point() else value.to(torch.float64)
        plain = strip_unit(value, unit, "position")
        return torch.as_tensor(np.array(plain, dtype=np.float64))

    def leave(self, tensor: torch.Tensor, unit: u.UnitBase = u.dimensionless_unscaled) -> Any:
        """Give a result back in the kind of the arguments, in ``unit`` if they are quantities."""
        if self.tensor:
            return tensor
        array = tensor.detach().cpu().numpy()
        array = array[()] if array.ndim == 0 else array
        return u.Quantity(array, unit) if self.quantity else array
