"""Isothermal lenses: the singular isothermal sphere (SIS) and ellipsoid (SIE)."""

import math
from collections.abc import Callable
from functools import partial
from typing import Self

import astropy.units as u
import torch
from torch import Tensor

from lenssr.cosmology import Cosmology, einstein_radius_from_velocity_dispersion
from lenssr.mass import kernels
from lenssr.mass.base import MassModel
from lenssr.mass.kernels import CORE, Pair, Real, Triple, WithJacobian, centred, lift, safe_divisor, times
from lenssr.mass.parameter import (
    EllipticalMixin,
    Length,
    Parameter,
    Parametrised,
    centre,
    ellipticities,
    shape,
)

__all__ = ["SIE", "SIS"]

ROUND = 0.03
"""Ellipticity below which the SIE is a power series: derivatives of its closed form divide by e."""

STRETCHED = 10.0
"""Factor of the closed form, larger for rounder lenses, below which rounding errors of 1 do not matter."""

NO_ELLIPTICITY = 1e-12
"""Ellipticity below which the SIE is computed as an SIS: its closed form divides by e."""

VANISHING = 1e-36
"""Squared radius in arcsec2 that avoids 0 / 0 at the centre; far below `CORE` squared."""


def sis_potential(x: Tensor, y: Tensor, theta_E: Tensor, x_0: Tensor, y_0: Tensor) -> Tensor:
    """Potential of a singular isothermal sphere in arcsec2, positions in arcsec."""
    zero = torch.zeros((), dtype=torch.float64)
    return sie_potential(x, y, theta_E, zero, zero, x_0, y_0)


def sis_deflection(x: Tensor, y: Tensor, theta_E: Tensor, x_0: Real, y_0: Real) -> Pair:
    """Deflection by a singular isothermal sphere in arcsec."""
    x, y, *params = lift(x, y, theta_E, x_0, y_0)
    numbers = kernels.plain_numbers(x, y, *params)
    if numbers is not None:
        return kernels.sum_in_blocks(x, y, (_add_sis, numbers))
    x, y, theta_E = centred(x, y, *params)
    scale = theta_E * torch.rsqrt(safe_divisor(x * x + y * y))
    return x * scale, y * scale


def _add_sis(ax: Tensor, ay: Tensor, x: Tensor, y: Tensor, *numbers: float) -> None:
    """Add `sis_deflection` for numbers in place."""
    theta_E, x_0, y_0 = numbers
    x, y = x - x_0, y - y_0
    inverse = safe_divisor(x * x + y * y).rsqrt_()
    ax.addcmul_(x, inverse, value=theta_E)
    ay.addcmul_(y, inverse, value=theta_E)


def sis_hessian(x: Tensor, y: Tensor, theta_E: Tensor, x_0: Tensor, y_0: Tensor) -> Triple:
    """Second derivatives xx, xy, yy of the potential of a singular isothermal sphere."""
    zero = torch.zeros((), dtype=torch.float64)
    return sie_hessian(x, y, theta_E, zero, zero, x_0, y_0)


def sis_deflection_jacobian(x: Tensor, y: Tensor, theta_E: Tensor, x_0: Tensor, y_0: Tensor) -> WithJacobian:
    """Deflection (B, R) by a singular isothermal sphere, and derivatives (B, 3, R) by its parameters."""
    x, y, theta_E = centred(x, y, theta_E, x_0, y_0)
    scale = torch.rsqrt(safe_divisor(x * x + y * y))
    nx, ny = x * scale, y * scale
    curvature = theta_E * scale
    xx, xy, yy = curvature * ny * ny, -curvature * nx * ny, curvature * nx * nx
    dax = torch.stack((nx, -xx, -xy), dim=-2)
    day = torch.stack((ny, -xy, -yy), dim=-2)
    return theta_E * nx, theta_E * ny, dax, day


def sie_potential(
    x: Tensor, y: Tensor, theta_E: Tensor, e1: Tensor, e2: Tensor, x_0: Tensor, y_0: Tensor
) -> Tensor:
    """Potential of a singular isothermal ellipsoid in arcsec2, positions in arcsec."""
    x, y, theta_E, e1, e2 = centred(x, y, theta_E, e1, e2, x_0, y_0)
    ax, ay = sie_deflection(x, y, theta_E, e1, e2, 0.0, 0.0)
    return x * ax + y * ay


