"""IRAF's TNX distortion, which astropy leaves out without notice, as the TPV polynomials that it applies."""

from __future__ import annotations

import re

import numpy as np
from astropy.io import fits
from numpy.polynomial import chebyshev, legendre
from numpy.typing import NDArray

from lenssr.exceptions import InputError

__all__ = ["as_tpv"]

# Highest power of TPV's polynomials, and the numbers of its radial terms, which TNX does not need.
_MOST_POWER = 7
_RADIAL = frozenset((3, 11, 23, 39))
# Kinds of surface, by IRAF's numbers: its columns are powers of one variable, of 1, x, x^2, ...
_CHEBYSHEV, _LEGENDRE, _POLYNOMIAL = 1, 2, 3


def as_tpv(header: fits.Header) -> fits.Header:
    """A header with TNX as one with TPV; any other as it is.

    The TNX convention (IRAF, https://fits.gsfc.nasa.gov/registry/tnx.html) adds a surface of (xi, eta) in
    degrees to each of them; TPV writes the sum as a polynomial.

    Raises
    ------
    InputError
        If the surfaces cannot be read or have powers above 7, or the projection is IRAF's ZPX.
    """
    codes = {str(header.get(f"CTYPE{i}", ""))[5:8] for i in (1, 2)}
    if "ZPX" in codes:
        raise InputError("the WCS has IRAF's projection ZPX, which is not known: reproject to plain TAN")
    if "TNX" not in codes:
        return header
    new = header.copy()
    for axis in (1, 2):
        surface = _surface(header, axis)
        surface[(1, 0) if axis == 1 else (0, 1)] += 1.0
        for number, term in _terms(surface, axis).items():
            new[f"PV{axis}_{number}"] = term
        new[f"CTYPE{axis}"] = str(header[f"CTYPE{axis}"]).replace("TNX", "TPV")
    for key in [key for key in new if re.fullmatch(r"WAT\d_\d+", key)]:
        del new[key]
    return new


def _surface(header: fits.Header, axis: int) -> NDArray[np.float64]:
    """Coefficients (8, 8) of xi^i eta^j of the correction along an axis; zeros without one."""
    cards = sorted(key for key in header if re.fullmatch(rf"WAT{axis}_\d+", key))
    # Values lose the blanks at their ends, which 68 characters of a full card keep.
    text = "".join(str(header[key]).ljust(68) if key != cards[-1] else str(header[key]) for key in cards)
    found = re.search(r'(?:lng|lat)cor\s*=\s*"([^"]*)"', text)
    power = np.zeros((_MOST_POWER + 1, _MOST_POWER + 1))
    if found is None:
        return power
    try:
        numbers = [float(one) for one in found[1].split()]
        kind, columns, rows, cross = (round(one) for one in numbers[:4])
        x_low, x_high, y_low, y_high = numbers[4:8]
        places = [
            (i, j)
            for j in range(rows)
            for i in range(columns)
            if cross == 1 or (cross == 0 and 0 in (i, j)) or (cross == 2 and i + j < max(columns, rows))
        ]
        for (i, j), value in zip(places, numbers[8 : 8 + len(places)], strict=True):
            x, y = _powers(kind, i, x_low, x_high), _powers(kind, j, y_low, y_high)
            power[: len(x), : len(y)] += value * np.outer(x, y)
    except (ValueError, IndexError, KeyError) as error:
        raise InputError(
            f"the TNX distortion of axis {axis} cannot be read: reproject to plain TAN"
        ) from error
    return power


def _powers(kind: int, order: int, low: float, high: float) -> NDArray[np.float64]:
    """Coefficients of 1, x, x^2, ... of one basis function of a range."""
    if kind == _POLYNOMIAL:
        return np.eye(order + 1)[order]
    convert = {_CHEBYSHEV: chebyshev.cheb2poly, _LEGENDRE: legendre.leg2poly}[kind]
    inner = convert(np.eye(order + 1)[order])
    line, found = np.array([-(high + low), 2.0]) / (high - low), np.zeros(1)
    for coefficient in inner[::-1]:
        found = np.polynomial.polynomial.polyadd(np.polynomial.polynomial.polymul(found, line), coefficient)
    return found


def _terms(surface: NDArray[np.float64], axis: int) -> dict[int, float]:
    """Coefficients by the numbers of TPV; those of the second axis have the variables exchanged."""
    powers = surface if axis == 1 else surface.T
    found, number = {}, 0
    for degree in range(_MOST_POWER + 1):
        for second in range(degree + 1):
            while number in _RADIAL:
                number += 1
            if powers[degree - second, second]:
                found[number] = float(powers[degree - second, second])
            number += 1
    if any(
        powers[i, j] for i in range(_MOST_POWER + 1) for j in range(_MOST_POWER + 1) if i + j > _MOST_POWER
    ):
        raise InputError("the TNX distortion has powers above 7: reproject to plain TAN")
    return found
