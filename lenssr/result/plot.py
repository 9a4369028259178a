"""The figure of a `~lenssr.SuperResolution`, without pyplot: no window, no global state."""

from matplotlib.figure import Figure

from lenssr._figures import check_figure, save
from lenssr.exceptions import InputError
from lenssr.result.catalogue_row import identifier_of
from lenssr.result.panels import BAD, PANELS, Drawing, check_panels, draw_panels
from lenssr.result.text import einstein_text, meta_value
from lenssr.units import positive_integer

__all__ = ["check_figure", "draw", "draw_one", "new_axes", "save"]

DEFAULT = ("data", "model", "residual", "image", "source", "verdict")
# The same of two sources.
DEFAULT_OF_TWO = ("data", "model", "residual", "image", "source", "second_source", "lensed_source", "verdict")
# Width and height of a panel in inches, with its colour bar and labels; and panels of a row, at most.
WIDTH, HEIGHT, MOST_COLUMNS = 5.0, 4.6, 3


def _name(result):
    """The lens and its band, as far as they are known."""
    band = meta_value(result.meta, "filter")
    return ", ".join(str(one).strip() for one in (identifier_of(result.meta), band) if one)


def _title(result, judged):
    """What the figure shows, and where the verdict is shown how good it is."""
    parts, radius = [_name(result)], einstein_text(result)
    if judged:
        parts.append(f"reduced $\\chi^2$ = {result.reduced_chi2:.3g}")
        if radius is not None:
            parts.append(rf'$\theta_\mathrm{{E}}$ = {radius.replace("+-", "±")}"')
        parts.append(result.grade if result.ok else f"{result.grade}: see the flags")
    return "     ".join(filter(None, parts))


def _grid(number, columns):
    """Rows and columns of a number of panels; `InputError` for a wrong number of columns."""
    if columns is None:
        columns = 2 if number == 4 else MOST_COLUMNS
    columns = min(positive_integer(columns, "columns"), number)
    return -(-number // columns), columns


def draw(result, figure=None, panels=None, columns=None):
    """Draw panels into a figure, by default five images and the verdict into a new one."""
    if panels is None and result.second_source is not None:
        panels, columns = DEFAULT_OF_TWO, columns or len(DEFAULT_OF_TWO) // 2
    panels = DEFAULT if panels is None else panels
    names, drawing = check_panels(panels), Drawing(result)
    shape = _grid(len(names), columns)
    if figure is None:
        figure = Figure(figsize=(WIDTH * shape[1], HEIGHT * shape[0]), dpi=120, layout="constrained")
    axes = figure.subplots(*shape, squeeze=False).ravel()
    for empty in axes[len(names) :]:
        empty.remove()
    draw_panels(drawing, zip(names, axes[: len(names)], strict=True))
    judged = "verdict" in names
    title = _title(result, judged)
    if title:
        figure.suptitle(title, fontsize="x-large", color=BAD if judged and not result.ok else "k")
    return figure


def new_axes():
    """Axes of a new figure with one panel."""
    return Figure(figsize=(WIDTH, HEIGHT), dpi=120, layout="constrained").subplots()


def draw_one(result, name, axes=None, colorbar=True):
    """Draw one panel into axes, by default those of a new figure, with object and band in its title."""
    if not isinstance(name, str) or name not in PANELS:
        raise InputError(f"there is no panel {name!r}: give one of {', '.join(PANELS)}")
    axes = new_axes() if axes is None else axes
    draw_panels(Drawing(result, bars=colorbar), [(name, axes)])
    title = ": ".join(filter(None, (_name(result), axes.get_title(loc="left"))))
    axes.set_title(title, fontsize="medium", loc="left", pad=5)
    return axes
