"""A Gaussian of mass, of which others can be made."""

import math

import astropy.units as u
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lenssr.mass import homoeoids, kernels
from lenssr.mass.base import MassModel
from lenssr.mass.isothermal import ROUND
from lenssr.mass.kernels import Pair, Real, Triple, centred, lift
from lenssr.mass.parameter import EllipticalMixin, Length, Parameter, centre, ellipticities, shape

__all__ = ["GaussianMass"]

LAST, LEAST, SMALL = 34.0, 20, 1e-30
"""Largest (m / sigma)^2 / 2 of a shell; least number of shells; least (m / sigma)^2 / 2."""

TERMS = 32
"""Terms of the series of the Faddeeva function, for errors below 1e-13."""


def gaussian_mass_potential(
    x: Tensor, y: Tensor, kappa_0: Tensor, sigma: Tensor, e1: Tensor, e2: Tensor, x_0: Real, y_0: Real
) -> Tensor:
    """Potential of a Gaussian mass in arcsec2, 0 at the centre, positions in arcsec."""
    x, y, kappa_0, sigma, e1, e2 = centred(x, y, kappa_0, sigma, e1, e2, x_0, y_0)
    # The potential of a shell grows as ln(t): nodes that crowd at the centre.
    m_square = homoeoids.elliptical_radius_squared(x, y, e1, e2)
    shells = _shells(m_square, kappa_0, sigma, e1, e2, crowd=4, least=2 * LEAST)
    return homoeoids.potential(x, y, e1, e2, shells)


def gaussian_mass_deflection(
    x: Tensor, y: Tensor, kappa_0: Tensor, sigma: Tensor, e1: Tensor, e2: Tensor, x_0: Real, y_0: Real
) -> Pair:
    """Deflection by a Gaussian mass in arcsec: a sum over shells, or a closed form where it is a number."""
    x, y, *params = lift(x, y, kappa_0, sigma, e1, e2, x_0, y_0)
    numbers = kernels.plain_numbers(x, y, *params)
    if numbers is not None:
        e = math.hypot(*numbers[2:4])
        if e == 0 or e > ROUND:
            return kernels.sum_in_blocks(x, y, (_add_elliptical if e else _add_round, numbers))
    return kernels.in_blocks(_deflection, x, y, *params)


def _deflection(x: Tensor, y: Tensor, *params: Tensor) -> Pair:
    x, y, kappa_0, sigma, e1, e2 = centred(x, y, *params)
    shells = _shells(homoeoids.elliptical_radius_squared(x, y, e1, e2), kappa_0, sigma, e1, e2)
    return homoeoids.deflection(x, y, e1, e2, shells)


def gaussian_mass_hessian(
    x: Tensor, y: Tensor, kappa_0: Tensor, sigma: Tensor, e1: Tensor, e2: Tensor, x_0: Real, y_0: Real
) -> Triple:
    """Second derivatives xx, xy, yy of the potential of a Gaussian mass."""
    x, y, kappa_0, sigma, e1, e2 = centred(x, y, kappa_0, sigma, e1, e2, x_0, y_0)
    m_square = homoeoids.elliptical_radius_squared(x, y, e1, e2)
    kappa = kappa_0 * torch.exp(-m_square / (2 * sigma * sigma))
    return homoeoids.hessian(x, y, e1, e2, kappa, _shells(m_square, kappa_0, sigma, e1, e2))


def _shells(
    m_square: Tensor,
    kappa_0: Tensor,
    sigma: Tensor,
    e1: Tensor,
    e2: Tensor,
    crowd: int = 1,
    least: int = LEAST,
) -> homoeoids.Shells:
    """Weights kappa(m t) t dt and t^2 at Gauss nodes in t^2, up to where the mass ends."""
    exponent = (m_square / (2 * sigma * sigma)).clamp_min(SMALL)
    reach, inner = (LAST / exponent).clamp_max(1.0), exponent.clamp_max(LAST)
    number = homoeoids.precise_count(kernels.e_range(e1, e2)[1], crowd, least)
    scale = kappa_0 / 2 * reach
    for node, weight in homoeoids.gauss_nodes(number):
        share, place = crowd * node ** (crowd - 1) * weight, node**crowd
        yield scale * share * torch.exp(-place * inner), place * reach


def _add_round(ax: Tensor, ay: Tensor, x: Tensor, y: Tensor, *numbers: float) -> None:
    """Add the deflection of a round Gaussian in place."""
    kappa_0, sigma, _, _, x_0, y_0 = numbers
    x, y = x - x_0, y - y_0
    exponent = torch.mul(x, x).addcmul_(y, y).mul_(0.5 / sigma**2).clamp_min_(SMALL)
    mean = exponent.neg().expm1_().div_(exponent)
    ax.add_(x.mul_(mean), alpha=-kappa_0)
    ay.add_(y.mul_(mean), alpha=-kappa_0)


