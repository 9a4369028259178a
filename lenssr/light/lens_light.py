"""What ``lens_light=`` may be, and the profiles that a fit makes of it."""

from lenssr.exceptions import InputError
from lenssr.light.gaussians import MultiGaussian, gaussian_widths
from lenssr.light.gaussians_profile import GaussiansProfile
from lenssr.light.sersic import Sersic
from lenssr.light.sersic_profile import SersicProfile

__all__ = ["check_lens_light", "describe_lens_light", "light_profiles"]

LENS_LIGHTS = ("sersic", "mge")


def _items(lens_light):
    if lens_light is None:
        return []
    return list(lens_light) if isinstance(lens_light, list | tuple) else [lens_light]


def check_lens_light(lens_light):
    """Refuse what is no lens light.

    Parameters
    ----------
    lens_light : None, str, `~lenssr.light.Sersic`, `~lenssr.light.MultiGaussian`, or a list of these

    Raises
    ------
    InputError
        If a name is unknown, a list is empty, or a given model cannot be fitted.
    """
    items = _items(lens_light)
    for item in items:
        known = item in LENS_LIGHTS if isinstance(item, str) else isinstance(item, (Sersic, MultiGaussian))
        if not known:
            raise InputError(
                f"lens_light = {lens_light!r}: give one of None, {', '.join(map(repr, LENS_LIGHTS))}, "
                "a Sersic, a MultiGaussian, or a list of these"
            )
    if isinstance(lens_light, list | tuple) and not items:
        raise InputError(
            f"lens_light = {lens_light!r} is an empty list: give None for a galaxy that does not shine"
        )
    # Profiles of given models check their constraints.
    light_profiles(lens_light, 1.0, 1.0)


def light_profiles(lens_light, pixel_scale, extent, unit=None):
    """Turn the option into profiles for one image.

    Parameters
    ----------
    lens_light : None, str, `~lenssr.light.Sersic`, `~lenssr.light.MultiGaussian`, or a list of these
    pixel_scale, extent : float
        Of the image, and half its field, in arcsec: they choose the widths of Gaussians.
    unit : `~astropy.units.Unit`, optional
        Of the flux in a pixel, for models with units.

    Returns
    -------
    profiles : tuple of `~lenssr.light.LightProfile`
    """
    items = _items(lens_light)
    crowded = len(items) > 1
    profiles = []
    for item in items:
        if isinstance(item, MultiGaussian):
            profile = GaussiansProfile(given=item, crowded=crowded)
        elif isinstance(item, Sersic):
            profile = SersicProfile(item, crowded=crowded)
        elif item == "mge":
            profile = GaussiansProfile(gaussian_widths(pixel_scale, extent), crowded=crowded)
        else:
            profile = SersicProfile(crowded=crowded)
        profiles.append(profile if unit is None else profile.in_unit(unit))
    return tuple(profiles)


def describe_lens_light(lens_light):
    """Return the option as plain values: names, and models as their repr."""
    words = [item if isinstance(item, str) else repr(item) for item in _items(lens_light)]
    if lens_light is None or isinstance(lens_light, list | tuple):
        return words if words else None
    return words[0]
