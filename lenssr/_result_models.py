"""Mass and light models as a table with one row a parameter, and back."""

import astropy.units as u
import numpy as np
from astropy.table import Table

from lenssr.exceptions import InputError
from lenssr.light import Sersic
from lenssr.mass import MassModel, MassSystem

COLUMNS = ("component", "model", "name", "value", "error", "unit", "fixed", "lower", "upper")


# ---------------------------------------------------------------- to the table


def _parts(label, model):
    """Yield (label, simple model): a system or a list becomes ``label.0``, ``label.1``."""
    if model is None:
        return
    parts = model.components if isinstance(model, MassSystem) else model
    if isinstance(parts, (list, tuple)):
        yield from ((f"{label}.{i}", part) for i, part in enumerate(parts))
    else:
        yield label, model


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


def _covariance(model):
    """Covariance of a whole model, wherever it keeps one."""
    covariance = getattr(model, "covariance", None)
    return None if covariance is None else np.asarray(covariance, dtype=float)


def models_to_table(models):
    """Turn named models into a table.

    Parameters
    ----------
    models : dict of str to model, list of models or None

    Returns
    -------
    table : `~astropy.table.Table`
        The columns `COLUMNS`, a row for each parameter.
    extras : dict
        For JSON: which entries are None, systems or lists.
    covariances : dict of str to `~numpy.ndarray`
    """
    rows, kinds, covariances = [], {}, {}
    for label, model in models.items():
        kinds[label] = _kind(model)
        rows += [row for part_label, part in _parts(label, model) for row in _rows(part_label, part)]
        if _covariance(model) is not None:
            covariances[label] = _covariance(model)
    types = (str, str, str, float, float, str, bool, float, float)
    columns = zip(*rows, strict=True) if rows else ([] for _ in COLUMNS)
    data = {
        name: np.array(list(column), dtype=kind)
        for name, column, kind in zip(COLUMNS, columns, types, strict=True)
    }
    return Table(data), kinds, covariances


def _kind(model):
    if model is None:
        return "none"
    if isinstance(model, MassSystem):
        return "system"
    return "list" if isinstance(model, (list, tuple)) else "model"


# ---------------------------------------------------------------- and back


def _descendants(cls):
    for child in cls.__subclasses__():
        yield child
        yield from _descendants(child)


def _find_class(name):
    """Find a model by name among those imported: a model of the user's own reads back once its module is."""
    for cls in (Sersic, *_descendants(MassModel)):
        if cls.__name__ == name:
            return cls
    raise InputError(f"the file holds a model {name!r}, which is not known: import its module first")


def _build(rows):
    """Rebuild one simple model from its rows."""
    model = _find_class(rows[0]["model"])(**{row["name"]: _with_unit(row) for row in rows})
    for row in rows:
        parameter = getattr(model, row["name"])
        parameter.fixed = row["fixed"]
        parameter.bounds = tuple(None if np.isinf(limit) else limit for limit in (row["lower"], row["upper"]))
    return model


def _restore_errors(label, model, parts, covariance):
    """Put back the covariance, and the errors last: its 0 for a fixed parameter is not an error."""
    if covariance is not None and isinstance(model, MassModel):
        model = model.with_vector(model.vector, covariance=covariance)
    elif covariance is not None:
        model.covariance = covariance
    for part_label, part in _parts(label, model):
        for row in parts[part_label]:
            getattr(part, row["name"]).std = None if np.isnan(row["error"]) else row["error"]
    return model


def _with_unit(row):
    # astropy's models keep a unit only if they are given one; mass models always have theirs
    return u.Quantity(row["value"], row["unit"]) if row["unit"] else row["value"]


def models_from_table(table, kinds, covariances):
    """Rebuild what `models_to_table` wrote; returns the dict it took."""
    parts = {}
    for record in table:
        row = {name: _python(record[name]) for name in COLUMNS}
        parts.setdefault(row["component"], []).append(row)
    models = {label: _assemble(label, kind, parts) for label, kind in kinds.items()}
    return {
        label: _restore_errors(label, model, parts, covariances.get(label)) for label, model in models.items()
    }


def _assemble(label, kind, parts):
    if kind == "none":
        return None
    if kind == "model":
        return _build(parts[label])
    several = [_build(rows) for name, rows in parts.items() if name.startswith(f"{label}.")]
    return MassSystem(*several) if kind == "system" else several


def _python(value):
    return value.item() if isinstance(value, np.generic) else value
