"""Parameters of mass models, and axis ratio and angles of those with an ellipticity."""

import copy
import math
from collections.abc import Sequence
from typing import Any, ClassVar, Self, TypeAlias

import astropy.units as u
import numpy as np
import torch
from astropy.coordinates import Angle
from astropy.wcs import WCS
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from lenssr._html import html_table
from lenssr._plain import as_lists, plain_model
from lenssr.exceptions import InputError
from lenssr.grids import frame_axes
from lenssr.units import strip_unit

__all__ = ["EllipticalMixin", "Parameter"]

Length: TypeAlias = float | u.Quantity
Vector: TypeAlias = ArrayLike | Tensor
Bounds: TypeAlias = tuple[float | None, float | None]


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
        self,
        description: str,
        *,
        unit: u.UnitBase = u.dimensionless_unscaled,
        limits: tuple[float, float] = (-math.inf, math.inf),
        fixed: bool = False,
    ) -> None:
        self.name = ""
        self.description, self.unit, self.limits, self.fixed = description, unit, limits, fixed
        self.std: float | None = None
        self._bounds: Bounds = (None, None)
        self._value = math.nan

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type) -> "Parameter":
        return self if instance is None else instance._parameters[self.name]

    def __set__(self, instance: Any, value: Length) -> None:
        instance._parameters[self.name].value = value
        instance._validate()

    @property
    def value(self) -> Any:
        """The value in ``unit``, a float; a `~astropy.units.Quantity` may be set."""
        return self._value

    @value.setter
    def value(self, value: Length) -> None:
        number = strip_unit(value, self.unit, self.name)
        try:
            number = float(number)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"{self.name} = {value!r} is not one number: use deflection_at for a batch of lenses"
            ) from error
        low, high = self.limits
        if not math.isfinite(number) or not low < number < high:
            raise InputError(f"{self.name} = {number} is refused: give one between {low} and {high}")
        self._value = number

    @property
    def quantity(self) -> u.Quantity:
        """The value as a `~astropy.units.Quantity`."""
        return self._value * self.unit

    @property
    def bounds(self) -> Any:
        """Lower and upper end for fits, floats; None leaves an end open."""
        return self._bounds

    @bounds.setter
    def bounds(self, bounds: Sequence[Length | None]) -> None:
        try:
            low, high = (None if b is None else float(strip_unit(b, self.unit, self.name)) for b in bounds)
        except (TypeError, ValueError) as error:
            raise InputError(f"bounds of {self.name} = {bounds!r}: give a pair (lower, upper)") from error
        if low is not None and high is not None and not low < high:
            raise InputError(f"bounds of {self.name} = ({low}, {high}): the lower must be below the upper")
        self._bounds = (low, high)

    def __float__(self) -> float:
        return self._value

    def __repr__(self) -> str:
        shown = {
            "value": self._value,
            "unit": None if self.unit == u.dimensionless_unscaled else str(self.unit),
            "fixed": self.fixed or None,
            "bounds": None if self._bounds == (None, None) else self._bounds,
            "std": self.std,
        }
        said = ", ".join(f"{name}={value}" for name, value in shown.items() if value is not None)
        return f"Parameter({self.name!r}, {said})"


