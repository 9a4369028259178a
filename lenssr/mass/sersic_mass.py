"""Stars: a mass that follows a Sérsic profile."""

import math
from functools import lru_cache
from typing import Any, Self

import astropy.units as u
import numpy as np
import scipy.special
import torch
from torch import Tensor

from lenssr.mass import homoeoids, kernels
from lenssr.mass.base import MassModel
from lenssr.mass.isothermal import NO_ELLIPTICITY
from lenssr.mass.kernels import CORE, Pair, Real, Triple, centred, lift
from lenssr.mass.parameter import EllipticalMixin, Length, Parameter, centre, ellipticities, shape

__all__ = ["SersicMass"]

N_RANGE = (0.25, 12.0)
"""Sérsic indices, in which the quadrature was tested."""

OUTSIDE = 1e-12
"""Share of the mass beyond the outermost node."""

LEAST = 22
"""Least number of nodes, besides one for each unit of n."""

REACH = 6.0
"""Power series of a round profile in b (r / r_eff)^(1/n) converge quickly so far from their centre."""


def _b(n: Tensor) -> Tensor:
    """The constant b_n that makes r_eff enclose half of the mass; its slope is a fourth-order difference."""
    here = n.detach().cpu().numpy().astype(np.float64)
    step = 1e-3 * here
    far, near = (
        scipy.special.gammaincinv(2 * (here + k * step), 0.5)
        - scipy.special.gammaincinv(2 * (here - k * step), 0.5)
        for k in (2, 1)
    )
    value, slope = scipy.special.gammaincinv(2 * here, 0.5), (8 * near - far) / (12 * step)
    value, slope = (torch.as_tensor(part).to(n) for part in (value, slope))
    return value + slope * (n - n.detach())


def sersic_mass_potential(x: Tensor, y: Tensor, *params: Real) -> Tensor:
    """Potential of a Sérsic mass in arcsec2, 0 at the centre, positions in arcsec."""
    x, y, amplitude, r_eff, n, e1, e2, ratio = _centred(x, y, *params)
    m_square = homoeoids.elliptical_radius_squared(x, y, e1, e2)
    # The potential of a shell grows as ln(t), which takes more nodes.
    shells = _shells(m_square, amplitude * ratio, r_eff, n, e1, e2, least=2 * LEAST)
    return homoeoids.potential(x, y, e1, e2, shells)


def sersic_mass_deflection(x: Tensor, y: Tensor, *params: Real) -> Pair:
    """Deflection by a Sérsic mass in arcsec: a sum over shells, see `lenssr.mass.homoeoids`."""
    x, y, *lifted = lift(x, y, *params)
    numbers = kernels.plain_numbers(x, y, *lifted)
    if numbers is not None and math.hypot(*numbers[3:5]) < NO_ELLIPTICITY:
        return kernels.sum_in_blocks(x, y, (_add_round, numbers))
    return kernels.in_blocks(_deflection, x, y, *lifted)


def _deflection(x: Tensor, y: Tensor, *params: Tensor) -> Pair:
    x, y, amplitude, r_eff, n, e1, e2, ratio = _centred(x, y, *params)
    m_square = homoeoids.elliptical_radius_squared(x, y, e1, e2)
    return homoeoids.deflection(x, y, e1, e2, _shells(m_square, amplitude * ratio, r_eff, n, e1, e2))


def sersic_mass_hessian(x: Tensor, y: Tensor, *params: Real) -> Triple:
    """Second derivatives xx, xy, yy of the potential of a Sérsic mass."""
    x, y, amplitude, r_eff, n, e1, e2, ratio = _centred(x, y, *params)
    m_square = homoeoids.elliptical_radius_squared(x, y, e1, e2)
    kappa_eff = amplitude * ratio
    kappa = kappa_eff * torch.exp(_b(n) - _exponent(m_square, r_eff, n))
    return homoeoids.hessian(x, y, e1, e2, kappa, _shells(m_square, kappa_eff, r_eff, n, e1, e2))


