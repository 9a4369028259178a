"""The Navarro-Frenk-White halo with an elliptical mass."""

import math
from functools import cache
from typing import Any, Self

import astropy.units as u
import torch
from torch import Tensor

from lenssr.cosmology import Cosmology, nfw_from_mass
from lenssr.mass import kernels
from lenssr.mass.base import MassModel
from lenssr.mass.homoeoids import elliptical_radius_squared
from lenssr.mass.kernels import CORE, Pair, Real, Triple, centred, lift, times
from lenssr.mass.nfw import NORM, _profile
from lenssr.mass.parameter import EllipticalMixin, Length, Parameter, centre, ellipticities, shape

__all__ = ["EllipticalNFW"]

STEP, STRETCH, SMALLEST, LARGEST = 0.38, 15.0, -21.0, 19.0
"""Step of the sum over cores, and its range in ln(core / r_s); steps grow where cores matter little. Chosen
for errors below 1e-9 of the deflection at r_s, and of the shear there down to a thousandth of r_s."""


@cache
def _cores() -> list[tuple[float, float]]:
    """Core radii s in scale radii, and weights A, of the steep ellipsoids that make up a halo.

    1 / (r (1 + r)^2) is the integral of (4 / pi) s^2 / (1 + s^2) / (s^2 + r^2)^2 ds, so that the surface
    density F(m) is that of s^2 / (1 + s^2) / (s^2 + m^2)^(3/2) ds. The trapezoidal rule in ln(s) converges
    exponentially, because the singularities of the integrand lie at s = +-i and +-i m.
    """
    first, last = (math.floor(STRETCH * math.asinh(end / STRETCH) / STEP) for end in (SMALLEST, LARGEST))
    found = []
    for k in range(first, last + 1):
        s = math.exp(STRETCH * math.sinh(k * STEP / STRETCH))
        found.append((s, STEP * math.cosh(k * STEP / STRETCH) * s**3 / (1 + s * s)))
    return found


def ellipsoids() -> list[tuple[float, float]]:
    """Core radii s and strengths a of the ellipsoids that make up a halo with r_s = alpha_rs = 1.

    Their convergence is a / (2 (s^2 + m^2)^(3/2)).
    """
    return [(s, weight / NORM) for s, weight in _cores()]


def _scaled(x: Tensor, y: Tensor, r_s: Tensor, e1: Tensor, e2: Tensor) -> tuple[Tensor, ...]:
    """Position w and omega in scale radii, their squares r^2 and m^2, and q + 1 / q."""
    x, y = x / r_s, y / r_s
    square = e1 * e1 + e2 * e2
    rest = 1 - square
    ox = ((1 + square) * x - 2 * (e1 * x + e2 * y)) / rest
    oy = ((1 + square) * y - 2 * (e2 * x - e1 * y)) / rest
    return x, y, ox, oy, x * x + y * y, x * ox + y * oy, 2 * (1 + square) / rest


def elliptical_nfw_potential(
    x: Tensor, y: Tensor, r_s: Tensor, alpha_rs: Tensor, e1: Tensor, e2: Tensor, x_0: Real, y_0: Real
) -> Tensor:
    """Potential of an elliptical NFW halo in arcsec2, 0 at the centre, positions in arcsec."""
    x, y, r_s, alpha_rs, e1, e2 = centred(x, y, r_s, alpha_rs, e1, e2, x_0, y_0)
    *_, r_square, m_square, sum_q = _scaled(x, y, r_s, e1, e2)
    total = torch.zeros_like(m_square)
    for s, weight in _cores():
        # R - s without cancellation.
        less = m_square / (torch.sqrt(m_square + s * s) + s)
        total = total + weight / s * torch.log1p((r_square + 2 * s * less) / (s * s * (sum_q + 2)))
    return alpha_rs * r_s / (2 * NORM) * total


