"""The Navarro-Frenk-White halo."""

import math
from typing import Self

import astropy.units as u
import torch
from torch import Tensor

from lenssr.cosmology import Cosmology, nfw_from_mass
from lenssr.mass import kernels
from lenssr.mass.base import MassModel
from lenssr.mass.kernels import CORE, Pair, Triple, centred, lift, safe_divisor
from lenssr.mass.parameter import Length, Parameter, centre

__all__ = ["NFW"]

NORM = 1 - math.log(2)
"""Normalisation of the deflection at the scale radius."""

SERIES_RANGE = 0.1
"""Largest |z|, z = (1 - x) / (1 + x), where the functions are summed as series around x = 1."""

SERIES_TERMS = 16

NEAR = 0.9
"""Squared radius, in scale radii, inside which the form without cancellation at the centre is precise."""

CLOSE = 0.1
"""Distance of x^2 from 1 below which the surface density is summed as a series."""

VANISHING = 1e-36
"""Squared radius, in scale radii, of the centre."""

TINY = 1e-30
"""Least 1 - x^2, where arctanh(sqrt(1 - x^2)) / sqrt(1 - x^2) is 1 to rounding."""

INNER = 0.5
"""Radius, in scale radii, inside which the functions have forms without cancellation."""


def nfw_potential(x: Tensor, y: Tensor, r_s: Tensor, alpha_rs: Tensor, x_0: Tensor, y_0: Tensor) -> Tensor:
    """Potential of an NFW halo in arcsec2 (Meneghetti, Bartelmann & Moscardini 2003, MNRAS 340, 105)."""
    x, y, r_s, alpha_rs = centred(x, y, r_s, alpha_rs, x_0, y_0)
    radius = _radius(x, y, r_s)
    logarithm = torch.log(2 / radius)
    # Inside x = 1/2 the two squared logarithms nearly cancel: factor their difference.
    inside = radius < INNER
    rest = _log_half(radius.where(inside, INNER / 2))
    outside = logarithm * logarithm - (1 - radius * radius) * _profile(radius)[0] ** 2
    return alpha_rs * r_s / (2 * NORM) * torch.where(inside, -rest * (2 * logarithm + rest), outside)


def nfw_deflection(x: Tensor, y: Tensor, r_s: Tensor, alpha_rs: Tensor, x_0: Tensor, y_0: Tensor) -> Pair:
    """Deflection by an NFW halo in arcsec (Bartelmann 1996, A&A 313, 697)."""
    x, y, *params = lift(x, y, r_s, alpha_rs, x_0, y_0)
    numbers = kernels.plain_numbers(x, y, *params)
    if numbers is not None:
        return kernels.sum_in_blocks(x, y, (_add_nfw, numbers))
    x, y, r_s, alpha_rs = centred(x, y, *params)
    mean = alpha_rs / (NORM * r_s) * _profile(_radius(x, y, r_s))[2]
    return mean * x, mean * y


def _add_nfw(ax: Tensor, ay: Tensor, x: Tensor, y: Tensor, *numbers: float) -> None:
    """Add `nfw_deflection` for numbers in place."""
    r_s, alpha_rs, x_0, y_0 = numbers
    x, y = x - x_0, y - y_0
    mean = plain_profile(plain_square(x, y, r_s))[0]
    ax.addcmul_(x, mean, value=alpha_rs / (NORM * r_s))
    ay.addcmul_(y, mean, value=alpha_rs / (NORM * r_s))


def nfw_hessian(x: Tensor, y: Tensor, r_s: Tensor, alpha_rs: Tensor, x_0: Tensor, y_0: Tensor) -> Triple:
    """Second derivatives xx, xy, yy of the potential of an NFW halo."""
    x, y, r_s, alpha_rs = centred(x, y, r_s, alpha_rs, x_0, y_0)
    _, density, mean = _profile(_radius(x, y, r_s))
    kappa = alpha_rs / (2 * NORM * r_s) * density
    tangential = (alpha_rs / (NORM * r_s) * mean - kappa) / safe_divisor(x * x + y * y)
    gamma1, gamma2 = (y * y - x * x) * tangential, -2 * x * y * tangential
    return kappa + gamma1, gamma2, kappa - gamma1


