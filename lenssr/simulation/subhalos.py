"""Dark substructure of simulated lenses: point masses as the DeepLense simulations draw them."""

import math
from dataclasses import KW_ONLY, dataclass

import astropy.units as u
import numpy as np

from lenssr.exceptions import InputError
from lenssr.simulation.dataset import check_range
from lenssr.units import strip_unit

__all__ = ["AxionVortex", "ColdSubhalos"]

# Half length of a vortex times the mass of the axion, in arcsec eV (DeepLenseSim).
_LENGTH_TIMES_MASS = 0.03e-22


@dataclass(frozen=True)
class ColdSubhalos:
    """Subhalos of cold dark matter as point masses, dN/dm ~ m^slope.

    Parameters
    ----------
    number : int, optional
        How many; 25 by default.
    slope : float, optional
        Exponent of the mass function. The default, -0.9, is what the code of the DeepLense simulations
        draws from; its comments, and simulations of dark matter, say -1.9.
    poisson : bool, optional
        Whether the number is a Poisson number with mean ``number``. By default it is ``number``, as in that
        code, which draws a Poisson number and leaves it unused.
    masses : tuple of float, optional
        Least and largest mass in solar masses; (1e6, 1e10) by default.
    radii : tuple of float, optional
        Least and largest distance from the centre in arcsec, uniform in between, as the angle is; (0.25, 2)
        by default.

    Raises
    ------
    InputError
        If a setting is out of range.

    References
    ----------
    Alexander et al. 2020, ApJ 893, 15. DeepLenseSim, https://github.com/mwt5345/DeepLenseSim,
    ``draw_old_cdm_sub_masses`` and ``make_old_cdm`` in ``deeplense/lens.py``.

    Examples
    --------
    >>> import numpy as np
    >>> from lenssr.simulation import ColdSubhalos
    >>> masses, x, y, _ = ColdSubhalos(slope=-1.9).draw(np.random.default_rng(1))
    >>> masses.shape, bool(masses.min() >= 1e6), bool(np.hypot(x, y).max() <= 2)
    ((25,), True, True)
    """

    number: int = 25
    _: KW_ONLY
    slope: float = -0.9
    poisson: bool = False
    masses: tuple = (1e6, 1e10)
    radii: tuple = (0.25, 2.0)

    def __post_init__(self):
        if int(self.number) != self.number or self.number < 1:
            raise InputError(f"number = {self.number} of subhalos is not a positive integer")
        if not math.isfinite(self.slope):
            raise InputError(f"slope = {self.slope}: give the exponent of the mass function, such as -1.9")
        _set(
            self,
            number=int(self.number),
            slope=float(self.slope),
            poisson=bool(self.poisson),
            masses=check_range(self.masses, u.Msun, "masses"),
            radii=check_range(self.radii, u.arcsec, "radii"),
        )

    def draw(self, rng):
        """Draw the masses and where they are.

        Parameters
        ----------
        rng : `numpy.random.Generator`
            Where the randomness comes from.

        Returns
        -------
        masses : `~numpy.ndarray`, shape (N,)
            In solar masses.
        x, y : `~numpy.ndarray`, shape (N,)
            In arcsec.
        numbers : dict
            Other numbers that were drawn; empty here.
        """
        number = int(rng.poisson(self.number)) if self.poisson else self.number
        share, radius, angle = rng.uniform(size=(3, number))
        low, high = self.masses
        power = self.slope + 1
        if abs(power) < 1e-9:
            masses = low * (high / low) ** share
        else:
            masses = (low**power + (high**power - low**power) * share) ** (1 / power)
        radius = self.radii[0] + (self.radii[1] - self.radii[0]) * radius
        angle = 2 * math.pi * angle
        return masses, radius * np.cos(angle), radius * np.sin(angle), {}


@dataclass(frozen=True)
class AxionVortex:
    """A vortex of axion dark matter: equal point masses on a line through the centre, at a random angle.

    Half the length of the line is 0.03e-22 eV / m arcsec, which is the de Broglie wavelength of an axion of
    mass m in a halo at redshift 0.5.

    Parameters
    ----------
    mass : float or `~astropy.units.Quantity`, optional
        Of the whole line, in solar masses; 3e10 by default.
    number : int, optional
        How many point masses make the line, one at each end; 100 by default.
    log_axion_mass : tuple of float, optional
        Least and largest decimal logarithm of the axion's mass in eV, uniform in between; (-24, -22) by
        default.

    Raises
    ------
    InputError
        If a setting is out of range.

    References
    ----------
    Alexander et al. 2020, ApJ 893, 15. DeepLenseSim, https://github.com/mwt5345/DeepLenseSim,
    ``make_vortex`` in ``deeplense/lens.py`` and the masses in ``Model_II/sim_axion.py``.

    Examples
    --------
    >>> import numpy as np
    >>> from lenssr.simulation import AxionVortex
    >>> masses, x, y, numbers = AxionVortex(log_axion_mass=(-23, -23)).draw(np.random.default_rng(1))
    >>> masses.shape, round(float(np.hypot(x, y).max()), 6), numbers
    ((100,), 0.3, {'log_axion_mass': -23.0})
    """

    mass: float = 3e10
    _: KW_ONLY
    number: int = 100
    log_axion_mass: tuple = (-24.0, -22.0)

    def __post_init__(self):
        mass, number = float(strip_unit(self.mass, u.Msun, "mass")), int(self.number)
        if not (math.isfinite(mass) and mass > 0):
            raise InputError(f"mass = {self.mass} is not positive: give solar masses")
        if number != self.number or number < 2:
            raise InputError(f"number = {self.number}: give at least 2 point masses, one for each end")
        logs = check_range(self.log_axion_mass, u.dimensionless_unscaled, "log_axion_mass", -math.inf)
        _set(self, mass=mass, number=number, log_axion_mass=logs)

    def draw(self, rng):
        """Draw the masses and where they are, as `ColdSubhalos.draw`; the number is ``log_axion_mass``."""
        log_mass, angle = float(rng.uniform(*self.log_axion_mass)), rng.uniform(0, 2 * math.pi)
        half = _LENGTH_TIMES_MASS / 10**log_mass
        along = np.linspace(-half, half, self.number)
        masses = np.full(self.number, self.mass / self.number)
        return masses, along * math.cos(angle), along * math.sin(angle), {"log_axion_mass": log_mass}


def _set(instance, **values):
    """Set fields of a frozen dataclass while it is made."""
    for name, value in values.items():
        object.__setattr__(instance, name, value)
