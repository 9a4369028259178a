"""Commands that end when they are asked to: no temporary file and no process is left behind."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from lenssr._files import discard_unfinished

# Seconds in which a command may end by itself, before it is ended.
GRACE = 1.2


class Terminated(BaseException):
    """SIGTERM; no error, so that nothing catches it on its way."""


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Turn SIGTERM and SIGINT into `Terminated` and KeyboardInterrupt, the first of them only.

    What does not end within `GRACE`, such as a long call into a library, is ended from a thread that sees
    signals at once. In a thread of its own a command has no signals.
    """
    if threading.current_thread() is not threading.main_thread() or os.name != "posix":
        yield
        return
    stops, ended = [], threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        if not stops:
            stops.append(number)
            raise KeyboardInterrupt if number == signal.SIGINT else Terminated

    # Whoever starts a command in the background may have it ignore interrupts.
    numbers = [signal.SIGTERM]
    numbers += [signal.SIGINT] if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN else []
    before = {number: signal.signal(number, stop) for number in numbers}
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    others = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    watcher = threading.Thread(target=_watch, args=(reading, numbers, ended), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        signal.set_wakeup_fd(others)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writing)  # ends the thread


def _watch(reading: int, numbers: list[signal.Signals], ended: threading.Event) -> None:
    """Wait for a signal, and end the process if it does not end by itself."""
    try:
        while seen := os.read(reading, 1):
            if seen[0] in numbers:
                if ended.wait(GRACE):
                    return
                _end(seen[0])
    finally:
        os.close(reading)


def _end(number: int) -> None:
    for process in multiprocessing.active_children():
        process.kill()
    discard_unfinished()
    word = "interrupted" if number == signal.SIGINT else "terminated"
    with contextlib.suppress(Exception):
        os.write(sys.stderr.fileno(), f"lenssr: {word}\n".encode())
    os._exit(128 + number)
