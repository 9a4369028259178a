"""A picture of a lens: its convergence, its curves, and the images of a point source."""

from typing import Any

import astropy.units as u
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm

from lenssr.exceptions import InputError
from lenssr.mass.critical import Curve, curves_of
from lenssr.mass.mesh import field_of
from lenssr.mass.point_images import image_positions
from lenssr.mass.rays import Limits, Rays, rays_of

__all__ = ["CAUSTIC", "CRITICAL", "draw"]

CRITICAL: dict[str, Any] = {"color": "#4fd1ff", "linewidth": 1.1}
CAUSTIC: dict[str, Any] = {"color": "#7dff9b", "linewidth": 1.1}
BACKGROUND = "magma"
PIXELS = 300
# Room around curves and images, in units of the largest of their coordinates.
ROOM = 1.3


def draw(lens: Any, axes: Axes, source: tuple[float, float] | None, extent: Any) -> None:
    """Draw a lens into axes, in arcsec, see `lenssr.mass.MassModel.plot`."""
    rays = rays_of(lens)
    curves = curves_of(rays, extent)
    images = None if source is None else image_positions(rays, source, extent)
    field = field_of(rays, extent) if extent is not None or rays.limits else _fitting(rays, curves, images)
    _draw_background(lens, axes, field)
    for i, curve in enumerate(curves):
        axes.plot(*curve.points, **CRITICAL, label="critical curves" if i == 0 else None)
        axes.plot(*rays.trace(*curve.points), **CAUSTIC, label="caustics" if i == 0 else None)
    if source is not None and images is not None:
        axes.plot(*source, "*", color=CAUSTIC["color"], markeredgecolor="k", markersize=9, label="source")
        axes.plot(*images, "o", color="w", markeredgecolor="k", markersize=6, label="images")
    x_c, y_c, half_x, half_y = field
    axes.set(xlim=(x_c - half_x, x_c + half_x), ylim=(y_c - half_y, y_c + half_y), aspect="equal")
    axes.set(xlabel="x (arcsec)", ylabel="y (arcsec)")
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="upper right", fontsize="small", labelcolor="w", facecolor="k", framealpha=0.35)


def _fitting(rays: Rays, curves: list[Curve], images: Any) -> Limits:
    """A square with room for all curves and images."""
    shown = [curve.points for curve in curves] + ([] if images is None else [np.stack(images)])
    if not sum(part.shape[1] for part in shown):
        return field_of(rays, None)
    every = np.concatenate(shown, axis=1)
    middle = (every.min(axis=1) + every.max(axis=1)) / 2
    half = ROOM * float(np.abs(every - middle[:, None]).max()) or 1.0
    return float(middle[0]), float(middle[1]), half, half


def _draw_background(lens: Any, axes: Axes, field: Limits) -> None:
    """Show the convergence, or the magnification of a lens that has none."""
    x_c, y_c, half_x, half_y = field
    scale = 2 * max(half_x, half_y) / PIXELS
    sides = [max(2, round(2 * half / scale)) for half in (half_x, half_y)]
    x, y = np.meshgrid(
        *(
            c + (np.arange(n) + 0.5) * 2 * h / n - h
            for c, n, h in zip(field[:2], sides, field[2:], strict=True)
        )
    )
    try:
        values, label = lens.convergence(x * u.arcsec, y * u.arcsec).value, "convergence"
    except (AttributeError, InputError):
        values, label = np.abs(np.asarray(lens.magnification(x, y))), "magnification"
    low, high = np.percentile(values[np.isfinite(values)], (1, 99.5))
    low = max(low, 1e-3 * high)
    norm = LogNorm(low, high) if 0 < low < high else None
    extent = (x_c - half_x, x_c + half_x, y_c - half_y, y_c + half_y)
    shown = axes.imshow(values, origin="lower", extent=extent, cmap=BACKGROUND, norm=norm)
    axes.figure.colorbar(shown, ax=axes, label=label)