def sie_deflection(
    x: Tensor, y: Tensor, theta_E: Tensor, e1: Tensor, e2: Tensor, x_0: Real, y_0: Real
) -> Pair:
    """Deflection by a singular isothermal ellipsoid in arcsec.

    With w the position from the centre, zeta = w - e conj(w), n = zeta / abs(zeta) and s = theta_E sqrt(1 -
    e^2), it is alpha = s n arctan(sqrt(v)) / sqrt(v), v = conj(e) n^2: Kormann, Schneider & Bartelmann 1994,
    A&A 284, 285, in complex form; Tessore & Metcalf 2015, A&A 580, A79, equation 13 for t = 1.
    """
    x, y, *params = lift(x, y, theta_E, e1, e2, x_0, y_0)
    numbers = kernels.plain_numbers(x, y, *params)
    if numbers is not None:
        return kernels.sum_in_blocks(x, y, (_add_sie, numbers))
    x, y, theta_E, e1, e2 = centred(x, y, *params)
    if kernels.e_range(e1, e2)[1] == 0 and not kernels.tracked(e1, e2):
        return sis_deflection(x, y, theta_E, 0.0, 0.0)
    return _by_ellipticity(e1, e2, partial(_sie_series, x, y, theta_E), partial(_sie_closed, x, y, theta_E))


def _by_ellipticity(e1: Tensor, e2: Tensor, series: Callable[..., Pair], closed: Callable[..., Pair]) -> Pair:
    """Series where a lens is nearly round, closed form elsewhere.

    In a batch with both, each formula gets a harmless ellipticity where the other one is used.
    """
    smallest, largest = kernels.e_range(e1, e2)
    if smallest >= ROUND:
        return closed(e1, e2)
    if largest < ROUND:
        return series(e1, e2)
    nearly_round = e1 * e1 + e2 * e2 < ROUND**2
    ax, ay = series(e1.where(nearly_round, 0), e2.where(nearly_round, 0))
    bx, by = closed(e1.where(~nearly_round, 0.5), e2.where(~nearly_round, 0))
    return torch.where(nearly_round, ax, bx), torch.where(nearly_round, ay, by)


def _sie_series(x: Tensor, y: Tensor, theta_E: Tensor, e1: Tensor, e2: Tensor) -> Pair:
    zx, zy = kernels.elliptical(x, y, e1, e2)
    scale = torch.rsqrt(safe_divisor(zx * zx + zy * zy))
    nx, ny = zx * scale, zy * scale
    number = kernels.number_of_terms(kernels.e_range(e1, e2)[1], x.dtype)
    re, im, square = kernels.argument(nx, ny, e1, e2)
    series = kernels.power_series([1 / (2 * k + 1) for k in range(number)], re, im, square)
    s = theta_E * torch.sqrt(1 - square)
    ax, ay = times(nx, ny, *series)
    return s * ax, s * ay


def _sie_closed(x: Tensor, y: Tensor, theta_E: Tensor, e1: Tensor, e2: Tensor) -> Pair:
    # Real and imaginary part of the complex arctangent, in the frame of the axes.
    square = e1 * e1 + e2 * e2
    e = torch.sqrt(square)
    half = torch.atan2(e2, e1) / 2
    cos, sin = torch.cos(half), torch.sin(half)
    px, py = (1 - e) * (x * cos + y * sin), (1 + e) * (y * cos - x * sin)
    radius = torch.sqrt(safe_divisor(px * px + py * py))
    root = 2 * torch.sqrt(e)
    re = torch.atan2(root * px, (1 - e) * radius)
    im = torch.atanh(root / (1 + e) * py / radius)
    scale = theta_E * torch.sqrt(1 - square) / root
    return times(scale * re, scale * im, cos, sin)


