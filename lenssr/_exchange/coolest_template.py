"""Templates of COOLEST: built, written and read with the package ``coolest``, which the extra installs.

Every quantity is in arcsec, or in the unit of the image; an image has its first row at the bottom.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from lenssr._files import check_outputs, read_text
from lenssr._limits import quoted
from lenssr.exceptions import InputError

__all__ = ["Entity", "Grid", "Profile", "Template", "read_template", "write_templates"]

MOST_BYTES = 20_000_000
"""Length of a template that is read."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Values on square pixels around a centre (x, y) in arcsec, a file beside the template."""

    values: NDArray[np.float64]
    pixel_scale: float
    centre: tuple[float, float] = (0.0, 0.0)

    def squared(self) -> "Grid":
        """The grid with as many columns as rows: zeros follow above or on the right.

        The package takes the first axis of an image for x, which shows where the sides differ.
        """
        rows, columns = self.values.shape
        side = max(rows, columns)
        values = np.pad(self.values, ((0, side - rows), (0, side - columns)))
        x, y = self.centre
        half = self.pixel_scale / 2
        return Grid(values, self.pixel_scale, (x + (side - columns) * half, y + (side - rows) * half))

    @property
    def fields(self) -> dict[str, Any]:
        """Edges of the grid and its number of pixels, as the package takes them."""
        rows, columns = self.values.shape
        pairs = zip(self.centre, (columns, rows), strict=True)
        edges = [(c - n / 2 * self.pixel_scale, c + n / 2 * self.pixel_scale) for c, n in pairs]
        return {
            "field_of_view_x": tuple(map(float, edges[0])),
            "field_of_view_y": tuple(map(float, edges[1])),
            "num_pix_x": rows,
            "num_pix_y": columns,
        }


@dataclass(frozen=True, eq=False)
class Profile:
    """A profile: its type, and its parameters or its grid.

    ``fixed`` names the parameters that were held; ``draws`` (n,) of the others describe the posterior.
    """

    kind: str
    values: dict[str, float] = field(default_factory=dict)
    grid: Grid | None = None
    fixed: frozenset[str] = frozenset()
    draws: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Entity:
    """A galaxy, or a field of mass, with its profiles."""

    name: str
    redshift: float | None
    mass: Sequence[Profile] = ()
    light: Sequence[Profile] = ()
    galaxy: bool = True


@dataclass(frozen=True, eq=False)
class Template:
    """What a template says: entities, data, noise, mask (True hides a pixel) and PSF."""

    entities: Sequence[Entity]
    pixel_scale: float
    data: NDArray[np.float64] | None = None
    sigma: NDArray[np.float64] | None = None
    mask: NDArray[np.bool_] | None = None
    psf: Grid | float | None = None  # a float is the FWHM of a Gaussian in arcsec
    zero_point: float | None = None
    origin: tuple[str, str] | None = None
    instrument: str = ""
    band: str = ""
    meta: dict[str, Any] = field(default_factory=dict)


def package() -> Any:
    """The package, or an error that says how to install it."""
    try:
        import coolest.template.json
        import coolest.template.standard
    except ImportError as error:
        raise InputError('COOLEST needs the package coolest: pip install "lenssr[coolest]"') from error
    return coolest.template


# ---------------------------------------------------------------- writing


class _Folder:
    """FITS files of one template, written to a temporary folder; names begin with that of the template."""

    def __init__(self, folder: Path, stem: str) -> None:
        self.folder, self.stem, self.names = folder, stem, list[str]()

    def grid(self, end: str, grid: Grid, make: Any) -> Any:
        """Write a grid, and make the package's object of it."""
        name = f"{self.stem}_{end}.fits"
        fits.PrimaryHDU(grid.values).writeto(self.folder / name)
        self.names.append(name)
        return make(name, check_fits_file=False, fits_file_dir=str(self.folder), **grid.fields)


