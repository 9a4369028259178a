"""What a result says about itself: the flags, their thresholds, and which of them are serious."""

from dataclasses import dataclass

import numpy as np

__all__ = ["FLAGS", "Flag", "is_ok", "judge"]


@dataclass(frozen=True)
class Flag:
    """One thing that can be wrong or doubtful.

    Attributes
    ----------
    meaning : str
    serious : bool
        Whether it alone makes ``ok`` false.
    threshold : float or None
        Where it is set.
    """

    meaning: str
    serious: bool = False
    threshold: float | None = None


FLAGS = {
    "bad_chi2": Flag("reduced chi2 above the threshold and 5 sigma above 1", True, 1.2),
    "bad_arc_chi2": Flag(
        "reduced chi2 of the pixels with arcs above the threshold and 5 sigma above 1", True, 1.4
    ),
    "bad_field_chi2": Flag(
        "reduced chi2 of the pixels without arcs above the threshold and 5 sigma above 1", True, 1.2
    ),
    "low_chi2": Flag("reduced chi2 below the threshold: errors too large, or correlated noise", False, 0.8),
    "residual_structure": Flag(
        "residuals of neighbouring pixels in the arcs correlate more than the sky's, by", True, 0.1
    ),
    "not_converged": Flag("the fit stopped before it converged", True),
    "lens_at_bound": Flag("a lens parameter ended on a bound", True),
    "source_at_bound": Flag("a source parameter ended on a bound", True),
    "lens_light_at_bound": Flag("a parameter of the lens light ended on a bound"),
    "starts_disagree": Flag(
        "another lens explains the data as well, chi2, or -2 ln(evidence), larger by less than", True, 25.0
    ),
    "theta_E_uncertain": Flag("error of the Einstein radius over its value above", True, 0.1),
    "no_arcs": Flag("signal-to-noise of the lensed source below", True, 10.0),
    "not_multiply_imaged": Flag("signal-to-noise of the images of negative parity below", True, 5.0),
    "ring_unresolved": Flag("Einstein radius in pixels below", True, 2.0),
    "source_off_grid": Flag(
        "light on the rim of the source's grid, or that the data hold beyond it, in sigma above", True, 8.0
    ),
    "source_too_large": Flag("half-light radius of the source over the Einstein radius above", True, 1.5),
    "flux_disagrees": Flag("model and data differ in total flux by 5 sigma and a share above", True, 0.05),
    "saturated": Flag("several pixels share the highest value: mask them"),
    "small_image": Flag("the image has fewer than 16 pixels along a side"),
    "correlated_noise": Flag("lag-1 autocorrelation of the sky above; errors are widened", False, 0.15),
    "errors_too_small": Flag("rms of the sky over the given errors above", True, 1.3),
    "constant_image": Flag("all pixels have the same value", True),
    "hdu_guessed": Flag("the file has several images and names none SCI: the first was taken"),
    "gain_guessed": Flag("counts of unknown gain: one electron each"),
    "noise_guessed": Flag("no error plane and no exposure: the noise was estimated from the image"),
    "noise_from_exposure": Flag(
        "no error plane: Poisson noise from the exposure, the sky's rms from the image"
    ),
    "errors_follow_counts": Flag(
        "the error plane was made from the counts seen: its photon noise now follows the model"
    ),
    "no_psf": Flag("no PSF was given: the image is taken as sharp"),
    "psf_undersampled": Flag("FWHM of the PSF below two of its own samples; it had to be interpolated"),
    "psf_cropped": Flag("the PSF is larger than the image and was cropped"),
    "psf_off_centre": Flag("centroid of the PSF off by more than 0.05 pixel"),
    "extrapolated": Flag("psf_out='pixel': detail finer than the telescope's PSF comes from the model"),
    "unlike_training": Flag(
        "pixel scale, PSF or signal-to-noise ratio beyond the network's training: see meta['network']"
    ),
    "unit_missing": Flag("the image has no unit: taken as flux per pixel"),
    "no_wcs": Flag("the image has no WCS: positions are in the image frame only"),
    "failed": Flag("the image could not be processed", True),
    "interpolated": Flag("no lens, no source: plain interpolation"),
    "not_relensed": Flag("a network without the lens equation: no lens, no source; errors of noise alone"),
}


def judge(measures, flags=()):
    """Turn measured numbers into flags.

    Parameters
    ----------
    measures : dict
        Number by flag name, for the flags with thresholds, or bool for those without; those that could not
        be measured are left out. The pair ``"bad_chi2": (value, degrees_of_freedom)`` holds its own scatter.
    flags : iterable of str, optional
        Flags already set.

    Returns
    -------
    flags : tuple of str
        In the order of `FLAGS`.
    """
    raised = {name for name, measure in measures.items() if _is_raised(name, measure)} | set(flags)
    known = [name for name in FLAGS if name in raised]
    return tuple(known + sorted(raised - set(FLAGS)))


def is_ok(flags):
    """Whether none of the flags is serious."""
    return not any(FLAGS[name].serious for name in flags if name in FLAGS)


LOWER_IS_WORSE = {
    "low_chi2",
    "no_arcs",
    "not_multiply_imaged",
    "ring_unresolved",
    "starts_disagree",
}


def _is_raised(name, measure):
    threshold = FLAGS[name].threshold
    if threshold is None:
        return bool(measure)
    if name in ("bad_chi2", "bad_arc_chi2", "bad_field_chi2"):
        value, degrees = measure
        # A chi2 that is not a number is bad too.
        return not value <= max(threshold, 1 + 5 * np.sqrt(2 / max(degrees, 1)))
    if np.isnan(measure):
        return True
    return measure < threshold if name in LOWER_IS_WORSE else measure > threshold
