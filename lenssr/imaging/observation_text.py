"""An `~lenssr.imaging.Observation` in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lenssr._html import html_table

__all__ = ["Described"]


class Described:
    """One line for a prompt, and a table for a notebook."""

    def __repr__(self) -> str:
        told: Any = self
        unit = told.unit.to_string() or "no unit"
        size = f'{told.shape[1]}x{told.shape[0]} at {told.pixel_scale:.4g}", {unit}'
        masked = f", {int(told.mask.sum())} masked" if told.mask.any() else ""
        psf = "no PSF" if told.psf is None else f'PSF of {told.psf_fwhm:.3g}"'
        flags = f", flags: {', '.join(told.flags)}" if told.flags else ""
        return f"<Observation {size}{masked}, {psf}, {type(told.noise).__name__}{flags}>"

    def _rows(self) -> Iterator[tuple[str, str]]:
        told: Any = self
        names = {"file": "file", "telescope": "telescope", "filter": "filter"}
        yield from ((label, str(told.meta[key])) for key, label in names.items() if told.meta.get(key))
        yield "size", f'{told.shape[1]} x {told.shape[0]} pixels of {told.pixel_scale:.4g}"'
        yield "unit", told.unit.to_string() or "no unit"
        zero_point = told.meta.get("zero_point")
        yield "AB zero point", "unknown" if zero_point is None else f"{zero_point:.4f}"
        yield "masked", f"{int(told.mask.sum())} pixels"
        yield "noise", type(told.noise).__name__
        yield "PSF", "none" if told.psf is None else f'FWHM {told.psf_fwhm:.3g}"'
        yield "flags", ", ".join(told.flags) or "none"

    def _repr_html_(self) -> str:
        return html_table("Observation", self._rows())
