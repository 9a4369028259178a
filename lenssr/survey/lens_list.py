"""The lenses of a survey: a table, a folder or a pattern becomes a list, checked before anything starts."""

from __future__ import annotations

import functools
import glob
import hashlib
import json
import logging
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import Table
from astropy.table.meta import get_header_from_yaml

from lenssr._files import is_pattern, listed, local_file, local_path
from lenssr._limits import quoted
from lenssr.exceptions import InputError
from lenssr.photometry.positions import read_positions

__all__ = ["LensList", "ListedLens", "read_lens_list"]

# Columns that are known, in lower case, with what they hold; files and PSFs may stand by band, as file_F606W.
KNOWN = {
    "id": "id",
    "ra": "ra",
    "dec": "dec",
    "skycoord": "skycoord",
    "mask": "mask",
    "theta_e": "theta_E",
    "z_lens": "z_lens",
    "z_source": "z_source",
}
BY_BAND = re.compile(r"(file|psf)(?:_(.+))?", re.IGNORECASE)
NUMBERS = ("ra", "dec", "theta_E", "z_lens", "z_source")
UNITS = {"ra": u.deg, "dec": u.deg, "theta_E": u.arcsec}
BAND_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,30}")
LONGEST_ID = 100
# How many problems a message names; the log has more.
NAMED, LOGGED = 3, 100
ENDS = re.compile(r"\.(fits?|fts|fz)(\.(gz|bz2|xz|zip|fz))?$", re.IGNORECASE)

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ListedLens:
    """One lens: where its files are, and what is known of it."""

    id: str
    number: int  # its place in the list
    files: dict[str, str]  # by band; the band of a single image without a name is ""
    psfs: dict[str, str] = field(default_factory=dict)
    mask: str | None = None
    ra: float = math.nan  # degrees
    dec: float = math.nan
    theta_E: float = math.nan  # arcsec
    z_lens: float = math.nan
    z_source: float = math.nan
    kept: dict[str, Any] = field(default_factory=dict)

    @property
    def stem(self) -> str:
        """A name for its files: letters, digits, and ``+-_.``; others as ``=`` and two hexadecimal digits."""
        parts = (
            chr(byte) if chr(byte).isalnum() and byte < 128 or chr(byte) in "+-_." else f"={byte:02X}"
            for byte in self.id.encode()
        )
        text = "".join(parts)
        return f"=2E{text[1:]}" if text.startswith(".") else text

    @property
    def place(self) -> SkyCoord:
        """Where it is on the sky."""
        return SkyCoord(self.ra * u.deg, self.dec * u.deg)

    @property
    def all_files(self) -> Iterator[str]:
        """Every file that it needs."""
        yield from self.files.values()
        yield from self.psfs.values()
        if self.mask is not None:
            yield self.mask

    def plain(self) -> dict[str, Any]:
        """Plain values by name, without those that say nothing."""
        values = asdict(self)
        return {name: value for name, value in values.items() if _says(value)}


@dataclass(frozen=True)
class LensList:
    """The lenses of a survey, in the order of the catalogue."""

    lenses: tuple[ListedLens, ...]
    bands: tuple[str, ...]
    name: str  # of the table or folder, for messages
    keep: tuple[str, ...] = ()  # names of columns that go through to the catalogue

    def __len__(self) -> int:
        return len(self.lenses)

    def __iter__(self) -> Iterator[ListedLens]:
        return iter(self.lenses)

    @property
    def has_redshifts(self) -> bool:
        """Whether any lens has both redshifts."""
        return any(math.isfinite(one.z_lens) and math.isfinite(one.z_source) for one in self.lenses)

    @functools.cached_property
    def states(self) -> dict[str, list[int]]:
        """Size in bytes and time of change in ns of every file."""
        found = {}
        for path in {path for one in self.lenses for path in one.all_files}:
            status = os.stat(path)
            found[path] = [status.st_size, status.st_mtime_ns]
        return found

    def lines(self) -> Iterator[str]:
        """One line of JSON for each lens with the states of its files: two lists are equal if these are."""
        for one in self.lenses:
            states = {path: self.states[path] for path in one.all_files}
            yield json.dumps({**one.plain(), "states": states}, sort_keys=True)

    def digest(self) -> str:
        """SHA-256 of `lines`."""
        found = hashlib.sha256()
        for line in self.lines():
            found.update(line.encode() + b"\n")
        return found.hexdigest()


