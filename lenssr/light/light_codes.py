"""Light in the names and keywords of lenstronomy, and back."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from astropy.modeling import Model

from lenssr.exceptions import InputError
from lenssr.exchange.lenstronomy_names import light_from, light_to
from lenssr.light.gaussians import MultiGaussian
from lenssr.light.pixelated_source import PixelatedSource
from lenssr.light.profile import in_arcsec
from lenssr.light.sersic import LENGTHS, Sersic

__all__ = ["from_lenstronomy", "numbers_of", "to_lenstronomy"]

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
