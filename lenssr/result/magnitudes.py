"""AB magnitudes of the parts of a scene."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lenssr.grids import conserves_sum
from lenssr.result.text import pixel_scales, sky_scale

if TYPE_CHECKING:
    from lenssr.result.resolution import SuperResolution

__all__ = ["PARTS", "flux_of", "magnitude_of"]

# Parts of the scene that have a magnitude, the field of each, and the keyword of the product.
PARTS = {
    "source": ("source", "MAGSRC", "AB magnitude of the source, not lensed"),
    "second_source": ("second_source", "MAGSRC2", "AB magnitude of the second source, not lensed"),
    "lensed_source": ("lensed_source", "MAGIMG", "AB magnitude of the lensed source"),
    "lens_light": ("lens_light_image", "MAGLENS", "AB magnitude of the lens galaxy's light"),
}


def flux_of(result: SuperResolution, part: str) -> float:
    """Flux of a part in the unit of the data, of surface brightness over one arcsec2; nan without it."""
    image = getattr(result, PARTS[part][0])
    if image is None:
        return float("nan")
    total = float(np.sum(image.data))
    # Sources are a brightness per arcsec2; the others are so where the data are.
    if part in ("source", "second_source"):
        scale = sky_scale(image)
    elif conserves_sum(result.data.unit):
        return total
    else:
        scale = pixel_scales(result)[1]
    return float("nan") if scale is None else total * scale**2


def magnitude_of(result: SuperResolution, part: str) -> float:
    """AB magnitude of a part of the scene; nan where there is no zero point or no light."""
    zero_point, flux = result.meta.get("zero_point"), flux_of(result, part)
    if zero_point is None or not flux > 0:
        return float("nan")
    return float(zero_point) - 2.5 * float(np.log10(flux))
