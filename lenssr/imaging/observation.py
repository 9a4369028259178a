"""One image, ready to be fitted: any input becomes an `Observation`, or is refused with the reason."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

import astropy.units as u
import numpy as np
from astropy.stats import sigma_clipped_stats
from numpy.typing import ArrayLike

from lenssr._wcs import has_scale
from lenssr.exceptions import InputError, LensSRWarning
from lenssr.grids import PixelGrid, conserves_sum
from lenssr.imaging.archive_units import parse_unit
from lenssr.imaging.noise import (
    GaussianNoise,
    NoiseModel,
    PoissonNoise,
    count_kind,
    effective_exposure,
    noise_of_counts,
)
from lenssr.imaging.observation_text import Described
from lenssr.imaging.planes import UNCERTAINTIES, Array, Mask, Planes, Request, same_shape
from lenssr.imaging.psf import PSF, PSFLike, Scale, Shape
from lenssr.imaging.psf_of_image import psf_of_image
from lenssr.imaging.reading import read_planes
from lenssr.imaging.separate_planes import is_stored
from lenssr.imaging.sky import SkyNoise, measure_sky, noise_rms
from lenssr.imaging.suspicions import border_without_data, has_cosmic_rays
from lenssr.imaging.zero_points import zero_point_of_unit
from lenssr.units import strip_unit

if TYPE_CHECKING:
    from astropy.io.fits import HDUList
    from astropy.nddata import NDData

__all__ = ["ImageLike", "NoiseLike", "Observation", "PSFLike", "Reading"]

ImageLike: TypeAlias = "str | PathLike[str] | HDUList | NDData | Observation | u.Quantity | ArrayLike | Any"
PlaneLike: TypeAlias = "str | PathLike[str] | HDUList | NDData | u.Quantity | ArrayLike | Any"
NoiseLike: TypeAlias = "NoiseModel | u.Quantity | ArrayLike"

# Below this many pixels a side, little besides the total light is measured.
SMALL_SIDE = 16
# Pixels larger than this are no image of a lens: a scale that is missing (1 degree) or in another unit.
# Chosen.
MOST_SCALE = 60.0
# Flags of where the noise comes from.
_NOISE_FLAGS = ("noise_guessed", "noise_from_exposure", "gain_guessed", "errors_follow_counts")


class Reading(TypedDict, total=False):
    """Keywords of `Observation.from_any` for what an image does not hold itself."""

    pixel_scale: Scale
    unit: u.UnitBase | str | None
    zero_point: u.Quantity | float | None
    hdus: Mapping[str, Any] | None
    band: str | int | None
    centre: Any
    size: Any
    radius: Any
    error: PlaneLike | None
    weight: PlaneLike | None
    weight_kind: str | None
    exposure: PlaneLike | None
    mask_bits: Any
    psf_oversampling: int | None
    psf_includes_pixel: bool | None


@dataclass(frozen=True, repr=False)
class Observation(Described):
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
    unmasked : `~numpy.ndarray`, shape (ny, nx), or None
        The image with what is under the mask, where that is finite, for pictures; by default ``data``.

    Notes
    -----
    The flags: ``unit_missing`` (taken as a plain number per pixel), ``noise_from_exposure`` (Poisson noise
    from the exposure, sky rms measured), ``gain_guessed`` (image in adu or DN without a gain: 1 electron
    taken), ``noise_guessed`` (sky rms measured, nothing else known), ``constant_image``, ``small_image`` (a
    side under 16 pixels), ``psf_cropped`` (larger than the image), ``psf_off_centre`` (centroid more than
    0.05 pixel off), ``hdu_guessed`` (the first of several images taken), ``errors_follow_counts`` (the error
    plane was made from the observed counts), ``weight_guessed`` (what the weight map means), ``mask_guessed``
    (what the bits of the mask mean), ``psf_place_guessed`` (where the lens lies in the frame of a PSF that
    varies), ``errors_missing`` (pixels without an error, masked), ``border_without_data`` (zeros at the edge,
    masked), ``single_exposure`` and ``cosmic_rays``. ``meta["reading"]`` says where each plane and number
    comes from, ``meta["assumed"]`` what was assumed.

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
    unmasked: Array | None = None

    def __post_init__(self) -> None:
        if self.unmasked is None:
            object.__setattr__(self, "unmasked", self.data)

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
        hdus: Mapping[str, Any] | None = None,
        band: str | int | None = None,
        centre: Any = None,
        size: Any = None,
        radius: Any = None,
        error: PlaneLike | None = None,
        weight: PlaneLike | None = None,
        weight_kind: str | None = None,
        exposure: PlaneLike | None = None,
        mask_bits: Any = None,
        psf_oversampling: int | None = None,
        psf_includes_pixel: bool | None = None,
        most_pixels: int | None = None,
        middle: bool = True,
    ) -> Observation:
        """Read and check an image.

        Parameters
        ----------
        image : path, HDU, `~astropy.nddata.NDData`, array, tuple, dict or `Observation`
            A FITS file (or ASDF, with the extra ``jwst``) is read as its archive writes it
            (`lenssr.imaging.readers`), else by the names of its HDUs and keywords. Arrays may be masked, have
            a unit, or come as ``(data, header)``; a `~astropy.nddata.Cutout2D` and a dict of images by band
            are fine. An `Observation` comes back, with what else is given.
        psf : input of `PSF.from_any`, optional
            The PSF; by default the one that comes with the image.
        noise : `NoiseModel`, float, `~astropy.units.Quantity` or array, optional
            The noise, or its standard deviation, instead of the error plane of the image.
        mask : array of bool, shape (ny, nx), path or HDU, optional
            More pixels that are not to be used; of a file or HDU by the bits that ``mask_bits`` names.
        pixel_scale : `~astropy.units.Quantity` or float, optional
            For images without a WCS; a number is in arcsec.
        unit : `~astropy.units.Unit` or str, optional
            The unit, instead of the image's own.
        zero_point : `~astropy.units.Quantity` or float, optional
            AB magnitude of one unit.
        hdus : dict, optional
            For files with names of their own: which HDU (name, number, or name and version such as
            ``("SCI", 2)``) holds ``sci``, ``err``, ``var``, ``ivm``, ``wht``, ``mask``, ``psf``, ``exptime``.
        band : str or int, optional
            Of a file with several bands, of a cube, or of a dict: the filter, or the number of the plane.
        centre : `~astropy.coordinates.SkyCoord`, str or pair, optional
            The lens's place on the sky, such as ``"10:00:28.6 +02:12:21"``. It becomes the middle of the
            image, and a PSF that varies is evaluated there.
        size : `~astropy.units.Quantity` or pair, optional
            Side of the cutout about ``centre``, or (height, width), a number in arcsec: only that much is
            read.
        radius : `~astropy.units.Quantity` or float, optional
            Instead of ``size``: that of the field that holds lens and arcs, about ``centre`` or the frame's
            middle. Half as much again is read on all sides, for the sky and the rest of the lens light.
        error, weight, exposure : path, HDU, array or `~astropy.units.Quantity`, optional
            Planes in files or arrays of their own. An error plane is a variance, or an inverse variance,
            where its name or unit says so. A weight map is what ``weight_kind`` says, or its header, or its
            archive.
        weight_kind : {"exposure", "inverse_variance", "variance", "relative"}, optional
            What the weight map holds; relative weights are scaled by the sky's rms.
        mask_bits : int, str or list of str, optional
            Which bits of the mask make a pixel unusable: their sum, their names, or "any". By default those
            of the archive that mean a defect.
        psf_oversampling : int, optional
            Samples of the PSF along a pixel of the image, where its file does not say.
        psf_includes_pixel : bool, optional
            Whether the PSF holds the response of the pixel.
        most_pixels : int, optional
            A frame with more is refused before it is read, unless it is cut.
        middle : bool, optional
            Whether a ``centre`` without a size cuts the frame so that it becomes its middle, as it does by
            default.

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
        if isinstance(image, Observation):
            return image._with_more(psf, noise, mask)
        cut = {"centre": centre, "size": size, "radius": radius, "middle": middle}
        request = Request(
            hdus, band, mask_bits=mask_bits, weight_kind=weight_kind, most_pixels=most_pixels, **cut
        )
        if is_stored(noise) and not (isinstance(noise, str) and not Path(noise).is_file()):
            error, noise = noise, None
        beside = {"error": error, "weight": weight, "exposure": exposure}
        stored = mask is not None and is_stored(mask)
        planes = read_planes(image, request, beside | {"mask": mask if stored else None})
        flags = list(planes.flags)
        unit, zero_point = _unit_of(planes, unit, zero_point, flags)
        grid = _grid_of(planes, pixel_scale)
        noise = planes.cut(noise) if isinstance(noise, np.ndarray) else noise
        bad = _mask_of(planes, None if stored else planes.cut(mask), flags, own_noise=noise is not None)
        sigma = _error_of(planes, bad)
        data = np.where(bad, 0.0, planes.data)
        if min(data.shape) < SMALL_SIDE:
            flags.append("small_image")
        if np.ptp(data[~bad]) == 0:
            flags.append("constant_image")
        meta = dict(planes.meta, masked=int(bad.sum()), zero_point=zero_point)
        meta["exposure"] = None if planes.exposure is None else float(np.median(planes.exposure))
        hints = {
            name: str(value) for name, value in (("centre", centre), ("radius", radius)) if value is not None
        }
        meta |= {"hints": hints} if hints else {}
        told = {"oversampling": psf_oversampling, "includes_pixel": psf_includes_pixel}
        given = psf_of_image(planes.psf if psf is None else psf, grid, flags, meta, told, centre)
        seen = data if not bad.any() else np.where(np.isfinite(planes.data), planes.data, 0.0)
        self = cls(data, bad, None, unit, grid, given, meta=meta, unmasked=seen)
        self = self._with_noise(planes, sigma if noise is None else None, noise, flags)
        if "single_exposure" not in self.flags and has_cosmic_rays(self):
            self = replace(self, flags=(*self.flags, "cosmic_rays"))
        return self

    def _with_more(self, psf: PSFLike | None, noise: NoiseLike | None, mask: Any) -> Observation:
        """The observation with a PSF, a noise or a mask instead of its own."""
        new = self if mask is None else self.masked(_stored_mask(mask))
        flags = list(new.flags)
        if psf is not None:
            new = replace(new, psf=psf_of_image(psf, new.grid, flags, new.meta, {}, None))
        if noise is None:
            return replace(new, flags=tuple(dict.fromkeys(flags)))
        flags = [name for name in flags if name not in _NOISE_FLAGS]
        return new._with_noise(Planes(new.data, exposure=new.meta.get("exposure")), None, noise, flags)

    def _with_noise(self, planes: Planes, error: Array | None, noise: Any, flags: list[str]) -> Observation:
        as_it_is = isinstance(noise, NoiseModel)
        if as_it_is:
            noise = noise.in_unit(self.unit, pixel_area=self.grid.pixel_area, gain=planes.gain or 1.0)
            for name in noise.names:
                if np.ndim(getattr(noise, name)):
                    same_shape(getattr(noise, name), self.shape, f"the noise's {name}")
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
        """Standard deviation of every pixel, without a model of the image.

        Returns
        -------
        sigma : `~numpy.ndarray`, shape (ny, nx)
            The error plane, or the noise model's for the data themselves.
        """
        import torch

        if self.error is not None:
            return self.error
        assert self.noise is not None  # an observation has one or the other
        variance = self.noise.moments(torch.as_tensor(self.data))[2]
        return np.broadcast_to(np.sqrt(variance.numpy()), self.shape).copy()

    def ab_magnitude(self, flux: ArrayLike) -> u.Quantity:
        """AB magnitude of a flux in the image's unit.

        Parameters
        ----------
        flux : float or array
            In the image's unit, of the whole object.

        Returns
        -------
        magnitude : `~astropy.units.Quantity`

        Raises
        ------
        InputError
            If the image has no zero point.
        """
        zero_point = self.meta.get("zero_point")
        if zero_point is None:
            raise InputError(f"an image in '{self.unit}' has no zero point: give zero_point=")
        return (zero_point - 2.5 * np.log10(flux)) * u.ABmag

    def masked(self, mask: ArrayLike) -> Observation:
        """Return the observation with more pixels masked.

        Parameters
        ----------
        mask : array of bool, shape (ny, nx)
            True where a pixel is not to be used either.

        Returns
        -------
        observation : `Observation`
        """
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
    if zero_point is None:
        zero_point = zero_point_of_unit(unit)
    return unit, zero_point


