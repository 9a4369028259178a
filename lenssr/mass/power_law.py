"""The elliptical power law (EPL)."""

import math
from collections.abc import Sequence
from typing import Any

import astropy.units as u
import torch
from torch import Tensor

from lenssr.mass import kernels
from lenssr.mass.base import MassModel
from lenssr.mass.kernels import CORE, Pair, Real, Triple, WithJacobian, centred, lift, safe_divisor, times
from lenssr.mass.parameter import EllipticalMixin, Length, Parameter, centre, ellipticities, shape

__all__ = ["EPL"]


def epl_potential(
    x: Tensor, y: Tensor, theta_E: Tensor, gamma: Tensor, e1: Tensor, e2: Tensor, x_0: Tensor, y_0: Tensor
) -> Tensor:
    """Potential of an elliptical power law in arcsec2, positions in arcsec."""
    x, y, theta_E, gamma, e1, e2 = centred(x, y, theta_E, gamma, e1, e2, x_0, y_0)
    ax, ay = epl_deflection(x, y, theta_E, gamma, e1, e2, 0.0, 0.0)
    return (x * ax + y * ay) / (3 - gamma)


def epl_deflection(
    x: Tensor, y: Tensor, theta_E: Tensor, gamma: Tensor, e1: Tensor, e2: Tensor, x_0: Real, y_0: Real
) -> Pair:
    """Deflection by an elliptical power law in arcsec.

    With w the position from the centre, zeta = w - e conj(w), n = zeta / abs(zeta), t = gamma - 1 and s =
    theta_E sqrt(1 - e^2), it is s (s / abs(zeta))^(t - 1) n 2F1(1, t/2; 2 - t/2; -conj(e) n^2): Tessore &
    Metcalf 2015, A&A 580, A79, equation 13.
    """
    x, y, *params = lift(x, y, theta_E, gamma, e1, e2, x_0, y_0)
    numbers = kernels.plain_numbers(x, y, *params)
    if numbers is not None:
        return kernels.sum_in_blocks(x, y, (_add_epl, numbers))
    x, y, theta_E, gamma, e1, e2 = centred(x, y, *params)
    nx, ny, argument = _epl_geometry(x, y, theta_E, gamma, e1, e2)
    coefficients = _coefficients(gamma - 1, kernels.number_of_terms(kernels.e_range(e1, e2)[1], x.dtype))
    return times(nx, ny, *kernels.power_series(coefficients, *argument))


def _coefficients(t: Any, number: int) -> list[Any]:
    """Taylor coefficients of 2F1(1, t/2; 2 - t/2; z); t is a number or a tensor."""
    coefficients = [1 + 0 * t]
    for k in range(number - 1):
        coefficients.append(coefficients[-1] * (t / 2 + k) / (2 - t / 2 + k))
    return coefficients


def _epl_geometry(
    x: Tensor, y: Tensor, theta_E: Tensor, gamma: Tensor, e1: Tensor, e2: Tensor
) -> tuple[Tensor, Tensor, Triple]:
    """S (s / |zeta|)^(t - 1) n, and the argument -conj(e) n^2 of the hypergeometric function."""
    zx, zy = kernels.elliptical(x, y, e1, e2)
    z_square = zx * zx + zy * zy
    inverse = torch.rsqrt(safe_divisor(z_square))
    nx, ny = zx * inverse, zy * inverse
    argument = kernels.argument(nx, ny, e1, e2)
    s = theta_E * torch.sqrt(1 - argument[2])
    strength = s * (s * s / z_square.clamp_min(CORE**2)) ** (gamma / 2 - 1)
    return strength * nx, strength * ny, argument


def _add_epl(ax: Tensor, ay: Tensor, x: Tensor, y: Tensor, *numbers: float) -> None:
    """Add `epl_deflection` for numbers in place; the modulus of e is factored out of the recurrence."""
    theta_E, gamma, e1, e2, x_0, y_0 = numbers
    e, t = math.hypot(e1, e2), gamma - 1
    x, y = x - x_0, y - y_0
    zx, zy = x * (1 - e1), y * (1 + e1)
    zx.sub_(y, alpha=e2)
    zy.sub_(x, alpha=e2)
    radius = torch.mul(zx, zx, out=x).addcmul_(zy, zy)
    radius = torch.threshold_(radius, CORE**2, math.inf)
    scale = (theta_E * math.sqrt(1 - e * e)) ** t
    strength = torch.rsqrt(radius) if t == 1 else torch.pow(radius, -t / 2)
    strength.mul_(scale)
    if e < 1e-15:
        ax.addcmul_(zx, strength)
        ay.addcmul_(zy, strength)
        return
    # Twice the cosine and sine of the phase of conj(e) n^2.
    inverse = radius.reciprocal_()
    cross = torch.mul(zx, zy, out=y).mul_(inverse).mul_(4)
    along = (zx + zy).mul_(zx - zy).mul_(inverse).mul_(2)
    cos = torch.mul(along, e1 / e, out=inverse).add_(cross, alpha=e2 / e)
    sin = cross.mul_(e1 / e).sub_(along, alpha=e2 / e)
    first, second = _unit_series(_coefficients(t, kernels.number_of_terms(e, x.dtype)), -e, cos)
    fx = first.addcmul_(cos, second, value=-0.5)
    fy = second.mul_(sin).mul_(0.5)
    ax.addcmul_(torch.mul(zx, fx, out=cos).addcmul_(zy, fy, value=-1), strength)
    ay.addcmul_(fy.mul_(zx).addcmul_(zy, fx), strength)


