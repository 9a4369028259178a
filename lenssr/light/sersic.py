"""The Sérsic profile: pure functions on tensors, the `Sersic` model, and the profile of a fit."""

from __future__ import annotations

import math
import sys
from typing import Any, Self, no_type_check

import astropy.units as u
import numpy as np
import torch
from astropy.modeling import Fittable2DModel, Parameter
from astropy.modeling.models import Sersic2D
from numpy.typing import NDArray
from torch import Tensor

from lenssr.exceptions import InputError
from lenssr.light import profile
from lenssr.light.profile import EllipticalLight, Length, LightProfile, Real, Unit, Vector, as_tensors, bare
from lenssr.light.sersic_shape import N_RANGE, b_and_slope
from lenssr.mass.parameter import checked_ellipticity, shape

__all__ = ["Sersic", "SersicProfile", "sersic_brightness", "sersic_brightness_jacobian", "sersic_flux"]

NAMES = ("amplitude", "r_eff", "n", "x_0", "y_0", "e1", "e2")
LENGTHS, BRIGHT, BRIGHT_UNIT = ("r_eff",), ("amplitude",), u.arcsec**-2

# Priors where several Sérsics share one galaxy: around a start that shares out what one of them found, by
# factors of about 10 in brightness and 3 in radius. Their sum is measured well, the parts hardly are.
CROWDED = {"amplitude": 2.0, "r_eff": 1.0, "n": 1.5, "e1": 0.2, "e2": 0.2}
# Radii and indices of the most compact and of the widest of them, relative to the one Sérsic: bulge and disc.
COMPACT, WIDE = (0.4, 3.0), (1.6, 1.0)


def sersic_brightness(
    x: Real, y: Real, amplitude: Real, r_eff_circ: Real, n: Real, x_0: Real, y_0: Real, e1: Real, e2: Real
) -> Tensor:
    """Surface brightness of an elliptical Sérsic profile.

    Parameters
    ----------
    x, y, x_0, y_0, e1, e2 : `torch.Tensor` or float
        As in `elliptical_radius`.
    amplitude : `torch.Tensor` or float, broadcastable with (B, 1)
        Surface brightness at the effective radius, in image unit per arcsec2.
    r_eff_circ : `torch.Tensor` or float
        Product-average effective radius in arcsec, ``sqrt(a b)``: in it the profile is smooth at e = 0.
    n : `torch.Tensor` or float
        Sérsic index; outside 0.1 to 12 the result is not a number, so that one bad problem of a batch
        does not stop the others.

    Returns
    -------
    brightness : `torch.Tensor`, shape (B, R)
        In image unit per arcsec2. Its gradient with respect to the position is zero exactly at the centre,
        where the profile has none.

    Examples
    --------
    >>> import torch
    >>> from lenssr.light import sersic_brightness
    >>> radius = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
    >>> sersic_brightness(radius, 0.0, 2.0, 0.25, 1.0, 0.0, 0.0, 0.0, 0.0)
    tensor([10.7134,  2.0000,  0.0130], dtype=torch.float64)
    """
    x, y, amplitude, r_eff_circ, n, *shape = as_tensors(x, y, amplitude, r_eff_circ, n, x_0, y_0, e1, e2)
    _, _, zeta_x, zeta_y, q2 = profile.on_ellipse(x, y, *shape)
    radius2 = (zeta_x**2 + zeta_y**2) / (q2 * r_eff_circ**2)
    b = b_and_slope(n)[0]
    log_radius2 = torch.log(radius2.clamp(min=torch.finfo(radius2.dtype).tiny))
    return amplitude * torch.exp(b - b * torch.exp(log_radius2 / (2 * n)))


