"""Mass models from plain dictionaries, as they stand in YAML files."""

import inspect

import astropy.units as u

from lenssr.exceptions import InputError
from lenssr.mass.base import MassModel
from lenssr.mass.system import MassSystem

__all__ = ["from_dict"]


def _models():
    """All mass models by name: those of this package and any that users have defined."""
    found, queue = {}, list(MassModel.__subclasses__())
    while queue:
        cls = queue.pop()
        queue += cls.__subclasses__()
        if not cls.__name__.startswith("_") and cls is not MassSystem:
            found[cls.__name__] = cls
    return found


def from_dict(description):
    """Build a mass model, or a system, from plain numbers and strings.

    Parameters
    ----------
    description : dict or list of dict
        ``{"SIE": {"theta_E": 1.2, "e1": 0.1}}``: names of models and their parameters, in arcsec or as
        strings with a unit (``"1.2 arcsec"``). Elliptical models also take ``q`` and ``phi``
        (``"30 deg"``). Two more keys for fits: ``fixed``, a list of parameters that stay as they are, and
        ``bounds``, a dictionary of pairs. Several models make a system.

    Returns
    -------
    model : `~lenssr.mass.MassModel`

    Raises
    ------
    InputError
        If a name is unknown, or a value refused.

    Examples
    --------
    >>> from lenssr.mass import from_dict
    >>> from_dict([{"SIE": {"theta_E": 1.2, "e1": 0.1}}, {"Shear": {"gamma1": 0.05, "gamma2": 0.0}}])
    SIE(theta_E=1.2, e1=0.1, e2=0.0, x_0=0.0, y_0=0.0) + Shear(gamma1=0.05, gamma2=0.0, x_0=0.0, y_0=0.0)
    """
    entries = description if isinstance(description, list) else [description]
    if not entries or not all(isinstance(entry, dict) and entry for entry in entries):
        raise InputError(
            f'{description!r} describes no lens: give {{"SIE": {{"theta_E": 1.2}}}} or a list of such'
        )
    models = [_one(name, values) for entry in entries for name, values in entry.items()]
    return models[0] if len(models) == 1 else MassSystem(*models)


def _one(name, values):
    known = _models()
    if name not in known:
        raise InputError(f"{name!r} is no mass model: give one of {', '.join(sorted(known))}")
    cls = known[name]
    if not isinstance(values, dict):
        raise InputError(f"{name}: {values!r} are no parameters: give a dictionary such as theta_E: 1.2")
    values = {key: _number(item, f"{name}.{key}") for key, item in values.items()}
    fixed, bounds = values.pop("fixed", None), values.pop("bounds", {})
    model = _call(cls, name, values)
    for key in [*(fixed or []), *bounds]:
        if key not in cls.param_names:
            raise InputError(f"{name} has no parameter {key!r}: give one of {', '.join(cls.param_names)}")
    if fixed is not None:
        for parameter in model.parameters:
            parameter.fixed = parameter.name in fixed
    for key, pair in bounds.items():
        getattr(model, key).bounds = pair
    return model


def _call(cls, name, values):
    build, accepted = cls, list(inspect.signature(cls).parameters)
    if {"q", "phi"} & set(values) and hasattr(cls, "from_q_phi"):
        build, accepted = cls.from_q_phi, [key for key in accepted if key not in {"e1", "e2"}] + ["q", "phi"]
    elif "potential" in values and hasattr(cls, "from_potential"):
        build, accepted = cls.from_potential, ["potential", "pixel_scale"]
    unknown = [key for key in values if key not in accepted]
    if unknown:
        raise InputError(f"{name} has no parameter {unknown[0]!r}: give {', '.join(accepted)}")
    try:
        return build(**values)
    except TypeError as error:
        raise InputError(f"{name}: {error}; it takes {', '.join(accepted)}") from error


def _number(item, name):
    if not isinstance(item, str):
        return item
    try:
        return u.Quantity(item)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} = {item!r} is neither a number nor a quantity") from error
