"""Data without the light of the lens galaxy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lenssr.grids import conserves_sum
from lenssr.result.text import meta_value

if TYPE_CHECKING:
    from lenssr.result.resolution import SuperResolution

__all__ = ["can_subtract", "without_lens"]


def can_subtract(result: SuperResolution) -> bool:
    """Whether there is light of the lens that has the PSF of the data, as fine images have by default."""
    if result.lens_light is None or result.lens_light_image is None:
        return False
    return str(meta_value(result.image.meta, "psf_out", default="telescope")) == "telescope"


def without_lens(result: SuperResolution) -> NDArray[np.float64]:
    """Data (ny, nx) less the sky and the light of the lens, which is the model less the lensed source."""
    data, model = (np.asarray(plane.data, dtype=float) for plane in (result.data, result.model_image))
    if result.lensed_source is None:
        return data - float(result.sky.value)
    # Binned fine pixels miss the steep core of a galaxy by up to the noise; arcs they have far better.
    fine = np.asarray(result.lensed_source.data, dtype=float)
    factor = fine.shape[0] // data.shape[0]
    blocks = fine.reshape(data.shape[0], factor, data.shape[1], factor)
    return data - model + (blocks.sum((1, 3)) if conserves_sum(result.data.unit) else blocks.mean((1, 3)))
