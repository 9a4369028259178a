"""A `~lenssr.SuperResolution` as a template of COOLEST with the files beside it, and back."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.nddata import CCDData, StdDevUncertainty
from numpy.typing import NDArray

from lenssr._exchange.coolest_profiles import FIELDS, light_of, profile_of_light, profile_of_mass
from lenssr._exchange.coolest_template import Entity, Grid, Profile, Template, read_template, write_templates
from lenssr._files import local_path, package_version
from lenssr._limits import check_unit_text
from lenssr.exceptions import InputError
from lenssr.grids import PixelGrid
from lenssr.imaging.psf import PSF
from lenssr.imaging.render_scene import render
from lenssr.light import PixelatedSource, Sersic
from lenssr.light.light_codes import numbers_of
from lenssr.mass import MultiPlane
from lenssr.mass.from_codes import lens_of
from lenssr.result.catalogue_row import parameter_name
from lenssr.result.text import pixel_scales

__all__ = ["result_from", "template_path", "write_coolest"]

DRAWS = 500
"""Draws from the posterior that a template is given: of those kept, or Gaussian as the covariance says."""

WIDER, FINER = 1.25, 2
"""How much wider than the image maps of a potential are, and how many of their pixels are along one of it."""

Deviations = Mapping[str, NDArray[np.float64]]
Translate = Callable[[str, dict[str, Any]], tuple[str, dict[str, Any]] | None]


# ---------------------------------------------------------------- writing


def template_path(path: Any) -> Path:
    """Path of a template that is to be written."""
    place = local_path(path)
    if place.suffix != ".json":
        raise InputError(f"{place} does not end in .json: a template of COOLEST is a JSON file")
    return place


def write_coolest(
    results: Mapping[Path, Any], *, z_lens: float | None, z_source: float | None, overwrite: bool
) -> None:
    """Write templates by path, all or none, see `~lenssr.SuperResolution.to_coolest`."""
    templates = {path: _template(result, path, z_lens, z_source) for path, result in results.items()}
    beside = {path: {"lenssr.fits": result.write} for path, result in results.items()}
    write_templates(templates, overwrite, beside)


def _template(result: Any, place: Path, z_lens: float | None, z_source: float | None) -> Template:
    if isinstance(result.lens, MultiPlane):
        raise InputError("COOLEST holds one plane: write the planes of a MultiPlane apart")
    if result.lens is None:
        raise InputError("a result without a lens is no template of COOLEST: give one with a lens")
    _, fine = pixel_scales(result)
    scale = None if fine is None else fine * (result.image.shape[1] // result.data.shape[1])
    if scale is None:
        raise InputError("the result has no pixel scale: give pixel_scale= or a WCS with the image")
    return Template(
        _entities(result, scale, z_lens, z_source),
        scale,
        _square(_filled(result.data.data) - result.sky.to_value(result.data.unit), 0.0),
        _sigma(result),
        _square(np.broadcast_to(_mask(result), result.data.shape), True),
        _psf(result, scale),
        _number(result.meta.get("zero_point")),
        _origin(result),
        str(result.meta.get("INSTRUME", result.meta.get("instrument", "")) or ""),
        str(result.meta.get("FILTER", result.meta.get("filter", "")) or ""),
        _meta(result, place),
    )


def _meta(result: Any, place: Any) -> dict[str, Any]:
    """What the format has no place for."""
    return {
        "code": f"lenssr {package_version()}",
        "unit": str(result.data.unit),
        "sky": float(result.sky.to_value(result.data.unit)),
        "shape": list(result.data.shape),
        "lenssr_file": f"{place.name.removesuffix('.json')}_lenssr.fits",
        "reduced_chi2": float(result.reduced_chi2),
        "flags": list(result.flags),
    }


def _filled(values: Any) -> NDArray[np.float64]:
    values = np.asarray(values, dtype=float)
    return np.where(np.isfinite(values), values, 0.0)


def _mask(result: Any) -> Any:
    return False if result.data.mask is None else np.asarray(result.data.mask, dtype=bool)


def _square(values: NDArray[Any], fill: Any) -> NDArray[Any]:
    """An image with as many columns as rows, around the same centre."""
    more = abs(values.shape[0] - values.shape[1])
    if more % 2:
        raise InputError(
            f"an image of {values.shape[1]} x {values.shape[0]} pixels is refused: templates are square, and "
            "the centre would move by half a pixel; cut off a row or a column first"
        )
    short = int(values.shape[0] > values.shape[1])
    pad = [(0, 0), (0, 0)]
    pad[short] = (more // 2, more // 2)
    return np.pad(values, pad, constant_values=fill)


def _sigma(result: Any) -> NDArray[np.float64] | None:
    noise = result.residual.uncertainty
    if noise is None:
        return None
    values = _filled(noise.represent_as(StdDevUncertainty).array)
    return _square(np.where(values > 0, values, values.max()), values.max())


def _psf(result: Any, scale: float) -> Grid | None:
    """The telescope's PSF at the sampling of the fine image; None where that has another."""
    if result.image.psf is None or result.meta.get("psf_out") is not None:
        return None
    return Grid(
        np.asarray(result.image.psf, dtype=float), scale * len(result.data.data) / len(result.image.data)
    )


