"""Planes of bits that describe pixels: which bits make a pixel unusable."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from lenssr.exceptions import InputError

__all__ = ["BitMask", "named_bits", "unusable"]


@dataclass(frozen=True)
class BitMask:
    """What the bits of a mask mean.

    Parameters
    ----------
    values : dict of int
        Value of each bit by its name.
    bad : tuple of str
        Names of the bits that make a pixel unusable.
    source : str, optional
        The document or header that says so.
    """

    values: Mapping[str, int]
    bad: tuple[str, ...]
    source: str = ""

    def of(self, names: Iterable[str]) -> int:
        """Sum of the values of some bits that are there."""
        return sum({self.values[name] for name in names if name in self.values})


def unusable(plane: Any, bits: BitMask | None, chosen: Any = None) -> tuple[NDArray[np.bool_], str, bool]:
    """Pixels that a mask plane hides.

    Parameters
    ----------
    plane : array, shape (ny, nx)
        The mask.
    bits : `BitMask` or None
        What its bits mean, where that is known.
    chosen : int, str or list of str, optional
        The user's own choice: a sum of values, or names; ``"any"`` for all that is not 0.

    Returns
    -------
    hidden : array of bool
        Where a pixel is not to be used.
    told : str
        Which bits those are, in words.
    guessed : bool
        Whether that had to be assumed: a plane of several values whose meaning is not known.
    """
    plane = np.asarray(plane)
    if chosen is not None and chosen != "any":
        return _by_choice(plane, bits, chosen)
    whole = plane.dtype.kind in "iu"
    if bits is not None and whole and chosen is None:
        names = [name for name in bits.bad if name in bits.values]
        return (plane & bits.of(names)) != 0, f"bits {', '.join(names)}", False
    # NaN in a mask plane does not say that the pixel is good.
    hidden = plane != 0
    several = bool(hidden.any()) and np.unique(plane[hidden]).size > 1
    return hidden, "all that is not 0", several and chosen is None


def _by_choice(plane: Any, bits: BitMask | None, chosen: Any) -> tuple[NDArray[np.bool_], str, bool]:
    if plane.dtype.kind not in "iub":
        if not np.array_equal(plane, np.floor(plane)):
            raise InputError("mask_bits: the mask holds numbers that are not whole, so no bits: leave it out")
        plane = plane.astype(np.int64)
    if isinstance(chosen, str):
        chosen = [part.strip() for part in chosen.split(",") if part.strip()]
    if isinstance(chosen, (int, np.integer)) and not isinstance(chosen, bool):
        return (plane & chosen) != 0, f"bits {int(chosen)}", False
    if not isinstance(chosen, Sequence) or not chosen:
        raise InputError(f"mask_bits = {chosen!r}: give a number, names of bits, or 'any'")
    value = 0
    for name in map(str, chosen):
        known = {} if bits is None else {key.upper(): one for key, one in bits.values.items()}
        if name.isdigit():
            value |= int(name)
        elif name.upper() in known:
            value |= known[name.upper()]
        else:
            told = ", ".join(known) or "none: give a number"
            raise InputError(f"mask_bits has {name!r}: the bits of the mask are {told}")
    return (plane & value) != 0, f"bits {', '.join(map(str, chosen))}", False


def named_bits(header: fits.Header) -> dict[str, int]:
    """Values of bits that a header names: MP_NAME = bit number, or MSKNAMnn and MSKVALnn."""
    found = {}
    for key, value in header.items():
        if key.startswith("MP_") and isinstance(value, int) and 0 <= value < 63:
            found[key[3:]] = 1 << value
        number = re.fullmatch(r"MSKNAM(\d+)", key)
        if number is not None and isinstance(header.get(f"MSKVAL{number[1]}"), int):
            found[str(value).strip()] = int(header[f"MSKVAL{number[1]}"])
    return found
