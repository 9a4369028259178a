"""The flags of a verdict: one function each, its threshold and its meaning beside it.

The docstring of a flag is its meaning, as the table in the docs has it. A new flag needs a function here, and
a test; `~lenssr.reconstruction.verdict.judge` and the docs find it.
"""
# ruff: noqa: D400, D403 - docstrings of flags are phrases of a table

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from lenssr.imaging.sky import CORRELATED_ABOVE
from lenssr.reconstruction import decisions
from lenssr.reconstruction.output_psf import is_extrapolated

__all__ = ["FLAGS", "Flag", "flag", "lag_one", "noted"]

# Reduced chi2 is bad only this many of its standard deviations above 1: sqrt(2 / degrees of freedom) each.
CHI2_SIGMA = 5.0
FEWEST_ARC_PIXELS = 12
# Neighbouring residuals correlate only beyond this many standard errors, 1 / sqrt(pixels) each.
LAG_SIGMA = 4.0
# Pixels of small arcs share what they determine with those around: they keep at least a quarter of their own.
MOST_DETERMINED = 0.75
# Model and data differ in flux only beyond this many standard deviations of the sum.
FLUX_SIGMA = 5.0
# A full detector gives one value to several pixels: 4 of the highest value, 10 sigma above 0, are no chance.
FEWEST_FULL_PIXELS, FULL_SIGMA = 4, 10.0
# A source whose light lies as evenly as this percentile of the pixels cannot be told from the sky.
FAINT_SHARE = 10
# Light beyond the grid of a source is looked for within 2.5 times its size, in 25 x 25 cells.
WIDER, CELLS = 2.5, 25

FLAGS = {}


@dataclass(frozen=True)
class Flag:
    """One thing that can be wrong or doubtful.

    Attributes
    ----------
    measure : callable
        ``measure(run)`` is a number, a bool, a pair (reduced chi2, degrees of freedom), or None.
    meaning : str
    serious : bool
        Whether it alone makes ``ok`` false.
    above, below : float or None
        The threshold; neither for what is or is not.
    needs : str or None
        Attribute of a `~lenssr.reconstruction.verdict.Run` without which nothing can be measured.
    """

    measure: Callable = field(repr=False)
    meaning: str
    serious: bool = False
    above: float | None = None
    below: float | None = None
    needs: str | None = None

    @property
    def threshold(self):
        """The threshold, or None."""
        return self.above if self.below is None else self.below

    def of(self, run):
        """Measure a run; None where that cannot be done."""
        return None if self.needs and getattr(run, self.needs) is None else self.measure(run)

    def raised(self, measured):
        """Whether a measured value sets the flag, as one that is not a number does."""
        if isinstance(measured, tuple):
            chi2, degrees = measured
            return not chi2 <= max(self.above, 1 + CHI2_SIGMA * np.sqrt(2 / max(degrees, 1)))
        if self.threshold is None:
            return bool(measured)
        return not (measured <= self.above if self.below is None else measured >= self.below)


def flag(*, above=None, below=None, serious=False, needs="fit"):
    """Make a flag of the function that measures it, by the function's name."""

    def register(measure):
        FLAGS[measure.__name__] = Flag(measure, measure.__doc__, serious, above, below, needs)
        return measure

    return register


def noted(name, meaning, *, serious=False):
    """Make a flag of what was noted while an image was read, or is known of how it was solved."""
    FLAGS[name] = Flag(lambda run: run.notes(name) or None, meaning, serious)


# ---------------------------------------------------------------- does the model explain the data?


@flag(above=decisions.BAD_CHI2, serious=True, needs=None)
def bad_chi2(run):
    """reduced chi2 above the threshold and 5 sigma above 1"""
    # Interpolation has no model that could be wrong.
    return None if run.notes("interpolated") else (run.chi2, max(run.degrees, 1) / run.widening**2)


@flag(above=1.4, serious=True)
def bad_arc_chi2(run):
    """reduced chi2 of the pixels with arcs above the threshold and 5 sigma above 1"""
    return _chi2(run, run.arcs, run.determined[0]) if run.arcs.sum() >= FEWEST_ARC_PIXELS else None


@flag(above=decisions.BAD_CHI2, serious=True)
def bad_field_chi2(run):
    """reduced chi2 of the pixels without arcs above the threshold and 5 sigma above 1"""
    return _chi2(run, run.beside_arcs, run.determined[1])


@flag(below=0.8)
def low_chi2(run):
    """reduced chi2 below the threshold: errors too large, or correlated noise"""
    return run.chi2


@flag(above=0.1, serious=True)
def residual_structure(run):
    """residuals of neighbouring pixels in the arcs correlate more than the sky's, by"""
    count = run.arcs.sum()
    if count < FEWEST_ARC_PIXELS:
        return None
    excess = lag_one(run.pulls, run.arcs) - lag_one(run.pulls, run.beside_arcs)
    return excess if excess > LAG_SIGMA / np.sqrt(count) else 0.0