def _add_sie(ax: Tensor, ay: Tensor, x: Tensor, y: Tensor, *numbers: float) -> None:
    """Add `_sie_closed` for numbers theta_E, e1, e2, x_0, y_0 in place.

    In the frame of the axes, with P and Q the positions along them and R^2 = ((1 - e)^2 P^2 + (1 + e)^2 Q^2)
    / 4e, it is theta_E sqrt((1 - e^2) / 4e) (arctan(P / R), arctanh(Q / R)). P, Q and R may share a factor,
    here the cosine of the angle of the axes; where that is small, x and y are exchanged.
    """
    theta_E, e1, e2, x_0, y_0 = numbers
    e = math.hypot(e1, e2)
    if e < NO_ELLIPTICITY:
        return _add_sis(ax, ay, x, y, theta_E, x_0, y_0)
    if e1 < 0:
        return _add_sie(ay, ax, y, x, theta_E, -e1, e2, y_0, x_0)
    angle = math.atan2(e2, e1) / 2
    x, y = x - x_0, y - y_0
    p = torch.add(x, y, alpha=math.tan(angle))
    q = y.sub_(x, alpha=math.tan(angle))
    inverse = torch.addcmul(x.new_tensor(VANISHING), p, p, value=(1 - e) ** 2 / (4 * e), out=x)
    inverse.addcmul_(q, q, value=(1 + e) ** 2 / (4 * e)).rsqrt_()
    p.mul_(inverse)
    q.mul_(inverse)
    stretch = math.sqrt((1 - e * e) / (4 * e))
    add_arctangents(ax, ay, p, q, theta_E, stretch, math.cos(angle), math.sin(angle))


def add_arctangents(
    ax: Tensor, ay: Tensor, p: Tensor, q: Tensor, theta_E: float, stretch: float, cos: float, sin: float
) -> None:
    """Add theta_E stretch (arctan(p), arctanh(q)) along an axis and across it; p and q are used up."""
    kernels.in_place("arctan", p)
    along = across = theta_E * stretch
    if stretch < STRETCHED:
        # A logarithm takes half of the time; near the axis its error is that of 1.
        q = kernels.in_place("log", (1 + q).div_(1 - q))
        across /= 2
    else:
        kernels.in_place("arctanh", q)
    ax.add_(p, alpha=along * cos).sub_(q, alpha=across * sin)
    ay.add_(p, alpha=along * sin).add_(q, alpha=across * cos)


def sie_hessian(
    x: Tensor, y: Tensor, theta_E: Tensor, e1: Tensor, e2: Tensor, x_0: Tensor, y_0: Tensor
) -> Triple:
    """Second derivatives xx, xy, yy of the potential of a singular isothermal ellipsoid.

    The convergence is kappa = s / (2 abs(zeta)), capped inside 1e-9 arcsec, and the shear points to the
    centre: gamma = -kappa w / conj(w).
    """
    x, y, theta_E, e1, e2 = centred(x, y, theta_E, e1, e2, x_0, y_0)
    zx, zy = kernels.elliptical(x, y, e1, e2)
    s = theta_E * torch.sqrt(1 - e1 * e1 - e2 * e2)
    kappa = s / 2 * torch.rsqrt((zx * zx + zy * zy).clamp_min(CORE**2))
    towards = kappa / safe_divisor(x * x + y * y)
    gamma1, gamma2 = (y * y - x * x) * towards, -2 * x * y * towards
    return kappa + gamma1, gamma2, kappa - gamma1


def _add_sie_hessian(
    xx: Tensor, xy: Tensor, yy: Tensor, x: Tensor, y: Tensor, *numbers: float, alpha: Pair | None = None
) -> None:
    """Add `sie_hessian` for numbers theta_E, e1, e2, x_0, y_0 in place, and the deflection to ``alpha``.

    Convergence and shear are 2 kappa / r^2 times y^2, -x y and x^2.
    """
    theta_E, e1, e2, x_0, y_0 = numbers
    x, y = x - x_0, y - y_0
    x_square, y_square = (torch.addcmul(x.new_tensor(VANISHING), c, c) for c in (x, y))
    cross = x * y
    square = x_square * ((1 - e1) ** 2 + e2 * e2)
    square.add_(y_square, alpha=(1 + e1) ** 2 + e2 * e2).add_(cross, alpha=-4 * e2)
    inverse = square.clamp_min_(CORE**2).rsqrt_()
    twice = inverse / (x_square + y_square)
    scale = theta_E * math.sqrt(1 - e1 * e1 - e2 * e2)
    xx.addcmul_(y_square, twice, value=scale)
    xy.addcmul_(cross, twice, value=-scale)
    yy.addcmul_(x_square, twice, value=scale)
    if alpha is None:
        return
    e = math.hypot(e1, e2)
    if e < NO_ELLIPTICITY:
        alpha[0].addcmul_(x, inverse, value=theta_E)
        alpha[1].addcmul_(y, inverse, value=theta_E)
        return
    angle = math.atan2(e2, e1) / 2
    cos, sin = math.cos(angle), math.sin(angle)
    across = (y * cos).sub_(x, alpha=sin)
    along = x.mul_(cos).add_(y, alpha=sin)
    root = inverse.mul_(2 * math.sqrt(e))
    stretch = math.sqrt((1 - e * e) / (4 * e))
    add_arctangents(*alpha, along.mul_(root), across.mul_(root), theta_E, stretch, cos, sin)


