"""Files are written whole or not at all, and say which versions wrote them."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from lenssr.exceptions import InputError


def package_version(name: str = "lenssr") -> str:
    """Version of an installed package; "unknown" for one that is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


def check_output(path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Refuse a path that cannot be written, before any work is spent on it."""
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
def atomic(path: str | os.PathLike[str], overwrite: bool = True) -> Iterator[Path]:
    """Give a temporary name beside ``path``, with its suffix: renamed to it if the block ends well.

    It is deleted if not, and if writing fails, which raises `InputError`.
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
