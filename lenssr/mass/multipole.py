"""Multipoles: deviations of isothermal lenses from circles and from ellipses."""

import cmath
from typing import Any, Self

import astropy.units as u
import torch
from torch import Tensor

from lenssr.mass import kernels
from lenssr.mass.base import MassModel
from lenssr.mass.kernels import CORE, Pair, Real, Triple, centred, lift, safe_divisor, times
from lenssr.mass.parameter import EllipticalMixin, Length, Parameter, centre, ellipticities, shape
from lenssr.units import positive_integer, strip_unit

__all__ = ["EllipticalMultipole", "Multipole"]


def multipole_potential(x: Tensor, y: Tensor, m: int, *params: Real) -> Tensor:
    """Potential of an elliptical multipole in arcsec2; parameters a1, a2, e1, e2, x_0, y_0."""
    x, y, a1, a2, e1, e2 = centred(x, y, *params)
    ax, ay = _deflection(x, y, m, a1, a2, e1, e2)
    potential = x * ax + y * ay
    if m % 2 == 0:
        return potential
    # A potential r ln(r) cos(phi) has the deflection times r less its own part r cos(phi).
    cx, cy = _resonance(m, a1, a2, e1, e2)
    return potential - cx * x - cy * y


def multipole_deflection(x: Tensor, y: Tensor, m: int, *params: Real) -> Pair:
    """Deflection by an elliptical multipole in arcsec.

    With n, zeta and e as for the `SIE`, a = a1 + i a2 and kappa = Re(conj(a) n^m) / 2R, R = abs(zeta) /
    sqrt(1 - e^2), the deflection alpha depends on the angle theta of n alone: d alpha / d theta = i sqrt(1 -
    e^2) Re(conj(a) n^m) n / (1 - v), v = -conj(e) n^2. So it is sqrt(1 - e^2) / 2 times the sum over k of
    conj(a) v^k n^(m+1) / (m + 1 + 2k) + a v^k n^(1-m) / (1 - m + 2k). If m is odd the term with 1 - m + 2k =
    0 is kappa = Re(conj(c) w) / abs(w)^2 and deflects by c (1/2 + ln(r) + i (theta - phi)) / 2, phi the angle
    of w: Paugnat & Gilman 2025, arXiv:2502.03530.
    """
    x, y, *lifted = lift(x, y, *params)

    def formula(x: Tensor, y: Tensor, *params: Tensor) -> Pair:
        x, y, *others = centred(x, y, *params)
        return _deflection(x, y, m, *others)

    return kernels.in_blocks(formula, x, y, *lifted)


def _unit(x: Tensor, y: Tensor) -> Pair:
    """Unit vector, 0 at the centre."""
    inverse = torch.rsqrt(safe_divisor(x * x + y * y))
    return x * inverse, y * inverse


def _power(x: Tensor, y: Tensor, m: int) -> Pair:
    """Complex power m > 0."""
    px, py = (x, y) if m % 2 else (torch.ones_like(x), torch.zeros_like(y))
    while m := m // 2:
        x, y = x * x - y * y, 2 * x * y
        if m % 2:
            px, py = times(px, py, x, y)
    return px, py


