"""The FITS form of a `~lenssr.SuperResolution`: one multi-extension file that gives everything back.

Every image goes into an HDU of its own with BUNIT and WCS, for viewers; every model parameter into a row of
the LENS table, for people; and what neither can hold (units that FITS cannot spell, settings, headers of the
input, the models to the last digit) as JSON into the META table, for `read`. Nothing is pickled.
"""

import warnings

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.table import QTable, Table
from astropy.wcs import WCS, FITSFixedWarning

from lenssr.exceptions import InputError
from lenssr.files import atomic
from lenssr.light import from_dict as light_from_dict
from lenssr.light.plain_light import plain_light
from lenssr.mass import from_dict as mass_from_dict
from lenssr.result.headers import (
    FILE_VERSION,
    from_json,
    meta_cards,
    primary_hdu,
    to_json,
    verdict_cards,
    wcs_cards,
)
from lenssr.result.lens_table import lens_table, plain_of_layout_1

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
    "SOURCE_MASK",
    "INFORMATION",
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
EXACT = (
    "reduced_chi2",
    "sky",
    "sky_error",
    "covariance_names",
    "flags",
    "ok",
    "magnification",
    "magnification_error",
    "meta",
)

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
    meta_cards(main.header, image.meta)
    yield main
    if image.uncertainty is not None:
        std = image.uncertainty.represent_as(StdDevUncertainty)
        unit = std.unit or image.unit
        yield _image_hdu(std.array, error, wcs=image.wcs, unit=unit, comment=f"1 sigma of {name}")
    if image.mask is not None:
        bad = np.broadcast_to(np.asarray(image.mask, dtype=bool), image.shape)
        why = "is prior, not data" if field == "source" else "has no data"
        yield _image_hdu(bad, mask, wcs=image.wcs, comment=f"1 where {name} {why}")
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


def _plain_models(models):
    """The models by label as plain data, maps and covariances as arrays."""
    lens = models["lens"]
    lights = {label: plain_light(model) for label, model in models.items() if label != "lens"}
    return {"lens": None if lens is None else lens._plain(), **lights}


def _without_arrays(plain, arrays):
    """Plain data with arrays appended to a list, and their places there in their stead."""
    if isinstance(plain, dict):
        return {key: _without_arrays(value, arrays) for key, value in plain.items()}
    if isinstance(plain, list):
        return [_without_arrays(value, arrays) for value in plain]
    if not isinstance(plain, np.ndarray):
        return plain
    arrays.append(plain)
    return {"__array__": len(arrays) - 1}


def to_hdulist(result):
    """Turn a result into an `~astropy.io.fits.HDUList`."""
    images = {field: getattr(result, field) for field in IMAGES}
    hdus = [hdu for field, image in images.items() if image is not None for hdu in _planes(field, image)]
    chi2 = "((data - model) / sigma)^2, 0 if masked"
    hdus.append(_image_hdu(result.chi2_map, "CHI2", wcs=result.data.wcs, comment=chi2))
    if result.information is not None:
        known = "1 - posterior / prior variance of SOURCE"
        hdus.append(_image_hdu(result.information, "INFORMATION", wcs=result.source.wcs, comment=known))
    if np.size(result.covariance):
        hdus.append(_image_hdu(result.covariance, "COVARIANCE", comment="of the free parameters"))
    models = {"lens": result.lens, "source": result.source_model, "lens_light": result.lens_light}
    hdus.append(fits.BinTableHDU(lens_table(models), name="LENS"))
    arrays = []
    plain = _without_arrays(_plain_models(models), arrays)
    hdus += [_image_hdu(array, f"ARRAY.{number}") for number, array in enumerate(arrays)]
    parameters = Table(result.parameters, copy=True)
    parameters.meta.clear()
    hdus.append(fits.BinTableHDU(parameters, name="PARAMETERS"))
    exact = {**_exact(result), "models": plain}
    text = Table({"key": list(exact), "json": [to_json(value) for value in exact.values()]})
    hdus.append(fits.BinTableHDU(text, name="META"))
    rank = {name: i for i, name in enumerate(ORDER)}
    hdus.sort(key=lambda hdu: rank.get(hdu.name, len(rank)))
    hdulist = fits.HDUList([primary_hdu(result), *hdus])
    verdict_cards(hdulist["SCI"].header, result)
    return hdulist


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
        wcs=_wcs(header) if "CRPIX1" in header else None,
        uncertainty=None if std is None else StdDevUncertainty(std),
        mask=None if bad is None else bad.astype(bool),
        psf=_optional(hdulist, psf),
        meta=exact[f"{field}.meta"],
    )


def _wcs(header):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        return WCS(header)


def _unit(text):
    return u.Unit(text, parse_strict="silent")


def _parameters(hdulist, meta):
    table = QTable(hdulist["PARAMETERS"].data)
    columns = {name: np.asarray(table[name]) for name in table.colnames}
    for name, column in columns.items():
        columns[name] = column.astype(str) if column.dtype.kind in "SU" else _native(column)
    return QTable(columns, meta=meta)


def _with_arrays(plain, arrays):
    """The way back from `_without_arrays`; arrays by the names of their HDUs."""
    if isinstance(plain, dict):
        if "__array__" in plain:
            return arrays[str(plain["__array__"])]
        return {key: _with_arrays(value, arrays) for key, value in plain.items()}
    return [_with_arrays(value, arrays) for value in plain] if isinstance(plain, list) else plain


def _models(hdulist, told):
    """The models by label."""
    arrays = {hdu.name[6:].lower(): _native(hdu.data) for hdu in hdulist if hdu.name.startswith("ARRAY.")}
    if hdulist[0].header["FILEVER"] == 1:
        plain = plain_of_layout_1(hdulist["LENS"].data, told, arrays)
    else:
        plain = _with_arrays(told, arrays)
    lens = plain.pop("lens")
    lights = {label: light_from_dict(light) for label, light in plain.items()}
    return {"lens": None if lens is None else mass_from_dict(lens), **lights}


def _fields(hdulist):
    exact = {str(row["key"]): from_json(str(row["json"])) for row in hdulist["META"].data}
    models = _models(hdulist, exact["models"])
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
        "magnification": exact["magnification"],
        "magnification_error": exact["magnification_error"],
        "information": _optional(hdulist, "INFORMATION"),
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
