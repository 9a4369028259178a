"""From the fit of one image to a `~lenssr.SuperResolution`."""

import copy
from dataclasses import asdict

import astropy.units as u
import numpy as np
from astropy.table import QTable

from lenssr.grids import conserves_sum
from lenssr.imaging.sky import sky_noise
from lenssr.reconstruction.fine_images import ccd
from lenssr.reconstruction.measures import measure, measure_telescope
from lenssr.reconstruction.output_psf import describe_psf_out, is_extrapolated
from lenssr.reconstruction.verdict import is_ok, judge
from lenssr.result import SuperResolution

__all__ = ["assemble", "flux_unit", "noise_of_sky"]


def assemble(scene, fit, observation, settings, make_products):
    """Everything a run returns, from where its fit ended.

    Parameters
    ----------
    scene : `~lenssr.model.scene.Scene`
    fit : `~lenssr.model.fit.SceneFit`
    observation : `~lenssr.imaging.Observation`
    settings : `~lenssr.options.Settings`
    make_products : callable
        ``make_products(widening)`` gives the `~lenssr.reconstruction.fine_images.Products`, with errors wider
        by this factor than independent noise makes them.

    Returns
    -------
    result : `~lenssr.SuperResolution`
    """
    noise = noise_of_sky(scene, fit, observation)
    covariance = fit.covariance * noise.factor**2
    products = make_products(noise.factor)
    unit, wcs, mask = observation.unit, copy.deepcopy(observation.grid.wcs), observation.mask
    shape = observation.grid.shape
    model = fit.model.reshape(shape).cpu().numpy()
    weight = fit.weight.reshape(shape).cpu().numpy()
    residual = np.where(mask, 0.0, observation.data - model)
    chi2_map = residual**2 * weight
    sigma = np.where(weight > 0, 1 / np.sqrt(np.where(weight > 0, weight, 1)), np.nan)
    degrees = int((weight > 0).sum()) - _free_beside_source(scene) - products.parameters
    measures = measure(scene, fit, observation, residual, covariance, noise, degrees)
    models = _models(scene, fit, covariance, flux_unit(observation))
    measures["extrapolated"] = is_extrapolated(settings.psf_out, observation)
    flags = judge(measures | measure_telescope(observation, settings), observation.flags)
    sky, sky_error = _sky(scene, fit, covariance)
    names, free = _free_covariance(scene, fit, covariance)
    return SuperResolution(
        **_fine_images(products, observation, settings),
        **models,
        source=products.source,
        information=products.information,
        magnification=products.magnification[0],
        magnification_error=products.magnification[1],
        posterior=products.posterior,
        data=ccd(observation.data, unit, wcs=wcs, error=sigma, mask=mask),
        model_image=ccd(model, unit, wcs=wcs, MODEL=True),
        residual=ccd(residual, unit, wcs=wcs, error=sigma, mask=mask),
        chi2_map=chi2_map,
        reduced_chi2=float(chi2_map.sum() / max(degrees, 1)),
        sky=sky * unit,
        sky_error=sky_error * unit,
        parameters=_table(scene, models, sky, sky_error, unit),
        covariance=free,
        covariance_names=names,
        flags=flags,
        ok=is_ok(flags),
        meta={
            **settings.describe(),
            **observation.meta,
            "pixel_scale": observation.grid.pixel_scale,
            "converged": fit.converged,
            **({"lens_from": fit.start} if settings.lens is None else {}),
            "iterations": fit.iterations,
            "sky_noise": asdict(noise),
            "measures": {name: np.asarray(value).tolist() for name, value in measures.items()},
        },
    )


def noise_of_sky(scene, fit, observation):
    """Noise of the residual where the model is faint: arcs that fill a small field would pass for sky.

    Parameters
    ----------
    scene : `~lenssr.model.scene.Scene`
    fit : `~lenssr.model.fit.SceneFit`
    observation : `~lenssr.imaging.Observation`

    Returns
    -------
    noise : `~lenssr.imaging.sky.SkyNoise`
    """
    sky = sum(float(fit.physical[block.start]) for block in scene.of_role("sky"))
    model, weight = (plane.reshape(observation.shape).cpu().numpy() for plane in (fit.model, fit.weight))
    sigma = np.where(weight > 0, 1 / np.sqrt(np.where(weight > 0, weight, 1)), np.inf)
    free = (weight > 0) & (np.abs(model - sky) < sigma)
    return sky_noise(observation.data - model, sigma, free)


