"""The FITS form of a `~lenssr.SuperResolution`: one multi-extension file that gives everything back.

Every image goes into an HDU of its own with BUNIT and WCS, for viewers; every model parameter into a row of
the LENS table, for people; and what neither can hold (units that FITS cannot spell, settings, headers of the
input, the models to the last digit) as JSON into the META table, for `read`. Nothing is pickled.
"""

import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.table import QTable, Table
from astropy.wcs import WCS, FITSFixedWarning

from lenssr._files import atomic, package_version
from lenssr._limits import check_unit_text
from lenssr._quiet import quiet
from lenssr._wcs import scale_matrix
from lenssr.exceptions import InputError
from lenssr.imaging.fits_checks import read_checked, same_hdus
from lenssr.imaging.provenance import iso_date, provenance_cards
from lenssr.light import from_dict as light_from_dict
from lenssr.light.lens_light import plain_light
from lenssr.mass import from_dict as mass_from_dict
from lenssr.result.grade import grade_told
from lenssr.result.hdus import ImageExtension, cards_text, mark_long, write_hdus
from lenssr.result.magnitudes import PARTS, magnitude_of
from lenssr.result.stored_posterior import DRAWN_PLANES, StoredPosterior, draws_of, draws_table, plain_draws
from lenssr.result.text import is_model

# Layout 1 held the models in the LENS table alone; from layout 3 on every HDU has CHECKSUM and DATASUM, and
# META lists them all.
FILE_VERSION, FIRST_WITH_SUMS = 3, 3

# A FITS comment holds 72 characters.
ERRORS_NOTE = "Errors are conditional on the model and correlated between pixels."
MODEL_NOTE = "SCI is a model image at the finer sampling, not a measurement."
FAMILY_NOTE = "MAGNIF, size and flux of SOURCE are conditional on the mass family."
INTERPOLATED_NOTE = "SCI is interpolated, without a model: it holds no more than the input."

# Settings whose names are longer than the 8 characters of a FITS keyword.
KEYWORDS = {
    "converged": "CONVERGD",
    "instrument": "INSTRUME",
    "iterations": "NITER",
    "lens_light": "LENSLITE",
    "oversampling": "OVERSAMP",
    "pixel_scale": "PIXSCALE",
    "telescope": "TELESCOP",
    "zero_point": "ZEROPNT",
}

# Keywords that describe the file itself: no meta may set them.
STRUCTURAL = frozenset(
    "SIMPLE XTENSION BITPIX NAXIS EXTEND PCOUNT GCOUNT BSCALE BZERO BLANK BUNIT EXTNAME EXTVER EXTLEVEL "
    "COMMENT HISTORY END CHECKSUM DATASUM MODELIMG".split()
)
# Tables and input planes follow the other planes in this order; all other HDUs come last.
LATER = ("PSF", "LENS", "DATA", "NOISE", "CHI2", "COVARIANCE", "PARAMETERS")
# Fields that META holds as they are.
EXACT = "reduced_chi2 sky sky_error covariance_names flags magnification magnification_error meta".split()
# Those that only results of two sources have.
OF_TWO = ("second_magnification", "second_magnification_error")
# Ends of the names of files that are FITS.
SUFFIXES = (".fits", ".fit", ".fts")
# Columns of the LENS table, one row a parameter; ``key`` is its name in COVARIANCE and DRAWS.
LENS_COLUMNS = {"component": str, "model": str, "name": str, "value": float, "error": float}
LENS_COLUMNS |= {"unit": str, "fixed": bool, "lower": float, "upper": float, "key": str}

# ---------------------------------------------------------------- planes of a result


@dataclass(frozen=True)
class Plane:
    """The FITS form of one field that is an image."""

    hdu: str  # names of the HDUs of a `~astropy.nddata.CCDData`
    error: str
    mask: str
    psf: str
    comment: str
    beside: bool = False  # whether error and mask follow the image, rather than come at the end of the file
    array: bool = False  # an array has the first HDU only,
    wcs_of: str | None = None  # and the WCS of this field


