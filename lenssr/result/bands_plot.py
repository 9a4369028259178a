"""The figure of a `~lenssr.result.BandsResolution`: a row a band, and colour pictures."""

from matplotlib.figure import Figure

from lenssr.exceptions import InputError
from lenssr.result.colour import colour_picture, has_colours
from lenssr.result.plot import BAD, GOOD, PLAIN, draw_row
from lenssr.result.text import number_text, pixel_scales, rows_text

__all__ = ["draw_bands"]

COLUMNS, WIDTH, HEIGHT = 5, 25.0, 4.6
TITLES = {"data": "data", "image": "super-resolved model", "source": "source, not lensed"}
MOST_LINES = 20


def draw_bands(result, figure=None):
    """Draw a row of panels for every band, and one of colour pictures and the verdict."""
    rows = len(result.bands) + 1
    if any(pixel_scales(one)[0] is None for one in result.bands.values()):
        raise InputError("the pixel scale is not known: give results with meta={'pixel_scale': arcsec}")
    if figure is None:
        figure = Figure(figsize=(WIDTH, HEIGHT * rows), dpi=80, layout="constrained")
    axes = figure.subplots(rows, COLUMNS)
    for row, (name, band) in zip(axes, result.bands.items(), strict=False):
        draw_row(band, row)
        note = " (left out)" if name in result.left_out else ""
        row[0].set_title(f"{name}{note}: {row[0].get_title(loc='left')}", fontsize=10.5, loc="left", pad=5)
    _draw_colours(result, axes[-1])
    _draw_verdict(result, axes[-1, 3])
    axes[-1, 4].set_axis_off()
    verdict = "ok" if result.ok else "not ok: see the flags"
    radius = f'     R$_E$ = {number_text(result.R_E.value, result.R_E_error.value).replace("+-", "±")}"'
    radius = "" if result.lens is None else radius
    title = f"reduced $\\chi^2$ = {result.reduced_chi2:.3g}{radius}     {verdict}"
    figure.suptitle(title, fontsize=13, color="k" if result.ok else BAD)
    return figure


def _draw_colours(result, axes):
    sources = all(band.source is not None for band in result.bands.values())
    for panel, what in zip(axes, TITLES, strict=False):
        if not has_colours(result) or (what == "source" and not sources):
            panel.set_axis_off()
            continue
        panel.imshow(colour_picture(result, what), origin="lower", interpolation="nearest")
        panel.set_title(
            f"{TITLES[what]}, {' '.join(map(str, result.bands))}", fontsize=10.5, loc="left", pad=5
        )
        panel.set(xticks=[], yticks=[])


def _draw_verdict(result, axes):
    axes.set_axis_off()
    write = {"transform": axes.transAxes, "va": "top", "ha": "left"}
    verdict, colour = ("ok", GOOD) if result.ok else ("not ok", BAD)
    axes.text(0.0, 1.0, verdict, color=colour, fontsize=15, weight="bold", **write)
    lines = ["flags:", *(f"  {flag}" for flag in result.flags)] if result.flags else ["no flags"]
    shared = [row for row in rows_text(next(iter(result.bands.values()))) if row[0] == "lens"]
    lines += ["", *(f"{name}  {value}  {unit}" for _, name, value, unit in shared)]
    if len(lines) > MOST_LINES:
        lines = [*lines[:MOST_LINES], "... see result.summary()"]
    text = "\n".join(lines).replace("+-", "±")
    axes.text(0.0, 0.9, text, color=PLAIN, fontsize=9, linespacing=1.3, **write)