def _says(value: Any) -> bool:
    return not (value is None or value == {} or (isinstance(value, float) and math.isnan(value)))


# ---------------------------------------------------------------- any input


def read_lens_list(
    source: Any, *, files: str | None = None, needs_places: bool = False, keep: Sequence[str] = ()
) -> LensList:
    """List of the lenses in a table, a folder or a pattern.

    ``files`` is a pattern of their files with ``{id}`` and ``{band}``, relative to the table or folder;
    ``needs_places`` demands a position for each; ``keep`` names further columns that are let through, ``"*"``
    for all. `InputError` names each problem.
    """
    problems: list[str] = []
    if isinstance(source, LensList):
        return source
    if isinstance(source, Table):
        name, base, table = "the table", Path.cwd(), source
    else:
        name, place = str(source), local_path(source, "input")
        if place.is_dir() or is_pattern(place):
            lenses = _in_folder(place, files, problems)
            _refuse(problems, name)
            return _checked(lenses, name, needs_places, problems, ())
        base, table = place.resolve().parent, _read_table(place)
    keep = tuple(table.colnames) if "*" in keep else tuple(keep)
    lenses, kept = _in_table(table, base, files, keep, problems)
    return _checked(lenses, name, needs_places, problems, kept)


def _checked(
    lenses: list[ListedLens], name: str, needs_places: bool, problems: list[str], keep: tuple[str, ...]
) -> LensList:
    if not lenses and not problems:
        problems.append("there are no lenses")
    for repeated, count in Counter(one.id for one in lenses).items():
        if count > 1:
            problems.append(f"the id {quoted(repeated)} stands {count} times")
    here: dict[str, str | None] = {}
    for one in lenses:
        if not one.id or len(one.id) > LONGEST_ID or not one.id.isprintable():
            problems.append(
                f"row {one.number}: the id {quoted(one.id)} has to be 1 to {LONGEST_ID} printable characters"
            )
        if needs_places and not (math.isfinite(one.ra) and abs(one.dec) <= 90):
            problems.append(f"lens {one.id}: a position (ra, dec) is needed to cut it")
        if math.isfinite(one.theta_E) and one.theta_E <= 0:
            problems.append(f"lens {one.id}: theta_E = {one.theta_E} is not positive")
        if math.isfinite(one.z_lens) and math.isfinite(one.z_source) and not 0 < one.z_lens < one.z_source:
            problems.append(
                f"lens {one.id}: z_lens = {one.z_lens}, z_source = {one.z_source} are not in order"
            )
        for path in one.all_files:
            if path not in here:
                here[path] = _unreadable(path)
            if here[path]:
                problems.append(f"lens {one.id}: {path} {here[path]}")
    _refuse(problems, name)
    bands = tuple(dict.fromkeys(sorted(band for one in lenses for band in one.files)))
    return LensList(tuple(lenses), bands, name, keep)


def _unreadable(path: str) -> str | None:
    """What is wrong with a file that is to be read, or None."""
    if not os.path.isfile(path):
        return "does not exist or is not a file"
    return None if os.access(path, os.R_OK) else "is not readable"


def _refuse(problems: list[str], name: str) -> None:
    if not problems:
        return
    for problem in problems[:LOGGED]:
        log.error("%s: %s", name, problem)
    count = f"{len(problems)} problems, the first: " if len(problems) > 1 else ""
    raise InputError(f"{name}: {count}{'; '.join(problems[:NAMED])}: correct the catalogue")


# ---------------------------------------------------------------- patterns and folders