def plane(hdu, comment, *, default=MISSING, error=None, mask=None, psf=None, **more):
    """Declare a field of a dataclass as a plane; its error is ``{hdu}_ERR``, and so on, unless given."""
    names = (given or f"{hdu}_{end}" for given, end in ((error, "ERR"), (mask, "MASK"), (psf, "PSF")))
    factory = {"default_factory": default} if callable(default) else {"default": default}
    return field(**factory, metadata={"plane": Plane(hdu, *names, comment, **more)})


def planes_of(result):
    """The planes of a result or its class by field, in the order of their declaration."""
    return {one.name: one.metadata["plane"] for one in fields(result) if "plane" in one.metadata}


# ---------------------------------------------------------------- writing


def check_name(path):
    """Refuse a name that does not end as that of a FITS file, which other programs would not open."""
    name = Path(path).name.lower().removesuffix(".gz")
    if not Path(path).is_dir() and not name.endswith(SUFFIXES):
        raise InputError(f"{path} does not end in .fits: results are FITS files, give such a name")


def write(result, path, overwrite):
    """Write a result: all of it, or nothing."""
    check_name(path)
    with atomic(path, overwrite) as temporary:
        write_hdus(result_hdus(result), temporary)


def result_hdus(result):
    """List the HDUs of a result: images are `ImageExtension`, the others those of astropy."""
    planes, wcs_texts = planes_of(result), _WCSTexts()
    hdus = [hdu for name, plane in planes.items() for hdu in _plane_hdus(result, name, plane, wcs_texts)]
    models = {"lens": result.lens, "source": result.source_model, "lens_light": result.lens_light}
    if result.second_source_model is not None:
        models["second_source"] = result.second_source_model
    plain = {"lens": None if result.lens is None else result.lens._plain()}
    plain |= {label: plain_light(model) for label, model in models.items() if label != "lens"}
    arrays = []
    exact = {**_exact(result), "models": _without_arrays(plain, arrays)}
    if hasattr(result.posterior, "plain"):
        exact["posterior"] = _without_arrays(result.posterior.plain(), arrays)
    if result.draws is not None:
        exact["draws"], of_draws = plain_draws(result.draws)
        hdus += [_image_hdu(array, name, comment, unit=unit) for name, array, comment, unit in of_draws]
    hdus += [_image_hdu(array, f"ARRAY.{number}") for number, array in enumerate(arrays)]
    hdus += list(_by_rule(hdus, planes))
    verdict_cards(next(hdu for hdu in hdus if hdu.name == "SCI").header, result)
    _add_provenance(hdus, result)
    parameters = Table(result.parameters, copy=True)
    parameters.meta.clear()
    tables = {"LENS": lens_table(models), "PARAMETERS": parameters}
    if result.draws is not None:
        tables["DRAWS"] = draws_table(result.draws)
    exact["hdus"] = {hdu.name: list(hdu.shape) for hdu in hdus} | {
        name: len(one) for name, one in tables.items()
    }
    text = Table({"key": list(exact), "json": [json.dumps(one, default=encoded) for one in exact.values()]})
    tables["META"] = text
    hdus += [fits.BinTableHDU(table, name=name) for name, table in tables.items()]
    order = _order(planes)
    hdus.sort(key=lambda hdu: order.index(hdu.name) if hdu.name in order else len(order))
    return [primary_hdu(result), *hdus]


def _add_provenance(hdus, result):
    """Say in the headers of images where the input comes from, where nothing is said yet."""
    cards = {card[0]: cards_text(fits.Header([card])) for card in provenance_cards(result.meta)}
    for hdu in hdus:
        hdu.after = "".join(
            text for name, text in cards.items() if name not in hdu.header and f"{name:8}=" not in hdu.before
        )


