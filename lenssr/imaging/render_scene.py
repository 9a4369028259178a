"""Images from light and mass in one call."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import astropy.units as u
import numpy as np
import torch
from astropy.modeling import Model
from torch import Tensor

from lenssr._wcs import pixel_side
from lenssr.exceptions import InputError
from lenssr.grids import PixelGrid
from lenssr.imaging.operator import ImagingOperator, Oversampling, reach_of
from lenssr.imaging.planes import Array
from lenssr.imaging.psf import PSF, GaussianPSF, PixelSize
from lenssr.imaging.quadrature import Brightness, CompactLights, KnownLights
from lenssr.light import PixelatedSource, Sersic, sersic_brightness
from lenssr.light.pixelated_source import to_arcsec2

if TYPE_CHECKING:
    from lenssr.mass import MassModel

    Light: TypeAlias = Sersic | PixelatedSource | Model | Callable[[Tensor, Tensor], Tensor]

__all__ = ["brightness_of", "kernel_options", "render"]

# Share of the PSF within the margin around an image: edge pixels then lack less than 0.1 % of their light.
MARGIN_SHARE = 0.999


def render(
    grid: PixelGrid,
    *,
    lens: MassModel | None = None,
    source: Light | Sequence[Light] | None = None,
    lens_light: Light | Sequence[Light] | None = None,
    sky: u.Quantity | float = 0.0,
    psf: PSF | Array | None = None,
    oversampling: Oversampling = "auto",
    scale: int = 1,
) -> Array | u.Quantity:
    """Image of a lens, its light and a source behind it.

    Parameters
    ----------
    grid : `~lenssr.grids.PixelGrid`
        The pixels.
    lens : `~lenssr.mass.MassModel`, optional
        Lens in front of the source. Default: none.
    source, lens_light : light or list of lights, optional
        Each a `~lenssr.light.Sersic`, a `~lenssr.light.PixelatedSource`, any other two-dimensional
        `~astropy.modeling.Model`, or a function ``brightness(x, y)`` of tensors in arcsec that returns one.
        All give surface brightness per arcsec2; models with units must agree in them. A
        `~lenssr.light.Sersic` keeps its flux however small it is; other lights much smaller than half a pixel
        can be lost between the rays, unless ``oversampling`` or ``scale`` puts them closer.
    sky : float or `~astropy.units.Quantity`, optional
        Background in each pixel of ``grid``. Default 0.
    psf : `~lenssr.imaging.PSF` or array, optional
        An array is taken as a PSF at the sampling of ``grid``. Default: none.
    oversampling : "auto" or int, optional
        As in `ImagingOperator`; "auto" (the default) integrates over pixels and divides the steep ones. A PSF
        known more finely than the pixels is used at its own sampling if "auto" or the integer allows.
    scale : int, optional
        The image is made with pixels this many times smaller. Default 1.

    Returns
    -------
    image : `~numpy.ndarray` or `~astropy.units.Quantity`, shape (ny * scale, nx * scale)
        Flux per (smaller) pixel, with a unit if the lights have one. The PSF also scatters light from beyond
        the edge of ``grid`` into it.

    Raises
    ------
    InputError
        If there is no light, or units differ.

    Examples
    --------
    >>> from lenssr.grids import PixelGrid
    >>> from lenssr.imaging.render_scene import render
    >>> from lenssr.light import Sersic
    >>> image = render(PixelGrid((64, 64), 0.1), source=Sersic(amplitude=1.0, r_eff=0.3, n=1.0))
    >>> round(float(image.sum()), 3)
    1.075
    """
    sources, lens_lights = _listed(source), _listed(lens_light)
    behind, in_front, unit = _brightness_by_role(sources, lens_lights)
    if isinstance(sky, u.Quantity) != (unit is not None) and not (np.ndim(sky) == 0 and sky == 0):
        raise InputError(f"sky = {sky}, but the unit of the lights is {unit}: give both a unit or neither")
    fine = grid.upsample(scale)

    def trace(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        if lens is None or not behind:
            return x, y
        ax, ay = lens.deflection(x, y)
        return x - ax, y - ay

    def brightness(x: Tensor, y: Tensor) -> Any:
        deflected = trace(x, y)
        return sum(light(*deflected) for light in behind) + sum(light(x, y) for light in in_front)

    kernel, options = kernel_options(psf, fine.matrix, scale=scale, oversampling=oversampling)
    refine = None
    if oversampling == "auto":
        known = _sersics(sources, trace) + _sersics(lens_lights, lambda x, y: (x, y))
        refine = KnownLights(brightness, known)
    if kernel is not None:
        options["margin"] = reach_of(kernel, MARGIN_SHARE, options["kernel_subsampling"])
    operator = ImagingOperator(fine, kernel, oversampling=oversampling, refine=refine, **options)
    image = operator(brightness(operator.x, operator.y)).detach().numpy()
    return (image if unit is None else image * unit) + sky / scale**2


def kernel_options(
    psf: PSF | Array | None, pixel_scale: PixelSize, *, scale: int = 1, oversampling: Oversampling = "auto"
) -> tuple[Array | None, dict[str, Any]]:
    """Kernel for an `~lenssr.imaging.ImagingOperator`, as finely sampled as the PSF and the rays allow.

    ``pixel_scale`` is that of the operator's grid, in arcsec, or its matrix; ``scale`` is the number of its
    pixels along one of the detector. Also returns ``kernel_subsampling`` and ``includes_pixel`` for the
    operator.
    """
    if psf is None:
        return None, {}
    psf = psf if isinstance(psf, PSF) else PSF(psf)
    subsampling = -(-psf.oversampling // scale)
    if isinstance(psf, GaussianPSF):
        # With two samples across its width the sum over samples equals the integral to 1e-6.
        subsampling = math.ceil(2 * pixel_side(pixel_scale) / psf.fwhm_at(pixel_scale))
    if psf.includes_pixel and subsampling % 2 == 0:
        subsampling += 1
    if oversampling != "auto" and oversampling % subsampling:
        subsampling = 1
    kernel = psf.kernel(pixel_scale * scale, subsampling=scale * subsampling)
    return kernel, {"kernel_subsampling": subsampling, "includes_pixel": psf.includes_pixel}


def _brightness_by_role(
    sources: list[Light], lens_lights: list[Light]
) -> tuple[list[Brightness], list[Brightness], Any]:
    """Brightness functions of both, and the common unit of their flux."""
    pairs = [brightness_of(light) for light in (*sources, *lens_lights)]
    units = {unit for _, unit in pairs}
    if not units:
        raise InputError("there is no light: give source= or lens_light=")
    if len(units) > 1:
        names = ", ".join(sorted("none" if unit is None else str(unit) for unit in units))
        raise InputError(f"the lights have different units ({names}): convert them to one")
    functions = [function for function, _ in pairs]
    return functions[: len(sources)], functions[len(sources) :], units.pop()


def _listed(given: Any) -> list[Light]:
    return [] if given is None else list(given) if isinstance(given, (list, tuple)) else [given]


def _sersics(lights: list[Light], trace: Any) -> tuple[CompactLights, ...]:
    """Places and sizes of the Sérsics among lights, behind a lens; empty if there are none."""
    vectors = [light.vector for light in lights if isinstance(light, Sersic)]
    if not vectors:
        return ()
    _, r_eff_circ, _, x_0, y_0, e1, e2 = torch.stack(vectors).detach().unbind(1)
    modulus = torch.hypot(e1, e2)
    root = ((1 - modulus) / (1 + modulus)).sqrt()
    return (CompactLights(x_0, y_0, r_eff_circ * root, r_eff_circ / root, trace),)


def brightness_of(light: Light) -> tuple[Brightness, Any]:
    """Surface brightness function, per arcsec2 at x and y in arcsec, of a light, and its flux unit.

    ``light`` is as for `render`; the unit is None for a light without one.
    """
    if isinstance(light, Sersic):
        amplitude, *rest = light.vector.unbind()
        factor, unit = to_arcsec2(light.amplitude.unit)
        return lambda x, y: sersic_brightness(x, y, factor * amplitude, *rest), unit
    if isinstance(light, PixelatedSource):
        return light.brightness, light.flux_unit
    if isinstance(light, Model):
        return _brightness_of_model(light)
    if callable(light):
        return light, None
    raise InputError(f"{light!r} is not a light: give a Sersic, PixelatedSource, astropy model or a function")


def _brightness_of_model(model: Model) -> tuple[Brightness, Any]:
    if model.n_inputs != 2 or model.n_outputs != 1:
        raise InputError(f"{model.name or type(model).__name__} is not a light: it must map x, y to a value")
    length = 1 if model.input_units is None else u.arcsec
    factor, unit = to_arcsec2(getattr(model(0.0 * length, 0.0 * length), "unit", None))

    def brightness(x: Tensor, y: Tensor) -> Tensor:
        values = model(x.numpy() * length, y.numpy() * length)
        return factor * torch.as_tensor(np.asarray(getattr(values, "value", values), dtype=np.float64))

    return brightness, unit
