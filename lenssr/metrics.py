"""How close a reconstruction is to the truth.

Two scores are used throughout lenssr. **T** compares a reconstruction with the noise-free truth in flux
(`scores_t`). **M** compares it with a noisy high-resolution image after each has been clipped at zero and
stretched to the range 0 to 1 (`scores_m`); errors of scale do not change it, so it serves for comparison
with published numbers only.

Images (``image``, ``truth``, ...) are arrays, quantities or `~astropy.nddata.CCDData`. Two images have equal
shapes, and where both have units, the first is converted to the unit of the second.
`~lenssr.exceptions.InputError` is raised if shapes differ, units do not convert, or a value is not finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import astropy.units as u
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from lenssr.exceptions import InputError
from lenssr.units import positive_integer

__all__ = ["Scores", "Summary", "bicubic", "coverage", "flux_ratio", "mse", "oracle", "psnr"]
__all__ += ["reduced_chi2", "scores_m", "scores_t", "ssim", "stretch", "summarize"]

Array: TypeAlias = NDArray[np.float64]
# Values, perhaps with a unit; astropy's classes are Any to type checkers.
Image: TypeAlias = "u.Quantity | ArrayLike"
# Side of the window of SSIM in pixels.
_WINDOW = 7


class Scores(NamedTuple):
    """Mean squared error, peak signal-to-noise ratio in dB, and structural similarity of one image."""

    mse: float
    psnr: float
    ssim: float


@dataclass(frozen=True)
class Summary:
    """A score over many images: `summarize` makes it.

    Attributes
    ----------
    mean, standard_error : float
        The mean and the standard error of the mean (NaN for a single image).
    worst : float
        The score of the worst image.
    worst_index : int
        The number of that image, from 0.
    count : int
        Number of images.
    """

    mean: float
    standard_error: float
    worst: float
    worst_index: int
    count: int

    def __str__(self) -> str:
        return f"{self.mean:.2f} +- {self.standard_error:.2f} (worst {self.worst:.2f}: {self.worst_index})"


def _plain(value: Any) -> tuple[Array, Any]:
    """Values as a float64 array, and their unit or `None`."""
    unit = getattr(value, "unit", None)
    if isinstance(value, u.Quantity):
        value = value.value
    elif hasattr(value, "uncertainty"):  # an NDData; a bare ndarray also has a `data`, which is its buffer
        value = value.data
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    return np.asarray(value, dtype=np.float64), unit


def _pair(first: Any, second: Any, names: tuple[str, str], *, finite: bool = True) -> tuple[Array, Array]:
    """Two images as float64 arrays in the unit of the second."""
    (a, unit_a), (b, unit_b) = _plain(first), _plain(second)
    if a.shape != b.shape:
        raise InputError(f"{names[0]} has shape {a.shape} but {names[1]} has {b.shape}: give equal shapes")
    if a.size == 0:
        raise InputError(f"{names[0]} is empty: give at least one value")
    if unit_a is not None and unit_b is not None and unit_a != unit_b:
        try:
            a = a * unit_a.to(unit_b)
        except u.UnitConversionError as error:
            raise InputError(f"{names[0]} in {unit_a} does not convert to {unit_b} of {names[1]}") from error
    for array, name in zip((a, b), names, strict=True):
        bad = array.size - int(np.isfinite(array).sum())
        if finite and bad:
            raise InputError(f"{name} has {bad} non-finite values: fill them or cut them out first")
    return a, b


def _range(truth: Array, data_range: Any) -> float:
    data_range = float(truth.max()) if data_range is None else float(_plain(data_range)[0])
    if not data_range > 0:
        raise InputError(f"data_range = {data_range} is not positive: give one that is")
    return data_range


def mse(image: Image, truth: Image) -> float:
    """Mean squared error.

    Parameters
    ----------
    image, truth : array, `~astropy.units.Quantity` or `~astropy.nddata.CCDData`

    Returns
    -------
    float
        In the square of the unit of ``truth``.

    Examples
    --------
    >>> from lenssr.metrics import mse
    >>> mse([1.0, 2.0], [1.0, 4.0])
    2.0
    """
    image, truth = _pair(image, truth, ("image", "truth"))
    return float(np.mean((image - truth) ** 2))


def psnr(image: Image, truth: Image, *, data_range: u.Quantity | float | None = None) -> float:
    """Peak signal-to-noise ratio, ``10 log10(data_range^2 / mse)``.

    Parameters
    ----------
    image, truth : array, `~astropy.units.Quantity` or `~astropy.nddata.CCDData`
    data_range : float, optional
        The range of the values, in the unit of ``truth``; its peak by default.

    Returns
    -------
    float
        In dB; infinite for equal images.

    Raises
    ------
    InputError
        If the range is not positive.

    Examples
    --------
    >>> from lenssr.metrics import psnr
    >>> psnr([0.0, 9.0], [0.0, 10.0])  # doctest: +FLOAT_CMP
    23.010299956639813
    """
    image, truth = _pair(image, truth, ("image", "truth"))
    data_range, error = _range(truth, data_range), mse(image, truth)
    return float("inf") if error == 0 else float(10 * np.log10(data_range**2 / error))


def ssim(image: Image, truth: Image, *, data_range: u.Quantity | float | None = None) -> float:
    """Structural similarity: scikit-image's ``structural_similarity`` with its defaults.

    Parameters
    ----------
    image, truth : array, `~astropy.units.Quantity` or `~astropy.nddata.CCDData`, shape (ny, nx)
        At least 7 x 7 pixels.
    data_range : float, optional
        The range of the values, in the unit of ``truth``; its peak by default.

    Returns
    -------
    float
        1 for equal images.

    Raises
    ------
    InputError
        If the range is not positive, or the images are not two-dimensional or smaller than the 7 x 7 window.

    Notes
    -----
    Means, sample variances and covariance are taken in a uniform 7 x 7 window; K1 = 0.01 and K2 = 0.03;
    the mean leaves out a border of 3 pixels.

    References
    ----------
    Wang, Bovik, Sheikh and Simoncelli 2004, IEEE Transactions on Image Processing 13, 600, equation 13.

    Examples
    --------
    >>> import numpy as np
    >>> from lenssr.metrics import ssim
    >>> truth = np.outer(np.arange(8.0), np.arange(8.0))
    >>> ssim(truth, truth)  # doctest: +FLOAT_CMP
    1.0
    """
    from skimage.metrics import structural_similarity

    image, truth = _pair(image, truth, ("image", "truth"))
    if truth.ndim != 2 or min(truth.shape) < _WINDOW:
        raise InputError(f"images of shape {truth.shape}: SSIM needs two sides of at least {_WINDOW} pixels")
    return float(structural_similarity(image, truth, data_range=_range(truth, data_range)))


def scores_t(image: Image, truth: Image) -> Scores:
    """Score a reconstruction against the noise-free truth in flux (T), the truth's peak as range.

    Parameters
    ----------
    image, truth : array, `~astropy.units.Quantity` or `~astropy.nddata.CCDData`, shape (ny, nx)
        The reconstruction and the noise-free high-resolution image.

    Returns
    -------
    Scores
        ``mse`` in squared flux, ``psnr`` in dB, ``ssim``.

    Examples
    --------
    >>> import numpy as np
    >>> from lenssr.metrics import scores_t
    >>> truth = np.outer(np.arange(8.0), np.arange(8.0))
    >>> scores_t(truth + 0.49, truth).psnr  # doctest: +FLOAT_CMP
    40.0
    """
    return Scores(mse(image, truth), psnr(image, truth), ssim(image, truth))


def stretch(image: Image) -> Array:
    """Clip an image at zero and stretch it linearly to the range 0 to 1; a constant becomes 0.

    Parameters
    ----------
    image : array, `~astropy.units.Quantity` or `~astropy.nddata.CCDData`

    Returns
    -------
    `~numpy.ndarray`
        float64, without unit.

    Examples
    --------
    >>> from lenssr.metrics import stretch
    >>> stretch([-1.0, 1.0, 2.0])
    array([0. , 0.5, 1. ])
    """
    clipped = np.clip(_plain(image)[0], 0, None)
    low, high = clipped.min(), clipped.max()
    return (clipped - low) / (high - low) if high > low else np.zeros_like(clipped)


def scores_m(image: Image, target: Image) -> Scores:
    """Score as the original LensSR test did (M): only shapes count, not fluxes.

    Parameters
    ----------
    image, target : array, `~astropy.units.Quantity` or `~astropy.nddata.CCDData`, shape (ny, nx)
        The reconstruction and the noisy high-resolution image. Each is put through `stretch`; the range is 1.

    Examples
    --------
    >>> import numpy as np
    >>> from lenssr.metrics import scores_m
    >>> target = np.outer(np.arange(8.0), np.arange(8.0))
    >>> scores_m(3 * target, target).psnr
    inf
    """
    image, target = _pair(image, target, ("image", "target"))
    image, target = stretch(image), stretch(target)
    return Scores(mse(image, target), psnr(image, target, data_range=1), ssim(image, target, data_range=1))


def oracle(truth: Image, target: Image) -> Scores:
    """Score the noise-free truth itself in M: no honest reconstruction does better on average.

    Parameters
    ----------
    truth, target : array, `~astropy.units.Quantity` or `~astropy.nddata.CCDData`, shape (ny, nx)
        The noise-free and the noisy high-resolution image.

    Returns
    -------
    Scores
    """
    return scores_m(truth, target)


def bicubic(image: Image, scale: int) -> Any:
    """Enlarge an image by bicubic interpolation, conserving flux: the baseline of every table.

    Parameters
    ----------
    image : array, `~astropy.units.Quantity` or `~astropy.nddata.CCDData`, shape (..., ny, nx)
        Flux per pixel.
    scale : int
        Number of new pixels along an old one.

    Returns
    -------
    `~numpy.ndarray` or `~astropy.units.Quantity`, shape (..., scale ny, scale nx)
        PyTorch's bicubic interpolation (``align_corners=False``) divided by ``scale**2``; a Quantity where
        the image has a unit.

    Raises
    ------
    InputError
        If ``scale`` is not a positive integer or the image has fewer than two dimensions.

    Examples
    --------
    >>> import numpy as np
    >>> from lenssr.metrics import bicubic
    >>> enlarged = bicubic(np.ones((4, 5)), 2)
    >>> enlarged.shape, float(enlarged[0, 0])
    ((8, 10), 0.25)
    """
    scale = positive_integer(scale, "scale")
    array, unit = _plain(image)
    if array.ndim < 2:
        raise InputError(f"an image of shape {array.shape} cannot be enlarged: give two dimensions")
    flat = torch.from_numpy(np.array(array).reshape(-1, 1, *array.shape[-2:]))
    large = torch.nn.functional.interpolate(flat, scale_factor=scale, mode="bicubic", align_corners=False)
    values = large.numpy().reshape(*array.shape[:-2], *large.shape[-2:]) / scale**2
    return values if unit is None else u.Quantity(values, unit)


def reduced_chi2(
    data: Image, model: Image, error: Image, *, mask: ArrayLike | None = None, n_parameters: int = 0
) -> float:
    """Chi-squared per degree of freedom.

    Parameters
    ----------
    data, model, error : array, `~astropy.units.Quantity` or `~astropy.nddata.CCDData`
        ``error`` may be one number.
    mask : array of bool, optional
        True where a pixel does not count.
    n_parameters : int, optional
        Number of fitted parameters.

    Returns
    -------
    float

    Raises
    ------
    InputError
        If an unmasked error is not positive and finite, or no degree of freedom is left.

    Examples
    --------
    >>> from lenssr.metrics import reduced_chi2
    >>> reduced_chi2([1.0, 2.0, 3.0], [1.0, 1.0, 1.0], 0.5, n_parameters=1)
    10.0
    """
    values, _ = _plain(data)
    if np.ndim(error) == 0:
        error = np.multiply(np.ones(values.shape), error)
    model, _ = _pair(model, data, ("model", "data"), finite=False)
    error, _ = _pair(error, data, ("error", "data"), finite=False)
    good = np.ones(values.shape, bool) if mask is None else ~np.asarray(mask, bool)
    if good.shape != values.shape:
        raise InputError(f"mask has shape {good.shape} but data has {values.shape}: give equal shapes")
    if not np.all(np.isfinite(error[good]) & (error[good] > 0)):
        raise InputError("error has values that are not positive and finite: mask those pixels")
    freedom = int(good.sum()) - n_parameters
    if freedom < 1:
        raise InputError(f"{int(good.sum())} unmasked pixels leave nothing after {n_parameters} parameters")
    chi = ((values - model)[good]) / error[good]
    return float(chi @ chi / freedom)


def flux_ratio(image: Image, truth: Image) -> float:
    """Total flux of an image over the total flux of the truth.

    Parameters
    ----------
    image, truth : array, `~astropy.units.Quantity` or `~astropy.nddata.CCDData`

    Returns
    -------
    float

    Raises
    ------
    InputError
        If the truth sums to zero.

    Examples
    --------
    >>> from lenssr.metrics import flux_ratio
    >>> flux_ratio([1.0, 2.0], [2.0, 2.0])
    0.75
    """
    image, truth = _pair(image, truth, ("image", "truth"))
    total = truth.sum()
    if total == 0:
        raise InputError("truth sums to zero: a ratio of fluxes has no meaning")
    return float(image.sum() / total)


def coverage(
    truth: Image, estimate: Image, error: Image, *, n_sigma: float = 1.0, axis: int | None = None
) -> Any:
    """Fraction of truths inside their interval: 0.683 at one sigma for honest Gaussian errors.

    Parameters
    ----------
    truth, estimate, error : array, `~astropy.units.Quantity` or `~astropy.nddata.CCDData`
    n_sigma : float, optional
        Half width of the interval in units of ``error``; 1 by default.
    axis : int, optional
        The axis to average along, for example the one of images when the other is for parameters; all by
        default.

    Returns
    -------
    float or `~numpy.ndarray`

    Raises
    ------
    InputError
        If an error is negative.

    Examples
    --------
    >>> from lenssr.metrics import coverage
    >>> coverage([1.0, 2.0, 3.0, 4.0], [1.1, 2.5, 3.0, 4.0], [0.2, 0.2, 0.2, 0.2])
    0.75
    """
    estimate, values = _pair(estimate, truth, ("estimate", "truth"))
    error, _ = _pair(error, truth, ("error", "truth"))
    if np.any(error < 0):
        raise InputError(f"error = {error.min()} is negative: give standard deviations")
    inside = np.mean(np.abs(estimate - values) <= n_sigma * error, axis=axis)
    return float(inside) if np.ndim(inside) == 0 else inside


def summarize(values: Sequence[float] | Array, *, higher_is_better: bool = True) -> Summary:
    """Mean, standard error and worst image of a score.

    Parameters
    ----------
    values : sequence of float
        The score of each image.
    higher_is_better : bool, optional
        Whether the worst image has the lowest score, the default; false for errors.

    Returns
    -------
    Summary

    Raises
    ------
    InputError
        If there are no values, or one is NaN.

    Examples
    --------
    >>> from lenssr.metrics import summarize
    >>> print(summarize([40.0, 44.0, 42.0]))
    42.00 +- 1.15 (worst 40.00: 0)
    """
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 1 or scores.size == 0:
        raise InputError(f"values has shape {scores.shape}: give one score for each image")
    if np.isnan(scores).any():
        raise InputError(f"the score of image {int(np.isnan(scores).argmax())} is not a number: leave it out")
    worst = int(scores.argmin() if higher_is_better else scores.argmax())
    error = float(scores.std(ddof=1) / np.sqrt(scores.size)) if scores.size > 1 else float("nan")
    return Summary(float(scores.mean()), error, float(scores[worst]), worst, scores.size)
