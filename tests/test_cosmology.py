"""Distances, masses and velocity dispersions."""

import astropy.units as u
import numpy as np
import pytest
from astropy.cosmology import FlatLambdaCDM, Planck18
from lenstronomy.Cosmo.lens_cosmo import LensCosmo

from lenssr.cosmology import (
    critical_surface_density,
    einstein_mass,
    einstein_radius_from_mass,
    einstein_radius_from_velocity_dispersion,
    lens_distances,
    nfw_from_mass,
    velocity_dispersion,
)
from lenssr.exceptions import InputError
from lenssr.mass import NFW

COSMOLOGIES = [Planck18, FlatLambdaCDM(70, 0.3)]


@pytest.mark.parametrize("cosmology", COSMOLOGIES)
def test_velocity_dispersion_equals_lenstronomy(cosmology):
    theirs = LensCosmo(0.5, 2.0, cosmology).sis_sigma_v2theta_E(250.0)
    ours = einstein_radius_from_velocity_dispersion(250.0, 0.5, 2.0, cosmology=cosmology)
    assert ours.to_value(u.arcsec) == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("cosmology", COSMOLOGIES)
def test_nfw_equals_lenstronomy(cosmology):
    theirs = LensCosmo(0.5, 2.0, cosmology).nfw_physical2angle(1e13, 5)
    ours = [a.to_value(u.arcsec) for a in nfw_from_mass(1e13 * u.Msun, 5, 0.5, 2.0, cosmology=cosmology)]
    # its constants G and the solar mass are of an older CODATA, 3e-4 apart
    np.testing.assert_allclose(ours, theirs, rtol=5e-4)


def test_nfw_holds_its_mass():
    # the projected mass inside R tends to the one in three dimensions times known functions: compare at r_s
    halo = NFW.from_mass(1e13 * u.Msun, 5, 0.5, 2.0)
    mean = halo.deflection(halo.r_s.value, 0.0)[0] / halo.r_s.value
    inside = mean * einstein_mass(halo.r_s.quantity, 0.5, 2.0)
    expected = 1e13 * (1 - np.log(2)) / (np.log(6) - 5 / 6)
    assert inside.to_value(u.Msun) == pytest.approx(expected, rel=1e-10)


def test_round_trips():
    theta_E = einstein_radius_from_velocity_dispersion(250 * u.km / u.s, 0.5, 2.0)
    assert velocity_dispersion(theta_E, 0.5, 2.0).to_value(u.km / u.s) == pytest.approx(250)
    assert einstein_radius_from_mass(einstein_mass(1.2, 0.5, 2.0), 0.5, 2.0).to_value(
        u.arcsec
    ) == pytest.approx(1.2)


def test_critical_density_equals_lenstronomy():
    theirs = LensCosmo(0.5, 2.0, Planck18).sigma_crit
    assert critical_surface_density(0.5, 2.0).to_value(u.Msun / u.Mpc**2) == pytest.approx(theirs, rel=5e-4)


@pytest.mark.parametrize(
    "z_lens, z_source", [(0.5, 0.5), (1.0, 0.5), (0.0, 1.0), (np.nan, 1.0), (0.5, np.inf)]
)
def test_redshifts_in_order(z_lens, z_source):
    with pytest.raises(InputError, match="0 < z_lens < z_source"):
        lens_distances(z_lens, z_source)


@pytest.mark.parametrize("sigma_v", [0.0, -200.0, np.nan])
def test_velocity_dispersion_refused(sigma_v):
    with pytest.raises(InputError, match="sigma_v"):
        einstein_radius_from_velocity_dispersion(sigma_v, 0.5, 2.0)


def test_unit_refused():
    with pytest.raises(InputError, match="km / s"):
        einstein_radius_from_velocity_dispersion(250 * u.kg, 0.5, 2.0)
