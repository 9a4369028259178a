"""The dual pseudo-isothermal ellipsoid (dPIE): an isothermal lens with a core and an edge."""

import math
from functools import partial

import astropy.units as u
import torch
from torch import Tensor

from lenssr.exceptions import InputError
from lenssr.mass import kernels
from lenssr.mass.base import MassModel
from lenssr.mass.isothermal import NO_ELLIPTICITY, VANISHING, _by_ellipticity, add_arctangents
from lenssr.mass.kernels import Pair, Real, Triple, centred, lift, times
from lenssr.mass.parameter import EllipticalMixin, Length, Parameter, centre, ellipticities, shape

__all__ = ["DPIE"]


def dpie_potential(
    x: Tensor,
    y: Tensor,
    theta_E: Tensor,
    core: Tensor,
    edge: Tensor,
    e1: Tensor,
    e2: Tensor,
    x_0: Real,
    y_0: Real,
) -> Tensor:
    """Potential of a dPIE in arcsec2, 0 at the centre, positions in arcsec."""
    x, y, theta_E, core, edge, e1, e2 = centred(x, y, theta_E, core, edge, e1, e2, x_0, y_0)
    return theta_E * (_cored_potential(x, y, core, e1, e2) - _cored_potential(x, y, edge, e1, e2))


def dpie_deflection(
    x: Tensor,
    y: Tensor,
    theta_E: Tensor,
    core: Tensor,
    edge: Tensor,
    e1: Tensor,
    e2: Tensor,
    x_0: Real,
    y_0: Real,
) -> Pair:
    """Deflection by a dPIE in arcsec: two ellipsoids with cores (Kassiola & Kovner 1993, ApJ 417, 450).

    With s = core, zeta = w - e conj(w), m = abs(zeta) / sqrt(1 - e^2) and R^2 = s^2 + m^2, a core turns the n
    of the `SIE` into zeta / sqrt(1 - e^2) / (R + s): the moments of 1 / R are a geometric series.
    """
    x, y, *params = lift(x, y, theta_E, core, edge, e1, e2, x_0, y_0)
    numbers = kernels.plain_numbers(x, y, *params)
    if numbers is not None:
        return kernels.sum_in_blocks(x, y, (_add_dpie, numbers))
    x, y, theta_E, core, edge, e1, e2 = centred(x, y, *params)
    (ax, ay), (bx, by) = (_cored_deflection(x, y, s, e1, e2) for s in (core, edge))
    return theta_E * (ax - bx), theta_E * (ay - by)


