"""What all figures share: symbols of parameters, units as text, and files that are whole."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import astropy.units as u

from lenssr._files import atomic
from lenssr.exceptions import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

__all__ = ["check_figure", "save", "symbols", "unit_text"]

# Symbols of the parameters of mass models and profiles in mathtext, as in Schneider, Kochanek & Wambsganss
# (2006) and Graham & Driver (2005).
SYMBOLS = {
    "theta_E": r"\theta_\mathrm{E}",
    "R_E": r"R_\mathrm{E}",
    "e1": "e_1",
    "e2": "e_2",
    "q": "q",
    "phi": r"\varphi",
    "x_0": "x_0",
    "y_0": "y_0",
    "core": r"r_\mathrm{core}",
    "edge": r"r_\mathrm{edge}",
    "gamma": r"\gamma",
    "gamma1": r"\gamma_1",
    "gamma2": r"\gamma_2",
    "kappa": r"\kappa",
    "kappa_0": r"\kappa_0",
    "sigma": r"\sigma",
    "alpha_rs": r"\alpha_{r_\mathrm{s}}",
    "r_s": r"r_\mathrm{s}",
    "r_t": r"r_\mathrm{t}",
    "a1": "a_1",
    "a2": "a_2",
    "amplitude": r"I_\mathrm{eff}",
    "r_eff": r"r_\mathrm{eff}",
    "n": "n",
    "mass_to_light": r"\Upsilon",
}


class _Name(NamedTuple):
    """Parts of the name of a parameter, such as "lens.theta_E_0"."""

    component: str
    base: str
    number: str


def _parts(name: str) -> _Name:
    component, _, rest = name.rpartition(".")
    number = re.fullmatch(r"(.+)_(\d+)", rest)
    if rest in SYMBOLS or number is None:
        return _Name(component, rest, "")
    return _Name(component, number[1], number[2])


def symbols(names: Sequence[str]) -> list[str]:
    """Symbols of parameters for a figure; what is not known stays as it is.

    Component and number of a part are told only where two of the names have one symbol.
    """
    parts = [_parts(name) for name in names]
    found = []
    for one in parts:
        same = [other for other in parts if other.base == one.base]
        told = [one.component.replace("_", " ")] if len({other.component for other in same}) > 1 else []
        several = len([other for other in same if other.component == one.component]) > 1
        told += [one.number] if several and one.number else []
        mark = ", ".join(filter(None, told))
        if one.base not in SYMBOLS:
            found.append(f"{one.base} ({mark})" if mark else one.base)
            continue
        raised = rf"^{{\,\mathrm{{{mark.replace(' ', chr(92) + ' ')}}}}}" if mark else ""
        found.append(f"${SYMBOLS[one.base]}{raised}$")
    return found


def unit_text(unit: Any) -> str:
    """A unit for a label, with powers raised; "no unit" for none."""
    if u.Unit(unit) == u.arcsec:  # two primes are hard to see
        return "arcsec"
    text = u.Unit(unit).to_string("latex_inline")
    return text if text.strip("$ ") not in ("", r"\mathrm{}") else "no unit"


def check_figure(path: str | os.PathLike[str]) -> str:
    """Format of an image file by its suffix; `InputError` if matplotlib cannot write it."""
    from matplotlib.backend_bases import FigureCanvasBase

    suffix = Path(path).suffix.lower().lstrip(".")
    if suffix not in FigureCanvasBase.filetypes:
        raise InputError(f"{path} is not an image file: end its name in .png, .pdf or .svg")
    return suffix


def save(figure: Figure | SubFigure, path: str | os.PathLike[str]) -> None:
    """Save a figure, or the whole of which it is a part: all of it, or nothing."""
    suffix = check_figure(path)
    with atomic(path) as temporary:
        figure.figure.savefig(temporary, format=suffix)  # of a subfigure, the whole
