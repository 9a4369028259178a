"""Files are read where they are, written whole or not at all, and say which versions wrote them."""

import contextlib
import glob
import os
import re
import socket
import stat
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lenssr._limits import quoted
from lenssr.exceptions import InputError

StrPath = str | os.PathLike[str]

# Names of temporary files: machine and process that write them, a number, and the name that they will have.
_TEMPORARY = re.compile(r"\.(?P<host>[0-9a-f]{8})-(?P<process>\d+)-(?P<number>\d+)\.(?P<name>.+)", re.DOTALL)
_FITS = re.compile(r"\.(fits?|fts|fz)(\.(gz|bz2|xz|zip))?$", re.IGNORECASE)
_written: set[Path] = set()
_numbers = iter(range(2**62))


def package_version(name: str = "lenssr") -> str:
    """Version of an installed package; "unknown" for one that is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


# ---------------------------------------------------------------- reading


def local_path(path: Any, what: str = "") -> Path:
    """Path of something on this machine; ``http://...`` and the like are refused: nothing is fetched."""
    what = f"{what} = " if what else ""
    try:
        text = os.fspath(path)
    except TypeError:
        raise InputError(f"{what}{quoted(path)} is not a path: give one") from None
    text = os.fsdecode(text)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text):
        raise InputError(f"{what}{quoted(text)} is an address: download the file, and give its path")
    if "\0" in text or len(text) > 4096:
        raise InputError(f"{what}{quoted(text)} is not a path: give one")
    return Path(text)


def local_file(path: Any, what: str = "") -> Path:
    """Path of a regular file on this machine; `InputError` if there is none, as for FIFOs and devices."""
    place = local_path(path, what)
    try:
        mode = place.stat().st_mode
    except OSError:
        raise InputError(
            f"{quoted(os.fsdecode(path))[1:-1]} does not exist or is not a file: check the name"
        ) from None
    if stat.S_ISDIR(mode):
        raise InputError(f"{place} does not exist or is not a file: check the name")
    if not stat.S_ISREG(mode):
        raise InputError(f"{place} is a device, a FIFO or a socket: give a file")
    return place


def read_text(path: Any, most: int, what: str = "") -> str:
    """Text of a file in UTF-8 of at most ``most`` bytes."""
    place = local_file(path, what)
    try:
        with open(place, "rb") as file:
            content = file.read(most + 1)
        if len(content) > most:
            raise InputError(f"{place} has more than {most} bytes: give a shorter file")
        return content.decode("utf-8")
    except OSError as error:
        raise InputError(f"{place} cannot be read ({error.strerror or error}): give another") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{place} cannot be read as text in UTF-8 ({error.reason}): give another") from error


def listed(images: Any) -> list[Any]:
    """List of what is given: of a str or path one file, those of a pattern, or the FITS files of a folder."""
    if not isinstance(images, str | os.PathLike):
        try:
            return list(images)
        except TypeError:
            kind = type(images).__name__
            raise InputError(
                f"images is a {kind}: give a list, even of one, or a path, pattern or folder"
            ) from None
    place = local_path(images)
    if place.is_dir():
        found = [one for one in place.iterdir() if _FITS.search(one.name) and not one.name.startswith(".")]
        if not found:
            raise InputError(
                f"{place} holds no FITS files (.fits, .fit, .fts, .fz, or compressed): give another"
            )
    elif not is_pattern(place):
        return [place]
    else:
        found = [Path(one) for one in glob.glob(str(place), recursive=True) if os.path.isfile(one)]
        if not found:
            raise InputError(f"no file has the pattern {place}: give another")
    return sorted(found)


def is_pattern(place: StrPath) -> bool:
    """Whether a path is a pattern of several: it has wildcards, and nothing is called like that."""
    return not Path(place).exists() and any(letter in str(place) for letter in "*?[")


def split_band(given: StrPath) -> tuple[str | None, str]:
    """Band and path of ``NAME=FILE``; no band where the whole is a file, or there is no such sign."""
    text = str(given)
    band, sign, path = text.partition("=")
    if not sign or Path(text).exists() or "/" in band:
        return None, text
    if not band:
        raise InputError(f"{text!r} names no band: give NAME=FILE")
    return band, path


