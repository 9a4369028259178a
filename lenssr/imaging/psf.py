"""Point spread functions: from any description to a kernel at any sampling."""

from __future__ import annotations

import math
import warnings
from functools import cached_property
from os import PathLike
from typing import Any, Self, TypeAlias

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.stats import gaussian_fwhm_to_sigma
from astropy.utils.exceptions import AstropyUserWarning
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from lenssr._limits import check_memory
from lenssr._quiet import quiet
from lenssr._wcs import pixel_side
from lenssr.exceptions import InputError, LensSRDeprecationWarning, LensSRWarning
from lenssr.grids import transformed
from lenssr.imaging.fits_files import is_file, open_fits
from lenssr.imaging.planes import Array
from lenssr.imaging.psf_files import SAME_SAMPLING, StoredPSF, photutils_samples
from lenssr.units import positive_integer, positive_number, strip_unit

__all__ = ["PSF", "GaussianPSF"]

# Negative pixels of measured PSFs are noise down to this fraction of the peak; a PSF has none beyond it.
NEGATIVE_TOLERANCE = 1e-3
# Arrays with longer sides are measured around their peak only: all of them would take gigabytes.
LARGE_SIDE = 301
# Bytes of a sample of a kernel while it is made: its values, and the coordinates of a spline.
SAMPLE_BYTES = 64
# In image pixels; a shift of all the light by this much is a tenth of a well-measured source position.
CENTROID_TOLERANCE = 0.05
# Fewer samples across the FWHM than this cannot be interpolated without aliasing.
SAMPLES_ACROSS = 2.0

# Side of a pixel in arcsec, or the matrix (2, 2) of pixels that are not squares.
PixelSize: TypeAlias = "u.Quantity | float | Array"
Scale: TypeAlias = "u.Quantity | float | None"
Shape: TypeAlias = "tuple[int, ...]"


