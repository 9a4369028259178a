"""A point mass."""

import math

import astropy.units as u
import torch

from lenssr.cosmology import einstein_radius_from_mass
from lenssr.mass.base import MassModel
from lenssr.mass.blocks import CORE
from lenssr.mass.ellipse import centred, safe_divisor
from lenssr.mass.parameter import Parameter

__all__ = ["PointMass", "point_deflection", "point_hessian", "point_potential"]


def point_potential(x, y, theta_E, x_0, y_0):
    """Potential of a point mass in arcsec2, theta_E^2 ln(r), constant inside 1e-9 arcsec."""
    x, y, theta_E = centred(x, y, theta_E, x_0, y_0)
    return theta_E * theta_E / 2 * torch.log((x * x + y * y).clamp_min(CORE**2))


def point_deflection(x, y, theta_E, x_0, y_0):
    """Deflection by a point mass in arcsec, theta_E^2 / r, and 0 inside 1e-9 arcsec."""
    x, y, theta_E = centred(x, y, theta_E, x_0, y_0)
    scale = theta_E * theta_E / safe_divisor(x * x + y * y)
    return scale * x, scale * y


def point_hessian(x, y, theta_E, x_0, y_0):
    """Second derivatives xx, xy, yy of the potential of a point mass; its convergence is 0."""
    x, y, theta_E = centred(x, y, theta_E, x_0, y_0)
    inverse = 1 / safe_divisor(x * x + y * y)
    nx, ny = x * inverse, y * inverse
    gamma1 = theta_E * theta_E * (ny * ny - nx * nx)
    return gamma1, -2 * theta_E * theta_E * nx * ny, -gamma1


class PointMass(MassModel):
    """Point mass.

    Parameters
    ----------
    theta_E : float or `~astropy.units.Quantity`
        Einstein radius, in arcsec.
    x_0, y_0 : float or `~astropy.units.Quantity`, optional
        Position, in arcsec; default 0.

    Examples
    --------
    >>> from lenssr.mass import PointMass
    >>> PointMass(1.0).deflection(3.0, 4.0)
    (0.12, 0.16)
    """

    theta_E = Parameter("Einstein radius", unit=u.arcsec, limits=(0, math.inf))
    x_0 = Parameter("position along x", unit=u.arcsec)
    y_0 = Parameter("position along y", unit=u.arcsec)
    _potential = staticmethod(point_potential)
    _deflection = staticmethod(point_deflection)
    _hessian = staticmethod(point_hessian)

    def __init__(self, theta_E, x_0=0.0, y_0=0.0):
        super().__init__(theta_E=theta_E, x_0=x_0, y_0=y_0)

    @classmethod
    def from_mass(cls, mass, z_lens, z_source, *, cosmology=None, **values):
        """Make a point mass of a given mass.

        Parameters
        ----------
        mass : `~astropy.units.Quantity` or float
            A bare number is in solar masses.
        z_lens, z_source : float
            Redshifts, 0 < z_lens < z_source.
        cosmology : `~astropy.cosmology.FLRW`, optional
            By default astropy's ``Planck18``.
        **values : float or `~astropy.units.Quantity`
            The position.
        """
        return cls(einstein_radius_from_mass(mass, z_lens, z_source, cosmology=cosmology), **values)
