"""Multi-Gaussian expansion: pure functions on tensors, the `MultiGaussian` model, the profile of a fit."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, Self, TypeAlias, no_type_check

import astropy.units as u
import numpy as np
import torch
from astropy.modeling import Fittable2DModel, Parameter
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from lenssr.exceptions import InputError
from lenssr.light import profile
from lenssr.light.profile import EllipticalLight, Length, LightProfile, Real, Unit, Vector, as_tensors, bare
from lenssr.light.sersic import Sersic, sersic_brightness
from lenssr.units import strip_unit

__all__ = [
    "GaussiansProfile",
    "MultiGaussian",
    "gaussian_widths",
    "gaussians_brightness",
    "gaussians_brightness_jacobian",
    "gaussians_from_sersic",
]

Widths: TypeAlias = Sequence[float] | NDArray | Tensor

# Two neighbouring widths differ by at most this factor: sums of Gaussians then follow a Sérsic within 1 %.
WIDTH_RATIO = 1.6
# Narrowest Gaussian in pixels: what is narrower looks like a point through any PSF and pixel.
NARROWEST = 0.4
SHAPE_NAMES = ("x_0", "y_0", "e1", "e2")
# Iterations of, and radii in, the decomposition of a Sérsic; it is a start, not an answer.
PASSES, RADII = 200, 120
# No Gaussian starts fainter than this share of its even part, from where a logarithm would hardly move.
FLOOR = 0.01


# Standard deviation of the prior on the logarithm of each flux, around the Sérsic expanded: a factor of 7.
# Neighbours that data cannot tell apart share their light smoothly, and a flux of zero does not run to minus
# infinity in its logarithm, so that the posterior stays Gaussian.
FLUX_PRIOR = 2.0
# Where several profiles share one galaxy: the first has most of the light in the middle, the last outside.
TILT = 0.8
CROWDED_SHAPE = 0.2


def gaussian_widths(pixel_scale: float, extent: float) -> NDArray[np.float64]:
    """Widths of the Gaussians for a galaxy in an image, evenly spaced in the logarithm.

    Parameters
    ----------
    pixel_scale : float
        In arcsec; the narrowest Gaussian has 0.4 pixel.
    extent : float
        Half the field in arcsec: the widest Gaussian.

    Returns
    -------
    sigma : `~numpy.ndarray`, shape (K,)
        Standard deviations in arcsec, neighbours at most a factor of 1.6 apart.

    References
    ----------
    Emsellem, Monnet & Bacon 1994, A&A 285, 723; Cappellari 2002, MNRAS 333, 400.

    Examples
    --------
    >>> from lenssr.light import gaussian_widths
    >>> gaussian_widths(0.04, 1.8).round(3)
    array([0.016, 0.025, 0.038, 0.058, 0.089, 0.137, 0.21 , 0.323, 0.496,
           0.763, 1.172, 1.8  ])
    """
    low, high = NARROWEST * pixel_scale, max(extent, pixel_scale)
    number = 1 + math.ceil(math.log(high / low) / math.log(WIDTH_RATIO) - 1e-9)
    return np.geomspace(low, high, number)


def _alike(*values: Any) -> list[Tensor]:
    """Tensors of one type, for matrix products."""
    tensors = as_tensors(*values)
    return [tensor.to(tensors[0]) for tensor in tensors]


def _exponents(sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Factors on the squared radius, and peaks at unit flux, (K, 1) each."""
    rate = 0.5 / sigma.square()
    return -rate.unsqueeze(-1), (rate / math.pi).unsqueeze(-1)


def _summed(factor: Tensor, parts: Tensor) -> Tensor:
    """Sum of (..., K, R) over K with factors (..., K)."""
    return (factor.unsqueeze(-2) @ parts).squeeze(-2)


