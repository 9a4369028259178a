"""What an image itself shows of its making: borders without data, cosmic rays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from lenssr.imaging.planes import Array, Mask

if TYPE_CHECKING:
    from lenssr.imaging.observation import Observation

__all__ = ["border_without_data", "has_cosmic_rays"]

# Zeros are no data where they fill a part of the border this large, at most this share of the image, and the
# rest holds hardly any. Chosen: counts of a faint sky hold many scattered zeros, images without noise none.
FEWEST_ZEROS, MOST_SHARE, STRAY_SHARE = 16, 0.9, 1e-3
# A hit stands this many sigma above its surroundings, and the median of its four neighbours below this share
# of it: a star has 0.5 there where its FWHM is two pixels. A combined image has none but by chance. Chosen.
HIT_SIGMA, HIT_SHARE = 10.0, 0.15
MOST_HITS = 1.5e-3


def border_without_data(data: Array, bad: Mask) -> Mask | None:
    """Solid areas of zeros at the border of an image; None where there are none.

    The areas hold a 3 x 3 square and touch the border. An image whose other pixels hold zeros too is one of
    counts or without noise, and keeps its own.
    """
    zero = (data == 0) & ~bad
    count = np.count_nonzero(zero)
    if count < FEWEST_ZEROS or count > MOST_SHARE * data.size:
        return None
    # Masked pixels join areas, as they do where an error of 0 covers the same border.
    padded = np.pad(zero | bad, 1, constant_values=True)
    core = ndimage.binary_erosion(padded, np.ones((3, 3)), border_value=1)[1:-1, 1:-1] & zero
    grown = ndimage.binary_dilation(core, np.ones((3, 3)), mask=zero)
    labels, _ = ndimage.label(grown)
    edges = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    found = np.isin(labels, np.unique(edges[edges > 0]))
    stray = np.count_nonzero(zero & ~found)
    if np.count_nonzero(found) < FEWEST_ZEROS or stray > STRAY_SHARE * data.size:
        return None
    rest = data[~(found | bad)]
    # A sky scatters around 0 or stands well above it; images without noise fade to 0 from above.
    noisy = rest.size > 0 and (np.any(rest < 0) or rest.min() > 0.5 * np.median(rest))
    return found if noisy else None


def has_cosmic_rays(observation: Observation) -> bool:
    """Whether more pixels than chance allows stand alone above all around them."""
    data, valid = observation.data, observation.valid
    if min(data.shape) < 8:
        return False
    beside = np.stack([np.roll(data, step, axis) for axis in (0, 1) for step in (1, -1)])
    around = np.median(beside, axis=0)
    level = np.median(data[valid])
    height = data - level
    # Errors may be too small, which is no ray.
    scatter = 1.4826 * np.median(np.abs(height[valid]))
    sharp = (
        (height > HIT_SIGMA * np.maximum(observation.sigma(), scatter))
        & (around - level < HIT_SHARE * height)
        & valid
    )
    inner = sharp[1:-1, 1:-1] & ndimage.binary_erosion(valid, np.ones((3, 3)))[1:-1, 1:-1]
    return int(np.count_nonzero(inner)) > max(MOST_HITS * data.size, 5)
