"""What a run needs and what makes sense, before it begins: memory by pixels, sizes and values of an image."""

import math
from dataclasses import replace

import astropy.units as u
import numpy as np
from scipy import ndimage

from lenssr._limits import check_memory
from lenssr.exceptions import InputError
from lenssr.imaging.observation import Observation
from lenssr.imaging.psf import GaussianPSF
from lenssr.mass import MassModel, Shear
from lenssr.options import AUTO, Settings
from lenssr.reconstruction.fine_images import LARGE_IMAGE
from lenssr.units import positive_number

__all__ = ["check_lens", "check_need", "check_sense", "expecting", "pixel_need"]

# Bytes that a run takes for a pixel of the image, and for one of the output, by the kind of source; measured
# on images of 200 to 1000 pixels a side behind a PSF of 2 pixels. An unknown lens takes more.
PIXEL_BYTES = {"interpolation": (110, 40), "sersic": (800, 520), "network": (14_000, 500)}
OTHER_BYTES, UNKNOWN_LENS_BYTES = (16_000, 500), 2500
# The same for large images, which are fitted and drawn in parts.
IN_PARTS_BYTES, IN_PARTS_UNKNOWN_BYTES = (260, 50), 800
# Largest external shear of a lens that is given: its images would be straight lines.
LARGEST_SHEAR = 1.0
# An image is a negative if as many pixels of its mean over 5 x 5 lie this far below its median, and none
# above it beyond noise.
NEGATIVE_SIGMA, NEGATIVE_PIXELS, NOISE_SIGMA, SMOOTH = 7.0, 12, 6.0, 5
NEGATIVE_SHARE = 0.1  # of the lowest, beyond which the highest is light
# Smallest and largest pixel in arcsec, largest pixel in FWHM of the PSF, smallest and largest value of the
# brightest pixel. Chosen: no interferometer resolves less, no lens has its images in one pixel, nothing is
# left of a PSF 20 times as small as one, squares of smaller values vanish, those of larger ones overflow in
# single precision.
SMALLEST_PIXEL, LARGEST_PIXEL, LARGEST_RATIO = 1e-6, 20.0, 20.0
SMALLEST_VALUE, LARGEST_VALUE = 1e-100, 1e18
# Largest signal to noise of a pixel. Chosen: no detector counts 1e24 photons, and round-off is larger beyond.
LARGEST_SIGNAL = 1e12


def pixel_need(settings: Settings, pixels: float = math.inf) -> float:
    """Bytes that a run with these settings takes for each of the ``pixels`` of an image, by default many."""
    in_parts = settings.kind == "sersic" and pixels * settings.scale**2 > LARGE_IMAGE
    own, finer = IN_PARTS_BYTES if in_parts else PIXEL_BYTES.get(settings.kind, OTHER_BYTES)
    need = own + finer * settings.scale**2
    fitted = settings.kind != "interpolation" and (not settings.knows_lens or bool(settings.fit_lens))
    points = settings.oversampling if isinstance(settings.oversampling, int) else 1
    unknown = IN_PARTS_UNKNOWN_BYTES if in_parts else UNKNOWN_LENS_BYTES
    return (need + unknown * fitted) * max(1.0, points**2 / 4)


def check_need(settings: Settings, observation: Observation) -> None:
    """Refuse an image for which a run would take more memory than there is."""
    ny, nx = observation.shape
    what = f"an image of {ny} x {nx} pixels with source = {settings.kind!r} and scale = {settings.scale}"
    simpler = ", or source='sersic'" if settings.kind == AUTO else ""
    remedy = f"give a smaller cutout or scale{simpler}"
    check_memory(pixel_need(settings, ny * nx) * ny * nx, what, remedy)