def _centred(x: Real, y: Real, *params: Real) -> tuple[Tensor, ...]:
    """`kernels.centred` of parameters whose last one is the mass-to-light ratio."""
    *others, x_0, y_0, ratio = params
    return centred(x, y, *others, ratio, x_0, y_0)


def _exponent(m_square: Tensor, r_eff: Tensor, n: Tensor) -> Tensor:
    """The exponent b (m / r_eff)^(1/n)."""
    return _b(n) * (m_square.clamp_min(CORE**2) / (r_eff * r_eff)) ** (0.5 / n)


def _shells(
    m_square: Tensor,
    kappa_eff: Tensor,
    r_eff: Tensor,
    n: Tensor,
    e1: Tensor,
    e2: Tensor,
    *,
    least: int = LEAST,
) -> homoeoids.Shells:
    """Weights kappa(m t) t dt and t^2 at Gauss nodes in t^(1/k n) up to where the mass ends.

    k is a whole number, so that the exponential is smooth, and k n at least 2 for what else is not.
    """
    exponent = _exponent(m_square, r_eff, n)
    index = n.detach()
    whole = torch.ceil(2 / index)
    power = 2 * whole * index
    last = torch.as_tensor(scipy.special.gammainccinv(2 * index.cpu().numpy(), OUTSIDE)).to(n)
    reach = (last / exponent).clamp_max(1.0) ** (2 * n)
    inner = torch.minimum(exponent, last.expand_as(exponent))
    least += math.ceil(float(index.max()))
    number = homoeoids.precise_count(kernels.e_range(e1, e2)[1], float(power.max()), least)
    scale = kappa_eff * torch.exp(_b(n)) * reach * power / 2
    for node, weight in homoeoids.gauss_nodes(number):
        t_square = node**power
        yield (
            scale * (weight / node) * t_square * torch.exp(-inner * node ** (whole * index / n)),
            reach * t_square,
        )


@lru_cache(maxsize=64)
def _series(n: float) -> tuple[float, list[float]]:
    """Centre and Taylor coefficients in X of the integral of exp(-X t^(1/n)) t dt over 0 < t < 1."""
    middle = max(REACH, 0.75 * float(scipy.special.gammaincinv(2 * n, 0.5)))
    k = np.arange(math.ceil(17 + 2.9 * middle))
    order = 2 * n + k
    logarithm = scipy.special.gammaln(order) - order * math.log(middle) - scipy.special.gammaln(k + 1)
    return middle, list((-1.0) ** k * n * scipy.special.gammainc(order, middle) * np.exp(logarithm))


def _add_round(ax: Tensor, ay: Tensor, x: Tensor, y: Tensor, *numbers: float) -> None:
    """Add the deflection of a round profile in place: an incomplete gamma function."""
    amplitude, r_eff, n, _, _, x_0, y_0, ratio = numbers
    x, y = x - x_0, y - y_0
    b = float(scipy.special.gammaincinv(2 * n, 0.5))
    exponent = torch.mul(x, x).addcmul_(y, y).clamp_min_(CORE**2)
    kernels.in_place("log", exponent).mul_(0.5 / n).add_(math.log(b) - math.log(r_eff) / n)
    kernels.in_place("exp", exponent)
    middle, series = _series(n)
    from_centre = exponent - middle
    total = torch.zeros_like(exponent)
    for coefficient in reversed(series):
        total.mul_(from_centre).add_(coefficient)
    far = np.flatnonzero((exponent > middle + REACH).numpy())
    if len(far):
        outer = exponent.numpy()[far]
        whole = scipy.special.gammainc(2 * n, outer) * math.gamma(2 * n) * n
        total.numpy()[far] = whole / outer ** (2 * n)
    scale = 2 * amplitude * ratio * math.exp(b)
    ax.add_(x.mul_(total), alpha=scale)
    ay.add_(y.mul_(total), alpha=scale)