def elliptical_nfw_deflection(
    x: Tensor, y: Tensor, r_s: Tensor, alpha_rs: Tensor, e1: Tensor, e2: Tensor, x_0: Real, y_0: Real
) -> Pair:
    """Deflection by an elliptical NFW halo in arcsec.

    With w the position from the centre, omega half the gradient of m^2, R^2 = s^2 + m^2 and Psi = r^2 + 2 s R
    + s^2 (q + 1/q), the convergence 1 / (2 R^3) deflects by (w / s + omega / R) / Psi: Keeton & Kochanek
    1998, ApJ 495, 157, and Oguri 2021, PASP 133, 074504, whose fitted sum of such terms is an exact one here.
    """
    x, y, *params = lift(x, y, r_s, alpha_rs, e1, e2, x_0, y_0)
    numbers = kernels.plain_numbers(x, y, *params)
    if numbers is not None:
        return kernels.sum_in_blocks(x, y, (_add_elliptical_nfw, numbers))
    x, y, r_s, alpha_rs, e1, e2 = centred(x, y, *params)
    x, y, ox, oy, r_square, m_square, sum_q = _scaled(x, y, r_s, e1, e2)
    along, across = torch.zeros_like(m_square), torch.zeros_like(m_square)
    for s, weight in _cores():
        radius = torch.sqrt(m_square + s * s)
        share = weight / (r_square + 2 * s * radius + s * s * sum_q)
        along, across = along + share / s, across + share / radius
    scale = alpha_rs / NORM
    return scale * (x * along + ox * across), scale * (y * along + oy * across)


def _add_elliptical_nfw(ax: Tensor, ay: Tensor, x: Tensor, y: Tensor, *numbers: float) -> None:
    """Add `elliptical_nfw_deflection` for numbers in place."""
    r_s, alpha_rs, e1, e2, x_0, y_0 = (x.new_tensor(number) for number in numbers)
    x, y, ox, oy, r_square, m_square, sum_q = _scaled(x - x_0, y - y_0, r_s, e1, e2)
    along, across = torch.zeros_like(x), torch.zeros_like(x)
    square, flat, psi, one, both = *(torch.empty_like(x) for _ in range(3)), torch.ones_like(x), float(sum_q)
    for s, weight in _cores():
        # The inverse root takes a third of the time of the root.
        torch.rsqrt(torch.add(m_square, s * s, out=square), out=flat)
        torch.add(r_square, square.mul_(flat), alpha=2 * s, out=psi).add_(s * s * both)
        along.addcdiv_(one, psi, value=weight / s)
        across.addcdiv_(flat, psi, value=weight)
    scale = numbers[1] / NORM
    ax.addcmul_(x, along, value=scale).addcmul_(ox, across, value=scale)
    ay.addcmul_(y, along, value=scale).addcmul_(oy, across, value=scale)


def elliptical_nfw_hessian(
    x: Tensor, y: Tensor, r_s: Tensor, alpha_rs: Tensor, e1: Tensor, e2: Tensor, x_0: Real, y_0: Real
) -> Triple:
    """Second derivatives xx, xy, yy of the potential of an elliptical NFW halo.

    The convergence is that of the `NFW` at the elliptical radius; the shear follows from the sum.
    """
    x, y, r_s, alpha_rs, e1, e2 = centred(x, y, r_s, alpha_rs, e1, e2, x_0, y_0)
    radius = torch.sqrt(elliptical_radius_squared(x, y, e1, e2).clamp_min(CORE**2)) / r_s
    scale = alpha_rs / (NORM * r_s)
    kappa = scale / 2 * _profile(radius)[1]
    x, y, ox, oy, r_square, m_square, sum_q = _scaled(x, y, r_s, e1, e2)
    twist, wide, mixed, narrow = (torch.zeros_like(m_square) for _ in range(4))
    for s, weight in _cores():
        radius = torch.sqrt(m_square + s * s)
        inverse, flat = 1 / (r_square + 2 * s * radius + s * s * sum_q), 1 / radius
        share = weight * inverse * flat
        twist = twist + share
        wide = wide - weight / s * inverse * inverse
        mixed = mixed - share * inverse
        narrow = narrow - share * flat * (flat / 2 + s * inverse)
    tilt = -2 / (1 - e1 * e1 - e2 * e2) * twist
    gamma1 = tilt * e1 + wide * (x * x - y * y) + 2 * mixed * (x * ox - y * oy) + narrow * (ox * ox - oy * oy)
    cross = times(x, y, ox, oy)[1]
    gamma2 = tilt * e2 + 2 * (wide * x * y + mixed * cross + narrow * ox * oy)
    gamma1, gamma2 = scale * gamma1, scale * gamma2
    return kappa + gamma1, gamma2, kappa - gamma1


