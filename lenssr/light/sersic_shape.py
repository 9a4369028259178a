"""The constant b_n of the Sérsic profile, exact, and lenstronomy's approximation to it."""

import functools
from typing import Any

import numpy as np
import scipy.special
import torch
from torch import Tensor

from lenssr._exchange.lenstronomy_names import approximate_b
from lenssr.exceptions import InputError

__all__ = ["sersic_b", "sersic_from_lenstronomy", "sersic_to_lenstronomy"]

N_RANGE = (0.1, 12.0)
"""Sérsic indices for which the series of b_n was made."""

# In t = 1/(n + shift) the remainder b_n - (2n - 1/3) is so smooth that a short series reaches round-off.
_SHIFT = 0.2
_DEGREE = 22


@functools.cache
def _b_series(device: torch.device) -> tuple[Tensor, Tensor, float, float]:
    """Coefficients of the remainder of b_n and of its derivative, in powers of the scaled t."""
    upper, lower = 1 / (N_RANGE[0] + _SHIFT), 1 / (N_RANGE[1] + _SHIFT)
    middle, half = (upper + lower) / 2, (upper - lower) / 2
    nodes = np.cos(np.pi * (np.arange(200) + 0.5) / 200)
    n = 1 / (middle + half * nodes) - _SHIFT
    remainder = scipy.special.gammaincinv(2 * n, 0.5) - (2 * n - 1 / 3)
    series = np.polynomial.chebyshev.cheb2poly(np.polynomial.chebyshev.chebfit(nodes, remainder, _DEGREE))
    slope = np.append(np.polynomial.polynomial.polyder(series), 0.0)
    both = torch.as_tensor(np.stack([series, slope], axis=1), device=device)
    return both, torch.arange(_DEGREE + 1.0, dtype=torch.float64, device=device), middle, half


def b_and_slope(n: Tensor) -> tuple[Tensor, Tensor]:
    """b_n and its derivative, computed in float64; not a number where n is outside 0.1 to 12."""
    wide = n.to(torch.float64)
    series, exponents, middle, half = _b_series(n.device)
    t = 1 / (wide + _SHIFT)
    remainder, slope = (((t - middle) / half).unsqueeze(-1) ** exponents @ series).unbind(-1)
    b, db_dn = 2 * wide - 1 / 3 + remainder, 2 - slope * t**2 / half
    inside = (wide >= N_RANGE[0]) & (wide <= N_RANGE[1])
    return torch.where(inside, b, torch.nan).to(n.dtype), torch.where(inside, db_dn, torch.nan).to(n.dtype)


def sersic_b(n: Any) -> Any:
    """The constant b_n that makes r_eff enclose half of the light.

    Parameters
    ----------
    n : float, array or `torch.Tensor`
        Sérsic index, 0.1 to 12.

    Returns
    -------
    b_n : float, array or `torch.Tensor`
        The solution of ``gammainc(2 n, b_n) = 1/2``, within 1e-12, differentiable.

    Raises
    ------
    InputError
        If an index is out of range.

    References
    ----------
    Ciotti & Bertin (1999), A&A 352, 447, equation 3.

    Examples
    --------
    >>> from lenssr.light import sersic_b
    >>> round(sersic_b(4.0), 6)
    7.669249
    """
    tensor = n if isinstance(n, torch.Tensor) else torch.as_tensor(np.asarray(n, dtype=np.float64))
    if not bool(((tensor >= N_RANGE[0]) & (tensor <= N_RANGE[1])).all()):
        raise InputError(f"Sérsic index n = {n} is outside {N_RANGE[0]} to {N_RANGE[1]}: give one inside")
    b = b_and_slope(tensor)[0]
    if isinstance(n, torch.Tensor):
        return b
    return b.numpy() if b.ndim else b.item()


def sersic_from_lenstronomy(amp: Any, R_sersic: Any, n_sersic: Any) -> tuple[Any, Any]:
    """Amplitude and radius of the same profile with the exact b_n, from lenstronomy's.

    Parameters
    ----------
    amp, R_sersic, n_sersic : float or array
        As in lenstronomy's ``SERSIC`` and ``SERSIC_ELLIPSE``, which take b_n = 1.9992 n - 0.3271.

    Returns
    -------
    amplitude, r_eff_circ : float or array
        At the true half-light radius; the index and the ellipticity stay as they are.

    Examples
    --------
    >>> from lenssr.light import sersic_from_lenstronomy
    >>> amplitude, r_eff_circ = sersic_from_lenstronomy(20.0, 0.25, 1.0)
    >>> round(amplitude, 4), round(r_eff_circ, 6)
    (19.8754, 0.250934)
    """
    b, approximate = sersic_b(n_sersic), approximate_b(n_sersic)
    return amp * np.exp(approximate - b), R_sersic * (b / approximate) ** n_sersic


def sersic_to_lenstronomy(amplitude: Any, r_eff_circ: Any, n: Any) -> tuple[Any, Any]:
    """Invert `sersic_from_lenstronomy`.

    Parameters
    ----------
    amplitude, r_eff_circ, n : float or array
        As in `sersic_brightness`.

    Returns
    -------
    amp, R_sersic : float or array

    Examples
    --------
    >>> from lenssr.light import sersic_from_lenstronomy, sersic_to_lenstronomy
    >>> amp, R_sersic = sersic_to_lenstronomy(*sersic_from_lenstronomy(20.0, 0.25, 1.0), 1.0)
    >>> round(amp, 9), round(R_sersic, 9)
    (20.0, 0.25)
    """
    b, approximate = sersic_b(n), approximate_b(n)
    return amplitude * np.exp(b - approximate), r_eff_circ * (approximate / b) ** n
