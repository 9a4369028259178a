"""Who hands out the work of a survey: a loop, or Dask on this machine or a cluster.

All of them take batches, give them to a `SolverPool`, and yield what comes of each as it comes.
"""

from __future__ import annotations

import contextlib
import logging
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
# Batches that wait for each thread of a worker: enough that none is idle while news travel.
AHEAD = 2
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


def _solve(token: str, batch: Batch) -> list[dict[str, Any]] | str:
    """Solve a batch in the pool of this worker's process; a str says why the run has to stop."""
    pool = _pools.get(token)
    if pool is None:
        return "a worker does not know this run any more: give the same command again"
    try:
        return pool.solve(*batch)
    except Stopped as error:
        return str(error)


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
    """Workers of Dask: ``jobs`` of them in this process, or those of a scheduler at an address.

    The workers of this process are threads, since all work is done in processes of their pool; they cost
    nothing, and start at once.
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
                    n_workers=jobs,
                    threads_per_worker=1,
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
        from distributed.client import FutureCancelledError

        waiting, ahead, again = iter(batches), 1, dict[str, tuple[Batch, int]]()
        looked = -1e9
        futures = as_completed(loop=self.client.loop, with_results=True, raise_errors=False)

        def hand_out(batch: Batch, count: int = 1) -> None:
            key = f"lens-{self.token}-{uuid.uuid4().hex}"
            again[key] = batch, count
            futures.add(self.client.submit(self._solve, self.token, batch, key=key, pure=False))

        while True:
            if time.monotonic() - looked > 5:  # workers come and go
                looked, ahead = time.monotonic(), AHEAD * max(self.threads(), 1)
            while len(again) < ahead and (batch := next(waiting, None)) is not None:
                hand_out(batch)
            if not again:
                return
            future, answer = next(futures)
            batch, count = again.pop(future.key)
            if future.status == "finished" and not isinstance(answer, str):
                future.release()
                yield answer
            elif isinstance(answer, str):
                raise Stopped(answer)
            elif isinstance(answer, FutureCancelledError) or future.status in ("cancelled", "lost"):
                raise Stopped(
                    f"the scheduler {self.address or ''} is gone: start it, and give the same command"
                )
            elif count < HANDED_OUT and _worker_gone(answer):
                hand_out(batch, count + 1)
            else:
                error = answer[1] if isinstance(answer, tuple) else answer
                raise Stopped(f"a worker of Dask fails ({type(error).__name__}: {error})")

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


def _worker_gone(answer: Any) -> bool:
    error = answer[1] if isinstance(answer, tuple) else answer
    return type(error).__name__ == "KilledWorker"
