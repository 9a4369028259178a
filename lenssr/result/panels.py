"""The panels of the figure of a `~lenssr.SuperResolution`, by name."""

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import AsinhNorm, Normalize
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from matplotlib.textpath import TextPath
from matplotlib.transforms import ScaledTranslation

from lenssr._figures import symbols, unit_text
from lenssr._wcs import scale_matrix, unit_stretch
from lenssr.exceptions import InputError
from lenssr.grids import resampling_factor, transformed
from lenssr.mass import DoubleSourcePlane
from lenssr.result import marks
from lenssr.result.lens_subtraction import can_subtract, without_lens
from lenssr.result.text import is_model, meta_value, pixel_scales, rows_text, sky_scale

__all__ = [
    "PANELS",
    "Drawing",
    "check_panels",
    "draw_panels",
    "extent_of",
    "label_axes",
    "plain_numbers",
    "stretch",
]

MOST_ROWS = 24
FLAG_WIDTH = 47  # characters of a line of flags
IMAGE_MAP = "magma"
RESIDUAL_MAP = "RdBu_r"
ERROR_MAP = "viridis"
# Serious verdicts in a red that prints, the rest in dark grey.
BAD, GOOD, PLAIN = "#b3261e", "#1b6e3c", "0.25"
MINUS = "\N{MINUS SIGN}"


def extent_of(image, scale, centre=(0.0, 0.0)):
    """Edges of an image in its frame: N pixels of size d span N d."""
    stretch, wcs = np.eye(2), image.wcs
    if wcs is not None:
        stretch = unit_stretch(scale_matrix(wcs.celestial if wcs.has_celestial else wcs))
    half_x, half_y = (half / 2 for half in transformed(np.abs(stretch) * scale, *image.shape[::-1]))
    return (centre[0] - half_x, centre[0] + half_x, centre[1] - half_y, centre[1] + half_y)


def label_axes(axes, title):
    """Title and labels of a panel."""
    axes.set_title(title, fontsize="medium", loc="left", pad=5)
    axes.set(xlabel="x (arcsec)", ylabel="y (arcsec)", aspect="equal")
    axes.tick_params(direction="out", length=3)


def stretch(values, noise=0.0, high=None):
    """Asinh stretch, linear in the noise, logarithmic above it; and ticks that suit it."""
    values = values[np.isfinite(values)]
    if values.size == 0 or np.ptp(values) == 0:
        level = float(values[0]) if values.size else 0.0
        return Normalize(level - 1, level + 1), None
    low, high = np.percentile(values, 0.5), np.max(values) if high is None else high
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


def plain_numbers(bar):
    """Write the numbers beside a colour bar as they are, and keep its colours small in vector files."""
    bar.solids.set_rasterized(True)
    bar.minorticks_off()
    bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", MINUS))
    bar.ax.tick_params(length=3)


