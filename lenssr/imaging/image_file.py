"""The HDUs of one file: which is the image, and which belong to it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning

from lenssr._quiet import quiet
from lenssr.exceptions import InputError
from lenssr.imaging.fits_files import pixels, shape_of
from lenssr.imaging.planes import HDUName, Request
from lenssr.imaging.tnx import as_tpv

__all__ = ["ROLES", "ImageFile", "hdu_label"]

# Names under which archives store the planes of an image, by role, in the order in which they are looked for.
ROLES = {
    "sci": ("SCI", "IMAGE", "DATA"),
    "err": ("ERR", "RMS", "ERROR", "SIGMA", "NOISE", "STDDEV", "NOISE_MAP", "RMSMAP"),
    "var": ("VAR", "VARIANCE", "STAT"),
    "ivm": ("IVM", "INVVAR", "IVAR", "INVERSE_VARIANCE"),
    "wht": ("WHT", "WEIGHT", "WGT"),
    "mask": ("DQ", "MASK", "MSK", "FLAG", "FLAGS", "FLG", "BPM", "BADPIX", "QUALITY", "MASKBITS"),
    "psf": ("PSF", "PSFIMAGE", "PSF_IMAGE"),
    "exptime": ("EXPTIME", "EXP", "EXPOSURE", "EXPMAP"),
}
HDU_ALIASES = {"ivar": "ivm", "weight": "wht", "rms": "err", "dq": "mask", "exposure": "exptime"}
# Ends of names such as VIS_BGSUB, whose beginning is a band.
_SCIENCE_ENDS = frozenset((*ROLES["sci"], "BGSUB", "IMG"))
# What stands between the parts of such a name.
_GAPS, _GAP = "_.- ", re.compile(r"[_.\- ]")
_OTHERS = frozenset(
    "UNCERT CTX CON WMAP VAR_POISSON VAR_RNOISE VAR_FLAT AREA HDRTAB D2IMARR WCSDVARR WCSCORR ASDF SKY BKG "
    "BACKGROUND SAMP TIME".split()
)
_KNOWN_NAMES = _OTHERS.union(*(names for role, names in ROLES.items() if role != "sci"))
# Names of planes that have to be images. That of a PSF may be that of a table that describes it.
PLANE_NAMES = frozenset(name for role in ROLES if role not in ("sci", "psf") for name in ROLES[role])
# Beginnings of warnings of wcslib and astropy that change nothing.
_HARMLESS = "cdelt will be ignored|Some non-standard WCS keywords|Inconsistent SIP"
_BAND_KEYWORDS = ("FILTER", "BAND", "FILTNAM", "FILTER1", "FILTER2", "HIERARCH FPA.FILTERID", "PUPIL")


def hdu_label(hdus: Sequence[Any], hdu: Any) -> str:
    """Write an HDU so that ``--sci`` takes it: its number, and its name."""
    number = next(i for i, one in enumerate(hdus) if one is hdu)
    version = f",{hdu.header['EXTVER']}" if "EXTVER" in hdu.header else ""
    return f"HDU {number}" + (f" {hdu.name}{version}" if hdu.name and hdu.name != "PRIMARY" else "")


class ImageFile:
    """HDUs of one FITS file, with what a user chose of them.

    Parameters
    ----------
    hdus : `~astropy.io.fits.HDUList`
        The file.
    request : `~lenssr.imaging.planes.Request`, optional
        What the user chose.
    path : str, optional
        Name of the file.

    Attributes
    ----------
    hdus, request, path
        As given.
    window : tuple of slice or None
        Rows and columns that are read; None for all.
    """

    def __init__(self, hdus: fits.HDUList, request: Request | None = None, path: Any = None) -> None:
        self.hdus, self.request = hdus, request or Request()
        self.path = None if path is None else Path(path)
        self.window: tuple[slice, slice] | None = None
        self.guessed: str | None = None
        self.chosen: dict[str, HDUName] = {}
        for key, value in (self.request.hdus or {}).items():
            role = HDU_ALIASES.get(key.lower(), key.lower())
            if role not in ROLES:
                raise InputError(f"hdus has a key {key!r}: use {', '.join(ROLES)}")
            if value is not None:
                self.chosen[role] = value

    # ------------------------------------------------------------ keywords

    @property
    def primary(self) -> fits.Header:
        """Header of the first HDU."""
        return self.hdus[0].header

    @property
    def headers(self) -> list[fits.Header]:
        """Headers that describe the image: its own, and the first HDU's."""
        own = self.science.header
        return [own] if own is self.primary else [own, self.primary]

    def has(self, *names: str) -> bool:
        """Whether an image header of the file has one of these keywords; before an image is chosen."""
        return any(name in hdu.header for hdu in self.hdus[:20] for name in names)

    def says(self, name: str) -> str:
        """The first value of a keyword in the file, in upper case; "" without one."""
        values = (hdu.header[name] for hdu in self.hdus[:20] if name in hdu.header)
        return str(next(values, "")).strip().upper()

    def keyword(self, *names: str) -> Any:
        """The first value of these keywords in the headers of the image; None without one."""
        found = (header.get(name) for header in self.headers for name in names)
        return next((one for one in found if one is not None and str(one).strip()), None)

    def number(self, *names: str) -> float | None:
        """The first finite number of these keywords; None without one."""
        return self.numbered(*names)[0]

    def numbered(self, *names: str) -> tuple[float | None, str]:
        """A number as `number` gives it, and the keyword that has it."""
        for header in self.headers:
            for name in names:
                value = header.get(name)
                if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
                    return float(value), name
        return None, ""

    # ------------------------------------------------------------ the image

    @cached_property
    def science(self) -> Any:
        """The HDU of the image.

        Raises
        ------
        InputError
            If there is none, or several that could be it; the message lists them.
        """
        if "sci" in self.chosen:
            return self.pick(self.chosen["sci"])
        images = [hdu for hdu in self.hdus if len(shape_of(hdu)) >= 2]
        named = next(filter(None, ([h for h in images if _name(h) == n] for n in ROLES["sci"])), [])
        found = named or [hdu for hdu in images if not self._is_companion(hdu)]
        if self.request.band is not None and not (len(found) == 1 and self._plane_labels(found[0])):
            found = self._in_band(found)
        if not found:
            known = ", ".join(f"{hdu.name or 'unnamed'} {_shape_text(hdu)}" for hdu in self.hdus)
            raise InputError(
                f"no two-dimensional image among the HDUs ({known}): name it, such as hdus={{'sci': 1}}"
            )
        rivals = [hdu for hdu in found[1:] if named or shape_of(hdu)[-2:] == shape_of(found[0])[-2:]]
        if rivals:
            raise InputError(
                f"several images ({self._listed(found)}): choose one by hdus={{'sci': ...}} (--sci), a "
                "number or NAME,VERSION, or by band= (--band)"
            )
        if len(found) > 1:
            self.guessed = f"{hdu_label(self.hdus, found[0])} is the image, not {self._listed(found[1:])}"
        return found[0]

    @cached_property
    def plane(self) -> int | None:
        """Number of the plane of a cube; None where the image is no cube."""
        labels = self._plane_labels(self.science)
        if not labels:
            return None
        band = self.request.band
        names = [label.lower() for label in labels]
        if band is not None and str(band).lower() in names:
            return names.index(str(band).lower())
        if band is not None and str(band).isdigit() and int(band) < len(labels):
            return int(band)
        label = hdu_label(self.hdus, self.science)
        known = ", ".join(labels if len(labels) < 30 else [labels[0], "...", labels[-1]])
        wrong = "" if band is None else f", none of them {band!r}"
        raise InputError(
            f"{label} has {len(shape_of(self.science))} dimensions, a cube of {len(labels)} planes ({known})"
            f"{wrong}: choose one by band= (--band)"
        )

    def _plane_labels(self, hdu: Any) -> list[str]:
        """Names of the planes of a cube: of its bands, or their numbers from 0; [] for an image."""
        long = [size for size in shape_of(hdu)[:-2] if size > 1]
        if len(long) != 1:
            return []
        count, header = long[0], hdu.header
        for first in (0, 1):
            names = [header.get(f"BAND{i}", header.get(f"FILTER{i}")) for i in range(first, first + count)]
            if all(isinstance(name, str) for name in names):
                return [str(name).strip() for name in names]
        bands = str(header.get("BANDS", ""))
        parts = [one for one in re.split(r"[,\s]+", bands) if one]
        return next(
            (list(one) for one in (parts, bands) if len(one) == count), [str(i) for i in range(count)]
        )

    def _in_band(self, images: list[Any]) -> list[Any]:
        """Those of some images that are in the band that was asked for."""
        wanted = str(self.request.band).lower()
        found = [hdu for hdu in images if wanted in self._labels(hdu)]
        if not found:
            raise InputError(f"band = {self.request.band!r}: the file has {self._listed(images)}")
        return found

    def _labels(self, hdu: Any) -> set[str]:
        """What a band may be called: values of keywords, and parts of the name of the HDU."""
        values = [hdu.header.get(name, self.primary.get(name)) for name in _BAND_KEYWORDS]
        words = _GAP.split(hdu.name) + [_prefix(hdu.name), hdu.name, hdu.header.get("EXTVER")]
        return {str(one).strip().lower() for one in (*values, *words) if one not in (None, "")}

    def _is_companion(self, hdu: Any) -> bool:
        name = _name(hdu)
        parts = _GAP.split(name)
        ends = {parts[0], parts[-1]} if len(parts) > 1 else set()
        return bool({name, *ends} & _KNOWN_NAMES)

    def _listed(self, images: Iterable[Any]) -> str:
        return ", ".join(
            f"{hdu_label(self.hdus, hdu)} {_shape_text(hdu)}"
            + "".join(f" {hdu.header[name]}" for name in ("FILTER", "BAND") if name in hdu.header)
            for hdu in images
        )

    # ------------------------------------------------------------ what belongs to it

    def pick(self, name: HDUName) -> Any:
        """Image HDU by number, name, (name, version), or a text such as "3" or "SCI,2"."""
        text = name if isinstance(name, str) else ""
        if text.strip().isdigit():
            name = int(text)
        elif isinstance(name, str) and "," in name:
            first, _, last = name.rpartition(",")
            name = (first.strip(), last.strip())
        found = self._picked(name)
        if found is None:
            known = ", ".join(repr(hdu.name) for hdu in self.hdus)
            raise InputError(f"there is no HDU {text or name!r}: the file has {known}")
        if len(shape_of(found)) < 2:
            raise InputError(f"HDU {text or name!r} holds no image: name another")
        return found

    def _picked(self, name: HDUName) -> Any:
        if isinstance(name, int):
            return self.hdus[name] if -len(self.hdus) <= name < len(self.hdus) else None
        wanted, version = (name, None) if isinstance(name, str) else name
        for hdu in self.hdus:
            own = str(hdu.header.get("EXTVER", 1)).strip().lower()
            same = version is None or str(version).lower() in {own, *self._labels(hdu)}
            if hdu.name.upper() == str(wanted).upper() and same:
                return hdu
        return None

    def companion(self, role: str, names: Sequence[str] = ()) -> Any:
        """HDU of a role that belongs to the image; None where there is none.

        Parameters
        ----------
        role : str
            One of sci, err, var, ivm, wht, mask, psf and exptime.
        names : sequence of str, optional
            Names to look for first.

        Returns
        -------
        hdu : HDU or None
        """
        if role in self.chosen:
            return self.pick(self.chosen[role])
        images = [hdu for hdu in self.hdus if len(shape_of(hdu)) >= 2 and hdu is not self.science]
        prefix = _prefix(self.science.name)
        for name in (*names, *ROLES[role]):
            pairs = ((prefix, name), (name, prefix))
            wanted = {gap.join(pair) for gap in _GAPS for pair in pairs} if prefix else {name}
            found = [hdu for hdu in images if _name(hdu) in wanted]
            found = found or [hdu for hdu in images if _name(hdu) == name]
            if found:
                return found[0] if len(found) == 1 else self._nearest(found)
        return None

    def _nearest(self, found: list[Any]) -> Any:
        """The one of several HDUs of a name with the image's version or filter, else the next in the file."""
        for key in ("EXTVER", "FILTER"):
            values = [hdu.header.get(key) for hdu in found]
            own = self.science.header.get(key)
            if own is not None and values.count(own) == 1:
                return found[values.index(own)]
        places = {id(hdu): i for i, hdu in enumerate(self.hdus)}
        own = places[id(self.science)]
        others = [hdu for hdu in self.hdus if hdu.name == self.science.name and places[id(hdu)] > own]
        end = places[id(others[0])] if others else len(self.hdus)
        return next((hdu for hdu in found if own < places[id(hdu)] < end), None)

    def label(self, hdu: Any) -> str:
        """Number and name of an HDU, and which plane of a cube is read."""
        return hdu_label(self.hdus, hdu) + ("" if self.plane is None else f", plane {self.plane}")

    def read(self, hdu: Any) -> Any:
        """Pixels of an HDU in the window, (ny, nx), of the plane that was chosen where it is a cube."""
        full = shape_of(self.science)[-2:]
        cut = self.window if shape_of(hdu)[-2:] == full else None
        cube = len([size for size in shape_of(hdu)[:-2] if size > 1]) == 1
        return linear(pixels(hdu, cut, self.plane if cube else None), hdu.header)

    # ------------------------------------------------------------ the sky

    @cached_property
    def full_wcs(self) -> WCS | None:
        """WCS of the whole frame; None where the header has none, or no usable one."""
        return wcs_of(self.science.header, self.hdus)


