"""Tables of positions in files, checked before astropy reads them."""

import re

from astropy.table import QTable

from lenssr._files import local_file
from lenssr._limits import check_memory
from lenssr.exceptions import InputError
from lenssr.imaging.fits_checks import read_checked

__all__ = ["read_positions"]

# Bytes of a table in memory for one in the file; largest file whose form astropy may guess; largest header.
MEMORY_FACTOR, MOST_GUESSED, HEADER = 12, 5_000_000, 2**20
KNOWN = (".csv", ".ecsv", ".fits", ".fit", ".fits.gz", ".vot", ".xml", ".hdf5", ".h5", ".parquet")
# What makes a header long to read: exponents that no unit has, and anchors of YAML.
HARMFUL = re.compile(
    rb"(\*\*|\^|\b10[+-])\s*[(+-]*[0-9]{4,}|^#[^\n'\"]*[:\[,-]\s[&*][A-Za-z0-9]", re.MULTILINE
)
MOST_NESTED = 40


def read_positions(path):
    """Table of a file in any form that astropy reads."""
    place = local_file(path, "init")
    check_memory(MEMORY_FACTOR * place.stat().st_size, str(place), "give a smaller table")
    with open(place, "rb") as file:
        start = file.read(HEADER)
    try:
        if start.startswith((b"SIMPLE", b"\x1f\x8b", b"BZh", b"\xfd7zXZ")):
            content, _ = read_checked(place)
            return QTable.read(content, format="fits")
        header = b"\n".join(line for line in start.split(b"\n") if line.startswith(b"#") or b"unit" in line)
        if HARMFUL.search(header) or max(map(_depth, header.split(b"\n")), default=0) > MOST_NESTED:
            raise InputError("its header has an exponent, an anchor or a nesting that no table needs")
        if not place.name.lower().endswith(KNOWN) and place.stat().st_size > MOST_GUESSED:
            raise InputError("its form has to be guessed, and it is large: name it .csv or .ecsv")
        return QTable.read(place)
    except Exception as error:  # whatever its reader raises
        told = error if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        raise InputError(f"{place} is no table for astropy ({told}): give one") from error


def _depth(line):
    """Most brackets that are open at once, roughly."""
    return max(line.count(b"["), line.count(b"{"))
