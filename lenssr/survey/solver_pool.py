"""Processes that solve lenses, watched: one that takes too long or too much is ended, its lens tried again.

The work of a survey happens in them, whoever hands it out: a loop, or the workers of Dask. So a lens that
kills its process, or never ends, costs nobody else anything.
"""

from __future__ import annotations

import contextlib
import os
import pickle  # nosec B403 - answers of processes that this one started
import select
import subprocess  # nosec B404 - this Python
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import Any

from lenssr._workers import THREADS, dumps
from lenssr.survey.lens_list import ListedLens
from lenssr.survey.lens_row import failed_row
from lenssr.survey.lens_solver import Job, Stopped, _about_this_process
from lenssr.survey.solver_process import LENGTH
from lenssr.survey.work_folder import WorkFolder

__all__ = ["SolverPool"]

# Attempts of a lens whose process ends, the seconds between two looks at its memory, and those in which a new
# process has to be ready: imports take long on a busy file system.
ATTEMPTS, LOOK, START = 2, 0.1, 300.0
# What starts a process.
COMMAND = [sys.executable, "-c", "from lenssr.survey.solver_process import main; main()"]


class _Died(Exception):
    """A process ended, or was ended, before it answered."""

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(reason)
        self.stage, self.reason = stage, reason


class _Solver:
    """One process."""

    def __init__(self, job: bytes) -> None:
        few = {name: os.environ.get(name, "1") for name in THREADS}
        self.told = tempfile.TemporaryFile()
        self.process = subprocess.Popen(  # nosec B603
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.told,
            env={**os.environ, **few, "MPLBACKEND": "Agg", "PYTHONPATH": _python_path()},
        )
        self._send(job)

    def _send(self, content: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):  # `_receive` says why
            self.process.stdin.write(LENGTH.pack(len(content)) + content)
            self.process.stdin.flush()

    def begin(self) -> None:
        """Wait until it is ready."""
        self._receive(START, None)

    def ask(self, task: Any, seconds: float | None, memory: float | None) -> tuple[str, Any]:
        """Have it do something within some seconds, with at most so many bytes."""
        self._send(pickle.dumps(task, pickle.HIGHEST_PROTOCOL))
        return self._receive(seconds, memory)

    def _receive(self, seconds: float | None, memory: float | None) -> tuple[str, Any]:
        started, content = time.monotonic(), b""
        out = self.process.stdout.fileno()
        while True:
            ready, _, _ = select.select([out], [], [], LOOK)
            if ready:
                part = os.read(out, 2**20)
                if not part:
                    raise _Died("process", self._last_words())
                content += part
                if (
                    len(content) >= LENGTH.size
                    and len(content) - LENGTH.size == LENGTH.unpack(content[:8])[0]
                ):
                    return pickle.loads(content[LENGTH.size :])  # nosec B301
                continue
            if seconds is not None and time.monotonic() - started > seconds:
                raise _Died("time limit", f"it was not done within {seconds:g} s")
            if memory is not None and (used := _resident(self.process.pid)) > memory:
                told = f"it took {used / 1e6:.0f} MB of memory, the limit is {memory / 1e6:.0f} MB"
                raise _Died("memory limit", told)

    def _last_words(self) -> str:
        code = self.process.wait()
        reason = f"signal {-code}" if code < 0 else f"exit code {code}"
        self.told.seek(0)
        lines = self.told.read().decode("utf-8", "replace").strip().splitlines()
        return f"its process ended ({reason})" + (f": {lines[-1]}" if lines and code > 0 else "")

    def end(self) -> None:
        """End it, whatever it does."""
        self.process.kill()
        self.process.wait()
        for file in (self.process.stdin, self.process.stdout, self.told):
            with contextlib.suppress(OSError):
                file.close()


class SolverPool:
    """Processes for one job, started when they are needed; any thread may ask for one."""

    def __init__(self, job: Job, *, timeout: float | None = None, memory: float | None = None) -> None:
        self.job, self.timeout, self.memory = dumps(job), timeout, memory
        self.folder = WorkFolder(job.folder)
        self._journal = self.folder.journal()
        self._lock = threading.Lock()
        self._idle: list[_Solver] = []
        self._all: set[_Solver] = set()
        self._closed = False

    def solve(self, lenses: Sequence[ListedLens], wanted: Sequence[str]) -> list[dict[str, Any]]:
        """Solve a batch; a lens whose process ends is tried once more, alone, and then has failed."""
        found = []
        try:
            return self._try(lenses, wanted, 1)
        except _Died as died:
            if len(lenses) == 1:
                return [self._again(lenses[0], died)]
        for lens in lenses:
            if lens.id in wanted:
                try:
                    found += self._try([lens], [lens.id], 1)
                except _Died as died:
                    found.append(self._again(lens, died))
        return found

    def _again(self, lens: ListedLens, died: _Died) -> dict[str, Any]:
        for attempt in range(2, ATTEMPTS + 1):
            try:
                return self._try([lens], [lens.id], attempt)[0]
            except _Died as error:
                died = error
        row = failed_row(lens, died.stage, f"{died.reason}, {ATTEMPTS} times")
        row |= _about_this_process(ATTEMPTS) | {"seconds": float("nan"), "memory": float("nan")}
        try:
            self._journal.add(row)
        except OSError as error:
            raise Stopped(f"a row cannot be written ({error.strerror})") from error
        return {name: row.get(name) for name in ("id", "grade", "failure", "stage", "seconds", "memory")}

    def _try(self, lenses: Sequence[ListedLens], wanted: Sequence[str], attempt: int) -> list[dict[str, Any]]:
        solver = self._take()
        limit = None if self.timeout is None else self.timeout * len(lenses)
        try:
            kind, answer = solver.ask((list(lenses), list(wanted), attempt), limit, self.memory)
        except BaseException:
            self._drop(solver)
            if self._closed:
                raise Stopped("the run was stopped") from None
            raise
        with self._lock:
            self._idle.append(solver)
        if kind == "stopped":
            raise Stopped(answer)
        return answer

    def _take(self) -> _Solver:
        with self._lock:
            if self._closed:
                raise Stopped("the run was stopped")
            if self._idle:
                return self._idle.pop()
            solver = _Solver(self.job)
            self._all.add(solver)
        try:
            solver.begin()
        except _Died as died:
            self._drop(solver)
            raise Stopped(f"no process can be started: {died.reason}") from died
        return solver

    def _drop(self, solver: _Solver) -> None:
        with self._lock:
            self._all.discard(solver)
        solver.end()

    def processes(self) -> list[int]:
        """Ids of its processes."""
        with self._lock:
            return [solver.process.pid for solver in self._all]

    def close(self) -> None:
        """End all processes at once."""
        with self._lock:
            self._closed = True
            solvers, idle = list(self._all), list(self._idle)
        for solver in solvers:
            solver.process.kill()
        for solver in solvers:
            solver.process.wait()
        for solver in idle:  # a thread that waits for another one sees that it is gone, and closes its files
            self._drop(solver)
        self._journal.close()


def _python_path() -> str:
    """Where this process finds modules, for one that it starts."""
    return os.pathsep.join(os.path.abspath(place) for place in sys.path)


def _resident(process: int) -> float:
    """Bytes of memory that a process holds; 0 where that is not known."""
    try:
        with open(f"/proc/{process}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0.0