def _by_rule(hdus, planes):
    """Copies of errors and masks with names of their own, under ``{hdu}_ERR`` and ``{hdu}_MASK``.

    ``CCDData.read`` finds those of any plane by one rule then.
    """
    found = {hdu.name: hdu for hdu in hdus}
    for one in planes.values():
        for name, end in ((one.error, "ERR"), (one.mask, "MASK")):
            if not one.array and name in found and name != f"{one.hdu}_{end}":
                yield replace(found[name], name=f"{one.hdu}_{end}")


def _order(planes):
    """Names of the HDUs that come first, in order."""
    together = [(one.hdu, one.error, one.mask) if one.beside else (one.hdu,) for one in planes.values()]
    return [name for names in together for name in names if name not in LATER] + list(LATER)


def _plane_hdus(result, name, plane, wcs_texts):
    """List the HDUs of one plane; none where the result lacks it."""
    value = getattr(result, name)
    if value is None or not np.size(value if plane.array else value.data):
        return []
    if plane.array:
        wcs = None if plane.wcs_of is None else getattr(result, plane.wcs_of).wcs
        return [_image_hdu(value, plane.hdu, plane.comment, before=wcs_texts[wcs])]
    before = wcs_texts[value.wcs]
    hdus = [_image_hdu(value.data, plane.hdu, plane.comment, before=before, unit=value.unit)]
    meta_cards(hdus[0].header, value.meta, before)
    if value.uncertainty is not None:
        std = value.uncertainty.represent_as(StdDevUncertainty)
        seen = {"before": before, "unit": std.unit or value.unit}
        hdus.append(_image_hdu(std.array, plane.error, f"1 sigma of {plane.hdu}", **seen))
    if value.mask is not None:
        bad = np.broadcast_to(np.asarray(value.mask, dtype=bool), value.shape)
        why = "is prior, not data" if name == "source" else "has no data"
        hdus.append(_image_hdu(bad, plane.mask, f"1 where {plane.hdu} {why}", before=before))
    if value.psf is not None:
        hdus.append(_image_hdu(value.psf, plane.psf, f"point spread function of {plane.hdu} at its sampling"))
    return hdus


def _image_hdu(array, name, comment="", *, before="", unit=None):
    # Readers take an empty BUNIT for a missing one.
    header = fits.Header([("BUNIT", (unit and unit.to_string()) or "1", "unit of the pixels")])
    if comment:
        header["CONTENT"] = comment
    return ImageExtension(name, np.asarray(array), header, before)


class _WCSTexts(dict):
    """Text of the cards of each WCS, made once; that of None is empty."""

    def __missing__(self, wcs):
        self[wcs] = "" if wcs is None else cards_text(wcs_cards(wcs))
        return self[wcs]


def _exact(result):
    """Collect what the images and tables cannot hold."""
    exact = {name: getattr(result, name) for name in (*EXACT, "grade")}
    if result.second_source is not None:
        exact |= {name: getattr(result, name) for name in OF_TWO}
    # The time stands in the first header alone, so that a second run writes the same table.
    exact["meta"] = {key: value for key, value in exact["meta"].items() if key != "seconds"}
    for name, plane in planes_of(result).items():
        image = getattr(result, name)
        if image is not None and not plane.array:
            exact |= {f"{name}.meta": image.meta, f"{name}.unit": image.unit.to_string()}
    return exact | {"parameters.meta": result.parameters.meta}


def _without_arrays(plain, arrays):
    """Plain data with its arrays moved to a list; ``{"__array__": number}`` takes the place of each."""
    if isinstance(plain, dict):
        return {key: _without_arrays(value, arrays) for key, value in plain.items()}
    if isinstance(plain, list):
        return [_without_arrays(value, arrays) for value in plain]
    if not isinstance(plain, np.ndarray):
        return plain
    arrays.append(plain)
    return {"__array__": len(arrays) - 1}