def _chi2(run, region, parameters):
    """Reduced chi2 of the pixels of a region that determine so many parameters, and degrees of freedom."""
    pulls = run.pulls[region]
    degrees = max(len(pulls) - min(parameters, MOST_DETERMINED * len(pulls)), 1)
    return float((pulls**2).sum() / degrees), degrees / run.widening**2


def lag_one(pulls, region):
    """Correlation between neighbouring pixels of a region, along rows and columns; 0 where it has none."""
    products, squares = [], []
    for axis in (0, 1):
        shifted = np.roll(pulls, -1, axis=axis)
        both = region & np.roll(region, -1, axis=axis)
        both[(slice(None), -1)[:: 1 if axis else -1]] = False
        products.append((pulls * shifted)[both])
        squares.append((0.5 * (pulls**2 + shifted**2))[both])
    total = np.concatenate(squares).sum()
    return float(np.concatenate(products).sum() / total) if total > 0 else 0.0


# ---------------------------------------------------------------- did the fit end well?


@flag(serious=True)
def not_converged(run):
    """the fit stopped before it converged"""
    return not run.fit.converged


@flag(serious=True)
def lens_at_bound(run):
    """a lens parameter ended on a bound"""
    return _at_bound(run, "lens")


@flag(serious=True)
def source_at_bound(run):
    """a source parameter ended on a bound"""
    return _at_bound(run, "source")


@flag()
def lens_light_at_bound(run):
    """a parameter of the lens light ended on a bound"""
    return _at_bound(run, "lens_light")


@flag(below=decisions.SECOND_MODE, serious=True)
def starts_disagree(run):
    """another lens explains the data as well, chi2, or -2 ln(evidence), larger by less than"""
    return min((excess for excess, _ in run.fit.modes), default=np.inf)


@flag(above=0.1, serious=True, needs="theta_E")
def theta_E_uncertain(run):
    """error of the Einstein radius over its value above"""
    column = run.scene.radius
    if not bool(run.scene.free[column]):
        return None
    return float(run.covariance[column, column].sqrt()) / run.theta_E


def _at_bound(run, role):
    kept = run.scene.keep(role)
    return any(not kept[place] for place in run.fit.at_bound)


# ---------------------------------------------------------------- is it a lensed source?


@flag(below=10.0, serious=True)
def no_arcs(run):
    """signal-to-noise of the lensed source below"""
    return _signal(run) / run.widening


@flag(below=5.0, serious=True, needs="lens")
def not_multiply_imaged(run):
    """signal-to-noise of the images of negative parity below"""
    grid, physical = run.observation.grid, run.fit.physical
    x, y = (torch.as_tensor(axis.ravel()).to(physical) for axis in (grid.x, grid.y))
    xx, xy, yy = run.lens.hessian_at(x, y, physical[run.scene["lens"].slice].unsqueeze(0))
    flipped = ((1 - xx) * (1 - yy) - xy**2 < 0)[0].reshape(grid.shape).cpu().numpy()
    return _signal(run, flipped)


@flag(below=2.0, serious=True, needs="theta_E")
def ring_unresolved(run):
    """Einstein radius in pixels below"""
    return run.theta_E / run.observation.grid.pixel_scale


@flag(above=8.0, serious=True, needs="inversion")
def source_off_grid(run):
    """light on the rim of the source's grid, or that the data hold beyond it, in sigma above"""
    problem, solution = run.inversion
    grid = problem.grid_at(solution.parameters)
    rows, columns = np.divmod(np.arange(grid.size), grid.side)
    rim = (np.minimum(rows, columns) == 0) | (np.maximum(rows, columns) == grid.side - 1)
    on_rim = problem.lensed_source(np.where(rim, solution.values, 0.0), solution.parameters)
    # Errors that are too small make spots of mere noise.
    beyond = _beyond(run, grid) / (run.widening * max(run.noise.rms_ratio, 1.0))
    return max(float((on_rim * np.sqrt(run.weight.ravel())).max()), beyond)


@flag(above=1.5, serious=True, needs="theta_E")
def source_too_large(run):
    """half-light radius of the source over the Einstein radius above"""
    # Of a Sérsic times a field the larger radius counts.
    source, radii = run.scene["source"], []
    if source is not None:
        radii.append(float(source.profile.effective_radius(run.fit.physical[source.slice])))
    if run.inversion is not None:
        radii.append(_half_light_radius(*run.inversion))
    return float(np.max(radii)) / run.theta_E if radii else None


def _signal(run, region=...):
    """Signal-to-noise of the lensed source in a region, less what a fitted sky could take."""
    light = run.lensed_source
    level = np.percentile(light[run.weight > 0], FAINT_SHARE) if run.scene["sky"] else 0.0
    return float(np.sqrt((np.maximum(light - level, 0) ** 2 * run.weight)[region].sum()))