def _grid_of(planes: Planes, pixel_scale: Scale) -> PixelGrid:
    shape, wcs = planes.data.shape, planes.wcs
    if wcs is None and pixel_scale is None:
        raise InputError("the image has no WCS, so no pixel scale: give pixel_scale=, say 0.05 * u.arcsec")
    celestial = wcs is not None and wcs.has_celestial
    if celestial and not has_scale(wcs):
        if pixel_scale is None:
            raise InputError("the WCS has no scale (no CDELT, CD or PC): give pixel_scale= (--pixel-scale)")
        wcs = None  # which way its axes run is not known either
    if pixel_scale is None:
        grid = PixelGrid.from_wcs(wcs, shape)
    else:
        grid = PixelGrid(shape, pixel_scale, wcs.celestial if wcs is not None and celestial else None)
    if grid.pixel_scale > MOST_SCALE:
        said = "the WCS" if pixel_scale is None else f"pixel_scale = {pixel_scale}"
        raise InputError(
            f"{said} has pixels of {grid.pixel_scale:.6g} arcsec, more than {MOST_SCALE:g}: "
            "give pixel_scale= in arcsec"
        )
    return grid


def _mask_of(planes: Planes, mask: ArrayLike | None, flags: list[str], *, own_noise: bool) -> Mask:
    shape = planes.data.shape
    bad = np.zeros(shape, dtype=bool)
    for plane, name in ((planes.mask, "the image's mask"), (mask, "mask")):
        if plane is not None:
            bad |= _checked_mask(plane, shape, name)
    empty = border_without_data(planes.data, bad)
    if empty is not None:
        flags.append("border_without_data")
        planes.meta.setdefault("hidden", {})["zeros at the edge"] = int(empty.sum())
        bad |= empty
    if not own_noise:
        bad |= _without_error(planes, bad, flags)
    broken = ~np.isfinite(planes.data) & ~bad
    if broken.any():
        message = f"{broken.sum()} of {broken.size} pixels are not finite and are masked"
        warnings.warn(message, LensSRWarning, stacklevel=3)
    bad |= broken
    _refuse_all_masked(bad)
    return bad