def _add_sis_hessian(
    xx: Tensor, xy: Tensor, yy: Tensor, x: Tensor, y: Tensor, *numbers: float, alpha: Pair | None = None
) -> None:
    """Add `sis_hessian` for numbers theta_E, x_0, y_0 in place, and the deflection to ``alpha``."""
    theta_E, x_0, y_0 = numbers
    _add_sie_hessian(xx, xy, yy, x, y, theta_E, 0.0, 0.0, x_0, y_0, alpha=alpha)


def sie_deflection_jacobian(
    x: Tensor, y: Tensor, theta_E: Tensor, e1: Tensor, e2: Tensor, x_0: Tensor, y_0: Tensor
) -> WithJacobian:
    """Deflection (B, R) by a singular isothermal ellipsoid, and derivatives (B, 5, R) by its parameters.

    With F(v) = arctan(sqrt(v)) / sqrt(v), 2 v F' = 1 / (1 + v) - F, and n / (1 + v) = abs(zeta) w / (abs(w)^2
    (1 - e^2)), so the derivatives need no further transcendental function.
    """
    ax, ay = sie_deflection(x, y, theta_E, e1, e2, x_0, y_0)
    x, y = x - x_0, y - y_0
    rest = 1 - e1 * e1 - e2 * e2
    s = theta_E * torch.sqrt(rest)
    zx, zy = kernels.elliptical(x, y, e1, e2)
    z_square = safe_divisor(zx * zx + zy * zy)
    inverse = torch.rsqrt(z_square)
    towards = 1 / safe_divisor(x * x + y * y)
    # Convergence and shear as in sie_hessian, but zero in the core.
    kappa = s / 2 * inverse
    gamma = kappa * towards
    gamma1, gamma2 = (y * y - x * x) * gamma, -2 * x * y * gamma
    # m = s n / (1 + v)
    m = s / rest * z_square * inverse * towards
    mx, my = m * x, m * y
    # Rotations of n by e1 and e2, Im and -Re of zeta w / |zeta|^2.
    turn = inverse * inverse
    turn1, turn2 = (zx * y + zy * x) * turn, (zy * y - zx * x) * turn
    gx, gy = _sie_slope(zx * inverse, zy * inverse, s, e1, e2, mx - ax, my - ay)
    less1, less2 = e1 / rest, e2 / rest
    by_e1 = gx - less1 * ax - turn1 * my, gy - less1 * ay + turn1 * mx
    by_e2 = gy - less2 * ax - turn2 * my, turn2 * mx - less2 * ay - gx
    dax = torch.stack((ax / theta_E, by_e1[0], by_e2[0], -kappa - gamma1, -gamma2), dim=-2)
    day = torch.stack((ay / theta_E, by_e1[1], by_e2[1], -gamma2, gamma1 - kappa), dim=-2)
    return ax, ay, dax, day


def _sie_slope(nx: Tensor, ny: Tensor, s: Tensor, e1: Tensor, e2: Tensor, dx: Tensor, dy: Tensor) -> Pair:
    """The term s n^3 F'(v), as (e / 2 |e|^2)(m - alpha), or as a series where e is small."""

    def closed(e1: Tensor, e2: Tensor) -> Pair:
        half = 0.5 / (e1 * e1 + e2 * e2)
        return times(half * e1, half * e2, dx, dy)

    def series(e1: Tensor, e2: Tensor) -> Pair:
        number = kernels.number_of_terms(kernels.e_range(e1, e2)[1], nx.dtype)
        coefficients = [-(k + 1) / (2 * k + 3) for k in range(number)]
        slope = kernels.power_series(coefficients, *kernels.argument(nx, ny, e1, e2))
        cubed = times(nx, ny, nx * nx - ny * ny, 2 * nx * ny)
        gx, gy = times(*cubed, *slope)
        return s * gx, s * gy

    return _by_ellipticity(e1, e2, series, closed)


