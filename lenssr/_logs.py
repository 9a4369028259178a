"""Where records of the ``lenssr`` logger go while a command runs; the library itself configures nothing."""

import contextlib
import logging
import sys
import warnings

from lenssr.exceptions import InputError

KINDS = {logging.WARNING: "warning: ", logging.ERROR: "error: "}
IN_FILE = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class _Line(logging.Formatter):
    """``lenssr: message`` in one line; before it the traceback of an error where it is asked for."""

    def __init__(self, tracebacks):
        super().__init__()
        self.tracebacks = tracebacks

    def format(self, record):
        line = f"lenssr: {KINDS.get(record.levelno, '')}{one_line(record.getMessage())}"
        if self.tracebacks and record.exc_info:
            line = f"{self.formatException(record.exc_info)}\n{line}"
        return line


def one_line(value):
    """Text without line breaks."""
    return " ".join(str(value).split())


@contextlib.contextmanager
def logged(level, path=None, *, tracebacks=False):
    """Send records and warnings to standard error, and all of them, with tracebacks, to a file.

    Parameters
    ----------
    level : int
        Of ``logging``: what is below it does not reach standard error.
    path : str or `~pathlib.Path`, optional
        The file, which is appended to.
    tracebacks : bool, optional
        Whether standard error shows those of errors, by default not.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    logger = logging.getLogger("lenssr")
    before = logger.level
    stream = logging.StreamHandler(sys.stderr)
    stream.setLevel(level)
    stream.setFormatter(_Line(tracebacks))
    handlers = [stream]
    if path is not None:
        handlers.append(_file_handler(path))
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        for handler in handlers:
            logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
        try:
            yield
        finally:
            logger.setLevel(before)
            for handler in handlers:
                logger.removeHandler(handler)
                handler.close()


def _file_handler(path):
    try:
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise InputError(f"--log-file {path} cannot be written ({error.strerror}): give another") from error
    handler.setFormatter(logging.Formatter(IN_FILE))
    return handler


def _show_warning(message, category, filename, lineno, file=None, line=None):
    logging.getLogger("lenssr").warning("%s", one_line(message))