def wcs_of(header: fits.Header, hdus: fits.HDUList | None = None) -> WCS | None:
    """Celestial or linear WCS of two axes from a header; None for the one that astropy makes of nothing."""
    with quiet(FITSFixedWarning), quiet(message=_HARMLESS):
        try:
            return meaningful(WCS(as_tpv(_with_scale(header)), fobj=hdus))
        except (ValueError, MemoryError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split()[-12:])
            raise InputError(f"the WCS of the header cannot be read ({reason}): correct it") from error


def _with_scale(header: fits.Header) -> fits.Header:
    """A header with CDELT of 0, which says nothing, as one without CDELT, which wcslib can read."""
    empty = [name for name in ("CDELT1", "CDELT2") if header.get(name) == 0]
    if not empty or "CD1_1" in header:
        return header
    new = header.copy()
    for name in empty:
        new[name] = 1.0
    return new


def meaningful(wcs: WCS) -> WCS | None:
    """Return a WCS of two axes; None for the one that astropy makes of a header without one."""
    if wcs.naxis > 2 and wcs.has_celestial:
        wcs = wcs.celestial
    blank = not wcs.has_celestial and not any(str(unit) for unit in wcs.wcs.cunit)
    return None if blank else wcs


def _name(hdu: Any) -> str:
    return hdu.name.strip().upper()