class _FromVelocityDispersion(Parametrised):
    """The constructor from a velocity dispersion."""

    @classmethod
    def from_velocity_dispersion(
        cls, sigma_v: Length, z_lens: float, z_source: float, *, cosmology: Cosmology = None, **values: Length
    ) -> Self:
        """Make a lens of a given velocity dispersion.

        Parameters
        ----------
        sigma_v : `~astropy.units.Quantity` or float
            Velocity dispersion; a bare number is in km/s.
        z_lens, z_source : float
            Redshifts, 0 < z_lens < z_source.
        cosmology : `~astropy.cosmology.FLRW`, optional
            By default astropy's ``Planck18``.
        **values
            The other parameters, as for the class.
        """
        theta_E = einstein_radius_from_velocity_dispersion(sigma_v, z_lens, z_source, cosmology=cosmology)
        return cls(theta_E=theta_E, **values)


class SIS(_FromVelocityDispersion, MassModel):
    """Singular isothermal sphere.

    Parameters
    ----------
    theta_E : float or `~astropy.units.Quantity`
        Einstein radius, in arcsec.
    x_0, y_0 : float or `~astropy.units.Quantity`, optional
        Centre, in arcsec; default 0.

    Examples
    --------
    >>> from lenssr.mass import SIS
    >>> SIS(1.2).deflection(3.0, 4.0)
    (0.72, 0.96)
    """

    theta_E = Parameter("Einstein radius", unit=u.arcsec, limits=(0, math.inf))
    x_0, y_0 = centre()
    _potential = staticmethod(sis_potential)
    _deflection = staticmethod(sis_deflection)
    _add_deflection = staticmethod(_add_sis)
    _add_hessian = staticmethod(_add_sis_hessian)
    _hessian = staticmethod(sis_hessian)
    _deflection_jacobian = staticmethod(sis_deflection_jacobian)

    def __init__(self, theta_E: Length, x_0: Length = 0.0, y_0: Length = 0.0) -> None:
        super().__init__(theta_E=theta_E, x_0=x_0, y_0=y_0)


class SIE(_FromVelocityDispersion, EllipticalMixin, MassModel):
    """Singular isothermal ellipsoid: kappa = theta_E / (2 sqrt(q x^2 + y^2 / q)) along its axes.

    Parameters
    ----------
    theta_E : float or `~astropy.units.Quantity`
        Einstein radius on the intermediate axis, in arcsec.
    e1, e2 : float, optional
        Ellipticity, (1 - q) / (1 + q) times cos(2 phi) and sin(2 phi); default 0.
    q, phi : float and `~astropy.units.Quantity`, optional
        Minor over major axis, and the angle of the major axis counter-clockwise from +x, instead of e1, e2.
    x_0, y_0 : float or `~astropy.units.Quantity`, optional
        Centre, in arcsec; default 0.

    Examples
    --------
    >>> from lenssr.mass import SIE
    >>> lens = SIE(1.2, e1=0.1)
    >>> lens.deflection(1.0, 0.5)
    (1.0197140, 0.5839398)
    >>> lens.convergence(1.0, 0.5)
    0.5660031
    """

    theta_E = Parameter("Einstein radius, intermediate axis", unit=u.arcsec, limits=(0, math.inf))
    e1, e2 = ellipticities()
    x_0, y_0 = centre()
    _potential = staticmethod(sie_potential)
    _deflection = staticmethod(sie_deflection)
    _add_deflection = staticmethod(_add_sie)
    _add_hessian = staticmethod(_add_sie_hessian)
    _hessian = staticmethod(sie_hessian)
    _deflection_jacobian = staticmethod(sie_deflection_jacobian)

    def __init__(
        self,
        theta_E: Length,
        e1: float = 0.0,
        e2: float = 0.0,
        x_0: Length = 0.0,
        y_0: Length = 0.0,
        *,
        q: float | None = None,
        phi: u.Quantity | None = None,
    ) -> None:
        super().__init__(theta_E=theta_E, **shape(e1, e2, q, phi), x_0=x_0, y_0=y_0)