def _number(value: Any) -> float | None:
    number = getattr(value, "value", value)
    return float(number) if isinstance(number, int | float) else None


def _origin(result: Any) -> tuple[str, str] | None:
    wcs = result.data.wcs
    if wcs is None or not getattr(wcs, "has_celestial", False):
        return None
    rows, columns = result.data.shape
    place = wcs.celestial.pixel_to_world((columns - 1) / 2, (rows - 1) / 2).icrs
    return place.ra.to_string(unit=u.hour), place.dec.to_string(unit=u.deg)


def _entities(result: Any, scale: float, z_lens: float | None, z_source: float | None) -> list[Entity]:
    deviations = _deviations(result)
    masses, rest = list[Profile](), list[Any]()
    system = len(getattr(result.lens, "components", (result.lens,))) > 1
    for k, part in enumerate(getattr(result.lens, "components", (result.lens,))):
        ends = {name: f"lens.{name}_{k}" if system else f"lens.{name}" for name in part.param_names}
        own = {name: deviations[end] for name, end in ends.items() if end in deviations}
        profile = _profile(profile_of_mass, type(part).__name__, part._described(), own)
        rest += [part] if profile is None else []
        masses += [] if profile is None else [profile]
    if rest:
        masses.append(Profile("PixelatedRegularGridPotential", grid=_potential(rest, result, scale)))
    galaxy = [one for one in masses if one.kind not in FIELDS]
    fields = [one for one in masses if one.kind in FIELDS]
    entities = [Entity("lens galaxy", z_lens, galaxy, _lights(result, scale, deviations))]
    if fields:
        entities.append(Entity("external field", z_lens, fields, galaxy=False))
    return [*entities, Entity("source galaxy", z_source, light=_source(result, scale, deviations))]


def _profile(
    translate: Translate, name: str, values: dict[str, Any], deviations: Deviations
) -> Profile | None:
    """A profile with draws of its parameters; None where the format has none."""
    found = translate(name, values)
    if found is None:
        return None
    kind, numbers = found
    if not deviations:
        return Profile(kind, numbers, fixed=frozenset(numbers))
    columns: dict[str, list[float]] = {key: [] for key in numbers}
    for i in range(DRAWS):
        moved = {key: values[key] + steps[i] for key, steps in deviations.items()}
        drawn = translate(name, {**values, **moved})
        for key, point in numbers.items():
            value = point if drawn is None else drawn[1][key]
            # Angles continue beyond 90 degrees, where they do not jump.
            columns[key].append(point + math.remainder(value - point, 180) if "phi" in key else value)
    draws = {key: np.array(column) for key, column in columns.items()}
    held = frozenset(key for key, column in draws.items() if np.ptp(column) == 0)
    return Profile(kind, numbers, fixed=held, draws={k: v for k, v in draws.items() if k not in held})