class PSF:
    """A point spread function given as an array.

    Parameters
    ----------
    array : array, shape (ny, nx)
        The PSF; its centre is the centre of the array, ``((nx - 1) / 2, (ny - 1) / 2)``, which for an even
        side lies between pixels. It is normalised to a sum of 1.
    oversampling : int, optional
        Samples of the array along a pixel of the image; 1 by default.
    includes_pixel : bool, optional
        Whether the array already holds the response of the pixel, as effective PSFs measured from stars
        do. If not (the default), images are integrated over their pixels before the PSF is applied.
    pixel_scale : `~astropy.units.Quantity` or float, optional
        Size of the image pixels that ``oversampling`` refers to, in arcsec; by default the pixels of
        the image that the PSF is used for.

    Attributes
    ----------
    array : `~numpy.ndarray`, shape (ny, nx)
        The normalised array.
    offset : tuple of float
        How far the core's centroid lies from the array's centre, (columns, rows), in image pixels.
    flags : tuple of str
        ``"psf_off_centre"`` if that is more than 0.05.

    Raises
    ------
    InputError
        If the array is not two-dimensional, not finite, all zero, or negative by more than a thousandth of
        its peak.

    Warns
    -----
    LensSRWarning
        If the centroid lies more than 0.05 pixel off the centre. Nothing is moved: such a PSF shifts
        images, as it would have shifted the telescope's. `recentered` moves it.

    Examples
    --------
    >>> import numpy as np
    >>> from lenssr.imaging import PSF
    >>> psf = PSF(np.outer([1, 2, 1], [1, 2, 1]))
    >>> psf.kernel(0.05)[1, 1]
    0.25
    """

    def __init__(
        self, array: ArrayLike, oversampling: int = 1, includes_pixel: bool = False, pixel_scale: Scale = None
    ) -> None:
        self.array = _checked_array(array)
        self.oversampling = positive_integer(oversampling, "oversampling")
        self.includes_pixel = bool(includes_pixel)
        self.pixel_scale = None if pixel_scale is None else _side_in_arcsec(pixel_scale)
        offset = _core_offset(self.array)
        self.offset = tuple(shift / self.oversampling for shift in offset)
        # What a file says of the sampling, and by which keyword, is `said`.
        self.flags, self.said = tuple[str, ...](), ""
        if math.hypot(*self.offset) > CENTROID_TOLERANCE:
            self.flags = ("psf_off_centre",)
            dx, dy = self.offset
            message = f"the PSF's centroid is {dx:+.3f}, {dy:+.3f} pixels off its centre: see PSF.recentered"
            warnings.warn(message, LensSRWarning, stacklevel=2)

    @classmethod
    def from_fwhm(cls, fwhm: u.Quantity) -> GaussianPSF:
        """Gaussian PSF, exact at every sampling.

        Parameters
        ----------
        fwhm : `~astropy.units.Quantity`
            Full width at half maximum, an angle.

        Returns
        -------
        psf : `GaussianPSF`

        Examples
        --------
        >>> import astropy.units as u
        >>> from lenssr.imaging import PSF
        >>> PSF.from_fwhm(0.1 * u.arcsec).kernel(0.05).shape
        (11, 11)
        """
        return GaussianPSF(fwhm)

    @classmethod
    def from_fits(
        cls,
        path: str | PathLike[str],
        *,
        hdu: str | int | None = None,
        oversampling: int | None = None,
        includes_pixel: bool | None = None,
        pixel_scale: Scale = None,
        place: tuple[float, float] | None = None,
        image_scale: float | None = None,
    ) -> PSF:
        """PSF from a FITS file: an image, PSFEx, a grid of PSFs (STDPSF), STPSF or WebbPSF.

        Parameters
        ----------
        path : str or `~pathlib.Path`
            The file.
        hdu : str or int, optional
            Which HDU; by default ``PSF``, or of STPSF ``OVERDIST`` or ``DET_DIST``, or the first image.
        oversampling, includes_pixel, pixel_scale
            As for `PSF`. By default the file says: PIXELSCL, PIXSCALE or the PSF's own WCS (arcsec of a
            sample), OVERSAMP, or PSF_SAMP of PSFEx; PSFs of PSFEx and STDPSF, and those that STPSF made at
            the detector's sampling, include the pixel.
        place : tuple of float, optional
            Zero-based pixel (column, row), in the frame that a PSF varies over, at which it is evaluated; by
            default the middle of that frame.
        image_scale : float, optional
            Pixels of the image that the PSF is used for, in arcsec; needed where a file counts its samples
            in pixels and their number is no integer.

        Returns
        -------
        psf : `PSF`
        """
        with open_fits(path) as hdus:
            stored = StoredPSF.of_file(hdus, hdu)
            samples = stored.at(*(place or _middle(stored)))
        return _from_stored(stored, samples, oversampling, includes_pixel, pixel_scale, image_scale)

    @classmethod
    def from_any(
        cls,
        psf: PSFLike,
        *,
        shape: Shape | None = None,
        pixel_scale: Scale = None,
        oversampling: int | None = None,
        includes_pixel: bool | None = None,
        place: tuple[float, float] | None = None,
        image_scale: float | None = None,
    ) -> PSF:
        """PSF from anything that describes one.

        Parameters
        ----------
        psf : `PSF`, array, `~astropy.units.Quantity`, path, HDU, kernel, model or `~astropy.nddata.NDData`
            An angle is the FWHM of a Gaussian; one in pixels needs ``image_scale``. Arrays and
            `~astropy.convolution.Kernel2D` are at native sampling. Files and HDUs say their own, as in
            `from_fits`. `~photutils.psf.ImagePSF` and `~photutils.psf.GriddedPSFModel` bring
            their oversampling, and hold the pixel's response.
        shape : tuple of int, optional
            Shape of the image, at whose centre a `~photutils.psf.GriddedPSFModel` is evaluated.
        pixel_scale : `~astropy.units.Quantity` or float, optional
            Image pixels that the sampling refers to, by default the pixels of the image it is used for.
        oversampling, includes_pixel : optional
            As for `PSF`, of arrays, files and HDUs.
        place, image_scale : optional
            As in `from_fits`.

        Returns
        -------
        psf : `PSF`

        Raises
        ------
        InputError
            If it is none of these.
        """
        if isinstance(psf, PSF):
            return psf
        file: Any = psf
        if is_file(psf):
            told: Any = {"oversampling": oversampling, "includes_pixel": includes_pixel}
            told |= {"pixel_scale": pixel_scale, "place": place, "image_scale": image_scale}
            return cls.from_fits(file, **told)
        if isinstance(psf, fits.HDUList):
            psf = StoredPSF.of_file(psf)
        elif isinstance(psf, (fits.ImageHDU, fits.PrimaryHDU, fits.CompImageHDU)):
            psf = StoredPSF.of_image(psf)
        if isinstance(psf, StoredPSF):
            samples = psf.at(*(place or _middle(psf)))
            return _from_stored(psf, samples, oversampling, includes_pixel, pixel_scale, image_scale)
        if isinstance(psf, u.Quantity):
            if psf.ndim == 0 and psf.unit == u.pix and image_scale is not None:
                return cls.from_fwhm(psf.value * image_scale * u.arcsec)
            if psf.ndim == 0:
                return cls.from_fwhm(psf)
            psf = strip_unit(psf, u.dimensionless_unscaled, "psf")
        given: Any = psf
        if callable(getattr(given, "evaluate", None)) and hasattr(given, "oversampling"):
            samples, factor = photutils_samples(given, shape, place)
            return PSF(samples, factor, True, pixel_scale)
        if hasattr(given, "array"):
            given = given.array
        elif hasattr(given, "data") and not isinstance(given, np.ndarray):
            given = given.data
        elif np.ndim(given) == 0:
            raise InputError(
                f"psf = {psf!r} is not a PSF: give an array, a file, a FWHM with a unit such as "
                "0.1 * u.arcsec, an astropy kernel or a photutils ImagePSF"
            )
        return cls(given, oversampling or 1, bool(includes_pixel), pixel_scale)

    def __repr__(self) -> str:
        settings = f", oversampling={self.oversampling}" if self.oversampling != 1 else ""
        settings += ", includes_pixel=True" if self.includes_pixel else ""
        settings += f", pixel_scale={self.pixel_scale:g}" if self.pixel_scale else ""
        return f"PSF(<{self.array.shape[0]}x{self.array.shape[1]} array>{settings})"

    @cached_property
    def fwhm_samples(self) -> float:
        """FWHM in samples of the array: the diameter of a circle with the area above half the peak."""
        array, fine = self.array, 5
        if max(array.shape) > LARGE_SIDE:
            bright = np.nonzero(array > array.max() / 4)
            inside = tuple(slice(max(int(k.min()) - 8, 0), int(k.max()) + 9) for k in bright)
            array = array[inside]
            fine = 5 if max(array.shape) <= LARGE_SIDE else 1
        rows, columns = (np.arange(-0.5, size - 0.5, 1 / fine) + 0.5 / fine for size in array.shape)
        padded = np.pad(array, 4)
        grid = np.meshgrid(rows + 4, columns + 4, indexing="ij")
        smooth = ndimage.map_coordinates(padded, grid, order=3, mode="nearest")
        return 2 * math.sqrt(np.count_nonzero(smooth > smooth.max() / 2) / math.pi) / fine

    @property
    def fwhm(self) -> u.Quantity:
        """FWHM as a `~astropy.units.Quantity` in arcsec, where the PSF was given its ``pixel_scale``.

        Otherwise it is in image pixels, which is deprecated (`~lenssr.exceptions.LensSRDeprecationWarning`);
        `fwhm_at` is always in arcsec.
        """
        if self.pixel_scale is not None:
            return self.fwhm_at(self.pixel_scale) * u.arcsec
        message = "PSF.fwhm in pixels is deprecated: give pixel_scale=, or ask fwhm_at(pixel_scale)"
        warnings.warn(message, LensSRDeprecationWarning, stacklevel=2)
        return self.fwhm_at(1.0) * u.pix

    def fwhm_at(self, pixel_scale: PixelSize) -> float:
        """FWHM in arcsec, however the PSF was given.

        Parameters
        ----------
        pixel_scale : float or `~astropy.units.Quantity`
            Pixels of the image that the PSF is used for, in arcsec. A PSF with its own ``pixel_scale``, or a
            Gaussian, does not need it.

        Returns
        -------
        fwhm : float

        Examples
        --------
        >>> import astropy.units as u
        >>> from lenssr.imaging import PSF
        >>> gaussian = PSF.from_fwhm(0.2 * u.arcsec)
        >>> gaussian.fwhm_at(0.05), round(PSF(gaussian.kernel(0.05)).fwhm_at(0.05), 2)
        (0.2, 0.2)
        """
        own = _side_in_arcsec(pixel_scale) if self.pixel_scale is None else self.pixel_scale
        return float(self.fwhm_samples / self.oversampling * own)

    def undersampled(self, pixel_scale: PixelSize, subsampling: int = 1) -> bool:
        """Whether the array has to be interpolated to a finer grid although its FWHM is under 2 samples.

        Parameters
        ----------
        pixel_scale, subsampling
            As for `kernel`.

        Returns
        -------
        undersampled : bool
        """
        finer = self._sample_ratio(pixel_scale, subsampling) < 1 - 1e-6
        return bool(finer and self.fwhm_samples < SAMPLES_ACROSS)

    def kernel(self, pixel_scale: PixelSize, subsampling: int = 1, *, shape: Shape | None = None) -> Array:
        """Kernel to convolve an image with.

        Parameters
        ----------
        pixel_scale : float, `~astropy.units.Quantity` or array, shape (2, 2)
            Pixels of the image, in arcsec, or their matrix (`PixelGrid.matrix <lenssr.grids.PixelGrid>`): a
            Gaussian is then round on the sky also where pixels are not square. An array has the pixels of
            the detector, and stays on them.
        subsampling : int, optional
            The kernel is sampled this many times along a pixel of the image.
        shape : tuple of int, optional
            A kernel larger than this is cut to the largest odd sides within it, and normalised again.

        Returns
        -------
        kernel : `~numpy.ndarray`, odd sides
            Its sum is 1; its centre is the centre of the PSF.

        Notes
        -----
        Where the samples do not coincide, which is always so for even sides, a spline through the array is
        sampled about the array's centre, so no light is shifted: a quintic one, or a cubic one if the FWHM is
        under 2 samples. Where the array has no negative values, neither has the kernel: the spline's ringing
        below zero is set to 0.
        """
        ratio = self._sample_ratio(pixel_scale, subsampling)
        middles = ((size - 1) / 2 for size in self.array.shape)
        rows, columns = (
            _positions(_within(middle / ratio - 1e-6, limit)) * ratio + middle
            for middle, limit in zip(middles, (None, None) if shape is None else shape, strict=True)
        )
        _check_samples(len(rows) * len(columns), f"a PSF of {self.array.shape} samples", pixel_scale)
        values = _sample(self.array, rows, columns, self._spline_order)
        return _normalised(values if shape is None else _cut(values, shape))

    def cropped(self, shape: Shape) -> PSF:
        """Return the PSF cut to fit within ``shape``, centre kept, normalised again.

        Parameters
        ----------
        shape : tuple of int
            Largest height and width in samples of the array.

        Returns
        -------
        psf : `PSF`
            The same object if it fits.
        """
        if all(size <= limit for size, limit in zip(self.array.shape, shape, strict=True)):
            return self
        return self._with(_cut(self.array, shape))

    def recentered(self) -> PSF:
        """Return the PSF with its core's centroid moved to the centre of an array with odd sides.

        Returns
        -------
        psf : `PSF`
        """
        array = self.array
        for _ in range(10):
            dx, dy = _core_offset(array)
            middles = ((size - 1) / 2 for size in array.shape)
            places = zip(middles, (dy, dx), strict=True)
            rows, columns = (_positions(middle - 1e-6) + middle + shift for middle, shift in places)
            array = _sample(array, rows, columns, self._spline_order)
            if math.hypot(dx, dy) < 1e-3:
                break
        return self._with(array)

    def _with(self, array: Array) -> PSF:
        with quiet(LensSRWarning):
            return PSF(array, self.oversampling, self.includes_pixel, self.pixel_scale)

    @property
    def _spline_order(self) -> int:
        # Measured on Gaussians: quintic splines are 5 times closer from 2 samples a FWHM on, but ring below.
        return 5 if self.fwhm_samples >= SAMPLES_ACROSS else 3

    def _sample_ratio(self, pixel_scale: PixelSize, subsampling: int) -> float:
        """Spacing of the kernel in samples of the array."""
        spacing = _side_in_arcsec(pixel_scale) / positive_integer(subsampling, "subsampling")
        own = spacing * subsampling if self.pixel_scale is None else self.pixel_scale
        return spacing / (own / self.oversampling)


