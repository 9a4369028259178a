"""The process that solves lenses, started by a `SolverPool`.

It takes pickled messages of the process that started it from standard input, each behind its length, and
answers on standard output. It ends when standard input does, at once, whatever it is at.
"""

import contextlib
import os

# Between processes of one run only: nothing that a file holds is unpickled.
import pickle  # nosec B403
import queue
import signal
import struct
import sys
import threading
import traceback
from typing import Any, BinaryIO

from lenssr._files import discard_unfinished

LENGTH = struct.Struct("!Q")


def send(file: BinaryIO, message: Any) -> None:
    """Write a message behind its length."""
    content = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    file.write(LENGTH.pack(len(content)) + content)
    file.flush()


def _listen(messages: "queue.SimpleQueue[bytes]") -> None:
    """Put messages into a queue; at the end of standard input end this process."""
    stdin = sys.stdin.buffer
    while len(start := stdin.read(LENGTH.size)) == LENGTH.size:
        messages.put(stdin.read(*LENGTH.unpack(start)))
    discard_unfinished()
    os._exit(0)


def main() -> None:
    """Solve what comes until nothing comes any more."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not get among the answers
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the process that started this one ends it
    messages: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(messages,), daemon=True).start()
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("500")  # where memory ends, this process goes before the one that would try again
    content = messages.get()
    # lenssr.survey.lens_solver is imported with the job that is unpickled, in seconds.
    job = pickle.loads(content)  # nosec B301
    from lenssr.survey.lens_solver import LensSolver, Stopped

    solver = LensSolver(job)
    send(answers, ("ready", None))
    while True:
        task = pickle.loads(messages.get())  # nosec B301
        try:
            answer = "done", solver.solve(*task)
        except Stopped as error:
            answer = "stopped", str(error)
        except BaseException:  # a sys.exit somewhere
            traceback.print_exc()
            os._exit(1)
        send(answers, answer)


if __name__ == "__main__":
    main()
