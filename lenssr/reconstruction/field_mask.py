"""Segments of the field: other objects, arcs and counter-images; and the cosmic rays among them."""

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lenssr.imaging.cosmic_rays import cosmic_rays
from lenssr.imaging.detection import FieldObjects, Segment
from lenssr.imaging.observation import Observation
from lenssr.imaging.suspicions import has_cosmic_rays
from lenssr.reconstruction import decisions

FILLED = 7  # pixels along a side whose median fills a hit where only the middle of the galaxy is wanted


def auto_mask(observation: Observation) -> NDArray[np.bool_]:
    """Mask of what is not the lens, its arcs or counter-images: stars, neighbours, cosmic rays.

    Parameters
    ----------
    observation : `~lenssr.imaging.Observation`
        The image.

    Returns
    -------
    mask : `~numpy.ndarray` of bool, shape (ny, nx)
        True on other objects and cosmic rays; pixels that the observation masks are False.

    Notes
    -----
    Where a PSF is known, cosmic rays are found by L.A.Cosmic (van Dokkum 2001, PASP 113, 1420), but for the
    middle of the central galaxy, which may be as sharp. After that galaxy is subtracted, segments of at least
    2.5 sigma in the smoothed image are deblended. Those that are stretched along the circle about the centre
    count as arcs. If there are any, other segments that lie more than 1.3 times as far out as they are
    masked. If there are none, segments farther out than 0.36 of the field are, and nearer ones without light
    across the centre, which every lensed image has. An object projected onto the arcs is not found; mask it
    by hand. This is what ``SuperResolver(mask="auto")`` does.

    Examples
    --------
    >>> import numpy as np
    >>> from lenssr.imaging import Observation
    >>> from lenssr.reconstruction import auto_mask
    >>> x, y = np.meshgrid(np.arange(60.0), np.arange(60.0))
    >>> star = 50 * np.exp(-((x - 52) ** 2 + (y - 8) ** 2) / 4)
    >>> galaxy = 200 * np.exp(-np.hypot(x - 30, y - 30) / 4)
    >>> noise = np.random.default_rng(1).normal(size=(60, 60))
    >>> image = Observation.from_any(star + galaxy + noise, pixel_scale=0.05, noise=1, unit="electron/s")
    >>> mask = auto_mask(image)
    >>> bool(mask[8, 52]), bool(mask[30, 30])
    (True, False)
    """
    return without_others(observation).mask & observation.valid


def without_others(observation: Observation) -> Observation:
    """The observation with all that `auto_mask` finds masked; a flag and ``meta`` say so of cosmic rays."""
    observation = _without_cosmic_rays(observation)
    others = _other_objects(observation)
    return observation.masked(others) if others.any() else observation  # which knows its sky


def _without_cosmic_rays(observation: Observation) -> Observation:
    """The observation with cosmic rays masked, but for the middle of the central galaxy."""
    hit = cosmic_rays(observation)
    if hit.any():
        around = ndimage.median_filter(observation.data, FILLED)
        scene = FieldObjects(replace(observation, data=np.where(hit, around, observation.data)))
        hit &= scene.radius > decisions.CORE_FWHM * scene.fwhm
    if not hit.any():
        return observation
    masked = observation.masked(hit)
    left = [name for name in masked.flags if name != "cosmic_rays" or has_cosmic_rays(masked)]
    meta = masked.meta | {"cosmic_ray_pixels": int(hit.sum())}
    return replace(masked, flags=(*left, "cosmic_rays_masked"), meta=meta)


def _other_objects(observation: Observation) -> NDArray[np.bool_]:
    """Mask (ny, nx) of other objects."""
    scene = FieldObjects(observation)
    segments = scene.segments()
    arcs = [segment for segment in segments if _is_arc(segment)]
    suspects = [segment for segment in segments if not _can_be_image(segment, segments, arcs, scene)]
    others = [segment for segment in suspects if segment.peak > decisions.OBJECT_PEAK]
    mask, kept = _pixels_reached(others, scene), np.zeros(observation.shape, dtype=bool)
    faint = [segment for segment in suspects if segment not in others]
    # A part that deblending separated from another object may be fainter.
    parts = [segment for segment in faint if (mask[segment.box] & segment.pixels).any()]
    mask, others = mask | _pixels_reached(parts, scene), others + parts
    for segment in segments:
        if segment not in others:
            kept[segment.box] |= segment.pixels
    return mask & ~kept & observation.valid


def _pixels_reached(segments: list[Segment], scene: FieldObjects) -> NDArray[np.bool_]:
    """Pixels (ny, nx) that light of segments may reach: wings reach farther for brighter and thicker ones."""
    mask = np.zeros(scene.observation.shape, dtype=bool)
    for segment in segments:
        # The radius where a Gaussian fades into the noise, plus the width of a galaxy.
        steps = scene.sigma * math.sqrt(2 * math.log(max(segment.peak, 10.0)))
        steps = math.hypot(steps, min(segment.along, segment.across))
        box, pixels = segment.grown(math.ceil(steps), mask.shape)
        mask[box] |= ndimage.distance_transform_edt(~pixels) <= steps
    return mask


def _is_arc(segment: Segment) -> bool:
    """Whether a segment is stretched along the circle about the lens."""
    stretched = segment.along > decisions.ARC_STRETCH * segment.across
    resolved = segment.along > decisions.ARC_LENGTH_FWHM * segment.fwhm
    beside = segment.radius > decisions.ARC_RADIUS_FWHM * segment.fwhm
    return stretched and resolved and beside and segment.signal > decisions.ARC_SIGNAL


def _can_be_image(
    segment: Segment, segments: list[Segment], arcs: list[Segment], scene: FieldObjects
) -> bool:
    """Whether a segment may be a lensed image."""
    field = min(scene.observation.shape)
    if segment.radius < decisions.CORE_FWHM * scene.fwhm:
        return True
    if arcs:
        # The most significant arc gives the radius of the images.
        limit = decisions.BEYOND_ARCS * max(arcs, key=lambda arc: arc.signal).outer
        return segment.radius <= limit
    if segment.radius > decisions.IMAGE_REACH * field:
        return False
    if segment.signal < decisions.BRIGHT_IMAGE or segment.radius < decisions.INNER_FIELD * field:
        return True
    # A bright lensed image has a counter-image across the centre, at a radius that is not much larger.
    return any(
        other is not segment
        and math.cos(other.angle - segment.angle) < decisions.ACROSS_COSINE
        and other.radius < decisions.COUNTER_IMAGE_RADIUS * segment.radius
        and other.signal > decisions.COUNTER_IMAGE_SIGNAL * segment.signal
        for other in segments
    )
