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

from lenssr._files import atomic
from lenssr.exceptions import InputError
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
from lenssr.result.planes import planes_of

# Where tables and the input stand in the file, after the planes that a reader wants first; the rest follows.
LATER = ("PSF", "LENS", "DATA", "NOISE", "CHI2", "COVARIANCE", "PARAMETERS")

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


def _plane_hdus(result, field, plane):
    """List the HDUs of one plane; none where the result lacks it."""
    value = getattr(result, field)
    if value is None or not np.size(value if plane.array else value.data):
        return []
    if plane.array:
        wcs = None if plane.wcs_of is None else getattr(result, plane.wcs_of).wcs
        return [_image_hdu(value, plane.hdu, wcs=wcs, comment=plane.comment)]
    hdus = [_image_hdu(value.data, plane.hdu, wcs=value.wcs, unit=value.unit, comment=plane.comment)]
    meta_cards(hdus[0].header, value.meta)
    if value.uncertainty is not None:
        std = value.uncertainty.represent_as(StdDevUncertainty)
        options = {"wcs": value.wcs, "unit": std.unit or value.unit, "comment": f"1 sigma of {plane.hdu}"}
        hdus.append(_image_hdu(std.array, plane.error, **options))
    if value.mask is not None:
        bad = np.broadcast_to(np.asarray(value.mask, dtype=bool), value.shape)
        why = "is prior, not data" if field == "source" else "has no data"
        hdus.append(_image_hdu(bad, plane.mask, wcs=value.wcs, comment=f"1 where {plane.hdu} {why}"))
    if value.psf is not None:
        comment = f"point spread function of {plane.hdu}, at its sampling"
        hdus.append(_image_hdu(value.psf, plane.psf, comment=comment))
    return hdus


def _exact(result):
    """Collect what the images and tables cannot hold."""
    exact = {field: getattr(result, field) for field in EXACT}
    for field, plane in planes_of(result).items():
        image = getattr(result, field)
        if image is not None and not plane.array:
            exact[f"{field}.meta"] = image.meta if isinstance(image.meta, fits.Header) else dict(image.meta)
            exact[f"{field}.unit"] = image.unit.to_string()
    exact["parameters.meta"] = dict(result.parameters.meta)
    return exact


def _rank(planes):
    """Where each HDU stands in the file, by name."""
    first = [
        name
        for plane in planes.values()
        for name in (plane.hdu, *((plane.error, plane.mask) if plane.beside else ()))
        if name not in LATER
    ]
    return {name: place for place, name in enumerate((*first, *LATER))}


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
    planes = planes_of(result)
    hdus = [hdu for field, plane in planes.items() for hdu in _plane_hdus(result, field, plane)]
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
    rank = _rank(planes)
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


def _read_planes(hdulist, kind, exact):
    """Read the planes that the file holds, by field."""
    return {
        field: _native(hdulist[plane.hdu].data) if plane.array else _ccddata(hdulist, field, plane, exact)
        for field, plane in planes_of(kind).items()
        if plane.hdu in hdulist
    }


def _ccddata(hdulist, field, plane, exact):
    header = hdulist[plane.hdu].header
    std, bad = _optional(hdulist, plane.error), _optional(hdulist, plane.mask)
    return CCDData(
        _native(hdulist[plane.hdu].data),
        unit=_unit(exact[f"{field}.unit"]),
        wcs=_wcs(header) if "CRPIX1" in header else None,
        uncertainty=None if std is None else StdDevUncertainty(std),
        mask=None if bad is None else bad.astype(bool),
        psf=_optional(hdulist, plane.psf),
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


def _fields(hdulist, kind):
    exact = {str(row["key"]): from_json(str(row["json"])) for row in hdulist["META"].data}
    models = _models(hdulist, exact["models"])
    return {
        **_read_planes(hdulist, kind, exact),
        "reduced_chi2": exact["reduced_chi2"],
        "lens": models["lens"],
        "source_model": models["source"],
        "lens_light": models["lens_light"],
        "sky": exact["sky"],
        "sky_error": exact["sky_error"],
        "parameters": _parameters(hdulist, exact["parameters.meta"]),
        "covariance_names": tuple(exact["covariance_names"]),
        "flags": tuple(exact["flags"]),
        "ok": exact["ok"],
        "magnification": exact["magnification"],
        "magnification_error": exact["magnification_error"],
        "meta": exact["meta"],
    }


def read(path, kind):
    """Read a result of a kind, `~lenssr.SuperResolution` or what inherits it.

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
            return kind(**_fields(hdulist, kind))
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist: check the path") from error
    except InputError:
        raise
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a lenssr result ({error}): write it again") from error