class Parametrised:
    """Base of models with named parameters: their declaration, vector, copies and plain form."""

    #: Names of the parameters, in the order of a vector of them.
    param_names: tuple[str, ...] = ()
    covariance: NDArray[np.float64] | None
    _declared: ClassVar[dict[str, Parameter]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = {name: item for name, item in vars(cls).items() if isinstance(item, Parameter)}
        if own:
            cls._declared = {**cls._declared, **own}
            cls.param_names = tuple(cls._declared)

    def __init__(self, **values: Length) -> None:
        self._parameters = {name: copy.copy(declared) for name, declared in self._declared.items()}
        self.covariance = None
        for name, value in values.items():
            self._parameters[name].value = value
        self._validate()

    def _validate(self) -> None:
        """Refuse combinations of values that no single limit can describe; models override it."""

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The `Parameter` objects, in order."""
        return tuple(self._parameters[name] for name in self.param_names)

    @property
    def vector(self) -> Tensor:
        """Values of all parameters: float64 tensor of shape (P,)."""
        return torch.tensor([parameter.value for parameter in self.parameters], dtype=torch.float64)

    def copy(self) -> Self:
        """Make an independent copy."""
        return copy.deepcopy(self)

    def with_vector(self, vector: Vector, *, covariance: Vector | None = None) -> Self:
        """Copy the model with other values.

        Parameters
        ----------
        vector : array_like or `torch.Tensor`, shape (P,)
            The new values, in the parameters' units.
        covariance : array_like, shape (P, P), optional
            Their covariance; its diagonal sets ``std``.

        Returns
        -------
        model : like this one
            A copy with the same ``fixed`` and ``bounds``; `InputError` if a shape or a value is refused.
        """
        number, values = len(self.param_names), _to_array(vector)
        if values.shape != (number,):
            raise InputError(f"vector has shape {values.shape}: give {number} values")
        spread = None if covariance is None else _to_array(covariance)
        if spread is not None and spread.shape != (number, number):
            raise InputError(f"covariance has shape {spread.shape}: give {(number, number)}")
        model = self.copy()
        model._take(values, spread)
        return model

    def _take(self, values: NDArray, covariance: NDArray | None) -> None:
        self.covariance = covariance
        for k, parameter in enumerate(self.parameters):
            parameter.value = values[k]
            parameter.std = None if covariance is None else float(np.sqrt(max(covariance[k, k], 0.0)))
        self._validate()

    def to_dict(self) -> dict[str, Any] | list[dict[str, Any]]:
        """Describe the model completely in plain numbers and strings, ready for YAML.

        Returns
        -------
        description : dict or list of dict
            As `lenssr.mass.from_dict` takes it: ``fixed`` and ``bounds`` where they are not the usual ones,
            ``std`` and ``covariance`` where a fit made some.

        Examples
        --------
        >>> from lenssr.mass import SIE
        >>> SIE(1.2, e1=0.1).to_dict()
        {'SIE': {'theta_E': 1.2, 'e1': 0.1, 'e2': 0.0, 'x_0': 0.0, 'y_0': 0.0}}
        """
        return as_lists(self._plain())

    def _plain(self) -> Any:
        """The model as `to_dict` has it, maps and covariance as arrays."""
        return plain_model(self)

    def _repr_html_(self) -> str:
        return html_table(type(self).__name__, map(_html_row, self.param_names, self.parameters), HTML_HEAD)

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={parameter.value!r}" for name, parameter in self._parameters.items())
        return f"{type(self).__name__}({values})"


HTML_HEAD = ("parameter", "value", "error", "unit", "bounds", "")


def _html_row(name: str, parameter: Parameter) -> tuple[str, ...]:
    """A parameter as a row of a table."""
    low, high = ("" if end is None else f"{end:g}" for end in parameter.bounds)
    bounds = f"{low} ... {high}" if low or high else ""
    error = "" if parameter.std is None else f"{parameter.std:.2g}"
    unit = "" if parameter.unit is None else parameter.unit.to_string()
    fixed = "fixed" if parameter.fixed else ""
    return name, f"{parameter.value:.6g}", error, unit, bounds, fixed


def centre(word: str = "centre", *, fixed: bool = False) -> tuple[Parameter, Parameter]:
    """Declare ``x_0`` and ``y_0``."""
    x_0, y_0 = (Parameter(f"{word} along {axis}", unit=u.arcsec, fixed=fixed) for axis in "xy")
    return x_0, y_0


def ellipticities() -> tuple[Parameter, Parameter]:
    """Declare ``e1`` and ``e2``."""
    e1, e2 = (Parameter(f"ellipticity along the {lines}", limits=(-1, 1)) for lines in ("axes", "diagonals"))
    return e1, e2


def ellipticity(q: float, phi: float) -> tuple[float, float]:
    """Components e1, e2 for an axis ratio and the angle of the major axis from +x in radians."""
    modulus = (1 - q) / (1 + q)
    return modulus * math.cos(2 * phi), modulus * math.sin(2 * phi)


def checked_ellipticity(q: float, phi: u.Quantity) -> tuple[float, float]:
    """`ellipticity` for values that a user gives."""
    q = float(strip_unit(q, u.dimensionless_unscaled, "q"))
    if not 0 < q <= 1:
        raise InputError(f"q = {q} is refused: give minor over major axis, 0 < q <= 1")
    return ellipticity(q, strip_unit(phi, u.rad, "phi", bare=False))


def shape(e1: float, e2: float, q: float | None, phi: u.Quantity | None) -> dict[str, float]:
    """Components e1 and e2 of an ellipticity that is given by them, or by axis ratio and angle."""
    if q is None and phi is None:
        return {"e1": e1, "e2": e2}
    if e1 or e2:
        raise InputError(f"e1 = {e1}, e2 = {e2} and q = {q}, phi = {phi}: give one pair of them")
    if q is None or (phi is None and q != 1):
        raise InputError(f"q = {q} with phi = {phi}: give both, such as q=0.8, phi=30 * u.deg")
    found = checked_ellipticity(q, 0 * u.deg if phi is None else phi)
    return dict(zip(("e1", "e2"), found, strict=True))


class EllipticalMixin(Parametrised):
    """Axis ratio and angles, for mass models with parameters e1 and e2."""

    e1: Parameter
    e2: Parameter

    def _validate(self) -> None:
        e = math.hypot(self.e1.value, self.e2.value)
        if e >= 1:
            raise InputError(
                f"e1 = {self.e1.value}, e2 = {self.e2.value} have modulus {e:.4g}: it must be below 1, "
                "e = (1 - q) / (1 + q)"
            )
        super()._validate()

    @classmethod
    def from_q_phi(cls, *args: Length, q: float, phi: u.Quantity, **values: Length) -> Self:
        """Make a model from axis ratio and angle.

        Parameters
        ----------
        *args, **values : float or `~astropy.units.Quantity`
            The other parameters, as for the class.
        q : float
            Minor over major axis, in (0, 1].
        phi : `~astropy.units.Quantity`
            Angle of the major axis, counter-clockwise from +x.
        """
        e1, e2 = checked_ellipticity(q, phi)
        build: Any = cls
        return build(*args, e1=e1, e2=e2, **values)

    @property
    def q(self) -> float:
        """Minor over major axis."""
        e = math.hypot(self.e1.value, self.e2.value)
        return (1 - e) / (1 + e)

    @property
    def phi(self) -> Angle:
        """Angle of the major axis counter-clockwise from +x, within +-90 degrees."""
        return Angle(0.5 * math.atan2(self.e2.value, self.e1.value) * u.rad).to(u.deg)

    def position_angle(self, wcs: WCS) -> Angle:
        """Angle of the major axis on the sky.

        Parameters
        ----------
        wcs : `~astropy.wcs.WCS`
            The image's; north is taken at its reference pixel.

        Returns
        -------
        angle : `~astropy.coordinates.Angle`
            East of north, in [0, 180) degrees.
        """
        phi = self.phi.to_value(u.rad)
        east, north = frame_axes(wcs) @ np.array([math.cos(phi), math.sin(phi)])
        return Angle(np.degrees(np.arctan2(east, north)) % 180, u.deg)


def _to_array(values: Vector) -> NDArray[np.float64]:
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    return np.asarray(values, dtype=np.float64)