def _shape(x: Tensor, y: Tensor, s: Tensor, e1: Tensor, e2: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Complex sigma = zeta / sqrt(1 - e^2) / (R + s), R, and sqrt(1 - e^2)."""
    zx, zy = kernels.elliptical(x, y, e1, e2)
    rest = 1 - e1 * e1 - e2 * e2
    root = torch.sqrt(rest)
    radius = torch.sqrt((zx * zx + zy * zy) / rest + s * s)
    inverse = 1 / (root * (radius + s))
    return zx * inverse, zy * inverse, radius, root


def _cored_deflection(x: Tensor, y: Tensor, s: Tensor, e1: Tensor, e2: Tensor) -> Pair:
    """Deflection by kappa = 1 / 2R."""
    series, closed = partial(_cored_series, x, y, s), partial(_cored_closed, x, y, s)
    return _by_ellipticity(e1, e2, series, closed)


def _cored_series(x: Tensor, y: Tensor, s: Tensor, e1: Tensor, e2: Tensor) -> Pair:
    sx, sy, _, root = _shape(x, y, s, e1, e2)
    re, im, square = kernels.argument(sx, sy, e1, e2)
    number = kernels.number_of_terms(kernels.e_range(e1, e2)[1], x.dtype)
    size = sx * sx + sy * sy
    terms = [1 / (2 * k + 1) for k in range(number)]
    return times(root * sx, root * sy, *kernels.power_series(terms, re, im, square * size * size))


def _cored_closed(x: Tensor, y: Tensor, s: Tensor, e1: Tensor, e2: Tensor) -> Pair:
    # The complex arctangent of sqrt(e) sigma, in the frame of the axes.
    e = torch.sqrt(e1 * e1 + e2 * e2)
    half = torch.atan2(e2, e1) / 2
    cos, sin = torch.cos(half), torch.sin(half)
    sx, sy, _, root = _shape(x * cos + y * sin, y * cos - x * sin, s, e, torch.zeros_like(e))
    size = e * (sx * sx + sy * sy)
    stretch = torch.sqrt(e)
    re = torch.atan2(2 * stretch * sx, 1 - size)
    im = torch.atanh(2 * stretch * sy / (1 + size))
    scale = root / (2 * stretch)
    return times(scale * re, scale * im, cos, sin)


def _cored_potential(x: Tensor, y: Tensor, s: Tensor, e1: Tensor, e2: Tensor) -> Tensor:
    """Potential of kappa = 1 / 2R: Keeton & Kochanek 1998, ApJ 495, 157."""
    ax, ay = _cored_deflection(x, y, s, e1, e2)
    square = e1 * e1 + e2 * e2
    rest = 1 - square
    zx, zy = kernels.elliptical(x, y, e1, e2)
    m_square = (zx * zx + zy * zy) / rest
    less = m_square / (torch.sqrt(m_square + s * s) + s)
    growth = (x * x + y * y + 2 * s * less) * rest / (4 * s * s)
    return x * ax + y * ay - s / 2 * torch.log1p(growth)


def _add_dpie(ax: Tensor, ay: Tensor, x: Tensor, y: Tensor, *numbers: float) -> None:
    """Add `dpie_deflection` for numbers in place.

    In the frame of the axes it is the difference of two arctangents along the major axis, and of two
    hyperbolic ones across, each of which is one of a quotient. The axes are found as in
    `isothermal._add_sie`.
    """
    theta_E, core, edge, e1, e2, x_0, y_0 = numbers
    if math.hypot(e1, e2) < NO_ELLIPTICITY:
        return _add_round(ax, ay, x, y, theta_E, core, edge, x_0, y_0)
    if e1 < 0:
        return _add_dpie(ay, ax, y, x, theta_E, core, edge, -e1, e2, y_0, x_0)
    p, r, inner, (q, f, cos, sin) = _along_axes(x - x_0, y - y_0, core, e1, e2)
    core, edge = core / cos, edge / cos
    outer = inner + (edge * edge - core * core) / (f * f)
    # Tangents are p over R / f + s / f q; across, r over that less f s.
    kernels.in_place("sqrt", inner).add_(core / (f * q))
    kernels.in_place("sqrt", outer).add_(edge / (f * q))
    difference = outer - inner
    low = torch.addcmul(p * p, inner, outer)
    p.mul_(difference).div_(low)
    inner.sub_(f * core)
    high = torch.mul(inner, outer.sub_(f * edge), out=low).addcmul_(r, r, value=-1)
    r.mul_(difference.sub_(f * (edge - core))).div_(high)
    add_arctangents(ax, ay, p, r, theta_E, 1 / f, cos, sin)


def add_cored(ax: Tensor, ay: Tensor, x: Tensor, y: Tensor, *numbers: float) -> None:
    """Add the deflection of one isothermal ellipsoid with a core, theta_E / 2R, in place, as `_add_dpie`."""
    theta_E, core, e1, e2, x_0, y_0 = numbers
    if e1 < 0:
        return add_cored(ay, ax, y, x, theta_E, core, -e1, e2, y_0, x_0)
    p, r, radius, (q, f, cos, sin) = _along_axes(x - x_0, y - y_0, core, e1, e2)
    core = core / cos
    p.div_(kernels.in_place("sqrt", radius).add_(core / (f * q)))
    r.div_(radius.sub_(f * core))
    add_arctangents(ax, ay, p, r, theta_E, 1 / f, cos, sin)


def _along_axes(
    x: Tensor, y: Tensor, s: float, e1: float, e2: float
) -> tuple[Tensor, Tensor, Tensor, tuple[float, float, float, float]]:
    """Positions along the axes, (s^2 + m^2) / f^2, and q, f, cosine and sine of the angle; e1 is positive.

    f^2 is (1 - q^2) / q. Lengths are in units of the cosine, as in `isothermal._add_sie`.
    """
    e, angle = math.hypot(e1, e2), math.atan2(e2, e1) / 2
    q, cos, sin = (1 - e) / (1 + e), math.cos(angle), math.sin(angle)
    f = math.sqrt((1 - q * q) / q)
    p = torch.add(x, y, alpha=sin / cos)
    r = y.sub_(x, alpha=sin / cos)
    least = x.new_tensor(max(s * s, VANISHING) / (f * cos) ** 2)
    square = torch.addcmul(least, p, p, value=q / (f * f), out=x)
    return p, r, square.addcmul_(r, r, value=1 / (q * f * f)), (q, f, cos, sin)


def _add_round(ax: Tensor, ay: Tensor, x: Tensor, y: Tensor, *numbers: float) -> None:
    """Add the deflection of a round dPIE, theta_E w (1 / (R_core + core) - 1 / (R_edge + edge))."""
    theta_E, core, edge, x_0, y_0 = numbers
    x, y = x - x_0, y - y_0
    inner = torch.addcmul(x.new_tensor(max(core * core, VANISHING)), x, x).addcmul_(y, y)
    outer = inner + (edge * edge - core * core)
    kernels.in_place("sqrt", inner).add_(core)
    kernels.in_place("sqrt", outer).add_(edge)
    # The difference of the denominators over their product.
    difference = (outer - inner).div_(inner.mul_(outer))
    ax.addcmul_(x, difference, value=theta_E)
    ay.addcmul_(y, difference, value=theta_E)


def dpie_hessian(
    x: Tensor,
    y: Tensor,
    theta_E: Tensor,
    core: Tensor,
    edge: Tensor,
    e1: Tensor,
    e2: Tensor,
    x_0: Real,
    y_0: Real,
) -> Triple:
    """Second derivatives xx, xy, yy of the potential of a dPIE."""
    x, y, theta_E, core, edge, e1, e2 = centred(x, y, theta_E, core, edge, e1, e2, x_0, y_0)
    inner, outer = (_cored_hessian(x, y, s, e1, e2) for s in (core, edge))
    kappa, gamma1, gamma2 = (theta_E * (a - b) for a, b in zip(inner, outer, strict=True))
    return kappa + gamma1, gamma2, kappa - gamma1


def _cored_hessian(x: Tensor, y: Tensor, s: Tensor, e1: Tensor, e2: Tensor) -> Triple:
    """Convergence and shear of kappa = 1 / 2R: the deflection is an analytic function of sigma."""
    sx, sy, radius, root = _shape(x, y, s, e1, e2)
    re, im, square = kernels.argument(sx, sy, e1, e2)
    zx, zy = kernels.elliptical(x, y, e1, e2)
    ox, oy = zx - e1 * zx - e2 * zy, zy + e1 * zy - e2 * zx
    # Derivative of sigma by conj(w).
    ratio = 0.5 / (radius * (radius + s) * root * root)
    tx, ty = times(sx, sy, ratio * ox, ratio * oy)
    inverse = 1 / (root * (radius + s))
    tx, ty = -e1 * inverse - tx, -e2 * inverse - ty
    # Over 1 - v, v = -conj(e) sigma^2.
    size = (1 - re) ** 2 + im * im
    gamma1, gamma2 = times(tx, ty, root * (1 - re) / size, root * im / size)
    return 0.5 / radius, gamma1, gamma2


class DPIE(EllipticalMixin, MassModel):
    """Dual pseudo-isothermal ellipsoid, an isothermal ellipsoid with a core and an edge.

    Its convergence is theta_E / 2 (1 / sqrt(core^2 + m^2) - 1 / sqrt(edge^2 + m^2)), m^2 = q x^2 + y^2 / q
    along its axes: that of the `SIE` between core and edge, and steeper as m^-3 beyond.

    Parameters
    ----------
    theta_E : float or `~astropy.units.Quantity`
        Einstein radius of the `SIE` that it is without core and edge, on the intermediate axis, in arcsec.
    core, edge : float or `~astropy.units.Quantity`
        Radii of core and edge on the intermediate axis, core < edge, in arcsec.
    e1, e2 : float, optional
        Ellipticity, (1 - q) / (1 + q) times cos(2 phi) and sin(2 phi); default 0.
    q, phi : float and `~astropy.units.Quantity`, optional
        Minor over major axis, and the angle of the major axis counter-clockwise from +x, instead of e1, e2.
    x_0, y_0 : float or `~astropy.units.Quantity`, optional
        Centre, in arcsec; default 0.

    References
    ----------
    .. [1] Elíasdóttir et al. 2007, arXiv:0710.5636, Appendix A

    Examples
    --------
    >>> from lenssr.mass import DPIE
    >>> DPIE(1.2, core=0.05, edge=10.0, e1=0.1).deflection(1.0, 0.5)
    (0.9189754, 0.5273774)
    """

    theta_E = Parameter("Einstein radius without core and edge", unit=u.arcsec, limits=(0, math.inf))
    core = Parameter("core radius", unit=u.arcsec, limits=(0, math.inf))
    edge = Parameter("radius of the edge", unit=u.arcsec, limits=(0, math.inf))
    e1, e2 = ellipticities()
    x_0, y_0 = centre()
    _potential = staticmethod(dpie_potential)
    _deflection = staticmethod(dpie_deflection)
    _add_deflection = staticmethod(_add_dpie)
    _hessian = staticmethod(dpie_hessian)

    def __init__(
        self,
        theta_E: Length,
        core: Length,
        edge: Length,
        e1: float = 0.0,
        e2: float = 0.0,
        x_0: Length = 0.0,
        y_0: Length = 0.0,
        *,
        q: float | None = None,
        phi: u.Quantity | None = None,
    ) -> None:
        super().__init__(theta_E=theta_E, core=core, edge=edge, **shape(e1, e2, q, phi), x_0=x_0, y_0=y_0)

    def _validate(self) -> None:
        core, edge = self._parameters["core"].value, self._parameters["edge"].value
        if not core < edge:
            raise InputError(f"core = {core}, edge = {edge} are refused: give core < edge")
        super()._validate()
