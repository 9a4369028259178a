"""One image, ready to be fitted: any input becomes an `Observation`, or is refused with the reason."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

import astropy.units as u
import numpy as np
from astropy.stats import sigma_clipped_stats
from numpy.typing import ArrayLike

from lenssr.exceptions import InputError, LensSRWarning
from lenssr.grids import PixelGrid, conserves_sum
from lenssr.imaging.noise import (
    GaussianNoise,
    NoiseModel,
    PoissonNoise,
    count_kind,
    effective_exposure,
    noise_of_counts,
)
from lenssr.imaging.psf import PSF, PSFLike, Scale, Shape
from lenssr.imaging.reading import UNCERTAINTIES, Array, Mask, Planes, parse_unit, read_planes
from lenssr.imaging.sky import SkyNoise, measure_sky
from lenssr.units import strip_unit

if TYPE_CHECKING:
    from astropy.io.fits import HDUList
    from astropy.nddata import NDData

__all__ = ["ImageLike", "NoiseLike", "Observation", "PSFLike", "Reading"]

ImageLike: TypeAlias = "str | PathLike[str] | HDUList | NDData | u.Quantity | ArrayLike"
NoiseLike: TypeAlias = "NoiseModel | u.Quantity | ArrayLike"

# Below this many pixels a side, little besides the total light is measured.
SMALL_SIDE = 16
_AB_ZERO = 3631 * u.Jy


class Reading(TypedDict, total=False):
    """Keywords of `Observation.from_any` for what an image does not hold itself."""

    pixel_scale: Scale
    unit: u.UnitBase | str | None
    zero_point: u.Quantity | float | None
    hdus: Mapping[str, str | int] | None


@dataclass(frozen=True)
class Observation:
    """One image with all that belongs to it.

    Build it with `from_any`, which checks everything.

    Parameters
    ----------
    data : `~numpy.ndarray`, shape (ny, nx)
        The image, 0 where it is masked.
    mask : `~numpy.ndarray` of bool, shape (ny, nx)
        True where a pixel is not to be used.
    error : `~numpy.ndarray`, shape (ny, nx), or None
        Standard deviation of every pixel if it was given; masked pixels hold the median.
    unit : `~astropy.units.Unit`
        The unit of ``data``, ``error`` and ``noise``.
    grid : `~lenssr.grids.PixelGrid`
        Positions of the pixels.
    psf : `~lenssr.imaging.PSF` or None
        The point spread function.
    noise : `~lenssr.imaging.NoiseModel` or None
        The noise, with plain numbers in ``unit``.
    flags : tuple of str
        Names of guesses and peculiarities; see Notes.
    meta : dict
        ``zero_point`` (AB magnitude of one unit), ``exposure`` (median, s), ``masked`` (number of pixels),
        telescope, filter and file where known.

    Notes
    -----
    The flags: ``unit_missing`` (taken as a plain number per pixel), ``noise_from_exposure`` (Poisson noise
    from the exposure, sky rms measured), ``gain_guessed`` (image in adu or DN without a gain: 1 electron
    taken), ``noise_guessed`` (sky rms measured, nothing else known), ``constant_image``, ``small_image``
    (a side under 16 pixels), ``psf_cropped`` (larger than the image), ``psf_off_centre`` (centroid more
    than 0.05 pixel off), ``hdu_guessed`` (the first of several images taken), ``errors_follow_counts`` (the
    error plane was made from the observed counts).

    Examples
    --------
    >>> import numpy as np
    >>> from lenssr.imaging import Observation
    >>> image = Observation.from_any(np.eye(20), pixel_scale=0.05, noise=0.1, unit="electron/s")
    >>> image.shape, image.unit, image.flags
    ((20, 20), Unit("electron / s"), ())
    """

    data: Array
    mask: Mask
    error: Array | None
    unit: u.UnitBase
    grid: PixelGrid
    psf: PSF | None = None
    noise: NoiseModel | None = None
    flags: tuple[str, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_any(
        cls,
        image: ImageLike,
        *,
        psf: PSFLike | None = None,
        noise: NoiseLike | None = None,
        mask: ArrayLike | None = None,
        pixel_scale: Scale = None,
        unit: u.UnitBase | str | None = None,
        zero_point: u.Quantity | float | None = None,
        hdus: Mapping[str, str | int] | None = None,
    ) -> Observation:
        """Read and check an image.

        Parameters
        ----------
        image : path, `~astropy.io.fits.HDUList`, `~astropy.nddata.NDData`, Quantity or array
            Of a FITS file, the HDUs SCI or IMAGE (or the first two-dimensional one), ERR or RMS, VAR or
            VARIANCE, WHT or IVM (inverse variance, 0 where a pixel is not to be used), DQ or MASK (not 0
            where a pixel is not to be used), PSF and EXPTIME are read, and the keywords BUNIT,
            EXPTIME, GAIN and MAGZERO.
        psf : input of `PSF.from_any`, optional
            The PSF; by default the one that comes with the image.
        noise : `NoiseModel`, float, `~astropy.units.Quantity` or array, optional
            The noise, or its standard deviation, instead of the error plane of the image.
        mask : array of bool, shape (ny, nx), optional
            More pixels that are not to be used.
        pixel_scale : `~astropy.units.Quantity` or float, optional
            For images without a WCS; a number is in arcsec.
        unit : `~astropy.units.Unit` or str, optional
            The unit, instead of the image's own.
        zero_point : `~astropy.units.Quantity` or float, optional
            AB magnitude of one unit.
        hdus : dict, optional
            For files with names of their own: which HDU (name or number) holds ``sci``, ``err``, ``var``,
            ``ivm``, ``mask``, ``psf``, ``exptime``.

        Returns
        -------
        observation : `Observation`

        Raises
        ------
        InputError
            If the image cannot be used; the message names the value and the remedy.

        Warns
        -----
        LensSRWarning
            Once, with the number of pixels, if some are not finite and not masked.

        Notes
        -----
        An error plane is used as it is, unless its photon noise follows, beyond doubt, the observed counts:
        then that part follows the expected counts of the model instead. ``noise=GaussianNoise(plane)``
        uses any plane as it is. Without one, an image of counts or count rates whose exposure
        is known gets Poisson noise plus the sky's measured rms. An image of counts needs no exposure for
        that; adu and DN are turned to electrons by GAIN. With neither, the noise is the sky's rms.
        """
        planes = read_planes(image, hdus)
        flags = list(planes.flags)
        unit, zero_point = _unit_of(planes, unit, zero_point, flags)
        grid = _grid_of(planes, pixel_scale)
        bad = _mask_of(planes, mask)
        error = _error_of(planes, bad)
        data = np.where(bad, 0.0, planes.data)
        if min(data.shape) < SMALL_SIDE:
            flags.append("small_image")
        if np.ptp(data[~bad]) == 0:
            flags.append("constant_image")
        meta = dict(planes.meta, masked=int(bad.sum()), zero_point=zero_point)
        meta["exposure"] = None if planes.exposure is None else float(np.median(planes.exposure))
        given = _psf_of(planes.psf if psf is None else psf, grid, flags)
        self = cls(data, bad, None, unit, grid, given, meta=meta)
        return self._with_noise(planes, error if noise is None else None, noise, flags)

    def _with_noise(self, planes: Planes, error: Array | None, noise: Any, flags: list[str]) -> Observation:
        as_it_is = isinstance(noise, NoiseModel)
        if as_it_is:
            noise = noise.in_unit(self.unit, pixel_area=self.grid.pixel_area, gain=planes.gain or 1.0)
            for name in noise.names:
                if np.ndim(getattr(noise, name)):
                    _same_shape(getattr(noise, name), self.shape, f"the noise's {name}")
            if isinstance(noise, GaussianNoise):
                error = np.broadcast_to(noise.sigma, self.shape).copy()
        elif noise is not None:
            error = _sigma_plane(noise, self)
        elif error is None:
            noise = _noise_of(self, planes, flags)
        if error is not None:
            noise = GaussianNoise(error)
            self = replace(self, error=error, noise=noise)
            photons = None if as_it_is else noise_of_counts(self, _unit_counts(planes, self, strict=False))
            if photons is not None:
                noise = photons
                flags.append("errors_follow_counts")
        return replace(self, error=error, noise=noise, flags=tuple(dict.fromkeys(flags)))

    @property
    def shape(self) -> Shape:
        """Shape of the image, (ny, nx)."""
        return self.data.shape

    @property
    def pixel_scale(self) -> float:
        """Side of a pixel in arcsec."""
        return self.grid.pixel_scale

    @property
    def psf_fwhm(self) -> float:
        """FWHM of the PSF in arcsec, however it was given; 0 where there is none."""
        return 0.0 if self.psf is None else self.psf.fwhm_at(self.grid.pixel_scale)

    @property
    def valid(self) -> Mask:
        """True where a pixel is used: the opposite of ``mask``."""
        return ~self.mask

    @property
    def conserves_sum(self) -> bool:
        """Whether the unit is per pixel, rather than surface brightness."""
        return conserves_sum(self.unit)

    @property
    def brightness_unit(self) -> u.UnitBase:
        """Unit of surface brightness: the image's per arcsec2, or the image's own."""
        return self.unit / u.arcsec**2 if self.conserves_sum else self.unit

    @property
    def pixel_factor(self) -> float:
        """Brightness integrated over a pixel, over the pixel's value: 1, or the pixel's area in arcsec2."""
        return 1.0 if self.conserves_sum else self.grid.pixel_area

    @cached_property
    def sky(self) -> SkyNoise:
        """Level, rms and correlation of the sky (`~lenssr.imaging.measure_sky`), measured once."""
        return measure_sky(self)

    def sigma(self) -> Array:
        """Standard deviation (ny, nx) of every pixel, without a model of the image.

        It is the error plane, or the noise model's for the data themselves.
        """
        import torch

        if self.error is not None:
            return self.error
        assert self.noise is not None  # an observation has one or the other
        variance = self.noise.moments(torch.as_tensor(self.data))[2]
        return np.broadcast_to(np.sqrt(variance.numpy()), self.shape).copy()

    def ab_magnitude(self, flux: ArrayLike) -> u.Quantity:
        """AB magnitude of the flux of a whole object in the image's unit, a number or an array.

        An image without a zero point raises an `InputError`.
        """
        zero_point = self.meta.get("zero_point")
        if zero_point is None:
            raise InputError(f"an image in '{self.unit}' has no zero point: give zero_point=")
        return (zero_point - 2.5 * np.log10(flux)) * u.ABmag

    def masked(self, mask: ArrayLike) -> Observation:
        """Return the observation with more pixels masked, where ``mask`` (ny, nx) is True."""
        bad = self.mask | _checked_mask(mask, self.shape)
        _refuse_all_masked(bad)
        meta = dict(self.meta, masked=int(bad.sum()))
        return replace(self, mask=bad, data=np.where(bad, 0.0, self.data), meta=meta)


# ---------------------------------------------------------------- unit, grid, mask


def _unit_of(planes: Planes, unit: Any, zero_point: Any, flags: list[str]) -> tuple[u.UnitBase, float | None]:
    unit = planes.unit if unit is None else unit
    if zero_point is None:
        zero_point = planes.zero_point
    elif isinstance(zero_point, u.Quantity):
        if zero_point.unit not in (u.ABmag, u.mag):
            raise InputError(f"zero_point = {zero_point} is not an AB magnitude: give one like 25 * u.ABmag")
        zero_point = float(zero_point.value)
    if zero_point is not None and not math.isfinite(zero_point):
        raise InputError(f"zero_point = {zero_point} is not finite: give the AB magnitude of one unit")
    if unit is None:
        # A zero point says what one unit is, even if the unit has no name.
        if zero_point is None:
            flags.append("unit_missing")
        return u.dimensionless_unscaled, zero_point
    unit = parse_unit(unit)
    conserves_sum(unit)  # refuses what is neither per pixel nor per solid angle
    if zero_point is None and unit.is_equivalent(u.Jy):
        zero_point = -2.5 * math.log10((1 * unit / _AB_ZERO).to_value(u.dimensionless_unscaled))
    return unit, zero_point


def _grid_of(planes: Planes, pixel_scale: Scale) -> PixelGrid:
    shape, wcs = planes.data.shape, planes.wcs
    if wcs is None and pixel_scale is None:
        raise InputError("the image has no WCS, so no pixel scale: give pixel_scale=, say 0.05 * u.arcsec")
    if pixel_scale is None:
        return PixelGrid.from_wcs(wcs, shape)
    return PixelGrid(shape, pixel_scale, wcs.celestial if wcs is not None and wcs.has_celestial else None)


def _mask_of(planes: Planes, mask: ArrayLike | None) -> Mask:
    shape = planes.data.shape
    bad = np.zeros(shape, dtype=bool)
    for plane, name in ((planes.mask, "the image's mask"), (mask, "mask")):
        if plane is not None:
            bad |= _checked_mask(plane, shape, name)
    if planes.inverse_variance is not None and planes.error is None and planes.variance is None:
        _same_shape(planes.inverse_variance, shape, "the inverse variance")
        bad |= planes.inverse_variance == 0
    broken = ~np.isfinite(planes.data) & ~bad
    if broken.any():
        message = f"{broken.sum()} of {broken.size} pixels are not finite and are masked"
        warnings.warn(message, LensSRWarning, stacklevel=3)
    bad |= broken
    _refuse_all_masked(bad)
    return bad


def _checked_mask(mask: ArrayLike, shape: Shape, name: str = "mask") -> Mask:
    mask = np.asarray(mask)
    _same_shape(mask, shape, name)
    # NaN in a mask plane does not say that the pixel is good.
    return mask != 0


def _refuse_all_masked(bad: Mask) -> None:
    if bad.all():
        raise InputError(f"all {bad.size} pixels are masked or not finite: leave some unmasked")


def _same_shape(plane: ArrayLike, shape: Shape, name: str) -> None:
    if np.shape(plane) != shape:
        raise InputError(f"{name} has shape {np.shape(plane)}, the image {shape}: give planes of one shape")


# ---------------------------------------------------------------- noise


def _error_of(planes: Planes, bad: Mask) -> Array | None:
    """Error plane from whichever of the three kinds is there, checked in unmasked pixels."""
    for name, power in UNCERTAINTIES.values():
        plane = getattr(planes, name)
        if plane is not None:
            return _checked_error(plane, bad, f"the {name.replace('_', ' ')} plane", 1 / power)
    return None


def _checked_error(plane: Array, bad: Mask, name: str, power: float = 1) -> Array:
    _same_shape(plane, bad.shape, name)
    good = plane[~bad]
    wrong = ~(np.isfinite(good) & (good > 0))
    if wrong.any():
        where = f"in one of {wrong.sum()} unmasked pixels where it is not positive and finite"
        raise InputError(f"{name} is {good[wrong][0]:g} {where}: correct or mask them")
    error = np.empty(bad.shape)
    error[~bad] = good**power
    error[bad] = np.median(error[~bad])
    return error


def _sigma_plane(noise: Any, observation: Observation) -> Array:
    """Error plane from a number, Quantity or array that the user gave as noise."""
    noise = strip_unit(noise, observation.unit, "noise")
    try:
        plane = np.asarray(noise, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"noise = {noise!r} is not a noise model, number or array: give one") from None
    if plane.ndim == 0:
        plane = np.full(observation.shape, float(plane))
    return _checked_error(plane, observation.mask, "noise")


def _noise_of(observation: Observation, planes: Planes, flags: list[str]) -> NoiseModel:
    """Noise of an image without an error plane."""
    sky, rms = _sky_level(observation.data[observation.valid])
    exposure = _unit_counts(planes, observation)
    if exposure is None:
        flags.append("noise_guessed")
        return GaussianNoise(rms)
    flags.append("noise_from_exposure")
    if planes.gain is None and any(base in (u.adu, u.DN) for base in observation.unit.bases):
        flags.append("gain_guessed")
    # The rms of a sky that was not subtracted holds its photon noise, which the model's sky adds again.
    rest = rms**2 - np.maximum(sky, 0) / exposure
    return PoissonNoise(exposure, np.sqrt(np.maximum(rest, 1e-4 * rms**2)))


def _unit_counts(planes: Planes, observation: Observation, *, strict: bool = True) -> Array | float | None:
    """Counts in one unit of the image; None if they are not known, or not ``strict`` and a map has holes."""
    kind = count_kind(observation.unit)
    if kind is None or (kind == "rate" and planes.exposure is None):
        return None
    exposure = 1.0 if planes.exposure is None else planes.exposure
    if isinstance(exposure, np.ndarray):
        _same_shape(exposure, observation.shape, "the exposure map")
        good = np.isfinite(exposure) & (exposure > 0)
        if not good[observation.valid].all():
            if not strict:
                return None
            number = np.count_nonzero(~good & observation.valid)
            raise InputError(f"the exposure map is not positive in {number} unmasked pixels: mask them")
        exposure = np.where(good, exposure, np.median(exposure[good]))
    area, gain = observation.grid.pixel_area, planes.gain or 1.0
    return effective_exposure(exposure, observation.unit, pixel_area=area, gain=gain)


def _psf_of(psf: PSFLike | None, grid: PixelGrid, flags: list[str]) -> PSF | None:
    if psf is None:
        return None
    psf = PSF.from_any(psf, shape=grid.shape)
    along = psf.oversampling * (1.0 if psf.pixel_scale is None else grid.pixel_scale / psf.pixel_scale)
    cropped = psf.cropped(tuple(int(size * along + 1e-6) for size in grid.shape))
    if cropped is not psf:
        flags.append("psf_cropped")
    flags.extend(psf.flags)
    return cropped


def _sky_level(values: Array) -> tuple[float, float]:
    """Level and rms of the pixels that sigma clipping leaves; the rms is never 0."""
    _, level, rms = sigma_clipped_stats(values, sigma=3, maxiters=20)
    # Clipping takes everything but the commonest value from images that are mostly zeros.
    rms = next((float(value) for value in (rms, np.std(values)) if value > 0), 0.0)
    return float(level), rms or max(abs(float(level)), 1.0) * 1e-3