# ---------------------------------------------------------------- writing


def stem_of(path: StrPath) -> str:
    """Name of a file, folder or pattern without ending and wildcards, for the name of what is made of it."""
    name = Path(os.path.abspath(path)).name
    name = _FITS.sub("", name) if _FITS.search(name) else Path(name).stem
    return re.sub(r"[*?\[\]]+", "", name).strip("-_.") or "lenses"


def check_output(path: StrPath, overwrite: bool = False, inputs: Iterable[Any] = ()) -> None:
    """Refuse a path that cannot be written, or holds one of the inputs, before any work is spent on it."""
    path = local_path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder: give the name of a file in it")
    try:
        exists = os.path.lexists(path)
        regular = not path.exists() or path.is_file()
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}): give another path") from error
    if not regular:
        raise InputError(f"{path} is a device, a FIFO or a socket: give the name of a file")
    for one in inputs:
        if _same_file(path, one):
            raise InputError(f"{path} is an input of this run: give the output another name")
    if exists and not overwrite:
        raise InputError(f"{path} exists: give another name, or overwrite=True (--overwrite)")
    folder = _target(path).parent
    if not folder.is_dir():
        raise InputError(f"the folder {folder} does not exist: make it, or give another path")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"the folder {folder} is not writable: give another path")


def _same_file(path: Path, other: Any) -> bool:
    try:
        return os.path.samefile(path, other)
    except (OSError, TypeError, ValueError):
        return False


def check_outputs(paths: Iterable[StrPath], overwrite: bool = False, inputs: Iterable[Any] = ()) -> None:
    """`check_output` of several, which must not be one file."""
    paths, inputs, found = list(paths), list(inputs), set[Path]()
    for path in paths:
        check_output(path, overwrite, inputs)
        target = _target(path)
        if target in found:
            raise InputError(f"{path} is the name of two outputs: give each its own")
        found.add(target)


@contextmanager
def atomic(path: StrPath, overwrite: bool = True, *, alone: bool = True) -> Iterator[Path]:
    """Give a temporary name beside ``path``, with its suffix: renamed to it if the block ends well.

    It is deleted if not, and if writing fails, which raises `InputError`. A file that is replaced leaves its
    mode to the new one; a link stays, and its target is replaced. ``alone`` has the content on the disk
    first, and deletes what a process that was killed left behind for the same path; one of many files can do
    without.
    """
    check_output(path, overwrite)
    target = _target(path)
    if alone:
        sweep(target.parent, target.name)
    # in the same folder, since a rename is atomic within one file system only; in front, to keep the suffix
    temporary = target.with_name(_temporary_name(target.name))
    _written.add(temporary)
    try:
        yield temporary
        with contextlib.suppress(FileNotFoundError):
            temporary.chmod(stat.S_IMODE(target.stat().st_mode))
        if alone:
            _flush(temporary)
        os.replace(temporary, target)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path} cannot be written ({reason}): give another path") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        _written.discard(temporary)


def discard_unfinished() -> None:
    """Delete the temporary files of this process, which is about to end."""
    for temporary in list(_written):
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def sweep(folder: Path, name: str | None = None) -> None:
    """Delete temporary files of processes that were killed on this machine: for one name, or for all."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            if not entry.name.startswith("."):
                continue
            match = _TEMPORARY.fullmatch(entry.name)
            if match is None or name not in (None, match["name"]) or match["host"] != _host():
                continue
            process = int(match["process"])
            if Path(entry.path) not in _written and (process == os.getpid() or not _runs(process)):
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)


def _target(path: StrPath) -> Path:
    """The file that is written: that behind a link."""
    return Path(os.path.realpath(path))


def _temporary_name(name: str) -> str:
    return f".{_host()}-{os.getpid()}-{next(_numbers)}.{name}"


def _host() -> str:
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _flush(path: Path) -> None:
    """Have the content of a file on the disk before it gets its name."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
