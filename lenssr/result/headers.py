"""Headers and JSON of the FITS form of a `~lenssr.SuperResolution`."""

import json
import warnings
from datetime import UTC, datetime
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.wcs import FITSFixedWarning

from lenssr._files import package_version
from lenssr._wcs import scale_matrix
from lenssr.result.text import is_model

# Layout 1 held the models in the LENS table alone.
FILE_VERSION = 2

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

# ---------------------------------------------------------------- JSON


def to_json(value):
    """Write a value as JSON text; headers and quantities included."""
    return json.dumps(_encode(value))


def from_json(text):
    """Read what `to_json` wrote."""
    return json.loads(text, object_hook=_decode)


def _encode(value):
    """Plain data of dicts, lists, strings and numbers."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, u.Quantity):
        return {"__quantity__": np.asarray(value.value).tolist(), "unit": value.unit.to_string()}
    if isinstance(value, fits.Header):
        return {"__header__": value.tostring(sep="\n", endcard=False, padding=False)}
    if isinstance(value, dict):
        return {str(key): _encode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encode(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, (u.UnitBase, Path)):
        return str(value)
    kind = type(value).__name__
    raise TypeError(f"meta holds a {kind}, which JSON cannot hold: leave it out, or store str(...) of it")


def _decode(item):
    if "__quantity__" in item:
        return u.Quantity(item["__quantity__"], item["unit"])
    if "__header__" in item:
        return fits.Header.fromstring(item["__header__"], sep="\n")
    return item


# ---------------------------------------------------------------- headers


def wcs_cards(wcs):
    """Header of a WCS with one CD matrix and all digits; ``to_header`` rounds to twelve, and splits it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
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
    if value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and np.isfinite(value)):
        return value
    return str(value).encode("ascii", "backslashreplace").decode().replace("\n", " ")


def meta_cards(header, meta):
    """Put the simple entries of a meta into a header, for viewers; JSON keeps all of them exactly."""
    for key, value in meta.items():
        name = KEYWORDS.get(str(key), str(key).upper())
        simple = value is None or isinstance(value, (bool, int, float, str, np.generic))
        standard = len(name) <= 8 and name.isascii() and name.replace("_", "").replace("-", "").isalnum()
        if simple and standard and name not in header and name.rstrip("0123456789") not in STRUCTURAL:
            header[name] = _card_value(value)


def verdict_cards(header, result):
    """Write the verdict of a result into a header."""
    header["LSR_OK"] = (bool(result.ok), "False where a serious flag is set")
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
        header["COMMENT"] = FAMILY_NOTE


def primary_hdu(result):
    """Return the primary HDU of a result's file, which says what wrote it."""
    header = fits.Header()
    header["CREATOR"] = f"lenssr {package_version()}"
    header["FILEVER"] = (FILE_VERSION, "version of this layout of lenssr's files")
    header["DATE"] = (datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S"), "when the file was written (UTC)")
    verdict_cards(header, result)
    meta_cards(header, result.meta)
    for name, value in result.meta.get("versions", {}).items():
        header[f"V_{name}"[:8].upper()] = (_card_value(value), f"version of {name}"[:40])
    return fits.PrimaryHDU(header=header)
