"""A `~lenssr.SuperResolution` as one row of a catalogue."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np
from astropy.table import QTable

from lenssr._limits import check_unit_text
from lenssr.result.text import meta_value

if TYPE_CHECKING:
    from lenssr.result.resolution import SuperResolution

__all__ = ["catalogue_row", "file_of", "identifier_of", "parameter_name"]

# Entries of the meta that name a lens, the first that there is.
_NAMES = ("id", "name", "object", "targname")
_SUFFIXES = (".gz", ".fits", ".fit", ".fts", ".asdf")


def parameter_name(component: str, name: str) -> str:
    """Name of a parameter in the covariance, draws, files and figures; the sky's is its component."""
    return "sky" if component == "sky" else f"{component}.{name}"


def file_of(meta: Any) -> str:
    """Name of the file of the input, without its folder; empty where there was none."""
    name = meta_value(meta, "file", "filename")
    return "" if name is None else PurePath(str(name)).name


def identifier_of(meta: Any) -> str:
    """The name of a lens: that of the meta, of the target, or of its file; empty where there is none."""
    found = (meta_value(meta, name) for name in _NAMES)
    given = next((str(one).strip() for one in found if one is not None and str(one).strip()), "")
    if given:
        return given
    stem = file_of(meta)
    for suffix in _SUFFIXES:
        stem = stem.removesuffix(suffix)
    return stem


def catalogue_row(result: SuperResolution) -> QTable:
    """Everything that `SuperResolution.table` holds."""
    row: dict[str, Any] = {
        "id": identifier_of(result.meta),
        "file": file_of(result.meta),
        "grade": result.grade,
        "ok": bool(result.ok),
        "flags": ",".join(result.flags),
        "reduced_chi2": float(result.reduced_chi2),
    }
    if np.isfinite(result.R_E):
        row |= {"R_E": result.R_E, "R_E_err": result.R_E_error}
    if np.isfinite(result.magnification):
        row |= {"magnification": float(result.magnification)}
        row |= {"magnification_err": float(result.magnification_error)}
    if np.isfinite(result.second_magnification):
        row |= {"second_magnification": float(result.second_magnification)}
        row |= {"second_magnification_err": float(result.second_magnification_error)}
    row |= {f"{part}_mag": magnitude.value * u.mag for part, magnitude in result.magnitudes.items()}
    row |= dict(_parameters(result))
    return QTable({name: _column(value) for name, value in row.items()})


def _column(value: Any) -> Any:
    """A column of one value; a quantity keeps its unit."""
    return u.Quantity([value]) if isinstance(value, u.Quantity) else [value]


def _parameters(result: SuperResolution) -> Iterator[tuple[str, Any]]:
    """Name and value of each parameter, then of its error."""
    for entry in result.parameters:
        check_unit_text(entry["unit"], "the unit of a parameter")
        unit = u.Unit(str(entry["unit"]), parse_strict="silent")
        name = parameter_name(str(entry["component"]), str(entry["name"]))
        for ending, number in (("", float(entry["value"])), ("_err", float(entry["error"]))):
            # A number without a unit stays a plain number, which other columns of that name are too.
            yield name + ending, number if unit == u.dimensionless_unscaled else number * unit
