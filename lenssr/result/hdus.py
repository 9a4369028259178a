"""Image HDUs from cards to bytes, with their sums.

A result has some forty of them, which share most of their cards: `astropy.io.fits` takes longer to write
them than to fit a small lens. It still makes the text of every card, and all of the tables.
"""

import gzip
import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from astropy.io import fits

from lenssr.imaging.fits_checks import BLOCK, CARD, ones_sum

__all__ = ["ImageExtension", "cards_text", "mark_long", "write_hdus"]

# BITPIX of what images are stored as; anything else is made one of them.
BITPIX = {"u1": 8, "i2": 16, "i4": 32, "i8": 64, "f4": -32, "f8": -64}
LONG = ("OGIP 1.0", "long strings go on in CONTINUE cards")
# Letters that a CHECKSUM must not hold: those between digits, capitals and small letters.
NOT_ALLOWED = frozenset(b":;<=>?@[\\]^_`")


@dataclass
class ImageExtension:
    """An image HDU before it is bytes."""

    name: str
    data: np.ndarray | None
    header: fits.Header = field(default_factory=fits.Header)  # its own cards
    before: str = ""  # text of cards that it shares with others, before its own
    after: str = ""

    @property
    def shape(self):
        """Shape of the image, as in numpy."""
        return () if self.data is None else self.data.shape

    def content(self):
        """All bytes, with CHECKSUM and DATASUM."""
        stored = b"" if self.data is None else _stored(self.data)
        data = _padded(stored, b"\0")
        total = ones_sum(np.frombuffer(data, ">u4"))
        name = _card("EXTNAME", f"'{self.name:8}'", "extension name")
        text = self._structure() + self.before + cards_text(self.header) + name + self.after
        if "LONGSTRN" not in self.header and _goes_on(text):
            text += cards_text(fits.Header([("LONGSTRN", *LONG)]))
        sums = _card("DATASUM", f"'{total}'", "data unit checksum") + "END".ljust(CARD)
        blank = _header(text, "0" * 16, sums)
        wanted = ones_sum(np.frombuffer(blank, ">u4"), total) ^ 0xFFFFFFFF
        return _header(text, checksum_text(wanted), sums) + data

    def _structure(self):
        """The cards that an image extension begins with."""
        bits = 8 if self.data is None else BITPIX[_dtype(self.data).str[1:]]
        text = _card("XTENSION", "'IMAGE   '", "Image extension") + _card("BITPIX", bits, "array data type")
        text += _card("NAXIS", len(self.shape), "number of array dimensions")
        text += "".join(_card(f"NAXIS{k}", side) for k, side in enumerate(self.shape[::-1], 1))
        return text + _card("PCOUNT", 0, "number of parameters") + _card("GCOUNT", 1, "number of groups")


def _card(keyword, value, comment=""):
    """A card in the fixed format: numbers end in column 30, texts begin in column 11."""
    value = value.ljust(20) if isinstance(value, str) else f"{value:>20}"
    return f"{keyword:8}= {value}{f' / {comment}' if comment else ''}".ljust(CARD)


def cards_text(header):
    """Text of the cards of a header, a multiple of 80 letters, without END."""
    return header.tostring(endcard=False, padding=False)


def _goes_on(text):
    """Whether a card has more than 80 letters."""
    return any(text.startswith("CONTINUE", at) for at in range(0, len(text), CARD))


def _header(text, checksum, sums):
    content = f"{text}{_card('CHECKSUM', repr(checksum), 'HDU checksum')}{sums}".encode("ascii")
    return _padded(content, b" ")


def _padded(content, filler):
    return content.ljust(-(-len(content) // BLOCK) * BLOCK, filler)


def _dtype(data):
    """Type of the stored pixels."""
    if data.dtype == bool:
        return np.dtype(">u1")
    known = data.dtype.str[1:] in BITPIX
    whole = np.issubdtype(data.dtype, np.integer)
    return data.dtype.newbyteorder(">") if known else np.dtype(">i8" if whole else ">f8")


def _stored(data):
    return data.astype(_dtype(data)).tobytes()


def checksum_text(value):
    """ASCII form of 32 bits: four letters a byte, which sum up to it (FITS standard 4.0, appendix J)."""
    letters = bytearray(16)
    for place, byte in enumerate(value.to_bytes(4, "big")):
        quarter, rest = divmod(byte, 4)
        four = [quarter + rest + 48, quarter + 48, quarter + 48, quarter + 48]
        for pair in (0, 2):
            while not NOT_ALLOWED.isdisjoint(four[pair : pair + 2]):
                four[pair] += 1
                four[pair + 1] -= 1
        letters[place::4] = four
    return (letters[-1:] + letters[:-1]).decode("ascii")


# ---------------------------------------------------------------- whole files


def mark_long(header):
    """Say in a header that has CONTINUE cards that it does."""
    if any(len(card.image) > CARD for card in header.cards):
        header["LONGSTRN"] = LONG


def write_hdus(hdus, path):
    """Write a primary HDU and the others in their order; a name in ``.gz`` is compressed."""
    others = _by_astropy([hdu for hdu in hdus if not isinstance(hdu, ImageExtension)])
    with gzip.open(path, "wb") if Path(path).suffix == ".gz" else open(path, "wb") as file:
        for hdu in hdus:
            file.write(hdu.content() if isinstance(hdu, ImageExtension) else next(others))


def _by_astropy(hdus):
    """Bytes of each of the HDUs that are those of astropy, the primary one first."""
    buffer = io.BytesIO()
    fits.HDUList(hdus).writeto(buffer, output_verify="exception", checksum=True)
    buffer.seek(0)
    for hdu in hdus:
        yield buffer.read(len(hdu.header.tostring()) + -(-hdu.size // BLOCK) * BLOCK)
