"""Distances, critical density, and Einstein radii of velocity dispersions and masses.

All take redshifts 0 < ``z_lens`` < ``z_source``, otherwise `~lenssr.exceptions.InputError` is raised, and a
``cosmology``, an `~astropy.cosmology.FLRW`, by default astropy's ``Planck18``.
"""

import math
from typing import TYPE_CHECKING, TypeAlias

import astropy.constants as const
import astropy.units as u

from lenssr.exceptions import InputError
from lenssr.units import positive_number, strip_unit

if TYPE_CHECKING:  # it takes long to import
    from astropy.cosmology import FLRW

__all__ = ["critical_surface_density", "einstein_mass", "einstein_radius_from_mass"]
__all__ += ["einstein_radius_from_velocity_dispersion", "lens_distances", "nfw_from_mass"]
__all__ += ["time_delay_distance", "velocity_dispersion"]

Number: TypeAlias = u.Quantity | float
Cosmology: TypeAlias = "FLRW | None"


def _planck18() -> "FLRW":
    from astropy.cosmology import Planck18

    return Planck18


def _radians(arcsec: float) -> float:
    return (arcsec * u.arcsec).to_value(u.rad)


def lens_distances(
    z_lens: float, z_source: float, *, cosmology: Cosmology = None
) -> tuple[u.Quantity, u.Quantity, u.Quantity]:
    """Angular diameter distances of a lens.

    Parameters
    ----------
    z_lens, z_source : float
        Redshifts.
    cosmology : `~astropy.cosmology.FLRW`, optional

    Returns
    -------
    d_lens, d_source, d_lens_source : `~astropy.units.Quantity`
        To the lens, to the source, and from lens to source, in Mpc.

    Raises
    ------
    InputError
        If the redshifts are not in order.

    Examples
    --------
    >>> from lenssr.cosmology import lens_distances
    >>> lens_distances(0.5, 1.0)[0]
    <Quantity 1297.61108986 Mpc>
    """
    redshifts = {"z_lens": z_lens, "z_source": z_source}
    z_lens, z_source = (float(strip_unit(z, u.one, name)) for name, z in redshifts.items())
    if not 0 < z_lens < z_source < math.inf:
        raise InputError(f"z_lens = {z_lens}, z_source = {z_source} are refused: give 0 < z_lens < z_source")
    cosmology = _planck18() if cosmology is None else cosmology
    d_l, d_s = (cosmology.angular_diameter_distance(z).to(u.Mpc) for z in (z_lens, z_source))
    try:
        d_ls = cosmology.angular_diameter_distance(z_lens, z_source)
    except TypeError:  # astropy before 7.1 has another name for it
        d_ls = cosmology.angular_diameter_distance_z1z2(z_lens, z_source)
    return d_l, d_s, d_ls.to(u.Mpc)


def time_delay_distance(z_lens: float, z_source: float, *, cosmology: Cosmology = None) -> u.Quantity:
    """Time-delay distance in Mpc, (1 + z_lens) D_l D_s / D_ls.

    Parameters
    ----------
    z_lens, z_source, cosmology
        As for `lens_distances`.

    References
    ----------
    .. [1] Suyu et al. 2010, ApJ 711, 201

    Examples
    --------
    >>> from lenssr.cosmology import time_delay_distance
    >>> print(time_delay_distance(0.5, 2.0).round(3))
    3073.363 Mpc
    """
    d_l, d_s, d_ls = lens_distances(z_lens, z_source, cosmology=cosmology)
    return (1 + float(strip_unit(z_lens, u.one, "z_lens"))) * d_l * d_s / d_ls


def critical_surface_density(z_lens: float, z_source: float, *, cosmology: Cosmology = None) -> u.Quantity:
    """Surface density at which the convergence is one: c^2 D_s / (4 pi G D_l D_ls).

    Parameters
    ----------
    z_lens, z_source : float
        Redshifts.
    cosmology : `~astropy.cosmology.FLRW`, optional

    Returns
    -------
    density : `~astropy.units.Quantity`
        In solar masses per kpc2.
    """
    d_l, d_s, d_ls = lens_distances(z_lens, z_source, cosmology=cosmology)
    return (const.c**2 * d_s / (4 * math.pi * const.G * d_l * d_ls)).to(u.Msun / u.kpc**2)


