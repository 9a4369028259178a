"""What the fine images are seen with: the telescope's PSF at a finer sampling, a narrower one, or none."""

import astropy.units as u
import numpy as np

from lenssr.exceptions import InputError
from lenssr.grids import transformed
from lenssr.imaging.operator import ImagingOperator
from lenssr.imaging.psf import PSF
from lenssr.imaging.render_scene import kernel_options
from lenssr.options import PIXEL
from lenssr.reconstruction import decisions

__all__ = [
    "check_output_psf",
    "describe_psf_out",
    "fine_kernel",
    "fine_operator",
    "is_extrapolated",
    "surroundings",
]

# Parts into which a side of the field is cut to follow the little light that falls beside it.
PARTS = 32


def check_output_psf(psf_out, observation, scale):
    """Refuse a PSF of the output that the pixels do not sample, or that the telescope never had.

    Parameters
    ----------
    psf_out : None, "pixel" or `~astropy.units.Quantity`
    observation : `~lenssr.imaging.Observation`
    scale : int

    Raises
    ------
    InputError
        If a FWHM is below two output pixels, or not below that of the PSF of the image.
    """
    if not isinstance(psf_out, u.Quantity):
        return
    fwhm, pixel = psf_out.to_value(u.arcsec), observation.grid.pixel_scale / scale
    if observation.psf is None:
        raise InputError(f"psf_out = {psf_out}: the image has no PSF to narrow: give psf=, or leave it out")
    own = observation.psf_fwhm
    if fwhm < decisions.PIXELS_ACROSS * pixel * (1 - 1e-9):
        raise InputError(
            f"psf_out = {psf_out} is below 2 output pixels of {pixel:.4g} arcsec, which do not sample it: "
            f"give at least {decisions.PIXELS_ACROSS * pixel:.4g} arcsec, a larger scale=, or 'pixel'"
        )
    if not fwhm < own:
        raise InputError(
            f"psf_out = {psf_out} is not narrower than the PSF of the image, of FWHM {own:.4g} arcsec: "
            "give a smaller one, or leave it out"
        )


def describe_psf_out(psf_out):
    """Say in a word or two what the fine images are seen with."""
    if psf_out is None:
        return "telescope"
    return PIXEL if isinstance(psf_out, str) else f"Gaussian, FWHM {psf_out.to_value(u.arcsec):.6g} arcsec"


def is_extrapolated(psf_out, observation):
    """Whether the fine images show what the PSF kept from the data."""
    return isinstance(psf_out, str) and observation.psf is not None


def _output_psf(psf_out, observation):
    if psf_out is None:
        return observation.psf
    return None if isinstance(psf_out, str) else PSF.from_fwhm(psf_out)


def fine_kernel(observation, scale, psf_out=None):
    """The PSF of the fine images at their sampling, or None.

    Parameters
    ----------
    observation : `~lenssr.imaging.Observation`
    scale : int
    psf_out : None, "pixel" or `~astropy.units.Quantity`, optional

    Returns
    -------
    kernel : `~numpy.ndarray` or None
    """
    psf = _output_psf(psf_out, observation)
    return None if psf is None else psf.kernel(observation.grid.matrix, subsampling=scale)


def fine_operator(observation, scale, oversampling, psf_out=None, **options):
    """The operator from rays to the fine images.

    Parameters
    ----------
    observation : `~lenssr.imaging.Observation`
    scale : int
    oversampling : int or "auto"
    psf_out : None, "pixel" or `~astropy.units.Quantity`, optional
    **options
        Passed to `~lenssr.imaging.ImagingOperator`.

    Returns
    -------
    operator : `~lenssr.imaging.ImagingOperator`
    """
    grid, psf = observation.grid.upsample(scale), _output_psf(psf_out, observation)
    kernel, how = kernel_options(psf, grid.matrix, scale=scale, oversampling=oversampling)
    return ImagingOperator(grid, kernel, oversampling=oversampling, **how, **options)


def surroundings(grid):
    """Rays beside an image, out to three times its size: what a total flux needs beyond its pixels.

    Parameters
    ----------
    grid : `~lenssr.grids.PixelGrid`

    Returns
    -------
    x, y, area : `~numpy.ndarray`, shape (R,)
        In arcsec and arcsec2.
    """
    height, width = (side * grid.pixel_scale for side in grid.shape)
    steps = (np.arange(3 * PARTS) + 0.5) / PARTS - 1.5
    y, x = np.meshgrid(steps, steps, indexing="ij")
    beside = np.maximum(np.abs(x), np.abs(y)) > 0.5
    x, y = transformed(grid.unit_matrix, x[beside] * width, y[beside] * height)
    area = np.full(len(x), width * height / PARTS**2)
    return x + grid.origin[0], y + grid.origin[1], area