def _deviations(result: Any) -> dict[str, NDArray[np.float64]]:
    """Draws of what parameters are off by, by name: of a posterior that was kept, or of the covariance."""
    names = result.covariance_names
    if result.draws is not None:
        values = {parameter_name(one["component"], one["name"]): one["value"] for one in result.parameters}
        drawn = result.draws.resampled(DRAWS).values.T
        return {name: column - values[name] for name, column in zip(result.draws.names, drawn, strict=True)}
    if not names or not np.all(np.isfinite(result.covariance)):
        return {}
    rng = np.random.default_rng(0)
    steps = rng.multivariate_normal(np.zeros(len(names)), result.covariance, DRAWS, check_valid="ignore")
    return dict(zip(names, steps.T, strict=True))


def _potential(parts: list[Any], result: Any, scale: float) -> Grid:
    """Potential of the models that the format does not have, on pixels around the origin."""
    number = math.ceil(max(result.data.shape) * WIDER * FINER)
    axis = (np.arange(number) - (number - 1) / 2) * scale / FINER
    x, y = np.meshgrid(axis, axis)
    return Grid(sum(part.potential(x, y) for part in parts), scale / FINER)


def _lights(result: Any, scale: float, deviations: Deviations) -> list[Profile]:
    """Light of the lens galaxy: Sérsics as such, other profiles on one grid."""
    lights = result.lens_light if isinstance(result.lens_light, tuple) else (result.lens_light,)
    profiles, rest = list[Profile](), list[Any]()
    for k, light in enumerate(one for one in lights if one is not None):
        end = f"_{k}" if len(lights) > 1 else ""
        profile = _light_profile(light, "lens_light", end, deviations)
        rest += [light] if profile is None else []
        profiles += [] if profile is None else [profile]
    if rest:
        number = max(result.data.shape) * FINER
        axis = (np.arange(number) - (number - 1) / 2) * scale / FINER
        places = np.meshgrid(axis, axis)
        values = sum(_plain_brightness(light, *places) for light in rest)
        profiles.append(Profile("PixelatedRegularGrid", grid=Grid(values * scale**2, scale / FINER)))
    return profiles


def _light_profile(light: Any, role: str, end: str, deviations: Deviations) -> Profile | None:
    if not isinstance(light, Sersic):
        return None
    names = {name: f"{role}.{name}{end}" for name in light.param_names}
    own = {name: deviations[key] for name, key in names.items() if key in deviations}
    return _profile(profile_of_light, "Sersic", numbers_of(light), own)


def _plain_brightness(light: Any, x: Any, y: Any) -> NDArray[np.float64]:
    """Brightness per arcsec2 at positions in arcsec, without its unit."""
    units = any(getattr(light, name).unit is not None for name in light.param_names)
    found = light(x * u.arcsec, y * u.arcsec) if units else light(x, y)
    return np.asarray(getattr(found, "value", found), dtype=float)


def _source(result: Any, scale: float, deviations: Deviations) -> list[Profile]:
    """The source: a Sérsic, or the plane of the result, in flux per pixel of the image."""
    profile = _light_profile(result.source_model, "source", "", deviations)
    if profile is not None:
        return [profile]
    if result.source is None:
        return []
    meta = result.source.meta
    centre = float(meta.get("x_0", 0.0)), float(meta.get("y_0", 0.0))
    values = _filled(result.source.data) * scale**2
    return [Profile("PixelatedRegularGrid", grid=Grid(values, float(meta["pixel_scale"]), centre))]


# ---------------------------------------------------------------- reading


