"""Objects in the field of a lens, and the significance of its light, of one image or, as tensors, of many.

The central galaxy is subtracted as a profile that falls outward on ellipses of one shape; the rest is divided
into segments, which `lenssr.reconstruction.field_mask` classifies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from astropy.convolution import Gaussian2DKernel
from astropy.stats import gaussian_fwhm_to_sigma
from astropy.utils.exceptions import AstropyUserWarning
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import avg_pool2d

from lenssr._quiet import quiet
from lenssr.imaging.planes import Array, Mask

if TYPE_CHECKING:
    from lenssr.imaging.observation import Observation

__all__ = ["LightCensus", "light_census"]

# Error of the elliptical profile of a galaxy, over its light. Chosen: real galaxies are not ellipses.
PROFILE_TRUST = 0.07
# Significance in the smoothed image, in sigma, of each pixel of an object, and of the peak of one that is
# deblended. Chosen: in white noise one pixel in 160 exceeds the first, in 300,000 the second (theory).
PIXEL_SIGMA, LEAST_PEAK = 2.5, 4.5
# Least share of the light of touching objects that each of them has. Chosen.
CONTRAST = 0.01
# Pixels that a segment needs, over those of one object, to be deblended. Theory: two, with a saddle between.
DEBLENDED_AREA = 3
# FWHM of a PSF that is not known, and least FWHM that is believed, in pixels. Chosen.
UNKNOWN_FWHM, LEAST_FWHM = 2.5, 1.5
# Distance of the central galaxy from the middle over the side of the field, at most, and the significance of
# its peak, in sigma of a pixel, at least. Chosen; theory: 3 sigma.
CENTRE_REACH, CENTRE_SIGMA = 0.15, 3.0
# Sectors around that peak, and the least light in each of them: 1.5 to 2.5 FWHM from it over its own; or one
# to two FWHM from it over that of the brightest sector. And how many peaks are tried. Chosen: galaxies of 26
# real lenses have 0.13 to 0.6 in the first, arcs of 20 simulated ones behind a PSF and cosmic rays 0 to 0.09.
SECTORS, SURROUNDED, EVENLY, MOST_PEAKS = 8, 0.1, 0.4, 10
# Levels over that of a peak, above which the light around it is compact: its least area over that of its
# convex hull, and the largest distance of its centre from the peak over its radius. Chosen: galaxies of 26
# real lenses have 0.85 or more and 0.11 or less; most of the thick arcs of 80 simulated lenses fail.
LEVELS, LEAST_SOLID, MOST_ASKEW = (0.6, 0.4), 0.8, 0.25
# Pixels below which no shape is measured. Theory: a convex hull needs three that are not in line.
LEAST_AREA = 6
# Distance from the centre between which light may be arcs: least in FWHM of the PSF, largest over the side of
# the field. Chosen; theory: the field's edge.
ARCS_FROM_FWHM, ARCS_TO_FIELD = 1.5, 0.5
# Largest modulus of the ellipticity of the central galaxy: an axis ratio of 0.25. Chosen: arcs may fake more.
MAX_ELLIPTICITY = 0.6
# Side of the window, in pixels, and significance of its sum, in sigma, above which its centre is significant
# to networks.
WINDOW_SIDE, WINDOW_SIGMA = 5, 5.0
# Least variance over the largest of an image: lower ones come from hardly a count.
LEAST_VARIANCE_SHARE = 1e-3


@dataclass(frozen=True)
class LightCensus:
    """Significance of the light, and of the light that a plain galaxy does not explain.

    Attributes
    ----------
    total : float
        Signal to noise of the most significant feature of the whole image, in sigma.
    arcs : float
        The same for the light outside the elliptical central galaxy and other objects.
    center : tuple of float
        Peak of the central light, (x, y) in arcsec; the image centre if there is none.

    Notes
    -----
    Pure noise stays under 6 in both, so ``arcs`` under 6 means that no arcs were found. A star or a spiral
    leaves light outside an elliptical galaxy, too, so a large value does not mean that there are arcs.
    """

    total: float
    arcs: float
    center: tuple[float, ...]


def light_census(observation: Observation) -> LightCensus:
    """Measure the significance of all light, and of the light outside a central galaxy.

    Parameters
    ----------
    observation : `~lenssr.imaging.Observation`
        The image, other objects masked.

    Returns
    -------
    census : `LightCensus`
    """
    scene = FieldObjects(observation)
    total = scene.significance(observation.data - scene.sky, scene.error)
    far = scene.radius < ARCS_TO_FIELD * min(observation.shape)
    outside = (scene.radius > ARCS_FROM_FWHM * scene.fwhm) & far
    arcs = scene.significance(scene.residual, scene.tolerance)
    center = observation.grid.from_pixel(*scene.center)
    best = float(arcs[outside].max()) if outside.any() else 0.0
    return LightCensus(float(total.max()), best, tuple(float(value) for value in center))


def significance_map(image: Array, weight: Array, sigma: float) -> Array:
    """Signal to noise (ny, nx) of light, smoothed by a Gaussian (sigma in pixels), for independent noise."""
    side = 2 * max(1, math.ceil(3 * sigma)) + 1
    kernel = Gaussian2DKernel(sigma, x_size=side).array
    signal = ndimage.convolve(image * weight, kernel, mode="constant")
    noise = np.sqrt(ndimage.convolve(weight, kernel**2, mode="constant"))
    return np.divide(signal, noise, out=np.zeros_like(signal), where=noise > 0)


def label_objects(significance: Array, fwhm: float, *, threshold: float = PIXEL_SIGMA) -> Any:
    """`SegmentationImage` of objects in a significance map, none smaller than the PSF; None without any."""
    from photutils.segmentation import deblend_sources, detect_sources
    from photutils.utils.exceptions import NoDetectionsWarning

    least = max(5, round(fwhm**2))
    # photutils warns of segments with many peaks, whose levels it spaces linearly.
    with quiet(NoDetectionsWarning), quiet(AstropyUserWarning):
        found = detect_sources(significance, threshold, least)
        if found is None:
            return None
        # Deblend large and bright segments only: a large empty image has thousands of others.
        peaks = ndimage.maximum(significance, found.data, found.labels)
        large = found.labels[(found.areas >= DEBLENDED_AREA * least) & (np.asarray(peaks) > LEAST_PEAK)]
        if not large.size:
            return found
        options = {"labels": large, "contrast": CONTRAST, "progress_bar": False}
        return deblend_sources(significance, found, least, **options)


@dataclass(eq=False)
class Segment:
    """One object beside the central galaxy; lengths in pixels, along and across the circle around it."""

    box: tuple[slice, ...]  # in the image
    pixels: Mask  # of the object, in the box
    radius: float  # distance from the centre
    angle: float  # its direction, in radians
    outer: float  # distance within which 90 % of the object lies
    along: float  # standard deviations of its light
    across: float
    signal: float  # signal to noise of its light
    peak: float  # signal to noise of its most significant point in the smoothed image
    fwhm: float  # of the PSF

    def grown(self, margin: int, shape: tuple[int, ...]) -> tuple[tuple[slice, ...], Mask]:
        """Return the box with a margin, within the image, and the pixels in it."""
        sides = zip(self.box, shape, strict=True)
        box = tuple(slice(max(one.start - margin, 0), min(one.stop + margin, size)) for one, size in sides)
        more = [(a.start - b.start, b.stop - a.stop) for a, b in zip(self.box, box, strict=True)]
        return box, np.pad(self.pixels, more)


class FieldObjects:
    """An image, its central galaxy, and the objects beside it; lengths in pixels."""

    def __init__(self, observation: Observation) -> None:
        self.observation = observation
        self.fwhm = psf_width(observation)
        self.sigma = self.fwhm * gaussian_fwhm_to_sigma
        sky = observation.sky
        self.sky, self.factor = sky.level, sky.factor
        self.error = observation.sigma() * max(1.0, sky.rms_ratio)
        bare = np.where(observation.valid, observation.data - self.sky, 0.0)
        self.center = galaxy_place(bare, observation) or observation.grid.center
        rows, columns = np.indices(observation.shape)
        self.dx, self.dy = columns - self.center[0], rows - self.center[1]
        self.radius = np.hypot(self.dx, self.dy)
        self.galaxy = _elliptical_profile(observation, self)
        self.residual = np.where(observation.valid, bare - self.galaxy, 0.0)
        self.tolerance = np.hypot(self.error, PROFILE_TRUST * self.galaxy)

    def significance(self, image: Array, error: Array) -> Array:
        """Signal to noise of light smoothed to the width of the PSF."""
        weight = np.where(self.observation.valid, error**-2.0, 0.0)
        return significance_map(image, weight, self.sigma) / self.factor

    def segments(self) -> list[Segment]:
        """The objects beside the central galaxy."""
        significance = self.significance(self.residual, self.tolerance)
        objects = label_objects(significance, self.fwhm)
        found = [] if objects is None else objects.segments
        parts = ((one.slices, objects.data[one.slices] == one.label) for one in found)
        segments = (self._segment(*part, significance) for part in parts)
        return [segment for segment in segments if segment is not None]

    def _segment(self, box: tuple[slice, ...], pixels: Mask, significance: Array) -> Segment | None:
        residual, tolerance, radii = self.residual[box], self.tolerance[box], self.radius[box]
        x, y = self.dx[box], self.dy[box]
        light = np.where(pixels, np.clip(residual, 0, None), 0.0)
        total = light.sum()
        if total <= 0:
            return None
        dx, dy = (float((light * offset).sum() / total) for offset in (x, y))
        angle = math.atan2(dy, dx)
        # Lengths are along the circle about the centre, where a long arc is long and thin.
        turn = np.angle(np.exp(1j * (np.arctan2(y, x) - angle)))
        radius = float((light * radii).sum() / total)
        along = math.sqrt((light * (radii * turn) ** 2).sum() / total)
        across = math.sqrt((light * (radii - radius) ** 2).sum() / total)
        signal = residual[pixels].sum() / math.sqrt((tolerance[pixels] ** 2).sum()) / self.factor
        outer = float(np.percentile(radii[pixels], 90))
        peak = float(significance[box][pixels].max())
        return Segment(box, pixels, radius, angle, outer, along, across, signal, peak, self.fwhm)


def psf_width(observation: Observation) -> float:
    """FWHM of the PSF of an observation in pixels, from 1.5 to a quarter of the image; 2.5 without a PSF."""
    if observation.psf is None:
        return UNKNOWN_FWHM
    width = observation.psf_fwhm / observation.pixel_scale
    return float(np.clip(width, LEAST_FWHM, min(observation.shape) / 4))


def galaxy_place(image: Array, observation: Observation) -> tuple[float, float] | None:
    """Brightest significant point of the inner part of the field that light surrounds, column and row.

    Parameters
    ----------
    image : `~numpy.ndarray`, shape (ny, nx)
        Of the observation, less its sky or a model; 0 where pixels are masked.
    observation : `~lenssr.imaging.Observation`

    Returns
    -------
    place : tuple of float or None
        In pixels; None where no galaxy is seen.
    """
    from photutils.centroids import centroid_quadratic, centroid_sources
    from photutils.detection import find_peaks
    from photutils.utils.exceptions import NoDetectionsWarning

    middle, fwhm = observation.grid.center, psf_width(observation)
    smooth = ndimage.gaussian_filter(image, fwhm * gaussian_fwhm_to_sigma)
    rows, columns = np.indices(observation.shape)
    far = np.hypot(columns - middle[0], rows - middle[1]) >= CENTRE_REACH * min(observation.shape)
    error = observation.sigma() * max(1.0, observation.sky.rms_ratio)
    with quiet(NoDetectionsWarning):
        peaks = find_peaks(smooth, CENTRE_SIGMA * error, box_size=3, mask=far)
    places = [] if peaks is None else peaks[np.argsort(-peaks["peak_value"])]["x_peak", "y_peak"]
    for column, row in places[:MOST_PEAKS]:
        if _is_surrounded(smooth, column, row, fwhm) and _is_compact(smooth, column, row):
            # Where the fit fails: the brightest pixel.
            with quiet(AstropyUserWarning):
                options = {"box_size": 5, "centroid_func": centroid_quadratic}
                (x,), (y,) = centroid_sources(smooth, column, row, **options)
            return (float(x), float(y)) if np.isfinite(x + y) else (float(column), float(row))
    return None


def _is_surrounded(smooth: Array, column: int, row: int, fwhm: float) -> bool:
    """Whether light falls off from a pixel on all sides, as that of a galaxy: no arc, and no cosmic ray."""
    rows, columns = np.indices(smooth.shape)
    x, y = columns - column, rows - row
    radius, sector = np.hypot(x, y) / fwhm, np.floor(np.arctan2(y, x) / (2 * np.pi) * SECTORS).astype(int)
    near, far = (
        ndimage.mean(
            smooth, np.where((radius >= one) & (radius < one + 1), sector % SECTORS, -1), range(SECTORS)
        )
        for one in (1.0, 1.5)
    )
    return bool(far.min() > SURROUNDED * smooth[row, column] or near.min() > EVENLY * near.max())


def _is_compact(smooth: Array, column: int, row: int) -> bool:
    """Whether the light around a pixel is that of a galaxy, not of a ring or an arc, which is bent."""
    from skimage.measure import label, regionprops

    for level in LEVELS:
        labels = label(smooth > level * smooth[row, column])
        (around,) = regionprops((labels == labels[row, column]).astype(np.uint8))
        y, x = around.centroid
        # The peak is that of a whole pixel.
        askew = math.hypot(x - column, y - row) - 0.5 > MOST_ASKEW * around.equivalent_diameter_area / 2
        if around.area >= LEAST_AREA and (around.solidity < LEAST_SOLID or askew):
            return False
    return True


def _elliptical_profile(observation: Observation, scene: FieldObjects) -> Array:
    """Light that falls outward on ellipses: medians over elliptical rings, never rising."""
    light = np.where(observation.valid, observation.data - scene.sky, 0.0)
    e1, e2 = _ellipticity(light, scene)
    # |z - e conj(z)| is constant on ellipses of this ellipticity and smooth at e = 0.
    norm = math.sqrt(max(1 - e1**2 - e2**2, 0.1))
    real = (1 - e1) * scene.dx - e2 * scene.dy
    imaginary = (1 + e1) * scene.dy - e2 * scene.dx
    radius = np.hypot(real, imaginary) / norm
    edges = np.concatenate([[0, 0.8], np.arange(1.6, radius.max() + 1.5)])
    index = np.where(observation.valid, np.digitize(radius, edges) - 1, -1)
    rings = np.flatnonzero(np.bincount(index[index >= 0], minlength=1) >= 3)
    if not rings.size:
        return np.zeros(observation.shape)
    middles = ndimage.mean(radius, index, rings)
    levels = np.minimum.accumulate(np.clip(ndimage.median(light, index, rings), 0, None))
    # Interpolate the logarithm of the light between rings.
    floor = 1e-3 * float(np.median(scene.error))
    profile = np.exp(np.interp(radius, middles, np.log(levels + floor))) - floor
    return np.clip(profile, 0, None)


def _ellipticity(light: Array, scene: FieldObjects) -> tuple[float, float]:
    """Ellipticity of the central light from Gaussian-weighted moments, width matched to the light."""
    scale, e1, e2 = 2 * scene.fwhm, 0.0, 0.0
    near = scene.radius < 8 * scale
    light, x, y = light[near], scene.dx[near], scene.dy[near]
    for _ in range(20):
        real, imaginary = (1 - e1) * x - e2 * y, (1 + e1) * y - e2 * x
        squared = (real**2 + imaginary**2) / max(1 - e1**2 - e2**2, 0.1)
        weight = light * np.exp(-0.5 * squared / scale**2)
        total = weight.sum()
        if total <= 0:
            return 0.0, 0.0
        xx, yy, xy = ((weight * a).sum() / total for a in (x**2, y**2, x * y))
        if xx + yy <= 0 or xx * yy <= xy**2:
            return 0.0, 0.0
        size = xx + yy + 2 * math.sqrt(xx * yy - xy**2)
        e1, e2 = (xx - yy) / size, 2 * xy / size
    shrink = min(1.0, MAX_ELLIPTICITY / max(math.hypot(e1, e2), 1e-9))
    return e1 * shrink, e2 * shrink


def variance_from_neighbours(image: Tensor, noise: Any, seen: Tensor | None = None) -> Tensor:
    """Variance of images (B, ny, nx), from the mean of the 3 x 3 pixels around each that are not hidden.

    The variance of a hidden pixel does not depend on its noise, so weights by it are unbiased. ``seen`` (B,
    ny, nx) marks the pixels that are not hidden; by default all.
    """
    seen = torch.ones_like(image) if seen is None else seen.to(image)
    total, number = torch.where(seen > 0, image, 0), seen
    guess = torch.zeros_like(total)
    for side in (5, 3):  # The 3 x 3 pixels replace the 5 x 5 where any of them is seen.
        planes = torch.stack([total, number], 1)
        sums = avg_pool2d(planes, side, 1, side // 2, divisor_override=1)
        guess = torch.where(sums[:, 1] > 0.5, sums[:, 0] / sums[:, 1].clamp_min(1), guess)
    variance = noise.moments(guess.clamp_min(0))[2].to(guess).expand_as(guess)
    # The variance of hidden pixels may be arbitrary.
    least = LEAST_VARIANCE_SHARE * torch.where(seen > 0, variance, 0).amax((-2, -1), keepdim=True)
    return torch.maximum(variance, least.clamp_min(torch.finfo(guess.dtype).tiny))


def significant_pixels(image: Tensor, sigma: Tensor) -> Tensor:
    """Pixels (B, ny, nx) in or near significant light; those with infinite ``sigma`` are ignored."""
    seen = torch.isfinite(sigma)
    planes = torch.stack([torch.where(seen, image, 0), torch.where(seen, sigma, 0).square()], 1)
    total, variance = avg_pool2d(planes, WINDOW_SIDE, 1, WINDOW_SIDE // 2, divisor_override=1).unbind(1)
    return seen & (total > WINDOW_SIGMA * variance.sqrt())


def signal_to_noise(image: Tensor, variance: Tensor) -> Tensor:
    """Signal-to-noise ratio (B,) of all significant pixels; infinite variances are ignored."""
    lit = significant_pixels(image, variance.sqrt())
    return torch.where(lit, image.square() / variance, 0).sum((-2, -1)).sqrt()
