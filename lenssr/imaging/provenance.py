"""Cards that say where an image comes from: they stand in the header of every plane of a product."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from astropy.time import Time

__all__ = ["iso_date", "provenance_cards"]

# Keyword of the product, the entries of the meta that it may come from, and what it is.
_CARDS = (
    ("TELESCOP", ("TELESCOP", "telescope"), "telescope"),
    ("INSTRUME", ("INSTRUME", "instrument"), "instrument"),
    ("DETECTOR", ("DETECTOR",), "detector"),
    ("FILTER", ("FILTER", "filter"), "filter"),
    ("OBJECT", ("OBJECT", "TARGNAME"), "name of the target"),
    ("TARGNAME", ("TARGNAME", "OBJECT"), "name of the target"),
    ("DATE-OBS", ("DATE-OBS",), "when the exposure began"),
    ("EXPTIME", ("exposure", "EXPTIME"), "[s] median exposure time"),
    ("PROPOSID", ("PROPOSID",), "proposal"),
    ("ROOTNAME", ("ROOTNAME",), "name of the exposure"),
    ("PHOTFLAM", ("PHOTFLAM",), "[erg/s/cm2/Angstrom] of the input"),
    ("PHOTPLAM", ("PHOTPLAM",), "[Angstrom] pivot wavelength"),
    ("PHOTFNU", ("PHOTFNU",), "[Jy] of the input"),
    ("PHOTMODE", ("PHOTMODE",), "of the input"),
    ("ZEROPNT", ("zero_point",), "[mag] AB of one unit (over 1 arcsec2)"),
    ("INFILE", ("file",), "name of the input"),
    ("INSUM", ("input_checksum",), "checksum of the input"),
)


def provenance_cards(meta: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """Yield keyword, value and comment of what the meta of a result knows of its input."""
    for keyword, names, comment in _CARDS:
        value = next((meta[name] for name in names if _simple(meta.get(name))), None)
        if value is not None:
            if keyword == "DATE-OBS":
                value = iso_date(value)
                if value is None:
                    continue
                # Without it readers of the WCS add it, and warn that they do.
                yield "MJD-OBS", round(float(Time(value).mjd), 9), "[d] of DATE-OBS"
            text = str(value).encode("ascii", "backslashreplace").decode().replace("\n", " ")
            # A card holds 80 characters.
            room = 80 - 14 - max(len(text), 20)
            yield keyword, text if isinstance(value, str) else value, comment if len(comment) < room else ""


def iso_date(value: Any) -> str | None:
    """A date as FITS has it, without an offset; None for what is none. Two digits are of the last century."""
    text = str(value).strip()
    old = re.fullmatch(r"(\d\d)/(\d\d)/(\d\d)", text)
    if old is not None:
        text = f"19{old[3]}-{old[2]}-{old[1]}"
    text = re.sub(r"(Z|[+-]00:?00)$", "", text)
    if re.fullmatch(r"\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\d(\.\d+)?)?", text) is None:
        return None
    try:
        Time(text)
    except ValueError:
        return None
    return text


def _simple(value: Any) -> bool:
    """Whether a value fits a card, and says something."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) or (isinstance(value, str) and bool(value.strip()))
