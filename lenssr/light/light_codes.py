"""Light in the names and keywords of lenstronomy, and back."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import astropy.units as u
import numpy as np
from astropy.modeling import Model

from lenssr._exchange.autolens_names import light_from_autolens
from lenssr._exchange.lenstronomy_names import light_from, light_to
from lenssr.exceptions import InputError
from lenssr.light.gaussians import MultiGaussian
from lenssr.light.pixelated_source import PixelatedSource
from lenssr.light.profile import Length, in_arcsec
from lenssr.light.sersic import LENGTHS, Sersic
from lenssr.units import strip_unit

__all__ = ["from_autolens", "from_lenstronomy", "numbers_of", "to_lenstronomy"]

Lights: TypeAlias = "Model | Sequence[Model]"


def to_lenstronomy(light: Lights) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Describe light in the names and keywords of lenstronomy, which need not be installed.

    Parameters
    ----------
    light : `Sersic`, `MultiGaussian`, `PixelatedSource`, or a list of these
        Units are left out: brightnesses are per arcsec2.

    Returns
    -------
    options : dict
        What ``LightModel(**options)`` takes: ``light_model_list``.
    kwargs : list of dict
        Keywords of each profile.

    Raises
    ------
    InputError
        If lenstronomy has no such profile.

    Notes
    -----
    Brightnesses agree to 1e-6 of the peak. lenstronomy approximates b_n; amplitude and radius of a Sérsic are
    those that give the same profile.

    Examples
    --------
    >>> from lenssr.light import Sersic, to_lenstronomy
    >>> options, kwargs = to_lenstronomy(Sersic(2.0, 0.3, n=1.0))
    >>> options, round(kwargs[0]["amp"], 4)
    ({'light_model_list': ['SERSIC_ELLIPSE']}, 2.0125)
    """
    items = list(light) if isinstance(light, list | tuple) else [light]
    pairs = [light_to(type(one).__name__, numbers_of(one)) for one in items]
    return {"light_model_list": [name for name, _ in pairs]}, [values for _, values in pairs]


def from_lenstronomy(
    light_model_list: Sequence[str] | dict[str, Any], kwargs: Sequence[dict[str, Any]]
) -> "Model | tuple[Model, ...]":
    """Build light from the names and keywords of lenstronomy, which need not be installed.

    Parameters
    ----------
    light_model_list : list of str, or dict
        Names of profiles; or the options of lenstronomy's ``LightModel``, which hold them.
    kwargs : list of dict
        Keywords of each profile, with ``amp``.

    Returns
    -------
    light : `Sersic`, `MultiGaussian` or `PixelatedSource`, or a tuple of these
        Without units.

    Raises
    ------
    InputError
        If a profile has no counterpart here, or lacks a keyword.

    Examples
    --------
    >>> from lenssr.light import from_lenstronomy
    >>> galaxy = from_lenstronomy(["SERSIC"], [{"amp": 2.0, "R_sersic": 0.3, "n_sersic": 1.0}])
    >>> round(float(galaxy.r_eff.value), 5)
    0.30112
    """
    names = light_model_list["light_model_list"] if isinstance(light_model_list, dict) else light_model_list
    kinds = {cls.__name__: cls for cls in (Sersic, MultiGaussian, PixelatedSource)}
    found = tuple(kinds[name](**values) for name, values in light_from(names, kwargs))
    return found[0] if len(found) == 1 else found


def from_autolens(
    profiles: Sequence[tuple[str, dict[str, Any]]], pixel_scale: Length
) -> "Model | tuple[Model, ...]":
    """Build light from profiles of PyAutoLens, which need not be installed.

    Parameters
    ----------
    profiles : list of tuple
        The name of each profile (Sersic, SersicSph) and its parameters, with PyAutoLens's names and units:
        pairs have y first, and an intensity is that of a pixel.
    pixel_scale : float or `~astropy.units.Quantity`
        Side of a pixel of the image, in arcsec without a unit.

    Returns
    -------
    light : `Sersic` or tuple of `Sersic`
        Without units; amplitudes are per arcsec2.

    Raises
    ------
    InputError
        If a profile is not translated, lacks a parameter, or has one that is not known.

    Examples
    --------
    >>> from lenssr.light import from_autolens
    >>> values = {"intensity": 2.0, "effective_radius": 0.6, "sersic_index": 3.0}
    >>> float(from_autolens([("SersicSph", values)], 0.05).amplitude.value)
    800.0
    """
    scale = float(strip_unit(pixel_scale, u.arcsec, "pixel_scale"))
    found = tuple(Sersic(**light_from_autolens(name, values, scale)[1]) for name, values in profiles)
    return found[0] if len(found) == 1 else found


def numbers_of(light: Model) -> dict[str, Any]:
    """Numbers by name, lengths in arcsec, and other arguments."""
    if isinstance(light, PixelatedSource):
        grid = light.grid
        if not np.allclose(grid.matrix, grid.pixel_scale * np.eye(2), rtol=1e-6, atol=1e-9):
            raise InputError("the pixels of a PixelatedSource are no squares along x and y: resample it")
        x_0, y_0 = light.center
        placed = {"amplitude": float(light.amplitude.value), "x_0": x_0, "y_0": y_0}
        return {**placed, "image": light.image.numpy(), "pixel_scale": float(grid.pixel_scale)}
    if not isinstance(light, (Sersic, MultiGaussian)):  # noqa: UP038 - astropy has its own bar
        return {}
    lengths = LENGTHS if isinstance(light, Sersic) else ()
    numbers: dict[str, Any] = dict(
        zip(light.param_names, in_arcsec(light, light.param_names, lengths).tolist(), strict=True)
    )
    if isinstance(light, MultiGaussian):
        numbers["flux"] = [numbers[f"flux_{k}"] for k in range(len(light.sigma))]
        numbers["sigma"] = light.sigma
    return numbers