def write_templates(
    templates: Mapping[Path, Template], overwrite: bool, beside: Mapping[Path, Mapping[str, Any]]
) -> None:
    """Write templates of one folder and their files, all of them or none; a template is the last of its own.

    ``beside`` are functions that write further files, by template and the end of their name.
    """
    package()
    check_outputs(list(templates), overwrite)
    first = next(iter(templates))
    with tempfile.TemporaryDirectory(prefix=f".{first.stem}-", dir=first.parent) as name:
        names = list[str]()
        for path, template in templates.items():
            names += _prepared(template, _Folder(Path(name), path.stem), beside[path])
        check_outputs([first.with_name(one) for one in names], overwrite)
        _put(Path(name), names, first.parent)


def _prepared(template: Template, files: _Folder, beside: Mapping[str, Any]) -> list[str]:
    """Names of the files of a template, which are written and checked; the template itself is the last."""
    made = _coolest_object(template, files)
    for end, write in beside.items():
        write(files.folder / f"{files.stem}_{end}")
        files.names.append(f"{files.stem}_{end}")
    _write_draws(template, made, files)
    text = made.to_JSON(exclude_keys=made.exclude_keys)
    (files.folder / f"{files.stem}.json").write_text(text, encoding="utf-8")
    _load(files.folder / f"{files.stem}.json")
    return [*files.names, f"{files.stem}.json"]


def _put(made: Path, names: Sequence[str], folder: Path) -> None:
    """Move files to a folder; if one of them cannot be, all are as before."""
    done = list[str]()
    try:
        for name in names:
            if (folder / name).exists():
                shutil.copy2(folder / name, made / f"{name}.before")
            os.replace(made / name, folder / name)
            done.append(name)
    except OSError as error:
        for one in done:
            if (made / f"{one}.before").exists():
                os.replace(made / f"{one}.before", folder / one)
            else:
                (folder / one).unlink()
        why = error.strerror or error
        raise InputError(f"{folder / name} cannot be written ({why}): give another path") from error


def _coolest_object(template: Template, files: _Folder) -> Any:
    """The package's object of a template."""
    from coolest.template.classes.coordinates import CoordinatesOrigin
    from coolest.template.classes.grid import PixelatedRegularGrid
    from coolest.template.classes.instrument import Instrument
    from coolest.template.classes.lensing_entity_list import LensingEntityList
    from coolest.template.classes.likelihood import ImagingDataLikelihood
    from coolest.template.classes.likelihood_list import DataLikelihoodList
    from coolest.template.classes.noise import Noise, NoiseMap
    from coolest.template.classes.observation import Observation
    from coolest.template.classes.psf import PSF, GaussianPSF, PixelatedPSF
    from coolest.template.standard import COOLEST

    def image(end: str, values: Any) -> Any:
        return files.grid(
            end, Grid(np.asarray(values, dtype=float), template.pixel_scale), PixelatedRegularGrid
        )

    psf = PSF()
    if isinstance(template.psf, Grid):
        psf = PixelatedPSF(files.grid("psf", template.psf.squared(), PixelatedRegularGrid))
    elif template.psf is not None:
        psf = GaussianPSF(template.psf / template.pixel_scale)
    noise = Noise() if template.sigma is None else NoiseMap(image("noise", template.sigma))
    observation = Observation(image("data", template.data), noise=noise, mag_zero_point=template.zero_point)
    likelihoods = None
    if template.mask is not None:
        likelihoods = DataLikelihoodList(ImagingDataLikelihood(image("mask", ~template.mask)))
    entities = [_entity(one, k, files) for k, one in enumerate(template.entities)]
    return COOLEST(
        "MAP",
        CoordinatesOrigin(*(template.origin or ())),
        LensingEntityList(*entities),
        observation,
        Instrument(template.pixel_scale, template.instrument, template.band, psf=psf),
        likelihoods=likelihoods,
        metadata=dict(template.meta),
    )


