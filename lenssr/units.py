"""The boundary between users and the numerics: units are stripped and restored here only.

Inside lenssr a position is a torch tensor in arcsec. Users may hand over a `~astropy.units.Quantity`, a
number, a `~numpy.ndarray` or a `torch.Tensor`, and get the same kind back.
"""

import astropy.units as u
import numpy as np
import torch

from lenssr.exceptions import InputError

__all__ = ["Boundary", "strip_unit"]


def strip_unit(value, unit, name, *, bare=True):
    """Turn a value into a plain number or array in a given unit.

    Parameters
    ----------
    value : `~astropy.units.Quantity`, number, array or tensor
        What the user gave.
    unit : `~astropy.units.Unit`
        The unit used inside.
    name : str
        How the error message calls the value.
    bare : bool, optional
        Whether a number without a unit is taken to be in ``unit`` (the default); angles in degrees
        never are.

    Returns
    -------
    value : float, array or tensor

    Raises
    ------
    InputError
        If the unit does not convert, or is missing and ``bare`` is false.
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


class Boundary:
    """Convert arguments to float64 tensors in arcsec, and results back to the kind the user gave.

    Parameters
    ----------
    *values : `~astropy.units.Quantity`, number, array or tensor
        The positions of one call. If one is a Quantity, results are; otherwise if one is a tensor,
        results are.
    unit : `~astropy.units.Unit`, optional
        The unit of the positions inside, by default arcsec.
    """

    def __init__(self, *values, unit=u.arcsec):
        self.quantity = any(isinstance(value, u.Quantity) for value in values)
        self.tensor = not self.quantity and any(isinstance(value, torch.Tensor) for value in values)
        self.tensors = tuple(self._enter(value, unit) for value in values)

    @staticmethod
    def _enter(value, unit):
        if isinstance(value, torch.Tensor):
            return value if value.is_floating_point() else value.to(torch.float64)
        plain = strip_unit(value, unit, "position")
        return torch.as_tensor(np.array(plain, dtype=np.float64))

    def leave(self, tensor, unit=u.dimensionless_unscaled):
        """Give a result back in the kind of the arguments, in ``unit`` if that is a Quantity."""
        if self.tensor:
            return tensor
        array = tensor.detach().cpu().numpy()
        array = array[()] if array.ndim == 0 else array
        return u.Quantity(array, unit) if self.quantity else array