class GaussianPSF(PSF):
    """A round Gaussian PSF, computed from its formula at every sampling.

    Parameters
    ----------
    fwhm : `~astropy.units.Quantity`
        Full width at half maximum, an angle.

    Raises
    ------
    InputError
        If it has no unit or is not positive.
    """

    def __init__(self, fwhm: u.Quantity) -> None:
        self._fwhm = positive_number(fwhm, u.arcsec, "fwhm", bare=False)
        self.oversampling, self.includes_pixel, self.pixel_scale = 1, False, None
        self.offset, self.flags, self.said = (0.0, 0.0), (), ""

    def __repr__(self) -> str:
        return f"PSF.from_fwhm({self._fwhm:g} * u.arcsec)"

    @property
    def array(self) -> Array:  # type: ignore[override]  # computed, never set
        """A kernel with four samples across the FWHM."""
        return self.kernel(self._fwhm / 4)

    @property
    def fwhm(self) -> u.Quantity:
        """FWHM as a `~astropy.units.Quantity` in arcsec."""
        return self._fwhm * u.arcsec

    def fwhm_at(self, pixel_scale: PixelSize) -> float:
        """FWHM in arcsec, at any sampling; see `PSF.fwhm_at`."""
        return self._fwhm

    def undersampled(self, pixel_scale: PixelSize, subsampling: int = 1) -> bool:
        """Return False: nothing is interpolated."""
        return False

    def kernel(self, pixel_scale: PixelSize, subsampling: int = 1, *, shape: Shape | None = None) -> Array:
        """Kernel out to 5 sigma; see `PSF.kernel`."""
        side = _side_in_arcsec(pixel_scale)
        sigma = self._fwhm * gaussian_fwhm_to_sigma / (side / positive_integer(subsampling, "subsampling"))
        stretch = np.eye(2) if np.ndim(pixel_scale) == 0 else np.asarray(pixel_scale) / side
        if np.array_equal(stretch, np.eye(2)):
            reaches = [_within(5 * sigma, limit, exact=True) for limit in shape or (None, None)]
            _check_samples(
                4 * reaches[0] * reaches[1], f"a PSF with a FWHM of {self._fwhm:g} arcsec", pixel_scale
            )
            values = np.outer(*(np.exp(-0.5 * (_positions(reach) / sigma) ** 2) for reach in reaches))
        else:
            # Along an axis of the pixels, 5 sigma reach as far as the row of the inverse is long.
            reaches = [5 * sigma * np.hypot(*row) for row in np.linalg.inv(stretch)]
            _check_samples(
                4 * reaches[0] * reaches[1], f"a PSF with a FWHM of {self._fwhm:g} arcsec", pixel_scale
            )
            columns, rows = map(_positions, reaches)
            x, y = transformed(stretch, columns, rows[:, None])
            values = np.exp(-0.5 * (x**2 + y**2) / sigma**2)
        return _normalised(values if shape is None else _cut(values, shape))

    def cropped(self, shape: Shape) -> Self:
        """Return the PSF itself, which has no edge; `kernel` takes ``shape``."""
        return self

    def recentered(self) -> Self:
        """Return the PSF itself, which is centred."""
        return self