class SersicMass(EllipticalMixin, MassModel):
    """Mass that follows an elliptical Sérsic profile, as stars do.

    Its convergence is ``mass_to_light * amplitude * exp(-b_n ((m / r_eff)^(1/n) - 1))``, m^2 = q x^2 + y^2 /
    q along its axes.

    Parameters
    ----------
    amplitude : float
        Surface brightness at r_eff; with a ``mass_to_light`` of 1 the convergence there. Fixed in fits, which
        vary ``mass_to_light``.
    r_eff : float or `~astropy.units.Quantity`
        Effective radius on the intermediate axis (``r_eff_circ`` of `lenssr.light.Sersic`), in arcsec.
    n : float
        Sérsic index, 0.25 to 12.
    e1, e2 : float, optional
        Ellipticity, (1 - q) / (1 + q) times cos(2 phi) and sin(2 phi); default 0.
    q, phi : float and `~astropy.units.Quantity`, optional
        Minor over major axis, and the angle of the major axis counter-clockwise from +x, instead of e1, e2.
    x_0, y_0 : float or `~astropy.units.Quantity`, optional
        Centre, in arcsec; default 0.
    mass_to_light : float, optional
        Convergence for a unit of surface brightness, by default 1.

    Notes
    -----
    b_n is exact; lenstronomy approximates it. The deflection is a sum over at least 23 elliptical shells,
    right to 1e-10.

    References
    ----------
    .. [1] Cardone 2004, A&A 415, 839

    Examples
    --------
    >>> from lenssr.mass import SersicMass
    >>> stars = SersicMass(0.4, r_eff=1.0, n=4.0, e1=0.1)
    >>> stars.convergence(1.0, 0.5)
    0.3573831
    """

    amplitude = Parameter("surface brightness at the effective radius", limits=(0, math.inf), fixed=True)
    r_eff = Parameter("effective radius, intermediate axis", unit=u.arcsec, limits=(0, math.inf))
    n = Parameter("Sérsic index", limits=N_RANGE)
    e1, e2 = ellipticities()
    x_0, y_0 = centre()
    mass_to_light = Parameter("convergence for a unit of surface brightness", limits=(0, math.inf))
    _potential = staticmethod(sersic_mass_potential)
    _deflection = staticmethod(sersic_mass_deflection)
    _hessian = staticmethod(sersic_mass_hessian)

    def __init__(
        self,
        amplitude: float,
        r_eff: Length,
        n: float,
        e1: float = 0.0,
        e2: float = 0.0,
        x_0: Length = 0.0,
        y_0: Length = 0.0,
        mass_to_light: float = 1.0,
        *,
        q: float | None = None,
        phi: u.Quantity | None = None,
    ) -> None:
        values = {
            "amplitude": amplitude,
            "r_eff": r_eff,
            "n": n,
            **shape(e1, e2, q, phi),
            "x_0": x_0,
            "y_0": y_0,
        }
        super().__init__(**values, mass_to_light=mass_to_light)

    @classmethod
    def from_light(cls, light: Any, mass_to_light: float) -> Self:
        """Make the mass that follows the light of a galaxy.

        Parameters
        ----------
        light : `lenssr.light.Sersic`
            The light; its amplitude is used without its unit.
        mass_to_light : float
            Convergence for a unit of surface brightness.

        Examples
        --------
        >>> from lenssr.light import Sersic
        >>> from lenssr.mass import SersicMass
        >>> light = Sersic(amplitude=20.0, r_eff=0.8, n=4.0, e1=0.1)
        >>> SersicMass.from_light(light, 0.02).convergence(0.8, 0.0)
        0.4
        """
        e1, e2 = float(light.e1.value), float(light.e2.value)
        e = math.hypot(e1, e2)
        lengths = {}
        for name in ("r_eff", "x_0", "y_0"):
            parameter = getattr(light, name)
            lengths[name] = parameter.value if parameter.unit is None else parameter.quantity
        lengths["r_eff"] = lengths["r_eff"] * math.sqrt((1 - e) / (1 + e))
        brightness = float(light.amplitude.value)
        return cls(brightness, n=float(light.n.value), e1=e1, e2=e2, mass_to_light=mass_to_light, **lengths)
