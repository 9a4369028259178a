"""Light models as plain dictionaries, for saved resolvers and results, and back."""

from typing import Any

from astropy.modeling import CompoundModel, Model

from lenssr._plain import as_lists, plain_model, read_models
from lenssr.exceptions import InputError

__all__ = ["from_dict", "plain_light", "to_dict"]


def to_dict(light: Any) -> Any:
    """Describe light completely in plain numbers and strings, ready for YAML.

    Parameters
    ----------
    light : `~astropy.modeling.Model`, str, list of these, or None
        A model such as `~lenssr.light.Sersic`, or any other value of ``lens_light=``.

    Returns
    -------
    description : dict, str, list or None
        ``{"Sersic": {"amplitude": 2.0, ...}}``, with ``units``, and the names of ``fixed`` parameters and
        ``bounds`` where they are not the usual ones, and ``std`` and ``covariance`` where a fit made some.
        A list for several models, and a name for a name.

    Raises
    ------
    InputError
        If a model has no such form, such as a sum or one with tied parameters.

    See Also
    --------
    lenssr.light.from_dict : The way back.

    Examples
    --------
    >>> from lenssr.light import Sersic, to_dict
    >>> to_dict(Sersic(2.0, 0.3, n=4.0, fixed={"n": True}))["Sersic"]["fixed"]
    ['n']
    """
    return as_lists(plain_light(light))


def plain_light(light: Any) -> Any:
    """Light as `to_dict` has it, covariances as arrays."""
    if light is None or isinstance(light, str):
        return light
    if isinstance(light, list | tuple):
        return [plain_light(one) for one in light]
    if isinstance(light, CompoundModel) or len(light) != 1:
        raise InputError(f"a {type(light).__name__} of several models has no plain form: give a list of them")
    return plain_model(light)


def from_dict(description: Any) -> Any:
    """Build light from a description by `~lenssr.light.to_dict`.

    Parameters
    ----------
    description : dict, str, list or None
        Models of astropy, and your own, are found by name once they are imported.

    Returns
    -------
    light : `~astropy.modeling.Model`, str, tuple of these, or None

    Raises
    ------
    InputError
        If a name is unknown, or a value refused.

    Examples
    --------
    >>> from lenssr.light import from_dict
    >>> from_dict({"Sersic": {"amplitude": 2.0, "r_eff": 0.3, "n": 4.0}}).n.value
    4.0
    """
    if description is None or isinstance(description, str):
        return description
    if isinstance(description, list):
        return tuple(from_dict(one) for one in description)
    if not isinstance(description, dict) or len(description) != 1:
        raise InputError(f'{description!r} describes no light: give {{"Sersic": {{"amplitude": 2.0}}}}')
    return read_models(description, Model, "light model")[0]