def _entity(entity: Entity, number: int, files: _Folder) -> Any:
    from coolest.template.classes.galaxy import Galaxy
    from coolest.template.classes.mass_field import MassField
    from coolest.template.classes.mass_light_model import LightModel, MassModel

    models: dict[str, Any] = {"mass_model": MassModel(*(one.kind for one in entity.mass))}
    if entity.galaxy:
        models["light_model"] = LightModel(*(one.kind for one in entity.light))
    for key, profiles in (("mass_model", entity.mass), ("light_model", entity.light)):
        for place, profile in enumerate(profiles):
            _set(models[key][place], profile, f"{number}_{key.split('_')[0]}_{place}", files)
    return (Galaxy if entity.galaxy else MassField)(entity.name, entity.redshift, **models)


def _set(made: Any, profile: Profile, end: str, files: _Folder) -> None:
    """Give the package's profile its values, and what is known of their errors."""
    from coolest.template.classes.grid import PixelatedRegularGrid
    from coolest.template.classes.probabilities import PosteriorStatistics

    if profile.grid is not None:
        made.parameters["pixels"] = files.grid(end, profile.grid.squared(), PixelatedRegularGrid)
    for name, value in profile.values.items():
        parameter = made.parameters[name]
        parameter.set_point_estimate(float(value))
        parameter.fixed = name in profile.fixed
        if name in profile.draws:
            draws = profile.draws[name]
            numbers = [draws.mean(), *np.percentile(draws, [50, 16, 84])]
            parameter.set_posterior(PosteriorStatistics(*map(float, numbers)))


def _write_draws(template: Template, made: Any, files: _Folder) -> None:
    """Write draws of the posterior as the package reads them: a column for each parameter, and weights."""
    columns: dict[str, NDArray[np.float64]] = {}
    for entity, theirs in zip(template.entities, made.lensing_entities, strict=True):
        for profiles, models in ((entity.mass, theirs.mass_model), (entity.light, _light(theirs))):
            for profile, model in zip(profiles, models, strict=True):
                columns |= {model.parameters[name].id: draws for name, draws in profile.draws.items()}
    if not columns:
        return
    number = len(next(iter(columns.values())))
    columns |= {
        parameter.id: np.full(number, parameter.point_estimate.value)
        for parameter in made.lensing_entities.get_parameters()
        if hasattr(parameter, "point_estimate") and parameter.id not in columns
    }
    columns["probability_weights"] = np.full(number, 1 / number)
    name = f"{files.stem}_chain.csv"
    table = np.stack(list(columns.values()), axis=1)
    np.savetxt(files.folder / name, table, delimiter=",", header=",".join(columns), comments="", fmt="%.10g")
    files.names.append(name)
    made.meta["chain_file_name"] = name


def _light(entity: Any) -> Any:
    return getattr(entity, "light_model", ())


# ---------------------------------------------------------------- reading


def _load(path: Path) -> Any:
    """Read and check a template with the package's own loader; nothing in a file is run."""
    serializer = package().json.JSONSerializer(
        str(path.with_suffix("").absolute()), check_external_files=True
    )
    try:
        # Its default would run code from a file named _pyAPI beside the template.
        return serializer.load(skip_jsonpickle=True, validate=True, verbose=False)
    except Exception as error:  # whatever the loader finds wrong
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{path} is not a template of COOLEST ({why}): give its .json file") from error


def read_template(path: Path) -> Template:
    """Read a template of any code, and the files beside it; `InputError` if it is damaged."""
    path = path if path.suffix == ".json" else path.with_name(f"{path.name}.json")
    try:
        return _read(path)
    except InputError:
        raise
    except Exception as error:  # whatever the package makes of values that mean nothing
        why = f"{type(error).__name__}: {error}"
        raise InputError(f"{path} is not a template of COOLEST ({why}): give its .json file") from error


