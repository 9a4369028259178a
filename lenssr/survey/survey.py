"""`Survey`: a catalogue of lenses in, a catalogue of results out, in a folder in which runs go on."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import QTable, Table
from tqdm import tqdm

from lenssr._limits import memory_size
from lenssr._workers import count_jobs, dumps
from lenssr.exceptions import InputError
from lenssr.imaging.cutting import cut_size
from lenssr.resolver import SuperResolver
from lenssr.survey.catalogue import write_catalogue
from lenssr.survey.engines import Batch, DaskEngine, LoopEngine
from lenssr.survey.lens_list import read_lens_list
from lenssr.survey.lens_solver import Job, Stopped
from lenssr.survey.web_page import write_page
from lenssr.survey.work_folder import Done, WorkFolder
from lenssr.units import positive_integer

__all__ = ["Survey", "SurveySummary"]

# Seconds between two lines of progress where there is no terminal.
TELL = 30.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SurveySummary:
    """What came of a run of a `Survey`.

    Parameters
    ----------
    total : int
        Number of lenses in the catalogue, or in the part.
    solved : int
        Number of lenses that this run solved, failures among them.
    grades : dict of int
        Number of lenses by grade, of all that are done; ``"failed"`` among them.
    failures : dict of int
        Number of lenses that failed, by the reason.
    seconds : float
        Wall time of this run.
    """

    total: int
    solved: int
    grades: dict[str, int] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def missing(self) -> int:
        """Number of lenses that are not done yet."""
        return self.total - sum(self.grades.values())

    def text(self) -> str:
        """Say it in a few lines."""
        rate = f", {3600 * self.solved / self.seconds:.0f} an hour" if self.solved and self.seconds else ""
        lines = [f"lenses         {self.total}, {self.missing} not done yet" if self.missing else
                 f"lenses         {self.total}, all done"]  # fmt: skip
        lines.append(f"this run       {self.solved} in {_duration(self.seconds)}{rate}")
        lines.append(
            f"grades         {', '.join(f'{n} {name}' for name, n in self.grades.items()) or 'none'}"
        )
        lines += [f"  failed       {count} x {reason}" for reason, count in list(self.failures.items())[:10]]
        return "\n".join(lines)


class Survey:
    """Super-resolve the lenses of a catalogue, into a folder that a run can be stopped in and go on in.

    Parameters
    ----------
    source : path or `~astropy.table.Table`
        A table (ECSV, FITS, CSV, VOTable, Parquet) with the columns ``id``, ``file`` or ``file_BAND`` (paths
        relative to the table), and optionally ``ra`` and ``dec`` in degrees or ``skycoord``, ``psf`` or
        ``psf_BAND``, ``mask``, ``theta_E`` in arcsec (where the fit of the lens begins), ``z_lens`` and
        ``z_source``. Or a folder or pattern, whose FITS files are a lens each.
    folder : path
        Where everything goes; made if it does not exist. One that holds a survey goes on with it, and is
        refused if settings or input are others.
    resolver : `~lenssr.SuperResolver`, optional
        By default one with its defaults.
    files : str, optional
        Pattern of the files, such as ``"{id}_{band}.fits"``, relative to the table or folder, instead of
        columns. Without ``{id}`` all lenses are in one mosaic.
    size : `~astropy.units.Quantity`, optional
        Side, or (height, width), of a cutout about each position, in arcsec if bare.
    keep : sequence of str, optional
        Further columns of the table that go through to the catalogue; ``"*"``: all.
    reading : dict, optional
        Keywords of `~lenssr.imaging.Observation.from_any` for every image, such as ``unit`` or ``hdus``.
    figures : bool, optional
        Whether a figure of each lens is drawn, by default True; it takes about a second.
    batch : int, optional
        Number of lenses that are solved together, neighbours in the catalogue; 1 by default. On a GPU more
        are faster.

    Raises
    ------
    InputError
        If the catalogue has a problem; each is named, and logged.

    Notes
    -----
    Results do not depend on the number of workers, nor on interruptions: batches are fixed by the catalogue.
    A ``theta_E`` of the catalogue is what `~lenssr.SuperResolver` takes as ``theta_E=``.

    Examples
    --------
    >>> import tempfile
    >>> from lenssr import SuperResolver
    >>> from lenssr.simulation import DeepLense, write_dataset
    >>> from lenssr.survey import Survey
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = write_dataset(DeepLense(size=2), folder)
    ...     survey = Survey(folder, f"{folder}/run", resolver=SuperResolver(source="interpolation"))
    >>> survey
    <Survey of 2 lenses, not begun>
    """

    def __init__(
        self,
        source: str | PathLike[str] | Table,
        folder: str | PathLike[str],
        *,
        resolver: SuperResolver | None = None,
        files: str | None = None,
        size: u.Quantity | float | None = None,
        keep: Sequence[str] = (),
        reading: Mapping[str, Any] | None = None,
        figures: bool = True,
        batch: int = 1,
    ) -> None:
        self.resolver = SuperResolver() if resolver is None else resolver
        if not isinstance(self.resolver, SuperResolver):
            raise InputError(f"resolver = {self.resolver!r}: give a SuperResolver")
        self.reading = dict(reading or {})
        self.batch, self.figures = positive_integer(batch, "batch"), bool(figures)
        self.size = None if size is None else cut_size(size) * u.arcsec
        keep = (keep,) if isinstance(keep, str) else tuple(keep)
        self.lenses = read_lens_list(source, files=files, needs_places=self.size is not None, keep=keep)
        if self.resolver.settings.knows_lens and any(not math.isnan(one.theta_E) for one in self.lenses):
            raise InputError("the catalogue has theta_E, but the lens is given: leave one of both out")
        self.folder = WorkFolder(folder)
        self._repeat = f"Survey({str(source)!r}, {str(folder)!r}, ...).run(redo=[ID])"

    def __repr__(self) -> str:
        begun = (self.folder.path / "survey.json").exists()
        where = f"in {self.folder.path}" if begun else "not begun"
        return f"<Survey of {len(self.lenses)} lenses, {where}>"

    def repeat_by(self, command: str) -> None:
        """Name the command that repeats one lens, with ``ID`` in its place, for the table of failures.

        Parameters
        ----------
        command : str
            By default the call in Python.
        """
        self._repeat = command

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that results depend on, as plain values; a folder is for one set of them."""
        base = self.resolver
        found = {f"resolver.{name}": value for name, value in base.settings.save().items()}
        found.pop("resolver.device", None)
        network = base.settings.network
        found["resolver.weights"] = None if network is None else _plain(network.weights)
        for name in ("psf", "noise", "mask"):
            found[f"resolver.{name}"] = _plain(getattr(base, name))
        found |= {f"reading.{name}": _plain(value) for name, value in sorted(self.reading.items())}
        size = None if self.size is None else self.size.to_value(u.arcsec).tolist()
        return found | {
            "size": size,
            "batch": self.batch,
            "figures": self.figures,
            "keep": list(self.lenses.keep),
        }

    # ------------------------------------------------------------ running

    def run(
        self,
        *,
        jobs: int | None = 1,
        scheduler: str | None = None,
        part: tuple[int, int] | None = None,
        timeout: float | u.Quantity | None = None,
        memory: float | str | None = None,
        redo: str | Sequence[str] | None = None,
        dashboard: str | None = None,
        progress: bool = False,
    ) -> SurveySummary:
        """Solve the lenses that are not done yet, and write the catalogue and the page.

        Parameters
        ----------
        jobs : int, optional
            Number of processes that solve lenses, by default 1; -1 or None: one for each core. More than
            one needs Dask (``lenssr[survey]``).
        scheduler : str, optional
            Address of a Dask scheduler, such as ``"tcp://host:8786"``, whose workers do the work instead:
            one lens for each of their threads.
        part : tuple of int, optional
            ``(K, N)``: only every N-th batch, from the K-th (1 to N). Parts may run at the same time, on
            several machines with one file system; `collect` makes the catalogue.
        timeout : float or `~astropy.units.Quantity`, optional
            Most seconds for a lens; no limit by default.
        memory : float or str, optional
            Most memory of the process that solves a lens, such as ``"2GB"``; no limit by default.
        redo : "failed", "all", or sequence of str, optional
            What is done again: what failed, everything, or lenses by id.
        dashboard : str, optional
            Address such as ``":8787"`` for Dask's dashboard of the local cluster (needs bokeh).
        progress : bool, optional
            Whether a progress bar is shown, by default not. Lines of progress go to the logger.

        Returns
        -------
        summary : `SurveySummary`

        Raises
        ------
        InputError
            If the folder is that of another survey, a file cannot be written, or the scheduler is gone. Give
            the same call again when that is mended: it goes on.
        """
        started = time.perf_counter()
        jobs = count_jobs(jobs, self.resolver.settings.torch_device)
        limits = {"timeout": _seconds(timeout), "memory": None if memory is None else memory_size(memory)}
        chosen = self._part(part)
        self.folder.begin(self.lenses, self.settings, self._repeat)
        self.folder.make_places(self.lenses)
        names = {one.id for batch in chosen for one in batch}
        done = {name: one for name, one in self.folder.done().items() if name in names}
        wanted = names - done.keys() | self._again(redo, names, done)
        batches: list[Batch] = [(batch, [one.id for one in batch if one.id in wanted]) for batch in chosen]
        batches = [batch for batch in batches if batch[1]]
        told = _RunLog(self.folder.path / ("survey.log" if part is None else f"survey-{part[0]}.log"))
        with told:
            told.say(f"{len(wanted)} of {len(names)} lenses to solve in {self.folder.path}")
            if batches:
                place = str(self.folder.path.resolve())
                job = Job(self.resolver, place, self.reading, self.size, self.figures, jobs)
                self._solve(job, batches, jobs, scheduler, dashboard, limits, told, progress)
            if part is None:
                self.collect()
            summary = self._summary(names, len(wanted), time.perf_counter() - started)
            for line in summary.text().splitlines():
                told.note(line)
        return summary

    def _solve(
        self,
        job: Job,
        batches: list[Batch],
        jobs: int,
        scheduler: str | None,
        dashboard: str | None,
        limits: dict[str, Any],
        told: _RunLog,
        progress: bool,
    ) -> None:
        """Have an engine solve the batches."""
        dumps(job)  # what cannot be sent is found out before processes start
        engine: LoopEngine | DaskEngine
        if scheduler is None and jobs == 1 and dashboard is None:
            engine = LoopEngine(job, **limits)
        else:
            engine = DaskEngine(job, jobs=jobs, scheduler=scheduler, dashboard=dashboard, **limits)
        if engine.dashboard:
            told.say(f"the dashboard is at {engine.dashboard}")
        total = sum(len(wanted) for _, wanted in batches)
        bar = tqdm(total=total, disable=not progress, unit="lens", smoothing=0.05)
        try:
            with bar:
                for found in engine.run(batches):
                    bar.update(len(found))
                    told.lenses(found, total, quiet=progress)
        except Stopped as error:
            raise InputError(f"{error}; what is done is kept, the same command goes on") from error
        finally:
            engine.close()

    def _batches(self) -> list[list[Any]]:
        size = self.batch
        return [list(self.lenses.lenses[k : k + size]) for k in range(0, len(self.lenses), size)]

    def _part(self, part: tuple[int, int] | None) -> list[list[Any]]:
        """The batches of a part."""
        if part is None:
            return self._batches()
        try:
            number, count = (positive_integer(one, "part") for one in part)
        except (TypeError, ValueError):
            number, count = 1, 0
        if not 1 <= number <= count:
            raise InputError(f"part = {part!r}: give (K, N) with K from 1 to N (--part K/N)")
        return self._batches()[number - 1 :: count]

    def _again(self, redo: Any, names: set[str], done: dict[str, Done]) -> set[str]:
        """Ids of what is done again."""
        if redo is None:
            return set()
        if isinstance(redo, str) and redo in ("failed", "all"):
            return {name for name, one in done.items() if one.failed or redo == "all"}
        given = {redo} if isinstance(redo, str) else set(redo)
        unknown = sorted(given - {one.id for one in self.lenses})
        if unknown:
            raise InputError(f"redo: there is no lens {unknown[0]!r} in the catalogue: check the name")
        return given & names

    def _summary(self, names: Iterable[str], solved: int, seconds: float) -> SurveySummary:
        grades, failures = Counter[str](), Counter[str]()
        names = set(names)
        for name, one in self.folder.done(rows=True).items():
            if name in names:
                row = one.row()
                grades[row["grade"]] += 1
                if one.failed:
                    failures[row["failure"]] += 1
        return SurveySummary(
            len(names), solved, dict(grades.most_common()), dict(failures.most_common()), seconds
        )

    # ------------------------------------------------------------ collecting

    def collect(self) -> QTable:
        """Write the catalogue, the table of failures and the page of what is done so far.

        Returns
        -------
        catalogue : `~astropy.table.QTable`
            A row for each lens that is done, in the order of the input, with units and descriptions;
            ``catalogue.ecsv``, ``.fits`` and (with pyarrow) ``.parquet`` in the folder hold it, too.

        Raises
        ------
        InputError
            If the folder holds no survey, or another one, or a file cannot be written.
        """
        self.folder.begin(self.lenses, self.settings, self._repeat)
        table = write_catalogue(self.folder, self.lenses)
        write_page(self.folder.path, table, self.lenses.name)
        return QTable(table, copy=False)


