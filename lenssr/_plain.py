"""Models of mass and light as plain data, and back, for lens files, saved resolvers and results.

A model is ``{name of its class: entry}``. The entry holds the values of its parameters, the other
arguments of its class, and ``units``, ``fixed``, ``bounds``, ``std`` and ``covariance`` unless they are the
default.
"""

import inspect

import astropy.units as u
import numpy as np

from lenssr._limits import check_unit_text, quoted
from lenssr.exceptions import InputError

# Keys of an entry that describe its parameters.
ABOUT = ("units", "fixed", "bounds", "std", "covariance")


# ---------------------------------------------------------------- to plain data


# Arguments that stand for the parameters e1 and e2.
SHAPE = ("q", "phi")


def plain_model(model):
    """One model, no sum of them, as ``{class: entry}``; maps and covariance stay arrays, see `as_lists`."""
    cls, names = type(model), model.param_names
    parameters = {name: getattr(model, name) for name in names}
    declared = {name: getattr(cls, name, None) for name in names}
    tied = [name for name, one in parameters.items() if getattr(one, "tied", False)]
    if tied:
        raise InputError(f"{tied[0]} of a {cls.__name__} is tied, which no file can hold: untie it")
    entry = arguments_of(model)
    entry |= {name: np.asarray(one.value).item() for name, one in parameters.items()}
    units = {
        name: one.unit.to_string()
        for name, one in parameters.items()
        if one.unit is not None and one.unit != getattr(declared[name], "unit", None)
    }
    fixed = [name for name, one in parameters.items() if one.fixed]
    usual = [name for name, one in declared.items() if one is not None and one.fixed]
    bounds = {
        name: _ends(one.bounds)
        for name, one in parameters.items()
        if declared[name] is None or _ends(one.bounds) != _ends(declared[name].bounds)
    }
    std = {name: float(one.std) for name, one in parameters.items() if one.std is not None}
    entry |= {"fixed": fixed} if fixed != usual else {}
    about = {"units": units, "bounds": bounds, "std": std}
    entry |= {key: values for key, values in about.items() if values}
    if getattr(model, "covariance", None) is not None:
        entry["covariance"] = np.asarray(model.covariance, dtype=np.float64)
    return {cls.__name__: entry}


def arguments_of(model):
    """Arguments of a model besides its parameters: those it declares, else those of its signature."""
    if hasattr(model, "_arguments"):
        return model._arguments()
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    signature = inspect.signature(type(model)).parameters.values()
    known = (*model.param_names, *(SHAPE if "e1" in model.param_names else ()))
    names = [one.name for one in signature if one.kind not in kinds and one.name not in known]
    lost = [name for name in names if not hasattr(model, name)]
    if lost and not type(model).__module__.startswith("astropy."):
        raise InputError(f"a {type(model).__name__} does not keep its argument {lost[0]}: store it as such")
    return {name: getattr(model, name) for name in names if name not in lost}


def as_lists(plain):
    """Plain data with nested lists in place of arrays, as YAML and JSON want it."""
    if isinstance(plain, dict):
        return {key: as_lists(value) for key, value in plain.items()}
    if isinstance(plain, list | tuple):
        return [as_lists(value) for value in plain]
    return plain.tolist() if isinstance(plain, np.ndarray | np.generic) else plain


def _ends(bounds):
    return [None if end is None else float(getattr(end, "value", end)) for end in bounds]


# ---------------------------------------------------------------- and back


def read_models(description, base, kind):
    """Models from plain data: a dict of entries by class, or a list of such dicts.

    ``base`` is the class of the models, and ``kind`` their name in messages. Models that users define are
    found once they are imported.
    """
    entries = description if isinstance(description, list) else [description]
    if not all(isinstance(one, dict) for one in entries):
        raise InputError(
            f"{quoted(description)} describes no {kind}: give names of models and their parameters"
        )
    try:
        return [_read(str(name), entry, base, kind) for one in entries for name, entry in one.items()]
    except InputError:
        raise
    except Exception as error:  # whatever a model of a user, or a value of another type, makes of it
        why = f"{type(error).__name__}: {error}"
        raise InputError(f"{quoted(description)} describes no {kind} ({why}): see its docs") from error


def _read(name, entry, base, kind):
    # Of several classes of a name by users the newest, and none that replaces one of lenssr.
    found = sorted(_descendants(base), key=lambda cls: cls.__module__.startswith("lenssr."))
    known = {cls.__name__: cls for cls in found if not cls.__name__.startswith("_")}
    if name not in known:
        own = sorted(name for name, cls in known.items() if cls.__module__.startswith("lenssr."))
        names = ", ".join(own) if own else ", ".join(sorted(known))
        raise InputError(f"{name!r} is not a {kind}: give one of {names}; others have to be imported first")
    if not isinstance(entry, dict):
        raise InputError(f"{name}: {quoted(entry)} are no parameters: give a dictionary such as theta_E: 1.2")
    values = {key: value for key, value in entry.items() if key not in ABOUT}
    texts = getattr(known[name], "_names", ())
    values |= {key: _number(value, f"{name}.{key}") for key, value in values.items() if key not in texts}
    declared = known[name].param_names if isinstance(known[name].param_names, tuple) else ()
    for key in values.keys() & set(declared):
        if isinstance(values[key], bool | None):
            raise InputError(f"{name}.{key} = {values[key]!r} is neither a number nor a quantity: give one")
    for key, unit in (entry.get("units") or {}).items():
        check_unit_text(unit, f"the unit of {name}.{key}")
        values[key] = u.Quantity(values[key], unit)
    model = _build(known[name], name, values)
    _describe(model, name, {key: entry[key] for key in ABOUT if entry.get(key) is not None})
    return model


def _descendants(cls):
    for child in cls.__subclasses__():
        yield child
        yield from _descendants(child)


def _number(item, name):
    if not isinstance(item, str):
        return item
    check_unit_text(item, name)
    try:
        return u.Quantity(item)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise InputError(f"{name} = {quoted(item)} is neither a number nor a quantity") from error


def _build(cls, name, values):
    build, accepted, more = cls, *_accepted(cls)
    if "potential" in values and hasattr(cls, "from_potential"):
        build, accepted = cls.from_potential, ["potential", "pixel_scale"]
    unknown = [key for key in values if key not in accepted]
    if unknown and not more:
        raise InputError(f"{name} has no parameter {unknown[0]!r}: give {', '.join(accepted)}")
    try:
        return build(**values)
    except TypeError as error:
        raise InputError(f"{name}: {error}; it takes {', '.join(accepted)}") from error


def _accepted(cls):
    """Names that a class takes, and whether it takes others that it does not declare."""
    signature = inspect.signature(cls).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    names = [one.name for one in signature if one.kind in kinds]
    declared = cls.param_names if isinstance(cls.param_names, tuple) else ()
    names += [name for name in declared if name not in names]
    loose = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in signature)
    return names, loose and not declared


def _describe(model, name, about):
    """Set fixed, bounds, std and covariance of a model as in its entry."""
    named = [*about.get("fixed", ()), *about.get("bounds", {}), *about.get("std", {})]
    for key in named:
        if key not in model.param_names:
            raise InputError(f"{name} has no parameter {key!r}: give one of {', '.join(model.param_names)}")
    if "fixed" in about:
        for key in model.param_names:
            getattr(model, key).fixed = key in about["fixed"]
    for key, pair in about.get("bounds", {}).items():
        getattr(model, key).bounds = pair
    for key, std in about.get("std", {}).items():
        getattr(model, key).std = std
    if "covariance" in about:
        model.covariance = np.array(about["covariance"], dtype=np.float64)
