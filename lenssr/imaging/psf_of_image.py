"""The PSF of one image: evaluated where the lens is, and checked against the image's pixels."""

from __future__ import annotations

from typing import Any

import astropy.units as u

from lenssr.exceptions import InputError
from lenssr.grids import PixelGrid
from lenssr.imaging.cutting import sky_place
from lenssr.imaging.psf import PSF, PSFLike
from lenssr.imaging.psf_files import frame_of_psf
from lenssr.imaging.separate_planes import is_stored

__all__ = ["psf_of_image"]

# A PSF wider than the image, or this much narrower than a pixel, belongs to another scale. Chosen.
LEAST_FWHM = 0.02
# Samples of a PSF may be larger than the image's pixels by this much.
COARSER = 0.02
# An image with this share of the side of the frame that a PSF varies over is the whole frame. Chosen.
WHOLE_FRAME = 0.5


def psf_of_image(
    psf: PSFLike | None,
    grid: PixelGrid,
    flags: list[str],
    meta: dict[str, Any],
    told: dict[str, Any],
    centre: Any,
) -> PSF | None:
    """PSF of an image, checked against its pixels; ``told`` are options of `PSF.from_any`."""
    asked = [f"psf_{name}" for name, value in told.items() if value is not None]
    if asked and (psf is None or isinstance(psf, PSF) or (isinstance(psf, u.Quantity) and psf.isscalar)):
        raise InputError(
            f"{' and '.join(asked)}: only a PSF that is an array or a file needs it, leave it out"
        )
    if psf is None:
        return None
    place, given = _place_of(psf, grid, flags, meta, centre), psf
    psf = PSF.from_any(psf, shape=grid.shape, place=place, image_scale=grid.pixel_scale, **told)
    if is_stored(given) or psf.said:
        name = str(getattr(given, "name", given)).split("/")[-1] if is_stored(given) else "a file"
        meta["reading"] = meta.get("reading", {}) | {"psf": f"{name}{psf.said}"}
    if psf.pixel_scale is not None and psf.pixel_scale / psf.oversampling > grid.pixel_scale * (1 + COARSER):
        raise InputError(
            f"the PSF has samples of {psf.pixel_scale / psf.oversampling:.4g} arcsec, coarser than the "
            f"image's pixels of {grid.pixel_scale:.4g}: give one at their sampling or finer"
        )
    fwhm = psf.fwhm_at(grid.pixel_scale)
    if fwhm > max(grid.shape) * grid.pixel_scale or fwhm < LEAST_FWHM * grid.pixel_scale:
        raise InputError(
            f"the PSF has a FWHM of {fwhm:.4g} arcsec, the image {grid.shape[1]} x {grid.shape[0]} pixels "
            f"of {grid.pixel_scale:.4g} arcsec: check pixel_scale= and psf="
        )
    along = psf.oversampling * (1.0 if psf.pixel_scale is None else grid.pixel_scale / psf.pixel_scale)
    cropped = psf.cropped(tuple(int(size * along + 1e-6) for size in grid.shape))
    if cropped is not psf:
        flags.append("psf_cropped")
    flags.extend(psf.flags)
    return cropped


def _place_of(
    psf: Any, grid: PixelGrid, flags: list[str], meta: dict[str, Any], centre: Any
) -> tuple[float, float] | None:
    """Zero-based pixel, in the frame that a PSF varies over, where it is wanted; None for its middle."""
    column, row = grid.center
    if centre is not None:
        column, row = (float(one) for one in grid._celestial().world_to_pixel(sky_place(centre)))
    size = frame_of_psf(psf)
    if size is None:
        return column, row
    if "corner" in meta:
        return column + meta["corner"][0], row + meta["corner"][1]
    # A whole frame is about as large as what its PSF varies over; where a cutout lies in it is not known.
    if max(grid.shape[1] / size[0], grid.shape[0] / size[1]) > WHOLE_FRAME:
        return column, row
    flags.append("psf_place_guessed")
    meta.setdefault("assumed", {})["psf_place_guessed"] = "the PSF in the middle of its frame"
    return None
