"""Who hands out the work of a survey: a loop, or Dask on this machine or a cluster.

All of them take batches, give them to a `SolverPool`, and yield what comes of each as it comes.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from lenssr._quiet import quiet
from lenssr.exceptions import InputError
from lenssr.survey.lens_list import ListedLens
from lenssr.survey.lens_solver import Job, Stopped
from lenssr.survey.solver_pool import SolverPool

__all__ = ["Batch", "DaskEngine", "LoopEngine"]

# Lenses that are solved together, and the ids of those that are wanted.
Batch = tuple[Sequence[ListedLens], Sequence[str]]
# Tasks that are with the scheduler for each thread of a worker, at least half as many: no thread is idle
# while news travel, and Dask is asked for several at once, which costs it half as much.
AHEAD = 8
# Batches of one task: as many as take this many seconds, but no more than this many. A task costs Dask some
# milliseconds, of which lenses of a fraction of a second need not each take their own.
TASK_SECONDS, MOST_BATCHES = 1.0, 50
# How often a batch is handed out again whose worker of Dask ended, and seconds for a scheduler to answer.
HANDED_OUT, ANSWER = 3, 20.0
# Dask serves pages wherever it runs; without a dashboard that is asked for they stay on this machine.
OWN_MACHINE = "127.0.0.1:0"
NEEDS_DASK = "it needs Dask: pip install 'lenssr[survey]', or give jobs=1 without a scheduler"


class LoopEngine:
    """One batch after the other, in this thread; the solving process is still another one."""

    dashboard = ""

    def __init__(self, job: Job, **limits: Any) -> None:
        self.pool = SolverPool(job, **limits)

    def run(self, batches: Iterable[Batch]) -> Iterator[list[dict[str, Any]]]:
        """Yield what comes of each batch."""
        for batch in batches:
            yield self.pool.solve(*batch)

    def close(self) -> None:
        """End its process."""
        self.pool.close()


# ---------------------------------------------------------------- on the workers of Dask

_pools: dict[str, SolverPool] = {}
_lock = threading.Lock()


def _solve(token: str, batches: Sequence[Batch]) -> tuple[list[list[dict[str, Any]]], float] | str:
    """Solve batches in the pool of this worker's process: what comes of each, and seconds of a batch.

    A str says why the run has to stop.
    """
    pool, began = _pools.get(token), time.monotonic()
    if pool is None:
        return "a worker does not know this run any more: give the same command again"
    try:
        found = [pool.solve(*batch) for batch in batches]
    except Stopped as error:
        return str(error)
    return found, (time.monotonic() - began) / len(batches)


def _open_pool(token: str, job: Job, limits: dict[str, float | None]) -> None:
    with _lock:
        if token not in _pools:
            _pools[token] = SolverPool(job, **limits)


def _close_pool(token: str) -> None:
    with _lock:
        pool = _pools.pop(token, None)
    if pool is not None:
        pool.close()


def _plugin(token: str, job: Job, limits: dict[str, float | None]) -> Any:
    """Have every worker, also one that comes later, open a pool, and close it with the run."""
    from distributed.diagnostics.plugin import WorkerPlugin

    class Pools(WorkerPlugin):
        name = f"lenssr-survey-{token}"

        def setup(self, worker: Any) -> None:
            _open_pool(token, job, limits)

        def teardown(self, worker: Any) -> None:
            _close_pool(token)

    return Pools()


class DaskEngine:
    """Workers of Dask: one in this process with ``jobs`` threads, or those of a scheduler at an address.

    Threads are enough, since all work is done in processes of their pool; they cost nothing, and start at
    once.
    """

    def __init__(
        self,
        job: Job,
        *,
        jobs: int = 1,
        scheduler: str | None = None,
        dashboard: str | None = None,
        solve: Callable[..., Any] = _solve,
        **limits: Any,
    ) -> None:
        try:
            import dask
            import distributed
        except ImportError as error:
            raise InputError(NEEDS_DASK) from error
        logging.getLogger("distributed").setLevel(logging.ERROR)
        self.token, self._solve, self.address = uuid.uuid4().hex, solve, scheduler
        self.cluster = None
        # Dask gives a batch up whose worker ended more often than this; our own pools see to their processes.
        # A machine without a network is fine: Dask warns that it finds no address of it.
        with dask.config.set({"distributed.scheduler.allowed-failures": HANDED_OUT}), quiet(RuntimeWarning):
            if scheduler is None:
                self.cluster = distributed.LocalCluster(
                    n_workers=1,
                    threads_per_worker=jobs,
                    processes=False,
                    dashboard_address=dashboard or OWN_MACHINE,
                    worker_dashboard_address=OWN_MACHINE,
                    silence_logs=logging.ERROR,
                )
            try:
                self.client = distributed.Client(
                    self.cluster or scheduler, timeout=ANSWER, set_as_default=False
                )
                self.client.register_plugin(_plugin(self.token, job, limits))
            except (OSError, ValueError) as error:
                raise InputError(f"the scheduler {scheduler} does not answer ({error}): check it") from error
        self.dashboard = self.client.dashboard_link if dashboard or scheduler else ""

    def threads(self) -> int:
        """How many batches the workers solve at once."""
        return sum(self.client.nthreads().values())

    def run(self, batches: Iterable[Batch]) -> Iterator[list[dict[str, Any]]]:
        """Yield what comes of each batch; no more than needed are with the scheduler at any time."""
        from distributed import as_completed

        waiting, ahead, together, out = iter(batches), 1, 1, dict[str, tuple[list[Batch], int]]()
        looked = -math.inf
        futures = as_completed(loop=self.client.loop)
        while True:
            if time.monotonic() - looked > 5:  # workers come and go
                looked, ahead = time.monotonic(), AHEAD * max(self.threads(), 1)
            if len(out) <= ahead // 2:
                some = (list(itertools.islice(waiting, together)) for _ in range(ahead - len(out)))
                futures.update(self._hand_out([(task, 1) for task in some if task], out))
            if not out:
                return
            done = futures.next_batch()
            gave = {future.key: out.pop(future.key) for future in done}
            for answers, seconds in self._answers([one for one in done if one.status != "error"]):
                yield from answers
                together = min(max(int(TASK_SECONDS / max(seconds, 1e-9)), 1), MOST_BATCHES, 2 * together)
            failed = [(future, *gave[future.key]) for future in done if future.status == "error"]
            futures.update(self._hand_out(_once_more(failed), out))

    def _hand_out(
        self, tasks: Sequence[tuple[list[Batch], int]], out: dict[str, tuple[list[Batch], int]]
    ) -> Sequence[Any]:
        """Futures of tasks, which are noted by key, with how often each was handed out."""
        if not tasks:
            return []
        new = {f"lens-{self.token}-{uuid.uuid4().hex}": one for one in tasks}
        out |= new
        given = [self.token] * len(new), [task for task, _ in new.values()]
        return self.client.map(self._solve, *given, key=list(new), pure=False)

    def _answers(self, done: Sequence[Any]) -> list[tuple[list[list[dict[str, Any]]], float]]:
        """What futures that have ended hold; Stopped where the run has to."""
        from distributed.client import FutureCancelledError

        gone = f"the scheduler {self.address or ''} is gone: start it, and give the same command"
        if any(future.status != "finished" for future in done):
            raise Stopped(gone)
        try:
            answers = self.client.gather(list(done))
        except (OSError, FutureCancelledError) as error:
            raise Stopped(gone) from error
        for future, answer in zip(done, answers, strict=True):
            future.release()
            if isinstance(answer, str):
                raise Stopped(answer)
        return answers

    def close(self) -> None:
        """End what this run has started, here and on workers elsewhere, within seconds."""
        _close_pool(self.token)
        with contextlib.suppress(Exception):
            if self.cluster is None and self.client.status == "running":
                self.client.run(_close_pool, self.token, on_error="ignore")
                self.client.unregister_worker_plugin(f"lenssr-survey-{self.token}")
        with contextlib.suppress(Exception):
            self.client.close(timeout=1)
        with contextlib.suppress(Exception):
            if self.cluster is not None:
                self.cluster.close(timeout=2)


def _once_more(failed: Sequence[tuple[Any, list[Batch], int]]) -> list[tuple[list[Batch], int]]:
    """Tasks whose worker of Dask ended, to be handed out again; Stopped where that does not help."""
    for future, _, count in failed:
        error = future.exception()
        if type(error).__name__ != "KilledWorker" or count >= HANDED_OUT:
            raise Stopped(f"a worker of Dask fails ({type(error).__name__}: {error})")
    return [(task, count + 1) for _, task, count in failed]
