"""The page of a survey: files that a browser opens from the disk, without a server.

``index.html`` shows rows of ``page/data.js``, ``lens.html`` one lens of a smaller file with the rows of a
thousand. Both hold columns, not rows: they are shorter and parsed faster.
"""

from __future__ import annotations

import html
import json
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table

from lenssr._files import atomic
from lenssr.exceptions import InputError
from lenssr.survey.work_folder import IN_A_FOLDER

__all__ = ["write_page"]

STATIC = ("survey.css", "survey.js", "table.js", "lens.js")
FIRST = ("id", "thumbnail")
# Columns that are shown at first; the rest can be chosen.
SHOWN = ("id", "thumbnail", "grade", "flags", "R_E", "R_E_err", "q", "shear", "magnification", "reduced_chi2",
         "seconds")  # fmt: skip


def write_page(folder: Path, table: Table, name: str) -> None:
    """Write the page of a catalogue into its folder."""
    place = folder / "page"
    try:
        place.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"{place} cannot be made ({error.strerror}): free it, and go on") from error
    own = resources.files("lenssr.survey") / "page"
    for one in STATIC:
        with atomic(place / one, alone=False) as temporary, (own / one).open("rb") as file:
            temporary.write_bytes(file.read())
    title = html.escape(f"{len(table)} lenses of {Path(name).name}")
    for one in ("index.html", "lens.html"):
        text = (own / one).read_text(encoding="utf-8").replace("{{title}}", title)
        with atomic(folder / one, alone=False) as temporary:
            temporary.write_text(text, encoding="utf-8")
    columns = sorted(table.colnames, key=lambda column: column not in FIRST)  # the others keep their order
    cells = {column: _cells(table[column]) for column in columns}
    head = json.dumps([_about(table, column) for column in columns])
    _write_rows(place / "data.js", head, cells, slice(None))
    parts = range(0, len(table), IN_A_FOLDER)
    for number, start in enumerate(parts):
        _write_rows(place / f"rows-{number:04d}.js", head, cells, slice(start, start + IN_A_FOLDER))
    for old in place.glob("rows-*.js"):
        if int(old.stem.split("-")[1]) >= len(parts):
            old.unlink()


def _about(table: Table, column: str) -> dict[str, Any]:
    unit = table[column].unit
    about = {"name": column, "unit": "" if unit is None else str(unit), "shown": column in SHOWN}
    return about | {
        "text": table[column].dtype.kind in "US",
        "description": table[column].info.description or "",
    }


def _cells(column: Any) -> list[str]:
    """Each cell as JSON; numbers to six digits, positions to ten."""
    values = column.tolist()
    if column.dtype.kind in "US":
        return [json.dumps(value) for value in values]
    digits = 10 if column.name in ("ra", "dec") else 6
    write = f"{{:.{digits}g}}".format
    return [write(value) if np.isfinite(value) else "null" for value in values]


def _write_rows(path: Path, head: str, cells: dict[str, list[str]], rows: slice) -> None:
    with atomic(path, alone=False) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(f'showSurvey({{"columns": {head},\n"values": [\n')
        for number, column in enumerate(cells.values()):
            file.write(",\n" if number else "")
            file.write(f"[{','.join(column[rows])}]")
        file.write("\n]});\n")
