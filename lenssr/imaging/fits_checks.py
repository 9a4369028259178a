"""FITS files are checked before astropy walks them: every HDU that a file announces is there, and fits.

A file is read once, decompressed where it has to be, header by header: sizes, sums and units are those that
the FITS standard 4.0 allows, and the memory that an image will take is known before its pixels are read.
"""

import bz2
import gzip
import io
import lzma
import math
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from os import PathLike
from typing import Any

import numpy as np

from lenssr._files import local_file
from lenssr._limits import bytes_per_pixel, check_memory, check_unit_text, quoted
from lenssr.exceptions import InputError

__all__ = ["BLOCK", "CARD", "check_file", "ones_sum", "read_checked", "refuse_unreadable", "same_hdus"]

BLOCK, CARD = 2880, 80
# Largest header in blocks (50 000 cards), number of HDUs, and of axes of an image that numpy can hold.
MOST_BLOCKS, MOST_HDUS, MOST_AXES = 1400, 10_000, 32
# Zeros or blanks after the last HDU, in bytes: some writers fill up the block of a tape.
MOST_FILLER = 2**22
# Bytes of a pixel while an image is read: as stored, swapped, scaled, and in double precision.
READING_BYTES = 24
# Largest order of a distortion polynomial, and number of axes of a WCS, that astropy makes tables for.
MOST_ORDER, MOST_WCS_AXES = 12, 16

_BITPIX = (8, 16, 32, 64, -32, -64)
_WHOLE = re.compile(rb"[+-]?[0-9]{1,18}")
_STRING = re.compile(rb"'((?:[^']|'')*)'")
_COLUMN = re.compile(rb"\s*([0-9]{0,9})([LXBIJKAEDCMPQ])")
_COLUMN_BYTES = dict(zip("LBIJKAEDCMPQ", (1, 1, 2, 4, 8, 1, 4, 8, 8, 16, 8, 16), strict=True))
_UNITS = re.compile(rb"(BUNIT|CUNIT[0-9]{1,2}[A-Z]?|TUNIT[0-9]{1,3}) *")
_ORDERS = re.compile(rb"(A|B|AP|BP)_ORDER *")
_COUNTED = re.compile(
    rb"(BITPIX|NAXIS[0-9]{0,3}|PCOUNT|GCOUNT|TFIELDS|THEAP|NEXTEND|WCSAXES|ZBITPIX|ZNAXIS[0-9]{0,3}"
    rb"|ZTILE[0-9]{1,3}|ZPCOUNT|ZGCOUNT) *"
)
_LATIN = "latin-1"
CUT = "cut the lens out (--centre and --size, or centre= and size=)"
_SUMS = (b"DATASUM ", b"CHECKSUM")
# Data of an HDU, in bytes, above which the sums of a file that is not decompressed are not compared: it would
# take longer than to cut an image from it.
MOST_SUMMED = 2**28


def read_checked(path: str | PathLike[str]) -> tuple[io.BytesIO, int]:
    """Content of a FITS file, decompressed, and the number of its HDUs; `InputError` for a damaged one."""
    content, number = check_file(path, keep=True)
    assert content is not None  # noqa: S101 - it is kept
    return content, number


def check_file(path: Any, *, keep: bool = False, whole: bool = True) -> tuple[io.BytesIO | None, int]:
    """Walk through a FITS file: its content if it is compressed or kept, and the number of its HDUs.

    The file is a path, or is open; then its place stays. Pixels of others stay in the file, but where a sum
    has to be compared. Those of a file that is not read ``whole`` need no memory.
    """
    named = isinstance(path, str | PathLike)
    place = local_file(path) if named else getattr(path, "name", "the file")
    try:
        with _opened(place, None if named else path) as opened, _decompressed(place, opened) as (file, size):
            return _Walk(place, file, size, keep=keep or size is None, whole=whole).read()
    except InputError:
        raise
    except EOFError as error:
        raise InputError(f"{place} is truncated ({error}): copy or download it again") from error
    except (OSError, ValueError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, RuntimeError) as error:
        raise InputError(f"{place} is not a readable FITS file ({error}): give one") from error