# ---------------------------------------------------------------- what is told


class _RunLog:
    """The log file of a run, and lines for the logger."""

    def __init__(self, path: Path) -> None:
        self.path, self.done, self.failed = path, 0, 0
        self.began = self.told = time.monotonic()

    def __enter__(self) -> _RunLog:
        try:
            self._file = open(self.path, "a", encoding="utf-8", buffering=1)
        except OSError as error:
            raise InputError(f"{self.path} cannot be written ({error.strerror}): free it") from error
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        with contextlib.suppress(OSError):
            if kind is not None:
                self.note(f"stopped: {error or kind.__name__}")
            self._file.close()

    def note(self, text: str) -> None:
        """Write a line to the file alone."""
        try:
            self._file.write(f"{datetime.now().isoformat(timespec='seconds')} {text}\n")
        except OSError as error:
            raise InputError(
                f"{self.path} cannot be written ({error.strerror}): free it, and go on"
            ) from error

    def say(self, text: str) -> None:
        """Write a line to file and logger."""
        self.note(text)
        log.info("%s", text)

    def lenses(self, found: list[dict[str, Any]], total: int, quiet: bool) -> None:
        """Tell of lenses that are done; now and then, how far the run is."""
        for one in found:
            self.done += 1
            self.failed += bool(one["failure"])
            told = f"{one['grade']}" + (f": {one['stage']}: {one['failure']}" if one["failure"] else "")
            self.note(f"{one['id']}: {told}, {one['seconds']:.3g} s, {one['memory']:.0f} MB")
            for text in one.get("warnings") or ():
                self.note(f"{one['id']}: warning: {text}")
        if not quiet and time.monotonic() - self.told > TELL and self.done < total:
            self.told = time.monotonic()
            left = (self.told - self.began) / self.done * (total - self.done)
            told = f"{self.done} of {total} lenses, {self.failed} failed, about {_duration(left)} left"
            log.info("%s", told)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _seconds(timeout: Any) -> float | None:
    if timeout is None:
        return None
    try:
        seconds = float(u.Quantity(timeout, u.s).value)
    except (TypeError, ValueError, u.UnitsError):
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise InputError(f"timeout = {timeout!r}: give a positive number of seconds")
    return seconds


def _plain(value: Any) -> Any:
    """A value as text that is the same in every process: arrays by their checksum, files by their path."""
    if isinstance(value, str | int | float | bool | None):
        return value
    if isinstance(value, PathLike):
        return str(Path(value).resolve())
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, np.ndarray | u.Quantity) and np.size(value) > 1:
        return f"array {hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()[:16]}"
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return str(value)
