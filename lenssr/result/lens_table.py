"""The LENS table of a result's file, one row a parameter, and the models of files of layout 1."""

import numpy as np
from astropy.table import Table

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


def lens_table(models):
    """Table with the columns `COLUMNS` for people to read, from models, systems or tuples of models by label.

    The parts of a system or tuple are ``lens.0``, ``lens.1``, ...
    """
    rows = []
    for label, model in models.items():
        parts = getattr(model, "components", model)
        if isinstance(parts, list | tuple):
            for i, part in enumerate(parts):
                rows += _rows(f"{label}.{i}", part)
        elif model is not None:
            rows += _rows(label, model)
    columns = zip(*rows, strict=True) if rows else ([] for _ in COLUMNS)
    named = zip(COLUMNS.items(), columns, strict=True)
    return Table({name: np.array(list(column), dtype=kind) for (name, kind), column in named})


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


def _number(value, missing):
    return missing if value is None else float(value)


# ---------------------------------------------------------------- files of layout 1


def plain_of_layout_1(table, structure, arrays):
    """Plain models by label from the LENS table, the parts and the arrays of a file of layout 1."""
    rows = {}
    for record in table:
        row = {
            name: value.item() if isinstance(value := record[name], np.generic) else value for name in COLUMNS
        }
        rows.setdefault(row["component"], []).append(row)
    models = {}
    for label, told in structure.items():
        parts = [_plain_part(part, rows.get(part["label"], []), arrays) for part in told["parts"]]
        covariance = arrays.get(f"cov.{label}")
        if told["kind"] == "system":
            models[label] = {"MassSystem": {"components": parts, "covariance": covariance}}
            continue
        if covariance is not None:
            next(iter(parts[0].values()))["covariance"] = covariance
        one = parts[0] if parts else None
        models[label] = parts if told["kind"] in ("list", "tuple") else one
    return models


def _plain_part(part, rows, arrays):
    """One simple model: its rows hold the parameters, arrays called ``label.name`` the maps."""
    label = part["label"]
    maps = {name.removeprefix(f"{label}."): value for name, value in arrays.items()
            if name.startswith(f"{label}.")}  # fmt: skip
    entry = {**part["arguments"], **maps, **{row["name"]: row["value"] for row in rows}}
    entry["units"] = {row["name"]: row["unit"] for row in rows if row["unit"]}
    entry["fixed"] = [row["name"] for row in rows if row["fixed"]]
    ends = {row["name"]: (row["lower"], row["upper"]) for row in rows}
    entry["bounds"] = {name: [None if np.isinf(end) else end for end in pair] for name, pair in ends.items()}
    entry["std"] = {row["name"]: row["error"] for row in rows if not np.isnan(row["error"])}
    entry["covariance"] = arrays.get(f"cov.{label}")
    # A model without parameters has no row.
    return {rows[0]["model"] if rows else part["model"]: entry}