def lens_table(models):
    """The LENS table of models by label; parts of a system or tuple are ``lens.0``, ``lens.1``, ..."""
    rows = []
    for label, model in models.items():
        parts = getattr(model, "components", model)
        if isinstance(parts, list | tuple):
            numbered = [(f"{label}.{i}", part, f"_{i}") for i, part in enumerate(parts)]
            rows += [
                (*row, f"{label}.{row[2]}{end}") for at, part, end in numbered for row in _lens_rows(at, part)
            ]
        elif model is not None:
            rows += [(*row, f"{label}.{row[2]}") for row in _lens_rows(label, model)]
    return Table(rows=rows or None, names=list(LENS_COLUMNS), dtype=list(LENS_COLUMNS.values()))


def _lens_rows(label, model):
    for name in model.param_names:
        one = getattr(model, name)
        error = np.nan if one.std is None else float(one.std)
        unit = "" if one.unit is None else one.unit.to_string()
        lower, upper = one.bounds
        ends = -np.inf if lower is None else float(lower), np.inf if upper is None else float(upper)
        yield (label, type(model).__name__, name, float(one.value), error, unit, bool(one.fixed), *ends)


# ---------------------------------------------------------------- reading


def read(path, kind):
    """Read a result of a kind, `~lenssr.SuperResolution` or a subclass; `InputError` if it is not one."""
    content, number = read_checked(path)
    try:
        with fits.open(content, memmap=False, lazy_load_hdus=False) as hdulist:
            same_hdus(path, hdulist, number)
            return from_hdulist(path, hdulist, kind)
    except InputError as error:
        raise InputError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from error
    except Exception as error:  # whatever astropy, JSON and the models make of a damaged file
        why = f"{type(error).__name__}: {error}"
        raise InputError(f"{path} cannot be read as a lenssr result ({why}): write it again") from error


def from_hdulist(path, hdulist, kind):
    """Make a result of a kind of the HDUs of a file."""
    version = hdulist[0].header.get("FILEVER")
    if "BANDS_META" in hdulist:
        raise InputError(f"{path} holds several bands: read it by lenssr.result.BandsResolution.read")
    if not isinstance(version, int) or "META" not in hdulist:
        raise InputError(f"{path} was not written by lenssr: give a file from SuperResolution.write")
    if version > FILE_VERSION:
        raise InputError(f"{path} has layout {version}, newer than {FILE_VERSION}: update lenssr")
    told = hdulist["META"].data
    exact = {str(row["key"]): json.loads(str(row["json"]), object_hook=decoded) for row in told}
    if version >= FIRST_WITH_SUMS:
        _check_whole(hdulist, exact["hdus"])
    return kind(**_fields(hdulist, kind, exact))


def _check_whole(hdulist, listed):
    """Refuse a file that lacks an HDU or its sums, or holds one of another shape than its list says."""
    sizes = {hdu.name: list(hdu.shape) if hdu.is_image else len(hdu.data) for hdu in hdulist[1:]}
    for name, size in listed.items():
        if name not in sizes:
            raise InputError(f"the HDU {name} is missing: get the file again")
        if sizes[name] != size:
            raise InputError(f"the HDU {name} has the size {sizes[name]}, not {size}: get the file again")
    more = sizes.keys() - listed.keys() - {"META"}
    if more or len(sizes) != len(hdulist) - 1:
        raise InputError(f"the HDU {min(more, default='META')} is not in the list of the file: take it out")
    bare = next((hdu.name for hdu in hdulist if not {"CHECKSUM", "DATASUM"} <= set(hdu.header)), None)
    if bare is not None:
        raise InputError(f"the HDU {bare or 'PRIMARY'} has no CHECKSUM or DATASUM: get the file again")