def _without_error(planes: Planes, bad: Mask, flags: list[str]) -> Mask:
    """Pixels whose error says that they hold no data: 0, NaN or infinite, or an inverse variance of 0."""
    name = next((name for name, _ in UNCERTAINTIES.values() if getattr(planes, name) is not None), None)
    if name is None:
        return np.zeros_like(bad)
    plane = getattr(planes, name)
    same_shape(plane, bad.shape, f"the {name.replace('_', ' ')} plane")
    empty = (~np.isfinite(plane) | (plane == 0)) & ~bad
    # A weight of 0 is how inverse variances say it; for the others it is a peculiarity.
    odd = empty & ~((plane == 0) & (name == "inverse_variance") & (empty.size > 0))
    if odd.any():
        flags.append("errors_missing")
        planes.meta.setdefault("hidden", {})[f"{name.replace('_', ' ')} 0 or not finite"] = int(odd.sum())
    if (empty | bad).all():
        raise InputError(f"the {name.replace('_', ' ')} plane is 0 or not finite in all pixels: correct it")
    return empty


def _stored_mask(mask: Any) -> Any:
    """The pixels of a mask that is given as a file or HDU; others as they are."""
    if not is_stored(mask):
        return mask
    return read_planes(mask).data


def _checked_mask(mask: ArrayLike, shape: Shape, name: str = "mask") -> Mask:
    mask = np.asarray(mask)
    same_shape(mask, shape, name)
    # NaN in a mask plane does not say that the pixel is good.
    return mask != 0


