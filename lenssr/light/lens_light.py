"""The option ``lens_light=``, and the profiles that a fit makes of it."""

from typing import Any, TypeAlias

import astropy.units as u

from lenssr.exceptions import InputError
from lenssr.light.gaussians import GaussiansProfile, MultiGaussian, gaussian_widths
from lenssr.light.profile import LightProfile
from lenssr.light.sersic import Sersic, SersicProfile

__all__ = ["check_lens_light", "describe_lens_light", "light_profiles"]

LENS_LIGHTS = ("sersic", "mge")

Light: TypeAlias = "str | Sersic | MultiGaussian"
LensLight: TypeAlias = "None | Light | list[Light] | tuple[Light, ...]"


def _items(lens_light: LensLight) -> list[Light]:
    if lens_light is None:
        return []
    return list(lens_light) if isinstance(lens_light, list | tuple) else [lens_light]


def check_lens_light(lens_light: Any) -> None:
    """Raise `InputError` for an unknown name, an empty list, or a given model that cannot be fitted."""
    items = _items(lens_light)
    for item in items:
        known = item in LENS_LIGHTS if isinstance(item, str) else isinstance(item, (Sersic, MultiGaussian))
        if not known:
            raise InputError(
                f"lens_light = {lens_light!r}: give one of None, {', '.join(map(repr, LENS_LIGHTS))}, "
                "a Sersic, a MultiGaussian, or a list of these"
            )
    if lens_light is not None and not items:
        raise InputError(f"lens_light = {lens_light!r} is an empty list: give None for no light")
    # Profiles of given models check their constraints.
    light_profiles(lens_light, 1.0, 1.0)


def light_profiles(
    lens_light: LensLight, pixel_scale: float, extent: float, unit: u.UnitBase | None = None
) -> tuple[LightProfile, ...]:
    """Profiles of the option for one image.

    ``pixel_scale`` and ``extent``, half the field, are in arcsec and choose the widths of Gaussians;
    ``unit``, for models with units, belongs to the flux in a pixel.
    """
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
