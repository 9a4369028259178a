"""Noise models: mean and variance of the data, given the noise-free flux.

Fits use `NoiseModel.moments`, simulations `NoiseModel.draw`. Numbers of a model may be plain, in the image's
unit and seconds, or quantities; `NoiseModel.in_unit` turns the latter into the former.
"""

from __future__ import annotations

import copy
import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar

import astropy.units as u
import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import ndimage
from torch import Tensor

from lenssr.exceptions import InputError
from lenssr.imaging.planes import Array, Mask
from lenssr.imaging.sky import FEWEST_PIXELS, source_mask
from lenssr.units import strip_unit

if TYPE_CHECKING:
    from lenssr.imaging.observation import Observation

__all__ = ["DeepLenseNoise", "GaussianNoise", "NoiseModel", "PoissonNoise", "stack_noise"]

# Least variance in counts: without it one stray photon where the model is almost 0 would outweigh the image.
# Chosen.
COUNT_FLOOR = 0.01
# Counts below which none are drawn: what the rounding of a convolution leaves of darkness differs between
# processors, and a draw, which takes numbers from the generator, would shift all that follow.
DARK_COUNTS = 1e-9
_COUNTS = (u.electron, u.ct, u.ph, u.adu, u.DN)


Noise = TypeVar("Noise", bound="NoiseModel")


