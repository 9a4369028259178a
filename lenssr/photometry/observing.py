"""Reading the images of `lenssr.SersicPhotometry`: what users say of one, and the observation it becomes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import astropy.units as u
import numpy as np
from astropy.wcs.utils import proj_plane_pixel_area

from lenssr._wcs import has_scale
from lenssr.exceptions import InputError
from lenssr.imaging.observation import Observation, Reading
from lenssr.imaging.planes import Request
from lenssr.imaging.psf import PSF
from lenssr.imaging.reading import read_planes
from lenssr.imaging.separate_planes import is_stored
from lenssr.units import strip_unit

__all__ = ["image_request", "observation_of", "told_of_images"]

# Lag-1 autocorrelation of the border pixels above which the sky's correlation is measured. Chosen.
SUSPECT_CORRELATION = 0.1
# Largest value of a pixel: squares of more overflow.
LARGEST_VALUE = 1e25


def told_of_images(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords that `Observation.from_any` takes, less the errors and what is None."""
    names = set(Reading.__annotations__) - {"error"}
    return {name: keywords[name] for name in names & set(keywords) if keywords[name] is not None}


def image_request(reading: dict) -> Request:
    """Which planes of a file are read."""
    asked = ("hdus", "band", "centre", "size", "radius")
    # A centre is where the PSF is wanted: all galaxies of the frame are measured.
    return Request(**{name: reading[name] for name in asked if name in reading}, middle=False)


def observation_of(image: Any, mask: Any, error: Any, psf: Any, *, reading: dict) -> Observation:
    """Read one image, with lengths in its own pixels where nothing tells their size."""
    planes = read_planes(image, image_request(reading))
    values = np.abs(planes.data[np.isfinite(planes.data)])
    if values.size and not values.max() <= LARGEST_VALUE:
        raise InputError(f"the image has a value of {values.max():.3g}: give it in another unit")
    celestial = planes.wcs is not None and planes.wcs.has_celestial and has_scale(planes.wcs)
    wcs = planes.wcs if celestial else None
    scale = 1.0
    if reading.get("pixel_scale") is not None:
        scale = strip_unit(reading["pixel_scale"], u.arcsec, "pixel_scale")
    elif wcs is not None:
        # Distorted images have pixels of about one size, which is all that a stamp needs.
        scale = float(np.sqrt(proj_plane_pixel_area(wcs.celestial))) * 3600
    if isinstance(psf, u.Quantity) and psf.isscalar and psf.unit == u.pix:
        psf = PSF.from_fwhm(psf.value * scale * u.arcsec)
    given = reading | {"pixel_scale": scale, "middle": False}
    if error is not None and is_stored(error):
        given, error = given | {"error": error}, None
    observation = Observation.from_any(image, psf=psf, noise=error, mask=mask, **given)
    widening = _correlation_widening(observation)
    no_scale = wcs is None and reading.get("pixel_scale") is None
    observation.meta.update(no_scale=no_scale, sigma=observation.sigma(), widening=widening)
    return observation


def _correlation_widening(observation: Observation) -> float:
    """Factor on errors for noise that correlates from pixel to pixel; 1 for independent noise."""
    z = (observation.data - np.median(observation.data[observation.valid])) / observation.sigma()
    z = np.clip(np.where(observation.valid, z, 0.0), -5, 5)
    depth = max(1, min(z.shape) // 8)
    edges = z[:depth], z[-depth:], z[:, :depth].T, z[:, -depth:].T
    edge = np.concatenate([(part - part.mean()).ravel() for part in edges])
    # Most images have independent noise, which the pixels at the edge show at once.
    if not (edge[1:] * edge[:-1]).mean() > SUSPECT_CORRELATION * (edge**2).mean():
        return 1.0
    sky = observation.sky
    return sky.factor if sky.correlated else 1.0
