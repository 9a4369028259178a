"""PSFs as files hold them: images of any sampling, PSFEx, grids of PSFs, STPSF; at the place of the lens."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.io import fits

from lenssr import _wcs
from lenssr.exceptions import InputError
from lenssr.imaging.fits_files import is_file, open_fits, pixels, shape_of
from lenssr.imaging.image_file import ImageFile, wcs_of
from lenssr.imaging.planes import Array

__all__ = ["StoredPSF", "frame_of_psf", "photutils_samples"]

# Keywords of the side of a sample in arcsec.
_SCALES = ("PIXELSCL", "PIXSCALE", "PIXSCAL1", "PIXSCL", "SAMPSCL")
# HDUs of STPSF and WebbPSF: with distortion before without, finer before the detector's sampling.
_STPSF = ("OVERDIST", "DET_DIST", "OVERSAMP", "DET_SAMP")
# Samples that differ from the image's pixels by less are the image's pixels.
SAME_SAMPLING = 0.01


@dataclass(frozen=True)
class StoredPSF:
    """A PSF as a file holds it.

    ``at(column, row)`` gives its samples at a place of the image, in the zero-based pixels of the frame that
    the PSF was made for; ``sample`` is the side of one in arcsec, ``per_pixel`` their number along a pixel of
    the image; both are None where the file does not say, and samples are then the image's pixels. ``size`` is
    (width, height) of the frame that it varies over, or None where it is the same everywhere.
    """

    at: Callable[[float, float], Array]
    sample: float | None = None
    per_pixel: float | None = None
    includes_pixel: bool = False
    size: tuple[float, float] | None = None
    said: str = ""

    @property
    def sampling(self) -> str:
        """The sampling in words, to put behind the name of the HDU."""
        if self.sample is not None:
            return f", {self.sample:.4g} arcsec a sample ({self.said})"
        return "" if self.per_pixel is None else f", {self.per_pixel:.4g} samples a pixel ({self.said})"

    @classmethod
    def of_image(cls, hdu: Any) -> StoredPSF:
        """PSF of an HDU with one image, whose header says how it is sampled."""
        header, shape = hdu.header, shape_of(hdu)
        if len([size for size in shape if size > 1]) == 3 and "NXPSFS" in header:
            return _std_psf(hdu)
        array = np.array(pixels(hdu), dtype=np.float64)
        sample, said = _sample_of(header)
        detector = hdu.name.upper() in ("DET_SAMP", "DET_DIST")
        per_pixel = None
        if sample is None:
            factors = ((name, header.get(name)) for name in ("OVERSAMP", "DET_SAMP", "PSFOSAMP"))
            known = ((name, one) for name, one in factors if isinstance(one, (int, float)) and one > 0)
            said, per_pixel = next(known, ("", None))
        return cls(lambda column, row: array, sample, per_pixel, detector, None, said)

    @classmethod
    def of_file(cls, hdus: fits.HDUList, chosen: Any = None) -> StoredPSF:
        """PSF of a file: PSFEx, a grid, STPSF, or an image.

        Raises
        ------
        InputError
            If the file holds none, or several images of which none is called a PSF.
        """
        if chosen is None:
            table = next((hdu for hdu in hdus if "PSFAXIS1" in hdu.header and not hdu.is_image), None)
            if table is not None:
                return _psfex(table)
            images = [hdu for hdu in hdus if len(shape_of(hdu)) >= 2]
            order = ("PSF", "PSFIMAGE", "PSF_IMAGE", *_STPSF)
            named = (hdu for name in order for hdu in images if hdu.name.upper() == name)
            found = next(named, images[0] if images else None)
            if found is None:
                known = ", ".join(f"{hdu.name or 'unnamed'}" for hdu in hdus)
                raise InputError(f"no two-dimensional image of a PSF among the HDUs ({known}): name it")
            return cls.of_image(found)
        return cls.of_image(ImageFile(hdus).pick(chosen))


def _sample_of(header: fits.Header) -> tuple[float | None, str]:
    """Side of a sample in arcsec, by a keyword or else the PSF's own WCS, and what says so."""
    for name in _SCALES:
        value = header.get(name)
        if isinstance(value, (int, float)) and math.isfinite(value) and value > 0:
            return float(value), name
    if not any(name in header for name in ("CD1_1", "CDELT1", "PC1_1")):
        return None, ""
    try:
        wcs = wcs_of(header)
        if wcs is not None and wcs.has_celestial and _wcs.has_scale(wcs):
            return _wcs.side_at(wcs, *(np.array(wcs.wcs.crpix) - 1)), "its WCS"
    except InputError:
        pass
    return None, ""