def _unit_series(coefficients: Sequence[float], modulus: float, twice: Tensor) -> Pair:
    """Last two terms of Clenshaw's recurrence for sum a_k modulus^k v^k, abs(v) = 1, twice = 2 Re(v).

    b_k = c_k + twice b_(k+1) - b_(k+2) is done in place on d_k = +-b_k with signs + + - - in turn, which make
    the last term positive.
    """
    signs = (1, 1, -1, -1)
    last, before = torch.zeros_like(twice), torch.zeros_like(twice)
    for k in reversed(range(len(coefficients))):
        before.addcmul_(twice, last, value=(-1) ** k).add_(signs[k % 4] * coefficients[k] * modulus**k)
        last, before = before, last
    return last, before


def epl_hessian(
    x: Tensor, y: Tensor, theta_E: Tensor, gamma: Tensor, e1: Tensor, e2: Tensor, x_0: Tensor, y_0: Tensor
) -> Triple:
    """Second derivatives xx, xy, yy of the potential of an elliptical power law.

    The convergence is (2 - t)/2 (s / abs(zeta))^t, capped inside 1e-9 arcsec. The deflection is homogeneous
    of degree 1 - t, which makes the shear ((1 - t) alpha - kappa w) / conj(w).
    """
    x, y, theta_E, gamma, e1, e2 = centred(x, y, theta_E, gamma, e1, e2, x_0, y_0)
    ax, ay = epl_deflection(x, y, theta_E, gamma, e1, e2, 0.0, 0.0)
    zx, zy = kernels.elliptical(x, y, e1, e2)
    s_square = theta_E * theta_E * (1 - e1 * e1 - e2 * e2)
    kappa = (3 - gamma) / 2 * (s_square / (zx * zx + zy * zy).clamp_min(CORE**2)) ** ((gamma - 1) / 2)
    return _from_kappa(x, y, ax, ay, gamma, kappa)


def _from_kappa(x: Tensor, y: Tensor, ax: Tensor, ay: Tensor, gamma: Real, kappa: Tensor) -> Triple:
    """Second derivatives from deflection and convergence of a homogeneous potential."""
    px, py = (2 - gamma) * ax - kappa * x, (2 - gamma) * ay - kappa * y
    inverse = 1 / safe_divisor(x * x + y * y)
    gamma1, gamma2 = (px * x - py * y) * inverse, (px * y + py * x) * inverse
    return kappa + gamma1, gamma2, kappa - gamma1


def _add_epl_hessian(
    xx: Tensor, xy: Tensor, yy: Tensor, x: Tensor, y: Tensor, *numbers: float, alpha: Pair | None = None
) -> None:
    """Add `epl_hessian` for numbers in place, and the deflection, which it needs, to ``alpha``."""
    theta_E, gamma, e1, e2, x_0, y_0 = numbers
    ax, ay = torch.zeros_like(x), torch.zeros_like(y)
    _add_epl(ax, ay, x, y, *numbers)
    if alpha is not None:
        alpha[0].add_(ax)
        alpha[1].add_(ay)
    x, y = x - x_0, y - y_0
    zx, zy = (x * (1 - e1)).sub_(y, alpha=e2), (y * (1 + e1)).sub_(x, alpha=e2)
    kappa = zx.square_().addcmul_(zy, zy).clamp_min_(CORE**2).pow_((1 - gamma) / 2)
    kappa.mul_((3 - gamma) / 2 * (theta_E * math.sqrt(1 - e1 * e1 - e2 * e2)) ** (gamma - 1))
    psi_xx, psi_xy, psi_yy = _from_kappa(x, y, ax, ay, gamma, kappa)
    xx.add_(psi_xx)
    xy.add_(psi_xy)
    yy.add_(psi_yy)