class Drawing:
    """One result and what its panels share, each worked out when a panel first needs it.

    ``bars`` says whether panels have colour bars.
    """

    def __init__(self, result, bars=True):
        self.result, self.bars = result, bars
        self.coarse, self.fine = pixel_scales(result)
        if self.coarse is None:
            raise InputError("the pixel scale is not known: give a result with meta={'pixel_scale': arcsec}")

    @cached_property
    def mask(self):
        """Where the data are masked (ny, nx)."""
        mask, shape = self.result.data.mask, self.result.data.shape
        return np.zeros(shape, bool) if mask is None else np.broadcast_to(np.asarray(mask, bool), shape)

    @cached_property
    def noise(self):
        """Noise of the data (ny, nx), or None."""
        residual = self.result.residual
        if residual.uncertainty is None:
            return None
        return np.broadcast_to(residual.uncertainty.array, residual.shape)

    @cached_property
    def typical_noise(self):
        """Median noise of a pixel that was used; 0 if none is known."""
        if self.noise is None:
            return 0.0
        noise = self.noise[np.isfinite(self.noise) & ~self.mask]
        return float(np.median(noise)) if noise.size else 0.0

    @cached_property
    def stretch(self):
        """The stretch that data and model share, and its ticks."""
        used = ~self.mask
        both = self.result.data.data[used], self.result.model_image.data[used]
        return stretch(np.concatenate(both), self.typical_noise)

    @cached_property
    def fine_noise(self):
        """Noise of the data in a fine pixel: what is fainter needs no colour of its own."""
        image = self.result.image
        factor = resampling_factor(image.unit, image.shape[1] / self.result.data.shape[1])
        return factor * self.typical_noise

    @cached_property
    def half_width(self):
        """Half of the field in arcsec."""
        return max(extent_of(self.result.image, self.fine))

    @cached_property
    def critical(self):
        """Critical curves in the frame of the image; a band has the lens of all in that of the first."""
        frame = self.result.meta.get("frame")
        curves = [curve for lens in self.lenses for curve in lens.critical_curves(self.half_width)]
        if not frame:
            return curves
        x_0, y_0 = frame["origin"]
        return [transformed(frame["turn"], np.asarray(x) - x_0, np.asarray(y) - y_0) for x, y in curves]

    @cached_property
    def lenses(self):
        """The lens of each source; none where there is no lens."""
        lens = self.result.lens
        if isinstance(lens, DoubleSourcePlane):
            return [lens.of_source(1), lens.of_source(2)]
        return [] if lens is None else [lens]

    @cached_property
    def caustics(self):
        """Caustics in the plane of each source by the field of the result."""
        fields = zip(("source", "second_source"), self.lenses, strict=False)
        return {name: lens.caustics(self.half_width) for name, lens in fields}

    def show(self, axes, image, extent, title, unit, *, norm, ticks=None, cmap=IMAGE_MAP, hidden=False):
        """Show an image with its colour bar; what is hidden or not finite is hatched."""
        label_axes(axes, title)
        hatched = {"facecolor": "0.62", "edgecolor": "0.78", "hatch": "/////", "linewidth": 0, "zorder": -5}
        axes.add_patch(Rectangle((0, 0), 1, 1, transform=axes.transAxes, **hatched))
        clear = colormaps[cmap].with_extremes(bad=(0, 0, 0, 0))
        image = np.ma.array(image, mask=hidden | ~np.isfinite(image))
        # Without interpolation a vector file holds the pixels of the image, not those of a screen.
        style = {"norm": norm, "cmap": clear, "interpolation": "none"}
        shown = axes.imshow(image, origin="lower", extent=extent, **style)
        if not self.bars:
            return
        # An inset is as tall as the image, whatever its aspect.
        bar = axes.figure.colorbar(shown, cax=axes.inset_axes([1.025, 0.0, 0.045, 1.0]))
        bar.set_label(unit)
        if ticks is not None:
            bar.set_ticks(ticks)
        plain_numbers(bar)

    def absent(self, axes, why):
        """Say in an empty panel why there is nothing to see."""
        axes.set_axis_off()
        axes.text(0.5, 0.5, why, color=PLAIN, ha="center", va="center", transform=axes.transAxes)


# ---------------------------------------------------------------- panels in the image plane


def _data(drawing, axes):
    data, (norm, ticks) = drawing.result.data, drawing.stretch
    extent = extent_of(data, drawing.coarse)
    title = f'data, {drawing.coarse:.3g}" pixels'
    drawing.show(axes, data.data, extent, title, unit_text(data.unit), norm=norm, ticks=ticks)
    marks.outline(axes, drawing.mask, extent)


def _lens_subtracted(drawing, axes):
    result = drawing.result
    if not can_subtract(result):
        drawing.absent(axes, "no lens-subtracted data:\nthis run models no lens light, or has a psf_out")
        return
    image, extent = without_lens(result), extent_of(result.data, drawing.coarse)
    # As bright as the arcs: the centre of a galaxy leaves residuals that outshine them.
    arcs = result.model_image.data - result.data.data + image
    high = max(float(np.max(arcs[~drawing.mask], initial=0.0)), 5 * drawing.typical_noise)
    norm, ticks = stretch(image[~drawing.mask], drawing.typical_noise, high or None)
    unit = unit_text(result.data.unit)
    drawing.show(axes, image, extent, "data $-$ lens light", unit, norm=norm, ticks=ticks)
    marks.outline(axes, drawing.mask, extent)


def _model(drawing, axes):
    model, (norm, ticks) = drawing.result.model_image, drawing.stretch
    extent, unit = extent_of(drawing.result.data, drawing.coarse), unit_text(drawing.result.data.unit)
    drawing.show(axes, model.data, extent, "model, same stretch", unit, norm=norm, ticks=ticks)


def _residual(drawing, axes):
    result, noise = drawing.result, drawing.noise
    norm = None if noise is None else Normalize(-5, 5)
    unit = unit_text(result.data.unit) if noise is None else r"$\sigma$"
    image = result.residual.data / (1.0 if noise is None else noise)
    extent, how = extent_of(result.data, drawing.coarse), {"cmap": RESIDUAL_MAP, "hidden": drawing.mask}
    drawing.show(axes, image, extent, "residual, data $-$ model", unit, norm=norm, **how)