class EllipticalNFW(EllipticalMixin, MassModel):
    """Navarro-Frenk-White halo whose convergence is constant on ellipses.

    Its convergence is that of the `NFW` with sqrt(q x^2 + y^2 / q) in place of the radius, so that the mass
    inside an ellipse does not depend on its axis ratio q.

    Parameters
    ----------
    r_s : float or `~astropy.units.Quantity`
        Scale radius on the intermediate axis, in arcsec.
    alpha_rs : float or `~astropy.units.Quantity`
        Deflection at the scale radius if the halo were round, in arcsec.
    e1, e2 : float, optional
        Ellipticity, (1 - q) / (1 + q) times cos(2 phi) and sin(2 phi); default 0.
    q, phi : float and `~astropy.units.Quantity`, optional
        Minor over major axis, and the angle of the major axis counter-clockwise from +x, instead of e1, e2.
    x_0, y_0 : float or `~astropy.units.Quantity`, optional
        Centre, in arcsec; default 0.

    Notes
    -----
    Deflection and potential are a sum over 87 elliptical components with a core, whose weights are those of
    an integral that is exact; it is right to 1e-9 of ``alpha_rs``. The convergence is a closed form.

    Examples
    --------
    >>> from lenssr.mass import EllipticalNFW
    >>> EllipticalNFW(5.0, 1.0).deflection(3.0, 4.0)
    (0.6, 0.8)
    >>> EllipticalNFW(5.0, 1.0, e1=0.2).convergence(1.0, 0.5)
    0.4490291
    """

    r_s = Parameter("scale radius, intermediate axis", unit=u.arcsec, limits=(0, math.inf))
    alpha_rs = Parameter("deflection at the scale radius if round", unit=u.arcsec, limits=(0, math.inf))
    e1, e2 = ellipticities()
    x_0, y_0 = centre()
    _potential = staticmethod(elliptical_nfw_potential)
    _deflection = staticmethod(elliptical_nfw_deflection)
    _add_deflection = staticmethod(_add_elliptical_nfw)
    _hessian = staticmethod(elliptical_nfw_hessian)

    def __init__(
        self,
        r_s: Length,
        alpha_rs: Length,
        e1: float = 0.0,
        e2: float = 0.0,
        x_0: Length = 0.0,
        y_0: Length = 0.0,
        *,
        q: float | None = None,
        phi: u.Quantity | None = None,
    ) -> None:
        super().__init__(r_s=r_s, alpha_rs=alpha_rs, **shape(e1, e2, q, phi), x_0=x_0, y_0=y_0)

    def _described(self) -> dict[str, Any]:
        """Numbers by name, and the ellipsoids with a core that lenstronomy is told."""
        return {**super()._described(), "ellipsoids": ellipsoids()}

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
            Mass inside the radius of 200 times the critical density at the lens, if the halo is round; a bare
            number is in solar masses.
        concentration : float
            Ratio of this radius and the scale radius.
        z_lens, z_source : float
            Redshifts, 0 < z_lens < z_source.
        cosmology : `~astropy.cosmology.FLRW`, optional
            By default astropy's ``Planck18``.
        **values
            Ellipticity and centre.
        """
        return cls(*nfw_from_mass(m200, concentration, z_lens, z_source, cosmology=cosmology), **values)
