"""From the fit of one image to a `~lenssr.SuperResolution`, made once and completely."""

import copy
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cache

import astropy.units as u
import numpy as np
from astropy.table import QTable

from lenssr._files import package_version
from lenssr.grids import conserves_sum
from lenssr.imaging.sky import residual_noise
from lenssr.model.fit import Fit
from lenssr.model.scene import Scene
from lenssr.options import Settings
from lenssr.reconstruction.fine_images import Products, ccd, describe_psf_out
from lenssr.reconstruction.kept_posterior import keep_posterior
from lenssr.reconstruction.verdict import Run, judge
from lenssr.result import SuperResolution
from lenssr.result.catalogue_row import parameter_name
from lenssr.result.resolution import PARAMETER_COLUMNS

log = logging.getLogger(__name__)

# Packages whose versions a result names.
VERSIONS = ("lenssr", "torch", "numpy", "astropy")


@dataclass(frozen=True, eq=False)
class Solved:
    """One image that has been solved: all that its result is made of.

    ``products(widening)`` gives the `Products`, with errors wider by this factor than for independent noise.
    ``inversion``, `~lenssr.source.Problem` and `~lenssr.source.Solution`, is that of a source on a grid, from
    which ``fit`` is made. ``facts`` and ``meta`` are as of `make_result`; ``settings`` those that were chosen
    where the ones asked for leave a choice.
    """

    scene: Scene
    fit: Fit
    products: Callable[[float], Products]
    inversion: tuple | None = None
    facts: dict = field(default_factory=dict)
    meta: dict = field(default_factory=dict)
    settings: Settings | None = None

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
        models = [_model(scene, block, fit, run.covariance, flux_unit(observation)) for block in scene.blocks]
        names, covariance = _free_covariance(run)
        sky = scene["sky"]
        sky_error = 0.0 if sky is None else float(run.covariance[sky.start, sky.start].sqrt())
        fields = {
            **_fine_images(products, observation, settings),
            **products.fields,
            **_by_role(scene, models),
            "sky": run.sky_level * unit,
            "sky_error": sky_error * unit,
            "parameters": _table(run, models, sky_error),
            "covariance": covariance,
            "covariance_names": names,
        }
        units = dict(_named_units(fields["parameters"]))
        ready = fields.pop("posterior", None)
        chosen = replace(run, settings=self.settings or settings)
        fields["posterior"] = keep_posterior(chosen, ready, names, [units[name] for name in names]) or ready
        return make_result(run, fields, meta=_fit_meta(run) | self.meta, elapsed=elapsed)


def make_result(run, fields, *, meta, elapsed):
    """The result of any `~lenssr.reconstruction.verdict.Run`, with input planes, verdict and meta.

    ``fields`` of the `~lenssr.SuperResolution` and entries of ``meta`` are those that the kind of source has;
    ``elapsed()``, called last, returns the seconds that the image has taken.
    """
    observation, settings, verdict = run.observation, run.settings, judge(run)
    log.info("verdict: %s", ", ".join((verdict.grade, *verdict.serious)))
    log.debug("measures %s", verdict.measures)
    unit, wcs = observation.unit, copy.deepcopy(observation.grid.wcs)
    seen = {"wcs": wcs, "error": run.sigma, "mask": observation.mask}
    return SuperResolution(
        **fields,
        data=ccd(observation.unmasked, unit, **seen),
        model_image=ccd(run.model, unit, wcs=wcs, MODEL=run.fit is not None),
        residual=ccd(run.residual, unit, **seen),
        chi2_map=run.residual**2 * run.weight,
        reduced_chi2=run.chi2,
        flags=verdict.flags,
        grade=verdict.grade,
        meta={
            **settings.describe(),
            **observation.meta,
            "pixel_scale": observation.grid.pixel_scale,
            "measures": verdict.measures,
            **meta,
            "versions": dict(_versions()),
            "seconds": elapsed(),
        },
    )


@cache
def _versions():
    return {name: package_version(name) for name in VERSIONS}