def _fine(name, title):
    """Panel of a plane at the finer sampling."""

    def draw(drawing, axes):
        plane = getattr(drawing.result, name)
        if plane is None:
            drawing.absent(axes, f"no {title}:\nthis run models none")
            return
        extent = extent_of(drawing.result.image, drawing.fine)
        norm, ticks = stretch(plane.data, drawing.fine_noise)
        told = title if name != "image" or is_model(drawing.result) else "interpolated"
        unit = unit_text(plane.unit)
        drawing.show(
            axes, plane.data, extent, f'{told}, {drawing.fine:.3g}" pixels', unit, norm=norm, ticks=ticks
        )
        if name != "lens_light_image":
            marks.curves_over(axes, drawing.critical, marks.CRITICAL, extent)

    return draw


def _error(drawing, axes):
    image = drawing.result.image
    if image.uncertainty is None:
        drawing.absent(axes, "no errors:\nthe image has none")
        return
    error = np.broadcast_to(image.uncertainty.array, image.shape)
    norm, ticks = stretch(error)
    extent, title = extent_of(image, drawing.fine), r"error of the image, 1 $\sigma$"
    drawing.show(axes, error, extent, title, unit_text(image.unit), norm=norm, ticks=ticks, cmap=ERROR_MAP)


# ---------------------------------------------------------------- panels in the source plane


def _source(name, title):
    """Panel of a source, a field of the result."""

    def draw(drawing, axes):
        source = getattr(drawing.result, name)
        if source is None:
            drawing.absent(axes, f"no {title}:\nthis run models none")
            return
        extent = _source_extent(source)
        norm, ticks = stretch(source.data)
        unit = unit_text(source.unit)
        told = f"{title}, not lensed (model)"
        drawing.show(axes, source.data, extent, told, unit, norm=norm, ticks=ticks)
        _mark_prior(axes, source, extent)
        _frame_source(drawing, axes, extent, IMAGE_MAP, name)

    return draw


def _source_error(drawing, axes):
    source = drawing.result.source
    if source is None or source.uncertainty is None:
        drawing.absent(axes, "no errors:\nthis run has no source with errors")
        return
    error, extent = np.broadcast_to(source.uncertainty.array, source.shape), _source_extent(source)
    norm, ticks = stretch(error)
    unit, title = unit_text(source.unit), r"error of the source, 1 $\sigma$"
    drawing.show(axes, error, extent, title, unit, norm=norm, ticks=ticks, cmap=ERROR_MAP)
    _frame_source(drawing, axes, extent, ERROR_MAP, "source")


def _source_extent(source):
    centre = [float(meta_value(source.meta, name) or 0.0) for name in ("x_0", "y_0")]
    return extent_of(source, sky_scale(source) or 1.0, centre)


def _frame_source(drawing, axes, extent, cmap, name):
    """Draw the caustics, whole, and the edge of the grid, outside of which the source is dark."""
    axes.patches[0].set(facecolor=colormaps[cmap](0.0), hatch=None)
    edge = {"fill": False, "edgecolor": "0.55", "linestyle": ":", "linewidth": 0.8}
    axes.add_patch(Rectangle(extent[::2], extent[1] - extent[0], extent[3] - extent[2], **edge))
    caustics = drawing.caustics.get(name, [])
    marks.curves_over(axes, caustics, marks.CAUSTIC, marks.whole_view(extent, caustics))


def _mark_prior(axes, source, extent):
    """Hatch the source where it is prior rather than data."""
    if source.mask is None or not np.any(source.mask):
        return
    sides = zip((extent[:2], extent[2:]), source.shape[::-1], strict=True)
    x, y = (low + (high - low) * (np.arange(n) + 0.5) / n for (low, high), n in sides)
    prior = np.asarray(source.mask, dtype=float)
    hatched = axes.contourf(x, y, prior, levels=[0.5, 1.5], colors="none", hatches=["////"])
    hatched.set(edgecolor="0.6", linewidth=0.0)
    axes.contour(x, y, prior, levels=[0.5], colors="0.6", linewidths=0.8)
    note = {"color": "0.85", "fontsize": "small", "ha": "left", "va": "top", "transform": axes.transAxes}
    axes.text(0.02, 0.98, "hatched: prior, not data", path_effects=marks.EDGE, **note)


# ---------------------------------------------------------------- the verdict in words


