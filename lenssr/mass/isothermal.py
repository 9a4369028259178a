"""Isothermal lenses: the singular isothermal sphere (SIS) and ellipsoid (SIE)."""

import math

import astropy.units as u
import numpy as np
import torch

from lenssr.cosmology import einstein_radius_from_velocity_dispersion
from lenssr.mass.base import MassModel
from lenssr.mass.blocks import CORE, lift, plain_numbers, sum_in_blocks, tracked
from lenssr.mass.ellipse import (
    EllipticalMixin,
    centred,
    e_range,
    elliptical,
    number_of_terms,
    power_series,
    safe_divisor,
)
from lenssr.mass.parameter import Parameter

__all__ = [
    "SIE",
    "SIS",
    "sie_deflection",
    "sie_deflection_jacobian",
    "sie_hessian",
    "sie_potential",
    "sis_deflection",
    "sis_deflection_jacobian",
    "sis_hessian",
    "sis_potential",
]

ROUND = 0.03
"""Ellipticity below which the SIE is a power series: derivatives of its closed form divide by e."""

NO_ELLIPTICITY = 1e-12
"""Ellipticity below which the SIE is computed as an SIS: its closed form divides by e."""

VANISHING = 1e-36
"""Squared radius in arcsec2 that avoids 0 / 0 at the centre; far below that of `CORE`."""


def sis_potential(x, y, theta_E, x_0, y_0):
    """Potential of a singular isothermal sphere in arcsec2, positions in arcsec."""
    x, y, theta_E = centred(x, y, theta_E, x_0, y_0)
    square = x * x + y * y
    return theta_E * square * torch.rsqrt(safe_divisor(square))


def sis_deflection(x, y, theta_E, x_0, y_0):
    """Deflection by a singular isothermal sphere in arcsec."""
    x, y, *params = lift(x, y, theta_E, x_0, y_0)
    numbers = plain_numbers(x, y, *params)
    if numbers is not None:
        return sum_in_blocks(x, y, (_add_sis, numbers))
    x, y, theta_E = centred(x, y, *params)
    scale = theta_E * torch.rsqrt(safe_divisor(x * x + y * y))
    return x * scale, y * scale


def _add_sis(ax, ay, x, y, theta_E, x_0, y_0):
    """Add `sis_deflection` for numbers in place."""
    x, y = x - x_0, y - y_0
    inverse = safe_divisor(x * x + y * y).rsqrt_()
    ax.addcmul_(x, inverse, value=theta_E)
    ay.addcmul_(y, inverse, value=theta_E)


def sis_hessian(x, y, theta_E, x_0, y_0):
    """Second derivatives xx, xy, yy of the potential of a singular isothermal sphere."""
    zero = torch.zeros((), dtype=torch.float64)
    return sie_hessian(x, y, theta_E, zero, zero, x_0, y_0)


def sis_deflection_jacobian(x, y, theta_E, x_0, y_0):
    """Deflection (B, R) by a singular isothermal sphere, and derivatives (B, 3, R) by its parameters."""
    x, y, theta_E = centred(x, y, theta_E, x_0, y_0)
    scale = torch.rsqrt(safe_divisor(x * x + y * y))
    nx, ny = x * scale, y * scale
    curvature = theta_E * scale
    xx, xy, yy = curvature * ny * ny, -curvature * nx * ny, curvature * nx * nx
    dax = torch.stack((nx, -xx, -xy), dim=-2)
    day = torch.stack((ny, -xy, -yy), dim=-2)
    return theta_E * nx, theta_E * ny, dax, day


def sie_potential(x, y, theta_E, e1, e2, x_0, y_0):
    """Potential of a singular isothermal ellipsoid in arcsec2, positions in arcsec."""
    x, y, theta_E, e1, e2 = centred(x, y, theta_E, e1, e2, x_0, y_0)
    ax, ay = sie_deflection(x, y, theta_E, e1, e2, 0.0, 0.0)
    return x * ax + y * ay


def sie_deflection(x, y, theta_E, e1, e2, x_0, y_0):
    """Deflection by a singular isothermal ellipsoid in arcsec.

    With w the position from the centre, zeta = w - e conj(w), n = zeta / abs(zeta) and s = theta_E sqrt(1 -
    e^2), it is alpha = s n arctan(sqrt(v)) / sqrt(v), v = conj(e) n^2: Kormann, Schneider & Bartelmann 1994,
    A&A 284, 285, in complex form; Tessore & Metcalf 2015, A&A 580, A79, equation 13 for t = 1.
    """
    x, y, *params = lift(x, y, theta_E, e1, e2, x_0, y_0)
    numbers = plain_numbers(x, y, *params)
    if numbers is not None:
        return sum_in_blocks(x, y, (_add_sie, numbers))
    return _sie_deflection(x, y, *params)