def _pattern(files: str) -> tuple[str, re.Pattern[str]]:
    """Pattern of glob, and of the path with groups, for a pattern with {id} and {band}."""
    parts = re.split(r"(\{id\}|\{band\})", files)
    wild, exact, seen = "", "", set[str]()
    for part in parts:
        if part in ("{id}", "{band}"):
            name = part[1:-1]
            letters = r"[^/]+" if name == "id" else r"[^/_]+"
            exact += f"(?P={name})" if name in seen else f"(?P<{name}>{letters})"
            wild += "*"
            seen.add(name)
        elif "{" in part or "}" in part:
            raise InputError(f"files = {quoted(files)}: only {{id}} and {{band}} stand for something")
        else:
            wild += glob.escape(part)
            exact += re.escape(part)
    return wild, re.compile(exact)


def _matching(files: str, base: Path) -> dict[str, dict[str, str]]:
    """Files by id and band that have a pattern; without {id} the id is ""."""
    wild, exact = _pattern(str(base / files))
    found: dict[str, dict[str, str]] = {}
    for path in sorted(glob.glob(wild)):
        match = exact.fullmatch(path)
        if match and os.path.isfile(path):
            named = match.groupdict()
            found.setdefault(named.get("id", ""), {})[named.get("band", "")] = path
    return found


def _in_folder(place: Path, files: str | None, problems: list[str]) -> list[ListedLens]:
    """One lens for each FITS file, or for each {id} of a pattern."""
    if files is not None:
        found = _matching(files, place.resolve())
        if "{id}" not in files:
            problems.append(f"files = {quoted(files)} has no {{id}}, which a folder needs")
        elif not found:
            problems.append(f"no file has the pattern {files}")
    else:
        found = {ENDS.sub("", path.name): {"": str(path.resolve())} for path in listed(place)}
        if len(found) < len(listed(place)):
            problems.append("two files differ in their endings only")
    return [ListedLens(id=name, number=k, files=found[name]) for k, name in enumerate(sorted(found))]


# ---------------------------------------------------------------- tables


def _read_table(place: Path) -> Table:
    """A table in any form that astropy reads, and Parquet, for which it would need pandas."""
    if place.suffix.lower() not in (".parquet", ".parq"):
        return read_positions(place)
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise InputError(f"{place} needs pyarrow: pip install 'lenssr[survey]'") from error
    try:
        read = parquet.read_table(local_file(place))
        table = Table({name: _with_mask(values) for name, values in read.to_pydict().items()})
        header = (read.schema.metadata or {}).get(b"table_meta_yaml", b"").decode().split("\n")
        units = get_header_from_yaml(header)["datatype"] if len(header) > 1 else []
        for column in units:
            if "unit" in column and column["name"] in table.colnames:
                table[column["name"]].unit = column["unit"]
    except InputError:
        raise
    except Exception as error:  # whatever its reader raises
        raise InputError(
            f"{place} is no Parquet table ({type(error).__name__}: {error}): give one"
        ) from error
    return table


def _with_mask(values: list[Any]) -> Any:
    """A column whose None are masked."""
    mask = [value is None for value in values]
    if not any(mask):
        return values
    fill = next((type(value)() for value in values if value is not None), "")
    return np.ma.array([fill if value is None else value for value in values], mask=mask)


def _in_table(
    table: Table, base: Path, files: str | None, keep: tuple[str, ...], problems: list[str]
) -> tuple[list[ListedLens], tuple[str, ...]]:
    columns, planes, kept = _sorted_columns(table, keep, problems)
    if "id" not in columns:
        problems.append(f"there is no column id, only {', '.join(table.colnames[:20])}")
        return [], ()
    has_files = any(kind == "file" for kind, _ in planes)
    if not has_files and files is None:
        problems.append("there is no column file or file_BAND: add one, or give files= (--files)")
    if has_files and files is not None:
        problems.append(f"files = {quoted(files)}, but there is a column of files too: give one of both")
    found = {} if files is None else _matching(files, base)
    ids = [_text(value) for value in table[columns["id"]]]
    numbers = _numbers(table, columns, problems)
    texts = {key: [_text(value) for value in table[name]] for key, name in planes.items()}
    masks = [_text(value) for value in table[columns["mask"]]] if "mask" in columns else [""] * len(table)
    lenses = []
    for k, name in enumerate(ids):
        own = {kind: {b: _path(texts[s, b][k], base) for s, b in planes if s == kind and texts[s, b][k]}
               for kind in ("file", "psf")}  # fmt: skip
        if files is not None:
            own["file"] = found.get(name if "{id}" in files else "", {})
        if not own["file"]:
            told = "no file is named" if files is None else f"no file has the pattern {files}"
            problems.append(f"lens {name}: {told}")
        stray = set(own["psf"]) - set(own["file"]) - {""}
        if stray:
            problems.append(f"lens {name}: a PSF of the band {min(stray)}, but no file of it")
        lenses.append(
            ListedLens(
                id=name,
                number=k,
                files=own["file"],
                psfs=own["psf"],
                mask=_path(masks[k], base) if masks[k] else None,
                kept={column: _plain(table[column][k]) for column in kept},
                **{key: float(values[k]) for key, values in numbers.items()},
            )
        )
    return lenses, kept


