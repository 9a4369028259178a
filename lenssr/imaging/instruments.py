"""Cameras that take images of strong lenses: their sampling, resolution and noise, with sources.

The numbers describe typical images in one broad filter, for simulations and exposure estimates, not a
replacement for the measured PSF or the error plane of an image. Each ``reference`` names the sources of the
numbers; those that it calls approximate are rounded or chosen here: the sky differs between fields by
tenths of a magnitude, a zero point between calibrations by hundredths.
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
        """Electrons per second from the sky in a pixel."""
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


HST_WFC3_UVIS = Instrument(
    name="HST WFC3/UVIS",
    filter="F606W",
    pixel_scale=0.0396 * u.arcsec,
    psf_fwhm=0.07 * u.arcsec,
    gain=1.55,
    read_noise=3.1,
    zero_point=26.07,
    sky=22.5,
    exposure=2400 * u.s,
    exposures=4,
    reference="WFC3 Instrument Handbook (STScI): Table 5.1 (gain, read noise), sec. 2.2 (a pixel of 0.0395 "
    "arcsec; drizzled images have 0.0396); zero point: AB magnitude of STScI's system throughput for chip "
    "1 before its revision in 2020 (Calamida et al. 2022, arXiv:2205.13014); approximate: FWHM (Table 6.7 "
    "of the handbook has it by wavelength), sky (average zodiacal light and earthshine, sec. 9.7), "
    "exposures of one orbit",
)
"""HST Wide Field Camera 3, ultraviolet and visible channel, F606W."""

HST_WFC3_IR = Instrument(
    name="HST WFC3/IR",
    filter="F160W",
    pixel_scale=0.128 * u.arcsec,
    psf_fwhm=0.15 * u.arcsec,
    gain=2.3,
    read_noise=12.0,
    zero_point=25.95,
    sky=22.3,
    exposure=2400 * u.s,
    exposures=4,
    reference="WFC3 Instrument Handbook (STScI): Table 5.1 (gain as measured; the setting is called 2.5), "
    "sec. 7.4 (pixels of 0.135 by 0.121 arcsec, here a square of that area), ch. 9 (read noise of a fitted "
    "ramp of 16 reads); zero point: AB magnitude of STScI's system throughput before its revision in 2020 "
    "(Calamida et al. 2022, arXiv:2205.13014); approximate: FWHM (Table 7.5 of the handbook has it by "
    "wavelength), sky (average zodiacal light and earthshine, sec. 9.7), exposures of one orbit",
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
    exposure=2028 * u.s,
    exposures=4,
    reference="ACS Instrument Handbook (STScI): Table 3.1 (pixel, gain); FWHM in COSMOS: Scoville et al. "
    "(2007), ApJS 172, 38; exposure, the median of COSMOS: Koekemoer et al. (2007), "
    "arXiv:astro-ph/0703095; approximate: read noise (3.75 to 5.65 by amplifier and epoch), zero point "
    "(25.94 to 25.96 by epoch and calibration; the method: Bohlin 2016, AJ 152, 60), sky (average zodiacal "
    "light and earthshine, sec. 9.4 of the handbook)",
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
    reference="Euclid Consortium, web page of the VIS instrument (pixel, gain, four exposures of 565 s); "
    "the instrument: Cropper et al. (2025), A&A 697, A2; FWHM of the Q1 images: McCracken et al. (2025), "
    "arXiv:2503.15303; approximate: read noise (below 4.4 on that page), zero point and sky, taken from "
    "the Euclid configuration of lenstronomy, which cites Cuillandre et al. (2025), A&A 697, A6, for the "
    "last two",
)
"""Euclid's visible imager, the wide survey."""

RUBIN_LSST = Instrument(
    name="Rubin LSSTCam",
    filter="i",
    pixel_scale=0.2 * u.arcsec,
    psf_fwhm=0.71 * u.arcsec,
    gain=1.6,
    read_noise=8.8,
    zero_point=28.17,
    sky=20.46,
    exposure=5520 * u.s,
    exposures=184,
    reference="Jones, SMTN-002, with throughputs v1.9, doi:10.71929/rubin/3408482 (gain 1.5 to 1.7, zero "
    "point through the standard atmosphere, dark sky at zenith, highest read noise allowed, FWHM_geom for "
    "its fiducial FWHM_eff of 0.80 arcsec); Ivezic et al. (2019), ApJ 873, 111, Table 1 (pixel, 184 visits "
    "in ten years, of 30 s each, here read once)",
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
    reference="NASA GSFC, Roman WFI technical page (pixel; sky: zodiacal light, at its minimum 0.244 "
    "electrons per second in a pixel, 1.5 times that at high galactic latitudes); STScI, "
    "roman-technical-information (FWHM); GalSim, galsim.roman (read noise of an exposure; gain of one, "
    "images being in electrons); zero point and the six exposures of 107 s of the wide-area survey's "
    "medium tier as in lenstronomy, which cites report Roman-STScI-000825 and STScI's page of the survey",
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
