"""The FITS form of a `~lenssr.SuperResolution`: one multi-extension file that gives everything back.

Every image goes into an HDU of its own with BUNIT and WCS, for viewers; every model parameter into a row of
the LENS table, for people; and what neither can hold (units that FITS cannot spell, settings, headers of the
input) as JSON into the META table, for `read`. Nothing is pickled.
"""

import importlib.metadata
import json
import os
import uuid
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.table import QTable, Table
from astropy.wcs import WCS

from lenssr._result_models import models_from_table, models_to_table
from lenssr._result_text import is_model
from lenssr.exceptions import InputError
from lenssr.grids import scale_matrix

FILE_VERSION = 1

# a FITS comment holds 72 characters
ERRORS_NOTE = "Errors are conditional on the model and correlated between pixels."
MODEL_NOTE = "SCI is a model image at the finer sampling, not a measurement."
INTERPOLATED_NOTE = "SCI is interpolated, without a model: it holds no more than the input."

# field of the result: names of the HDUs of its pixels, its uncertainty, its mask and its PSF, and a comment
IMAGES = {
    "image": ("SCI", "ERR", "MASK", "PSF", "model of the scene, super-resolved"),
    "lensed_source": (
        "LENSED_SOURCE",
        "LENSED_SOURCE_ERR",
        "LENSED_SOURCE_MASK",
        "LENSED_SOURCE_PSF",
        "the lensed source alone",
    ),
    "lens_light_image": (
        "LENS_LIGHT",
        "LENS_LIGHT_ERR",
        "LENS_LIGHT_MASK",
        "LENS_LIGHT_PSF",
        "the lens galaxy alone",
    ),
    "source": ("SOURCE", "SOURCE_ERR", "SOURCE_MASK", "SOURCE_PSF", "the source galaxy, not lensed"),
    "model_image": ("MODEL", "MODEL_ERR", "MODEL_MASK", "MODEL_PSF", "model on the grid of the input"),
    "residual": ("RESIDUAL", "NOISE", "RESIDUAL_MASK", "RESIDUAL_PSF", "data minus model"),
    "data": ("DATA", "DATA_ERR", "DATA_MASK", "DATA_PSF", "the input as it was used"),
}

# the order a reader meets them in; the rest follows
ORDER = (
    "SCI",
    "ERR",
    "MASK",
    "LENSED_SOURCE",
    "LENS_LIGHT",
    "SOURCE",
    "SOURCE_ERR",
    "MODEL",
    "RESIDUAL",
    "PSF",
    "LENS",
    "DATA",
    "NOISE",
    "CHI2",
    "COVARIANCE",
    "PARAMETERS",
)

# fields that go into META as they are
EXACT = ("reduced_chi2", "sky", "sky_error", "covariance_names", "flags", "ok", "meta")

# settings whose names are longer than the eight characters of a FITS keyword
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

STRUCTURAL = frozenset(
    (
        "SIMPLE",
        "XTENSION",
        "BITPIX",
        "NAXIS",
        "EXTEND",
        "PCOUNT",
        "GCOUNT",
        "BSCALE",
        "BZERO",
        "BLANK",
        "BUNIT",
        "EXTNAME",
        "EXTVER",
        "EXTLEVEL",
        "COMMENT",
        "HISTORY",
        "END",
        "CHECKSUM",
        "DATASUM",
        "MODELIMG",
    )
)


# ---------------------------------------------------------------- JSON


