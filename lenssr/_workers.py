"""Solving the parts of a list of images, here or in other processes.

A new process imports this module first, and the heavy ones with what it is sent.
"""

import contextlib
import io
import logging
import logging.handlers
import multiprocessing
import multiprocessing.context
import os

# Between processes of one run only: nothing that a file holds is unpickled.
import pickle  # nosec B403
import queue
import signal
import sys
import threading
import traceback
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

import numpy as np

from lenssr._limits import memory_limit, set_memory_limit
from lenssr.exceptions import InputError

# Processes side by side, each with as many threads as there are cores, slow one another down.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
NOT_STARTED = (
    "the processes of jobs= do not start: a script that calls map needs the line "
    'if __name__ == "__main__": above what it does; or give jobs=1'
)

log = logging.getLogger("lenssr")


# ---------------------------------------------------------------- how many


def count_jobs(jobs, device):
    """Number of processes for an option ``jobs`` (-1 and None: one for each core) on a `torch.device`."""
    whole = isinstance(jobs, int | np.integer) and not isinstance(jobs, bool)
    everything = jobs is None or (whole and jobs == -1)
    if not everything and not (whole and jobs >= 1):
        raise InputError(f"jobs = {jobs!r}: give a number of processes, 1 or more, or -1 for one a core")
    if device.type != "cpu":
        if not everything and jobs > 1:
            raise InputError(
                f"jobs = {jobs} with device = {str(device)!r}: images are solved in batches there; give "
                "jobs=1, or device='cpu'"
            )
        return 1
    if not everything:
        return int(jobs)
    with contextlib.suppress(AttributeError):  # not every system knows which cores are ours
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# ---------------------------------------------------------------- one part


def solve_part(solve, observations):
    """Solve images together; after a failure each by itself, so that only the guilty ones fail.

    ``solve(observations)`` gives a list of results, or exceptions where single images failed; so does this.
    """
    try:
        return solve(observations)
    except Exception as error:  # noqa: BLE001 - one failure must not stop the rest
        if len(observations) == 1:
            return [error]
        return [solve_part(solve, [observation])[0] for observation in observations]


def solve_parts(solve, parts, jobs):
    """Solve parts, each as soon as a process is free for it; yield their numbers and results.

    ``solve`` is as in `solve_part`; ``parts`` are lists of (number, `~lenssr.imaging.Observation`) that are
    solved together. With ``jobs`` = 1 all are solved in this process. Results do not depend on ``jobs``;
    their order does. `InputError` if processes do not start, or do not know what is sent to them.
    """
    jobs = min(jobs, len(parts))
    if jobs > 1:
        yield from _in_processes(solve, parts, jobs)
        return
    for part in parts:
        yield [number for number, _ in part], solve_part(solve, [one for _, one in part])


# ---------------------------------------------------------------- what travels


class _Pickler(pickle.Pickler):
    """Pickles WCS to the last digit; on their own they go through headers of twelve digits."""

    def reducer_override(self, value):
        module = sys.modules.get("astropy.wcs")
        if module is None or not isinstance(value, module.WCS):
            return NotImplemented
        names = "crpix", "crval", *(("cd",) if value.wcs.has_cd() else ("cdelt", "pc"))
        return _exact_wcs, (value.__reduce__(), {name: getattr(value.wcs, name).copy() for name in names})


def _exact_wcs(reduced, exact):
    build, arguments, *_ = reduced
    wcs = build(*arguments)
    if "cd" in exact and wcs.wcs.has_pc():
        del wcs.wcs.pc
        wcs.wcs.cdelt = np.ones(wcs.naxis)
    for name, value in exact.items():
        setattr(wcs.wcs, name, value)
    wcs.wcs.set()
    return wcs


def dumps(value):
    """Bytes of a value, from which ``pickle.loads`` makes an exact copy."""
    buffer = io.BytesIO()
    _Pickler(buffer, pickle.HIGHEST_PROTOCOL).dump(value)
    return buffer.getvalue()


def _portable(error):
    """An error that survives the way between processes, with the traceback as a note."""
    error.add_note("".join(traceback.format_exception(error)).rstrip())
    try:
        pickle.loads(pickle.dumps(error))  # nosec B301
    except Exception:  # noqa: BLE001 - whatever its class does when it is copied
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


# ---------------------------------------------------------------- the other side

_records = queue.SimpleQueue()


