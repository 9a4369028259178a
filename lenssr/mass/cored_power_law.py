"""The elliptical power law with a core."""

import math

import astropy.units as u
import torch
from torch import Tensor

from lenssr.mass import homoeoids, kernels
from lenssr.mass.base import MassModel
from lenssr.mass.dual_isothermal import add_cored
from lenssr.mass.isothermal import NO_ELLIPTICITY
from lenssr.mass.kernels import Pair, Real, Triple, centred, lift
from lenssr.mass.parameter import EllipticalMixin, Length, Parameter, centre, ellipticities, shape

__all__ = ["CoredPowerLaw"]

INTEGER, LEAST, SMALL = 3, 20, 1e-30
"""Degree + 1 of the density in the variable of the nodes; least number of nodes; least (m / s)^2, where the
density is constant to rounding."""


def cored_power_law_potential(
    x: Tensor,
    y: Tensor,
    theta_E: Tensor,
    gamma: Tensor,
    core: Tensor,
    e1: Tensor,
    e2: Tensor,
    x_0: Real,
    y_0: Real,
) -> Tensor:
    """Potential of a cored power law in arcsec2, 0 at the centre, positions in arcsec."""
    x, y, theta_E, gamma, core, e1, e2 = centred(x, y, theta_E, gamma, core, e1, e2, x_0, y_0)
    # The potential of a shell grows as ln(t): nodes that crowd at the centre.
    m_square = homoeoids.elliptical_radius_squared(x, y, e1, e2)
    shells = _shells(m_square, theta_E, gamma, core, e1, e2, crowd=4, least=2 * LEAST)
    return homoeoids.potential(x, y, e1, e2, shells)


def cored_power_law_deflection(
    x: Tensor,
    y: Tensor,
    theta_E: Tensor,
    gamma: Tensor,
    core: Tensor,
    e1: Tensor,
    e2: Tensor,
    x_0: Real,
    y_0: Real,
) -> Pair:
    """Deflection by a cored power law in arcsec: a sum over shells, see `lenssr.mass.homoeoids`."""
    x, y, *params = lift(x, y, theta_E, gamma, core, e1, e2, x_0, y_0)
    numbers = kernels.plain_numbers(x, y, *params)
    if numbers is not None and math.hypot(*numbers[3:5]) < NO_ELLIPTICITY:
        return kernels.sum_in_blocks(x, y, (_add_round, numbers))
    if numbers is not None and numbers[1] == 2:
        return kernels.sum_in_blocks(x, y, (add_cored, (numbers[0], *numbers[2:])))
    return kernels.in_blocks(_deflection, x, y, *params)


def _deflection(x: Tensor, y: Tensor, *params: Tensor) -> Pair:
    x, y, theta_E, gamma, core, e1, e2 = centred(x, y, *params)
    shells = _shells(homoeoids.elliptical_radius_squared(x, y, e1, e2), theta_E, gamma, core, e1, e2)
    return homoeoids.deflection(x, y, e1, e2, shells)


def _add_round(ax: Tensor, ay: Tensor, x: Tensor, y: Tensor, *numbers: float) -> None:
    """Add the deflection of a round lens in place: the mean convergence is a closed form."""
    theta_E, gamma, core, _, _, x_0, y_0 = numbers
    x, y, power = x - x_0, y - y_0, (3 - gamma) / 2
    ratio = torch.addcmul(x.new_tensor(SMALL), x, x, value=1 / core**2).addcmul_(y, y, value=1 / core**2)
    growth = kernels.in_place("log1p", ratio.clone()).mul_(power)
    mean = kernels.in_place("expm1", growth).div_(ratio)
    scale = (theta_E / core) ** (gamma - 1)
    ax.add_(x.mul_(mean), alpha=scale)
    ay.add_(y.mul_(mean), alpha=scale)