def _verdict(drawing, axes):
    """Write the verdict and the parameters."""
    result = drawing.result
    axes.set_axis_off()
    write = {"transform": axes.transAxes, "va": "top", "ha": "left"}
    colour = GOOD if result.ok else BAD
    axes.text(0.0, 1.0, result.grade, color=colour, fontsize="x-large", weight="bold", **write)
    flags = textwrap.wrap(", ".join(result.flags), FLAG_WIDTH)
    listed = "flags: " + "\n".join(flags) if flags else "no flags"
    axes.text(0.0, 0.91, listed, color=PLAIN, linespacing=1.35, **write)
    # A page of parameters does not fit: the file has all of them.
    rows = [row for row in rows_text(result) if "(fixed)" not in row[2]]
    shown = rows[:MOST_ROWS]
    top = 0.82 - 0.045 * listed.count("\n")
    # A little below the axes is free: the other panels have a label there.
    step = min(0.045, (top + 0.1) / (len(shown) + 1))
    size = "small" if step > 0.038 else "x-small"
    cells, told_as, last = [], _symbols_by_component(rows), None
    for component, name, value, unit in shown:
        heading, last = component.replace("_", " ") if component != last else "", component
        value = value.replace("+-", "±").replace("-", MINUS)
        cells.append((heading, told_as[component, name], f"{value}  {unit_text(unit) if unit else ''}"))
    if len(rows) > len(shown):
        cells.append(("", f"and {len(rows) - len(shown)} more: result.summary()", ""))
    starts = _column_starts([row for row in cells if row[2]], size)
    for i, row in enumerate(cells):
        colours = "0.5", "k" if row[2] else "0.5", "k"
        for start, text, colour in zip(starts, row, colours, strict=True):
            place = axes.transAxes + ScaledTranslation(start / 72, 0, axes.get_figure().dpi_scale_trans)
            axes.text(0.0, top - step * i, text, **write | {"transform": place}, color=colour, fontsize=size)


def _column_starts(rows, size, gap=8.0):
    """Where the columns of a table begin, in points: each a gap behind the longest text of the one before."""
    font = FontProperties(size=size)
    points = font.get_size_in_points()
    widths = [
        max(TextPath((0, 0), text, size=points, prop=font).get_extents().width for text in column if text)
        for column in list(zip(*rows, strict=True))[:-1]
    ]
    return np.cumsum([0.0, *(width + gap for width in widths)])


def _symbols_by_component(rows):
    """Symbols by component and name: each component has a heading of its own."""
    names = {}
    for component, name, *_ in rows:
        names.setdefault(component, []).append(name)
    pairs = ((part, zip(own, symbols(own), strict=True)) for part, own in names.items())
    return {(part, name): symbol for part, own in pairs for name, symbol in own}


# ---------------------------------------------------------------- all panels


@dataclass(frozen=True)
class Panel:
    """A panel: how it is drawn, and the field of the result whose WCS has its north; "" for none."""

    draw: Callable
    place: str = ""


PANELS = {
    "data": Panel(_data, "data"),
    "lens_subtracted": Panel(_lens_subtracted, "data"),
    "model": Panel(_model, "data"),
    "residual": Panel(_residual),
    "image": Panel(_fine("image", "super-resolved model"), "image"),
    "error": Panel(_error),
    "lensed_source": Panel(_fine("lensed_source", "lensed source"), "image"),
    "lens_light": Panel(_fine("lens_light_image", "lens light"), "image"),
    "source": Panel(_source("source", "source"), "source"),
    "second_source": Panel(_source("second_source", "second source"), "second_source"),
    "source_error": Panel(_source_error),
    "verdict": Panel(_verdict),
}


def check_panels(names, known=tuple(PANELS)):
    """Names of panels as a tuple; `InputError` for one that there is not."""
    names = (names,) if isinstance(names, str) else tuple(names)
    wrong = [name for name in names if name not in known]
    if wrong or not names:
        what = f"there is no panel {wrong[0]!r}" if wrong else "no panels are asked for"
        raise InputError(f"{what}: give some of {', '.join(known)}")
    return names


def draw_panels(drawing, named):
    """Draw panels into axes, pairs of name and axes; the first of each plane has scale bar and compass."""
    marked = set()
    for name, axes in named:
        panel = PANELS[name]
        panel.draw(drawing, axes)
        plane = panel.place if panel.place.endswith("source") else "image"
        if not axes.images or not panel.place or plane in marked:
            continue
        marked.add(plane)
        extent = (*axes.get_xlim(), *axes.get_ylim())
        marks.scale_bar(axes, extent)
        marks.compass(axes, getattr(drawing.result, panel.place).wcs, extent)