def _begin(level, memory):
    """Prepare a new process: records of ``level`` are kept, and sent with the next results.

    It may need ``memory`` bytes, and ends with the process that started it, however that one ends.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    set_memory_limit(memory)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # Ctrl-C reaches every process of a terminal; the one that started this one ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    log.setLevel(level)
    log.addHandler(logging.handlers.QueueHandler(_records))


def _end_with_parent():
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _answer(task):
    """Bytes of the results of a task (or a str, why it cannot be read), and of log records."""
    try:
        solve, observations = pickle.loads(task)  # nosec B301
    except Exception as error:  # noqa: BLE001 - classes of a notebook, say, which nobody else has
        return dumps((f"{type(error).__name__}: {error}", []))
    try:
        found = solve_part(solve, observations)
    except BaseException:  # a sys.exit somewhere, which an executor would hand on to the other side
        traceback.print_exc()
        os._exit(1)
    results = [_portable(one) if isinstance(one, Exception) else one for one in found]
    records = [_records.get() for _ in range(_records.qsize())]
    try:
        return dumps((results, records))
    except Exception as error:  # noqa: BLE001
        return dumps(([RuntimeError(f"the result cannot be sent: {error}")] * len(results), []))


# ---------------------------------------------------------------- this side


class _Context(multiprocessing.context.SpawnContext):
    """Starts processes afresh (a fork of a process with threads, as torch's is, may hang); keeps the last."""

    def Process(self, *args, **options):  # noqa: N802 - its name there
        self.process = super().Process(*args, **options)
        return self.process


class _Worker:
    """One process in an executor of its own: when it ends by itself, the part that it had is known."""

    def __init__(self):
        self.context, self.part, self.ready = _Context(), None, False
        self.executor = ProcessPoolExecutor(
            1, self.context, _begin, (log.getEffectiveLevel(), memory_limit())
        )
        with _few_threads():
            self.future = self.executor.submit(int)

    def give(self, solve, part):
        """Begin with a part."""
        self.part, task = part, _task(solve, part)
        try:
            self.future = self.executor.submit(_answer, task)
        except BrokenProcessPool as error:  # it has ended while it had nothing to do
            self.future = Future()
            self.future.set_exception(error)

    def end(self):
        """End the process, whatever it does, and return its exit code."""
        if self.context.process.is_alive():
            self.context.process.kill()
        self.executor.shutdown()
        return self.context.process.exitcode


@contextlib.contextmanager
def _few_threads():
    """An environment in which a new process takes one thread for its arithmetic, unless it says otherwise."""
    added = [name for name in THREADS if name not in os.environ]
    os.environ.update(dict.fromkeys(added, "1"))
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _in_processes(solve, parts, jobs):
    waiting, workers = deque(parts), []
    _task(solve, waiting[0])  # what cannot be sent is found out before processes start
    try:
        for _ in range(jobs):
            workers.append(_Worker())
        while waiting or any(worker.part for worker in workers):
            for worker in [one for one in workers if not one.future]:
                if waiting:
                    worker.give(solve, waiting.popleft())
            done, _ = wait([one.future for one in workers if one.future], return_when=FIRST_COMPLETED)
            for worker in [one for one in workers if one.future in done]:
                part, future = worker.part, worker.future
                worker.part = worker.future = None
                if isinstance(future.exception(), BrokenProcessPool):
                    workers.remove(worker)
                    yield from _failed(part or [], worker.end(), waiting)
                    if waiting and worker.ready:
                        workers.append(_Worker())
                    elif waiting and not workers:
                        raise InputError(NOT_STARTED)
                    continue
                worker.ready = True
                if part:
                    yield [number for number, _ in part], _results(future.result())
    finally:
        for worker in workers:
            worker.end()


def _task(solve, part):
    try:
        return dumps((solve, [one for _, one in part]))
    except Exception as error:  # noqa: BLE001 - whatever a class does when it is copied
        raise InputError(
            f"the resolver and its images cannot be sent to other processes ({error}): give jobs=1"
        ) from error


def _results(message):
    found, records = pickle.loads(message)  # nosec B301
    if isinstance(found, str):
        raise InputError(
            f"other processes do not know a class of the resolver ({found}): define its classes in a module "
            "that can be imported, or give jobs=1"
        )
    for record in records:
        logging.getLogger(record.name).handle(record)
    return found


def _failed(part, code, waiting):
    """After a process ended by itself: its image fails; several are tried again one by one."""
    if len(part) > 1:
        waiting.extendleft([member] for member in reversed(part))
        return
    reason = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
    for number, _ in part:
        error = RuntimeError(f"its process ended before the image was solved ({reason}): too little memory?")
        yield [number], [error]