def gaussians_brightness(
    x: Tensor, y: Real, sigma: ArrayLike, flux: ArrayLike, x_0: Real, y_0: Real, e1: Real, e2: Real
) -> Tensor:
    """Surface brightness of concentric elliptical Gaussians of one shape.

    Parameters
    ----------
    x, y, x_0, y_0, e1, e2 : `torch.Tensor` or float
        As in `elliptical_radius`.
    sigma : `torch.Tensor` or array, shape (K,)
        Widths in arcsec: product averages of the standard deviations along both axes.
    flux : `torch.Tensor` or array, shape (K,) or (B, K)
        Total flux of each Gaussian, in image unit.

    Returns
    -------
    brightness : `torch.Tensor`, shape (B, R)
        In image unit per arcsec2.

    Notes
    -----
    With the product-average elliptical radius r of `~lenssr.light.sersic_brightness`,
    ``sum_k flux_k exp(-r^2 / (2 sigma_k^2)) / (2 pi sigma_k^2)``: lenstronomy's ``MULTI_GAUSSIAN_ELLIPSE``
    with ``amp = flux``.

    Examples
    --------
    >>> import torch
    >>> from lenssr.light import gaussians_brightness
    >>> x = torch.tensor([0.0, 1.0], dtype=torch.float64)
    >>> gaussians_brightness(x, 0.0, [0.5, 1.0], [1.0, 2.0], 0.0, 0.0, 0.0, 0.0)
    tensor([0.9549, 0.2792], dtype=torch.float64)
    """
    x, y, sigma, flux, *shape = _alike(x, y, sigma, flux, x_0, y_0, e1, e2)
    _, _, zeta_x, zeta_y, q2 = profile.on_ellipse(x, y, *shape)
    fall, peak = _exponents(sigma)
    return _summed(flux, peak * torch.exp(fall * ((zeta_x**2 + zeta_y**2) / q2).unsqueeze(-2)))


