"""The row of a lens in the catalogue: its columns, with units and descriptions, and their values.

What concerns one image stands by band: ``source_flux_F606W``; where the band of the only image has no name,
``source_flux``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lenssr.cosmology import einstein_mass, velocity_dispersion
from lenssr.exceptions import short_line
from lenssr.grids import frame_axes
from lenssr.result.magnitudes import flux_of, magnitude_of
from lenssr.survey.lens_list import ListedLens

if TYPE_CHECKING:
    from lenssr.result import SuperResolution

__all__ = ["COLUMNS", "Column", "columns_for", "failed_row", "grade_of", "row_of"]


@dataclass(frozen=True)
class Column:
    """A column of the catalogue."""

    name: str
    description: str
    unit: str = ""
    kind: type = float
    by_band: bool = False
    redshifts: bool = False  # whether it is there only where the catalogue has redshifts


def _with_error(name: str, description: str, unit: str = "", **more: Any) -> tuple[Column, Column]:
    error = Column(f"{name}_err", f"standard error of {name}", unit, **more)
    return Column(name, description, unit, **more), error


# Errors are conditional on the model.
COLUMNS: tuple[Column, ...] = (
    Column("id", "name of the lens in the input", kind=str),
    Column("ra", "right ascension (ICRS), of the input, else of the image centre", "deg"),
    Column("dec", "declination (ICRS), of the input, else of the image centre", "deg"),
    Column("bands", "bands of the lens, with commas", kind=str),
    Column("grade", "verdict on the result; failed where there is none", kind=str),
    Column("flags", "names of what is wrong or doubtful, with commas", kind=str),
    *_with_error("R_E", "effective Einstein radius: that of the area inside the critical curve", "arcsec"),
    *_with_error("theta_E", "Einstein radius of the main component, product average", "arcsec"),
    *_with_error("q", "axis ratio of the mass, minor over major"),
    *_with_error("phi", "major axis of the mass, counter-clockwise from +x of the image", "deg"),
    Column("position_angle", "major axis of the mass, east of north", "deg"),
    *_with_error("slope", "logarithmic slope of the mass density, 2 for isothermal"),
    *_with_error("shear", "modulus of the external shear"),
    *_with_error("shear_phi", "direction of the shear, counter-clockwise from +x of the image", "deg"),
    Column("shear_position_angle", "direction of the shear, east of north", "deg"),
    *_with_error("x_0", "centre of the mass to the right of the image centre", "arcsec"),
    *_with_error("y_0", "centre of the mass above the image centre", "arcsec"),
    *_with_error("magnification", "flux of the lensed source over that of the source, before the PSF"),
    Column("einstein_mass", "mass inside R_E", "solMass", redshifts=True),
    Column("einstein_mass_err", "standard error of einstein_mass", "solMass", redshifts=True),
    *_with_error("velocity_dispersion", "that of an isothermal lens of R_E", "km / s", redshifts=True),
    Column("z_lens", "redshift of the lens, of the input", redshifts=True),
    Column("z_source", "redshift of the source, of the input", redshifts=True),
    Column("reduced_chi2", "sum of squared residuals over noise, per degree of freedom"),
    Column("file", "the image", kind=str, by_band=True),
    Column("flux_unit", "unit of the fluxes", kind=str, by_band=True),
    Column("source_flux", "flux of the source, not lensed, in flux_unit", by_band=True),
    Column("source_magnitude", "AB magnitude of the source, not lensed", "mag", by_band=True),
    Column("lensed_source_magnitude", "AB magnitude of the lensed source", "mag", by_band=True),
    *_with_error("source_r_eff", "effective radius of the source, semi-major axis", "arcsec", by_band=True),
    *_with_error("source_n", "Sersic index of the source", by_band=True),
    Column("lens_light_flux", "flux of the light of the lens, in flux_unit", by_band=True),
    Column("lens_light_magnitude", "AB magnitude of the light of the lens", "mag", by_band=True),
    Column("seconds", "wall time for the lens, files included", "s"),
    Column("memory", "peak memory of its process", "Mbyte"),
    Column("attempts", "how often it was tried", kind=int),
    Column("host", "machine", kind=str),
    Column("finished", "when it was done, UTC", kind=str),
    Column("versions", "of lenssr, torch, numpy and astropy", kind=str),
    Column("product", "result file, relative to the catalogue", kind=str),
    Column("figure", "figure, relative to the catalogue", kind=str),
    Column("thumbnail", "data, lens subtracted, super-resolved image and source in one strip", kind=str),
    Column("stage", "where it failed: reading, solving, time limit, memory limit, process", kind=str),
    Column("failure", "why it failed, in one line", kind=str),
)


def band_name(name: str, band: str) -> str:
    """Name of the column of a quantity in a band."""
    return f"{name}_{band}" if band else name


def columns_for(bands: Sequence[str], redshifts: bool) -> list[Column]:
    """Columns of a catalogue of lenses with images in these bands."""
    found = []
    for column in COLUMNS:
        if column.by_band:
            found += [replace(column, name=band_name(column.name, band)) for band in bands]
        elif redshifts or not column.redshifts:
            found.append(column)
    return found


# ---------------------------------------------------------------- rows


def grade_of(result: SuperResolution) -> str:
    """The verdict in a word."""
    return result.grade


def failed_row(lens: ListedLens, stage: str, error: Any) -> dict[str, Any]:
    """The row of a lens without a result."""
    return _of_input(lens) | {"grade": "failed", "flags": "failed", "stage": stage, "failure": _reason(error)}


def _reason(error: Any) -> str:
    told = short_line(error) if str(error) else ""
    named = isinstance(error, Exception) and type(error).__name__ != "InputError"
    return f"{type(error).__name__}: {told}" if named else told


def row_of(lens: ListedLens, result: SuperResolution) -> dict[str, Any]:
    """The row of a lens with its result; what is not known is left out."""
    row = _of_input(lens) | {
        "grade": grade_of(result),
        "flags": ",".join(result.flags),
        "R_E": result.R_E.value,
        "R_E_err": result.R_E_error.value,
        "magnification": result.magnification,
        "magnification_err": result.magnification_error,
        "reduced_chi2": result.reduced_chi2,
        "versions": ", ".join(f"{k} {v}" for k, v in result.meta.get("versions", {}).items()),
        "failure": "",
        "stage": "",
    }
    if math.isnan(lens.ra):
        row |= _place_of(result)
    if result.lens is not None:
        row |= dict(_of_lens(result))
    row |= _of_redshifts(lens, row)
    for band in lens.files:
        of_band = result[band] if hasattr(result, "bands") else result
        row |= {band_name(name, band): value for name, value in _of_band(of_band)}
    return {name: _json(value) for name, value in row.items()}


def _of_input(lens: ListedLens) -> dict[str, Any]:
    """What the input says of a lens."""
    row = {"id": lens.id, "ra": lens.ra, "dec": lens.dec, "bands": ",".join(filter(None, lens.files))}
    row |= {band_name("file", band): path for band, path in lens.files.items()}
    return row | {"z_lens": lens.z_lens, "z_source": lens.z_source}


def _json(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    return value


def _place_of(result: SuperResolution) -> dict[str, float]:
    """Where the centre of the image is on the sky."""
    wcs = result.data.wcs
    if wcs is None or not wcs.has_celestial:
        return {}
    ny, nx = result.data.shape
    place = wcs.celestial.pixel_to_world((nx - 1) / 2, (ny - 1) / 2).icrs
    return {"ra": float(place.ra.deg), "dec": float(place.dec.deg)}


def _of_lens(result: SuperResolution) -> Iterator[tuple[str, float]]:
    """Parameters of the main component, and the shear."""
    parts = getattr(result.lens, "components", (result.lens,))
    main = next((part for part in parts if "x_0" in part.param_names and not _is_shear(part)), parts[0])
    for name, parameter in (("theta_E", "theta_E"), ("slope", "gamma"), ("x_0", "x_0"), ("y_0", "y_0")):
        if parameter in main.param_names:
            found = getattr(main, parameter)
            yield name, found.value
            yield f"{name}_err", math.nan if found.std is None else found.std
    if "gamma" not in main.param_names and type(main).__name__ in ("SIE", "SIS"):
        yield "slope", 2.0
    if "e1" in main.param_names:
        modulus, error, angle, angle_error = _polar(main, "e1", "e2")
        yield "q", (1 - modulus) / (1 + modulus)
        yield "q_err", 2 * error / (1 + modulus) ** 2
        yield "phi", angle
        yield "phi_err", angle_error
        yield "position_angle", _on_sky(result, angle)
    shear = next((part for part in parts if _is_shear(part)), None)
    if shear is not None:
        names = ("shear", "shear_err", "shear_phi", "shear_phi_err")
        values = _polar(shear, "gamma1", "gamma2")
        yield from zip(names, values, strict=True)
        yield "shear_position_angle", _on_sky(result, values[2])


def _is_shear(part: Any) -> bool:
    return "gamma1" in part.param_names


def _polar(part: Any, first: str, second: str) -> tuple[float, float, float, float]:
    """Modulus and direction (degrees) of a spin-2 pair, each with its error by linear propagation."""
    a, b = getattr(part, first), getattr(part, second)
    modulus = math.hypot(a.value, b.value)
    angle = math.degrees(0.5 * math.atan2(b.value, a.value))
    if modulus == 0 or a.std is None or b.std is None:
        return modulus, math.nan, angle, math.nan
    covariance = np.diag([a.std**2, b.std**2])
    if part.covariance is not None:
        where = [part.param_names.index(first), part.param_names.index(second)]
        covariance = np.asarray(part.covariance)[np.ix_(where, where)]
    along = np.array([a.value, b.value]) / modulus
    across = np.array([-b.value, a.value]) / modulus**2
    errors = [math.sqrt(max(float(g @ covariance @ g), 0.0)) for g in (along, across)]
    return modulus, errors[0], angle, math.degrees(0.5 * errors[1])


def _on_sky(result: SuperResolution, phi: float) -> float:
    """Angle in degrees east of north, in 0 to 180, of one from +x of the image."""
    wcs = result.data.wcs
    if wcs is None or not wcs.has_celestial:
        return math.nan
    turn = math.radians(phi)
    east, north = frame_axes(wcs.celestial) @ np.array([math.cos(turn), math.sin(turn)])
    return math.degrees(math.atan2(east, north)) % 180


def _of_redshifts(lens: ListedLens, row: dict[str, Any]) -> dict[str, float]:
    """Mass and velocity dispersion of the Einstein radius, with errors of R_E alone."""
    redshifts = {"z_lens": lens.z_lens, "z_source": lens.z_source}
    radius, share = row["R_E"], row["R_E_err"] / row["R_E"] if row["R_E"] > 0 else math.nan
    if not radius > 0 or not all(map(math.isfinite, redshifts.values())):
        return {}
    mass = einstein_mass(radius, **redshifts).value
    speed = velocity_dispersion(radius, **redshifts).value
    return {
        "einstein_mass": mass,
        "einstein_mass_err": 2 * share * mass,  # it goes with the square of the radius
        "velocity_dispersion": speed,
        "velocity_dispersion_err": 0.5 * share * speed,
    }


def _of_band(result: SuperResolution) -> Iterator[tuple[str, Any]]:
    """What concerns one image."""
    yield "flux_unit", result.data.unit.to_string()
    yield "source_flux", flux_of(result, "source")
    yield "source_magnitude", magnitude_of(result, "source")
    yield "lensed_source_magnitude", magnitude_of(result, "lensed_source")
    rows = {row["name"]: row for row in result.parameters if row["component"] == "source"}
    for name in ("r_eff", "n"):
        if name in rows:
            yield f"source_{name}", float(rows[name]["value"])
            yield f"source_{name}_err", float(rows[name]["error"])
    if result.lens_light is not None:
        yield "lens_light_flux", flux_of(result, "lens_light")
        yield "lens_light_magnitude", magnitude_of(result, "lens_light")