def _free_beside_source(scene):
    return sum(int(scene.free[block.slice].sum()) for block in scene.blocks if block.role != "source")


def _fine_images(products, observation, settings):
    mask = np.kron(observation.mask, np.ones((settings.scale, settings.scale), dtype=bool))
    seen = {"MODEL": True, "PSF_OUT": describe_psf_out(settings.psf_out)}
    extras = ({"mask": mask, "psf": products.kernel}, {}, {})
    names = ("image", "lensed_source", "lens_light_image")
    return {
        name: ccd(image, observation.unit, wcs=products.wcs, error=error, **seen, **extra)
        for name, image, error, extra in zip(names, products.images, products.errors, extras, strict=True)
    }


def flux_unit(observation):
    """Unit of the flux in a pixel, of which models hold an amount per arcsec2."""
    unit = observation.unit
    return unit if conserves_sum(unit) else unit * u.arcsec**2


def _models(scene, fit, covariance, unit):
    """The lens and the light as models with errors; several profiles of the lens light are a tuple."""
    found = {"lens": None, "source_model": None, "lens_light": ()}
    for block in scene.blocks:
        values, errors = fit.physical[block.slice].cpu(), covariance[block.slice, block.slice].cpu()
        if block.role == "lens":
            moved = bool(scene.free[block.slice].any())
            found["lens"] = scene.lens.with_vector(values, covariance=errors) if moved else scene.lens
        elif block.role == "source":
            found["source_model"] = block.profile.model(values, errors, unit)
        elif block.role == "lens_light":
            found["lens_light"] += (block.profile.model(values, errors, unit),)
    light = found["lens_light"]
    if len(light) < 2:
        found["lens_light"] = light[0] if light else None
    return found


def _sky(scene, fit, covariance):
    for block in scene.of_role("sky"):
        return float(fit.physical[block.start]), float(covariance[block.start, block.start].sqrt())
    return 0.0, 0.0


def _table(scene, models, sky, sky_error, unit):
    """One row a parameter: name, component, value, error, unit, fixed."""
    rows = []
    for block in scene.blocks:
        free = scene.free[block.slice].tolist()
        if block.role == "sky":
            rows.append(("sky", "sky", sky, sky_error, str(unit), False))
            continue
        model = models["source_model" if block.role == "source" else block.role]
        place = _place(scene, block)
        model = model if place is None else model[place]
        for name, shown, is_free in zip(block.names, _shown_names(scene, block), free, strict=True):
            parameter = _parameter(model, name)
            error = float(parameter.std) if is_free and parameter.std is not None else np.nan
            unit_name = "" if parameter.unit is None else parameter.unit.to_string()
            rows.append((shown, block.role, float(parameter.value), error, unit_name, not is_free))
    table = QTable(rows=rows, names=("name", "component", "value", "error", "unit", "fixed"))
    return table


def _place(scene, block):
    """Which of several profiles of the lens light a block is; None if it is the only one."""
    blocks = scene.of_role(block.role)
    return blocks.index(block) if block.role == "lens_light" and len(blocks) > 1 else None


def _shown_names(scene, block):
    """Names of a block's parameters; those of several profiles are numbered, as in a compound model."""
    place = _place(scene, block)
    return block.names if place is None else tuple(f"{name}_{place}" for name in block.names)


def _parameter(model, name):
    if hasattr(model, name):
        return getattr(model, name)
    return model.parameters[model.param_names.index(name)]


def _free_covariance(scene, fit, covariance):
    """Covariance of the free parameters as users see them (r_eff the semi-major axis), and their names."""
    slope = np.eye(scene.size)
    names = []
    for block in scene.blocks:
        shown = _shown_names(scene, block)
        names += [name if block.role == "sky" else f"{block.role}.{name}" for name in shown]
        if block.profile is not None:
            slope[block.slice, block.slice] = block.profile.outward(fit.physical[block.slice].cpu().numpy())
    free = scene.free.cpu().numpy()
    matrix = slope @ covariance.cpu().numpy() @ slope.T
    return tuple(np.array(names)[free].tolist()), matrix[np.ix_(free, free)]
