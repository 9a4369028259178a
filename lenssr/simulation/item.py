"""A simulated lens, and the base of data sets of them."""

import math
import operator
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import astropy.units as u
import numpy as np
from astropy.modeling import Model
from astropy.nddata import CCDData
from astropy.wcs import WCS

from lenssr.exceptions import InputError
from lenssr.grids import PixelGrid
from lenssr.imaging.noise import NoiseModel
from lenssr.imaging.psf import PSF
from lenssr.mass import MassModel, MassSystem
from lenssr.units import strip_unit

__all__ = ["LensDataset", "SimulatedLens"]

UNIT = u.electron / u.s


@dataclass(frozen=True, eq=False)
class SimulatedLens:
    """One simulated lens: images at two resolutions, and everything that went into them.

    Images are `~astropy.nddata.CCDData` in electron / s per pixel, with a WCS; the exposure in seconds is
    ``meta["EXPTIME"]``.

    Attributes
    ----------
    index : int
        Its place in the data set.
    low, high : `~astropy.nddata.CCDData`
        The noisy images; ``high`` has ``scale`` times as many pixels along a side.
    low_truth, truth : `~astropy.nddata.CCDData`
        The same without noise.
    lens : `~lenssr.mass.MassModel`
        The true lens.
    source : `~lenssr.light.Sersic`
        The true source, in electron / s per arcsec2.
    noise, high_noise : `~lenssr.imaging.NoiseModel`
        How ``low`` and ``high`` were made from their truths; numbers are in electron / s and seconds.
    lens_light : `~lenssr.light.Sersic` or None
        The true light of the lens galaxy.
    psf : `~lenssr.imaging.PSF` or None
        The true point spread function.
    settings : dict
        Numbers of the simulation that belong to no model, such as the signal-to-noise ratio.
    """

    index: int
    low: CCDData
    high: CCDData
    low_truth: CCDData
    truth: CCDData
    lens: MassModel | MassSystem
    source: Model
    noise: NoiseModel
    high_noise: NoiseModel
    lens_light: "Model | None" = None  # quoted: astropy gives | of models a meaning
    psf: PSF | None = None
    settings: dict = field(default_factory=dict)

    @property
    def given(self):
        """What an observer would know besides the image: noise and PSF, as keywords for a resolver's call."""
        known = {"noise": self.noise, "psf": self.psf}
        return {name: value for name, value in known.items() if value is not None}


class LensDataset(ABC):
    """A seeded sequence of simulated lenses.

    Item i depends on the seed and on i only, not on the items made before it. Subclasses make an item in
    ``_item(index)`` and name their settings in ``_settings``.

    Parameters
    ----------
    size : int
        How many lenses there are.
    seed : int
        Which ones; not negative.
    """

    _settings = ("size", "seed")
    _stream = 0

    def __init__(self, size, seed):
        self.size = check_count(size, "size", 1)
        self.seed = check_count(seed, "seed", 0)

    def __len__(self):
        """Count the lenses."""
        return self.size

    def __getitem__(self, index):
        """Simulate one lens; negative numbers count from the end."""
        return self._item(self._checked_index(index))

    def __iter__(self):
        """Simulate one lens after the other."""
        return (self[index] for index in range(self.size))

    def __repr__(self):
        """Show a call that makes the same data set."""
        settings = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._settings)
        return f"{type(self).__name__}({settings})"

    def rng(self, index, *purpose):
        """Start the random numbers of an item.

        Parameters
        ----------
        index : int
            Which item.
        *purpose : int
            Numbers that name another, independent stream of the same item; none name the first.

        Returns
        -------
        rng : `numpy.random.Generator`
        """
        return np.random.default_rng([self.seed, index, self._stream, *purpose])

    def settings(self):
        """Return the settings by name, plain values.

        Returns
        -------
        settings : dict
        """
        values = {name: getattr(self, name) for name in self._settings}
        plain = (str, int, float, type(None))
        return {
            "dataset": type(self).__name__,
            **{name: value if isinstance(value, plain) else repr(value) for name, value in values.items()},
        }

    def write(self, index, directory, *, overwrite=False):
        """Write one lens as a FITS file.

        Parameters
        ----------
        index : int
            Which lens.
        directory : str or `~pathlib.Path`
            An existing folder; the file is named by the index, ``000042.fits``.
        overwrite : bool, optional
            Whether a file of that name may be replaced; False by default.

        Returns
        -------
        path : `~pathlib.Path`

        Raises
        ------
        InputError
            If the file exists, or the folder does not.
        """
        from lenssr.simulation.write import write_item

        return write_item(self[index], directory, self.settings(), overwrite=overwrite)

    @abstractmethod
    def _item(self, index):
        """Simulate the lens of a checked index."""

    def _checked_index(self, index):
        try:
            number = operator.index(index)
        except TypeError as error:
            raise InputError(f"index {index!r} is not an integer: give one, or iterate") from error
        if not -self.size <= number < self.size:
            raise IndexError(f"index {number} is out of range: the data set has {self.size} lenses")
        return number % self.size


def check_count(value, name, least):
    """Return an integer that is at least ``least``, or raise an `InputError`."""
    try:
        number = operator.index(value)
    except TypeError as error:
        raise InputError(f"{name} = {value!r} is not an integer") from error
    if number < least:
        raise InputError(f"{name} = {number} is below {least}: give a larger one")
    return number


def check_range(values, unit, name, above=0.0):
    """Return (least, largest) as floats in ``unit``, the first above a limit, or raise an `InputError`."""
    low, high = (float(strip_unit(value, unit, name)) for value in values)
    if not above < low <= high < math.inf:
        numbers = " of positive numbers" if above == 0 else ""
        raise InputError(f"{name} = {values} is not a range{numbers}: give (least, largest)")
    return low, high


def sky_grid(shape, pixel_scale):
    """Grid with a plain TAN projection, north up, east to the left, its centre at (180, 0) degrees."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.crval = [180.0, 0.0]
    wcs.wcs.crpix = [(shape[1] + 1) / 2, (shape[0] + 1) / 2]
    wcs.wcs.cd = np.diag([-1.0, 1.0]) * pixel_scale / 3600
    wcs.pixel_shape = shape[::-1]
    wcs.wcs.set()
    return PixelGrid(shape, pixel_scale, wcs)


def image(values, grid, exposure=None, **meta):
    """Make a `~astropy.nddata.CCDData` on a grid."""
    header = {**({} if exposure is None else {"EXPTIME": float(exposure)}), **meta}
    return CCDData(values, unit=UNIT, wcs=grid.wcs, meta=header)
