"""Stamps of single Sérsic galaxies, to test photometry on."""

from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.modeling.models import Sersic2D
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.table import QTable

from lenssr.exceptions import InputError
from lenssr.grids import PixelGrid
from lenssr.imaging import PSF, render
from lenssr.light import Sersic

__all__ = ["SersicStamp", "SersicStamps"]

# Sub-pixels along a side of a pixel, which keep the place of a cusp within the pixel.
FINE = 5


@dataclass(frozen=True)
class SersicStamp:
    """One galaxy.

    Attributes
    ----------
    image : `~astropy.nddata.CCDData`
        With noise and its uncertainty.
    truth : `~astropy.modeling.functional_models.Sersic2D`
        In zero-based pixels of the stamp.
    noise_free : `~numpy.ndarray`, shape (ny, nx)
        Without sky.
    sky : float
    """

    image: CCDData
    truth: Sersic2D
    noise_free: np.ndarray
    sky: float

    @property
    def flux(self):
        """Total flux of the profile, analytic."""
        return float(Sersic.from_sersic2d(self.truth).flux)


class SersicStamps:
    """Simulated galaxies, each in the middle of a stamp of its own.

    Parameters
    ----------
    size : int, optional
        Number of galaxies, by default 100.
    snr : float, optional
        Signal to noise, ``sqrt(sum(model^2 / sigma^2))``; by default 100. The noise is Gaussian and the
        same in all pixels of a stamp.
    r_eff, n, ellip : tuple of float, optional
        Ranges from which semi-major axis (pixels), index and ellipticity are drawn evenly (the radius in its
        logarithm). By default 2 to 8, 0.6 to 2.5, 0.1 to 0.6.
    shape : tuple of int, optional
        Rows and columns of a stamp, by default ``(64, 64)``.
    fwhm : float, optional
        FWHM of the Gaussian PSF in pixels, by default 2.5.
    seed : int, optional
        By default 0.

    Examples
    --------
    >>> from lenssr.simulation import SersicStamps
    >>> stamps = SersicStamps(2, snr=50, seed=1)
    >>> stamps[0].image.shape, len(stamps.truth)
    ((64, 64), 2)
    """

    def __init__(
        self,
        size=100,
        *,
        snr=100.0,
        r_eff=(2.0, 8.0),
        n=(0.6, 2.5),
        ellip=(0.1, 0.6),
        shape=(64, 64),
        fwhm=2.5,
        seed=0,
    ):
        for name, (low, high) in (("r_eff", r_eff), ("n", n), ("ellip", ellip)):
            if not 0 <= low <= high:
                raise InputError(f"{name} = {(low, high)} is not a range: give its lower end first")
        if not snr > 0:
            raise InputError(f"snr = {snr} is not positive")
        self.size, self.snr, self.shape, self.fwhm, self.seed = size, snr, tuple(shape), fwhm, seed
        self._ranges = {"r_eff": tuple(np.log(r_eff)), "n": n, "ellip": ellip}
        self.psf = PSF.from_fwhm(fwhm * u.arcsec)
        """The PSF for pixels of 1 arcsec; to photometry say ``fwhm * u.pix``."""

    def __len__(self):
        return self.size

    def __getitem__(self, number):
        """Galaxy of this number; the same at every call."""
        if not 0 <= number < self.size:
            raise IndexError(f"galaxy {number} of {self.size}")
        rng = np.random.default_rng([self.seed, number])
        draw = {name: rng.uniform(*ends) for name, ends in self._ranges.items()}
        shift, theta = rng.uniform(-0.5, 0.5, 2), rng.uniform(0, np.pi)
        middle = [(size - 1) / 2 for size in self.shape[::-1]]
        shape = {"r_eff": np.exp(draw["r_eff"]), "n": draw["n"], "ellip": draw["ellip"], "theta": theta}
        model = Sersic2D(amplitude=1.0, x_0=shift[0], y_0=shift[1], **shape)
        light = render(
            PixelGrid(self.shape, 1.0), source=Sersic.from_sersic2d(model), psf=self.psf, scale=FINE
        )
        light = light.reshape(self.shape[0], FINE, self.shape[1], FINE).sum((1, 3))
        truth = Sersic2D(amplitude=1.0, x_0=shift[0] + middle[0], y_0=shift[1] + middle[1], **shape)
        sigma = np.sqrt((light**2).sum()) / self.snr
        sky = 5 * sigma
        data = light + sky + rng.normal(0, sigma, self.shape)
        image = CCDData(
            data, unit=u.electron, uncertainty=StdDevUncertainty(np.full(self.shape, sigma), copy=False)
        )
        return SersicStamp(image, truth, light, float(sky))

    def __iter__(self):
        return (self[number] for number in range(self.size))

    @property
    def truth(self):
        """True parameters of all: a `~astropy.table.QTable` with the names of `~lenssr.SersicPhotometry`."""
        stamps = [(s.truth, s.flux) for s in self]
        table = QTable()
        for name, own in (("x", "x_0"), ("y", "y_0"), ("amplitude",) * 2, ("r_eff",) * 2, ("n",) * 2,
                          ("ellip",) * 2, ("theta",) * 2):  # fmt: skip
            table[name] = [float(getattr(model, own).value) for model, _ in stamps]
        table["flux"] = [flux for _, flux in stamps]
        return table