def result_from(kind: type, path: Any, scale: int) -> Any:
    """A result from a template of any code, see `~lenssr.SuperResolution.from_coolest`."""
    template = read_template(local_path(path))
    if template.data is None:
        raise InputError(f"{path} holds no data: lenssr.mass.from_coolest reads its lens")
    lens = lens_of(template)
    lights = {"lens": list[Any](), "source": list[Any]()}
    furthest = max((one.redshift for one in template.entities if one.redshift is not None), default=None)
    for entity in template.entities:
        behind = not entity.mass and entity.redshift == furthest
        lights["source" if behind else "lens"] += [_light_model(one, template) for one in entity.light]
    data, sigma, mask = _own_part(template)
    spelled = str(template.meta.get("unit", "electron / s"))
    check_unit_text(spelled, "the unit of the template")
    unit = u.Unit(spelled)
    grid = PixelGrid(data.shape, template.pixel_scale)
    seen = {"lens": lens, "psf": _psf_of(template)}
    parts = {
        "lensed_source": {"source": lights["source"] or None},
        "lens_light_image": {"lens_light": lights["lens"] or None},
    }
    fine, coarse = (_rendered(grid, parts, times, seen) for times in (scale, 1))
    model = sum(coarse.values())
    residual = data - model
    used = ~mask & (sigma > 0)
    chi2 = np.where(used, residual / np.where(sigma > 0, sigma, 1.0), 0.0) ** 2
    images = {name: CCDData(values, unit=unit) for name, values in fine.items()}
    error = StdDevUncertainty(sigma)
    return kind(
        image=CCDData(sum(fine.values()), unit=unit),
        **images,
        source=_source_plane(lights["source"], unit),
        data=CCDData(data, unit=unit, uncertainty=error, mask=mask),
        model_image=CCDData(model, unit=unit),
        residual=CCDData(residual, unit=unit, uncertainty=StdDevUncertainty(sigma), mask=mask),
        chi2_map=chi2,
        reduced_chi2=float(chi2.sum() / max(int(used.sum()), 1)),
        lens=lens,
        source_model=next((one for one in lights["source"] if isinstance(one, Sersic)), None),
        lens_light=_one_or_all(lights["lens"]),
        sky=0.0 * unit,
        sky_error=0.0 * unit,
        grade="doubtful",
        meta={"from": "COOLEST", "pixel_scale": template.pixel_scale, **_plain_meta(template)},
    )


def _plain_meta(template: Template) -> dict[str, Any]:
    return {key: value for key, value in template.meta.items() if isinstance(value, str | int | float)}


def _own_part(template: Template) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Data, errors and mask without what made them square."""
    shape = template.data.shape  # type: ignore[union-attr]
    sigma = np.zeros(shape) if template.sigma is None else template.sigma
    mask = np.zeros(shape, dtype=bool) if template.mask is None else template.mask
    own = template.meta.get("shape")
    if own is None:
        return template.data, sigma, mask  # type: ignore[return-value]
    cuts = tuple(slice((n - k) // 2, (n - k) // 2 + k) for n, k in zip(shape, own, strict=True))
    return template.data[cuts], sigma[cuts], mask[cuts]  # type: ignore[index]


def _light_model(profile: Profile, template: Template) -> Any:
    if profile.grid is not None:
        grid = profile.grid
        values = grid.values / template.pixel_scale**2
        x_0, y_0 = grid.centre
        return PixelatedSource(values, pixel_scale=grid.pixel_scale, x_0=x_0, y_0=y_0)
    _, numbers = light_of(profile.kind, profile.values)
    return Sersic(**numbers)


def _psf_of(template: Template) -> PSF | None:
    psf = template.psf
    if psf is None:
        return None
    if isinstance(psf, float):
        return PSF.from_fwhm(psf * u.arcsec)
    ratio = template.pixel_scale / psf.pixel_scale
    if abs(ratio - round(ratio)) > 1e-3 or round(ratio) < 1:
        raise InputError(f"a PSF with {ratio:.4g} samples along a pixel is refused: give a whole number")
    return PSF(psf.values, oversampling=round(ratio), pixel_scale=template.pixel_scale)


def _rendered(grid: PixelGrid, parts: Any, scale: int, seen: Any) -> dict[str, NDArray[np.float64]]:
    shape = tuple(scale * side for side in grid.shape)
    return {
        name: np.asarray(render(grid, scale=scale, **lights, **seen))
        if any(lights.values())
        else np.zeros(shape)
        for name, lights in parts.items()
    }


def _source_plane(lights: list[Any], unit: u.UnitBase) -> CCDData | None:
    """The source on its grid, where it is one."""
    grids = [one for one in lights if isinstance(one, PixelatedSource)]
    if len(grids) != 1 or len(lights) != 1:
        return None
    (x_0, y_0), one = grids[0].center, grids[0]
    meta = {"x_0": x_0, "y_0": y_0, "pixel_scale": float(one.grid.pixel_scale)}
    return CCDData(one.image.numpy(), unit=unit / u.arcsec**2, meta=meta)


def _one_or_all(lights: list[Any]) -> Any:
    return None if not lights else lights[0] if len(lights) == 1 else tuple(lights)