def _plain(value):
    """Say in JSON what JSON has no word for."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, fits.Header):
        return {"__header__": value.tostring(sep="\n", endcard=False, padding=False)}
    if isinstance(value, (u.UnitBase, Path)):
        return str(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    kind = type(value).__name__
    raise TypeError(f"meta holds a {kind}, which JSON cannot: leave it out, or store str(...) of it")


def _encode(value):
    # a Quantity is an ndarray to json's default hook, which would drop its unit
    if isinstance(value, u.Quantity):
        return {"__quantity__": np.asarray(value.value).tolist(), "unit": value.unit.to_string()}
    if isinstance(value, fits.Header):
        return _plain(value)
    if isinstance(value, dict):
        return {str(key): _encode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encode(item) for item in value]
    return value


def _decode(item):
    if "__quantity__" in item:
        return u.Quantity(item["__quantity__"], item["unit"])
    if "__header__" in item:
        return fits.Header.fromstring(item["__header__"], sep="\n")
    return item


def to_json(value):
    """Write a value as JSON text; headers and quantities included."""
    return json.dumps(_encode(value), default=_plain)


def from_json(text):
    """Read what `to_json` wrote."""
    return json.loads(text, object_hook=_decode)


# ---------------------------------------------------------------- headers


def wcs_cards(wcs):
    """Header of a WCS: one CD matrix, all digits.

    ``to_header`` rounds to twelve digits and splits the matrix into PC and CDELT; a round trip needs neither.
    """
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
    if isinstance(value, (bool, int, str, float)) or value is None:
        # FITS has no keyword for nan or inf
        return str(value) if isinstance(value, float) and not np.isfinite(value) else value
    if isinstance(value, (np.bool_, np.integer, np.floating)):
        return _card_value(value.item())
    return str(value)


def _set(header, name, value, comment=""):
    """Set one card: ASCII without line breaks, and never a keyword that describes the file itself."""
    key = KEYWORDS.get(str(name), str(name).upper())
    value = _card_value(value)
    if isinstance(value, str):
        value = value.encode("ascii", "backslashreplace").decode().replace("\n", " ")
    if key.rstrip("0123456789") in STRUCTURAL or not key.isascii():
        return
    header[key if len(key) <= 8 else f"HIERARCH {key}"] = (value, comment)


def _meta_cards(header, meta):
    """Put the simple entries of a meta into a header, for viewers; JSON keeps all of them exactly."""
    for key, value in meta.items():
        simple = value is None or isinstance(value, (bool, int, float, str, np.generic))
        name = KEYWORDS.get(str(key), str(key).upper())
        standard = len(name) <= 8 and name.replace("_", "").replace("-", "").isalnum()
        if simple and standard and name not in header:
            _set(header, key, value)


def _verdict_cards(header, result):
    header["LSR_OK"] = (bool(result.ok), "False where a serious flag is set")
    header["FLAGS"] = ",".join(result.flags) or "none"
    if np.isfinite(result.reduced_chi2):
        header["REDCHI2"] = (float(result.reduced_chi2), "over the pixels that are not masked")
    modelled = is_model(result)
    header["MODELIMG"] = (modelled, "whether SCI is a model image, not a measurement")
    header["COMMENT"] = MODEL_NOTE if modelled else INTERPOLATED_NOTE
    header["COMMENT"] = ERRORS_NOTE


def _primary(result):
    header = fits.Header()
    header["CREATOR"] = f"lenssr {_version()}"
    header["FILEVER"] = (FILE_VERSION, "version of this layout of lenssr's files")
    header["DATE"] = (datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S"), "when the file was written (UTC)")
    _verdict_cards(header, result)
    _meta_cards(header, result.meta)
    for name, value in result.meta.get("versions", {}).items():
        _set(header, f"V_{name}"[:8], value, f"version of {name}"[:40])
    return fits.PrimaryHDU(header=header)


def _version():
    try:
        return importlib.metadata.version("lenssr")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


# ---------------------------------------------------------------- writing


def _image_hdu(array, name, *, wcs=None, unit=None, comment=""):
    array = np.asarray(array)
    header = wcs_cards(wcs) if wcs is not None else fits.Header()
    if unit is not None:
        header["BUNIT"] = (unit.to_string(), "unit of the pixels")
    if comment:
        header["CONTENT"] = comment
    return fits.ImageHDU(array.astype(np.uint8) if array.dtype == bool else array, header, name=name)


def _planes(field, image):
    """Yield the HDUs of one CCDData."""
    name, error, mask, psf, comment = IMAGES[field]
    main = _image_hdu(image.data, name, wcs=image.wcs, unit=image.unit, comment=comment)
    _meta_cards(main.header, image.meta)
    yield main
    if image.uncertainty is not None:
        std = image.uncertainty.represent_as(StdDevUncertainty)
        unit = std.unit or image.unit
        yield _image_hdu(std.array, error, wcs=image.wcs, unit=unit, comment=f"1 sigma of {name}")
    if image.mask is not None:
        bad = np.broadcast_to(np.asarray(image.mask, dtype=bool), image.shape)
        yield _image_hdu(bad, mask, wcs=image.wcs, comment=f"1 where {name} has no data")
    if image.psf is not None:
        yield _image_hdu(image.psf, psf, comment=f"point spread function of {name}, at its sampling")


def _exact(result):
    """Collect what the images and tables cannot hold."""
    exact = {field: getattr(result, field) for field in EXACT}
    for field in IMAGES:
        image = getattr(result, field)
        if image is not None:
            exact[f"{field}.meta"] = image.meta if isinstance(image.meta, fits.Header) else dict(image.meta)
            exact[f"{field}.unit"] = image.unit.to_string()
    exact["parameters.meta"] = dict(result.parameters.meta)
    return exact


def to_hdulist(result):
    """Turn a result into an `~astropy.io.fits.HDUList`."""
    images = {field: getattr(result, field) for field in IMAGES}
    hdus = [hdu for field, image in images.items() if image is not None for hdu in _planes(field, image)]
    chi2 = "((data - model) / sigma)^2, 0 if masked"
    hdus.append(_image_hdu(result.chi2_map, "CHI2", wcs=result.data.wcs, comment=chi2))
    if np.size(result.covariance):
        hdus.append(_image_hdu(result.covariance, "COVARIANCE", comment="of the free parameters"))
    lens, structure, arrays = models_to_table(
        {"lens": result.lens, "source": result.source_model, "lens_light": result.lens_light}
    )
    hdus.append(fits.BinTableHDU(lens, name="LENS"))
    hdus += [_image_hdu(array, f"ARRAY.{name.upper()}") for name, array in arrays.items()]
    parameters = Table(result.parameters, copy=True)
    parameters.meta.clear()
    hdus.append(fits.BinTableHDU(parameters, name="PARAMETERS"))
    exact = {**_exact(result), "models": structure}
    text = Table({"key": list(exact), "json": [to_json(value) for value in exact.values()]})
    hdus.append(fits.BinTableHDU(text, name="META"))
    rank = {name: i for i, name in enumerate(ORDER)}
    hdus.sort(key=lambda hdu: rank.get(hdu.name, len(rank)))
    hdulist = fits.HDUList([_primary(result), *hdus])
    _verdict_cards(hdulist["SCI"].header, result)
    return hdulist


def check_output(path, overwrite):
    """Refuse a path that cannot be written, before any work is spent on it.

    Raises
    ------
    InputError
        If the file exists and ``overwrite`` is false, or its folder is missing or not writable.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder: give the name of a file in it")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists: give another name, or overwrite=True (--overwrite)")
    if not path.parent.is_dir():
        raise InputError(f"the folder {path.parent} does not exist: make it, or give another path")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise InputError(f"the folder {path.parent} is not writable: give another path")