@torch.no_grad()
def sersic_brightness_jacobian(
    x: Real, y: Real, amplitude: Real, r_eff_circ: Real, n: Real, x_0: Real, y_0: Real, e1: Real, e2: Real
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Surface brightness of a Sérsic profile and its derivatives, by hand and without a graph.

    The inner loop of the batched fits: one logarithm and two exponentials per ray.

    Parameters
    ----------
    x, y, amplitude, r_eff_circ, n, x_0, y_0, e1, e2 : `torch.Tensor` or float
        As in `sersic_brightness`.

    Returns
    -------
    brightness : `torch.Tensor`, shape (B, R)
    d_dx, d_dy : `torch.Tensor`, shape (B, R)
        Derivatives with respect to the position, zero exactly at the centre.
    d_dp : `torch.Tensor`, shape (B, 7, R)
        Derivatives with respect to the parameters, in the order of the arguments.

    Examples
    --------
    >>> import torch
    >>> from lenssr.light import sersic_brightness_jacobian
    >>> x = torch.tensor([[0.1, 0.2, 0.3]])
    >>> value, d_dx, d_dy, d_dp = sersic_brightness_jacobian(x, 0.1, 1.0, 0.3, 2.0, 0.0, 0.0, 0.1, 0.0)
    >>> value.shape, d_dp.shape
    (torch.Size([1, 3]), torch.Size([1, 7, 3]))
    """
    x, y, amplitude, r_eff_circ, n, *shape = as_tensors(x, y, amplitude, r_eff_circ, n, x_0, y_0, e1, e2)
    b, db_dn = b_and_slope(n)
    ellipse = profile.on_ellipse(x, y, *shape)
    _, _, zeta_x, zeta_y, q2 = ellipse
    tiny = torch.finfo(zeta_x.dtype).tiny
    zeta2 = torch.addcmul(zeta_x.square(), zeta_y, zeta_y)
    log_radius = zeta2.mul(1 / (q2 * r_eff_circ**2)).clamp_(min=tiny).log_()
    power = torch.exp(log_radius / (2 * n))
    relative = torch.exp(b - b * power)
    brightness = amplitude * relative

    # rise = d I / d ln(radius); over zeta2 it is finite and multiplies zeta = 0 at the centre
    rise = (brightness * power).mul_(-b / n)
    slope = rise / zeta2.clamp_(min=tiny**0.5)
    d_dp = brightness.new_empty((*brightness.shape[:-1], 7, brightness.shape[-1]))
    d_dp[..., 0, :] = relative
    torch.mul(rise, -1 / r_eff_circ, out=d_dp[..., 1, :])
    slope_n = torch.addcmul(db_dn * n / b, log_radius, -0.5 / n).mul_(rise)
    torch.addcmul(slope_n, brightness, db_dn, out=d_dp[..., 2, :])
    slopes = zeta_x.mul_(slope), zeta_y.mul_(slope)
    d_dx, d_dy = profile.shape_derivatives(d_dp, ellipse, slopes, rise, *shape[2:])
    return brightness, d_dx, d_dy, d_dp


def sersic_flux(amplitude: Real, r_eff_circ: Real, n: Real) -> Tensor:
    """Total flux of a Sérsic profile.

    Parameters
    ----------
    amplitude, r_eff_circ, n : `torch.Tensor` or float
        As in `sersic_brightness`.

    Returns
    -------
    flux : `torch.Tensor`
        In image unit.

    References
    ----------
    Graham & Driver (2005), PASA 22, 118, equation 4.

    Examples
    --------
    >>> from lenssr.light import sersic_flux
    >>> sersic_flux(1.0, 1.0, 1.0)
    tensor(11.9485, dtype=torch.float64)
    """
    amplitude, r_eff_circ, n = as_tensors(amplitude, r_eff_circ, n)
    b = b_and_slope(n)[0]
    shape = 2 * math.pi * n * torch.exp(b - 2 * n * torch.log(b) + torch.lgamma(2 * n))
    return amplitude * r_eff_circ**2 * shape


# ---------------------------------------------------------------- the model


def _check_shape(r_eff: Any, n: Any, e1: Any, e2: Any) -> None:
    if np.any(np.asarray(r_eff) <= 0):
        raise InputError(f"r_eff = {r_eff} is not positive: give the semi-major axis in arcsec")
    if not np.all((np.asarray(n) >= N_RANGE[0]) & (np.asarray(n) <= N_RANGE[1])):
        raise InputError(f"Sérsic index n = {n} is outside {N_RANGE[0]} to {N_RANGE[1]}: give one inside")
    profile.check_ellipse(e1, e2)


class Sersic(EllipticalLight, Fittable2DModel):
    """A galaxy with an elliptical Sérsic profile.

    Parameters
    ----------
    amplitude : float or `~astropy.units.Quantity`, optional
        Surface brightness at the effective radius, in image unit per arcsec2. Default 1.
    r_eff : float or `~astropy.units.Quantity`, optional
        Semi-major axis of the ellipse that holds half of the light, in arcsec. Default 1.
    n : float, optional
        Sérsic index, 0.1 to 12: 1 is an exponential disc, 4 a de Vaucouleurs profile. Default 1.
    x_0, y_0 : float or `~astropy.units.Quantity`, optional
        Centre in arcsec. Default 0.
    e1, e2 : float, optional
        Ellipticity, ``(1-q)/(1+q)`` times the cosine and sine of ``2 phi``, phi counter-clockwise from +x.
        Default 0.
    **kwargs
        As for every `~astropy.modeling.Model`: ``name``, ``fixed``, ``bounds``, ``tied``, ``meta``.

    Attributes
    ----------
    covariance : `numpy.ndarray`, shape (7, 7), or None
        Covariance of the parameters, where a fit made one; its diagonal is in the ``std`` of each parameter.

    Notes
    -----
    b_n is exact, as in `~astropy.modeling.functional_models.Sersic2D`; lenstronomy approximates it
    (`sersic_from_lenstronomy` converts).

    Examples
    --------
    >>> import astropy.units as u
    >>> from lenssr.light import Sersic
    >>> galaxy = Sersic(amplitude=2.0, r_eff=0.3, n=1.5, e1=0.1)
    >>> float(galaxy(0.3, 0.0))
    2.0
    >>> bright = Sersic(amplitude=2.0 * u.electron / u.arcsec**2, r_eff=300 * u.mas)
    >>> bright.flux.to(u.electron)
    <Quantity 2.15072905 electron>
    """

    amplitude = Parameter(default=1.0, description="Surface brightness at r_eff, per arcsec2")
    r_eff = Parameter(default=1.0, bounds=(sys.float_info.min, None), description="Semi-major axis (arcsec)")
    n = Parameter(default=1.0, bounds=N_RANGE, description="Sérsic index")
    x_0 = Parameter(default=0.0, description="Centre along x (arcsec)")
    y_0 = Parameter(default=0.0, description="Centre along y (arcsec)")
    e1 = Parameter(default=0.0, bounds=(-0.7, 0.7), description="Ellipticity along x and y")
    e2 = Parameter(default=0.0, bounds=(-0.7, 0.7), description="Ellipticity along the diagonals")

    _lengths, _bright, _bright_unit = LENGTHS, BRIGHT, BRIGHT_UNIT

    def __init__(
        self, *args: Any, q: float | None = None, phi: u.Quantity | None = None, **kwargs: Any
    ) -> None:
        if q is not None or phi is not None:
            kwargs |= shape(kwargs.get("e1", 0), kwargs.get("e2", 0), q, phi)
        super().__init__(*args, **kwargs)
        _check_shape(self.r_eff.value, self.n.value, self.e1.value, self.e2.value)

    @staticmethod
    @no_type_check  # astropy takes annotations of this method for units
    def evaluate(x, y, amplitude, r_eff, n, x_0, y_0, e1, e2):
        """Surface brightness at positions; called by the model itself."""
        x, y, r_eff, x_0, y_0 = profile.lengths_in_arcsec(x, y, r_eff, x_0, y_0)
        n, e1, e2 = bare(n), bare(e1), bare(e2)
        _check_shape(r_eff, n, e1, e2)
        r_eff_circ = r_eff * np.sqrt(profile.axis_ratio(e1, e2))
        arrays = (x, y, bare(amplitude), r_eff_circ, n, x_0, y_0, e1, e2)
        brightness = sersic_brightness(*(torch.as_tensor(np.array(array)) for array in arrays)).numpy()
        return brightness * getattr(amplitude, "unit", 1)

    @staticmethod
    def fit_deriv(x: Any, y: Any, *parameters: Any) -> list[NDArray[np.float64]]:
        """Differentiate with respect to the parameters; called by astropy's fitters."""
        inner, slope = circular(torch.tensor([bare(value).item() for value in parameters]).double())
        flat = (torch.as_tensor(np.ascontiguousarray(bare(position)).ravel()) for position in (x, y))
        derivatives = slope.T @ sersic_brightness_jacobian(*flat, *inner.unsqueeze(1))[3]
        return list(derivatives.numpy().reshape(-1, *np.shape(x)))

    @property
    def r_eff_circ(self) -> Length:
        """Product-average effective radius, ``r_eff sqrt(q)`` (lenstronomy's ``R_sersic``)."""
        return _own(self.r_eff) * np.sqrt(self.q)

    @property
    def flux(self) -> Length:
        """Total flux, in the image unit."""
        shape = sersic_flux(1.0, 1.0, float(self.n.value)).item()
        return _own(self.amplitude) * self.r_eff_circ**2 * shape

    @property
    def vector(self) -> Tensor:
        """The parameters of `sersic_brightness` as a float64 tensor of shape (7,): arcsec, `r_eff_circ`."""
        return circular(torch.as_tensor(profile.in_arcsec(self, NAMES, LENGTHS)))[0]

    @classmethod
    def from_vector(
        cls, vector: Vector, *, covariance: Tensor | NDArray | None = None, unit: Unit = None, **kwargs: Any
    ) -> Self:
        """Build a model from the parameters of `sersic_brightness`.

        Parameters
        ----------
        vector : `torch.Tensor` or array, shape (7,)
            amplitude, r_eff_circ, n, x_0, y_0, e1, e2 in arcsec.
        covariance : `torch.Tensor` or array, shape (7, 7), optional
            Covariance of these parameters. It is carried to the parameters of the model; at e = 0, where
            the axis ratio has a cone, its slope there counts as zero (the mean over directions).
        unit : `~astropy.units.Unit`, optional
            Image unit: with it the amplitude gets this unit per arcsec2, and lengths get arcsec.
        **kwargs
            Passed to `Sersic`.
        """
        outer, slope = from_circular(vector)
        if covariance is not None:
            covariance = slope @ torch.as_tensor(covariance).detach().cpu().double() @ slope.T
        unit = None if unit is None else u.Unit(unit) * BRIGHT_UNIT
        values = profile.with_units(NAMES, outer, LENGTHS, BRIGHT, unit)
        return profile.with_covariance(cls(**values, **kwargs), covariance)

    def to_sersic2d(self) -> Sersic2D:
        """Convert to astropy's model of the same profile, `~astropy.modeling.functional_models.Sersic2D`."""
        amplitude, r_eff, n, x_0, y_0 = (_own(getattr(self, name)) for name in NAMES[:5])
        theta = self.phi.to(u.rad) if self._has_units else self.phi.to_value(u.rad)
        return Sersic2D(amplitude, r_eff, n, x_0, y_0, ellip=1 - self.q, theta=theta)

    @classmethod
    def from_sersic2d(cls, model: Sersic2D, **kwargs: Any) -> Self:
        """Build the same profile from astropy's model, with lengths in arcsec; the rest goes to `Sersic`."""
        phi = u.Quantity(_own(model.theta), u.rad)
        values = [_own(getattr(model, name)) for name in NAMES[:5]]
        return cls.from_axis_ratio(*values, q=1 - float(model.ellip.value), phi=phi, **kwargs)

    @classmethod
    def from_axis_ratio(cls, *args: Length, q: float = 1, phi: u.Quantity = 0 * u.deg, **kwargs: Any) -> Self:
        """Build a model from an axis ratio and a direction.

        Parameters
        ----------
        *args, **kwargs
            The other parameters, as for `Sersic`.
        q : float, optional
            Axis ratio, minor over major, in (0, 1]. Default 1.
        phi : `~astropy.units.Quantity`, optional
            Direction of the major axis, counter-clockwise from +x. Default 0 degrees.
        """
        e1, e2 = checked_ellipticity(q, phi)
        return cls(*args, e1=e1, e2=e2, **kwargs)


def _own(parameter: Parameter) -> Any:
    """Return a parameter as a Quantity where it has a unit, otherwise as a number."""
    return parameter.value if parameter.unit is None else parameter.quantity


def circular(parameters: Tensor) -> tuple[Tensor, Tensor]:
    """Arguments (..., 7) of `sersic_brightness` from parameters (..., 7) of a `Sersic`, and derivatives.

    A row of these (..., 7, 7) belongs to an argument. At e = 0, where the axis ratio has a cone, its slope
    counts as zero.
    """
    ellipticity = parameters[..., 5:]
    modulus = torch.hypot(*ellipticity.unbind(-1))
    inner, slope = parameters.clone(), torch.eye(7).to(parameters).repeat(*modulus.shape, 1, 1)
    slope[..., 1, 1] = root = profile.axis_ratio_of(modulus).sqrt()
    inner[..., 1] *= root
    # d ln sqrt(q) / d e = -e / (|e| (1 - |e|^2))
    of_modulus = inner[..., 1] / (modulus * (1 - modulus**2)).clamp_min(1e-30)
    slope[..., 1, 5:] = -of_modulus.unsqueeze(-1) * ellipticity
    return inner, slope


def from_circular(inner: Vector) -> tuple[Tensor, Tensor]:
    """Invert `circular` for one vector (7,)."""
    outer = torch.as_tensor(inner).detach().cpu().double().clone()
    outer[1] /= profile.axis_ratio(*outer[5:].tolist()) ** 0.5
    return outer, torch.linalg.inv(circular(outer)[1])


# ---------------------------------------------------------------- in a fit


class SersicProfile(LightProfile):
    """A `~lenssr.light.Sersic` in a fit; r_eff of the vector is the product average of both axes.

    If the user constrains r_eff, it is the semi-major axis instead, so that the user's constraint is held.
    """

    names, model_class = NAMES, Sersic
    bright, bright_unit, lengths = BRIGHT, BRIGHT_UNIT, LENGTHS
    ranges, crowded_priors = {"n": (0.3, 8.0)}, CROWDED

    def __init__(self, given: Sersic | None = None, *, crowded: bool = False) -> None:
        super().__init__(given, crowded=crowded)
        self.major = given is not None and (given.r_eff.fixed or self.own_bounds("r_eff") != (None, None))

    @property
    def plain(self) -> bool:
        """Whether it is unconstrained."""
        return self.given is None

    def _inner(self, parameters: Tensor) -> Tensor:
        """Parameters (..., 7) as the pure functions take them."""
        return circular(parameters)[0] if self.major else parameters

    def brightness(self, x: Tensor, y: Tensor, parameters: Tensor) -> Tensor:
        """Surface brightness (B, R)."""
        return sersic_brightness(x, y, *self._inner(parameters).unsqueeze(-1).unbind(1))

    def jacobian(self, x: Tensor, y: Tensor, parameters: Tensor, cusp: float = 0.0) -> tuple[Tensor, ...]:
        """Surface brightness (B, R), its slopes, and its derivatives (B, 7, R)."""
        inner = self._inner(parameters).unsqueeze(-1).unbind(1)
        value, d_x, d_y, derivative = sersic_brightness_jacobian(x, y, *inner)
        if cusp > 0:
            outside = torch.hypot(x - parameters[:, 3:4], y - parameters[:, 4:5]) > cusp
            d_x, d_y = d_x * outside, d_y * outside
            derivative[:, 3:5] *= outside.unsqueeze(1)
        return value, d_x, d_y, circular(parameters)[1].mT @ derivative if self.major else derivative

    def from_sersic(self, sersic: Tensor, rank: int, count: int) -> Tensor:
        """Where a fit begins (B, 7): several share a galaxy as bulge, disc and what lies between."""
        parameters = sersic.clone()
        if count == 1:
            return parameters
        place = rank / (count - 1)
        parameters[:, 1] *= COMPACT[0] ** (1 - place) * WIDE[0] ** place
        parameters[:, 2] = COMPACT[1] * (1 - place) + WIDE[1] * place
        old, new = (sersic_flux(p[:, 0], p[:, 1], p[:, 2]) for p in (sersic, parameters))
        parameters[:, 0] *= old / (count * new)
        return parameters

    def effective_radius(self, vector: Tensor) -> Tensor:
        """Half-light radius (...) of vectors (..., 7), in arcsec."""
        return self._inner(vector)[..., 1]

    def flux(self, vector: Tensor) -> Tensor:
        """Total flux (...) of vectors (..., 7), in image unit."""
        return sersic_flux(*self._inner(vector)[..., :3].unbind(-1))

    @property
    def given_vector(self) -> Tensor:
        """The parameters of the given model, shape (7,)."""
        return super().given_vector if self.major else self.given.vector

    def _model(self, vector: Tensor, covariance: Tensor | None, unit: Unit) -> Sersic:
        if self.major:
            vector, slope = circular(torch.as_tensor(vector))
            covariance = None if covariance is None else slope @ covariance @ slope.T
        return Sersic.from_vector(vector, covariance=covariance, unit=unit)

    def outward(self, vector: NDArray[np.float64]) -> NDArray[np.float64]:
        """Derivatives (7, 7) of the model's parameters with respect to the vector's."""
        return np.eye(7) if self.major else from_circular(vector)[1].numpy()

    def outer(self, vectors: Tensor) -> Tensor:
        """Parameters (m, 7) of a `Sersic`, whose r_eff is the semi-major axis, of vectors (m, 7)."""
        if self.major:
            return vectors
        outer = vectors.clone()
        outer[:, 1] /= profile.axis_ratio_of(torch.hypot(vectors[:, 5], vectors[:, 6])).sqrt()
        return outer