def _resonance(m: int, a1: Tensor, a2: Tensor, e1: Tensor, e2: Tensor) -> Pair:
    """Half of c, for odd m: sqrt(1 - e^2) / 2 times a (-conj(e))^((m - 1) / 2)."""
    cx, cy = a1, a2
    for _ in range((m - 1) // 2):
        cx, cy = times(cx, cy, -e1, e2)
    half = torch.sqrt(1 - e1 * e1 - e2 * e2) / 2
    return half * cx, half * cy


def _deflection(x: Tensor, y: Tensor, m: int, a1: Tensor, a2: Tensor, e1: Tensor, e2: Tensor) -> Pair:
    zx, zy = kernels.elliptical(x, y, e1, e2)
    nx, ny = _unit(zx, zy)
    px, py = _power(nx, ny, m - 1) if m > 1 else (torch.ones_like(nx), torch.zeros_like(ny))
    qx, qy = times(*times(px, py, nx, ny), nx, ny)
    largest = kernels.e_range(e1, e2)[1]
    flat = largest > 0 or kernels.tracked(e1, e2)
    number = (m - 1) // 2 + kernels.number_of_terms(largest, x.dtype) if flat else 1
    up = [1 / (m + 1 + 2 * k) for k in range(number)]
    down = [1 / (1 - m + 2 * k) if 1 - m + 2 * k else 0.0 for k in range(number)]
    re, im, square = kernels.argument(nx, ny, e1, e2)
    # conj(a) n^(m+1) and a n^(1-m)
    ux, uy = times(a1, -a2, qx, qy)
    lx, ly = times(a1, a2, px, -py)
    if flat:
        ux, uy = times(ux, uy, *kernels.power_series(up, re, im, square))
        lx, ly = times(lx, ly, *kernels.power_series(down, re, im, square))
    else:
        ux, uy, lx, ly = up[0] * ux, up[0] * uy, down[0] * lx, down[0] * ly
    half = torch.sqrt(1 - square) / 2
    ax, ay = half * (ux + lx), half * (uy + ly)
    if m % 2 and (flat or m == 1):
        # ln(r) + i (theta - phi) is the conjugate of ln(w conj(n)).
        lx, ly = times(x, y, nx, -ny)
        modulus = torch.log((x * x + y * y).clamp_min(CORE**2)) / 2
        angle = torch.atan2(ly, lx + (lx == 0))
        cx, cy = times(*_resonance(m, a1, a2, e1, e2), modulus + 0.5, -angle)
        ax, ay = ax + cx, ay + cy
    return ax, ay


def multipole_hessian(x: Tensor, y: Tensor, m: int, *params: Real) -> Triple:
    """Second derivatives xx, xy, yy of the potential of an elliptical multipole.

    The shear is -kappa w / conj(w), as for every potential of degree 1, and c e^(i phi) / 2r from the term of
    r ln(r).
    """
    x, y, a1, a2, e1, e2 = centred(x, y, *params)
    zx, zy = kernels.elliptical(x, y, e1, e2)
    nx, ny = _unit(zx, zy)
    px, py = _power(nx, ny, m)
    square = (zx * zx + zy * zy) / (1 - e1 * e1 - e2 * e2)
    kappa = (a1 * px + a2 * py) / 2 * torch.rsqrt(square.clamp_min(CORE**2))
    inverse = 1 / safe_divisor(x * x + y * y)
    gamma1, gamma2 = (y * y - x * x) * inverse * kappa, -2 * x * y * inverse * kappa
    if m % 2:
        cx, cy = times(*_resonance(m, a1, a2, e1, e2), x * inverse, y * inverse)
        gamma1, gamma2 = gamma1 + cx, gamma2 + cy
    return kappa + gamma1, gamma2, kappa - gamma1


class _OfOrder(MassModel):
    """A multipole of an order m."""

    m: int

    def _round(self, params: tuple[Any, ...]) -> tuple[Any, ...]:
        """Parameters of the pure functions."""
        return params

    def _potential(self, x: Tensor, y: Tensor, *params: Real) -> Tensor:
        return multipole_potential(x, y, self.m, *self._round(params))

    def _deflection(self, x: Tensor, y: Tensor, *params: Real) -> Pair:
        return multipole_deflection(x, y, self.m, *self._round(params))

    def _hessian(self, x: Tensor, y: Tensor, *params: Real) -> Triple:
        return multipole_hessian(x, y, self.m, *self._round(params))

    @classmethod
    def from_amplitude(cls, m: int, a_m: Length, phi_m: u.Quantity, **values: Length) -> Self:
        """Make a multipole from its strength and direction.

        Parameters
        ----------
        m : int
            Order.
        a_m : float or `~astropy.units.Quantity`
            Strength, in arcsec.
        phi_m : `~astropy.units.Quantity`
            Angle of a direction in which mass is added, counter-clockwise from +x.
        **values
            The other parameters, as for the class.
        """
        a = strip_unit(a_m, u.arcsec, "a_m") * cmath.exp(
            1j * m * strip_unit(phi_m, u.rad, "phi_m", bare=False)
        )
        build: Any = cls
        return build(m, a.real, a.imag, **values)

    def __repr__(self) -> str:
        return super().__repr__().replace("(", f"(m={self.m}, ", 1)


class Multipole(_OfOrder):
    """Multipole of order m of an isothermal lens: kappa = a_m / 2r cos(m (phi - phi_m)).

    Parameters
    ----------
    m : int
        Order, at least 1: 3 for a triangle, 4 for a box or a disc.
    a1, a2 : float or `~astropy.units.Quantity`
        Strength a_m times cos(m phi_m) and sin(m phi_m), in arcsec; in units of the Einstein radius it is the
        relative amplitude of the deviation of isodensity contours.
    x_0, y_0 : float or `~astropy.units.Quantity`, optional
        Centre, in arcsec; default 0.

    References
    ----------
    .. [1] Xu et al. 2015, MNRAS 447, 3189, equation B12

    Examples
    --------
    >>> from lenssr.mass import SIE, Multipole
    >>> boxy = SIE(1.2, e1=0.1) + Multipole(4, -0.02, 0.0)
    >>> boxy.convergence(1.0, 0.0)
    0.6533250
    """

    a1 = Parameter("strength along the axes", unit=u.arcsec)
    a2 = Parameter("strength between the axes", unit=u.arcsec)
    x_0, y_0 = centre()

    def __init__(self, m: int, a1: Length, a2: Length, x_0: Length = 0.0, y_0: Length = 0.0) -> None:
        self.m = positive_integer(m, "m")
        super().__init__(a1=a1, a2=a2, x_0=x_0, y_0=y_0)

    def _round(self, params: tuple[Any, ...]) -> tuple[Any, ...]:
        a1, a2, x_0, y_0 = params
        return a1, a2, 0.0, 0.0, x_0, y_0


class EllipticalMultipole(EllipticalMixin, _OfOrder):
    """Multipole of order m of an isothermal ellipsoid: kappa = a_m / 2R cos(m (theta - theta_m)).

    R is the elliptical radius sqrt(q x^2 + y^2 / q) along the axes, and theta the angle of (q x, y) there,
    turned back into the frame of the image: contours deviate from the ellipse of the `SIE`, not from a
    circle.

    Parameters
    ----------
    m : int
        Order, at least 1.
    a1, a2 : float or `~astropy.units.Quantity`
        Strength a_m times cos(m theta_m) and sin(m theta_m), in arcsec.
    e1, e2 : float, optional
        Ellipticity, (1 - q) / (1 + q) times cos(2 phi) and sin(2 phi); default 0.
    q, phi : float and `~astropy.units.Quantity`, optional
        Minor over major axis, and the angle of the major axis counter-clockwise from +x, instead of e1, e2.
    x_0, y_0 : float or `~astropy.units.Quantity`, optional
        Centre, in arcsec; default 0.

    Notes
    -----
    For odd m the deflection grows as ln(r), r in arcsec, around an ellipse; an unobservable constant is
    chosen.

    References
    ----------
    .. [1] Paugnat & Gilman 2025, arXiv:2502.03530

    Examples
    --------
    >>> from lenssr.mass import SIE, EllipticalMultipole
    >>> discy = SIE(1.2, e1=0.1) + EllipticalMultipole(4, 0.02, 0.0, e1=0.1)
    >>> discy.convergence(1.0, 0.0)
    0.6743804
    """

    a1 = Parameter("strength along the axes", unit=u.arcsec)
    a2 = Parameter("strength between the axes", unit=u.arcsec)
    e1, e2 = ellipticities()
    x_0, y_0 = centre()

    def __init__(
        self,
        m: int,
        a1: Length,
        a2: Length,
        e1: float = 0.0,
        e2: float = 0.0,
        x_0: Length = 0.0,
        y_0: Length = 0.0,
        *,
        q: float | None = None,
        phi: u.Quantity | None = None,
    ) -> None:
        self.m = positive_integer(m, "m")
        super().__init__(a1=a1, a2=a2, **shape(e1, e2, q, phi), x_0=x_0, y_0=y_0)
