"""Cameras that take images of strong lenses: their sampling, resolution and noise, with sources.

The numbers describe typical images in one broad filter, for simulations and exposure estimates, not a
replacement for the measured PSF or the error plane of an image. Each ``reference`` names the sources of the
numbers; those that it calls approximate are rounded or chosen here: the sky differs between fields by
tenths of a magnitude, a zero point between calibrations by hundredths.
"""

import math
import tomllib
from dataclasses import dataclass
from pathlib import Path

import astropy.units as u

from lenssr.imaging.noise import PoissonNoise
from lenssr.imaging.psf import PSF
from lenssr.units import positive_integer, positive_number

__all__ = [
    "EUCLID_VIS",
    "HST_ACS_WFC",
    "HST_WFC3_IR",
    "HST_WFC3_UVIS",
    "INSTRUMENTS",
    "ROMAN_WFI",
    "RUBIN_LSST",
    "Instrument",
]


@dataclass(frozen=True)
class Instrument:
    """A camera with one filter.

    Parameters
    ----------
    name, filter : str
        Names of camera and filter.
    pixel_scale : `~astropy.units.Quantity`
        Side of a pixel, an angle.
    psf_fwhm : `~astropy.units.Quantity`
        Full width at half maximum of the PSF, an angle.
    gain : float
        Electrons per digital unit.
    read_noise : float
        Electrons per exposure.
    zero_point : float
        AB magnitude of one electron per second.
    sky : float
        Brightness of a dark sky, AB magnitudes per arcsec2.
    exposure : `~astropy.units.Quantity`
        Typical total exposure time.
    exposures : int
        Number of exposures that it consists of.
    reference : str
        Sources of the numbers.

    Examples
    --------
    >>> from lenssr.imaging.instruments import EUCLID_VIS
    >>> EUCLID_VIS.psf()
    PSF.from_fwhm(0.16 * u.arcsec)
    >>> EUCLID_VIS.noise().exposure
    2260.0
    """

    name: str
    filter: str
    pixel_scale: u.Quantity
    psf_fwhm: u.Quantity
    gain: float
    read_noise: float
    zero_point: float
    sky: float
    exposure: u.Quantity
    exposures: int
    reference: str

    def psf(self) -> PSF:
        """Gaussian PSF of the camera's width."""
        return PSF.from_fwhm(self.psf_fwhm)

    def noise(
        self, exposure: u.Quantity | float | None = None, *, exposures: int | None = None
    ) -> PoissonNoise:
        """Noise of a sky-subtracted image in electrons per second.

        Parameters
        ----------
        exposure : `~astropy.units.Quantity` or float, optional
            Total exposure time, a number in seconds; by default the typical one.
        exposures : int, optional
            Number of exposures that it consists of, each read once; by default the typical number.

        Returns
        -------
        noise : `~lenssr.imaging.PoissonNoise`
            Photon noise of the model; sky and read noise as background.

        Raises
        ------
        InputError
            If the exposure or the number is not positive.
        """
        seconds = positive_number(self.exposure if exposure is None else exposure, u.s, "exposure")
        number = positive_integer(self.exposures if exposures is None else exposures, "exposures")
        electrons = self.sky_rate * seconds + number * self.read_noise**2
        return PoissonNoise(seconds, math.sqrt(electrons) / seconds)

    @property
    def sky_rate(self) -> float:
        """Electrons per second from the sky in a pixel."""
        return self.count_rate(self.sky) * self.pixel_scale.to_value(u.arcsec) ** 2

    def count_rate(self, magnitude: u.Quantity | float) -> float:
        """Electrons per second from an object of an AB magnitude, a number or a `~astropy.units.Quantity`."""
        value = magnitude.value if isinstance(magnitude, u.Quantity) else magnitude
        return 10 ** (-0.4 * (value - self.zero_point))


def _read() -> dict[str, Instrument]:
    table = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    units = {"pixel_scale": u.arcsec, "psf_fwhm": u.arcsec, "exposure": u.s}
    return {
        key: Instrument(**entry | {name: entry[name] * unit for name, unit in units.items()})
        for key, entry in table.items()
    }


INSTRUMENTS = _read()
"""All instruments by a short name."""

HST_WFC3_UVIS = INSTRUMENTS["hst_wfc3_uvis"]
"""HST Wide Field Camera 3, ultraviolet and visible channel, F606W."""

HST_WFC3_IR = INSTRUMENTS["hst_wfc3_ir"]
"""HST Wide Field Camera 3, infrared channel, F160W, pixels as they are on the detector."""

HST_ACS_WFC = INSTRUMENTS["hst_acs_wfc"]
"""HST Advanced Camera for Surveys, wide field channel, F814W."""

EUCLID_VIS = INSTRUMENTS["euclid_vis"]
"""Euclid's visible imager, the wide survey."""

RUBIN_LSST = INSTRUMENTS["rubin_lsst"]
"""The camera of the Vera C. Rubin Observatory, i band, ten years of the wide survey."""

ROMAN_WFI = INSTRUMENTS["roman_wfi"]
"""The Wide Field Instrument of the Nancy Grace Roman Space Telescope, F158."""
