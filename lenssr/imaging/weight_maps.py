"""What a weight map means: exposure time, inverse variance, or neither."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.stats import sigma_clipped_stats

from lenssr.imaging.planes import Array
from lenssr.imaging.sky import noise_rms

__all__ = ["stated_kind", "kind_of_weight"]

# Drizzle's words for its weights, as in "final_wht_type = EXP" of a header or its history.
_STATED = re.compile(r"(?:final_)?wht_?_?type\W{1,6}(EXP|IVM|ERR)\b", re.IGNORECASE)
_KINDS = {"EXP": "exposure", "IVM": "inverse_variance", "ERR": "inverse_variance"}
# A map of exposure times has the total exposure as its highest value, within the rounding of drizzling.
SAME_EXPOSURE = 0.02
# Noise of the sky over that of an inverse variance; resampling makes it smaller, sources beside it larger.
LIKELY_RATIO = (0.25, 3.0)


def stated_kind(headers: list[fits.Header]) -> tuple[str | None, str]:
    """Kind of weight that cards or histories state, and where; None where they do not."""
    for header in headers:
        for card in header.cards:
            value = str(card.value).strip()
            text = f"{card.keyword} {value}" if card.keyword not in ("HISTORY", "COMMENT", "") else value
            found = _STATED.search(text)
            if found is not None:
                return _KINDS[found[1].upper()], f"{card.keyword} ({found[0]})"
            if card.keyword in ("WHTTYPE", "WGTTYPE", "FINALWHT", "WHT_TYPE") and value.upper() in _KINDS:
                return _KINDS[value.upper()], card.keyword
    return None, ""


def kind_of_weight(weight: Array, data: Array, exposure: float | None) -> tuple[str, str, bool]:
    """Kind of a weight map that nothing states.

    Parameters
    ----------
    weight, data : array, shape (ny, nx)
        The map and its image.
    exposure : float or None
        Total exposure time in seconds.

    Returns
    -------
    kind : {"exposure", "inverse_variance", "relative"}
        What it is taken for.
    why : str
        What speaks for it.
    guessed : bool
        False only where the map equals the exposure time.
    """
    good = np.isfinite(weight) & (weight > 0) & np.isfinite(data)
    if not good.any():
        return "relative", "no weight is positive", True
    middle, highest = float(np.median(weight[good])), float(weight[good].max())
    if exposure is not None and abs(middle / exposure - 1) < SAME_EXPOSURE:
        return "exposure", f"its median {middle:g} is the exposure time {exposure:g} s", False
    rms = noise_rms(data, good)
    ratio = rms * middle**0.5
    if LIKELY_RATIO[0] < ratio < LIKELY_RATIO[1]:
        return "inverse_variance", f"the sky's rms is {ratio:.2g} of its sigma", True
    if exposure is not None and highest < exposure * (1 + SAME_EXPOSURE) and middle > 0.01 * exposure:
        return "exposure", f"it ends at {highest:g}, the exposure time is {exposure:g} s", True
    if exposure is None and rms == 0:
        return "inverse_variance", "its name", True
    return "relative", f"the sky's rms is {ratio:.2g} of the sigma of an inverse variance", True


def scaled_to_sky(weight: Array, data: Array) -> Array:
    """Inverse variance from weights that are only proportional to it: the noise's rms sets their scale."""
    good = np.isfinite(weight) & (weight > 0) & np.isfinite(data)
    _, level, _ = sigma_clipped_stats(data[good], sigma=3, maxiters=10)
    pulls = np.where(good, (data - level) * np.sqrt(np.where(good, weight, 0.0)), 0.0)
    spread = noise_rms(pulls, good) or float(np.std(pulls[good])) or 1.0
    return np.where(good, weight / spread**2, 0.0)


def is_weight(values: Any) -> bool:
    """Whether a plane can be a weight: nowhere negative."""
    values = np.asarray(values)
    return not bool((values[np.isfinite(values)] < 0).any())
