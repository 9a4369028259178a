"""A `~lenssr.SuperResolution` in the names and keywords of lenstronomy, which need not be installed."""

from __future__ import annotations

from typing import Any

import numpy as np
from astropy.nddata import StdDevUncertainty

from lenssr._wcs import has_scale
from lenssr.exceptions import InputError
from lenssr.grids import PixelGrid
from lenssr.light import MultiGaussian, PixelatedSource, Sersic, to_lenstronomy
from lenssr.result.text import pixel_scales

__all__ = ["lenstronomy_kwargs"]


def lenstronomy_kwargs(result: Any) -> dict[str, Any]:
    """Describe a result, see `~lenssr.SuperResolution.to_lenstronomy`."""
    if result.lens is None:
        raise InputError("a result without a lens has no model: give one with a lens")
    model, lens = result.lens.to_lenstronomy()
    source_options, source = to_lenstronomy(_source(result))
    lights = result.lens_light if isinstance(result.lens_light, tuple) else (result.lens_light,)
    light_options, light = to_lenstronomy([one for one in lights if one is not None])
    model["source_light_model_list"] = source_options["light_model_list"]
    model["lens_light_model_list"] = light_options["light_model_list"]
    return {
        "kwargs_model": model,
        "kwargs_lens": lens,
        "kwargs_source": source,
        "kwargs_lens_light": light,
        "kwargs_data": _data(result),
        **_psf(result),
    }


def _source(result: Any) -> Any:
    """The source: its profile, or its plane where lenstronomy has no such profile."""
    if isinstance(result.source_model, (Sersic, MultiGaussian, PixelatedSource)):  # noqa: UP038
        return result.source_model
    if result.source is None:
        raise InputError("a result of interpolation has no source: choose another source= of the resolver")
    meta, values = result.source.meta, np.asarray(result.source.data, dtype=float)
    return PixelatedSource(
        np.where(np.isfinite(values), values, 0.0),
        pixel_scale=float(meta["pixel_scale"]),
        x_0=float(meta.get("x_0", 0.0)),
        y_0=float(meta.get("y_0", 0.0)),
    )


def _grid(result: Any) -> PixelGrid:
    wcs, shape = result.data.wcs, result.data.shape
    if wcs is not None and wcs.has_celestial and has_scale(wcs):
        return PixelGrid.from_wcs(wcs.celestial, shape)
    scale = pixel_scales(result)[0]
    if scale is None:
        raise InputError("the result has no pixel scale: give pixel_scale= or a WCS with the image")
    return PixelGrid(shape, scale)


def _data(result: Any) -> dict[str, Any]:
    """Data less the sky, errors, and where the pixels are; x to the right, as everywhere here."""
    grid, image = _grid(result), result.data
    x, y = (float(axis[0, 0]) for axis in np.broadcast_arrays(grid.x, grid.y))
    values = np.asarray(image.data, dtype=float) - result.sky.to_value(image.unit)
    told: dict[str, Any] = {
        "image_data": np.where(np.isfinite(values), values, 0.0),
        "ra_at_xy_0": x,
        "dec_at_xy_0": y,
        "transform_pix2angle": np.array(grid.matrix),
    }
    noise = result.residual.uncertainty
    if noise is not None:
        sigma = np.asarray(noise.represent_as(StdDevUncertainty).array, dtype=float)
        good = np.isfinite(sigma) & (sigma > 0)
        told["noise_map"] = np.where(good, sigma, sigma[good].max() if good.any() else 1.0)
    return told


def _psf(result: Any) -> dict[str, Any]:
    """PSF and sampling of the fine image; nothing where the result does not hold the telescope's PSF."""
    factor = result.image.shape[1] // result.data.shape[1]
    numerics = {"supersampling_factor": factor, "supersampling_convolution": factor > 1}
    if result.image.psf is None:
        return {"kwargs_psf": {"psf_type": "NONE"}, "kwargs_numerics": numerics}
    if result.meta.get("psf_out") is not None:
        return {"kwargs_numerics": numerics}
    kernel = np.asarray(result.image.psf, dtype=float)
    # It takes kernels with a middle pixel only.
    kernel = np.pad(kernel, [(0, 1 - side % 2) for side in kernel.shape])
    psf = {
        "psf_type": "PIXEL",
        "kernel_point_source": kernel,
        "point_source_supersampling_factor": factor,
    }
    return {"kwargs_psf": psf, "kwargs_numerics": numerics}
