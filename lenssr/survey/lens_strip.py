"""The thumbnail of a lens: data, lens subtracted, super-resolved image and source, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lenssr.result.lens_subtraction import without_lens

if TYPE_CHECKING:
    from lenssr.result import SuperResolution

__all__ = ["panels_of", "write_strip"]

# Side of a panel in pixels of the screen, its colours, and the quality of the file.
SIDE, COLOURS, QUALITY = 96, "magma", 85


def panels_of(result: SuperResolution) -> list[NDArray[np.float64]]:
    """The four images, row 0 at the bottom; zeros where there is none."""
    data, subtracted = np.asarray(result.data.data, dtype=float), without_lens(result)
    if result.data.mask is not None:  # a bright neighbour would leave the lens in the dark
        data, subtracted = (np.where(result.data.mask, 0.0, plane) for plane in (data, subtracted))
    empty = np.zeros((2, 2))
    source = empty if result.source is None else np.asarray(result.source.data, dtype=float)
    return [data, subtracted, np.asarray(result.image.data, dtype=float), source]


def _levels(image: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Grey levels on an asinh stretch from the dark to the bright end; what is not finite is black."""
    finite = image[np.isfinite(image)]
    if finite.size == 0 or np.ptp(finite) == 0:
        return np.zeros(image.shape, np.uint8)
    low, high = np.percentile(finite, (10, 99.8))
    share = np.clip((np.nan_to_num(image, nan=low) - low) / max(high - low, 1e-300), 0, 1)
    return np.round(255 * np.arcsinh(10 * share) / np.arcsinh(10)).astype(np.uint8)


def write_strip(result: SuperResolution, path: Path) -> None:
    """Write the strip as JPEG."""
    from matplotlib import colormaps
    from PIL import Image

    colours = (colormaps[COLOURS](np.arange(256))[:, :3] * 255).round().astype(np.uint8)
    strip = Image.new("RGB", (4 * SIDE, SIDE))
    for number, panel in enumerate(panels_of(result)):
        # Files of images begin at the top.
        shown = Image.fromarray(colours[_levels(panel)[::-1]])
        ny, nx = panel.shape
        size = (max(round(SIDE * nx / max(ny, nx)), 1), max(round(SIDE * ny / max(ny, nx)), 1))
        method = Image.Resampling.NEAREST if max(ny, nx) <= SIDE else Image.Resampling.BOX
        corner = (number * SIDE + (SIDE - size[0]) // 2, (SIDE - size[1]) // 2)
        strip.paste(shown.resize(size, method), corner)
    strip.save(path, format="JPEG", quality=QUALITY)
