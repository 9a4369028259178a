"""The folder of a survey: what was asked for, rows as they come, and a place for every file.

Rows are lines that each process appends to a file of its own: a lens is done when its line is whole. So no
two processes write one file, and one that is killed loses at most the lens that it is at.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lenssr._files import atomic, local_path, package_version, read_text, sweep
from lenssr._limits import quoted
from lenssr.exceptions import InputError
from lenssr.survey.lens_list import LensList, ListedLens

__all__ = ["Done", "Journal", "WorkFolder"]

LAYOUT = 1
ABOUT, LENSES, ROWS = "survey.json", "lenses.jsonl", "rows"
KINDS = {"product": ("products", ".fits"), "figure": ("figures", ".png"), "thumbnail": ("thumbnails", ".jpg")}
# Files in one subfolder, since folders of 100 000 files are slow on many file systems.
IN_A_FOLDER = 1000
MOST_BYTES = 10_000_000


class Done(NamedTuple):
    """What a line says before its JSON: when a lens was done, whether it failed, and the row."""

    finished: float  # seconds since 1970
    failed: bool
    text: bytes

    def row(self) -> dict[str, Any]:
        """The row itself."""
        return json.loads(self.text)


class Journal:
    """Lines that this process appends to a file of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file: int | None = None
        self._lock = threading.Lock()

    def add(self, row: dict[str, Any]) -> None:
        """Append the row of a lens, all of it or nothing that counts; OSError if it does not fit."""
        mark = "failed" if row["failure"] else "done"
        line = f"{row['id']}\t{time.time():.6f}\t{mark}\t{json.dumps(row)}\n".encode()
        with self._lock:
            if self._file is None:
                name = f"{socket.gethostname()}-{os.getpid()}-{time.time_ns()}.jsonl"
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_EXCL
                self._file = os.open(self.folder / name, flags, 0o666)
            if os.write(self._file, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None


class WorkFolder:
    """The folder of a survey."""

    def __init__(self, path: Any) -> None:
        self.path = local_path(path, "folder")

    def begin(self, lenses: LensList, asked: dict[str, Any], repeat: str) -> None:
        """Make the folder, or go on in it; refuse one of another survey with what differs."""
        try:
            (self.path / ROWS).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.path} cannot be made ({error.strerror}): give another folder") from error
        if not os.access(self.path / ROWS, os.W_OK | os.X_OK):
            raise InputError(f"the folder {self.path} is not writable: give another")
        digest = lenses.digest()
        if (self.path / ABOUT).exists():
            self._compare(lenses, asked, digest)
            return
        if any(entry.suffix == ".jsonl" for entry in (self.path / ROWS).iterdir()):
            raise InputError(f"{self.path} holds rows, but no {ABOUT}: give another folder")
        with atomic(self.path / LENSES) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in lenses.lines()), encoding="utf-8")
        about = {"layout": LAYOUT, "digest": digest, "asked": asked, "version": package_version()}
        about |= {"input": lenses.name, "bands": lenses.bands, "repeat": repeat}
        with atomic(self.path / ABOUT) as temporary:
            temporary.write_text(json.dumps(about, indent=1), encoding="utf-8")

    def about(self) -> dict[str, Any]:
        """What was asked for when the survey began."""
        try:
            about = json.loads(read_text(self.path / ABOUT, MOST_BYTES))
        except ValueError as error:
            told = "holds no survey" if isinstance(error, InputError) else f"has a damaged {ABOUT}"
            raise InputError(f"{self.path} {told}: give another folder") from error
        if not isinstance(about, dict) or about.get("layout") != LAYOUT:
            raise InputError(f"{self.path} is of another version of lenssr: give another folder")
        return about

    def _compare(self, lenses: LensList, asked: dict[str, Any], digest: str) -> None:
        about = self.about()
        before = about["asked"]
        plain = json.loads(json.dumps(asked))
        differ = [name for name in {**before, **plain} if before.get(name) != plain.get(name)]
        if differ:
            told = ", ".join(
                f"{name} was {quoted(before.get(name), 60)}, is {quoted(plain.get(name), 60)}"
                for name in differ
            )
            raise InputError(f"{self.path} has other settings: {told}: give the same, or another folder")
        if about["digest"] != digest:
            raise InputError(
                f"{self.path} has other input: {self._what_differs(lenses)}: give the same, or another folder"
            )

    def _what_differs(self, lenses: LensList) -> str:
        """Name the first lens that is other than it was."""
        before = {}
        with open(self.path / LENSES, encoding="utf-8") as file:
            for line in file:
                entry = json.loads(line)
                before[entry["id"]] = entry
        now = {entry["id"]: entry for entry in map(json.loads, lenses.lines())}
        for name in [name for name in now if name not in before]:
            return f"the lens {name} is new"
        for name in [name for name in before if name not in now]:
            return f"the lens {name} is gone"
        for name, entry in now.items():
            for key in {**before[name], **entry}:
                old, new = before[name].get(key), entry.get(key)
                if old != new and key == "states":
                    changed = [path for path in new if new[path] != old.get(path)]
                    return f"{changed[0] if changed else name} has changed since"
                if old != new:
                    return f"{key} of the lens {name} was {quoted(old, 60)}, is {quoted(new, 60)}"
        return "the order of the lenses"

    # ------------------------------------------------------------ rows

    def journal(self) -> Journal:
        """Lines of this process."""
        return Journal(self.path / ROWS)

    def done(self, *, rows: bool = False) -> dict[str, Done]:
        """By id what is done, the latest where a lens was done again; with the JSON of each if asked for."""
        found: dict[str, Done] = {}
        for name, finished, mark, text in self._lines():
            before = found.get(name)
            if before is None or finished >= before.finished:
                found[name] = Done(finished, mark == "failed", text if rows else b"")
        return found

    def _lines(self) -> Iterator[tuple[str, float, str, bytes]]:
        for path in sorted((self.path / ROWS).glob("*.jsonl")):
            with open(path, "rb") as file:
                for line in file:
                    parts = line.split(b"\t", 3)
                    if len(parts) == 4 and line.endswith(b"}\n"):  # the last one of a killed process may not
                        name, finished, mark, text = parts
                        yield name.decode(), float(finished), mark.decode(), text

    # ------------------------------------------------------------ places

    def place(self, lens: ListedLens, kind: str) -> str:
        """Path of a file of a lens, relative to the folder."""
        folder, suffix = KINDS[kind]
        return f"{folder}/{lens.number // IN_A_FOLDER:04d}/{lens.stem}{suffix}"

    def make_places(self, lenses: LensList) -> None:
        """Make the subfolders, and delete what processes that were killed left half-written."""
        numbers = range((len(lenses) - 1) // IN_A_FOLDER + 1)
        sweep(self.path)
        for folder, _ in KINDS.values():
            for number in numbers:
                place = self.path / folder / f"{number:04d}"
                try:
                    place.mkdir(parents=True, exist_ok=True)
                except OSError as error:
                    raise InputError(
                        f"{place} cannot be made ({error.strerror}): free it, and go on"
                    ) from error
                sweep(place)