def refuse_unreadable(hdus: Any, names: Iterable[str]) -> None:
    """Refuse HDUs whose names say that they are planes of an image, but which hold none."""
    names = set(names)
    for hdu in hdus:
        name = str(hdu.name).strip().upper()
        if name not in names:
            continue
        # HST says so of a plane that is one number everywhere, such as a mask of zeros.
        constant = hdu.header.get("NAXIS") == 0 and "PIXVALUE" in hdu.header
        if not constant and (not hdu.is_image or not hdu.shape):
            what = (
                "no data" if hdu.is_image else f"no image ({quoted(hdu.header.get('XTENSION', 'damaged'))})"
            )
            raise InputError(f"HDU {name} holds {what}: get the file again, or rename the HDU")


def same_hdus(path: Any, hdus: Any, number: int) -> None:
    """Refuse a file of which astropy found fewer HDUs than it has, or some that are damaged."""
    broken = next((hdu for hdu in hdus if type(hdu).__name__ in ("_CorruptedHDU", "_NonstandardHDU")), None)
    if broken is not None or len(hdus) != number:
        raise InputError(f"{path} holds {number} HDUs, of which one is damaged: copy or download it again")


# ---------------------------------------------------------------- bytes


@contextmanager
def _opened(path: Any, file: Any) -> Iterator[Any]:
    """Open a path; a file that is open is brought back to where it was."""
    if file is None:
        with open(path, "rb") as new:
            yield new
        return
    place = file.tell()
    try:
        yield file
    finally:
        file.seek(place)


@contextmanager
def _decompressed(path: Any, file: Any) -> Iterator[tuple[Any, int | None]]:
    """Open file as a stream without compression, and its size where that is known before it is read."""
    place = file.tell()
    start = file.read(6)
    if not isinstance(start, bytes):
        raise InputError(f"{path} is open as text: open it in binary mode, by open(..., 'rb')")
    file.seek(place)
    if start.startswith(b"\x1f\x8b"):
        with gzip.GzipFile(fileobj=file) as stream:
            yield stream, None
    elif start.startswith(b"BZh"):
        with bz2.BZ2File(file) as stream:
            yield stream, None
    elif start.startswith(b"\xfd7zXZ\x00"):
        with lzma.LZMAFile(file) as stream:
            yield stream, None
    elif start.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(file) as archive:
            members = archive.namelist()
            if len(members) != 1:
                raise InputError(f"{path} is an archive of {len(members)} files: unpack it")
            with archive.open(members[0]) as stream:
                yield stream, None
    else:
        size = file.seek(0, io.SEEK_END) - place
        file.seek(place)
        yield file, size


