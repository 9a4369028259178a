"""Files are written whole or not at all."""

import os
import uuid
from contextlib import contextmanager
from pathlib import Path

from lenssr.exceptions import InputError

__all__ = ["atomic", "check_output"]


def check_output(path, overwrite=False):
    """Refuse a path that cannot be written, before any work is spent on it.

    Parameters
    ----------
    path : str or `~pathlib.Path`
    overwrite : bool, optional
        Whether there may be a file of that name; False by default.

    Raises
    ------
    InputError
        If the file exists and ``overwrite`` is false, or its folder is missing or not writable.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder: give the name of a file in it")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists: give another name, or overwrite=True (--overwrite)")
    if not path.parent.is_dir():
        raise InputError(f"the folder {path.parent} does not exist: make it, or give another path")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise InputError(f"the folder {path.parent} is not writable: give another path")


@contextmanager
def atomic(path, overwrite=True):
    """Give a temporary name beside ``path``: renamed to it if the block ends well, deleted if not.

    Parameters
    ----------
    path : str or `~pathlib.Path`
    overwrite : bool, optional
        Whether a file of that name is replaced; True by default.

    Yields
    ------
    temporary : `~pathlib.Path`
        Its suffix is that of ``path``.

    Raises
    ------
    InputError
        As by `check_output`, and if writing fails.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from lenssr.files import atomic
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic(Path(folder) / "note.txt") as temporary:
    ...         _ = temporary.write_text("whole")
    ...     print([path.name for path in Path(folder).iterdir()])
    ['note.txt']
    """
    check_output(path, overwrite)
    path = Path(path)
    # in the same folder, since a rename is atomic within one file system only; in front, to keep the suffix
    temporary = path.with_name(f".{uuid.uuid4().hex[:8]}.{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path} cannot be written ({reason}): give another path") from error
    finally:
        temporary.unlink(missing_ok=True)
