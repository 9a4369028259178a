"""The figure of a `~lenssr.result.BandsResolution`: a row a band, and a row of colour pictures."""

from matplotlib.figure import Figure

from lenssr.exceptions import InputError
from lenssr.result import marks
from lenssr.result.catalogue_row import identifier_of
from lenssr.result.colour import PLANES, colour_picture, has_colours
from lenssr.result.lens_subtraction import can_subtract
from lenssr.result.panels import BAD, GOOD, PLAIN, Drawing, check_panels, draw_panels, extent_of, label_axes
from lenssr.result.plot import DEFAULT, HEIGHT, WIDTH
from lenssr.result.text import meta_value, number_text, sky_scale

__all__ = ["draw_bands", "draw_colour"]

TITLES = {
    "data": "data",
    "lens_subtracted": "data $-$ lens light",
    "model": "model",
    "image": "super-resolved model",
    "source": "source, not lensed",
}
MOST_LINES = 20


def draw_bands(result, figure=None, panels=None):
    """Draw a row of panels for every band, and one of colour pictures and the verdict."""
    names = check_panels(DEFAULT if panels is None else panels)
    drawings = {name: Drawing(band) for name, band in result.bands.items()}
    coloured = [name for name in names if _can_be_coloured(result, name)]
    judged = "verdict" in names
    rows = len(drawings) + bool(coloured or judged)
    if figure is None:
        figure = Figure(figsize=(WIDTH * len(names), HEIGHT * rows), dpi=80, layout="constrained")
    axes = figure.subplots(rows, len(names), squeeze=False)
    for row, (name, drawing) in zip(axes, drawings.items(), strict=False):
        draw_panels(drawing, zip(names, row, strict=True))
        note = " (left out)" if name in result.left_out else ""
        row[0].set_title(
            f"{name}{note}: {row[0].get_title(loc='left')}", fontsize="medium", loc="left", pad=5
        )
    for name, panel in zip(names, axes[-1], strict=True) if rows > len(drawings) else ():
        if name in coloured:
            draw_colour(result, name, panel, drawings)
        elif name == "verdict":
            _draw_verdict(result, panel)
        else:
            panel.set_axis_off()
    figure.suptitle(
        _title(result, judged), fontsize="x-large", color=BAD if judged and not result.ok else "k"
    )
    return figure


def _title(result, judged):
    """What the figure shows, and where the verdict is shown how good it is."""
    lens = next((found for found in map(_target, result.bands.values()) if found), "")
    parts = [", ".join(filter(None, (lens, _bands(result))))]
    if judged:
        parts.append(f"reduced $\\chi^2$ = {result.reduced_chi2:.3g}")
        if result.lens is not None:
            radius = number_text(result.R_E.value, result.R_E_error.value).replace("+-", "±")
            parts.append(rf'$R_\mathrm{{E}}$ = {radius}"')
        parts.append(result.grade if result.ok else f"{result.grade}: see the flags")
    return "     ".join(parts)


def _bands(result):
    return " + ".join(map(str, result.bands))


def _target(band):
    """Name of the lens in one band, if it has one other than that of a file."""
    return identifier_of({key: one for key, one in band.meta.items() if key not in ("file", "filename")})


def _can_be_coloured(result, name):
    fields = [getattr(band, PLANES[name]) for band in result.bands.values()] if name in PLANES else [None]
    subtracts = name != "lens_subtracted" or all(map(can_subtract, result.bands.values()))
    return has_colours(result) and subtracts and all(one is not None for one in fields)


def draw_colour(result, name, axes, drawings=None, titled=False):
    """Draw the colour picture of a plane into axes, in the frame of the first band, with its curves."""
    if name not in TITLES:
        raise InputError(f"there is no colour picture {name!r}: give one of {', '.join(TITLES)}")
    picture, band = colour_picture(result, name), next(iter(result.bands))
    drawing = Drawing(result.bands[band]) if drawings is None else drawings[band]
    plane = getattr(drawing.result, PLANES[name])
    label_axes(
        axes, f"{_title(result, False)}: {TITLES[name]}" if titled else f"{TITLES[name]}, {_bands(result)}"
    )
    if name == "source":
        centre = [float(meta_value(plane.meta, key) or 0.0) for key in ("x_0", "y_0")]
        extent = extent_of(plane, sky_scale(plane) or 1.0, centre)
        curves, style = drawing.caustics.get("source", []), marks.CAUSTIC
        view = marks.whole_view(extent, curves)
    else:
        extent = extent_of(plane, drawing.fine if name == "image" else drawing.coarse)
        curves, style = (drawing.critical if name == "image" else []), marks.CRITICAL
        view = extent
    axes.set_facecolor("k")
    axes.imshow(picture, origin="lower", extent=extent, interpolation="none")
    marks.curves_over(axes, curves, style, view)
    marks.scale_bar(axes, view)
    marks.compass(axes, plane.wcs, view)
    return axes


def _draw_verdict(result, axes):
    axes.set_axis_off()
    write = {"transform": axes.transAxes, "va": "top", "ha": "left"}
    axes.text(
        0.0,
        1.0,
        f"all bands: {result.grade}",
        color=GOOD if result.ok else BAD,
        fontsize="x-large",
        weight="bold",
        **write,
    )
    lines = ["flags:", *(f"  {flag}" for flag in result.flags)] if result.flags else ["no flags"]
    if len(lines) > MOST_LINES:
        lines = [*lines[:MOST_LINES], "... see result.summary()"]
    axes.text(0.0, 0.9, "\n".join(lines), color=PLAIN, linespacing=1.3, **write)