def _fields(hdulist, kind, exact):
    arrays = {hdu.name[6:].lower(): _native(hdu.data) for hdu in hdulist if hdu.name.startswith("ARRAY.")}
    models = _models(hdulist, exact["models"], arrays)
    planes = {
        name: _native(hdulist[plane.hdu].data) if plane.array else _ccddata(hdulist, name, plane, exact)
        for name, plane in planes_of(kind).items()
        if plane.hdu in hdulist
    }
    table = QTable(hdulist["PARAMETERS"].data, meta=exact["parameters.meta"])
    for name, column in table.columns.items():
        table[name] = column.astype(str) if column.dtype.kind in "SU" else _native(column)
    told = {name: exact[name] for name in EXACT} | {"grade": grade_told(exact)}
    told |= {name: tuple(told[name]) for name in ("covariance_names", "flags")}
    if "SECONDS" in hdulist[0].header:
        told["meta"].setdefault("seconds", hdulist[0].header["SECONDS"])
    told |= {"lens": models["lens"], "source_model": models["source"], "lens_light": models["lens_light"]}
    told |= {"second_source_model": models.get("second_source")}
    told |= {name: exact[name] for name in OF_TWO if name in exact}
    if exact.get("posterior") is not None:
        told["posterior"] = StoredPosterior(_with_arrays(exact["posterior"], arrays))
    if "draws" in exact:
        names = ("DRAWS", *DRAWN_PLANES.values())
        found = {name: _native(hdulist[name].data) for name in names if name in hdulist}
        told["draws"] = draws_of(exact["draws"], found)
    return planes | told | {"parameters": table}


def _native(array):
    array = np.asarray(array)
    return array.astype(array.dtype.newbyteorder("="))


def _ccddata(hdulist, name, plane, exact):
    header = hdulist[plane.hdu].header
    names = plane.error, plane.mask, plane.psf
    std, bad, psf = (_native(hdulist[one].data) if one in hdulist else None for one in names)
    shape = hdulist[plane.hdu].shape
    for one, values in zip(names[:2], (std, bad), strict=True):
        if values is not None and values.shape != shape:
            raise InputError(
                f"the HDU {one} has the shape {values.shape}, {plane.hdu} {shape}: get the file again"
            )
    check_unit_text(exact[f"{name}.unit"], f"the unit of {name}")
    with quiet(FITSFixedWarning):
        wcs = WCS(header) if "CRPIX1" in header else None
    return CCDData(
        _native(hdulist[plane.hdu].data),
        unit=u.Unit(exact[f"{name}.unit"], parse_strict="silent"),
        wcs=wcs,
        uncertainty=None if std is None else StdDevUncertainty(std),
        mask=None if bad is None else bad.astype(bool),
        psf=psf,
        meta=exact[f"{name}.meta"],
    )


def _models(hdulist, plain, arrays):
    """The models by label; arrays by the names of their HDUs."""
    if hdulist[0].header["FILEVER"] == 1:
        plain = _plain_of_layout_1(hdulist["LENS"].data, plain, arrays)
    else:
        plain = _with_arrays(plain, arrays)
    lens = plain.pop("lens")
    lights = {label: light_from_dict(light) for label, light in plain.items()}
    return {"lens": None if lens is None else mass_from_dict(lens), **lights}


def _with_arrays(plain, arrays):
    """Undo `_without_arrays`; arrays by the names of their HDUs."""
    if isinstance(plain, dict):
        if "__array__" in plain:
            return arrays[str(plain["__array__"])]
        return {key: _with_arrays(value, arrays) for key, value in plain.items()}
    return [_with_arrays(value, arrays) for value in plain] if isinstance(plain, list) else plain


# ---------------------------------------------------------------- JSON


def encoded(value):
    """JSON form of what JSON does not know."""
    if isinstance(value, u.Quantity):
        return {"__quantity__": np.asarray(value.value).tolist(), "unit": value.unit.to_string()}
    if isinstance(value, fits.Header):
        return {"__header__": value.tostring(sep="\n", endcard=False, padding=False)}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, u.UnitBase | Path):
        return str(value)
    kind = type(value).__name__
    raise TypeError(f"meta holds a {kind}, which JSON cannot hold: leave it out, or store str(...) of it")