def _read(path: Path) -> Template:
    text = json.loads(read_text(path, MOST_BYTES))
    _check_names(text, path.parent)
    made = _load(path)
    held = {one["id"]: bool(one.get("fixed")) for one in _parameters(text) if one.get("id")}
    folder = path.parent
    observation, psf = made.observation, made.instrument.psf
    data = _pixels(observation.pixels, folder)
    scale = float(made.instrument.pixel_size)
    mask = None
    if made.likelihoods:
        mask = np.asarray(made.likelihoods[0].get_mask_pixels(directory=str(folder))) == 0
    return Template(
        [_read_entity(one, held, folder) for one in made.lensing_entities],
        scale,
        None if data is None else data.values,
        _sigma(observation.noise, data, folder),
        mask,
        _pixels(psf.pixels, folder) if psf.type == "PixelatedPSF" else _width(psf, scale),
        observation.mag_zero_point,
        (made.coordinates_origin.ra, made.coordinates_origin.dec),
        made.instrument.name or "",
        made.instrument.band or "",
        dict(made.meta),
    )


def _check_names(text: Any, folder: Path) -> None:
    """Refuse names of files that are not in the template's folder."""
    if isinstance(text, dict):
        name = text.get("path")
        if isinstance(name, str) and Path(name).name != name:
            raise InputError(
                f"the template names {quoted(name)}: its files have to lie beside it, in {folder}"
            )
    for one in text.values() if isinstance(text, dict) else text if isinstance(text, list) else ():
        _check_names(one, folder)


def _parameters(text: Any) -> list[dict[str, Any]]:
    """Parameters of all profiles of a template, as they stand in the file."""
    profiles = [
        profile
        for entity in text["lensing_entities"]
        for key in ("mass_model", "light_model")
        for profile in entity.get(key, ())
    ]
    return [one for profile in profiles for one in profile["parameters"].values()]


def _width(psf: Any, pixel_scale: float) -> float | None:
    return float(psf.fwhm) * pixel_scale if psf.type == "GaussianPSF" else None


def _pixels(grid: Any, folder: Path) -> Grid | None:
    """Values of the package's grid; None where it has no file."""
    if grid is None or grid.fits_file.path is None:
        return None
    values = np.asarray(grid.get_pixels(directory=str(folder)), dtype=float)
    (left, right), (low, high) = grid.field_of_view_x, grid.field_of_view_y
    centre = (float(left) + float(right)) / 2, (float(low) + float(high)) / 2
    return Grid(values, abs(float(right) - float(left)) / values.shape[1], centre)


def _sigma(noise: Any, data: Grid | None, folder: Path) -> NDArray[np.float64] | None:
    if noise.type == "NoiseMap":
        grid = _pixels(noise.noise_map, folder)
        return None if grid is None else grid.values
    if noise.type == "UniformGaussianNoise" and data is not None:
        return np.full(data.values.shape, float(noise.std_dev))
    return None


def _read_entity(entity: Any, held: Mapping[str, bool], folder: Path) -> Entity:
    mass = [_read_profile(one, held, folder) for one in entity.mass_model]
    light = [_read_profile(one, held, folder) for one in _light(entity)]
    return Entity(entity.name, entity.redshift, mass, light, entity.type == "Galaxy")


def _read_profile(profile: Any, held: Mapping[str, bool], folder: Path) -> Profile:
    if "Grid" in profile.type:
        if profile.type not in ("PixelatedRegularGrid", "PixelatedRegularGridPotential"):
            raise InputError(f"a {profile.type} of COOLEST has no counterpart here: give a regular grid")
        grid = _pixels(profile.parameters["pixels"], folder)
        if grid is None:
            raise InputError(f"{profile.id}: its grid has no file, give one beside the template")
        return Profile(profile.type, grid=grid)
    values = {name: one.point_estimate.value for name, one in profile.parameters.items()}
    missing = [name for name, value in values.items() if value is None]
    if missing:
        raise InputError(f"{profile.id}: {missing[0]} has no value in the template: give one")
    fixed = frozenset(name for name, one in profile.parameters.items() if held.get(one.id))
    return Profile(profile.type, values, fixed=fixed)