def _add_nfw_hessian(
    xx: Tensor, xy: Tensor, yy: Tensor, x: Tensor, y: Tensor, *numbers: float, alpha: Pair | None = None
) -> None:
    """Add `nfw_hessian` for numbers in place, and the deflection to ``alpha``."""
    r_s, alpha_rs, x_0, y_0 = numbers
    x, y, scale = x - x_0, y - y_0, alpha_rs / (NORM * r_s)
    square = plain_square(x, y, r_s)
    mean, f, _ = plain_profile(square, whole=True)
    if alpha is not None:
        alpha[0].addcmul_(x, mean, value=scale)
        alpha[1].addcmul_(y, mean, value=scale)
    kappa = _plain_density(square, f).mul_(scale / 2)
    # Over r^2 in arcsec2, in which it has no unit.
    tangential = mean.mul_(scale).sub_(kappa).div_(square).mul_(1 / r_s**2)
    gamma1 = (y * y).addcmul_(x, x, value=-1).mul_(tangential)
    xx.add_(kappa).add_(gamma1)
    xy.addcmul_(torch.mul(x, y), tangential, value=-2)
    yy.add_(kappa).sub_(gamma1)


def _plain_density(square: Tensor, f: Tensor) -> Tensor:
    """The second of `_profile` of numbers x^2 and of the first: of that, but where it cancels."""
    less = square - 1
    density = torch.rsub(f, 1).div_(less)
    close = (less.abs_() < CLOSE).nonzero()[:, 0]
    if len(close):
        density[close] = _profile(torch.sqrt(square[close]))[1]
    return density


def _radius(x: Tensor, y: Tensor, r_s: Tensor) -> Tensor:
    return torch.sqrt((x * x + y * y).clamp_min(CORE**2)) / r_s


def _log_half(radius: Tensor) -> Tensor:
    """ln((1 + sqrt(1 - x^2)) / 2), precise for small x."""
    square = radius * radius
    return torch.log1p(-square / (2 * (1 + torch.sqrt(1 - square))))


def _profile(radius: Tensor) -> Triple:
    """F = arcosh(1/x) / sqrt(1 - x^2), F = (1 - f) / (x^2 - 1) and (ln(x / 2) + f) / x^2.

    They are continued beyond x = 1. F is the surface density, the last one the mean inside x.
    """
    inside = radius < INNER
    inner = _inner_profile(radius.where(inside, INNER / 2))
    x = radius.where(~inside, 1.0)
    tangent, smooth = _tangent_series((1 - x) / (1 + x))
    ratio = 2 / (1 + x) * tangent
    outer = ratio, smooth / (1 + x) ** 2, (torch.log(x / 2) + ratio) / (x * x)
    f, density, mean = (torch.where(inside, a, b) for a, b in zip(inner, outer, strict=True))
    return f, density, mean


def _inner_profile(x: Tensor) -> Triple:
    """`_profile` for small x: its mean without cancellation towards the centre."""
    root, logarithm, half = torch.sqrt(1 - x * x), torch.log(2 / x), _log_half(x)
    ratio = (logarithm + half) / root
    return ratio, (ratio - 1) / (1 - x * x), logarithm / (root * (1 + root)) + half / (root * x * x)


def _tangent_series(z: Tensor) -> Pair:
    """T(z) = artanh(sqrt z) / sqrt z, arctan(sqrt -z) / sqrt -z below 0; and ((1 + z) T - 1) / z.

    The second is F (1 + x)^2, smooth through x = 1 at z = 0.
    """
    near = z.abs() < SERIES_RANGE
    inner = z.where(near, 0.0)
    t, g = torch.zeros_like(z), torch.zeros_like(z)
    for k in reversed(range(SERIES_TERMS)):
        t = 1 / (2 * k + 1) + inner * t
        g = 1 / (2 * k + 1) + 1 / (2 * k + 3) + inner * g
    positive = torch.sqrt(z.where(z >= SERIES_RANGE, 0.25))
    negative = torch.sqrt((-z).where(z <= -SERIES_RANGE, 0.25))
    far = torch.where(z > 0, torch.atanh(positive) / positive, torch.atan(negative) / negative)
    tangent = torch.where(near, t, far)
    return tangent, torch.where(near, g, ((1 + z) * tangent - 1) / z.where(~near, 1.0))


def plain_square(x: Tensor, y: Tensor, r_s: float) -> Tensor:
    """Squared radius in scale radii, which is not 0 in the centre."""
    scale = 1 / r_s**2
    return torch.addcmul(x.new_tensor(VANISHING), x, x, value=scale).addcmul_(y, y, value=scale)


