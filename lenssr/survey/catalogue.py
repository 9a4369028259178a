"""The catalogue of a survey: rows of many processes become one table, with units and descriptions."""

from __future__ import annotations

import io
import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.io.fits import table_to_hdu
from astropy.table import Table
from numpy.typing import NDArray

from lenssr._files import atomic, package_version
from lenssr._quiet import quiet
from lenssr.survey.lens_list import LensList
from lenssr.survey.lens_row import Column, columns_for
from lenssr.survey.work_folder import WorkFolder

__all__ = ["write_catalogue"]

NAME = "catalogue"
ERRORS = "errors are conditional on the model; source quantities on the family of the mass model too"


def write_catalogue(folder: WorkFolder, lenses: LensList) -> Table:
    """Write the catalogue in all its forms, and the failures; return it."""
    table = gather(folder, lenses)
    about = folder.about()
    table.meta = {"lenssr": package_version(), "input": lenses.name, "errors": ERRORS}
    table.meta["settings"] = json.dumps(about["asked"], sort_keys=True)
    writers: dict[str, Callable[[Table, Path], None]] = {".ecsv": _write_ecsv, ".fits": _write_fits}
    if _has_pyarrow():
        writers[".parquet"] = _write_parquet
    for suffix, writer in writers.items():
        with atomic(folder.path / f"{NAME}{suffix}") as temporary:
            writer(table, temporary)
    failures = failures_of(table, lenses, about["repeat"])
    with atomic(folder.path / "failures.ecsv") as temporary:
        _write_ecsv(failures, temporary)
    return table


def gather(folder: WorkFolder, lenses: LensList) -> Table:
    """Table of all rows in the order of the input."""
    done = folder.done(rows=True)
    present = [one for one in lenses if one.id in done]
    columns = columns_for(lenses.bands, lenses.has_redshifts)
    values = {column.name: _empty(column, len(present)) for column in columns}
    for k, lens in enumerate(present):
        row = done.pop(lens.id).row()  # the text is not needed any more
        for name, value in row.items():
            if name in values and value is not None:
                values[name][k] = value
    table = Table()
    for column in columns:
        table[column.name] = _filled(column, values[column.name])
        table[column.name].info.description = column.description
        if column.unit:
            table[column.name].info.unit = column.unit
    for name in lenses.keep:
        kept = [one.kept.get(name) for one in present]
        table[name] = _of_input(kept)
        table[name].info.description = "of the input"
    return table


def _empty(column: Column, count: int) -> Any:
    return [""] * count if column.kind is str else np.full(count, 0 if column.kind is int else np.nan)


def _filled(column: Column, values: Any) -> NDArray[Any]:
    if column.kind is str:
        return np.array(values, dtype=str if len(values) else "U1")
    return np.asarray(values, dtype=np.int64 if column.kind is int else np.float64)


def _of_input(values: Sequence[Any]) -> NDArray[Any]:
    """A column of the input; numbers stay numbers."""
    if all(isinstance(value, int | float | None) and not isinstance(value, bool) for value in values):
        return np.array([np.nan if value is None else value for value in values], dtype=float)
    return np.array(["" if value is None else str(value) for value in values], dtype=str)


def failures_of(table: Table, lenses: LensList, repeat: str) -> Table:
    """What failed, where, why, and how to repeat it alone."""
    failed = table[np.asarray(table["failure"], dtype=str) != ""]
    found = Table()
    texts = {
        "id": "name of the lens in the input",
        "stage": "where it failed: reading, solving, time limit, memory limit, process",
        "failure": "why, in one line",
        "host": "machine",
        "finished": "when, UTC",
        "repeat": "how to repeat it alone",
    }
    for name, about in texts.items():
        if name == "repeat":
            values = [_repeated(repeat, one) for one in failed["id"]]
        else:
            values = [str(one) for one in failed[name]]
        found[name] = np.array(values, dtype=str if values else "U1")
        found[name].info.description = about
    return found


def _repeated(repeat: str, name: str) -> str:
    """The command with the name in the place of the last ID."""
    before, _, after = repeat.rpartition("ID")
    return before + (repr(str(name)) if repeat.startswith("Survey(") else shlex.quote(str(name))) + after


# ---------------------------------------------------------------- forms


def _write_ecsv(table: Table, path: Path) -> None:
    """Write ECSV: the header by astropy, the rows as text, since its writer takes minutes for 100 000."""
    buffer = io.StringIO()
    table[:0].write(buffer, format="ascii.ecsv")
    header = buffer.getvalue().splitlines()
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(header) + "\n")
        cells = [_cells(table[name]) for name in table.colnames]
        file.writelines(f"{' '.join(row)}\n" for row in zip(*cells, strict=True))


def _cells(column: Any) -> list[str]:
    """Texts of the cells of a column, quoted where they need it."""
    values = column.tolist()
    if column.dtype.kind in "US":
        return [_cell(value) for value in values]
    return [repr(value) for value in values]


def _cell(text: str) -> str:
    plain = text and not any(letter in text for letter in " \"'\n\r\t,#")
    return text if plain else f'"{text.replace(chr(34), chr(34) * 2)}"'


def _write_fits(table: Table, path: Path) -> None:
    """Write FITS, with the description of each column as TCOMM."""
    plain = Table(table, copy=False)
    plain.meta = {}
    with quiet(UserWarning):
        hdu = table_to_hdu(_undescribed(plain))
    for number, name in enumerate(table.colnames, 1):
        hdu.header[f"TCOMM{number}"] = table[name].info.description or ""
    hdu.header["LONGSTRN"] = "OGIP 1.0"
    hdu.name = "CATALOGUE"
    primary = fits.PrimaryHDU()
    primary.header["ORIGIN"] = f"lenssr {table.meta['lenssr']}"[:68]
    for line in (table.meta["errors"], f"settings: {table.meta['settings']}"):
        primary.header["HISTORY"] = line.encode("ascii", "backslashreplace").decode()
    fits.HDUList([primary, hdu]).writeto(path, checksum=True)


def _undescribed(table: Table) -> Table:
    """The same columns without descriptions, which astropy would write as YAML into comments."""
    found = Table()
    for name in table.colnames:
        found[name] = np.asarray(table[name]) if table[name].dtype.kind != "U" else _ascii(table[name])
        found[name].unit = table[name].unit
    return found


def _ascii(column: Any) -> NDArray[Any]:
    """Texts as FITS can hold them."""
    values = [text.encode("ascii", "backslashreplace") for text in column.tolist()]
    return np.array(values, dtype="S" if any(values) else "S1")


def _write_parquet(table: Table, path: Path) -> None:
    table.write(path, format="parquet", overwrite=True)


def _has_pyarrow() -> bool:
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        return False
    return True
