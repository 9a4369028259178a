"""The figure of a `~lenssr.SuperResolution`, without pyplot: no window, no global state."""

import textwrap
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.colors import AsinhNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lenssr._files import atomic
from lenssr._wcs import scale_matrix, unit_stretch
from lenssr.exceptions import InputError
from lenssr.grids import frame_axes, resampling_factor, transformed
from lenssr.result.text import einstein_text, is_model, meta_value, pixel_scales, rows_text, sky_scale

MOST_ROWS = 24
FLAG_WIDTH = 47  # characters of a line of flags
IMAGE_MAP = "magma"
RESIDUAL_MAP = "RdBu_r"
CRITICAL = {"color": "#4fd1ff", "linewidth": 1.1}
CAUSTIC = {"color": "#7dff9b", "linewidth": 1.1}
# Serious verdicts in a red that prints, the rest in dark grey.
BAD, GOOD, PLAIN = "#b3261e", "#1b6e3c", "0.25"


# ---------------------------------------------------------------- one panel


def _extent(image, scale, centre=(0.0, 0.0)):
    """Edges of an image in its frame: N pixels of size d span N d."""
    stretch, wcs = np.eye(2), image.wcs
    if wcs is not None:
        stretch = unit_stretch(scale_matrix(wcs.celestial if wcs.has_celestial else wcs))
    half_x, half_y = (half / 2 for half in transformed(np.abs(stretch) * scale, *image.shape[::-1]))
    return (centre[0] - half_x, centre[0] + half_x, centre[1] - half_y, centre[1] + half_y)


def _show(axes, image, extent, *, title, unit, norm, cmap=IMAGE_MAP, mask=False, ticks=None):
    """Show an image with its colour bar; pixels that are masked or not finite are hatched."""
    axes.set_title(title, fontsize=10.5, loc="left", pad=5)
    axes.set(xlabel="x (arcsec)", ylabel="y (arcsec)", aspect="equal")
    axes.tick_params(direction="out", length=3)
    hatched = {"facecolor": "0.62", "edgecolor": "0.78", "hatch": "/////", "linewidth": 0, "zorder": -5}
    axes.add_patch(Rectangle((0, 0), 1, 1, transform=axes.transAxes, **hatched))
    clear = colormaps[cmap].with_extremes(bad=(0, 0, 0, 0))
    image = np.ma.array(image, mask=mask | ~np.isfinite(image))
    style = {"norm": norm, "cmap": clear, "interpolation": "nearest"}
    shown = axes.imshow(image, origin="lower", extent=extent, **style)
    # An inset is as tall as the image, whatever its aspect.
    bar = axes.figure.colorbar(shown, cax=axes.inset_axes([1.025, 0.0, 0.045, 1.0]))
    bar.set_label(unit if isinstance(unit, str) else unit.to_string() or "no unit")
    if ticks is not None:
        bar.set_ticks(ticks)
    bar.minorticks_off()
    bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "\N{MINUS SIGN}"))
    bar.ax.tick_params(length=3)


def _stretch(values, noise=0.0):
    """Shared asinh stretch: linear in the noise, logarithmic above it; and ticks that suit it."""
    values = values[np.isfinite(values)]
    if values.size == 0 or np.ptp(values) == 0:
        level = float(values[0]) if values.size else 0.0
        return Normalize(level - 1, level + 1), None
    low, high = np.percentile(values, 0.5), np.max(values)
    width = max(3 * noise, 0.02 * (high - low))
    norm = AsinhNorm(linear_width=width, vmin=low, vmax=high)
    return norm, _ticks(norm, low, high)


def _ticks(norm, low, high):
    """Ticks at round values, at least a ninth of the colour bar apart."""
    top = int(np.floor(np.log10(max(abs(low), abs(high)))))
    powers = 10.0 ** np.arange(top, top - 5, -1)
    ticks = []
    for value in (0.0, *(sign * step * power for sign in (1, -1) for power in powers for step in (1, 5, 2))):
        if low <= value <= high and all(abs(float(norm(value)) - float(norm(old))) > 1 / 9 for old in ticks):
            ticks.append(value)
    return sorted(ticks)


def _compass(axes, wcs, extent):
    """Draw arrows to the north and east where the WCS knows them."""
    if wcs is None or not wcs.has_celestial:
        return
    inverse = np.linalg.inv(frame_axes(wcs))
    size = 0.1 * (extent[1] - extent[0])
    steps = {name: inverse[:, i] / np.hypot(*inverse[:, i]) * size for i, name in enumerate("EN")}
    # As deep in the lower right corner as the arrows allow.
    right = max(1.5 * step[0] for step in steps.values())
    down = max(-1.5 * step[1] for step in steps.values())
    pad = 0.35 * size
    start = np.array([extent[1] - pad - max(right, 0.0), extent[2] + pad + max(down, 0.0)])
    style = {"arrowstyle": "-|>", "color": "w", "lw": 1.0, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 8}
    for name, step in steps.items():
        axes.annotate("", start + step, start, arrowprops=style)
        axes.text(*(start + 1.3 * step), name, color="w", ha="center", va="center", fontsize=8)