def plain_profile(square: Tensor, *, whole: bool = False) -> list[Tensor]:
    """The last of `_profile` of numbers x^2, each branch only where it is needed.

    If ``whole``, also the first of `_profile`, and ln(x / 2).
    """
    if not len(square) or square.max() < NEAR:
        return _inside(square, whole)
    near, far = square < NEAR, square >= 1
    if far.all():
        return _outside(square, whole)
    results = [torch.empty_like(square) for _ in range(3 if whole else 1)]
    for where, branch in ((near, _inside), (~(near | far), _around), (far, _outside)):
        index = where.nonzero()[:, 0]
        if len(index):
            for result, part in zip(results, branch(square[index], whole), strict=True):
                result[index] = part
    return results


def _inside(square: Tensor, whole: bool) -> list[Tensor]:
    """With w = (1 + s) / 2, s = sqrt(1 - x^2), the mean is -(2 ln(x / 2) + ln(w) / (w - 1)) / (4 w s).

    Of a w that is rounded, but not to 1, ln(w) / (w - 1) is right to rounding.
    """
    root = kernels.in_place("sqrt", 1 - square).clamp_max_(1 - 2 * torch.finfo(square.dtype).eps)
    w = torch.add(root.new_tensor(0.5), root, alpha=0.5)
    half, logarithm = kernels.in_place("log", w.clone()), _log_of_half(square)
    f = [torch.sub(half, logarithm).div_(root), logarithm] if whole else []
    root.mul_(w).mul_(-4)
    return [half.div_(w.sub_(1)).add_(logarithm, alpha=2).div_(root), *f]


def _around(square: Tensor, whole: bool) -> list[Tensor]:
    root = torch.sqrt((1 - square).clamp_min_(TINY))
    f, logarithm = torch.atanh(root).div_(root), _log_of_half(square)
    return [(logarithm + f).div_(square), f, logarithm][: 3 if whole else 1]


def _outside(square: Tensor, whole: bool) -> list[Tensor]:
    root = kernels.in_place("sqrt", (square - 1).clamp_min_(TINY))
    f, logarithm = kernels.in_place("arctan", root.clone()).div_(root), _log_of_half(square)
    return [(logarithm + f).div_(square), f, logarithm][: 3 if whole else 1]


def _log_of_half(square: Tensor) -> Tensor:
    """ln(x / 2) of x^2."""
    return kernels.in_place("log", square * 0.25).mul_(0.5)


class NFW(MassModel):
    """Navarro-Frenk-White halo, spherical.

    Parameters
    ----------
    r_s : float or `~astropy.units.Quantity`
        Scale radius, in arcsec.
    alpha_rs : float or `~astropy.units.Quantity`
        Deflection at the scale radius, in arcsec.
    x_0, y_0 : float or `~astropy.units.Quantity`, optional
        Centre, in arcsec; default 0.

    Examples
    --------
    >>> from lenssr.mass import NFW
    >>> NFW(5.0, 1.0).deflection(3.0, 4.0)
    (0.6, 0.8)
    """

    r_s = Parameter("scale radius", unit=u.arcsec, limits=(0, math.inf))
    alpha_rs = Parameter("deflection at the scale radius", unit=u.arcsec, limits=(0, math.inf))
    x_0, y_0 = centre()
    _potential = staticmethod(nfw_potential)
    _deflection = staticmethod(nfw_deflection)
    _add_deflection = staticmethod(_add_nfw)
    _add_hessian = staticmethod(_add_nfw_hessian)
    _hessian = staticmethod(nfw_hessian)

    def __init__(self, r_s: Length, alpha_rs: Length, x_0: Length = 0.0, y_0: Length = 0.0) -> None:
        super().__init__(r_s=r_s, alpha_rs=alpha_rs, x_0=x_0, y_0=y_0)

    @classmethod
    def from_mass(
        cls,
        m200: Length,
        concentration: float,
        z_lens: float,
        z_source: float,
        *,
        cosmology: Cosmology = None,
        **values: Length,
    ) -> Self:
        """Make the halo of a given mass and concentration.

        Parameters
        ----------
        m200 : `~astropy.units.Quantity` or float
            Mass inside the radius of 200 times the critical density at the lens; a bare number is in solar
            masses.
        concentration : float
            Ratio of this radius and the scale radius.
        z_lens, z_source : float
            Redshifts, 0 < z_lens < z_source.
        cosmology : `~astropy.cosmology.FLRW`, optional
            By default astropy's ``Planck18``.
        **values
            The centre.
        """
        return cls(*nfw_from_mass(m200, concentration, z_lens, z_source, cosmology=cosmology), **values)