class _Walk:
    """The walk through a file, HDU after HDU; what was read is kept where it is asked for."""

    def __init__(self, path: Any, file: Any, size: int | None, *, keep: bool, whole: bool) -> None:
        self.path, self.file, self.size, self.keep, self.whole = path, file, size, keep, whole
        self.content, self.place, self.pixels = bytearray(), 0, 0

    def read(self) -> tuple[io.BytesIO | None, int]:
        number, announced = 0, 0
        while (header := self._header(number)) is not None:
            cards = _cards(header)
            about = _Structure(self.path, number, cards)
            announced = announced or about.number("NEXTEND", 0)
            self._check_sums(about, cards, header, self._data(about, cards))
            number += 1
            if number > MOST_HDUS:
                raise InputError(f"{self.path} has more than {MOST_HDUS} HDUs: give the ones that are needed")
        if announced > number - 1:
            raise self._truncated(f"NEXTEND = {announced}, but {number - 1} extensions")
        # Nothing is after the end of a stream whose sum is right: reading on checks the sum.
        return io.BytesIO(self.content) if self.keep else None, number

    def _truncated(self, why: str) -> InputError:
        return InputError(f"{self.path} is truncated ({why}): copy or download it again")

    def _header(self, number: int) -> bytes | None:
        """Blocks of the next header; None after the last HDU."""
        begins = (b"SIMPLE  =", b"XTENSION=")[number > 0]
        blocks: list[bytes] = []
        while True:
            block = self._take(BLOCK)
            if not blocks:
                if number and not block:
                    return None
                if not block.startswith(begins):
                    if number == 0:
                        raise InputError(f"{self.path} is not a readable FITS file (no SIMPLE): give one")
                    self._filler(block, number)
                    return None
            if len(block) < BLOCK:
                raise self._truncated(f"the header of HDU {number} ends without END")
            blocks.append(block)
            if any(block[at : at + 8] == b"END     " for at in range(0, BLOCK, CARD)):
                break
            if len(blocks) > MOST_BLOCKS:
                raise InputError(f"{self.path}: the header of HDU {number} has no end: get the file again")
        header = b"".join(blocks)
        self._passed(header)
        return header

    def _passed(self, part: bytes) -> None:
        self.place += len(part)
        if self.keep:
            self.content += part

    def _filler(self, block: bytes, number: int) -> None:
        """Accept zeros or blanks after the last HDU; whatever else was one."""
        fill, seen = block[:1], 0
        while block:
            seen += len(block)
            if fill not in (b"\0", b" ") or block.strip(fill) or seen > MOST_FILLER:
                text = f"what follows HDU {number - 1} is no HDU"
                raise InputError(f"{self.path} is damaged ({text}): copy or download it again")
            block = self._take(BLOCK * 100)

    def _data(self, about: "_Structure", cards: dict[bytes, bytes]) -> int | None:
        """Pass the data of an HDU; their sum where it was found."""
        size = about.data_bytes
        padded = -(-size // BLOCK) * BLOCK
        known = None if self.size is None else self.size - self.place
        if known is not None and known < size:
            raise self._truncated(f"HDU {about.hdu} announces {size} bytes, {known} are left")
        if self.whole:
            self._check_need(about, padded)
        summed = any(name in cards for name in _SUMS) and (self.keep or padded < MOST_SUMMED)
        end, total = self.place + padded, 0
        if not self.keep and not summed:
            if known is not None and known < padded:
                raise self._truncated(f"HDU {about.hdu} announces {size} bytes")
            self.file.seek(padded, io.SEEK_CUR)
            self.place = end
            return None
        while self.place < end:
            part = self._take(min(end - self.place, 2**24))
            if not part:
                raise self._truncated(f"HDU {about.hdu} announces {size} bytes")
            self._passed(part)
            if summed:
                total = ones_sum(np.frombuffer(part.ljust(-(-len(part) // 4) * 4, b"\0"), ">u4"), total)
        return total if summed else None

    def _check_need(self, about: "_Structure", padded: int) -> None:
        """Refuse what would take more memory than there is, before it is read."""
        self.pixels += about.pixels
        held = len(self.content) + 2 * padded if self.keep else padded
        need = float(held + (READING_BYTES + bytes_per_pixel()) * self.pixels)
        sides = " x ".join(map(str, reversed(about.sides)))
        check_memory(need, f"{self.path}, with {sides} pixels in HDU {about.hdu},", CUT)

    def _take(self, size: int) -> bytes:
        """Read up to ``size`` bytes, fewer only at the end."""
        parts: list[bytes] = []
        while size > 0 and (part := self.file.read(size)):
            parts.append(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _check_sums(
        self, about: "_Structure", cards: dict[bytes, bytes], header: bytes, total: int | None
    ) -> None:
        """Compare DATASUM and CHECKSUM, where the header has them, with the ``total`` of the data."""
        if total is None:
            return
        for name in _SUMS:
            text = _text_of(cards[name]) if name in cards else None
            if not text:
                continue
            if name == b"DATASUM ":
                wrong = not (text.isdigit() and len(text) < 12 and int(text) in _equal_sums(total))
            else:
                wrong = ones_sum(np.frombuffer(header, ">u4"), total) not in (0, 2**32 - 1)
            if wrong:
                which = name.decode().strip()
                message = f"{self.path} is damaged: {which} of HDU {about.hdu} differs; get it again"
                raise InputError(f"{message}, or delete CHECKSUM and DATASUM if you changed it on purpose")


def ones_sum(words: np.ndarray, total: int = 0) -> int:
    """Sum of 32-bit words in ones' complement."""
    for first in range(0, len(words), 2**24):
        total += int(words[first : first + 2**24].sum(dtype=np.uint64))
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return total


def _equal_sums(total: int) -> tuple[int, ...]:
    """A sum, and the other zero of ones' complement."""
    return (0, 2**32 - 1) if total in (0, 2**32 - 1) else (total,)


# ---------------------------------------------------------------- headers


def _cards(header: bytes) -> dict[bytes, bytes]:
    """The first card with a value of each keyword, by its eight bytes; two sizes that differ are refused."""
    found: dict[bytes, bytes] = {}
    for at in range(0, len(header), CARD):
        name = header[at : at + 8]
        if name == b"END     ":
            break
        if header[at + 8 : at + 10] != b"= ":
            continue
        value = header[at + 10 : at + CARD]
        if name in found and _COUNTED.fullmatch(name) and _number_of(found[name]) != _number_of(value):
            raise InputError(f"{name.decode(_LATIN).strip()} stands twice in a header: get the file again")
        found.setdefault(name, value)
    return found


def _number_of(value: bytes) -> int | None:
    text = value.split(b"/")[0].strip()
    return int(text) if _WHOLE.fullmatch(text) else None


def _text_of(value: bytes) -> str:
    match = _STRING.match(value.strip())
    return match[1].decode(_LATIN).strip() if match else value.split(b"/")[0].decode(_LATIN).strip()


class _Structure:
    """Kind and sizes of an HDU, from the cards of its header."""

    def __init__(self, path: Any, hdu: int, cards: dict[bytes, bytes]) -> None:
        self.path, self.hdu, self.cards = path, hdu, cards
        self._check_others()
        self.kind = _text_of(cards[b"XTENSION"]) if hdu and b"XTENSION" in cards else ""
        if self.number("BITPIX") not in _BITPIX:
            raise self._refuse("BITPIX", "one of 8, 16, 32, 64, -32, -64")
        self.sides = self._sides("NAXIS", 999)
        image = self.kind in ("", "IMAGE")
        groups = (
            hdu == 0 and self.sides[:1] == [0] and cards.get(b"GROUPS  ", b"").split(b"/")[0].strip() == b"T"
        )
        pcount, gcount = self.number("PCOUNT", 0), self.number("GCOUNT", 1)
        if pcount < 0 or (self.kind == "IMAGE" and pcount):
            raise self._refuse("PCOUNT", "0" if image else "a number of 0 or more")
        if gcount < 0 or (gcount != 1 and hdu and self.kind in ("IMAGE", "BINTABLE", "TABLE")):
            raise self._refuse("GCOUNT", "1")
        count = math.prod(self.sides[1:] if groups else self.sides) if self.sides else 0
        whole = bool(self.sides) or groups
        self.data_bytes = abs(self.number("BITPIX")) // 8 * gcount * (pcount + count) if whole else 0
        self.pixels = count if image and not groups else 0
        if image and not groups and len(self.sides) > MOST_AXES:
            raise self._refuse("NAXIS", f"at most {MOST_AXES}")
        if self.kind == "BINTABLE":
            self._check_table()

    def number(self, name: str, default: int | None = None) -> int:
        card = self.cards.get(name.encode().ljust(8))
        if card is None and default is not None:
            return default
        value = None if card is None else _number_of(card)
        if value is None:
            raise self._refuse(name, "an integer")
        return value

    def _refuse(self, name: str, wanted: str) -> InputError:
        card = self.cards.get(name.encode().ljust(8))
        given = "is missing" if card is None else f"= {card.split(b'/')[0].decode(_LATIN).strip()}"
        place = f"{self.path} is not a readable FITS file ({name} {given} in HDU {self.hdu}"
        return InputError(f"{place}, where {wanted} is needed): get it again")

    def _sides(self, name: str, most: int) -> list[int]:
        """Sides from ``NAXIS`` and ``NAXISn``, in the order of the header."""
        count = self.number(name)
        if not 0 <= count <= most:
            raise self._refuse(name, f"0 to {most}")
        sides = [self.number(f"{name}{k}") for k in range(1, count + 1)]
        for k, side in enumerate(sides, 1):
            if side < 0:
                raise self._refuse(f"{name}{k}", "a number of 0 or more")
        if f"{name}{count + 1}".encode().ljust(8) in self.cards:
            raise self._refuse(name, f"the number of axes, as there is {name}{count + 1}")
        return sides

    def _check_others(self) -> None:
        """Refuse units that would take long to read, and tables of a WCS that no image needs."""
        for name, card in self.cards.items():
            if _UNITS.fullmatch(name):
                check_unit_text(_text_of(card), f"{self.path}: {name.decode(_LATIN).strip()}")
            elif _ORDERS.fullmatch(name) and not 0 <= (_number_of(card) or 0) <= MOST_ORDER:
                raise self._refuse(name.decode(_LATIN).strip(), f"0 to {MOST_ORDER}")
            elif name == b"WCSAXES " and not 0 <= (_number_of(card) or 0) <= MOST_WCS_AXES:
                raise self._refuse("WCSAXES", f"0 to {MOST_WCS_AXES}")

    def _check_table(self) -> None:
        """Refuse a binary table whose columns do not fill its rows, or an image that lacks tiles."""
        if self.number("BITPIX") != 8 or len(self.sides) != 2:
            raise self._refuse("NAXIS", "2 with BITPIX = 8 for a table")
        fields = self.number("TFIELDS")
        if not 0 <= fields <= 999:
            raise self._refuse("TFIELDS", "0 to 999")
        width = 0
        for k in range(1, fields + 1):
            form = self.cards.get(f"TFORM{k}".encode().ljust(8))
            match = None if form is None else _COLUMN.match(_text_of(form).encode(_LATIN))
            if match is None:
                raise self._refuse(f"TFORM{k}", "the format of a column")
            count, letter = int(match[1] or 1), match[2].decode()
            width += -(-count // 8) if letter == "X" else count * _COLUMN_BYTES[letter]
        if width != self.sides[0]:
            raise self._refuse("NAXIS1", f"the {width} bytes of the columns")
        if self.cards.get(b"ZIMAGE  ", b"").split(b"/")[0].strip() == b"T":
            self._check_tiles()

    def _check_tiles(self) -> None:
        sides = self._sides("ZNAXIS", MOST_AXES)
        if self.number("ZBITPIX") not in _BITPIX:
            raise self._refuse("ZBITPIX", "one of 8, 16, 32, 64, -32, -64")
        tiles = [self.number(f"ZTILE{k}", side if k == 1 else 1) for k, side in enumerate(sides, 1)]
        wrong = next((k for k, tile in enumerate(tiles, 1) if tile < 1), None)
        if wrong is not None:
            raise self._refuse(f"ZTILE{wrong}", "a positive number")
        number = math.prod(-(-side // tile) for side, tile in zip(sides, tiles, strict=True)) if sides else 0
        if number != self.sides[1]:
            raise self._refuse("NAXIS2", f"the number of tiles, {number}")
        self.pixels, self.sides = math.prod(sides) if sides else 0, sides