def decoded(item):
    """Undo `encoded`."""
    if "__quantity__" in item:
        check_unit_text(item["unit"], "a unit")
        return u.Quantity(item["__quantity__"], item["unit"])
    if "__header__" in item:
        return fits.Header.fromstring(item["__header__"], sep="\n")
    return item


# ---------------------------------------------------------------- headers


def wcs_cards(wcs):
    """Header of a WCS with one CD matrix and all digits; ``to_header`` rounds to twelve, and splits it."""
    with quiet(FITSFixedWarning):
        header = wcs.to_header(relax=True)
    if wcs.naxis != 2 or wcs.wcs.has_pc() is False and wcs.wcs.has_cd() is False:
        return header
    for key in [key for key in header if key.startswith(("PC", "CDELT"))]:
        del header[key]
    matrix = scale_matrix(wcs)
    for i in range(2):
        header[f"CRPIX{i + 1}"] = (float(wcs.wcs.crpix[i]), "pixel coordinate of the reference point")
        header[f"CRVAL{i + 1}"] = (float(wcs.wcs.crval[i]), "coordinate value at the reference point")
        for j in range(2):
            header[f"CD{i + 1}_{j + 1}"] = (float(matrix[i, j]), "coordinate transformation matrix")
    return header


def _card_value(value):
    """A value that a card can hold: ASCII without line breaks; FITS has no keyword for nan or inf."""
    value = value.item() if isinstance(value, np.generic) else value
    value = "none" if value is None else value  # checkers warn of a card without a value
    if isinstance(value, (bool, int)) or (isinstance(value, float) and np.isfinite(value)):
        return value
    return str(value).encode("ascii", "backslashreplace").decode().replace("\n", " ")


def meta_cards(header, meta, before=""):
    """Put the simple entries of a meta into a header, for viewers; JSON keeps all of them exactly.

    What the text of the cards ``before`` has is left out.
    """
    for key, value in meta.items():
        name = KEYWORDS.get(str(key), str(key).upper())
        simple = value is None or isinstance(value, (bool, int, float, str, np.generic))
        standard = len(name) <= 8 and name.isascii() and name.replace("_", "").replace("-", "").isalnum()
        if name.startswith("DATE"):
            value = iso_date(value)  # a date of another form is an error to other programs
            simple = value is not None
        known = name in header or f"{name:8}=" in before or name.rstrip("0123456789") in STRUCTURAL
        if simple and standard and not known:
            header[name] = _card_value(value)


def verdict_cards(header, result):
    """Write the verdict of a result into a header."""
    header["LSR_GRAD"] = (result.grade, "secure, probable, doubtful or failed")
    header["LSR_OK"] = (bool(result.ok), "whether it is secure or probable")
    header["FLAGS"] = ",".join(result.flags) or "none"
    if np.isfinite(result.reduced_chi2):
        header["REDCHI2"] = (float(result.reduced_chi2), "over the pixels that are not masked")
    modelled = is_model(result)
    header["MODELIMG"] = (modelled, "whether SCI is a model image, not a measurement")
    header["COMMENT"] = MODEL_NOTE if modelled else INTERPOLATED_NOTE
    header["COMMENT"] = ERRORS_NOTE
    if np.isfinite(result.R_E):
        header["R_E"] = (float(result.R_E.value), "[arcsec] effective Einstein radius of the lens")
        header["R_E_ERR"] = (_card_value(float(result.R_E_error.value)), "[arcsec] 1 sigma of R_E")
    if np.isfinite(result.magnification):
        header["MAGNIF"] = (float(result.magnification), "lensed over intrinsic flux of the source")
        header["MAGNERR"] = (_card_value(float(result.magnification_error)), "1 sigma of MAGNIF")
        if np.isfinite(result.second_magnification):
            header["MAGNIF2"] = (float(result.second_magnification), "the same of the second source")
            header["MAGNERR2"] = (_card_value(float(result.second_magnification_error)), "1 sigma of MAGNIF2")
        header["COMMENT"] = FAMILY_NOTE
    for part, (_, keyword, comment) in PARTS.items():
        magnitude = magnitude_of(result, part)
        if np.isfinite(magnitude):
            header[keyword] = (magnitude, comment)