def _widened(extent, curves, centre):
    """Make room for the curves around the centre: at most twice the size."""
    half = np.array([extent[1] - extent[0], extent[3] - extent[2]]) / 2
    reach = [np.max(np.abs(np.transpose(curve) - centre) / half) for curve in curves]
    half *= np.clip(1.08 * max(reach, default=0.0), 1, 2)
    return (centre[0] - half[0], centre[0] + half[0], centre[1] - half[1], centre[1] + half[1])


def _draw_curves(axes, curves, style, label, extent):
    """Draw lines over an image, and cut both to an extent."""
    for i, (x, y) in enumerate(curves):
        axes.plot(x, y, **style, label=label if i == 0 else None)
    if curves:
        frame = {"framealpha": 0.35, "facecolor": "k", "edgecolor": "none", "borderpad": 0.3}
        axes.legend(loc="upper right", fontsize=8, labelcolor="w", handlelength=1.4, **frame)
    axes.set(xlim=extent[:2], ylim=extent[2:])


# ---------------------------------------------------------------- the panels of a result


def _noise(result):
    if result.residual.uncertainty is None:
        return None
    return np.broadcast_to(result.residual.uncertainty.array, result.residual.shape)


def _typical_noise(result):
    """Median noise of an input pixel that was used; 0 if none is known."""
    noise, mask = _noise(result), result.data.mask
    if noise is None:
        return 0.0
    noise = noise[np.isfinite(noise) if mask is None else np.isfinite(noise) & ~mask]
    return float(np.median(noise)) if noise.size else 0.0


def _draw_input(result, axes, scale):
    data, model, mask = result.data.data, result.model_image.data, result.data.mask
    mask = np.zeros(data.shape, bool) if mask is None else np.broadcast_to(mask, data.shape)
    noise, extent, unit = _noise(result), _extent(result.data, scale), result.data.unit
    norm, ticks = _stretch(np.concatenate([data[~mask], model[~mask]]), _typical_noise(result))
    same = {"unit": unit, "norm": norm, "ticks": ticks}
    _show(axes[0], data, extent, title=f'data, {scale:.3g}" pixels', mask=mask, **same)
    _show(axes[1], model, extent, title="model, same stretch", **same)
    pulls = {"unit": unit, "norm": None} if noise is None else {"unit": "sigma", "norm": Normalize(-5, 5)}
    residual = result.residual.data / (1.0 if noise is None else noise)
    title = "residual, data $-$ model"
    _show(axes[2], residual, extent, title=title, cmap=RESIDUAL_MAP, mask=mask, **pulls)


def _draw_image(result, axes, scale, curves):
    image, extent = result.image, _extent(result.image, scale)
    # As deep as the data: what is fainter than their noise needs no colour of its own.
    share = resampling_factor(image.unit, image.shape[1] / result.data.shape[1])
    norm, ticks = _stretch(image.data, share * _typical_noise(result))
    title = f'{"super-resolved model" if is_model(result) else "interpolated"}, {scale:.3g}" pixels'
    _show(axes, image.data, extent, title=title, unit=image.unit, norm=norm, ticks=ticks)
    _compass(axes, image.wcs, extent)
    _draw_curves(axes, curves, CRITICAL, "critical curve", extent)


def _draw_source(result, axes, curves):
    source = result.source
    if source is None:
        axes.set_axis_off()
        middle = {"ha": "center", "va": "center", "transform": axes.transAxes}
        axes.text(0.5, 0.5, "no source:\nthis run models none", color=PLAIN, **middle)
        return
    scale = sky_scale(source) or 1.0
    centre = [float(meta_value(source.meta, name) or 0.0) for name in ("x_0", "y_0")]
    extent = _extent(source, scale, centre)
    norm, ticks = _stretch(source.data)
    title = "source, not lensed (model)"
    _show(axes, source.data, extent, title=title, unit=source.unit, norm=norm, ticks=ticks)
    _mark_prior(axes, source, scale, extent)
    # Outside its grid the source is dark rather than masked: the colour of zero and an edge, no hatching.
    axes.patches[0].set(facecolor=colormaps[IMAGE_MAP](0.0), hatch=None)
    edge = {"fill": False, "edgecolor": "0.55", "linestyle": ":", "linewidth": 0.8}
    axes.add_patch(Rectangle(extent[::2], extent[1] - extent[0], extent[3] - extent[2], **edge))
    _draw_curves(axes, curves, CAUSTIC, "caustic", _widened(extent, curves, centre))


