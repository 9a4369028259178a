"""Stamps of single Sérsic galaxies, to test photometry on."""

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass

import astropy.units as u
import numpy as np
from astropy.modeling.models import Sersic2D
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.table import QTable

from lenssr.exceptions import InputError
from lenssr.grids import PixelGrid
from lenssr.imaging import PSF, render
from lenssr.light import Sersic
from lenssr.simulation.camera import binned
from lenssr.units import positive_number

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
    def flux(self) -> float:
        """Total flux of the profile, analytic."""
        return float(Sersic.from_sersic2d(self.truth).flux)


@dataclass(eq=False)
class SersicStamps:
    """Simulated galaxies, each in the middle of a stamp.

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

    size: int = 100
    _: KW_ONLY
    snr: float = 100.0
    r_eff: tuple[float, float] = (2.0, 8.0)
    n: tuple[float, float] = (0.6, 2.5)
    ellip: tuple[float, float] = (0.1, 0.6)
    shape: tuple[int, int] = (64, 64)
    fwhm: float = 2.5
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("r_eff", "n", "ellip"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise InputError(f"{name} = {(low, high)} is not a range: give its lower end first")
        self.snr = positive_number(self.snr, None, "snr")
        self.shape = self.shape[0], self.shape[1]
        self.psf = PSF.from_fwhm(self.fwhm * u.arcsec)
        """The PSF for pixels of 1 arcsec; to photometry say ``fwhm * u.pix``."""

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, number: int) -> SersicStamp:
        """Galaxy of this number; the same at every call."""
        if not 0 <= number < self.size:
            raise IndexError(f"galaxy {number} of {self.size}")
        rng, (ny, nx) = np.random.default_rng([self.seed, number]), self.shape
        r_eff = np.exp(rng.uniform(*np.log(self.r_eff)))
        shape = {"r_eff": r_eff, "n": rng.uniform(*self.n), "ellip": rng.uniform(*self.ellip)}
        (x, y), shape["theta"] = rng.uniform(-0.5, 0.5, 2), rng.uniform(0, np.pi)
        source = Sersic.from_sersic2d(Sersic2D(amplitude=1.0, x_0=x, y_0=y, **shape))
        light = binned(render(PixelGrid(self.shape, 1.0), source=source, psf=self.psf, scale=FINE), FINE)
        truth = Sersic2D(amplitude=1.0, x_0=x + (nx - 1) / 2, y_0=y + (ny - 1) / 2, **shape)
        sigma = np.sqrt((light**2).sum()) / self.snr
        sky = 5 * sigma
        error = StdDevUncertainty(np.full(self.shape, sigma), copy=False)
        data = light + sky + rng.normal(0, sigma, self.shape)
        return SersicStamp(CCDData(data, unit=u.electron, uncertainty=error), truth, light, float(sky))

    def __iter__(self) -> Iterator[SersicStamp]:
        return (self[number] for number in range(self.size))

    @property
    def truth(self) -> QTable:
        """True parameters of all: a `~astropy.table.QTable` with the names of `~lenssr.SersicPhotometry`."""
        stamps = list(self)
        names = {"x": "x_0", "y": "y_0"} | {n: n for n in ("amplitude", "r_eff", "n", "ellip", "theta")}
        truths = [stamp.truth for stamp in stamps]
        columns = {name: [float(getattr(one, own).value) for one in truths] for name, own in names.items()}
        return QTable(columns | {"flux": [stamp.flux for stamp in stamps]})