def _fit_meta(run):
    """Facts of a fit for the meta, and of the prior of an inversion."""
    meta = {"converged": run.fit.converged}
    if not run.settings.knows_lens:
        meta["lens_from"] = run.fit.lens_from
    meta |= {"iterations": run.fit.iterations, "sky_noise": asdict(run.noise)}
    if run.inversion is not None:
        solution = run.inversion[1]
        meta |= {"prior": solution.prior.name, "strength": solution.strength}
        meta["determined"] = solution.determined
    return meta


def _fine_images(products, observation, settings):
    mask = np.kron(observation.mask, np.ones((settings.scale, settings.scale), dtype=bool))
    seen = {"wcs": products.wcs, "MODEL": True, "PSF_OUT": describe_psf_out(settings.psf_out)}
    extras = ({"mask": mask, "psf": products.kernel}, {}, {})
    names = ("image", "lensed_source", "lens_light_image")
    return {
        name: ccd(image, observation.unit, error=error, **seen, **extra)
        for name, image, error, extra in zip(names, products.images, products.errors, extras, strict=True)
    }


def flux_unit(observation):
    """Unit of the flux in a pixel, of which models hold an amount per arcsec2."""
    unit = observation.unit
    return unit if conserves_sum(unit) else unit * u.arcsec**2


# ---------------------------------------------------------------- parameters as users see them


def _model(scene, block, fit, covariance, unit):
    """The lens, or a profile of light, with errors; None for the sky."""
    values, errors = fit.physical[block.slice].cpu(), covariance[block.slice, block.slice].cpu()
    if block.role == "lens":
        moved = bool(scene.free[block.slice].any())
        return scene.lens.with_vector(values, covariance=errors) if moved else scene.lens
    return None if block.profile is None else block.profile.model(values, errors, unit)


def _by_role(scene, models):
    """Models as fields of a result; several profiles of the lens light are a tuple."""
    found = {label: [] for label in ("lens", "source", "second_source", "lens_light", "sky")}
    for block, model in zip(scene.blocks, models, strict=True):
        found[block.label].append(model)
    models = (tuple(one) if len(one) > 1 else next(iter(one), None) for one in found.values())
    lens, source, second, light, _ = models
    return {"lens": lens, "source_model": source, "second_source_model": second, "lens_light": light}


def _shown_names(scene, block):
    """Names of a block's parameters; those of several profiles are numbered, as in a compound model."""
    if block.role != "lens_light" or len(scene.lights) < 2:
        return block.names
    return tuple(f"{name}_{scene.lights.index(block)}" for name in block.names)


def _table(run, models, sky_error):
    """One row a parameter: name, component, value, error, unit, fixed."""
    rows = []
    for block, model in zip(run.scene.blocks, models, strict=True):
        if model is None:
            rows.append(("sky", "sky", run.sky_level, sky_error, str(run.observation.unit), False))
            continue
        free = run.scene.free[block.slice].tolist()
        for name, shown, is_free in zip(block.names, _shown_names(run.scene, block), free, strict=True):
            parameter = _parameter(model, name)
            error = float(parameter.std) if is_free and parameter.std is not None else np.nan
            unit = "" if parameter.unit is None else parameter.unit.to_string()
            rows.append((shown, block.label, float(parameter.value), error, unit, not is_free))
    return QTable(rows=rows, names=PARAMETER_COLUMNS)


def _named_units(parameters):
    """Pairs of name, as in the covariance, and unit of the rows of a table of parameters."""
    for row in parameters:
        yield parameter_name(str(row["component"]), str(row["name"])), str(row["unit"])


def _parameter(model, name):
    if hasattr(model, name):
        return getattr(model, name)
    return model.parameters[model.param_names.index(name)]


def _free_covariance(run):
    """Names and covariance of the free parameters as users see them (r_eff the semi-major axis)."""
    scene, slope, names = run.scene, np.eye(run.scene.size), []
    for block in scene.blocks:
        shown = _shown_names(scene, block)
        names += [name if block.role == "sky" else f"{block.label}.{name}" for name in shown]
        if block.profile is not None:
            slope[block.slice, block.slice] = block.profile.outward(
                run.fit.physical[block.slice].cpu().numpy()
            )
    free = scene.free.cpu().numpy()
    matrix = slope @ run.covariance.cpu().numpy() @ slope.T
    return tuple(np.array(names)[free].tolist()), matrix[np.ix_(free, free)]