class NoiseModel(ABC):
    """Base of the noise models.

    Subclasses name their numbers in ``names`` and hold them as attributes of those names; ``unbiased`` says
    whether the expected data are the noise-free model.
    """

    #: Names of the numbers of the model, which it has as attributes.
    names: tuple[str, ...] = ()
    #: Whether its variance is that of the noise, rather than a guess from the data.
    unbiased = True

    @abstractmethod
    def moments(self, model: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return mean and variance of the data, given the noise-free model.

        Parameters
        ----------
        model : `torch.Tensor`, shape (..., ny, nx)
            Noise-free flux of every pixel in the image's unit. The results follow its dtype and device.

        Returns
        -------
        mean, slope, variance : `torch.Tensor`
            Expected data, its derivative by the model, and its variance; each broadcasts to ``model``.
        """

    @abstractmethod
    def draw(self, model: ArrayLike, rng: np.random.Generator) -> Array:
        """Draw an image.

        Parameters
        ----------
        model : array, shape (..., ny, nx)
            Noise-free flux in the image's unit.
        rng : `numpy.random.Generator`

        Returns
        -------
        image : `~numpy.ndarray`, same shape
        """

    @abstractmethod
    def in_unit(self, unit: u.UnitBase, *, pixel_area: float | None = None, gain: float = 1.0) -> Self:
        """Return the same noise with plain numbers, for images in one unit.

        Parameters
        ----------
        unit : `~astropy.units.Unit`
            The unit of the images.
        pixel_area : float, optional
            Area of a pixel in arcsec2, which count rates per solid angle need.
        gain : float, optional
            Electrons in one adu or DN, for images in those.

        Returns
        -------
        noise : `NoiseModel`

        Raises
        ------
        InputError
            If a unit does not convert.
        """

    def with_numbers(self, *numbers: Any) -> Self:
        """The same kind of noise with other numbers, in the order of ``names``, which are not checked."""
        twin = copy.copy(self)
        twin.__dict__ = {**self.__dict__, **dict(zip(self.names, numbers, strict=True))}
        twin.__dict__.pop("_cache", None)
        return twin

    def on(self, device: str | torch.device) -> Self:
        """The same noise with its numbers as float64 tensors on a device."""
        to: Any = {"dtype": torch.float64, "device": device}
        return self.with_numbers(*(torch.as_tensor(_plain(getattr(self, name)), **to) for name in self.names))

    def select(self, index: int | list[int] | Tensor) -> Self:
        """The noise of some images of a stack, along the first axis of every number."""
        return self.with_numbers(*(getattr(self, name)[index] for name in self.names))

    def rows(self, rows: slice) -> Self:
        """The noise of some rows of the images of a stack."""

        def cut(value: Any) -> Any:
            return value[..., rows, :] if value.ndim > 1 and value.shape[-2] > 1 else value

        return self.with_numbers(*(cut(getattr(self, name)) for name in self.names))

    def to_dict(self) -> dict[str, Any]:
        """Settings as plain values; a map is given as its median."""
        settings: dict[str, Any] = {"noise": type(self).__name__}
        for name in self.names:
            value = getattr(self, name)
            scalar = isinstance(value, u.Quantity) and value.ndim == 0
            settings[name] = str(value) if scalar else float(np.median(self._array(name)))
        return settings

    def __repr__(self) -> str:
        kind, *settings = self.to_dict().items()
        return f"{kind[1]}({', '.join(f'{name}={value}' for name, value in settings)})"

    def _tensor(self, name: str, like: Tensor) -> Tensor:
        """Return a number or a map as a tensor like ``like``, which is kept."""
        value = _plain(getattr(self, name))
        if isinstance(value, Tensor):
            return value.to(like)
        cache, key = self.__dict__.setdefault("_cache", {}), (name, like.dtype, like.device)
        if key not in cache:
            cache[key] = torch.as_tensor(np.asarray(value, dtype=np.float64)).to(like)
        return cache[key]

    def _array(self, name: str) -> Array:
        value = _plain(getattr(self, name))
        return np.asarray(value.cpu() if isinstance(value, Tensor) else value, dtype=np.float64)


class GaussianNoise(NoiseModel):
    """Gaussian noise of known sigma: an error plane, or one number for all pixels.

    Parameters
    ----------
    sigma : float, `~astropy.units.Quantity` or array, shape (ny, nx)
        Standard deviation; numbers are in the image's unit. All must be positive.

    Raises
    ------
    InputError
        If a sigma is not positive and finite.

    Examples
    --------
    >>> import torch
    >>> from lenssr.imaging import GaussianNoise
    >>> mean, slope, variance = GaussianNoise(0.1).moments(torch.ones(2, 2))
    >>> float(variance)
    0.01
    """

    names = ("sigma",)

    def __init__(self, sigma: u.Quantity | ArrayLike) -> None:
        self.sigma = _checked(sigma, "sigma", positive=True)

    def moments(self, model: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Model, 1, sigma squared; see `NoiseModel.moments`."""
        slope = torch.ones((), dtype=model.dtype, device=model.device)
        return model, slope, self._tensor("sigma", model) ** 2

    def draw(self, model: ArrayLike, rng: np.random.Generator) -> Array:
        """Model plus normal deviates; see `NoiseModel.draw`."""
        model = np.asarray(model, dtype=np.float64)
        return model + self._array("sigma") * rng.standard_normal(model.shape)

    def in_unit(self, unit: u.UnitBase, *, pixel_area: float | None = None, gain: float = 1.0) -> Self:
        """Sigma in the image's unit; see `NoiseModel.in_unit`."""
        return type(self)(strip_unit(self.sigma, unit, "sigma"))


class PoissonNoise(NoiseModel):
    """Photon noise of the model's expected counts, and Gaussian background noise.

    The image is ``Poisson(t m) / t + N(0, background_rms)`` with t the exposure and m the model, so its
    variance is ``m / t + background_rms**2``.

    Parameters
    ----------
    exposure : `~astropy.units.Quantity`, float or array, shape (ny, nx)
        For images of count rates a time, numbers in seconds. For images of counts no exposure is needed
        and the number is not used. For images of flux, counts per unit of flux, such as
        ``30 * u.electron / u.nJy``.
    background_rms : `~astropy.units.Quantity`, float or array, optional
        Rms of everything that does not come from the model, in the image's unit; 0 by default.

    Raises
    ------
    InputError
        If the exposure is not positive or the rms is negative.

    Notes
    -----
    Pixels that expect less than 0.01 counts are given the scatter of 0.01 counts.

    Examples
    --------
    >>> import torch
    >>> from lenssr.imaging import PoissonNoise
    >>> mean, slope, variance = PoissonNoise(exposure=100, background_rms=0.1).moments(torch.ones(1))
    >>> float(variance)
    0.02
    """

    names = ("exposure", "background_rms")

    def __init__(self, exposure: u.Quantity | ArrayLike, background_rms: u.Quantity | ArrayLike = 0) -> None:
        self.exposure = _checked(exposure, "exposure", positive=True)
        self.background_rms = _checked(background_rms, "background_rms", positive=False)

    def moments(self, model: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Model, 1, model / exposure + background_rms squared; see `NoiseModel.moments`."""
        exposure, rms = self._tensor("exposure", model), self._tensor("background_rms", model)
        variance = model.clamp(min=0) / exposure + rms**2
        variance = torch.maximum(variance, COUNT_FLOOR / exposure**2)
        return model, torch.ones((), dtype=model.dtype, device=model.device), variance

    def draw(self, model: ArrayLike, rng: np.random.Generator) -> Array:
        """Poisson counts over the exposure, plus background; see `NoiseModel.draw`."""
        model, exposure = np.asarray(model, dtype=np.float64), self._array("exposure")
        image = rng.poisson(_expected_counts(model * exposure)) / exposure
        rms = self._array("background_rms")
        return image + rms * rng.standard_normal(model.shape) if np.any(rms > 0) else image

    def in_unit(self, unit: u.UnitBase, *, pixel_area: float | None = None, gain: float = 1.0) -> Self:
        """Exposure as counts per unit of the image; see `NoiseModel.in_unit`."""
        exposure = effective_exposure(self.exposure, unit, pixel_area=pixel_area, gain=gain)
        return type(self)(exposure, strip_unit(self.background_rms, unit, "background_rms"))


class DeepLenseNoise(PoissonNoise):
    """The noise of the DeepLense simulations, with the bias of its clipping.

    The image is ``Poisson(max(0, t (m + N(0, sqrt(m / t)) + N(0, background_rms)))) / t``: the counts scatter
    before they are clipped at zero and drawn. `moments` are those of this draw: for a pixel of empty sky
    the mean is not 0 but ``background_rms / sqrt(2 pi)``.

    Parameters
    ----------
    exposure : `~astropy.units.Quantity`, float or array, shape (ny, nx)
        As for `PoissonNoise`.
    background_rms : `~astropy.units.Quantity`, float or array
        Rms of the background in the image's unit; positive.

    Raises
    ------
    InputError
        If the exposure or the rms is not positive.

    Notes
    -----
    With a = t m, s^2 = t m + t^2 background_rms^2 and z = a / s, the clipped counts have mean
    ``a Phi(z) + s phi(z)``, and the draw adds this mean to their variance. The slope includes the dependence
    of s on m. The variance is that at max(m, 0).

    Examples
    --------
    >>> import torch
    >>> from lenssr.imaging import DeepLenseNoise
    >>> mean, slope, variance = DeepLenseNoise(1000, 0.01).moments(torch.zeros(1, dtype=torch.float64))
    >>> float(mean)
    0.0039894228
    """

    unbiased = False

    def __init__(self, exposure: u.Quantity | ArrayLike, background_rms: u.Quantity | ArrayLike) -> None:
        super().__init__(exposure, _checked(background_rms, "background_rms", positive=True))

    def moments(self, model: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, slope and variance of the clipped draw; see `NoiseModel.moments`."""
        exposure, rms = self._tensor("exposure", model), self._tensor("background_rms", model)
        counts = model * exposure
        deviation = torch.sqrt(counts.clamp(min=0) + (exposure * rms) ** 2)
        z = counts / deviation
        below, density = torch.special.ndtr(-z), torch.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
        mean = torch.where(z > 0, counts - counts * below, counts * torch.special.ndtr(z))
        mean = mean + deviation * density
        slope = 1 - below + torch.where(model >= 0, density / (2 * deviation), torch.zeros_like(density))
        # Variance in units of deviation^2, written for z >= 0 without differences of large numbers.
        z, below = z.clamp(min=0), below.clamp(max=0.5)
        density = torch.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
        missing = z * below - density
        clipped = 1 - below + z * missing - missing**2
        lit_mean = deviation * (z - missing)
        return mean / exposure, slope, (deviation**2 * clipped + lit_mean) / exposure**2

    def draw(self, model: ArrayLike, rng: np.random.Generator) -> Array:
        """Scatter, clip, draw counts, divide by the exposure; see `NoiseModel.draw`."""
        model, exposure = np.asarray(model, dtype=np.float64), self._array("exposure")
        shot = np.sqrt(np.clip(model, 0, None) / exposure) * rng.standard_normal(model.shape)
        background = self._array("background_rms") * rng.standard_normal(model.shape)
        return rng.poisson(_expected_counts(exposure * (model + shot + background))) / exposure


def _expected_counts(counts: Array) -> Array:
    """Means to draw counts from: the same on every processor, or nearly."""
    return np.where(counts > DARK_COUNTS, counts, 0.0)


def stack_noise(models: Sequence[Noise]) -> Noise:
    """One noise model for a batch of images.

    Parameters
    ----------
    models : sequence of `NoiseModel`
        Of one class, with plain numbers (`NoiseModel.in_unit`) or maps of one shape.

    Returns
    -------
    noise : `NoiseModel`
        Its numbers have shape (B, 1, 1) or (B, ny, nx).

    Raises
    ------
    InputError
        If the models are of several classes.

    Examples
    --------
    >>> from lenssr.imaging import GaussianNoise, stack_noise
    >>> stack_noise([GaussianNoise(0.1), GaussianNoise(0.2)]).sigma.shape
    (2, 1, 1)
    """
    kinds = {type(model) for model in models}
    if len(kinds) != 1:
        raise InputError(f"noise models {sorted(kind.__name__ for kind in kinds)} do not stack: group them")
    maps = ([np.atleast_2d(model._array(name)) for model in models] for name in models[0].names)
    return kinds.pop()(*(np.stack(np.broadcast_arrays(*values)) for values in maps))


def effective_exposure(
    exposure: Any, unit: u.UnitBase | str, *, pixel_area: float | None = None, gain: float = 1.0
) -> Any:
    """Number of detected counts in one unit of an image, a number or a map.

    ``exposure`` is a time (numbers in seconds) or counts per image unit. An image without unit holds a rate;
    electrons, photons and counts are counts; adu and DN are ``gain`` electrons. ``pixel_area`` (arcsec2) is
    needed for rates per solid angle. A time is refused for an image of flux.
    """
    unit = u.Unit(unit)
    quantity = exposure if isinstance(exposure, u.Quantity) else u.Quantity(exposure, u.s)
    if not quantity.unit.is_equivalent(u.s):
        return _counts_in_unit(quantity, unit)
    seconds = quantity.to_value(u.s)
    if unit.is_equivalent(u.dimensionless_unscaled):
        return _float_or_array(seconds * unit.to(u.dimensionless_unscaled))
    found = _count_unit(unit)
    if found is None:
        text = f"a map with median {np.median(exposure):g}" if np.ndim(exposure) else f"{exposure:g}"
        say = f"give it in electron / ({unit}), or an error plane"
        raise InputError(f"exposure = {text} does not say how many counts one {unit} is: {say}")
    reference, count, kind, per_area = found
    if per_area and pixel_area is None:
        raise InputError(f"counts in {unit} need the area of a pixel: give pixel_area=")
    electrons = unit.to(reference) * (gain if count in (u.adu, u.DN) else 1.0)
    electrons *= pixel_area if per_area else 1.0
    return _float_or_array(electrons * (seconds if kind == "rate" else np.ones_like(seconds)))


def count_kind(unit: u.UnitBase | str) -> str | None:
    """Kind of the unit of an image: "counts", "rate", or None for other units and for none."""
    found = _count_unit(u.Unit(unit))
    return None if found is None else found[2]


@functools.lru_cache(maxsize=256)
def _count_unit(unit: u.UnitBase) -> tuple[u.UnitBase, u.UnitBase, str, bool] | None:
    """Unit of counts, per second or not, per arcsec2 or not, that a unit is equivalent to."""
    for count in _COUNTS:
        for kind, base in (("counts", count), ("rate", count / u.s)):
            for per_area, reference in ((False, base), (True, base / u.arcsec**2)):
                if unit.is_equivalent(reference):
                    return reference, count, kind, per_area
    return None


def _counts_in_unit(quantity: u.Quantity, unit: u.UnitBase) -> Any:
    for count in (*_COUNTS, u.dimensionless_unscaled):
        if (quantity.unit * unit).is_equivalent(count):
            return _float_or_array((quantity * (1 * unit)).to_value(count))
    raise InputError(f"exposure in {quantity.unit} is neither a time nor counts: give electron / ({unit})")


def _checked(value: Any, name: str, *, positive: bool) -> Any:
    if isinstance(value, float) and (0 < value < math.inf or (value == 0 and not positive)):
        return value  # The fast path of simulations.
    plain = np.asarray(_plain(value), dtype=np.float64)
    bad = ~np.isfinite(plain) | (plain <= 0 if positive else plain < 0)
    if bad.any():
        kind = "positive and finite" if positive else "finite and not negative"
        where = f" in {bad.sum()} pixels" if plain.ndim else ""
        raise InputError(f"{name} = {plain[bad].ravel()[0]:g}{where} is not {kind}: correct or mask it")
    return value if isinstance(value, u.Quantity) else _float_or_array(plain)


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, u.Quantity) else value


def _float_or_array(value: ArrayLike) -> Any:
    array = np.array(value, dtype=np.float64)
    return float(array) if array.ndim == 0 else array


# ---------------------------------------------------------------- error planes made from the observed counts

# Side of the running median, in pixels, that separates light and exposure from noise.
_MEDIAN_SIDE = 5
# A plane follows the noise if the rank correlation of noise and variance in the sky is above the first, and
# the scatter that remains without the counts is below the second. A plane from a model has 0 and 1.
_LEAST_CORRELATION = 0.5
_LARGEST_REST = 0.5
# Largest relative difference between the slope and the known exposure that counts as equal.
_SAME_SLOPE = 0.1
# Least share of pixels with positive remaining variance; least remaining variance over its median.
_POSITIVE_SHARE = 0.99
_FLOOR = 1e-2


def noise_of_counts(observation: Observation, counts: Any = None) -> PoissonNoise | None:
    """Photon noise model for an error plane that follows the observed counts; None if it does not.

    ``counts`` is the number of counts in a unit of the image, (ny, nx) or one number, if known. The
    background is the rest of the plane. Planes with fewer than 200 pixels of sky give None.

    Errors made as ``sigma^2 = background^2 + max(data, 0) / exposure`` are smaller where counts are low, and
    bias a fit by one count in every pixel: ``sum (d - m) / d`` vanishes for m = 1 / <1 / d> = <d> - 1
    (Mighell 1999, ApJ 518, 380; Humphrey, Liu & Buote 2009, ApJ 693, 822). A plane follows the data if, in
    the sky and without a running median, variance and data have a rank correlation above 0.5, and if
    subtracting a multiple of the data, clipped at zero or not, removes more than half of the scatter of the
    variance.
    """
    if observation.error is None:
        return None
    variance, data, valid = observation.error**2, observation.data, observation.valid
    # Constant planes need no statistics.
    if np.ptp(variance) <= 1e-6 * variance.max():
        return None
    sky = valid & ~source_mask(observation)
    if np.count_nonzero(sky) < FEWEST_PIXELS:
        return None
    ripple = _ripple(variance)
    if not _rank_correlation(_ripple(data)[sky], ripple[sky]) > _LEAST_CORRELATION:
        return None
    # The variance may follow data without negative counts, or all if a sky was subtracted.
    parts = (np.maximum(data, 0), data)
    found = [_without_photons(variance, ripple, part, sky, valid, counts) for part in parts]
    left, counts, rest = min(found, key=lambda one: one[0])
    if left > _LARGEST_REST * _width(ripple[sky]) or (rest > 0)[valid].mean() < _POSITIVE_SHARE:
        return None
    middle = float(np.median(rest[sky]))
    # A noise model has to be finite in masked pixels, too.
    rest = np.where(valid, np.maximum(rest, _FLOOR * middle), middle)
    return PoissonNoise(counts, np.sqrt(rest)) if middle > 0 else None


def _without_photons(
    variance: Array, ripple: Array, seen: Array, sky: Mask, valid: Mask, counts: Any
) -> tuple[float, Any, Array]:
    """Scatter of the variance in the sky without photon noise, counts per unit, remaining variance."""
    scale = 1.0 if counts is None else 1 / np.asarray(counts)
    step = _ripple(seen * scale)
    slope = float((step * ripple)[valid].sum() / max((step**2)[valid].sum(), np.finfo(float).tiny))
    if counts is not None and abs(slope - 1) < _SAME_SLOPE:
        slope = 1.0
    if slope <= 0:
        return np.inf, 1.0, variance
    rest = variance - slope * scale * seen
    return _width(_ripple(rest)[sky]), 1 / (slope * scale), rest


def _rank_correlation(one: Array, other: Array) -> float:
    """Spearman's coefficient; 0 where all values are equal. ``scipy.stats`` would take a second to import."""
    ranks = [_ranks(values) for values in (one, other)]
    first, second = (values - values.mean() for values in ranks)
    spread = math.sqrt((first**2).sum() * (second**2).sum())
    return float((first * second).sum() / spread) if spread else 0.0


def _ranks(values: Array) -> Array:
    """Ranks of values, those of equal ones averaged."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places.ravel()]


def _ripple(image: Array) -> Array:
    return image - ndimage.median_filter(image, _MEDIAN_SIDE)


def _width(values: Array) -> float:
    low, high = np.percentile(values, (16, 84))
    return float(high - low)
