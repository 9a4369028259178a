"""Solving the parts of a list of images, here or in processes of their own.

A new process imports this module first, and the heavy ones with what it is sent.
"""

import contextlib
import io
import multiprocessing
import os
import pickle
import signal
import sys
import time
import traceback
from collections import deque
from multiprocessing.connection import wait

import numpy as np

from lenssr.exceptions import InputError

# Processes side by side, each with as many threads as there are cores, slow one another down.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
PATIENCE = 5.0  # seconds that a process is given to end before it is killed


# ---------------------------------------------------------------- how many


def count_jobs(jobs, device):
    """How many processes an option ``jobs`` stands for.

    Parameters
    ----------
    jobs : int or None
        -1 and None mean one for each core that this process may use.
    device : `torch.device`
        Where images are solved.

    Returns
    -------
    jobs : int

    Raises
    ------
    InputError
        If it is no number of processes, or several would share a GPU.
    """
    everything = jobs is None or (jobs == -1 and not isinstance(jobs, bool))
    whole = isinstance(jobs, int | np.integer) and not isinstance(jobs, bool)
    if not everything and (not whole or jobs < 1):
        raise InputError(f"jobs = {jobs!r}: give a number of processes, 1 or more, or -1 for one a core")
    if device.type != "cpu":
        if not everything and jobs > 1:
            raise InputError(
                f"jobs = {jobs} with device = {str(device)!r}: images are solved in batches there; give "
                "jobs=1, or device='cpu'"
            )
        return 1
    return _cores() if everything else int(jobs)


def _cores():
    with contextlib.suppress(AttributeError):  # where the system cannot say which cores are ours
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# ---------------------------------------------------------------- one part


def solve_part(method, observations, start=None):
    """Solve images together; after a failure each by itself, so that only the guilty ones fail.

    Parameters
    ----------
    method : object
        ``method.solve(observations, elapsed=elapsed)`` gives a list of results, or exceptions where single
        images failed; ``elapsed()`` is the time so far in seconds, shared by the images.
    observations : list of `~lenssr.imaging.Observation`
    start : float, optional
        When it began, of `time.perf_counter`; now by default.

    Returns
    -------
    results : list of `~lenssr.SuperResolution` or Exception
    """
    start = time.perf_counter() if start is None else start
    try:
        return method.solve(observations, elapsed=lambda: (time.perf_counter() - start) / len(observations))
    except Exception as error:  # noqa: BLE001 - one failure must not stop the rest
        if len(observations) == 1:
            return [error]
        return [solve_part(method, [observation])[0] for observation in observations]


def solve_parts(method, parts, jobs):
    """Solve parts, each as soon as a process is free for it.

    Parameters
    ----------
    method : object
        As in `solve_part`.
    parts : list of list of (int, `~lenssr.imaging.Observation`)
        Images that are solved together, with their numbers.
    jobs : int
        How many processes; 1 solves everything in this one.

    Yields
    ------
    numbers : list of int
    results : list of `~lenssr.SuperResolution` or Exception
        Of the images with these numbers. Results do not depend on ``jobs``; their order does.

    Raises
    ------
    InputError
        If processes cannot be started, or do not know what is sent to them.
    """
    jobs = min(jobs, len(parts))
    if jobs > 1:
        yield from _in_processes(method, parts, jobs)
        return
    for part in parts:
        yield [number for number, _ in part], solve_part(method, [one for _, one in part])


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


def _portable(results):
    """Results whose errors survive the way between processes, with the traceback as a note."""
    return [_portable_error(one) if isinstance(one, Exception) else one for one in results]


def _portable_error(error):
    error.add_note("".join(traceback.format_exception(error)).rstrip())
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - whatever its class does when it is copied
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


# ---------------------------------------------------------------- the other side


def _serve(connection):
    """Solve what comes through a connection until it is closed."""
    # Ctrl-C reaches every process of a terminal; the one that started this one decides what ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(EOFError, OSError):
        connection.send_bytes(b"ready")
        while True:
            connection.send_bytes(_answer(connection.recv_bytes()))


def _answer(task):
    try:
        method, observations = pickle.loads(task)
    except Exception as error:  # noqa: BLE001 - classes of a notebook, say, which nobody else has
        return dumps(f"{type(error).__name__}: {error}")
    results = _portable(solve_part(method, observations))
    try:
        return dumps(results)
    except Exception as error:  # noqa: BLE001
        return dumps([RuntimeError(f"the result cannot be sent: {error}")] * len(results))


# ---------------------------------------------------------------- this side


class _Worker:
    """A process with the part that it is at."""

    def __init__(self, context):
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), daemon=True)
        with _few_threads():
            self.process.start()
        theirs.close()  # the end of the process is then the end of the connection
        self.ready, self.part = False, None

    def give(self, part, task):
        self.part = part
        with contextlib.suppress(OSError):  # it has ended; receiving from it will say so
            self.connection.send_bytes(task)

    def receive(self):
        """What it says, or None if it has ended."""
        try:
            return self.connection.recv_bytes()
        except (EOFError, OSError):
            return None

    def end(self):
        self.connection.close()
        self.process.terminate()
        self.process.join(PATIENCE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.process.close()


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


def _in_processes(method, parts, jobs):
    # A forked copy of a process with threads, as torch's is, may hang.
    context = multiprocessing.get_context("spawn")
    waiting = deque(parts)
    _task(method, waiting[0])  # what cannot be sent is found out before processes start
    workers = []
    try:
        workers += [_Worker(context) for _ in range(jobs)]
        while waiting or any(worker.part for worker in workers):
            for worker in workers:
                if waiting and worker.ready and worker.part is None:
                    part = waiting.popleft()
                    worker.give(part, _task(method, part))
            talking = wait([worker.connection for worker in workers])
            for worker in [one for one in workers if one.connection in talking]:
                part, message = worker.part, worker.receive()
                if message is None:
                    workers.remove(worker)
                    yield from _bury(worker, waiting)
                    if waiting and worker.ready:
                        workers.append(_Worker(context))
                    _check_alive(workers, waiting, worker)
                elif worker.ready:
                    worker.part = None
                    yield [number for number, _ in part], _results(message)
                else:
                    worker.ready = True
    finally:
        for worker in workers:
            worker.end()


def _task(method, part):
    try:
        return dumps((method, [one for _, one in part]))
    except Exception as error:  # noqa: BLE001 - whatever a class does when it is copied
        raise InputError(
            f"the resolver and its images cannot be sent to other processes ({error}): give jobs=1"
        ) from error


def _results(message):
    found = pickle.loads(message)
    if isinstance(found, str):
        raise InputError(
            f"other processes do not know what the resolver is made of ({found}): define its classes in a "
            "module that can be imported, or give jobs=1"
        )
    return found


def _bury(worker, waiting):
    """After a process ended by itself: its image fails; several are tried again one by one."""
    worker.process.join(PATIENCE)
    code, part = worker.process.exitcode, worker.part or []
    worker.end()
    if len(part) > 1:
        waiting.extendleft([member] for member in reversed(part))
        return
    reason = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
    for number, _ in part:
        error = RuntimeError(f"its process ended before the image was solved ({reason}): too little memory?")
        yield [number], [error]


def _check_alive(workers, waiting, last):
    if waiting and not workers and not last.ready:
        raise InputError(
            "the processes of jobs= do not start: a script that calls map needs the line "
            'if __name__ == "__main__": above what it does; or give jobs=1'
        )