@torch.no_grad()
def gaussians_brightness_jacobian(
    x: Tensor, y: Real, sigma: ArrayLike, flux: ArrayLike, x_0: Real, y_0: Real, e1: Real, e2: Real
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Surface brightness of concentric Gaussians and its derivatives, by hand and without a graph.

    It takes one exponential for each Gaussian and ray.

    Parameters
    ----------
    x, y, sigma, flux, x_0, y_0, e1, e2
        As in `gaussians_brightness`.

    Returns
    -------
    brightness : `torch.Tensor`, shape (B, R)
    d_dx, d_dy : `torch.Tensor`, shape (B, R)
        Derivatives with respect to the position.
    d_dp : `torch.Tensor`, shape (B, K + 4, R)
        Derivatives with respect to the K fluxes, x_0, y_0, e1 and e2.

    Examples
    --------
    >>> import torch
    >>> from lenssr.light import gaussians_brightness_jacobian
    >>> x = torch.tensor([[0.1, 0.2, 0.3]])
    >>> flux = torch.tensor([[1.0, 2.0]])
    >>> value, d_dx, d_dy, d_dp = gaussians_brightness_jacobian(x, 0.1, [0.2, 0.4], flux, 0.0, 0.0, 0.1, 0.0)
    >>> value.shape, d_dp.shape
    (torch.Size([1, 3]), torch.Size([1, 6, 3]))
    """
    x, y, sigma, flux, *shape = _alike(x, y, sigma, flux, x_0, y_0, e1, e2)
    ellipse = profile.on_ellipse(x, y, *shape)
    _, _, zeta_x, zeta_y, q2 = ellipse
    radius2 = torch.addcmul(zeta_x.square(), zeta_y, zeta_y) / q2
    fall, peak = _exponents(sigma)
    number = len(sigma)
    d_dp = radius2.new_empty((*radius2.shape[:-1], number + 4, radius2.shape[-1]))
    parts = d_dp[..., :number, :]
    torch.mul(fall, radius2.unsqueeze(-2), out=parts)
    parts.exp_().mul_(peak)
    brightness = _summed(flux, parts)
    # 2 d I / d r^2
    slope = _summed(flux * (2 * fall.squeeze(-1)), parts)
    slopes = zeta_x * (slope / q2), zeta_y * (slope / q2)
    d_dx, d_dy = profile.shape_derivatives(d_dp, ellipse, slopes, slope * radius2, *shape[2:])
    return brightness, d_dx, d_dy, d_dp


@torch.no_grad()
def gaussians_from_sersic(sersic: Tensor, sigma: Tensor | ArrayLike) -> Tensor:
    """Fluxes of Gaussians that together look like a Sérsic.

    Parameters
    ----------
    sersic : `torch.Tensor`, shape (B, 7)
        Parameters as `~lenssr.light.sersic_brightness` takes them.
    sigma : `torch.Tensor` or array, shape (K,)
        Widths in arcsec.

    Returns
    -------
    flux : `torch.Tensor`, shape (B, K)
        All positive. Light beyond the reach of the widths is left out.

    Notes
    -----
    The flux per logarithm of the radius is a mixture over the Gaussians, whose weights expectation
    maximisation finds (Dempster, Laird & Rubin 1977, J. R. Stat. Soc. B 39, 1): always positive and smooth.

    Examples
    --------
    >>> import torch
    >>> from lenssr.light import gaussians_from_sersic, gaussian_widths, sersic_flux
    >>> sersic = torch.tensor([[1.0, 0.3, 2.0, 0.0, 0.0, 0.0, 0.0]])
    >>> flux = gaussians_from_sersic(sersic, gaussian_widths(0.05, 2.5))
    >>> bool(abs(flux.sum() / sersic_flux(1.0, 0.3, 2.0) - 1) < 0.03)
    True
    """
    sigma = torch.as_tensor(sigma).to(sersic)
    low, high = math.log(0.3 * float(sigma[0])), math.log(2.5 * float(sigma[-1]))
    radius = torch.linspace(low, high, RADII, dtype=sersic.dtype, device=sersic.device).exp()
    ring = 2 * math.pi * radius**2 * (high - low) / (RADII - 1)
    amplitude, r_eff, n = sersic[:, :3].unsqueeze(-1).unbind(1)
    wanted = sersic_brightness(radius, 0.0, amplitude, r_eff, n, 0.0, 0.0, 0.0, 0.0) * ring
    fall, peak = _exponents(sigma)
    response = peak * torch.exp(fall * radius**2) * ring
    response = response / response.sum(1, keepdim=True)
    total = wanted.sum(1, keepdim=True).clamp_min(torch.finfo(sersic.dtype).tiny)
    share, wanted = torch.full((len(sersic), len(sigma)), 1 / len(sigma)).to(sersic), wanted / total
    for _ in range(PASSES):
        share = share * ((wanted / (share @ response).clamp_min(1e-30)) @ response.mT)
    return total * share.clamp_min(FLOOR / len(sigma))


class MultiGaussian(EllipticalLight, Fittable2DModel):
    """A galaxy as a sum of concentric Gaussians of one shape: a multi-Gaussian expansion (MGE).

    Parameters
    ----------
    sigma : array or `~astropy.units.Quantity`, shape (K,)
        Widths in arcsec, positive: product averages of the standard deviations along both axes. They are not
        fitted.
    flux : array or `~astropy.units.Quantity`, shape (K,) or a single one for all, optional
        Total flux of each Gaussian in image unit, not negative. They are the parameters ``flux_0``,
        ``flux_1``, ... Default 1.
    x_0, y_0 : float or `~astropy.units.Quantity`, optional
        Centre in arcsec. Default 0.
    e1, e2 : float, optional
        Ellipticity, ``(1-q)/(1+q)`` times the cosine and sine of ``2 phi``, phi counter-clockwise from +x.
        Default 0.
    **kwargs
        ``flux_0``, ... one by one; and as for every `~astropy.modeling.Model`: ``name``, ``fixed``,
        ``bounds``, ``meta``.

    Attributes
    ----------
    sigma : `numpy.ndarray`, shape (K,)
        The widths in arcsec.
    covariance : `numpy.ndarray`, shape (K + 4, K + 4), or None
        Covariance of the parameters, where a fit made one; its diagonal is in the ``std`` of each parameter.

    References
    ----------
    Emsellem, Monnet & Bacon 1994, A&A 285, 723; Cappellari 2002, MNRAS 333, 400.

    Examples
    --------
    >>> import astropy.units as u
    >>> from lenssr.light import MultiGaussian
    >>> galaxy = MultiGaussian([0.1, 0.4], [1.0, 3.0], e1=0.1)
    >>> galaxy.param_names
    ('flux_0', 'flux_1', 'x_0', 'y_0', 'e1', 'e2')
    >>> round(float(galaxy(0.1, 0.0)), 4)
    13.4808
    >>> bright = MultiGaussian([100, 400] * u.mas, [1.0, 3.0] * u.electron)
    >>> bright.flux, bright(0 * u.arcsec, 0 * u.arcsec).unit
    (<Quantity 4. electron>, Unit("electron / arcsec2"))
    """

    _param_names: tuple[str, ...] = ()

    def __init__(
        self,
        sigma: Widths | u.Quantity,
        flux: Widths | Length = 1.0,
        x_0: Length = 0.0,
        y_0: Length = 0.0,
        e1: float = 0.0,
        e2: float = 0.0,
        **kwargs: Any,
    ) -> None:
        self.sigma = np.atleast_1d(bare(strip_unit(sigma, u.arcsec, "sigma")))
        if self.sigma.ndim != 1 or not len(self.sigma) or not np.all(self.sigma > 0):
            raise InputError(f"sigma = {sigma}: give the widths as one list of positive numbers, in arcsec")
        number = len(self.sigma)
        if np.shape(flux) not in ((), (number,)):
            raise InputError(f"{np.size(flux)} values of flux for {number} widths: give one each, or one")
        names, unit = _flux_names(number), getattr(flux, "unit", 1)
        # Parameters of the instance, since their number is the user's; astropy's own take over from here.
        self._param_names, self._bright = (*names, *SHAPE_NAMES), names
        for name in self._param_names:
            parameter = _declared(name)
            parameter.model = self
            self.__dict__[name] = parameter
        fluxes = dict(zip(names, np.broadcast_to(bare(flux), number) * unit, strict=True))
        super().__init__(**fluxes | {"x_0": x_0, "y_0": y_0, "e1": e1, "e2": e2} | kwargs)
        if any(getattr(self, name).value < 0 for name in self._bright):
            raise InputError("a flux is negative: light is positive")
        profile.check_ellipse(self.e1.value, self.e2.value)

    @property
    def param_names(self) -> tuple[str, ...]:
        """Names of the parameters: the fluxes, then centre and ellipticity."""
        return self._param_names

    def _arguments(self) -> dict[str, Any]:
        """Arguments besides the parameters, for files."""
        return {"sigma": self.sigma}

    def __repr__(self) -> str:
        return self._format_repr([self.sigma.tolist()])

    @no_type_check  # astropy takes annotations of this method for units
    def evaluate(self, x, y, *parameters):
        """Surface brightness at positions; called by the model itself."""
        *flux, x_0, y_0, e1, e2 = parameters
        x, y, x_0, y_0 = profile.lengths_in_arcsec(x, y, x_0, y_0)
        fluxes, shape = ([bare(value).item() for value in values] for values in (flux, (x_0, y_0, e1, e2)))
        arrays = (x, y, self.sigma, fluxes, *shape)
        brightness = gaussians_brightness(*(torch.as_tensor(np.array(array)) for array in arrays)).numpy()
        unit = getattr(flux[0], "unit", None)
        return brightness if unit is None else brightness * (unit / u.arcsec**2)

    def fit_deriv(self, x: Any, y: Any, *parameters: Any) -> list[NDArray[np.float64]]:
        """Differentiate with respect to the parameters; called by astropy's fitters."""
        values = [bare(value).item() for value in parameters]
        x, y = (np.ascontiguousarray(bare(position)) for position in (x, y))
        rays = torch.as_tensor(x.ravel()), torch.as_tensor(y.ravel())
        jacobian = gaussians_brightness_jacobian(*rays, self.sigma, values[:-4], *values[-4:])[3].numpy()
        return [derivative.reshape(x.shape) for derivative in jacobian]

    @property
    def flux(self) -> Length:
        """Total flux, in the image unit."""
        total = float(sum(getattr(self, name).value for name in self._bright))
        return total if self.flux_0.unit is None else total * self.flux_0.unit

    @property
    def vector(self) -> Tensor:
        """The parameters as a float64 tensor of shape (K + 4,), lengths in arcsec."""
        return torch.tensor(profile.in_arcsec(self, self._param_names, ()))

    @classmethod
    def from_vector(
        cls,
        vector: Vector,
        sigma: Widths,
        *,
        covariance: Tensor | NDArray | None = None,
        unit: Unit = None,
        **kwargs: Any,
    ) -> Self:
        """Build a model from its parameters as one vector.

        Parameters
        ----------
        vector : `torch.Tensor` or array, shape (K + 4,)
            The fluxes, then x_0, y_0, e1, e2, in arcsec.
        sigma : array, shape (K,)
            Widths in arcsec.
        covariance : `torch.Tensor` or array, shape (K + 4, K + 4), optional
            Covariance of these parameters.
        unit : `~astropy.units.Unit`, optional
            Image unit: with it the fluxes get this unit, and lengths get arcsec.
        **kwargs
            Passed to `~lenssr.light.MultiGaussian`.
        """
        bright = _flux_names(len(sigma))
        unit = None if unit is None else u.Unit(unit)
        values = profile.with_units((*bright, *SHAPE_NAMES), vector, (), bright, unit)
        return profile.with_covariance(cls(sigma, **values, **kwargs), covariance)

    @classmethod
    def from_sersic(cls, sersic: Sersic, sigma: Widths | u.Quantity, **kwargs: Any) -> Self:
        """Expand a Sérsic profile.

        Parameters
        ----------
        sersic : `~lenssr.light.Sersic`
        sigma : array or `~astropy.units.Quantity`, shape (K,)
            Widths in arcsec; light much beyond the widest is left out. See `gaussian_widths`.
        **kwargs
            Passed to `~lenssr.light.MultiGaussian`.

        Examples
        --------
        >>> from lenssr.light import MultiGaussian, Sersic, gaussian_widths
        >>> galaxy = Sersic(1.0, 0.3, 2.0)
        >>> expanded = MultiGaussian.from_sersic(galaxy, gaussian_widths(0.05, 2.5))
        >>> bool(abs(expanded(0.2, 0.1) / galaxy(0.2, 0.1) - 1) < 0.02)
        True
        """
        sigma, vector = strip_unit(sigma, u.arcsec, "sigma"), sersic.vector
        flux = gaussians_from_sersic(vector.unsqueeze(0), np.asarray(sigma))[0]
        unit = None if sersic.amplitude.unit is None else sersic.amplitude.unit * u.arcsec**2
        return cls.from_vector(torch.cat([flux, vector[3:]]), sigma, unit=unit, **kwargs)


def _flux_names(number: int) -> tuple[str, ...]:
    return tuple(f"flux_{k}" for k in range(number))


def _declared(name: str) -> Parameter:
    """A parameter as a `~lenssr.light.MultiGaussian` declares it: centre and ellipticity as a Sérsic does."""
    if name in SHAPE_NAMES:
        return copy.copy(getattr(Sersic, name))
    text = f"Total flux of Gaussian {name.removeprefix('flux_')}"
    return Parameter(name, default=0.0, bounds=(0.0, None), description=text)


# ---------------------------------------------------------------- in a fit


class GaussiansProfile(LightProfile):
    """A `~lenssr.light.MultiGaussian` in a fit: its vector has the fluxes, x_0, y_0, e1, e2.

    The widths ``sigma`` (K,) are in arcsec, by default the ones of ``given``.
    """

    def __init__(
        self, sigma: ArrayLike | None = None, given: MultiGaussian | None = None, *, crowded: bool = False
    ) -> None:
        super().__init__(given, crowded=crowded)
        self.sigma = torch.as_tensor(self.given.sigma if sigma is None else sigma, dtype=torch.float64)
        self.bright = _flux_names(len(self.sigma))
        self.names = (*self.bright, *SHAPE_NAMES)

    def usual_bounds(self, name: str) -> tuple[float | None, float | None]:
        """Bounds that a parameter of the model has if nobody sets them."""
        return _declared(name).bounds

    @property
    def prior(self) -> tuple[float, ...]:
        """Standard deviations of the priors."""
        shape = CROWDED_SHAPE if self.crowded else math.inf
        return (FLUX_PRIOR,) * len(self.bright) + (math.inf, math.inf, shape, shape)

    def _vectors(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, ...]:
        """Arguments of the pure functions behind the positions."""
        return self.sigma.to(x), parameters[:, :-4], *parameters[:, -4:].unsqueeze(-1).unbind(1)

    def brightness(self, x: Tensor, y: Tensor, parameters: Tensor) -> Tensor:
        """Surface brightness (B, R)."""
        return gaussians_brightness(x, y, *self._vectors(x, parameters))

    def jacobian(self, x: Tensor, y: Tensor, parameters: Tensor, cusp: float = 0.0) -> tuple[Tensor, ...]:
        """Surface brightness (B, R), its slopes, and its derivatives (B, P, R); Gaussians have no cusp."""
        return gaussians_brightness_jacobian(x, y, *self._vectors(x, parameters))

    def start(self, sersic: Tensor, rank: int = 0, count: int = 1) -> Tensor:
        """Where a fit begins; a given flux of zero, if free, begins at the smallest share instead."""
        start = super().start(sersic, rank, count)
        flux = start[:, :-4]
        free = torch.tensor(self.free[:-4], device=start.device)
        start[:, :-4] = torch.where(free, torch.maximum(flux, 1e-4 * flux.mean(1, keepdim=True)), flux)
        return start

    def from_sersic(self, sersic: Tensor, rank: int, count: int) -> Tensor:
        """Where a fit begins (B, P): the Sérsic expanded, shared out among several groups."""
        flux = gaussians_from_sersic(sersic, self.sigma)
        return self.share(torch.cat([flux / count, sersic[:, 3:]], dim=1), rank, count)

    def share(self, mean: Tensor, rank: int, count: int) -> Tensor:
        """Parameters (B, P) of group ``rank`` of ``count``, from the mean (B, P) of all groups.

        The first one gets most of the light in the middle.
        """
        if count == 1:
            return mean
        outward = torch.linspace(-1, 1, len(self.sigma)).to(mean)
        flux = mean[:, :-4] * (1 + TILT * outward * (2 * rank / (count - 1) - 1))
        return torch.cat([flux, mean[:, -4:]], dim=1)

    def flux(self, vector: Tensor) -> Tensor:
        """Total flux (...) of vectors (..., P), in image unit."""
        return vector[..., :-4].sum(-1)

    def _curve_of_growth(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        radii = profile.growth_radii(vector)
        inside = -torch.expm1(-0.5 * (radii / self.sigma.to(vector).unsqueeze(-1)).square())
        return radii, vector[..., :-4] @ inside

    def _model(self, vector: Tensor, covariance: Tensor | None, unit: Unit) -> MultiGaussian:
        return MultiGaussian.from_vector(vector, self.sigma, covariance=covariance, unit=unit)