def epl_deflection_jacobian(
    x: Tensor, y: Tensor, theta_E: Tensor, gamma: Tensor, e1: Tensor, e2: Tensor, x_0: Tensor, y_0: Tensor
) -> WithJacobian:
    """Deflection (B, R) by an elliptical power law, and derivatives (B, 6, R) by its parameters."""
    x, y, t = x - x_0, y - y_0, gamma - 1
    nx, ny, argument = _epl_geometry(x, y, theta_E, gamma, e1, e2)
    number = kernels.number_of_terms(kernels.e_range(e1, e2)[1], x.dtype) + 4
    value, by_z, by_t = _hypergeometric(t, argument, number)
    ax, ay = times(nx, ny, *value)

    zx, zy = kernels.elliptical(x, y, e1, e2)
    z_square = safe_divisor(zx * zx + zy * zy)
    rest = 1 - argument[2]
    s_square = theta_E * theta_E * rest / z_square
    logarithm = torch.log(s_square) / 2
    gx, gy = times(nx, ny, *by_t)

    # Rotations of n by e1 and e2, Im and -Re of zeta w / |zeta|^2, which also give the changes of |zeta|.
    turn1, turn2 = (zx * y + zy * x) / z_square, (zy * y - zx * x) / z_square
    # strength n F', and that times n^2 and times -conj(e) n^2.
    px, py = times(nx, ny, *by_z)
    qx, qy = times(px, py, (zx * zx - zy * zy) / z_square, 2 * zx * zy / z_square)
    rx, ry = times(px, py, *argument[:2])
    mx, my = ax + 2 * rx, ay + 2 * ry
    grow1, grow2 = (2 - gamma) * turn2 - t * e1 / rest, -(2 - gamma) * turn1 - t * e2 / rest
    kappa = (3 - gamma) / 2 * s_square ** (t / 2)
    xx, xy, yy = _from_kappa(x, y, ax, ay, gamma, kappa)
    by_e1 = grow1 * ax - turn1 * my - qx, grow1 * ay + turn1 * mx - qy
    by_e2 = grow2 * ax - turn2 * my - qy, grow2 * ay + turn2 * mx + qx
    scale = t / theta_E
    dax = torch.stack((scale * ax, ax * logarithm + gx, by_e1[0], by_e2[0], -xx, -xy), dim=-2)
    day = torch.stack((scale * ay, ay * logarithm + gy, by_e1[1], by_e2[1], -xy, -yy), dim=-2)
    return ax, ay, dax, day


def _hypergeometric(t: Tensor, argument: Triple, number: int) -> list[Pair]:
    """2F1(1, t/2; 2 - t/2; z) and its derivatives by z and by t, each as real and imaginary part."""
    coefficients = _coefficients(t, number + 1)
    by_t, logarithmic = [torch.zeros_like(t)], torch.zeros_like(t)
    for k in range(number):
        logarithmic = logarithmic + 0.5 / (t / 2 + k) + 0.5 / (2 - t / 2 + k)
        by_t.append(coefficients[k + 1] * logarithmic)
    by_z = [(k + 1) * a for k, a in enumerate(coefficients[1:])]
    return [kernels.power_series(series, *argument) for series in (coefficients[:-1], by_z, by_t[:-1])]


class EPL(EllipticalMixin, MassModel):
    """Elliptical power law, kappa = (3 - gamma)/2 (theta_E / sqrt(q x^2 + y^2 / q))^(gamma - 1).

    Parameters
    ----------
    theta_E : float or `~astropy.units.Quantity`
        Einstein radius on the intermediate axis, in arcsec.
    gamma : float, optional
        Slope of the density in three dimensions, between 1 and 3; default 2, which is the `SIE`.
    e1, e2 : float, optional
        Ellipticity, (1 - q) / (1 + q) times cos(2 phi) and sin(2 phi); default 0.
    q, phi : float and `~astropy.units.Quantity`, optional
        Minor over major axis, and the angle of the major axis counter-clockwise from +x, instead of e1, e2.
    x_0, y_0 : float or `~astropy.units.Quantity`, optional
        Centre, in arcsec; default 0.

    Examples
    --------
    >>> from lenssr.mass import EPL
    >>> EPL(1.2, gamma=2.1, e1=0.1).convergence(1.0, 0.5)
    0.5157583
    """

    theta_E = Parameter("Einstein radius, intermediate axis", unit=u.arcsec, limits=(0, math.inf))
    gamma = Parameter("slope of the density", limits=(1, 3))
    e1, e2 = ellipticities()
    x_0, y_0 = centre()
    _potential = staticmethod(epl_potential)
    _deflection = staticmethod(epl_deflection)
    _add_deflection = staticmethod(_add_epl)
    _add_hessian = staticmethod(_add_epl_hessian)
    _hessian = staticmethod(epl_hessian)
    _deflection_jacobian = staticmethod(epl_deflection_jacobian)

    def __init__(
        self,
        theta_E: Length,
        gamma: float = 2.0,
        e1: float = 0.0,
        e2: float = 0.0,
        x_0: Length = 0.0,
        y_0: Length = 0.0,
        *,
        q: float | None = None,
        phi: u.Quantity | None = None,
    ) -> None:
        super().__init__(theta_E=theta_E, gamma=gamma, **shape(e1, e2, q, phi), x_0=x_0, y_0=y_0)
