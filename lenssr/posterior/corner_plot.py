"""Corner plots of draws, several on top of one another."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np

from lenssr._figures import save, symbols, unit_text
from lenssr.exceptions import InputError

if TYPE_CHECKING:
    import matplotlib.figure

    from lenssr.posterior.draws_of_posterior import PosteriorDraws

__all__ = ["draw_corner"]

COLOURS = ("C0", "C1", "C2", "C3", "C4")
TRUTH_COLOUR = "black"
# Side of a panel in inches, and the share of each posterior that its axis shows.
PANEL, SHOWN = 1.6, 0.995


def draw_corner(
    labelled: Mapping[str, PosteriorDraws],
    names: Sequence[str],
    *,
    truth: Mapping[str, Any],
    figure: matplotlib.figure.Figure | None = None,
    path: str | os.PathLike[str] | None = None,
) -> matplotlib.figure.Figure:
    """Draw labelled draws of parameters into one figure; see `PosteriorDraws.corner`."""
    try:
        import corner
    except ImportError as error:
        raise InputError("corner plots need corner: pip install 'lenssr[posterior]'") from error
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    unknown = set(truth) - set(names)
    first = next(iter(labelled.values()))
    if unknown - set(first.names):
        raise InputError(f"truth of {sorted(unknown)[0]!r}: give it of some of {', '.join(first.names)}")
    side = PANEL * len(names) + 1
    figure = Figure(figsize=(side, side)) if figure is None else figure
    units = dict(zip(first.names, first.units, strict=True))
    options: dict[str, Any] = {
        "labels": [
            f"{symbol} [{unit_text(units[name])}]" if units[name] else symbol
            for name, symbol in zip(names, symbols(names), strict=True)
        ],
        "range": [
            _range([one for one in labelled.values() if name in one.names], name, units) for name in names
        ],
        "truths": [_number(truth[name], units[name]) if name in truth else None for name in names],
        "plot_datapoints": False,
        "fill_contours": False,
        "plot_density": False,
        "levels": (0.393, 0.865),  # 1 and 2 sigma of two parameters
        "truth_color": TRUTH_COLOUR,
        "smooth": 1.0,
    }
    for colour, draws in zip(COLOURS, labelled.values(), strict=False):
        values = _columns(draws, names, units)
        corner.corner(
            values,
            weights=draws.weights,
            fig=figure,
            color=colour,
            hist_kwargs={"density": True, "color": colour},
            **options,
        )
    handles = [
        Line2D([], [], color=colour, label=label) for colour, label in zip(COLOURS, labelled, strict=False)
    ]
    if truth:
        handles.append(Line2D([], [], color=TRUTH_COLOUR, label="truth"))
    figure.legend(handles=handles, loc="upper right", frameon=False)
    if path is not None:
        save(figure, path)
    return figure


def _number(value: Any, unit: str) -> float:
    """A value in a unit."""
    return float(value.to_value(unit)) if isinstance(value, u.Quantity) else float(value)


def _columns(draws: PosteriorDraws, names: Sequence[str], units: Mapping[str, str]) -> np.ndarray:
    """Draws (n, K) in these units; `InputError` where other draws lack a parameter."""
    missing = [name for name in names if name not in draws.names]
    if missing:
        raise InputError(f"one of the draws has no {missing[0]!r}: leave it out of names=")
    return np.stack([draws[name].to_value(units[name]) for name in names], axis=1)


def _range(several: Sequence[PosteriorDraws], name: str, units: Mapping[str, str]) -> tuple[float, float]:
    """Ends of an axis that shows all draws of a parameter."""
    ends = [draws.interval(name, SHOWN) for draws in several]
    low = min(low.to_value(units[name]) for low, _ in ends)
    high = max(high.to_value(units[name]) for _, high in ends)
    margin = 0.1 * (high - low) or 1e-6 * max(abs(high), 1e-12)
    return low - margin, high + margin