def check_lens(lens: MassModel | str | None) -> None:
    """Refuse a lens that no galaxy or cluster is: an external shear of 1 has no image that is whole."""
    for part in getattr(lens, "components", ()):  # of a sum, or of several planes
        check_lens(part)
    for shear in [lens] if isinstance(lens, Shear) else []:
        modulus = float(np.hypot(shear.gamma1.value, shear.gamma2.value))
        if not modulus < LARGEST_SHEAR:
            raise InputError(f"a shear of {modulus:.4g}: give one below {LARGEST_SHEAR:g}")


def check_sense(observation: Observation) -> None:
    """Refuse images that show no lens, whatever the fit would say."""
    side, valid = observation.pixel_scale, observation.valid
    if not side <= LARGEST_PIXEL:
        raise InputError(f"pixels of {side:g} arcsec hold whole lenses: check the WCS, or give pixel_scale=")
    if not side >= SMALLEST_PIXEL:
        raise InputError(f"pixels of {side:g} arcsec: check the WCS, or give pixel_scale= in arcsec")
    values = observation.data[valid]
    largest = float(np.abs(values).max())
    if not largest <= LARGEST_VALUE:
        raise InputError(
            f"the image has a value of {largest:.3g}: give it in a unit with values below {LARGEST_VALUE:g}"
        )
    if 0 < largest < SMALLEST_VALUE:
        raise InputError(
            f"no pixel is above {largest:.3g}: give the image in a unit with values above {SMALLEST_VALUE:g}"
        )
    sigma = observation.sigma()[valid]
    if not (np.all(np.isfinite(sigma)) and sigma.max() <= LARGEST_VALUE):
        raise InputError(f"the errors reach {sigma.max():.3g}: correct them, or mask those pixels")
    if not largest <= LARGEST_SIGNAL * sigma.min():
        raise InputError(
            f"the errors go down to {sigma.min():.3g} where the image reaches {largest:.3g}: correct them"
        )
    middle = np.median(values)
    pulls = np.zeros(observation.shape)
    # One sigma for all: where errors follow the light, bright pixels would count for less than dark ones.
    pulls[valid] = (values - middle) / np.median(sigma)
    pulls = ndimage.uniform_filter(pulls, SMOOTH) * SMOOTH
    number = int((pulls < -NEGATIVE_SIGMA).sum())
    if number >= NEGATIVE_PIXELS and pulls.max() < max(NOISE_SIGMA, -NEGATIVE_SHARE * pulls.min()):
        raise InputError(f"{number} pixels are darker than the sky and none is brighter: check the sign")
    if values.max() <= 0 and values.min() < values.max():
        raise InputError(
            f"no pixel is above 0 (the highest is {values.max():.3g}): check the sign, or add the sky back"
        )
    psf = observation.psf
    if isinstance(psf, GaussianPSF):
        fwhm, field = psf.fwhm_at(side), side * max(observation.shape)
        if fwhm > field:
            raise InputError(
                f"the PSF, {fwhm:.4g} arcsec wide, is larger than the image, {field:.4g}: correct it"
            )
        if side > LARGEST_RATIO * fwhm:
            ratio = f"{side / fwhm:.3g} times as large as the PSF ({fwhm:.4g} arcsec)"
            raise InputError(
                f"pixels of {side:.4g} arcsec are {ratio}: correct pixel_scale (or the WCS), or psf"
            )


def expecting(
    settings: Settings, theta_E: u.Quantity | float | None, observation: Observation
) -> Observation:
    """The observation with the Einstein radius that is expected of an unknown lens, if any, in its meta."""
    if theta_E is None:
        return observation
    if settings.knows_lens:
        raise InputError(f"theta_E = {theta_E}, but lens= gives the lens: leave one of them out")
    if settings.kind in ("interpolation", "sisr"):
        raise InputError(f"theta_E = {theta_E}, but source={settings.source!r} looks for no lens")
    radius = positive_number(theta_E, u.arcsec, "theta_E")
    hints = observation.meta.get("hints", {}) | {"theta_E": radius}
    return replace(observation, meta=observation.meta | {"hints": hints})