def _sie_deflection(x, y, theta_E, e1, e2, x_0, y_0):
    smallest, largest = e_range(e1, e2)
    if largest == 0 and not tracked(e1, e2):
        return sis_deflection(x, y, theta_E, x_0, y_0)
    if smallest >= ROUND:
        return _sie_closed(x - x_0, y - y_0, theta_E, e1, e2)
    if largest < ROUND:
        return _sie_series(x - x_0, y - y_0, theta_E, e1, e2)
    # A batch with both: each formula gets harmless values where the other one is used.
    nearly_round = e1 * e1 + e2 * e2 < ROUND**2
    series = _sie_series(x - x_0, y - y_0, theta_E, e1.where(nearly_round, 0), e2.where(nearly_round, 0))
    closed = _sie_closed(x - x_0, y - y_0, theta_E, e1.where(~nearly_round, 0.5), e2.where(~nearly_round, 0))
    return tuple(torch.where(nearly_round, a, b) for a, b in zip(series, closed, strict=True))


def _sie_series(x, y, theta_E, e1, e2):
    zx, zy = elliptical(x, y, e1, e2)
    scale = torch.rsqrt(safe_divisor(zx * zx + zy * zy))
    nx, ny = zx * scale, zy * scale
    cos, sin = nx * nx - ny * ny, 2 * nx * ny
    square = e1 * e1 + e2 * e2
    number = number_of_terms(e_range(e1, e2)[1], x.dtype)
    fx, fy = power_series(
        [1 / (2 * k + 1) for k in range(number)], -(e1 * cos + e2 * sin), e2 * cos - e1 * sin, square
    )
    s = theta_E * torch.sqrt(1 - square)
    return s * (nx * fx - ny * fy), s * (nx * fy + ny * fx)


def _sie_closed(x, y, theta_E, e1, e2):
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
    return scale * (re * cos - im * sin), scale * (re * sin + im * cos)


def _add_sie(ax, ay, x, y, theta_E, e1, e2, x_0, y_0):
    """Add `_sie_closed` for numbers in place.

    In the frame of the axes, with P and Q the positions along them and R^2 = ((1 - e)^2 P^2 + (1 + e)^2 Q^2)
    / 4e, it is theta_E sqrt((1 - e^2) / 4e) (arctan(P / R), arctanh(Q / R)). P, Q and R may share a factor,
    here the cosine of the angle of the axes; where that is small, x and y are exchanged.
    """
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
    # numpy's functions take a third of the time of torch's.
    np.arctan(p.numpy(), out=p.numpy())
    np.arctanh(q.numpy(), out=q.numpy())
    scale = theta_E * math.sqrt((1 - e * e) / (4 * e))
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    ax.add_(p, alpha=cos).sub_(q, alpha=sin)
    ay.add_(p, alpha=sin).add_(q, alpha=cos)


def sie_hessian(x, y, theta_E, e1, e2, x_0, y_0):
    """Second derivatives xx, xy, yy of the potential of a singular isothermal ellipsoid.

    The convergence is kappa = s / (2 abs(zeta)), capped inside 1e-9 arcsec, and the shear points to the
    centre: gamma = -kappa w / conj(w).
    """
    x, y, theta_E, e1, e2 = centred(x, y, theta_E, e1, e2, x_0, y_0)
    zx, zy = elliptical(x, y, e1, e2)
    s = theta_E * torch.sqrt(1 - e1 * e1 - e2 * e2)
    kappa = s / 2 * torch.rsqrt((zx * zx + zy * zy).clamp_min(CORE**2))
    towards = kappa / safe_divisor(x * x + y * y)
    gamma1, gamma2 = (y * y - x * x) * towards, -2 * x * y * towards
    return kappa + gamma1, gamma2, kappa - gamma1


def sie_deflection_jacobian(x, y, theta_E, e1, e2, x_0, y_0):
    """Deflection (B, R) by a singular isothermal ellipsoid, and derivatives (B, 5, R) by its parameters.

    With F(v) = arctan(sqrt(v)) / sqrt(v), 2 v F' = 1 / (1 + v) - F, and n / (1 + v) = abs(zeta) w / (abs(w)^2
    (1 - e^2)), so the derivatives need no further transcendental function.
    """
    ax, ay = sie_deflection(x, y, theta_E, e1, e2, x_0, y_0)
    x, y = x - x_0, y - y_0
    square = e1 * e1 + e2 * e2
    rest = 1 - square
    s = theta_E * torch.sqrt(rest)
    zx, zy = elliptical(x, y, e1, e2)
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
    # Im and -Re of zeta w / |zeta|^2: how much e1 and e2 turn n
    turn = inverse * inverse
    turn1, turn2 = (zx * y + zy * x) * turn, (zy * y - zx * x) * turn
    gx, gy = _sie_slope(zx * inverse, zy * inverse, s, e1, e2, mx - ax, my - ay)
    ratio1, ratio2 = e1 / rest, e2 / rest
    dax = (
        ax / theta_E,
        gx - ratio1 * ax - turn1 * my,
        gy - ratio2 * ax - turn2 * my,
        -kappa - gamma1,
        -gamma2,
    )
    day = (
        ay / theta_E,
        gy - ratio1 * ay + turn1 * mx,
        turn2 * mx - ratio2 * ay - gx,
        -gamma2,
        gamma1 - kappa,
    )
    return ax, ay, torch.stack(dax, dim=-2), torch.stack(day, dim=-2)


