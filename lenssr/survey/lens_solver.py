"""Solving lenses of a survey in this process: reading, fitting, and writing what there is to write."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from lenssr._files import atomic
from lenssr._limits import limited
from lenssr.exceptions import InputError, short_line
from lenssr.imaging import Observation
from lenssr.imaging.cutting import MOST_PIXELS
from lenssr.resolver import SuperResolver
from lenssr.survey.lens_list import ListedLens
from lenssr.survey.lens_row import failed_row, row_of
from lenssr.survey.lens_strip import write_strip
from lenssr.survey.work_folder import WorkFolder

__all__ = ["Job", "LensSolver", "Stopped"]


class Stopped(Exception):
    """The run cannot go on; the message says why."""


@dataclass(frozen=True)
class Job:
    """What to do with each lens, and where to put what comes of it."""

    resolver: SuperResolver
    folder: str
    reading: dict[str, Any] = field(default_factory=dict)
    size: Any = None  # angle of the cutouts about the positions
    figures: bool = True
    share: int = 1  # processes that share the memory of the machine


class LensSolver:
    """Solves lenses one after the other, or those of a batch together."""

    def __init__(self, job: Job) -> None:
        self.job, self.folder = job, WorkFolder(job.folder)
        self.journal = self.folder.journal()

    def solve(
        self, lenses: Sequence[ListedLens], wanted: Sequence[str], attempts: int
    ) -> list[dict[str, Any]]:
        """Solve lenses together, write the files of those that are wanted, and return what the log needs.

        Raises
        ------
        Stopped
            If a file cannot be written: the rest would fare the same.
        """
        _forget_peak()
        started = time.perf_counter()
        with limited(jobs=self.job.share), _warned() as told:
            found = self._results(lenses)
        seconds = (time.perf_counter() - started) / len(lenses)
        brief = []
        for lens, result in zip(lenses, found, strict=True):
            if lens.id not in wanted:
                continue
            own = time.perf_counter()
            try:
                row = self._write(lens, result)
                row |= {"seconds": seconds + time.perf_counter() - own, "memory": peak_memory()}
                row |= _about_this_process(attempts)
                self.journal.add(row)
            except (OSError, InputError) as error:
                raise Stopped(_one_line(error)) from error
            names = ("id", "grade", "failure", "stage", "seconds", "memory")
            brief.append({name: row.get(name) for name in names} | {"warnings": told})
        return brief

    # ------------------------------------------------------------ results

    def _results(self, lenses: Sequence[ListedLens]) -> list[Any]:
        """A result for each lens, or (stage, error)."""
        if len(lenses) == 1 or any(len(one.files) > 1 for one in lenses):
            return [self._alone(lens) for lens in lenses]
        results: list[Any] = []
        for lens in lenses:
            try:
                results.append(self._observation(lens))
            except Exception as error:  # noqa: BLE001 - one lens must not stop the others
                results.append(("reading", error))
        read = [k for k, one in enumerate(results) if not isinstance(one, tuple)]
        radii = [_expected(lenses[k]) for k in read]
        # A lens with a mask of its own, which it has been read with, hides nothing else.
        masks = [np.zeros(results[k].shape, bool) if lenses[k].mask else None for k in read]
        images = [results[k] for k in read]
        solved = self.job.resolver.map(images, mask=masks, theta_E=radii) if read else []
        for k, one in zip(read, solved, strict=True):
            results[k] = one if one else ("solving", getattr(one, "error", one))
        return results

    def _alone(self, lens: ListedLens) -> Any:
        stage = "reading"
        try:
            image, given = self._image(lens)
            stage = "solving"
            return self.job.resolver(image, theta_E=_expected(lens), **given)
        except InputError as error:
            return "reading" if stage == "solving" and _of_file(error, lens) else stage, error
        except Exception as error:  # noqa: BLE001 - one lens must not stop the others
            return stage, error

    def _image(self, lens: ListedLens) -> tuple[Any, dict[str, Any]]:
        """What a resolver takes: a file, or several by band; and the keywords that go with it."""
        given = dict(self.job.reading)
        if self.job.size is not None:
            given |= {"centre": lens.place, "size": self.job.size}
        if lens.mask is not None:
            given["mask"] = lens.mask
        if len(lens.files) == 1:
            (band,) = lens.files
            psf = lens.psfs.get(band, lens.psfs.get(""))
            return lens.files[band], given | ({} if psf is None else {"psf": psf})
        psfs = {band: lens.psfs.get(band, lens.psfs.get("")) for band in lens.files}
        return dict(lens.files), given | ({"psf": psfs} if any(psfs.values()) else {})

    def _observation(self, lens: ListedLens) -> Observation:
        """An image that is read, for a batch; other objects are hidden later."""
        image, given = self._image(lens)
        base = self.job.resolver
        mask = None if isinstance(base.mask, str) and base.mask == "auto" else base.mask
        defaults = {"psf": base.psf, "noise": base.noise, "mask": mask, "most_pixels": MOST_PIXELS}
        return Observation.from_any(image, **defaults | given)

    # ------------------------------------------------------------ files

    def _write(self, lens: ListedLens, result: Any) -> dict[str, Any]:
        """Write the files of a result; its row."""
        if isinstance(result, tuple):
            return failed_row(lens, *result)
        row = row_of(lens, result)
        product, thumbnail = (self.folder.place(lens, kind) for kind in ("product", "thumbnail"))
        from lenssr.result.fits import result_hdus
        from lenssr.result.hdus import write_hdus

        with atomic(self.folder.path / product, alone=False) as temporary:
            write_hdus(result_hdus(result), temporary)
        with atomic(self.folder.path / thumbnail, alone=False) as temporary:
            write_strip(result, temporary)
        row |= {"product": product, "thumbnail": thumbnail, "figure": ""}
        if self.job.figures:
            row["figure"] = self.folder.place(lens, "figure")
            self._draw(result, self.folder.path / row["figure"])
        return row

    def _draw(self, result: Any, path: Path) -> None:
        """Draw the figure; one that cannot be drawn, without a pixel scale, is left out."""
        from lenssr.result.plot import draw

        try:
            figure = draw(result)
        except InputError:
            return
        with atomic(path, alone=False) as temporary:
            figure.savefig(temporary, format="png")


def _expected(lens: ListedLens) -> float | None:
    """The Einstein radius of the catalogue in arcsec, where it has one."""
    return float(lens.theta_E) if np.isfinite(lens.theta_E) else None


def _of_file(error: InputError, lens: ListedLens) -> bool:
    return any(os.path.basename(path) in str(error) for path in lens.all_files)


def _one_line(error: Exception) -> str:
    reason = getattr(error, "strerror", None)
    return short_line(f"{error.filename or 'a file'} cannot be written ({reason})" if reason else error)


# ---------------------------------------------------------------- about this process


def _about_this_process(attempts: int) -> dict[str, Any]:
    now = datetime.now(tz=UTC).isoformat(timespec="seconds").replace("+00:00", "")
    return {"attempts": attempts, "host": socket.gethostname(), "finished": now}


@contextlib.contextmanager
def _warned() -> Iterator[list[str]]:
    """Collect warnings, which go to the log of the survey."""
    texts: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = lambda message, *_, **__: texts.append(short_line(message))
        yield texts


def _forget_peak() -> None:
    """Have the kernel count the peak memory of this process anew, where it can."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")


def peak_memory() -> float:
    """Peak memory of this process in 1e6 bytes; nan where it is not known."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) * 1024 / 1e6
    return float("nan")


logging.getLogger("lenssr").addHandler(logging.NullHandler())