def _sorted_columns(
    table: Table, keep: tuple[str, ...], problems: list[str]
) -> tuple[dict[str, str], dict[tuple[str, str], str], tuple[str, ...]]:
    """Names of columns by what they hold; of files and PSFs by kind and band; and of those that are kept."""
    columns: dict[str, str] = {}
    planes: dict[tuple[str, str], str] = {}
    kept = []
    for name in table.colnames:
        match = BY_BAND.fullmatch(name)
        if match is not None:
            band = match[2] or ""
            if band and not BAND_NAME.fullmatch(band):
                problems.append(f"column {name}: {quoted(band)} is no name of a band")
            planes[match[1].lower(), band] = name
        elif name.lower() in KNOWN:
            if KNOWN[name.lower()] in columns:
                problems.append(f"the columns {columns[KNOWN[name.lower()]]} and {name} mean the same")
            columns[KNOWN[name.lower()]] = name
        elif name in keep:
            kept.append(name)
        else:
            problems.append(
                f"the column {name} is unknown: drop it, or let it through by keep= (--keep {name})"
            )
    for name in keep:
        if name not in table.colnames:
            problems.append(f"keep names the column {name}, which there is not")
    if ("file", "") in planes and sum(kind == "file" for kind, _ in planes) > 1:
        problems.append("there are columns file and file_BAND: name the band of each")
    return columns, planes, tuple(kept)


def _numbers(table: Table, columns: Mapping[str, str], problems: list[str]) -> dict[str, Any]:
    """Values of the columns that hold numbers, in degrees and arcsec."""
    found: dict[str, Any] = {}
    if "skycoord" in columns:
        places = table[columns["skycoord"]]
        if isinstance(places, SkyCoord):
            found["ra"], found["dec"] = places.icrs.ra.deg, places.icrs.dec.deg
        else:
            problems.append(f"the column {columns['skycoord']} holds no SkyCoord: give ra and dec in degrees")
    for key in NUMBERS:
        if key not in columns:
            continue
        column = table[columns[key]]
        try:
            unit = getattr(column, "unit", None)
            values: Any = np.ma.filled(np.ma.asarray(getattr(column, "value", column), dtype=float), np.nan)
            if unit is not None and key in UNITS:
                values = (values * unit).to_value(UNITS[key])
        except (TypeError, ValueError, u.UnitConversionError):
            problems.append(f"the column {columns[key]} holds no numbers in {UNITS.get(key, 'no unit')}")
            continue
        found[key] = np.broadcast_to(values, len(table))
    return found


def _text(value: Any) -> str:
    if value is None or np.ma.is_masked(value):
        return ""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return str(value).strip()


def _path(text: str, base: Path) -> str:
    """Absolute path of a cell, which is relative to its table."""
    return os.path.abspath(base / local_path(text))


def _plain(value: Any) -> Any:
    """A cell as JSON can hold it."""
    if np.ma.is_masked(value):
        return None
    value = getattr(value, "value", value)
    value = value.item() if isinstance(value, np.generic) else value
    return value if isinstance(value, str | int | float | bool | None) else _text(value)
