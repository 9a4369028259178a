"""What is read in a file, in words: the text of ``lenssr inspect``."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from lenssr.exceptions import LensSRWarning
from lenssr.imaging.observation import Observation

__all__ = ["describe_reading"]


# Planes of a file, as ``meta["reading"]`` calls them.
PLANES = ("image", "error", "variance", "inverse variance", "weight", "exposure", "mask", "psf")
# Flags of what reading had to guess or found odd.
GUESSES = (
    "weight_guessed mask_guessed psf_place_guessed errors_missing border_without_data single_exposure "
    "cosmic_rays hdu_guessed gain_guessed noise_guessed noise_from_exposure unit_missing"
).split()


def describe_reading(path: Any, **options: Any) -> Iterator[str]:
    """Lines that say what is read in a file, from which HDU and keyword, and what is assumed."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", LensSRWarning)
        seen = Observation.from_any(path, **options)
    meta = seen.meta
    for name, value in meta.get("reading", {}).items():
        yield f"{name:<18}{value}"
    size = f"{seen.shape[1]} x {seen.shape[0]} of {seen.pixel_scale:.5g} arcsec"
    yield f"{'pixels':<18}{size}, {meta['masked']} hidden"
    for why, count in meta.get("hidden", {}).items():
        yield f"{'  hidden':<18}{count}: {why}"
    unit = str(seen.unit) or "none"
    yield f"{'unit':<18}{unit}" + ("" if seen.conserves_sum else ", of surface brightness")
    zero = meta.get("zero_point")
    yield f"{'AB zero point':<18}" + ("not known" if zero is None else f"{zero:.4f}")
    yield f"{'noise':<18}{_noise(seen)}"
    yield f"{'PSF':<18}" + ("none" if seen.psf is None else f"{seen.psf!r}, FWHM {seen.psf_fwhm:.4g} arcsec")
    for name in ("TELESCOP", "INSTRUME", "FILTER", "FILTER1", "FILTER2", "OBJECT", "TARGNAME", "DATE-OBS"):
        if name in meta:
            yield f"{name.lower():<18}{meta[name]}"
    assumed = meta.get("assumed", {})
    for flag in seen.flags:
        yield f"{'flag':<18}{flag}" + (f", assumed: {assumed[flag]}" if flag in assumed else "")
    for warning in caught:
        yield f"{'warning':<18}{warning.message}"


def _noise(seen: Observation) -> str:
    middle = float(np.median(seen.sigma()[seen.valid]))
    return f"median sigma {middle:.5g}, {type(seen.noise).__name__}"