@contextmanager
def atomic(path, overwrite):
    """Give a temporary name beside ``path``: renamed to it if the block ends well, deleted if not."""
    check_output(path, overwrite)
    path = Path(path)
    # in the same folder, since a rename is atomic within one file system only; in front, to keep the suffix
    temporary = path.with_name(f".{uuid.uuid4().hex[:8]}.{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path} cannot be written ({reason}): give another path") from error
    finally:
        temporary.unlink(missing_ok=True)


def write(result, path, overwrite):
    """Write a result: all of it, or nothing."""
    with atomic(path, overwrite) as temporary:
        to_hdulist(result).writeto(temporary, output_verify="exception")


# ---------------------------------------------------------------- reading


def _native(array):
    array = np.asarray(array)
    return array.astype(array.dtype.newbyteorder("="))


def _optional(hdulist, name):
    return _native(hdulist[name].data) if name in hdulist else None


def _ccddata(hdulist, field, exact):
    name, error, mask, psf, _ = IMAGES[field]
    if name not in hdulist:
        return None
    header = hdulist[name].header
    std, bad = _optional(hdulist, error), _optional(hdulist, mask)
    return CCDData(
        _native(hdulist[name].data),
        unit=_unit(exact[f"{field}.unit"]),
        wcs=WCS(header) if "CRPIX1" in header else None,
        uncertainty=None if std is None else StdDevUncertainty(std),
        mask=None if bad is None else bad.astype(bool),
        psf=_optional(hdulist, psf),
        meta=exact[f"{field}.meta"],
    )


def _unit(text):
    return u.Unit(text, parse_strict="silent")


def _parameters(hdulist, meta):
    table = QTable(hdulist["PARAMETERS"].data)
    columns = {name: np.asarray(table[name]) for name in table.colnames}
    for name, column in columns.items():
        columns[name] = column.astype(str) if column.dtype.kind in "SU" else _native(column)
    return QTable(columns, meta=meta)


def _fields(hdulist):
    exact = {str(row["key"]): from_json(str(row["json"])) for row in hdulist["META"].data}
    arrays = {hdu.name[6:].lower(): _native(hdu.data) for hdu in hdulist if hdu.name.startswith("ARRAY.")}
    models = models_from_table(hdulist["LENS"].data, exact["models"], arrays)
    names = tuple(exact["covariance_names"])
    covariance = _optional(hdulist, "COVARIANCE")
    return {
        **{field: _ccddata(hdulist, field, exact) for field in IMAGES},
        "chi2_map": _native(hdulist["CHI2"].data),
        "reduced_chi2": exact["reduced_chi2"],
        "lens": models["lens"],
        "source_model": models["source"],
        "lens_light": models["lens_light"],
        "sky": exact["sky"],
        "sky_error": exact["sky_error"],
        "parameters": _parameters(hdulist, exact["parameters.meta"]),
        "covariance": np.zeros((0, 0)) if covariance is None else covariance,
        "covariance_names": names,
        "flags": tuple(exact["flags"]),
        "ok": exact["ok"],
        "meta": exact["meta"],
    }


def read(path):
    """Read the fields of a result.

    Raises
    ------
    InputError
        If the file is missing, damaged, or not written by `write`.
    """
    try:
        with fits.open(path, memmap=False) as hdulist:
            version = hdulist[0].header.get("FILEVER")
            if version is None or "META" not in hdulist:
                raise InputError(f"{path} was not written by lenssr: give a file from SuperResolution.write")
            if version > FILE_VERSION:
                raise InputError(f"{path} has layout {version}, newer than {FILE_VERSION}: update lenssr")
            return _fields(hdulist)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist: check the path") from error
    except InputError:
        raise
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a lenssr result ({error}): write it again") from error
