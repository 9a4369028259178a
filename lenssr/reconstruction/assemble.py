"""From the fit of one image to a `~lenssr.SuperResolution`, made once and completely."""

import copy
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cache

import astropy.units as u
import numpy as np
from astropy.table import QTable

from lenssr._files import package_version
from lenssr.grids import conserves_sum
from lenssr.imaging.sky import residual_noise
from lenssr.model.fit import Fit
from lenssr.model.scene import Scene
from lenssr.reconstruction.fine_images import ccd
from lenssr.reconstruction.output_psf import describe_psf_out
from lenssr.reconstruction.verdict import Run, judge
from lenssr.result import SuperResolution
from lenssr.result.resolution import PARAMETER_COLUMNS

__all__ = ["Solved", "flux_unit", "make_result"]

log = logging.getLogger(__name__)

# Packages whose versions a result names.
VERSIONS = ("lenssr", "torch", "numpy", "astropy")


@dataclass(frozen=True, eq=False)
class Solved:
    """One image that has been solved: all that its result is made of.

    Attributes
    ----------
    scene : `~lenssr.model.scene.Scene`
    fit : `~lenssr.model.fit.Fit`
        Of its parameters.
    products : callable
        ``products(widening)`` gives the `~lenssr.reconstruction.fine_images.Products`, with errors wider by
        this factor than independent noise makes them.
    inversion : tuple of `~lenssr.source.Problem` and `~lenssr.source.Solution`, optional
        Of a source on a grid, which ``fit`` is made from.
    facts, meta : dict
        As of `make_result`.
    """

    scene: Scene
    fit: Fit
    products: Callable
    inversion: tuple | None = None
    facts: dict = field(default_factory=dict)
    meta: dict = field(default_factory=dict)

    def result(self, observation, settings, elapsed):
        """The `~lenssr.SuperResolution`; ``elapsed()``, asked last, gives the seconds that it has taken."""
        scene, fit, unit = self.scene, self.fit, observation.unit
        model, weight = (plane.reshape(observation.shape).cpu().numpy() for plane in (fit.model, fit.weight))
        noise = residual_noise(observation, model, weight, scene.sky_of(fit.physical))
        log.info("making the fine images and their errors")
        products = self.products(noise.factor)
        degrees = fit.used - int(scene.free[scene.keep("source")].sum()) - products.parameters
        about = {"scene": scene, "fit": fit, "noise": noise, "inversion": self.inversion}
        run = Run(observation, settings, model, weight, degrees, self.facts, **about)
        covariance = run.covariance
        models = _models(scene, fit, covariance, flux_unit(observation))
        sky, sky_error = _sky(scene, fit, covariance)
        names, free = _free_covariance(scene, fit, covariance)
        fields = {
            **_fine_images(products, observation, settings),
            **products.fields,
            **models,
            "sky": sky * unit,
            "sky_error": sky_error * unit,
            "parameters": _table(scene, models, sky, sky_error, unit),
            "covariance": free,
            "covariance_names": names,
        }
        return make_result(run, fields, meta=_fit_meta(run) | self.meta, elapsed=elapsed)


def make_result(run, fields, *, meta=None, elapsed=None):
    """The result of any run: what it made, the input planes beside it, and the verdict.

    Parameters
    ----------
    run : `~lenssr.reconstruction.verdict.Run`
    fields : dict
        Fields of the `~lenssr.SuperResolution` that this kind of source has, by name.
    meta : dict, optional
        What else goes into its ``meta``.
    elapsed : callable, optional
        Returns the seconds that the image has taken, and is called last.

    Returns
    -------
    result : `~lenssr.SuperResolution`
    """
    observation, settings, verdict = run.observation, run.settings, judge(run)
    log.info("verdict: %s", "ok" if verdict.ok else "not ok, " + ", ".join(verdict.serious))
    log.debug("measures %s", verdict.measures)
    unit, wcs = observation.unit, copy.deepcopy(observation.grid.wcs)
    seen = {"wcs": wcs, "error": run.sigma, "mask": observation.mask}
    chi2_map = run.residual**2 * run.weight
    return SuperResolution(
        **fields,
        data=ccd(observation.data, unit, **seen),
        model_image=ccd(run.model, unit, wcs=wcs, MODEL=run.fit is not None),
        residual=ccd(run.residual, unit, **seen),
        chi2_map=chi2_map,
        reduced_chi2=run.chi2,
        flags=verdict.flags,
        ok=verdict.ok,
        meta={
            **settings.describe(),
            **observation.meta,
            "pixel_scale": observation.grid.pixel_scale,
            "measures": verdict.measures,
            **(meta or {}),
            "versions": dict(_versions()),
            **({} if elapsed is None else {"seconds": elapsed()}),
        },
    )


@cache
def _versions():
    return {name: package_version(name) for name in VERSIONS}


def _fit_meta(run):
    """What a fit says about itself, and an inversion about its prior."""
    fit, found = run.fit, {"converged": run.fit.converged}
    if run.settings.lens is None:
        found["lens_from"] = fit.lens_from
    found |= {"iterations": fit.iterations, "sky_noise": asdict(run.noise)}
    if run.inversion is not None:
        solution = run.inversion[1]
        found |= {
            "prior": solution.prior.name,
            "strength": solution.strength,
            "determined": solution.determined,
        }
    return found


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
    if scene["sky"] is None:
        return 0.0, 0.0
    column = scene["sky"].start
    return float(fit.physical[column]), float(covariance[column, column].sqrt())


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
    return QTable(rows=rows, names=PARAMETER_COLUMNS)


def _place(scene, block):
    """Which of several profiles of the lens light a block is; None if it is the only one."""
    return scene.lights.index(block) if block in scene.lights and len(scene.lights) > 1 else None


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
