"""Arrival times of images in days."""

import astropy.constants as const
import astropy.units as u
import numpy as np

from lenssr.cosmology import Cosmology, time_delay_distance
from lenssr.exceptions import InputError
from lenssr.mass.rays import Array

__all__ = ["delays"]


def delays(
    potential: Array, z_lens: float | None, z_source: float | None, cosmology: Cosmology = None
) -> u.Quantity:
    """Arrival times in days after the first, of Fermat potentials in arcsec2."""
    if z_lens is None or z_source is None:
        raise InputError(f"z_lens = {z_lens}, z_source = {z_source}: time delays need both")
    days = (
        time_delay_distance(z_lens, z_source, cosmology=cosmology)
        / const.c
        * (1 * u.arcsec).to_value(u.rad) ** 2
    )
    return (np.asarray(potential) - np.min(potential)) * days.to(u.day)