def _sie_slope(nx, ny, s, e1, e2, dx, dy):
    """The term s n^3 F'(v), as (e / 2 |e|^2)(m - alpha), or as a series where e is small."""
    square = e1 * e1 + e2 * e2
    smallest, largest = e_range(e1, e2)
    nearly_round = square < ROUND**2
    by_ratio = by_series = None
    if largest >= ROUND:
        half = 0.5 / square.where(~nearly_round, 1)
        by_ratio = half * (e1 * dx - e2 * dy), half * (e1 * dy + e2 * dx)
        if smallest >= ROUND:
            return by_ratio
    cos, sin = nx * nx - ny * ny, 2 * nx * ny
    number = number_of_terms(min(largest, ROUND), nx.dtype)
    fx, fy = power_series(
        [-(k + 1) / (2 * k + 3) for k in range(number)], -(e1 * cos + e2 * sin), e2 * cos - e1 * sin, square
    )
    cubed_x, cubed_y = nx * cos - ny * sin, nx * sin + ny * cos
    by_series = s * (cubed_x * fx - cubed_y * fy), s * (cubed_x * fy + cubed_y * fx)
    if by_ratio is None:
        return by_series
    return tuple(torch.where(nearly_round, a, b) for a, b in zip(by_series, by_ratio, strict=True))


class _FromVelocityDispersion:
    """The constructor from a velocity dispersion."""

    @classmethod
    def from_velocity_dispersion(cls, sigma_v, z_lens, z_source, *, cosmology=None, **values):
        """Make a lens of a given velocity dispersion.

        Parameters
        ----------
        sigma_v : `~astropy.units.Quantity` or float
            Velocity dispersion; a bare number is in km/s.
        z_lens, z_source : float
            Redshifts, 0 < z_lens < z_source.
        cosmology : `~astropy.cosmology.FLRW`, optional
            By default astropy's ``Planck18``.
        **values : float or `~astropy.units.Quantity`
            The other parameters, as for the class.
        """
        theta_E = einstein_radius_from_velocity_dispersion(sigma_v, z_lens, z_source, cosmology=cosmology)
        return cls(theta_E, **values)


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
    x_0 = Parameter("centre along x", unit=u.arcsec)
    y_0 = Parameter("centre along y", unit=u.arcsec)
    _potential = staticmethod(sis_potential)
    _deflection = staticmethod(sis_deflection)
    _add_deflection = staticmethod(_add_sis)
    _hessian = staticmethod(sis_hessian)
    _deflection_jacobian = staticmethod(sis_deflection_jacobian)

    def __init__(self, theta_E, x_0=0.0, y_0=0.0):
        super().__init__(theta_E=theta_E, x_0=x_0, y_0=y_0)


class SIE(_FromVelocityDispersion, EllipticalMixin, MassModel):
    """Singular isothermal ellipsoid: kappa = theta_E / (2 sqrt(q x^2 + y^2 / q)) along its axes.

    Parameters
    ----------
    theta_E : float or `~astropy.units.Quantity`
        Einstein radius on the intermediate axis, in arcsec.
    e1, e2 : float, optional
        Ellipticity, (1 - q) / (1 + q) times cos(2 phi) and sin(2 phi); default 0.
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
    e1 = Parameter("ellipticity along the axes", limits=(-1, 1))
    e2 = Parameter("ellipticity along the diagonals", limits=(-1, 1))
    x_0 = Parameter("centre along x", unit=u.arcsec)
    y_0 = Parameter("centre along y", unit=u.arcsec)
    _potential = staticmethod(sie_potential)
    _deflection = staticmethod(sie_deflection)
    _add_deflection = staticmethod(_add_sie)
    _hessian = staticmethod(sie_hessian)
    _deflection_jacobian = staticmethod(sie_deflection_jacobian)

    def __init__(self, theta_E, e1=0.0, e2=0.0, x_0=0.0, y_0=0.0):
        super().__init__(theta_E=theta_E, e1=e1, e2=e2, x_0=x_0, y_0=y_0)