# What `PSF.from_any` takes; Any stands for kernels of astropy and models of photutils.
PSFLike: TypeAlias = "PSF | u.Quantity | str | PathLike[str] | ArrayLike | Any"


def _checked_array(array: ArrayLike) -> Array:
    array = np.array(array, dtype=np.float64)
    if array.ndim != 2 or 0 in array.shape:
        raise InputError(f"the PSF has shape {array.shape}: give one two-dimensional image")
    if not np.all(np.isfinite(array)):
        raise InputError(f"the PSF has {np.count_nonzero(~np.isfinite(array))} non-finite pixels: fill them")
    if not np.any(array):
        raise InputError("the PSF is zero everywhere: give another, or psf=None for none")
    peak, low = array.max(), array.min()
    if low < -NEGATIVE_TOLERANCE * abs(peak) or array.sum() <= 0:
        text = f"the PSF goes down to {low:.3g}, more than a thousandth of its peak {peak:.3g} below zero"
        raise InputError(f"{text}: subtract its background, or clip it")
    return array / array.sum()


def _core_offset(array: Array) -> tuple[float, ...]:
    """Centre of the Gaussian that fits an array best, relative to the array's centre: (columns, rows)."""
    from photutils.centroids import centroid_2dg, centroid_com

    shape = array.shape
    array, corner = _around_peak(array)
    with quiet(AstropyUserWarning):  # A fit that ends early is near enough.
        try:
            centre = centroid_2dg(np.pad(array, 1)) - 1
        except ValueError:  # One pixel, or one row of them, has no Gaussian.
            centre = centroid_com(array)
    middles = ((size - 1) / 2 for size in shape[::-1])
    return tuple(float(c + first - m) for c, first, m in zip(centre, corner[::-1], middles, strict=True))