def einstein_radius_from_velocity_dispersion(
    sigma_v: Number, z_lens: float, z_source: float, *, cosmology: Cosmology = None
) -> u.Quantity:
    """Einstein radius in arcsec of an isothermal lens, 4 pi (sigma_v / c)^2 D_ls / D_s.

    Parameters
    ----------
    sigma_v : `~astropy.units.Quantity` or float
        Velocity dispersion; a bare number is in km/s.
    z_lens, z_source, cosmology
        As for `lens_distances`.

    Examples
    --------
    >>> from lenssr.cosmology import einstein_radius_from_velocity_dispersion
    >>> einstein_radius_from_velocity_dispersion(250.0, 0.5, 2.0)
    <Quantity 1.14155155 arcsec>
    """
    _, d_s, d_ls = lens_distances(z_lens, z_source, cosmology=cosmology)
    ratio = positive_number(sigma_v, u.km / u.s, "sigma_v") * (u.km / u.s) / const.c
    return (4 * math.pi * ratio**2 * d_ls / d_s).to(u.arcsec, u.dimensionless_angles())


def velocity_dispersion(
    theta_E: Number, z_lens: float, z_source: float, *, cosmology: Cosmology = None
) -> u.Quantity:
    """Velocity dispersion in km/s of an isothermal lens of a given Einstein radius.

    Parameters
    ----------
    theta_E : `~astropy.units.Quantity` or float
        Einstein radius; a bare number is in arcsec.
    z_lens, z_source, cosmology
        As for `lens_distances`.
    """
    _, d_s, d_ls = lens_distances(z_lens, z_source, cosmology=cosmology)
    square = _radians(positive_number(theta_E, u.arcsec, "theta_E")) / (4 * math.pi) * d_s / d_ls
    return (const.c * square**0.5).to(u.km / u.s)


def einstein_mass(
    theta_E: Number, z_lens: float, z_source: float, *, cosmology: Cosmology = None
) -> u.Quantity:
    """Solar masses inside the Einstein radius: pi (D_l theta_E)^2 times the critical surface density.

    Parameters
    ----------
    theta_E : `~astropy.units.Quantity` or float
        Einstein radius; a bare number is in arcsec.
    z_lens, z_source, cosmology
        As for `lens_distances`.
    """
    angle = _radians(positive_number(theta_E, u.arcsec, "theta_E"))
    radius = angle * lens_distances(z_lens, z_source, cosmology=cosmology)[0]
    density = critical_surface_density(z_lens, z_source, cosmology=cosmology)
    return (math.pi * radius**2 * density).to(u.Msun)


def einstein_radius_from_mass(
    mass: Number, z_lens: float, z_source: float, *, cosmology: Cosmology = None
) -> u.Quantity:
    """Einstein radius in arcsec of a mass that lies all inside it.

    Parameters
    ----------
    mass : `~astropy.units.Quantity` or float
        A bare number is in solar masses.
    z_lens, z_source, cosmology
        As for `lens_distances`.
    """
    mass = positive_number(mass, u.Msun, "mass") * u.Msun
    density = critical_surface_density(z_lens, z_source, cosmology=cosmology)
    d_l = lens_distances(z_lens, z_source, cosmology=cosmology)[0]
    return ((mass / (math.pi * density)) ** 0.5 / d_l).to(u.arcsec, u.dimensionless_angles())


def nfw_from_mass(
    m200: Number, concentration: float, z_lens: float, z_source: float, *, cosmology: Cosmology = None
) -> tuple[u.Quantity, u.Quantity]:
    """Scale radius and deflection of an NFW halo of a given mass.

    Parameters
    ----------
    m200 : `~astropy.units.Quantity` or float
        Mass inside the radius of 200 times the critical density at the lens; a bare number is in solar
        masses.
    concentration : float
        That radius over the scale radius.
    z_lens, z_source, cosmology
        As for `lens_distances`.

    Returns
    -------
    r_s : `~astropy.units.Quantity`
        Scale radius, in arcsec.
    alpha_rs : `~astropy.units.Quantity`
        Deflection there, in arcsec.

    References
    ----------
    .. [1] Wright & Brainerd 2000, ApJ 534, 34
    """
    mass = positive_number(m200, u.Msun, "m200") * u.Msun
    c = positive_number(concentration, u.one, "concentration")
    cosmology = _planck18() if cosmology is None else cosmology
    d_l = lens_distances(z_lens, z_source, cosmology=cosmology)[0]
    density = cosmology.critical_density(z_lens)
    radius = ((3 * mass / (4 * math.pi * 200 * density)) ** (1 / 3)).to(u.kpc) / c
    rho = mass / (4 * math.pi * radius**3 * (math.log1p(c) - c / (1 + c)))
    kappa = (rho * radius / critical_surface_density(z_lens, z_source, cosmology=cosmology)).to_value(u.one)
    r_s = (radius / d_l).to(u.arcsec, u.dimensionless_angles())
    return r_s, 4 * kappa * (1 - math.log(2)) * r_s
