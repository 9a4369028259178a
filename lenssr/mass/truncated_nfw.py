"""The Navarro-Frenk-White halo with an edge."""

import math

import astropy.units as u
import torch
from torch import Tensor

from lenssr.mass import kernels
from lenssr.mass.base import MassModel
from lenssr.mass.homoeoids import gauss_nodes
from lenssr.mass.kernels import CORE, Pair, Real, Triple, centred, lift, safe_divisor
from lenssr.mass.nfw import NORM, _profile, plain_profile, plain_square
from lenssr.mass.parameter import Length, Parameter, centre

__all__ = ["TruncatedNFW"]

POTENTIAL_NODES = 40
"""Number of radii at which the deflection is summed to the potential."""


def _mean(radius: Tensor, edge: Tensor) -> Tensor:
    """Mean surface density inside a radius, over twice rho_s r_s; radius and edge in scale radii.

    Equation A.16 of Baltz, Marshall & Oguri 2009, JCAP 01, 015, divided by the squared radius term by term,
    so that nothing cancels at the centre or for a far edge.
    """
    f, _, mean = _profile(radius)
    square, edge_square = radius * radius, edge * edge
    both = torch.sqrt(edge_square + square) + edge
    logarithm = torch.log(radius / both)
    bent = mean - torch.log1p(square / (2 * edge * both)) / square + logarithm / (edge * both)
    return _share(edge) * ((edge_square - 1) * bent + 2 * f - math.pi / both)


def _density(radius: Tensor, edge: Tensor) -> Tensor:
    """Surface density over twice rho_s r_s: equation A.8 of Baltz et al."""
    f, density, _ = _profile(radius)
    edge_square = edge * edge
    root = torch.sqrt(edge_square + radius * radius)
    logarithm = torch.log(radius / (root + edge))
    bent = (edge_square - 1) * logarithm / (edge * root)
    return _share(edge) * ((edge_square + 1) * density + 2 * f - math.pi / root + bent)


def _share(edge: Tensor) -> Tensor:
    """t^2 / (t^2 + 1)^2 for an edge t, safe where t^4 would overflow."""
    return (1 / (edge + 1 / edge)) ** 2


def _radius(x: Tensor, y: Tensor, r_s: Tensor) -> Tensor:
    return torch.sqrt((x * x + y * y).clamp_min(CORE**2)) / r_s


def truncated_nfw_potential(
    x: Tensor, y: Tensor, r_s: Tensor, alpha_rs: Tensor, r_t: Tensor, x_0: Real, y_0: Real
) -> Tensor:
    """Potential of a truncated NFW halo in arcsec2, 0 at the centre: a sum over the radius."""
    x, y, r_s, alpha_rs, r_t = centred(x, y, r_s, alpha_rs, r_t, x_0, y_0)
    radius, edge = _radius(x, y, r_s), r_t / r_s
    total = torch.zeros_like(radius * edge)
    for node, weight in gauss_nodes(POTENTIAL_NODES):
        total = total + weight * node**7 * _mean(radius * node**4, edge)
    return 4 * alpha_rs * r_s / NORM * radius * radius * total


def truncated_nfw_deflection(
    x: Tensor, y: Tensor, r_s: Tensor, alpha_rs: Tensor, r_t: Tensor, x_0: Real, y_0: Real
) -> Pair:
    """Deflection by a truncated NFW halo in arcsec."""
    x, y, *params = lift(x, y, r_s, alpha_rs, r_t, x_0, y_0)
    numbers = kernels.plain_numbers(x, y, *params)
    if numbers is not None:
        return kernels.sum_in_blocks(x, y, (_add_truncated_nfw, numbers))
    x, y, r_s, alpha_rs, r_t = centred(x, y, *params)
    mean = alpha_rs / (NORM * r_s) * _mean(_radius(x, y, r_s), r_t / r_s)
    return mean * x, mean * y