def _psfex(table: Any) -> StoredPSF:
    """PSFEx: images that a polynomial of the place multiplies (Bertin 2011; PSFEx manual, appendix)."""
    header = table.header
    try:
        basis = np.array(table.data["PSF_MASK"][0], dtype=np.float64)
        axes = int(header.get("POLNAXIS", 0))
        degree = int(header.get("POLDEG1", 0)) if axes else 0
        zero = [float(header[f"POLZERO{axis}"]) for axis in range(1, axes + 1)]
        scale = [float(header[f"POLSCAL{axis}"]) for axis in range(1, axes + 1)]
        per_pixel = 1 / float(header["PSF_SAMP"])
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        raise InputError(f"the PSFEx file lacks {error}: make it again") from error
    if axes not in (0, 2):
        raise InputError(
            f"the PSFEx file varies with {axes} things: only one that varies with x and y is read"
        )

    def at(column: float, row: float) -> Array:
        # The places of PSFEx are FITS pixels, from 1.
        x, y = (
            ((one + 1 - z) / s for one, z, s in zip((column, row), zero, scale, strict=True))
            if axes
            else (0, 0)
        )
        terms = [x**i * y**j for j in range(degree + 1) for i in range(degree + 1 - j)]
        return np.tensordot(np.array(terms), basis.reshape(-1, *basis.shape[-2:])[: len(terms)], axes=1)

    size = (zero[0] + scale[0] / 2, zero[1] + scale[1] / 2) if axes and degree else None
    return StoredPSF(at, None, per_pixel, True, size, "PSF_SAMP")


def _std_psf(hdu: Any) -> StoredPSF:
    """STDPSF: a grid of effective PSFs, 4 samples a pixel, interpolated bilinearly (Anderson 2016)."""
    header, cube = hdu.header, np.array(hdu.section[:], dtype=np.float64)
    across, up = int(header["NXPSFS"]), int(header["NYPSFS"])
    try:
        columns = np.array([float(header[f"IPSFX{i + 1:02d}"]) for i in range(across)]) - 1
        rows = np.array([float(header[f"JPSFY{i + 1:02d}"]) for i in range(up)]) - 1
        grid = cube.reshape(up, across, *cube.shape[-2:])
    except (KeyError, ValueError) as error:
        raise InputError(f"the grid of PSFs cannot be read ({error}): give one PSF") from error

    def at(column: float, row: float) -> Array:
        (i, a), (j, b) = _between(columns, column), _between(rows, row)
        near, far = min(i + 1, across - 1), min(j + 1, up - 1)
        lower = (1 - a) * grid[j, i] + a * grid[j, near]
        return (1 - b) * lower + b * ((1 - a) * grid[far, i] + a * grid[far, near])

    size = (float(columns.max()) + 1, float(rows.max()) + 1) if len(cube) > 1 else None
    return StoredPSF(at, None, 4.0, True, size, "STDPSF")


def _between(places: Sequence[float] | Any, value: float) -> tuple[int, float]:
    """Number of the place before a value, and the share of the way to the next one; held at the ends."""
    if len(places) < 2:
        return 0, 0.0
    number = int(np.clip(np.searchsorted(places, value) - 1, 0, len(places) - 2))
    share = (value - places[number]) / (places[number + 1] - places[number])
    return number, float(np.clip(share, 0, 1))


def photutils_samples(
    model: Any, shape: tuple[int, ...] | None, place: tuple[float, float] | None = None
) -> tuple[Array, int]:
    """Samples of a photutils model about its own centre, on the grid of its oversampling, and that."""
    oversampling = np.atleast_1d(model.oversampling)
    if len(set(oversampling.tolist())) != 1:
        raise InputError(f"the PSF has oversampling {tuple(oversampling)}: one for both axes is needed")
    if hasattr(model, "grid_xypos") and shape is None and place is None:
        raise InputError("a GriddedPSFModel is evaluated at the image's centre: give shape=")
    factor = int(oversampling[0])
    middle = [(size - 1) / 2 for size in model.data.shape[::-1]]
    if model.data.ndim == 2 and np.allclose(getattr(model, "origin", np.nan), middle):
        return model.data, factor
    column, row = (0.0, 0.0) if shape is None else ((shape[1] - 1) / 2, (shape[0] - 1) / 2)
    column, row = place or (column, row)
    reach = [math.ceil((size - 1) / 2) / factor for size in model.data.shape[-2:]]
    axes = (np.linspace(-limit, limit, round(2 * limit * factor) + 1) for limit in reach)
    y, x = np.meshgrid(*axes, indexing="ij")
    return np.nan_to_num(model.evaluate(x + column, y + row, 1.0, column, row)), factor


def frame_of_psf(psf: Any) -> tuple[float, float] | None:
    """Width and height of the frame that a PSF varies over; None for one that is the same everywhere."""
    if isinstance(psf, StoredPSF):
        return psf.size
    if is_file(psf):
        with open_fits(psf) as hdus:
            return StoredPSF.of_file(hdus).size
    return StoredPSF.of_file(psf).size if isinstance(psf, fits.HDUList) else None