def _written_by():
    """Header that says what wrote a file."""
    header = fits.Header()
    header["CREATOR"] = f"lenssr {package_version()}"
    header["FILEVER"] = (FILE_VERSION, "version of this layout of lenssr's files")
    header["DATE"] = (datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S"), "when the file was written (UTC)")
    return header


def shared_primary_hdu(result):
    """Return the primary HDU of the file of a `~lenssr.result.BandsResolution`."""
    header = _written_by()
    header["BANDS"] = ",".join(map(str, result.bands))
    header["LSR_GRAD"] = (result.grade, "secure, probable, doubtful or failed")
    header["LSR_OK"] = (bool(result.ok), "whether it is secure or probable")
    header["FLAGS"] = ",".join(result.flags) or "none"
    header["LEFT_OUT"] = ",".join(result.left_out) or "none"
    header["REDCHI2"] = (float(result.reduced_chi2), "over the pixels of all bands")
    if np.isfinite(result.R_E):
        header["R_E"] = (float(result.R_E.value), "[arcsec] effective Einstein radius of the lens")
        header["R_E_ERR"] = (_card_value(float(result.R_E_error.value)), "[arcsec] 1 sigma of R_E")
    meta_cards(header, result.meta)
    mark_long(header)
    return fits.PrimaryHDU(header=header)


def primary_hdu(result):
    """Return the primary HDU of a result's file, which says what wrote it."""
    header = _written_by()
    verdict_cards(header, result)
    meta_cards(header, result.meta)
    for name, value in result.meta.get("versions", {}).items():
        header[f"V_{name}"[:8].upper()] = (_card_value(value), f"version of {name}"[:40])
    for keyword, value, comment in provenance_cards(result.meta):
        if keyword not in header:
            header[keyword] = (value, comment)
    mark_long(header)
    return fits.PrimaryHDU(header=header)


# ---------------------------------------------------------------- files of layout 1


def _plain_of_layout_1(table, structure, arrays):
    """Plain models by label: layout 1 held parameters in LENS alone, the structure in META, maps by name."""
    models = {}
    for label, told in structure.items():
        rows = (table[table["component"] == part["label"]] for part in told["parts"])
        parts = [_plain_part(part, own, arrays) for part, own in zip(told["parts"], rows, strict=True)]
        covariance = arrays.get(f"cov.{label}")
        if told["kind"] == "system":
            models[label] = {"MassSystem": {"components": parts, "covariance": covariance}}
            continue
        if covariance is not None:
            next(iter(parts[0].values()))["covariance"] = covariance
        one = parts[0] if parts else None
        models[label] = parts if told["kind"] in ("list", "tuple") else one
    return models


def _plain_part(part, rows, arrays):
    """One simple model: its rows hold the parameters, arrays called ``label.name`` the maps."""
    start = f"{part['label']}."
    maps = {name.removeprefix(start): value for name, value in arrays.items() if name.startswith(start)}
    entry = {**part["arguments"], **maps, **{row["name"]: float(row["value"]) for row in rows}}
    entry["units"] = {row["name"]: row["unit"] for row in rows if row["unit"]}
    entry["fixed"] = [row["name"] for row in rows if row["fixed"]]
    ends = {row["name"]: (float(row["lower"]), float(row["upper"])) for row in rows}
    entry["bounds"] = {name: [None if np.isinf(end) else end for end in pair] for name, pair in ends.items()}
    entry["std"] = {row["name"]: float(row["error"]) for row in rows if not np.isnan(row["error"])}
    entry["covariance"] = arrays.get(f"cov.{part['label']}")
    # A model without parameters has no row.
    return {rows[0]["model"] if len(rows) else part["model"]: entry}