def _refuse_all_masked(bad: Mask) -> None:
    if bad.all():
        raise InputError(f"all {bad.size} pixels are masked or not finite: leave some unmasked")


# ---------------------------------------------------------------- noise


def _error_of(planes: Planes, bad: Mask) -> Array | None:
    """Error plane from whichever of the three kinds is there, checked in unmasked pixels."""
    for name, power in UNCERTAINTIES.values():
        plane = getattr(planes, name)
        if plane is not None:
            return _checked_error(plane, bad, f"the {name.replace('_', ' ')} plane", 1 / power)
    return None


def _checked_error(plane: Array, bad: Mask, name: str, power: float = 1) -> Array:
    same_shape(plane, bad.shape, name)
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
    sky, rms = _sky_level(observation.data, observation.valid)
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
        same_shape(exposure, observation.shape, "the exposure map")
        good = np.isfinite(exposure) & (exposure > 0)
        if not good[observation.valid].all():
            if not strict:
                return None
            number = np.count_nonzero(~good & observation.valid)
            raise InputError(f"the exposure map is not positive in {number} unmasked pixels: mask them")
        exposure = np.where(good, exposure, np.median(exposure[good]))
    area, gain = observation.grid.pixel_area, planes.gain or 1.0
    return effective_exposure(exposure, observation.unit, pixel_area=area, gain=gain)


def _sky_level(data: Array, valid: Mask) -> tuple[float, float]:
    """Level of the sky and rms of its noise, which is never 0."""
    level = float(sigma_clipped_stats(data[valid], sigma=3, maxiters=20)[1])
    # Clipping takes everything but the commonest value from images that are mostly zeros.
    rms = noise_rms(data, valid) or float(np.std(data[valid]))
    return level, rms or max(abs(level), 1.0) * 1e-3
