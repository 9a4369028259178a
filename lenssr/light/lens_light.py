"""The option ``lens_light=``: the profiles that a fit makes of it, and its plain form in files."""

from typing import Any, TypeAlias

import astropy.units as u
from astropy.modeling import CompoundModel, Model

from lenssr._plain import as_lists, plain_model, read_models
from lenssr.exceptions import InputError
from lenssr.light.gaussians import GaussiansProfile, MultiGaussian, gaussian_widths
from lenssr.light.profile import LightProfile
from lenssr.light.sersic import Sersic, SersicProfile

__all__ = ["check_lens_light", "describe_lens_light", "from_dict", "light_profiles", "plain_light", "to_dict"]

LENS_LIGHTS = ("sersic", "mge")
# Leaves it to evidence, image by image.
AUTOMATIC = "auto"

Light: TypeAlias = "str | Sersic | MultiGaussian"
LensLight: TypeAlias = "None | Light | list[Light] | tuple[Light, ...]"


def _items(lens_light: LensLight) -> list[Light]:
    if lens_light is None:
        return []
    return list(lens_light) if isinstance(lens_light, list | tuple) else [lens_light]


def check_lens_light(lens_light: Any) -> None:
    """Raise `InputError` for an unknown name, an empty list, or a given model that cannot be fitted."""
    if isinstance(lens_light, str) and lens_light == AUTOMATIC:
        return
    items = _items(lens_light)
    for item in items:
        known = item in LENS_LIGHTS if isinstance(item, str) else isinstance(item, (Sersic, MultiGaussian))
        if not known:
            names = ", ".join(
                [*map(repr, (None, AUTOMATIC, *LENS_LIGHTS)), "a Sersic", "a MultiGaussian", "a list"]
            )
            raise InputError(f"lens_light = {lens_light!r}: give one of {names}")
    if lens_light is not None and not items:
        raise InputError(f"lens_light = {lens_light!r} is an empty list: give None for no light")
    # Profiles of given models check their constraints.
    light_profiles(lens_light, 1.0, 1.0)


def light_profiles(
    lens_light: LensLight, pixel_scale: float, extent: float, unit: u.UnitBase | None = None
) -> tuple[LightProfile, ...]:
    """Profiles of the option for one image.

    ``pixel_scale`` and ``extent``, half the field, are in arcsec and choose the widths of Gaussians;
    ``unit``, for models with units, belongs to the flux in a pixel. "auto" has been decided before.
    """
    if isinstance(lens_light, str) and lens_light == AUTOMATIC:
        raise ValueError("lens_light = 'auto' has no profiles before it is decided for an image")
    items = _items(lens_light)
    crowded = len(items) > 1
    profiles: list[LightProfile] = []
    for item in items:
        if item == "mge":
            profiles.append(GaussiansProfile(gaussian_widths(pixel_scale, extent), crowded=crowded))
        elif isinstance(item, MultiGaussian):
            profiles.append(GaussiansProfile(given=item, crowded=crowded))
        else:
            profiles.append(SersicProfile(item if isinstance(item, Sersic) else None, crowded=crowded))
    return tuple(profile if unit is None else profile.in_unit(unit) for profile in profiles)


def describe_lens_light(lens_light: LensLight) -> str | list[str] | None:
    """The option as plain values: names, and models as their repr."""
    words = [item if isinstance(item, str) else repr(item) for item in _items(lens_light)]
    if lens_light is None or isinstance(lens_light, list | tuple):
        return words or None
    return words[0]


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