def _around_peak(array: Array) -> tuple[Array, tuple[int, ...]]:
    """Part of a large array that holds the core of its PSF, and the first row and column of it."""
    if max(array.shape) <= LARGE_SIDE:
        return array, (0, 0)
    peak = np.unravel_index(np.argmax(array), array.shape)
    corner = tuple(max(int(place) - LARGE_SIDE // 2, 0) for place in peak)
    return array[tuple(slice(first, first + LARGE_SIDE) for first in corner)], corner


def _sample(array: Array, rows: Array, columns: Array, order: int) -> Array:
    """Sample a spline through the array, zero outside it, non-negative where the array is."""
    whole = all(np.allclose(places, np.round(places), atol=1e-9) for places in (rows, columns))
    border = 8
    if whole:
        rows, columns, order = np.round(rows), np.round(columns), 0
    grid = np.meshgrid(rows + border, columns + border, indexing="ij")
    values = ndimage.map_coordinates(np.pad(array, border), grid, order=order, mode="nearest")
    return values if whole else np.maximum(values, min(array.min(), 0.0))


def _cut(array: Array, shape: Shape) -> Array:
    """Cut an array about its centre to sides within ``shape``, keeping the parity of its sides."""
    pairs = zip(array.shape, shape, strict=True)
    starts = [min(max((size - limit + 1) // 2, 0), (size - 1) // 2) for size, limit in pairs]
    return array[tuple(slice(start, size - start) for start, size in zip(starts, array.shape, strict=True))]


def _normalised(values: Array) -> Array:
    return values / values.sum()


def _positions(reach: float) -> NDArray[np.int_]:
    """Whole numbers from -reach to reach, at least."""
    return np.arange(-math.ceil(reach), math.ceil(reach) + 1)


def _within(reach: float, limit: int | None, exact: bool = False) -> float:
    """Reach of a kernel that will be cut to sides of at most ``limit``; short ones are cut afterwards."""
    if limit is None or not (exact or reach > LARGE_SIDE):
        return reach
    return min(reach, max(limit - 1, 0) // 2)


def _check_samples(count: float, what: str, pixel_scale: PixelSize) -> None:
    """Refuse a kernel that would take too much memory."""
    remedy = f"check the PSF, and the pixel scale of {pixel_side(pixel_scale):g} arcsec"
    check_memory(SAMPLE_BYTES * count, what, remedy)


def _side_in_arcsec(pixel_scale: PixelSize) -> float:
    """Side of a pixel in arcsec, from a number, a Quantity or the matrix of stretched pixels."""
    return positive_number(pixel_side(pixel_scale), u.arcsec, "pixel_scale")


def _middle(stored: StoredPSF) -> tuple[float, float]:
    """Middle of the frame that a PSF varies over."""
    return (0.0, 0.0) if stored.size is None else ((stored.size[0] - 1) / 2, (stored.size[1] - 1) / 2)


def _from_stored(
    stored: StoredPSF,
    samples: Array,
    oversampling: int | None,
    includes_pixel: bool | None,
    pixel_scale: Scale,
    image_scale: float | None,
) -> PSF:
    """PSF of a file from its samples at one place; what the user says of it wins."""
    told = oversampling is not None or pixel_scale is not None
    factor = 1 if oversampling is None else positive_integer(oversampling, "oversampling")
    sample = None if oversampling is not None and image_scale is not None else stored.sample
    per_pixel = stored.per_pixel if oversampling is None and sample is None else None
    if pixel_scale is not None:
        sample = per_pixel = None
    if sample is not None and not (image_scale and abs(sample / image_scale - 1) < SAME_SAMPLING):
        pixel_scale = sample * factor
    elif per_pixel is not None and abs(per_pixel - 1) >= SAME_SAMPLING:
        if abs(per_pixel - round(per_pixel)) < 1e-6 * per_pixel:
            factor = round(per_pixel)
        elif image_scale is not None:
            pixel_scale = image_scale / per_pixel
        else:
            raise InputError(f"the PSF has {per_pixel:.4g} samples a pixel: give image_scale= in arcsec")
    includes = stored.includes_pixel if includes_pixel is None else includes_pixel
    psf = PSF(samples, factor, includes, pixel_scale)
    psf.said = ", sampled as told" if told else stored.sampling
    return psf