def cored_power_law_hessian(
    x: Tensor,
    y: Tensor,
    theta_E: Tensor,
    gamma: Tensor,
    core: Tensor,
    e1: Tensor,
    e2: Tensor,
    x_0: Real,
    y_0: Real,
) -> Triple:
    """Second derivatives xx, xy, yy of the potential of a cored power law."""
    x, y, theta_E, gamma, core, e1, e2 = centred(x, y, theta_E, gamma, core, e1, e2, x_0, y_0)
    m_square = homoeoids.elliptical_radius_squared(x, y, e1, e2)
    kappa = (3 - gamma) / 2 * (theta_E * theta_E / (core * core + m_square)) ** ((gamma - 1) / 2)
    shells = _shells(m_square, theta_E, gamma, core, e1, e2)
    return homoeoids.hessian(x, y, e1, e2, kappa, shells)


def _shells(
    m_square: Tensor,
    theta_E: Tensor,
    gamma: Tensor,
    core: Tensor,
    e1: Tensor,
    e2: Tensor,
    *,
    crowd: int = 1,
    least: int = LEAST,
) -> homoeoids.Shells:
    """Weights kappa(m t) t dt and t^2 at Gauss nodes in (s^2 + m^2 t^2)^((3 - gamma) / 6).

    In this variable the density times t dt is a square, whatever the slope, and t^2 is smooth.
    """
    power = 2 * INTEGER / (3 - gamma)
    steepest = crowd * float(power.detach().max())
    number = homoeoids.precise_count(kernels.e_range(e1, e2)[1], steepest, least)
    ratio = (m_square / (core * core)).clamp_min(SMALL)
    inverse = 1 / ratio
    growth = torch.expm1(torch.log1p(ratio) / power)
    scale = (3 - gamma) / 4 * (theta_E / core) ** (gamma - 1) * power * growth * inverse
    for node, weight in homoeoids.gauss_nodes(number):
        share = crowd * node ** (crowd - 1) * weight
        grown = node**crowd * growth
        weights = scale * share * (1 + grown) ** (INTEGER - 1)
        yield weights, torch.expm1(power * torch.log1p(grown)) * inverse


class CoredPowerLaw(EllipticalMixin, MassModel):
    """Elliptical power law with a core: kappa = (3 - gamma)/2 (theta_E^2 / (core^2 + m^2))^((gamma - 1)/2).

    m^2 is q x^2 + y^2 / q along its axes. Without the core it is the `EPL`.

    Parameters
    ----------
    theta_E : float or `~astropy.units.Quantity`
        Einstein radius of the `EPL` that it is without the core, on the intermediate axis, in arcsec.
    gamma : float
        Slope of the density in three dimensions outside the core, between 1 and 3.
    core : float or `~astropy.units.Quantity`
        Core radius on the intermediate axis, in arcsec.
    e1, e2 : float, optional
        Ellipticity, (1 - q) / (1 + q) times cos(2 phi) and sin(2 phi); default 0.
    q, phi : float and `~astropy.units.Quantity`, optional
        Minor over major axis, and the angle of the major axis counter-clockwise from +x, instead of e1, e2.
    x_0, y_0 : float or `~astropy.units.Quantity`, optional
        Centre, in arcsec; default 0.

    References
    ----------
    .. [1] Barkana 1998, ApJ 502, 531

    Examples
    --------
    >>> from lenssr.mass import CoredPowerLaw
    >>> CoredPowerLaw(1.2, 2.1, core=0.1, e1=0.1).deflection(1.0, 0.5)
    (0.9133920, 0.5254923)
    """

    theta_E = Parameter("Einstein radius without the core", unit=u.arcsec, limits=(0, math.inf))
    gamma = Parameter("slope of the density outside the core", limits=(1, 3))
    core = Parameter("core radius", unit=u.arcsec, limits=(0, math.inf))
    e1, e2 = ellipticities()
    x_0, y_0 = centre()
    _potential = staticmethod(cored_power_law_potential)
    _deflection = staticmethod(cored_power_law_deflection)
    _hessian = staticmethod(cored_power_law_hessian)

    def __init__(
        self,
        theta_E: Length,
        gamma: float,
        core: Length,
        e1: float = 0.0,
        e2: float = 0.0,
        x_0: Length = 0.0,
        y_0: Length = 0.0,
        *,
        q: float | None = None,
        phi: u.Quantity | None = None,
    ) -> None:
        super().__init__(theta_E=theta_E, gamma=gamma, core=core, **shape(e1, e2, q, phi), x_0=x_0, y_0=y_0)