def _add_elliptical(ax: Tensor, ay: Tensor, x: Tensor, y: Tensor, *numbers: float) -> None:
    """Add the deflection of an elliptical Gaussian in place: Shajib 2019, MNRAS 488, 1387, equation 48.

    In the frame of the axes, with z = x + i y, omega = q x + i y / q and f^2 = (1 - q^2) / q, its conjugate
    is -i kappa_0 sigma sqrt(2 pi) / f (w(z') - exp(-m^2 / 2 sigma^2) w(omega')), both over sqrt(2) f sigma,
    where w is the Faddeeva function in the first quadrant; signs do the rest.
    """
    kappa_0, sigma, e1, e2, x_0, y_0 = numbers
    e, angle = math.hypot(e1, e2), math.atan2(e2, e1) / 2
    q = (1 - e) / (1 + e)
    f = math.sqrt((1 - q * q) / q)
    cos, sin, unit = math.cos(angle), math.sin(angle), 1 / (math.sqrt(2) * f * sigma)
    x, y = (x - x_0).mul_(unit), (y - y_0).mul_(unit)
    p, r = (x * cos).add_(y, alpha=sin), (y * cos).sub_(x, alpha=sin)
    z = torch.complex(p.abs(), r.abs()).numpy()
    fall = torch.mul(p, p, out=x).mul_(q).addcmul_(r, r, value=1 / q).mul_(-f * f).exp_()
    near = _faddeeva(z.real * q + 1j * (z.imag / q))
    near *= fall.numpy()
    difference = _faddeeva(z)
    difference -= near
    along, across = (torch.from_numpy(part.copy()) for part in (difference.imag, difference.real))
    along.copysign_(p)
    across.copysign_(r)
    scale = kappa_0 * sigma * math.sqrt(2 * math.pi) / f
    ax.add_(along, alpha=scale * cos).sub_(across, alpha=scale * sin)
    ay.add_(along, alpha=scale * sin).add_(across, alpha=scale * cos)


def _weideman() -> tuple[float, list[float]]:
    """Scale and coefficients, the highest first, of the series by Weideman 1994, SINUM 31, 1497."""
    scale = math.sqrt(TERMS / math.sqrt(2))
    angle = np.pi * np.arange(1 - 2 * TERMS, 2 * TERMS) / (2 * TERMS)
    t = scale * np.tan(angle / 2)
    weight = np.exp(-t * t) * (scale**2 + t * t)
    orders = np.arange(1, TERMS + 1)
    return scale, list((np.cos(np.outer(orders, angle)) @ weight / (4 * TERMS))[::-1])


SCALE, COEFFICIENTS = _weideman()


def _faddeeva(z: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """exp(-z^2) erfc(-i z) where the imaginary part is not negative."""
    z = 1j * z
    inverse = 1 / (SCALE - z)
    ratio = (SCALE + z) * inverse
    total = np.full_like(z, COEFFICIENTS[0])
    for coefficient in COEFFICIENTS[1:]:
        total *= ratio
        total += coefficient
    total *= 2 * inverse
    total += 1 / math.sqrt(math.pi)
    total *= inverse
    return total


class GaussianMass(EllipticalMixin, MassModel):
    """Elliptical Gaussian of mass: kappa_0 exp(-m^2 / 2 sigma^2), m^2 = q x^2 + y^2 / q along its axes.

    Parameters
    ----------
    kappa_0 : float
        Convergence at the centre.
    sigma : float or `~astropy.units.Quantity`
        Standard deviation on the intermediate axis, in arcsec.
    e1, e2 : float, optional
        Ellipticity, (1 - q) / (1 + q) times cos(2 phi) and sin(2 phi); default 0.
    q, phi : float and `~astropy.units.Quantity`, optional
        Minor over major axis, and the angle of the major axis counter-clockwise from +x, instead of e1, e2.
    x_0, y_0 : float or `~astropy.units.Quantity`, optional
        Centre, in arcsec; default 0.

    Examples
    --------
    >>> from lenssr.mass import GaussianMass
    >>> GaussianMass(0.5, sigma=1.0, e1=0.1).deflection(1.0, 0.5)
    (0.3445340, 0.2066488)
    """

    kappa_0 = Parameter("convergence at the centre", limits=(0, math.inf))
    sigma = Parameter("standard deviation, intermediate axis", unit=u.arcsec, limits=(0, math.inf))
    e1, e2 = ellipticities()
    x_0, y_0 = centre()
    _potential = staticmethod(gaussian_mass_potential)
    _deflection = staticmethod(gaussian_mass_deflection)
    _hessian = staticmethod(gaussian_mass_hessian)

    def __init__(
        self,
        kappa_0: float,
        sigma: Length,
        e1: float = 0.0,
        e2: float = 0.0,
        x_0: Length = 0.0,
        y_0: Length = 0.0,
        *,
        q: float | None = None,
        phi: u.Quantity | None = None,
    ) -> None:
        super().__init__(kappa_0=kappa_0, sigma=sigma, **shape(e1, e2, q, phi), x_0=x_0, y_0=y_0)
