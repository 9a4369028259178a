"""The figure of a run of photometry: data with numbered galaxies, model, and residual."""

import numpy as np

from lenssr._figures import save, unit_text
from lenssr.photometry.flags import NOTICES

__all__ = ["plot_residuals"]

# Most galaxies whose id is written, and range of the residual in sigma.
MOST_LABELS, RESIDUAL_SIGMA = 60, 5.0
FLAGGED, PLAIN = "#4fd1ff", "w"
# Sides of a label, in its height, that are tried around a galaxy: right, left, above, below, and corners.
SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))


def plot_residuals(observation, model, table, *, path=None, figure=None):
    """Figure of data, model (with sky) and residual; the brightest galaxies of ``table`` are numbered."""
    from matplotlib.figure import Figure

    from lenssr.result.panels import IMAGE_MAP, RESIDUAL_MAP, plain_numbers, stretch

    data, sigma = np.where(observation.valid, observation.data, np.nan), observation.sigma()
    norm, ticks = stretch(data, float(np.median(sigma)))
    light = {"norm": norm, "cmap": IMAGE_MAP}
    left = {"vmin": -RESIDUAL_SIGMA, "vmax": RESIDUAL_SIGMA, "cmap": RESIDUAL_MAP}
    if figure is None:
        figure = Figure(figsize=_size(data.shape), dpi=120, layout="constrained")
    panels = figure.subplots(1, 3, sharex=True, sharey=True)
    images = (("data", data, light), ("model", model, light))
    images = (*images, (r"residual, data $-$ model", (data - model) / sigma, left))
    shown = []
    for panel, (title, image, options) in zip(panels, images, strict=True):
        shown.append(panel.imshow(image, origin="lower", interpolation="none", **options))
        panel.set_title(title, fontsize="medium", loc="left")
        panel.set(xlabel="x (pixel)", facecolor="0.62")
    panels[0].set_ylabel("y (pixel)")
    bars = [figure.colorbar(shown[1], ax=list(panels[:2]), label=unit_text(observation.unit), shrink=0.85)]
    bars.append(figure.colorbar(shown[2], ax=panels[2], label=r"$\sigma$", shrink=0.85))
    bars[0].set_ticks(bars[0].get_ticks() if ticks is None else ticks)
    for bar in bars:
        plain_numbers(bar)
    if _number(panels[0], table, data.shape):
        panels[0].set_title("data (blue: flagged galaxies)", fontsize="medium", loc="left")
    if path is not None:
        save(figure, path)
    return figure


def _size(shape):
    """Width and height in inches of three panels of images of a shape, with labels and bars."""
    side = 4.0
    height = float(np.clip(side * shape[0] / shape[1], 1.8, 9.0))
    return 3 * side + 1.8, height + 0.8


def _number(axes, table, shape):
    """Outline half-light ellipses and write ids beside them, off each other; whether one is flagged."""
    from matplotlib.patches import Ellipse
    from matplotlib.patheffects import withStroke

    known = np.flatnonzero(np.isfinite(table["x"]) & np.isfinite(table["y"]))
    flux = next(np.asarray(table[name]) for name in table.colnames if name.startswith("flux"))
    chosen = known[np.argsort(-np.nan_to_num(flux[known]))][:MOST_LABELS]
    edge = [withStroke(linewidth=2.0, foreground="k", alpha=0.7)]
    # About the height of a letter in pixels of the image.
    letter = 0.035 * max(shape[1], shape[0])
    ellipses = [_ellipse(row) for row in table[chosen]]
    flagged = (np.asarray(table["flags"][chosen]) & ~int(NOTICES)) != 0
    centres = [(float(row["x"]), float(row["y"])) for row in table[chosen]]
    taken = [(*at, 2 * short, 2 * short) for at, (_, short, _) in zip(centres, ellipses, strict=True)]
    for at, (long, short, angle), bad, name in zip(
        centres, ellipses, flagged, table["id"][chosen], strict=True
    ):
        style = {"color": FLAGGED if bad else PLAIN, "path_effects": edge}
        axes.add_patch(Ellipse(at, 2 * long, 2 * short, angle=angle, fill=False, linewidth=0.9, **style))
        size = 0.62 * letter * len(str(name)), letter
        place = _free_place(at, long, size, taken, shape)
        taken.append((*place, *size))
        axes.text(*place, str(name), fontsize="small", ha="center", va="center", **style)
    return bool(flagged.any())


def _ellipse(row):
    """Semi-axes in pixels and angle in degrees of the half-light ellipse; of two components the larger."""
    ends = [name.removeprefix("r_eff") for name in row.colnames if name in ("r_eff", "r_eff_0", "r_eff_1")]
    pixels = {end: float(getattr(row[f"r_eff{end}"], "value", row[f"r_eff{end}"])) for end in ends}
    end = max(pixels, key=pixels.get)
    angle = row[f"theta{end}"]
    return pixels[end], pixels[end] * (1 - float(row[f"ellip{end}"])), float(getattr(angle, "value", angle))


def _free_place(centre, radius, size, taken, shape):
    """Centre of a label beside a galaxy that overlaps least with others, and is within the image."""
    best, least = centre, np.inf
    for side in SIDES:
        reach = np.array(side) * (radius + np.array(size) / 2 + 0.2 * size[1])
        x, y = np.add(centre, reach)
        outside = max(
            size[0] / 2 - x, x + size[0] / 2 - shape[1], size[1] / 2 - y, y + size[1] / 2 - shape[0], 0
        )
        over = sum(
            max(0.0, (size[0] + w) / 2 - abs(x - u)) * max(0.0, (size[1] + h) / 2 - abs(y - v))
            for u, v, w, h in taken
        )
        if outside + over < least:
            best, least = (x, y), outside + over
    return best