def _beyond(run, grid):
    """Significance of the brightest spot that the data would have in the source plane, off the grid."""
    problem, solution = run.inversion
    x, y = (torch.as_tensor(axis.ravel()) for axis in (run.observation.grid.x, run.observation.grid.y))
    rays = problem.scene.source_positions(x, y, problem.physical(solution.parameters))
    across, along = (rays[0][0].numpy() - grid.x_0) / grid.half, (rays[1][0].numpy() - grid.y_0) / grid.half
    outside = (np.maximum(np.abs(across), np.abs(along)) > 1) & (np.hypot(across, along) < WIDER)
    cell = [np.floor((axis[outside] + WIDER) / (2 * WIDER) * CELLS).astype(int) for axis in (across, along)]
    where = cell[1] * CELLS + cell[0]
    weight, residual = run.weight.ravel()[outside], run.residual.ravel()[outside]
    signal = np.bincount(where, weight * residual, minlength=CELLS**2)
    information = np.bincount(where, weight, minlength=CELLS**2)
    return float((signal / np.sqrt(np.maximum(information, np.finfo(float).tiny))).max())


def _half_light_radius(problem, solution):
    """Radius around the centre of light that holds half of the light of a source on a grid, in arcsec."""
    grid = problem.grid_at(solution.parameters)
    brightness = problem.mapping(solution.parameters).brightness(solution.values)
    step = np.gradient(grid.offsets)
    light = np.maximum(brightness, 0) * np.outer(step, step).ravel()
    light /= max(light.sum(), np.finfo(float).tiny)
    x, y = grid.nodes
    radius = np.hypot(x - light @ x, y - light @ y)
    order = np.argsort(radius)
    return float(radius[order][np.searchsorted(light[order].cumsum(), 0.5).clip(max=grid.size - 1)])


# ---------------------------------------------------------------- the image and its noise


@flag(above=0.05, serious=True)
def flux_disagrees(run):
    """model and data differ in total flux by 5 sigma and a share above"""
    light = run.observation.data - run.residual - run.sky_level
    shining = light * np.sqrt(run.weight) > 1
    if not shining.any():
        return 0.0
    offset = abs(run.residual[shining].sum())
    error = run.widening * np.sqrt((1 / run.weight[shining]).sum())
    return float(offset / light[shining].sum()) if offset > FLUX_SIGMA * error else 0.0


@flag()
def saturated(run):
    """several pixels share the highest value: mask them"""
    valid = run.observation.valid
    data, highest = run.observation.data[valid], run.observation.data[valid].max()
    full = highest > FULL_SIGMA * np.median(run.observation.sigma()[valid])
    return full and data.min() < highest and (data == highest).sum() >= FEWEST_FULL_PIXELS


noted("small_image", "the image has fewer than 16 pixels along a side")


@flag(above=CORRELATED_ABOVE)
def correlated_noise(run):
    """lag-1 autocorrelation of the sky above; errors are widened"""
    return run.noise.lag1


@flag(above=decisions.ERRORS_TOO_SMALL, serious=True)
def errors_too_small(run):
    """rms of the sky over the given errors above"""
    return run.noise.rms_ratio


noted("constant_image", "all pixels have the same value", serious=True)
noted("hdu_guessed", "the file has several images and names none SCI: the first was taken")
noted("gain_guessed", "counts of unknown gain: one electron each")
noted("noise_guessed", "no error plane and no exposure: the noise was estimated from the image")
noted("noise_from_exposure", "no error plane: Poisson noise from the exposure, the sky's rms from the image")
noted(
    "errors_follow_counts",
    "the error plane was made from the counts seen: its photon noise now follows the model",
)


@flag()
def no_psf(run):
    """no PSF was given: the image is taken as sharp"""
    # With one sample in the middle of a pixel nothing is said to have passed a telescope.
    return run.observation.psf is None and run.settings.oversampling == "auto"


@flag()
def psf_undersampled(run):
    """FWHM of the PSF below two of its own samples; it had to be interpolated"""
    psf, settings = run.observation.psf, run.settings
    # Behind another PSF the telescope's is not needed any finer than it is given.
    if psf is None or settings.scale == 1 or settings.psf_out is not None:
        return False
    return psf.undersampled(run.observation.grid.pixel_scale, subsampling=settings.scale)


noted("psf_cropped", "the PSF is larger than the image and was cropped")
noted("psf_off_centre", "centroid of the PSF off by more than 0.05 pixel")


@flag()
def extrapolated(run):
    """psf_out='pixel': detail finer than the telescope's PSF comes from the model"""
    return is_extrapolated(run.settings.psf_out, run.observation)


noted(
    "unlike_training",
    "pixel scale, PSF or signal-to-noise ratio beyond the network's training: see meta['network']",
)
noted("unit_missing", "the image has no unit: taken as flux per pixel")


@flag()
def no_wcs(run):
    """the image has no WCS: positions are in the image frame only"""
    return run.observation.grid.wcs is None


noted("failed", "the image could not be processed", serious=True)
noted("interpolated", "no lens, no source: plain interpolation")
noted("not_relensed", "a network without the lens equation: no lens, no source; errors of noise alone")
