"""Mass and light models as a table with one row a parameter, and back."""

import inspect

import astropy.units as u
import numpy as np
from astropy.table import Table

from lenssr.exceptions import InputError
from lenssr.light import MultiGaussian, Sersic
from lenssr.mass import MassModel, MassSystem

COLUMNS = {
    "component": str,
    "model": str,
    "name": str,
    "value": float,
    "error": float,
    "unit": str,
    "fixed": bool,
    "lower": float,
    "upper": float,
}


# ---------------------------------------------------------------- to the table


def _kind(model):
    if model is None:
        return "none"
    if isinstance(model, MassSystem):
        return "system"
    return {list: "list", tuple: "tuple"}.get(type(model), "model")


def _parts(label, model):
    """List (label, simple model): a system or a list becomes ``label.0``, ``label.1``."""
    if model is None:
        return []
    if _kind(model) == "model":
        return [(label, model)]
    return [(f"{label}.{i}", part) for i, part in enumerate(getattr(model, "components", model))]


def _number(value, missing):
    return missing if value is None else float(value)


def _rows(label, model):
    for name in model.param_names:
        parameter = getattr(model, name)
        lower, upper = parameter.bounds
        yield (
            label,
            type(model).__name__,
            name,
            float(parameter.value),
            _number(parameter.std, np.nan),
            "" if parameter.unit is None else parameter.unit.to_string(),
            bool(parameter.fixed),
            _number(lower, -np.inf),
            _number(upper, np.inf),
        )


def _arguments(model):
    """What a mass model was built from besides its parameters, such as the maps of a pixelated one."""
    if isinstance(model, MultiGaussian):
        return {"sigma": model.sigma}
    if not isinstance(model, MassModel):
        return {}
    names = [name for name in inspect.signature(type(model)).parameters if name not in model.param_names]
    return {name: getattr(model, name) for name in names}


def models_to_table(models):
    """Turn named models into a table.

    Parameters
    ----------
    models : dict of str to model, list of models or None

    Returns
    -------
    table : `~astropy.table.Table`
        The columns `COLUMNS`, a row for each parameter.
    structure : dict
        For JSON: how the parts make up the models.
    arrays : dict of str to `~numpy.ndarray`
        Covariances, ``cov.lens``, and maps, ``lens.0.alpha_x``.
    """
    rows, structure, arrays = [], {}, {}
    for label, model in models.items():
        structure[label] = {"kind": _kind(model), "parts": []}
        covariance = getattr(model, "covariance", None)
        if covariance is not None:
            arrays[f"cov.{label}"] = np.asarray(covariance, dtype=float)
        for part_label, part in _parts(label, model):
            if isinstance(model, list | tuple) and part.covariance is not None:
                arrays[f"cov.{part_label}"] = np.asarray(part.covariance, dtype=float)
            rows += _rows(part_label, part)
            arguments = _arguments(part)
            arrays |= {f"{part_label}.{name}": value for name, value in arguments.items() if np.ndim(value)}
            scalars = {name: value for name, value in arguments.items() if not np.ndim(value)}
            entry = {"label": part_label, "model": type(part).__name__, "arguments": scalars}
            structure[label]["parts"].append(entry)
    columns = zip(*rows, strict=True) if rows else ([] for _ in COLUMNS)
    data = {
        name: np.array(list(column), dtype=kind)
        for (name, kind), column in zip(COLUMNS.items(), columns, strict=True)
    }
    return Table(data), structure, arrays


# ---------------------------------------------------------------- and back


def _descendants(cls):
    for child in cls.__subclasses__():
        yield child
        yield from _descendants(child)


def _find_class(name):
    """Find a model by name among those imported: a model of the user's own reads back once its module is."""
    for cls in (Sersic, MultiGaussian, *_descendants(MassModel)):
        if cls.__name__ == name:
            return cls
    raise InputError(f"the file holds a model {name!r}, which is not known: import its module first")


def _with_unit(row):
    # astropy's models keep a unit only if they are given one; mass models always have theirs
    return u.Quantity(row["value"], row["unit"]) if row["unit"] else row["value"]


def _build(part, rows, arrays):
    """Rebuild one simple model."""
    prefix = part["label"] + "."
    maps = {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
    values = {row["name"]: _with_unit(row) for row in rows}
    # a model without parameters has no row
    name = rows[0]["model"] if rows else part["model"]
    model = _find_class(name)(**values, **part["arguments"], **maps)
    for row in rows:
        parameter = getattr(model, row["name"])
        parameter.fixed = row["fixed"]
        parameter.bounds = tuple(None if np.isinf(limit) else limit for limit in (row["lower"], row["upper"]))
    return model


def _assemble(entry, rows, arrays):
    parts = [_build(part, rows.get(part["label"], []), arrays) for part in entry["parts"]]
    if entry["kind"] == "system":
        return MassSystem(*parts)
    if entry["kind"] in ("list", "tuple"):
        return parts if entry["kind"] == "list" else tuple(parts)
    return parts[0] if parts else None


def _restore_errors(label, model, rows, arrays):
    """Put back the covariance, and the errors last: its 0 for a fixed parameter is not an error."""
    covariance = arrays.get(f"cov.{label}")
    if isinstance(model, list | tuple):
        for part_label, part in _parts(label, model):
            part.covariance = arrays.get(f"cov.{part_label}")
    elif covariance is not None and isinstance(model, MassModel):
        model = model.with_vector(model.vector, covariance=covariance)
    elif covariance is not None:
        model.covariance = covariance
    for part_label, part in _parts(label, model):
        for row in rows.get(part_label, []):
            getattr(part, row["name"]).std = None if np.isnan(row["error"]) else row["error"]
    return model


def models_from_table(table, structure, arrays):
    """Rebuild what `models_to_table` wrote; returns the dict it took."""
    rows = {}
    for record in table:
        row = {name: _python(record[name]) for name in COLUMNS}
        rows.setdefault(row["component"], []).append(row)
    return {
        label: _restore_errors(label, _assemble(entry, rows, arrays), rows, arrays)
        for label, entry in structure.items()
    }


def _python(value):
    return value.item() if isinstance(value, np.generic) else value