def _mark_prior(axes, source, scale, extent):
    """Hatch the source where it is prior rather than data."""
    if source.mask is None or not np.any(source.mask):
        return
    x = extent[0] + scale * (np.arange(source.shape[1]) + 0.5)
    y = extent[2] + scale * (np.arange(source.shape[0]) + 0.5)
    prior = np.asarray(source.mask, dtype=float)
    hatched = axes.contourf(x, y, prior, levels=[0.5, 1.5], colors="none", hatches=["////"])
    hatched.set(edgecolor="0.6", linewidth=0.0)
    axes.contour(x, y, prior, levels=[0.5], colors="0.6", linewidths=0.8)
    note = {"color": "0.85", "fontsize": 8, "ha": "left", "va": "bottom", "transform": axes.transAxes}
    axes.text(0.02, 0.02, "hatched: prior, not data", **note)


def _draw_text(result, axes):
    """Write the verdict and the parameters into the sixth cell."""
    axes.set_axis_off()
    write = {"transform": axes.transAxes, "va": "top", "ha": "left"}
    verdict, colour = ("ok", GOOD) if result.ok else ("not ok", BAD)
    axes.text(0.0, 1.0, verdict, color=colour, fontsize=15, weight="bold", **write)
    flags = textwrap.wrap(", ".join(result.flags), FLAG_WIDTH)
    listed = "flags: " + "\n".join(flags) if flags else "no flags"
    axes.text(0.0, 0.91, listed, color=PLAIN, fontsize=9.5, linespacing=1.35, **write)
    # A page of parameters does not fit: the file has all of them.
    rows = [row for row in rows_text(result) if "(fixed)" not in row[2]]
    shown = rows[:MOST_ROWS]
    top = 0.82 - 0.045 * listed.count("\n")
    # A little below the axes is free: the other panels have a label there.
    step = min(0.045, (top + 0.1) / (len(shown) + 1))
    line = {**write, "fontsize": min(8.8, 230 * step)}
    last = None
    for i, (component, name, value, unit) in enumerate(shown):
        value = value.replace("+-", "±").replace("-", "\N{MINUS SIGN}")
        heading = component.replace("_", " ") if component != last else ""
        last = component
        axes.text(0.0, top - step * i, heading, color="0.5", **line)
        axes.text(0.2, top - step * i, name, color="k", **line)
        axes.text(0.44, top - step * i, f"{value}  {unit}", color="k", **line)
    if len(rows) > len(shown):
        rest = f"and {len(rows) - len(shown)} more: result.summary()"
        axes.text(0.2, top - step * len(shown), rest, color="0.5", **line)


def _title(result):
    name, radius = meta_value(result.meta, "name", "object"), einstein_text(result)
    parts = [str(name)] if name else []
    parts.append(f"reduced $\\chi^2$ = {result.reduced_chi2:.3g}")
    if radius is not None:
        parts.append(rf'$\theta_\mathrm{{E}}$ = {radius.replace("+-", "±")}"')
    parts.append("ok" if result.ok else "not ok: see the flags")
    return "     ".join(parts)


# ---------------------------------------------------------------- the figure and its file


def draw(result, figure=None):
    """Draw the five panels and the verdict into a figure, by default a new one."""
    if pixel_scales(result)[0] is None:
        raise InputError("the pixel scale is not known: give a result with meta={'pixel_scale': arcsec}")
    if figure is None:
        figure = Figure(figsize=(15.0, 9.2), dpi=120, layout="constrained")
    axes = figure.subplots(2, 3)
    draw_row(result, axes.ravel()[:5])
    _draw_text(result, axes[1, 2])
    figure.suptitle(_title(result), fontsize=13, color="k" if result.ok else BAD)
    return figure


def draw_row(result, axes):
    """Draw data, model, residual, super-resolved image and source into five panels."""
    coarse, fine = pixel_scales(result)
    half_width, lens = max(_extent(result.image, fine)), result.lens
    _draw_input(result, axes[:3], coarse)
    critical = [] if lens is None else _in_own_frame(result, lens.critical_curves(half_width))
    _draw_image(result, axes[3], fine, critical)
    _draw_source(result, axes[4], [] if lens is None else lens.caustics(half_width))


def _in_own_frame(result, curves):
    """Curves of a lens that bands share in the image frame of the one that is drawn."""
    frame = result.meta.get("frame")
    if not frame:
        return curves
    x_0, y_0 = frame["origin"]
    return [transformed(frame["turn"], np.asarray(x) - x_0, np.asarray(y) - y_0) for x, y in curves]


def check_figure(path):
    """Format of an image file by its suffix; `InputError` if matplotlib cannot write it."""
    suffix = Path(path).suffix.lower().lstrip(".")
    if suffix not in FigureCanvasBase.filetypes:
        raise InputError(f"{path} is not an image file: end its name in .png, .pdf or .svg")
    return suffix


def save(figure, path):
    """Save a figure: all of it, or nothing."""
    suffix = check_figure(path)
    whole = figure if isinstance(figure, Figure) else figure.figure
    with atomic(path) as temporary:
        whole.savefig(temporary, format=suffix)
