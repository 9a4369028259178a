"""The registry of archives: a reader a layout, found by what the headers say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lenssr.exceptions import InputError
from lenssr.imaging.image_file import ImageFile
from lenssr.imaging.planes import Planes

__all__ = ["ArchiveReader", "READERS", "find_reader", "register_reader"]


@dataclass(frozen=True)
class ArchiveReader:
    """One layout of files that an archive writes.

    Parameters
    ----------
    name : str
        A word for it, which ``lenssr inspect`` prints.
    title : str
        What it reads, in one line.
    matches : callable
        ``matches(file)`` says of an `ImageFile` whether it is of this layout.
    read : callable
        ``read(file)`` makes the `Planes`; most call `standard_planes` with what is special.
    """

    name: str
    title: str
    matches: Callable[[ImageFile], bool]
    read: Callable[[ImageFile], Planes]


#: Readers of archives by name, in the order in which they are asked.
READERS: dict[str, ArchiveReader] = {}
"""Readers by name. One that was registered later is asked first."""


def register_reader(
    name: str, title: str, matches: Callable[[ImageFile], bool]
) -> Callable[[Callable[[ImageFile], Planes]], Callable[[ImageFile], Planes]]:
    """Decorate the function that reads the files of an archive.

    Parameters
    ----------
    name : str
        A word for the layout. A name that is known gets the new reader.
    title : str
        What it reads, in one line.
    matches : callable
        ``matches(file)`` says of an `ImageFile` whether it is of this layout. The reader that was
        registered last is asked first.

    Returns
    -------
    decorator : callable

    Raises
    ------
    InputError
        If the name is no word.

    Examples
    --------
    >>> from lenssr.imaging.readers import READERS, register_reader, standard_planes
    >>> @register_reader("my-camera", "stacks of my camera", lambda file: file.says("INSTRUME") == "MYCAM")
    ... def read_my_camera(file):
    ...     planes = standard_planes(file, weight="inverse_variance")
    ...     planes.zero_point = 27.5
    ...     return planes
    >>> "my-camera" in READERS
    True
    >>> del READERS["my-camera"]
    """
    if not name or not name.replace("-", "_").isidentifier():
        raise InputError(f"name = {name!r}: give a word of letters, digits and hyphens")

    def register(read: Callable[[ImageFile], Planes]) -> Callable[[ImageFile], Planes]:
        READERS.pop(name, None)
        READERS[name] = ArchiveReader(name, title, matches, read)
        return read

    return register


def find_reader(file: ImageFile) -> ArchiveReader | None:
    """The reader that was registered last of those that know a file; None if none does."""
    return next((one for one in reversed(READERS.values()) if one.matches(file)), None)
