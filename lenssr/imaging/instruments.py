"""Cameras that take images of strong lenses: their sampling, resolution and noise, with sources.

The numbers describe typical images in one broad filter, for simulations and exposure estimates. They
replace neither a measured PSF nor the error plane of a real image.
"""

import math
from dataclasses import dataclass

import astropy.units as u

from lenssr.exceptions import InputError
from lenssr.imaging.noise import PoissonNoise
from lenssr.imaging.psf import PSF
from lenssr.units import strip_unit

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
        What it is called.
    pixel_scale : `~astropy.units.Quantity`
        Side of a pixel, an angle.
    psf_fwhm : `~astropy.units.Quantity`
        Full width at half maximum of the PSF, an angle.
    gain : float
        Electrons in one digital unit.
    read_noise : float
        Electrons in one exposure.
    zero_point : float
        AB magnitude that gives one electron a second.
    sky : float
        Brightness of a dark sky, AB magnitudes per arcsec2.
    exposure : `~astropy.units.Quantity`
        Typical total exposure time.
    exposures : int
        Number of exposures that it is made of.
    reference : str
        Where the numbers come from.

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

    def psf(self):
        """Gaussian PSF of the camera's width.

        Returns
        -------
        psf : `~lenssr.imaging.PSF`
        """
        return PSF.from_fwhm(self.psf_fwhm)

    def noise(self, exposure=None, *, exposures=None):
        """Noise of a sky-subtracted image in electrons per second.

        Parameters
        ----------
        exposure : `~astropy.units.Quantity` or float, optional
            Total exposure time, a number in seconds; by default the typical one.
        exposures : int, optional
            Number of exposures that it is made of, each read once; by default as many as are typical.

        Returns
        -------
        noise : `~lenssr.imaging.PoissonNoise`
            Photon noise of the model; sky and read noise as background.

        Raises
        ------
        InputError
            If the exposure or the number is not positive.
        """
        seconds = strip_unit(self.exposure if exposure is None else exposure, u.s, "exposure")
        if not (math.isfinite(seconds) and seconds > 0):
            raise InputError(f"exposure = {exposure} is not positive: give a time, such as 2000 * u.s")
        number = self.exposures if exposures is None else exposures
        if int(number) != number or number < 1:
            raise InputError(f"exposures = {exposures} is not a positive integer")
        electrons = self.sky_rate * seconds + number * self.read_noise**2
        return PoissonNoise(seconds, math.sqrt(electrons) / seconds)

    @property
    def sky_rate(self):
        """Electrons per second that the sky gives in a pixel."""
        return self.count_rate(self.sky) * self.pixel_scale.to_value(u.arcsec) ** 2

    def count_rate(self, magnitude):
        """Electrons per second from an object.

        Parameters
        ----------
        magnitude : float or `~astropy.units.Quantity`
            AB magnitude.

        Returns
        -------
        rate : float
        """
        value = magnitude.value if isinstance(magnitude, u.Quantity) else magnitude
        return 10 ** (-0.4 * (value - self.zero_point))


_WFC3 = (
    "WFC3 Instrument Handbook (STScI): plate scale and gain ch. 2 and 5, PSF tables 6.7 and 7.5, sky ch. 9"
)

HST_WFC3_UVIS = Instrument(
    name="HST WFC3/UVIS",
    filter="F606W",
    pixel_scale=0.0396 * u.arcsec,
    psf_fwhm=0.07 * u.arcsec,
    gain=1.55,
    read_noise=3.1,
    zero_point=26.10,
    sky=22.5,
    exposure=2400 * u.s,
    exposures=4,
    reference=f"{_WFC3}; zero point: Calamida et al. (2021), WFC3 ISR 2021-04",
)
"""HST Wide Field Camera 3, ultraviolet and visible channel, F606W."""

HST_WFC3_IR = Instrument(
    name="HST WFC3/IR",
    filter="F160W",
    pixel_scale=0.128 * u.arcsec,
    psf_fwhm=0.15 * u.arcsec,
    gain=2.5,
    read_noise=12.0,
    zero_point=25.95,
    sky=22.3,
    exposure=2400 * u.s,
    exposures=4,
    reference=f"{_WFC3}, read noise of a ramp sec. 5.7; zero point: Kalirai et al. (2009), WFC3 ISR 2009-30",
)
"""HST Wide Field Camera 3, infrared channel, F160W, pixels as they are on the detector."""

HST_ACS_WFC = Instrument(
    name="HST ACS/WFC",
    filter="F814W",
    pixel_scale=0.05 * u.arcsec,
    psf_fwhm=0.09 * u.arcsec,
    gain=2.0,
    read_noise=4.0,
    zero_point=25.95,
    sky=22.3,
    exposure=2100 * u.s,
    exposures=4,
    reference="ACS Instrument Handbook (STScI), ch. 3 to 5; exposure and FWHM: Koekemoer et al. (2007), "
    "ApJS 172, 196; zero point: Bohlin (2016), AJ 152, 60",
)
"""HST Advanced Camera for Surveys, wide field channel, F814W."""

EUCLID_VIS = Instrument(
    name="Euclid VIS",
    filter="I_E",
    pixel_scale=0.1 * u.arcsec,
    psf_fwhm=0.16 * u.arcsec,
    gain=3.4,
    read_noise=4.2,
    zero_point=25.72,
    sky=22.3,
    exposure=2260 * u.s,
    exposures=4,
    reference="Euclid Collaboration: Cropper et al. (2025), A&A 697, A2 (detectors); Mellier et al. (2025), "
    "A&A 697, A1 (survey: four exposures of 565 s, zero point, sky); McCracken et al. (2025), "
    "arXiv:2503.15303 (FWHM of the Q1 images)",
)
"""Euclid's visible imager, the wide survey."""

RUBIN_LSST = Instrument(
    name="Rubin LSSTCam",
    filter="i",
    pixel_scale=0.2 * u.arcsec,
    psf_fwhm=0.71 * u.arcsec,
    gain=2.3,
    read_noise=8.8,
    zero_point=27.85,
    sky=20.48,
    exposure=6900 * u.s,
    exposures=230,
    reference="Jones, SMTN-002 (gain, zero point at airmass 1, dark sky, read noise); Ivezic et al. (2019), "
    "ApJ 873, 111 (median seeing, 230 visits of 30 s in ten years)",
)
"""The camera of the Vera C. Rubin Observatory, i band, ten years of the wide survey."""

ROMAN_WFI = Instrument(
    name="Roman WFI",
    filter="F158",
    pixel_scale=0.11 * u.arcsec,
    psf_fwhm=0.128 * u.arcsec,
    gain=1.0,
    read_noise=8.5,
    zero_point=26.38,
    sky=22.7,
    exposure=642 * u.s,
    exposures=6,
    reference="NASA GSFC, Roman WFI technical pages, v1.1, 2025 (sampling, FWHM, read noise, zodiacal light "
    "at 1.44 times its minimum); report Roman-STScI-000825 (zero point); wide-area survey, medium tier: six "
    "exposures of 107 s",
)
"""The Wide Field Instrument of the Nancy Grace Roman Space Telescope, F158."""

INSTRUMENTS = {
    "hst_wfc3_uvis": HST_WFC3_UVIS,
    "hst_wfc3_ir": HST_WFC3_IR,
    "hst_acs_wfc": HST_ACS_WFC,
    "euclid_vis": EUCLID_VIS,
    "rubin_lsst": RUBIN_LSST,
    "roman_wfi": ROMAN_WFI,
}
"""All instruments by a short name."""
