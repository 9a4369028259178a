"""What the command line advises where the model of a run may lack something, in the words of its options."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lenssr.options import Settings

if TYPE_CHECKING:
    from lenssr.result import BandsResolution, SuperResolution

__all__ = ["advice"]

# Flags that say that data and model differ: anywhere, and where the arcs are.
UNEXPLAINED = frozenset("bad_chi2 bad_arc_chi2 bad_field_chi2 residual_structure flux_disagrees".split())
ARCS_UNEXPLAINED = frozenset(("bad_arc_chi2", "residual_structure"))
# Flags of a source that is none: light of the lens galaxy does that to an unknown lens.
NO_LENS = frozenset("no_arcs not_multiply_imaged source_too_large brightest_image_hidden".split())
# Flags of what the file did not say, with what to give.
MISSING = {
    "no_psf": "the image has no PSF: give --psf-file F or --psf-fwhm ANGLE",
    "noise_guessed": "the image has no errors: give --err-file F or --err HDU",
    "weight_guessed": "nothing says what the weights are: give --wht-kind",
    "unit_missing": "the image has no unit: give --unit",
    "no_wcs": "the image has no WCS: give --pixel-scale ANGLE",
}


def advice(settings: Settings, mask: Any, result: "SuperResolution | BandsResolution") -> Iterator[str]:
    """One line for each option that would help; ``mask`` is what hides pixels, None for nothing."""
    flags = set(result.flags)
    if not result.ok and settings.kind != "interpolation":
        yield from _of_the_model(settings, mask, flags)
    yield from (text for flag, text in MISSING.items() if flag in flags)


def _of_the_model(settings: Settings, mask: Any, flags: set[str]) -> Iterator[str]:
    """Parts that the model of a result that is not ok does not have."""
    if settings.lens_light is None and flags & (UNEXPLAINED | NO_LENS):
        yield "the lens galaxy is not modelled: if it is seen, add --lens-light mge,mge"
    elif settings.lens_light == "sersic" and flags & UNEXPLAINED:
        yield "the lens galaxy may be no Sérsic: try --lens-light mge,mge"
    if mask is None and flags & UNEXPLAINED:
        yield "other objects are not hidden: if there are any, add --mask auto"
    if settings.kind == "sersic" and flags & ARCS_UNEXPLAINED:
        yield "the source may be no Sérsic: try --source pixelated"
    if settings.knows_lens and not settings.fit_lens and flags & ARCS_UNEXPLAINED:
        yield "the lens that was given may be a little off: add --fit-lens"
