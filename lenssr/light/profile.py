"""The contract between a fit and a light profile, and the ellipses, units and errors of all profiles."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Self, TypeAlias

import astropy.units as u
import numpy as np
import torch
from astropy.modeling import Model
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from lenssr._tensors import forward_jacobian
from lenssr.exceptions import InputError
from lenssr.mass.kernels import Pair, Real
from lenssr.units import strip_unit

__all__ = ["LightProfile", "elliptical_radius"]

Length: TypeAlias = float | u.Quantity
Vector: TypeAlias = Tensor | ArrayLike
Unit: TypeAlias = u.UnitBase | None

# Least amplitude and flux, in any unit of the image: they are positive.
FAINTEST = 1e-60
# Shortest length (arcsec) and largest |e1|, |e2| of a fit.
SHORTEST, LONGEST_SHAPE = 1e-3, 0.6
# Sérsic index of a first source.
FIRST_INDEX = 1.0
# Half side of the square that shows a profile, in effective radii along the major axis.
WINDOW_RADII = 4.0
# Curve of growth: first and last radius in arcsec, step in the logarithm, and points on every ellipse. A ring
# is integrated to round-off if its standard deviation is 2 % of its radius or more.
INNERMOST, OUTERMOST, RADIUS_STEP, ANGLES = 1e-4, 1e2, 0.02, 16
# Standard deviations of the priors with which evidence compares a source: of the logarithm of a brightness
# and of a length, of centre (arcsec) and ellipticity, of all else.
BRIGHT_WIDTH, LOG_WIDTH, PLACE_WIDTH, OTHER_WIDTH = 3.0, 1.0, 0.3, 2.0


# ---------------------------------------------------------------- ellipses


def as_tensors(*values: Tensor | ArrayLike) -> list[Tensor]:
    """Tensors for numbers, of the type and device of the first tensor among the values, else of float64."""
    like = next((value for value in values if isinstance(value, Tensor)), None)
    kind: Any = {"dtype": torch.float64} if like is None else {"dtype": like.dtype, "device": like.device}
    return [value if isinstance(value, Tensor) else torch.as_tensor(value, **kind) for value in values]


def turned(x: Tensor, y: Tensor, e1: Tensor, e2: Tensor) -> Pair:
    """Real and imaginary part of w - e conj(w) of w = x + i y and e = e1 + i e2, without temporary arrays."""
    return torch.addcmul((1 - e1) * x, e2, y, value=-1), torch.addcmul((1 + e1) * y, e2, x, value=-1)


def on_ellipse(x: Tensor, y: Tensor, x_0: Tensor, y_0: Tensor, e1: Tensor, e2: Tensor) -> tuple[Tensor, ...]:
    """Position dx, dy from the centre, zeta = w - e conj(w) of w = dx + i dy, and 1 - e^2.

    The elliptical radius is ``|zeta| / sqrt(1 - e^2)``, which needs no angle.
    """
    dx, dy = x - x_0, y - y_0
    return dx, dy, *turned(dx, dy, e1, e2), 1 - e1**2 - e2**2


def shape_derivatives(
    d_dp: Tensor, ellipse: tuple[Tensor, ...], slope: Pair, rise: Tensor, e1: Tensor, e2: Tensor
) -> Pair:
    """Fill the last rows of ``d_dp``, derivatives by x_0, y_0, e1 and e2; return those by the position.

    They follow from those by zeta, ``slope``, and by the logarithm of the radius, ``rise``; ``ellipse`` is
    of `on_ellipse`.
    """
    (dx, dy, _, _, q2), (slope_x, slope_y) = ellipse, slope
    d_dx, d_dy = turned(slope_x, slope_y, e1, e2)
    torch.neg(d_dx, out=d_dp[..., -4, :])
    torch.neg(d_dy, out=d_dp[..., -3, :])
    of_e1 = torch.addcmul(dy * slope_y, dx, slope_x, value=-1)
    torch.addcmul(of_e1, rise, e1 / q2, out=d_dp[..., -2, :])
    of_e2 = torch.addcmul(e2 / q2 * rise, dy, slope_x, value=-1)
    torch.addcmul(of_e2, dx, slope_y, value=-1, out=d_dp[..., -1, :])
    return d_dx, d_dy


def elliptical_radius(x: Tensor, y: Tensor, x_0: Real, y_0: Real, e1: Real, e2: Real) -> Tensor:
    """Radius of the ellipse through a position: the product average of its axes.

    Parameters
    ----------
    x, y : `torch.Tensor`, broadcastable with (B, R)
        Positions in arcsec.
    x_0, y_0 : `torch.Tensor` or float, broadcastable with (B, 1)
        Centre in arcsec.
    e1, e2 : `torch.Tensor` or float, broadcastable with (B, 1)
        Ellipticity, ``(1-q)/(1+q)`` times the cosine and sine of ``2 phi``.

    Returns
    -------
    radius : `torch.Tensor`, shape (B, R)
        In arcsec. Its gradient is zero exactly at the centre, where the radius has a cone.

    Examples
    --------
    >>> import torch
    >>> from lenssr.light import elliptical_radius
    >>> elliptical_radius(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0]), 0.0, 0.0, 0.2, 0.0)
    tensor([1.2247, 0.8165])
    """
    _, _, zeta_x, zeta_y, q2 = on_ellipse(*as_tensors(x, y, x_0, y_0, e1, e2))
    square = (zeta_x**2 + zeta_y**2) / q2
    return square.clamp_min(torch.finfo(square.dtype).tiny).sqrt()


def ellipse_points(radius: Tensor, angle: Tensor, x_0: Tensor, y_0: Tensor, e1: Tensor, e2: Tensor) -> Pair:
    """Points x, y (B, R) on ellipses of these radii; equal areas of (radius, angle) have equal areas."""
    scale = radius / (1 - e1**2 - e2**2) ** 0.5
    cosine, sine = torch.cos(angle), torch.sin(angle)
    x = scale * ((1 + e1) * cosine + e2 * sine)
    y = scale * ((1 - e1) * sine + e2 * cosine)
    return x_0 + x, y_0 + y


def axis_ratio_of(modulus: Any) -> Any:
    """Minor over major axis, from the modulus of the ellipticity."""
    return (1 - modulus) / (1 + modulus)


def axis_ratio(e1: Any, e2: Any) -> Any:
    """Minor over major axis."""
    return axis_ratio_of(np.hypot(e1, e2))


def check_ellipse(e1: Any, e2: Any) -> None:
    """Refuse ellipticities of modulus 1 or more."""
    if np.any(np.hypot(e1, e2) >= 1):
        raise InputError(f"e1 = {e1}, e2 = {e2} is not an ellipse: sqrt(e1^2 + e2^2) must be below 1")


class EllipticalLight:
    """Shape and units of `~astropy.modeling.Model` classes with parameters e1 and e2.

    ``_lengths``, ``_bright`` and ``_bright_unit`` are as in `LightProfile`.
    """

    covariance: NDArray[np.float64] | None = None
    _lengths: tuple[str, ...] = ()
    _bright_unit: u.UnitBase = u.dimensionless_unscaled
    _bright: Any
    e1: Any
    e2: Any
    inputs: Any
    outputs: Any

    @property
    def q(self) -> float:
        """Axis ratio, minor over major."""
        return float(axis_ratio(self.e1.value, self.e2.value))

    @property
    def phi(self) -> u.Quantity:
        """Direction of the major axis, counter-clockwise from +x."""
        return np.degrees(np.arctan2(self.e2.value, self.e1.value) / 2) * u.deg

    @property
    def input_units(self) -> dict[str, u.UnitBase] | None:
        """Units of the positions, as of the centre or the radius."""
        units = (getattr(self, name).input_unit for name in ("x_0", *self._lengths))
        unit = next((unit for unit in units if unit is not None), None)
        return None if unit is None else dict.fromkeys(self.inputs, unit)

    def _parameter_units_for_data_units(self, inputs_unit: Any, outputs_unit: Any) -> dict[str, Any]:
        bright = outputs_unit[self.outputs[0]] * u.arcsec**2 * self._bright_unit
        lengths = ("x_0", "y_0", *self._lengths)
        return dict.fromkeys(lengths, inputs_unit[self.inputs[0]]) | dict.fromkeys(self._bright, bright)


# ---------------------------------------------------------------- units and errors of models


def bare(value: Any) -> NDArray[np.float64]:
    """Drop a unit."""
    return np.asarray(getattr(value, "value", value), dtype=np.float64)


def lengths_in_arcsec(*values: Any) -> list[NDArray[np.float64]]:
    """Positions and lengths without their units, for the evaluation of a model."""
    return [bare(strip_unit(value, u.arcsec, "position")) for value in values]


def in_arcsec(model: Model, names: Sequence[str], lengths: Sequence[str]) -> NDArray[np.float64]:
    """Values of parameters of a model: centre and ``lengths`` in arcsec, others in their own unit."""
    values = []
    for name in names:
        parameter = getattr(model, name)
        long = parameter.unit is not None and name in ("x_0", "y_0", *lengths)
        values.append(float(parameter.value) * (parameter.unit.to(u.arcsec) if long else 1))
    return np.array(values)


def with_units(
    names: Sequence[str], vector: Vector, lengths: Sequence[str], bright: Sequence[str], unit: Unit
) -> dict[str, Any]:
    """Parameters of a model by name, with units if ``unit``, of ``bright``, is not None."""
    units = dict.fromkeys(("x_0", "y_0", *lengths), u.arcsec) | dict.fromkeys(bright, unit)
    values = dict(zip(names, torch.as_tensor(vector).tolist(), strict=True))
    return values if unit is None else {name: one * units.get(name, 1) for name, one in values.items()}


def with_covariance(model: Any, covariance: Tensor | NDArray | None) -> Any:
    """Return the model with this covariance (P, P) of its parameters and their errors, if it is not None."""
    if covariance is not None:
        model.covariance = torch.as_tensor(covariance).detach().cpu().numpy().astype(np.float64)
        for name, variance in zip(model.param_names, np.diag(model.covariance), strict=True):
            getattr(model, name).std = float(np.sqrt(max(variance, 0.0)))
    return model


# ---------------------------------------------------------------- the contract


class LightProfile(ABC):
    """One component of light in a fit, on the lens or behind it: the contract that a light model fulfils.

    A profile names the parameters of a vector of fixed length, in arcsec and the unit of the image, and draws
    batches of such vectors. A subclass gives ``names``, ``bright``, ``lengths``, ``brightness`` and
    ``from_sersic``, and the ``model_class`` that users see; everything else has a default that may be
    replaced by something faster or better.

    Parameters
    ----------
    given : `~astropy.modeling.Model`, optional
        A model that the user handed over: the fit starts there, and honours its ``fixed`` and ``bounds``.
    crowded : bool, optional
        Whether other free profiles share the light, which makes weak priors necessary. Default False.

    Attributes
    ----------
    names : tuple of str
        Parameters of the vector, named as in the model; x_0, y_0 the centre and, if there are any, e1,
        e2 the ellipticity as `elliptical_radius` takes it.
    model_class : type or None
        The class of `~astropy.modeling.Model` that users see, with these parameters.
    bright : tuple of str
        Parameters that scale with the flux.
    bright_unit : `~astropy.units.Unit`
        Their unit over the unit of the flux in a pixel: ``arcsec**-2`` for a surface brightness.
    lengths : tuple of str
        Parameters in arcsec beside the centre.
    ranges : dict of (float, float)
        Ends of parameters in a fit, in place of the defaults of `limits`.
    shape_priors : dict of float
        Standard deviations of Gaussian priors around 0, by name, on a source that nobody has described.
    crowded_priors : dict of float
        Those of priors around the start, by name, of a ``crowded`` profile; by default none.

    Examples
    --------
    An exponential disc of scale length h:

    >>> import astropy.units as u
    >>> import torch
    >>> from lenssr.light import LightProfile, elliptical_radius
    >>> class Disc(LightProfile):
    ...     names = ("amplitude", "h", "x_0", "y_0", "e1", "e2")
    ...     bright, bright_unit, lengths = ("amplitude",), u.arcsec**-2, ("h",)
    ...     def brightness(self, x, y, parameters):
    ...         amplitude, h, *shape = parameters.unsqueeze(-1).unbind(1)
    ...         return amplitude * torch.exp(-elliptical_radius(x, y, *shape) / h)
    ...     def from_sersic(self, sersic, rank, count):
    ...         amplitude, r_eff = sersic[:, :1] * 5.36 / count, sersic[:, 1:2]
    ...         return torch.cat([amplitude, r_eff / 1.678, sersic[:, 3:]], dim=1)
    >>> disc = Disc()
    >>> vector = torch.tensor([1.0, 0.5, 0.0, 0.0, 0.1, 0.0], dtype=torch.float64)
    >>> disc.effective_radius(vector), disc.flux(vector)
    (tensor(0.8392, dtype=torch.float64), tensor(1.5708, dtype=torch.float64))
    """

    names: tuple[str, ...] = ()
    model_class: type[Model] | None = None
    bright: tuple[str, ...] = ()
    bright_unit: u.UnitBase = u.dimensionless_unscaled
    lengths: tuple[str, ...] = ()
    ranges: Mapping[str, tuple[float, float]] = {}
    shape_priors: Mapping[str, float] = {"e1": 0.3, "e2": 0.3}
    crowded_priors: Mapping[str, float] = {}

    def __init__(self, given: Model | None = None, *, crowded: bool = False) -> None:
        self.given: Any = given
        self.crowded = crowded
        if given is not None:
            _check_constraints(given)

    @property
    def log(self) -> tuple[bool, ...]:
        """Which parameters a fit takes the logarithm of, by default brightness and lengths."""
        return tuple(name in self.bright or name in self.lengths for name in self.names)

    @property
    def centre(self) -> tuple[int, int]:
        """Positions of x_0 and y_0 in the vector."""
        return self.names.index("x_0"), self.names.index("y_0")

    @property
    def prior(self) -> tuple[float, ...]:
        """Standard deviations of priors around the start, in fit variables; infinite for none."""
        widths = self.crowded_priors if self.crowded else {}
        return tuple(widths.get(name, math.inf) for name in self.names)

    @property
    def evidence_widths(self) -> tuple[float, ...]:
        """Standard deviations of the priors, in fit variables, with which evidence compares a source."""
        widths = dict.fromkeys(("x_0", "y_0", "e1", "e2"), PLACE_WIDTH)
        logarithms = [name for name, log in zip(self.names, self.log, strict=True) if log]
        widths |= {name: BRIGHT_WIDTH if name in self.bright else LOG_WIDTH for name in logarithms}
        return tuple(widths.get(name, OTHER_WIDTH) for name in self.names)

    @property
    def plain(self) -> bool:
        """Whether this is the model that a search starts from: an unconstrained Sérsic."""
        return False

    @property
    def free(self) -> tuple[bool, ...]:
        """Which parameters are fitted."""
        return tuple(self.given is None or not getattr(self.given, name).fixed for name in self.names)

    def bounds(self, extent: float, share: float = 1.0) -> tuple[list[float], list[float]]:
        """Lower and upper ends of the parameters in a fit: the user's, or `limits`.

        ``extent`` is half the field in arcsec, of which lengths may reach a ``share``.
        """
        lower, upper = self.limits(extent, share)
        for k, name in enumerate(self.names if self.given is not None else ()):
            low, high = self.own_bounds(name)
            start = float(self.given_vector[k])
            # A start beyond what the profile expects is the user's choice.
            lower[k] = min(lower[k], start) if low is None else low
            upper[k] = max(upper[k], start) if high is None else high
            if self.log[k]:
                lower[k] = max(lower[k], FAINTEST)
        return lower, upper

    def limits(self, extent: float, share: float) -> tuple[list[float], list[float]]:
        """Ends of the parameters where nobody sets them; arguments and results as for `bounds`.

        By default a brightness is positive, a length lies between 0.001 arcsec and ``share * extent``, the
        centre in the field, the ellipticity within 0.6, and all else where ``ranges`` says, or anywhere.
        """
        ends = dict.fromkeys(self.bright, (FAINTEST, math.inf))
        ends |= dict.fromkeys(self.lengths, (SHORTEST, share * extent))
        ends |= dict.fromkeys(("x_0", "y_0"), (-extent, extent))
        ends |= dict.fromkeys(("e1", "e2"), (-LONGEST_SHAPE, LONGEST_SHAPE)) | dict(self.ranges)
        pairs = [ends.get(name, (-math.inf, math.inf)) for name in self.names]
        return [low for low, _ in pairs], [high for _, high in pairs]

    @abstractmethod
    def brightness(self, x: Tensor, y: Tensor, parameters: Tensor) -> Tensor:
        """Surface brightness.

        Parameters
        ----------
        x, y : `torch.Tensor`, shape (R,) or (B, R)
            Positions in arcsec.
        parameters : `torch.Tensor`, shape (B, P)

        Returns
        -------
        brightness : `torch.Tensor`, shape (B, R)
            In image unit per arcsec2; made of operations that torch differentiates.
        """

    @torch.no_grad()
    def jacobian(self, x: Tensor, y: Tensor, parameters: Tensor, cusp: float = 0.0) -> tuple[Tensor, ...]:
        """Surface brightness and its derivatives, by default by forward-mode differentiation.

        Parameters
        ----------
        x, y, parameters : `torch.Tensor`
            As for `brightness`.
        cusp : float, optional
            Closer to the centre than this, in arcsec, derivatives with respect to the position, and to the
            centre, are zero. Default 0.

        Returns
        -------
        brightness, d_dx, d_dy : `torch.Tensor`, shape (B, R)
        d_dp : `torch.Tensor`, shape (B, P, R)
            Not shared with anything: the caller may overwrite it.
        """

        def brightness(move_x: Tensor, move_y: Tensor, *columns: Tensor) -> Tensor:
            vectors = torch.cat(columns, dim=-1)
            rays = ((x + move_x).flatten(0, -2), (y + move_y).flatten(0, -2))
            return self.brightness(*rays, vectors.flatten(0, -2)).reshape(*vectors.shape[:-1], -1)

        still = parameters.new_zeros(len(parameters), 2)
        value, slopes = forward_jacobian(brightness, torch.cat([still, parameters], dim=1))
        if cusp > 0:
            places = list(self.centre)
            centre_x, centre_y = parameters[:, places].unsqueeze(-1).unbind(1)
            inside = torch.hypot(x - centre_x, y - centre_y) <= cusp
            for column in (0, 1, *(place + 2 for place in places)):
                slopes[:, column].masked_fill_(inside, 0)
        return value, slopes[:, 0], slopes[:, 1], slopes[:, 2:]

    def effective_radius(self, vector: Tensor) -> Tensor:
        """Half-light radius (...) of vectors (..., P): product average of the axes, in arcsec.

        By default from a numerical integral, within 0.1 %.
        """
        radii, inside = self._curve_of_growth(vector)
        half = 0.5 * inside[..., -1:]
        above = (inside < half).sum(-1, keepdim=True).clamp(1, len(radii) - 1)
        low, high = inside.gather(-1, above - 1), inside.gather(-1, above)
        # Between two radii the flux grows evenly in the logarithm of the radius.
        return (radii[above - 1] * torch.exp(RADIUS_STEP * (half - low) / (high - low))).squeeze(-1)

    def flux(self, vector: Tensor) -> Tensor:
        """Total flux (...) of vectors (..., P), in image unit, differentiable.

        By default a numerical integral from 0.0001 to 100 arcsec.
        """
        return self._curve_of_growth(vector)[1][..., -1]

    def _curve_of_growth(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """Radii (n,) in arcsec, product averages of the axes, and the flux (..., n) within."""
        radii, flat = growth_radii(vector), vector.reshape(-1, vector.shape[-1])
        angles = torch.arange(ANGLES).to(vector) * (2 * math.pi / ANGLES)
        columns = dict(zip(self.names, flat.unsqueeze(-1).unbind(1), strict=True))
        x_0, y_0, e1, e2 = (columns.get(name, 0.0 * flat[:, :1]) for name in ("x_0", "y_0", "e1", "e2"))
        radius, angle = (axis.flatten() for axis in torch.meshgrid(radii, angles, indexing="ij"))
        rays = ellipse_points(radius, angle, x_0, y_0, e1, e2)
        rings = self.brightness(*rays, flat).reshape(len(flat), len(radii), ANGLES).mean(-1)
        flux = rings * (2 * math.pi * RADIUS_STEP * radii**2)
        # Trapezoids, from a core of constant brightness.
        inside = flux.cumsum(-1) - 0.5 * flux + flux[:, :1] * (0.5 / RADIUS_STEP - 0.5)
        return radii, inside.reshape(*vector.shape[:-1], len(radii))

    def window(self, vector: Tensor) -> tuple[float, float, float]:
        """Centre and half side, in arcsec, of a square that shows the profile with this vector (P,).

        By default it reaches 4 effective radii along the major axis each way.
        """
        x_0, y_0 = (float(vector[k]) for k in self.centre)
        modulus = math.hypot(*(float(vector[k]) for k, name in enumerate(self.names) if name in ("e1", "e2")))
        major = float(self.effective_radius(vector)) * math.sqrt((1 + modulus) / (1 - modulus))
        return x_0, y_0, WINDOW_RADII * major

    def start(self, sersic: Tensor, rank: int = 0, count: int = 1) -> Tensor:
        """Where a fit begins: at the given model, else `from_sersic`; arguments and result as there."""
        if self.given is None:
            return self.from_sersic(sersic, rank, count)
        return self.given_vector.to(sersic).expand(len(sersic), -1).clone()

    @abstractmethod
    def from_sersic(self, sersic: Tensor, rank: int, count: int) -> Tensor:
        """Where a fit begins if no model was given.

        Parameters
        ----------
        sersic : `torch.Tensor`, shape (B, 7)
            A Sérsic already fitted to all the light, as `~lenssr.light.sersic_brightness` takes it.
        rank, count : int
            The light is shared by ``count`` profiles, of which this is number ``rank``, the compact ones
            first.

        Returns
        -------
        parameters : `torch.Tensor`, shape (B, P)
        """

    def from_moments(self, radius: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Where the fit of a source begins: round, its brightness in units of 1 per arcsec2.

        Of a given model brightness, lengths and centre begin there too, unless they are fixed.

        Parameters
        ----------
        radius, x, y : `torch.Tensor`, shape (B,)
            Effective radius and centre in arcsec.

        Returns
        -------
        parameters : `torch.Tensor`, shape (B, P)
            By default `from_sersic` of an exponential disc.
        """
        one, zero = torch.ones_like(radius), torch.zeros_like(radius)
        disc = torch.stack([one, radius, FIRST_INDEX * one, x, y, zero, zero], dim=1)
        found = self.from_sersic(disc, 0, 1)
        if self.given is None:
            return found
        seen = {*self.bright, *self.lengths, "x_0", "y_0"}
        moved = [free and name in seen for free, name in zip(self.free, self.names, strict=True)]
        return torch.where(torch.tensor(moved, device=found.device), found, self.given_vector.to(found))

    def scaled(self, vector: Tensor, factor: Tensor) -> Tensor:
        """Vectors (..., P) of the profile made brighter by factors (...)."""
        bright = torch.tensor([name in self.bright for name in self.names], device=vector.device)
        return torch.where(bright, vector * factor.unsqueeze(-1), vector)

    @property
    def given_vector(self) -> Tensor:
        """The parameters of the given model, shape (P,), in arcsec and its own unit of flux."""
        return torch.tensor(in_arcsec(self.given, self.names, self.lengths))

    def in_unit(self, unit: u.UnitBase) -> Self:
        """The profile with its given model in this unit of the flux in a pixel; plain numbers stay."""
        if self.given is None or getattr(self.given, self.bright[0]).unit is None:
            return self
        unit, twin = unit * self.bright_unit, copy.copy(self)
        twin.given = self.given.copy()
        kind = type(self.given).__name__
        for name in self.bright:
            old = getattr(self.given, name)
            setattr(twin.given, name, strip_unit(old.quantity, unit, f"{name} of a given {kind}") * unit)
            factor = old.unit.to(unit)
            ends = tuple(None if end is None else end * factor for end in old.bounds)
            getattr(twin.given, name).bounds = ends
        return twin

    def own_bounds(self, name: str) -> tuple[float | None, ...]:
        """Bounds of a given model's parameter as the user set them: None where an end is the usual one."""
        ends, usual = getattr(self.given, name).bounds, self.usual_bounds(name)
        return tuple(None if end == common else end for end, common in zip(ends, usual, strict=True))

    def usual_bounds(self, name: str) -> tuple[float | None, float | None]:
        """Bounds that a parameter of the model has if nobody sets them."""
        return getattr(self.model_class, name).bounds

    def model(self, vector: Tensor, covariance: Tensor | None = None, unit: Unit = None) -> Model:
        """The model that users see.

        Parameters
        ----------
        vector, covariance : `torch.Tensor`, shapes (P,), (P, P)
        unit : `~astropy.units.Unit`, optional
            Of the flux in a pixel: with it the parameters get units.

        Returns
        -------
        model : `~astropy.modeling.Model`
            With errors, and with ``fixed`` and ``bounds`` of the given one.
        """
        model = self._model(vector, covariance, unit)
        for name in () if self.given is None else self.names:
            old, new = getattr(self.given, name), getattr(model, name)
            new.fixed, new.bounds = old.fixed, old.bounds
        return model

    def _model(self, vector: Tensor, covariance: Tensor | None, unit: Unit) -> Model:
        """The model as the vector has it; see `model`."""
        if self.model_class is None:
            raise InputError(f"{type(self).__name__} has no model for users: set its model_class")
        unit = None if unit is None else u.Unit(unit) * self.bright_unit
        values = with_units(self.names, vector, self.lengths, self.bright, unit)
        return with_covariance(self.model_class(**values), covariance)

    def outward(self, vector: NDArray[np.float64]) -> NDArray[np.float64]:
        """Derivatives (P, P) of the parameters of the model with respect to the vector, an array."""
        return np.eye(len(vector))

    def outer(self, vectors: Tensor) -> Tensor:
        """Parameters (m, P) of the model as users see them, of vectors (m, P); `outward` is the slope."""
        return vectors


def growth_radii(like: Tensor) -> Tensor:
    """Radii (n,) in arcsec of curves of growth, evenly spaced in the logarithm, as a tensor like another."""
    number = 1 + round(math.log(OUTERMOST / INNERMOST) / RADIUS_STEP)
    return INNERMOST * torch.exp(RADIUS_STEP * torch.arange(number).to(like))


def _check_constraints(model: Model) -> None:
    kind = type(model).__name__
    if len(model) != 1:
        raise InputError(f"a {kind} of {len(model)} parameter sets is not one profile: give a list of them")
    for name in model.param_names:
        one = getattr(model, name)
        if one.tied:
            raise InputError(f"{name} of a given {kind} is tied, which fits do not follow: untie it")
        low, high = one.bounds
        low, high = -math.inf if low is None else low, math.inf if high is None else high
        if not one.fixed and not (low < high and low <= one.value <= high):
            raise InputError(f"{name} = {one.value:g} of a given {kind} is outside its bounds {low}, {high}")
