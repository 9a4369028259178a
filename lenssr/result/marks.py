"""What is drawn on an image of a figure: scale bar, compass, masks, curves."""

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.patheffects import withStroke

from lenssr.grids import frame_axes
from lenssr.mass import plot as lens_plot

__all__ = ["compass", "curves_over", "outline", "scale_bar", "whole_view"]

CRITICAL = {**lens_plot.CRITICAL, "label": "critical curve"}
CAUSTIC = {**lens_plot.CAUSTIC, "label": "caustic"}
OUTLINE = {"colors": "#f4f4f4", "linewidths": 1.0, "capstyle": "projecting"}
# White on any image: with a dark edge.
EDGE = [withStroke(linewidth=2.2, foreground="k", alpha=0.6)]
# Lengths of a scale bar by its first digit, and its share of the width, at most.
DIGITS, BAR_SHARE = (5, 2, 1), 0.26


def scale_bar(axes, extent):
    """Draw a bar of a round length in arcsec into the lower left corner."""
    width, height = extent[1] - extent[0], extent[3] - extent[2]
    power = 10.0 ** np.floor(np.log10(BAR_SHARE * width))
    length = next(digit * power for digit in DIGITS if digit * power <= BAR_SHARE * width * (1 + 1e-9))
    x, y = extent[0] + 0.05 * width, extent[2] + 0.05 * height
    axes.plot([x, x + length], [y, y], color="w", linewidth=2.0, solid_capstyle="butt", path_effects=EDGE)
    text = {"color": "w", "ha": "center", "va": "bottom", "fontsize": "small", "path_effects": EDGE}
    axes.text(x + length / 2, y + 0.015 * height, f'{length:g}"', **text)


def compass(axes, wcs, extent):
    """Draw arrows to the north and east into the lower right corner where the WCS knows them."""
    if wcs is None or not wcs.has_celestial:
        return
    inverse = np.linalg.inv(frame_axes(wcs))
    size = 0.1 * (extent[1] - extent[0])
    steps = {name: inverse[:, i] / np.hypot(*inverse[:, i]) * size for i, name in enumerate("EN")}
    # As deep in the corner as the arrows allow.
    right = max(1.5 * step[0] for step in steps.values())
    down = max(-1.5 * step[1] for step in steps.values())
    pad = 0.35 * size
    start = np.array([extent[1] - pad - max(right, 0.0), extent[2] + pad + max(down, 0.0)])
    style = {"arrowstyle": "-|>", "color": "w", "lw": 1.0, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 8}
    style |= {"path_effects": EDGE}
    text = {"color": "w", "ha": "center", "va": "center", "fontsize": "small", "path_effects": EDGE}
    for name, step in steps.items():
        axes.annotate("", start + step, start, arrowprops=style)
        axes.text(*(start + 1.3 * step), name, **text)


def outline(axes, mask, extent):
    """Draw lines along the edges of the pixels that a mask holds."""
    if not np.any(mask):
        return
    padded = np.pad(np.asarray(mask, dtype=int), 1)
    ny, nx = np.shape(mask)
    x, y = np.linspace(extent[0], extent[1], nx + 1), np.linspace(extent[2], extent[3], ny + 1)
    row, column = np.nonzero(np.diff(padded, axis=1)[1:-1])
    upright = np.stack([np.stack([x[column], y[row]], 1), np.stack([x[column], y[row + 1]], 1)], 1)
    row, column = np.nonzero(np.diff(padded, axis=0)[:, 1:-1])
    level = np.stack([np.stack([x[column], y[row]], 1), np.stack([x[column + 1], y[row]], 1)], 1)
    axes.add_collection(LineCollection(np.concatenate([upright, level]), **OUTLINE), autolim=False)


def curves_over(axes, curves, style, extent):
    """Draw lines over an image, and cut both to an extent."""
    style = dict(style)
    for x, y in curves:
        axes.plot(x, y, **style)
        style.pop("label", None)
    if curves:
        frame = {"framealpha": 0.35, "facecolor": "k", "edgecolor": "none", "borderpad": 0.3}
        axes.legend(loc="upper right", fontsize="small", labelcolor="w", handlelength=1.4, **frame)
    axes.set(xlim=extent[:2], ylim=extent[2:])


def whole_view(extent, curves):
    """The smallest square with an image and all of its curves, which need a margin."""
    low, high = np.array(extent[::2]), np.array(extent[1::2])
    for curve in curves:
        points = np.array([np.asarray(axis, dtype=float) for axis in curve])
        points = points[:, np.isfinite(points).all(axis=0)]
        if points.size:
            low, high = np.minimum(low, points.min(axis=1)), np.maximum(high, points.max(axis=1))
    grown = (low < extent[::2]) | (high > extent[1::2])
    half = np.max(high - low) / 2 * (1.04 if grown.any() else 1.0)
    x, y = (low + high) / 2
    return x - half, x + half, y - half, y + half
