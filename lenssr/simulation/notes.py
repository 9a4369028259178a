"""Notes of what a data set that is being written holds, from which an interrupted run goes on."""

import json
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
from astropy.table import MaskedColumn, Table, vstack

from lenssr._files import atomic
from lenssr.exceptions import InputError

# Rows that become a table at once.
ROWS = 1000


class Notes:
    """Rows of a manifest in a file of one JSON object a line; the first line tells the data set.

    A row is noted once its lens is written. A line that was cut short is as if it were not there.
    """

    def __init__(self, path: Path, told: dict[str, Any]) -> None:
        self.path, self.told = path, json.loads(json.dumps(told))
        self._file: IO[str] | None = None
        self._rows: list[Any] = []

    def read(self) -> set[int] | None:
        """Indices of the lenses that are written; None if there was no beginning."""
        self._rows = self._lines() if self.path.exists() else []
        if self._rows and self._rows[0] != self.told:
            raise InputError(f"{self.path} tells of another data set: choose another folder, or delete it")
        return {int(line["index"]) for line in self._rows[1:]} if self._rows else None

    def begin(self) -> None:
        """Begin, or go on behind the rows that were read."""
        with atomic(self.path) as temporary, open(temporary, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in (self._rows or [self.told]))
        self._rows = []

    def _lines(self) -> list[Any]:
        """Values of all whole lines."""
        found: list[Any] = []
        with open(self.path, encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    value = json.loads(line) if line.endswith("\n") else None
                except ValueError:
                    value = None
                if not isinstance(value, dict) or (found and not isinstance(value.get("index"), int)):
                    break
                found.append(value)
        return found

    def __enter__(self) -> Self:
        self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 - closed by __exit__
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, row: dict[str, Any]) -> None:
        """Note one row, at once."""
        assert self._file is not None  # inside a with statement
        plain = {
            name: value.item() if isinstance(value, np.generic) else value for name, value in row.items()
        }
        self._file.write(json.dumps(plain) + "\n")
        self._file.flush()

    def table(self, order: Any) -> Table:
        """Table of all rows, in the order of their indices in a sequence."""
        parts, rows, seen = [], [], list[int]()
        with open(self.path, encoding="utf-8") as file:
            next(file)
            for line in file:
                rows.append(json.loads(line))
                seen.append(rows[-1]["index"])
                if len(rows) == ROWS:
                    parts.append(_table_of(rows))
                    rows = []
        parts += [_table_of(rows)] if rows else []
        table = vstack(parts, metadata_conflicts="silent") if len(parts) > 1 else parts[0]
        place = {index: number for number, index in enumerate(seen)}
        wanted = [place[index] for index in order]
        return table if wanted == list(range(len(seen))) else table[wanted]

    def discard(self) -> None:
        """Delete the file: the manifest holds all."""
        self.path.unlink(missing_ok=True)


def _table_of(rows: list[dict[str, Any]]) -> Table:
    """Table of rows; what some of them lack is masked there."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {}
    for name in names:
        known = [row[name] for row in rows if name in row]
        if len(known) == len(rows):
            columns[name] = np.array(known)
            continue
        column = MaskedColumn(
            np.zeros(len(rows), np.array(known).dtype), mask=[name not in row for row in rows]
        )
        column[~column.mask] = known
        columns[name] = column
    return Table(columns)
