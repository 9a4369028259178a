"""The FITS form of a `~lenssr.result.BandsResolution`: the HDUs of every band, their names behind the band's.

``F814W_SCI`` is what SCI is in the file of one image. The table BANDS lists which HDUs belong to which band,
and BANDS_META holds what all share.
"""

import json
import re
from types import MappingProxyType

import numpy as np
from astropy.io import fits
from astropy.table import Table

from lenssr._files import atomic
from lenssr.exceptions import InputError
from lenssr.imaging.fits_checks import read_checked, same_hdus
from lenssr.result.fits import (
    FILE_VERSION,
    check_name,
    decoded,
    encoded,
    from_hdulist,
    lens_table,
    result_hdus,
    shared_primary_hdu,
)
from lenssr.result.grade import grade_told
from lenssr.result.hdus import ImageExtension, write_hdus

__all__ = ["bands_hdus", "read", "write"]

SHARED = "BANDS_META"
EXACT = ("left_out", "flags", "grade", "meta")
# Cards that astropy writes itself, at the beginning of an HDU.
STRUCTURE = ("SIMPLE", "BITPIX", "NAXIS", "EXTEND", "CHECKSUM", "DATASUM")


def write(result, path, overwrite):
    """Write a result: all of it, or nothing."""
    check_name(path)
    with atomic(path, overwrite) as temporary:
        write_hdus(bands_hdus(result), temporary)


def prefixes(bands):
    """Beginnings of names of HDUs by band: letters, digits and underscores, all different."""
    found = {}
    for number, name in enumerate(bands):
        plain = re.sub(r"[^A-Z0-9]+", "_", str(name).upper()).strip("_") or f"BAND{number}"
        found[name] = f"{plain}_" if f"{plain}_" not in found.values() else f"{plain}_{number}_"
    return found


def bands_hdus(result):
    """List the HDUs of a result of bands."""
    hdus, rows = [], []
    for name, prefix in prefixes(result.bands).items():
        own = result_hdus(result.bands[name])
        header = own[0].header.copy()
        for keyword in STRUCTURE:
            header.remove(keyword, ignore_missing=True)
        header["BAND"] = (str(name), "name of the band")
        some = [ImageExtension(f"{prefix}PRIMARY", None, header), *own[1:]]
        for hdu in some[1:]:
            hdu.name = f"{prefix}{hdu.name}"
        rows.append((name, prefix, len(hdus) + 1, len(some)))
        hdus += some
    table = Table(rows=rows, names=("band", "prefix", "first", "number"))
    exact = {key: json.dumps(getattr(result, key), default=encoded) for key in EXACT}
    exact["meta"] = json.dumps(
        {key: value for key, value in result.meta.items() if key != "seconds"}, default=encoded
    )
    told = Table({"key": list(exact), "json": list(exact.values())})
    parameters = Table(result.parameters, copy=True)
    parameters.meta.clear()
    tables = {
        "BANDS": table,
        SHARED: told,
        "PARAMETERS": parameters,
        "LENS": lens_table({"lens": result.lens}),
    }
    tables = [fits.BinTableHDU(one, name=name) for name, one in tables.items()]
    return [shared_primary_hdu(result), *hdus, *tables]


def read(path, kind, kind_of_band):
    """Read a result of bands; `InputError` if it is not one."""
    content, number = read_checked(path)
    try:
        with fits.open(content, memmap=False, lazy_load_hdus=False) as hdulist:
            same_hdus(path, hdulist, number)
            version = hdulist[0].header.get("FILEVER")
            if not isinstance(version, int) or SHARED not in hdulist:
                raise InputError(
                    f"{path} holds no bands: read the result of one image by lenssr.SuperResolution.read"
                )
            if version > FILE_VERSION:
                raise InputError(f"{path} has layout {version}, newer than {FILE_VERSION}: update lenssr")
            bands = {
                str(row["band"]): _band(hdulist, row, path, kind_of_band) for row in hdulist["BANDS"].data
            }
            told = {
                str(row["key"]): json.loads(str(row["json"]), object_hook=decoded)
                for row in hdulist[SHARED].data
            }
            seconds = hdulist[0].header.get("SECONDS")
    except InputError as error:
        raise InputError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from error
    except Exception as error:  # whatever astropy and JSON make of a damaged file
        why = f"{type(error).__name__}: {error}"
        raise InputError(f"{path} cannot be read as a lenssr result ({why}): write it again") from error
    told["grade"] = grade_told(told)
    told.pop("ok", None)
    told["meta"] |= {} if seconds is None else {"seconds": seconds}
    told |= {name: tuple(told[name]) for name in ("left_out", "flags")}
    first = next(iter(bands.values()))
    return kind(bands=MappingProxyType(bands), lens=first.lens, **told)


def _band(hdulist, row, path, kind):
    """The result of one band, from its HDUs."""
    first, number, prefix = int(row["first"]), int(row["number"]), str(row["prefix"])
    own = list(hdulist[first : first + number])
    names = [hdu.name for hdu in own]
    if len(own) < number or not all(name.startswith(prefix) for name in names):
        raise InputError(f"HDUs of the band {row['band']} are missing: get the file again")
    header = own[0].header.copy()
    for keyword in ("XTENSION", "PCOUNT", "GCOUNT", "EXTNAME"):
        header.remove(keyword, ignore_missing=True)
    for hdu, name in zip(own[1:], names[1:], strict=True):
        hdu.name = name.removeprefix(prefix)
    return from_hdulist(path, fits.HDUList([fits.PrimaryHDU(header=header), *own[1:]]), kind)


def is_of_bands(hdulist):
    """Whether a file holds the result of bands."""
    return SHARED in hdulist and np.size(hdulist[SHARED].data) > 0