def _shape_text(hdu: Any) -> str:
    if not hdu.is_image:
        return "table"
    shape = shape_of(hdu)
    return " x ".join(str(size) for size in shape[::-1]) if shape else "()"


def _prefix(name: str) -> str:
    """VIS of VIS_BGSUB, SCI_VIS and VIS, 3-4-F of 3-4-F.SCI; "" of SCI."""
    name = name.strip().upper()
    if name in ("", "PRIMARY", *_SCIENCE_ENDS):
        return ""
    parts = _GAP.split(name)
    if len(parts) > 1 and parts[-1] in _SCIENCE_ENDS:
        return name[: -len(parts[-1]) - 1]
    return name[len(parts[0]) + 1 :] if len(parts) > 1 and parts[0] in _SCIENCE_ENDS else name


# 2.5 / ln 10, of asinh magnitudes (Lupton et al. 1999).
_POGSON = 2.5 / math.log(10)


def linear(values: Any, header: fits.Header) -> Any:
    """Values of an HDU that Pan-STARRS scaled by asinh, made linear; others as they are.

    flux = BOFFSET + BSOFTEN (exp(v / a) - exp(-v / a)) with a = 2.5 / ln 10 (Waters et al. 2020, equation 6).
    """
    soften = header.get("BSOFTEN")
    if not isinstance(soften, (int, float)) or soften == 0:
        return values
    return float(header.get("BOFFSET", 0.0)) + 2 * soften * np.sinh(np.asarray(values, float) / _POGSON)


def float_plane(values: Any) -> Any:
    """A float64 copy of a plane."""
    return np.array(values, dtype=np.float64)