def _add_truncated_nfw(ax: Tensor, ay: Tensor, x: Tensor, y: Tensor, *numbers: float) -> None:
    """Add `truncated_nfw_deflection` for numbers in place; both logarithms of the root are one."""
    r_s, alpha_rs, r_t, x_0, y_0 = numbers
    x, y, edge = x - x_0, y - y_0, r_t / r_s
    square = plain_square(x, y, r_s)
    mean, f, logarithm = plain_profile(square, whole=True)
    inverse = kernels.in_place("sqrt", square + edge * edge).add_(edge).reciprocal_()
    grown = kernels.in_place("log1p", torch.mul(square, inverse).mul_(0.5 / edge))
    mean.addcdiv_(grown, square, value=-1).addcmul_(logarithm.sub_(grown), inverse, value=1 / edge)
    rest = edge * edge - 1
    # The part of the logarithm that is the edge's goes along with the last term.
    mean.mul_(rest).add_(f, alpha=2).sub_(inverse, alpha=math.pi + rest / edge * math.log(edge))
    scale = alpha_rs / (NORM * r_s) / (edge + 1 / edge) ** 2
    ax.addcmul_(x, mean, value=scale)
    ay.addcmul_(y, mean, value=scale)


def truncated_nfw_hessian(
    x: Tensor, y: Tensor, r_s: Tensor, alpha_rs: Tensor, r_t: Tensor, x_0: Real, y_0: Real
) -> Triple:
    """Second derivatives xx, xy, yy of the potential of a truncated NFW halo."""
    x, y, r_s, alpha_rs, r_t = centred(x, y, r_s, alpha_rs, r_t, x_0, y_0)
    radius, edge = _radius(x, y, r_s), r_t / r_s
    scale = alpha_rs / (NORM * r_s)
    kappa = scale / 2 * _density(radius, edge)
    tangential = (scale * _mean(radius, edge) - kappa) / safe_divisor(x * x + y * y)
    gamma1, gamma2 = (y * y - x * x) * tangential, -2 * x * y * tangential
    return kappa + gamma1, gamma2, kappa - gamma1


class TruncatedNFW(MassModel):
    """Navarro-Frenk-White halo with an edge, spherical: the density of the `NFW` times 1 / (1 + r^2 / r_t^2).

    Parameters
    ----------
    r_s : float or `~astropy.units.Quantity`
        Scale radius, in arcsec.
    alpha_rs : float or `~astropy.units.Quantity`
        Deflection at the scale radius, if the halo had no edge, in arcsec.
    r_t : float or `~astropy.units.Quantity`
        Truncation radius, in arcsec.
    x_0, y_0 : float or `~astropy.units.Quantity`, optional
        Centre, in arcsec; default 0.

    References
    ----------
    .. [1] Baltz, Marshall & Oguri 2009, JCAP 01, 015

    Examples
    --------
    >>> from lenssr.mass import TruncatedNFW
    >>> TruncatedNFW(5.0, 1.0, r_t=50.0).deflection(3.0, 4.0)
    (0.5845252, 0.7793669)
    """

    r_s = Parameter("scale radius", unit=u.arcsec, limits=(0, math.inf))
    alpha_rs = Parameter(
        "deflection at the scale radius without the edge", unit=u.arcsec, limits=(0, math.inf)
    )
    r_t = Parameter("truncation radius", unit=u.arcsec, limits=(0, math.inf))
    x_0, y_0 = centre()
    _potential = staticmethod(truncated_nfw_potential)
    _deflection = staticmethod(truncated_nfw_deflection)
    _add_deflection = staticmethod(_add_truncated_nfw)
    _hessian = staticmethod(truncated_nfw_hessian)

    def __init__(
        self, r_s: Length, alpha_rs: Length, r_t: Length, x_0: Length = 0.0, y_0: Length = 0.0
    ) -> None:
        super().__init__(r_s=r_s, alpha_rs=alpha_rs, r_t=r_t, x_0=x_0, y_0=y_0)
