"""The flags of a result, one function each, and the verdict that measures all of them once.

The docstring of a flag is its meaning, as the table in the docs has it; its threshold stands beside it. The
grade of a result is the worst that any of its flags leaves it. A new flag needs a function here, and a test;
`judge` and the docs find it.
"""
# ruff: noqa: D400, D403 - docstrings of flags are phrases of a table

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch

from lenssr.imaging.observation import Observation
from lenssr.imaging.sky import CORRELATED_ABOVE, SkyNoise
from lenssr.model.fit import Fit
from lenssr.model.scene import Scene
from lenssr.options import Settings
from lenssr.reconstruction import decisions, source_extent
from lenssr.reconstruction.fine_images import is_extrapolated
from lenssr.result.grade import OK_GRADES, worst

# Reduced chi2 is bad only this many of its standard deviations above 1: sqrt(2 / degrees of freedom) each.
CHI2_SIGMA = 5.0
FEWEST_ARC_PIXELS = 12
# Neighbouring residuals correlate only beyond this many standard errors, 1 / sqrt(pixels) each.
LAG_SIGMA = 4.0
# Pixels of small arcs share what they determine with their surroundings: they keep at least a quarter.
MOST_DETERMINED = 0.75
# Model and data differ in flux only beyond this many standard deviations of the sum.
FLUX_SIGMA = 5.0
# Saturated: at least 4 pixels share the highest value, at least 10 sigma above 0.
FEWEST_FULL_PIXELS, FULL_SIGMA = 4, 10.0
FAINT_SHARE = 10  # percentile of the lensed source that a fitted sky could take


# ---------------------------------------------------------------- one run and its verdict


@dataclass(frozen=True)
class Verdict:
    """Flags in the order of `FLAGS`, what they come to, and what was measured by the names of flags."""

    flags: tuple[str, ...]
    grade: str
    measures: dict[str, Any]

    @property
    def serious(self) -> tuple[str, ...]:
        """The serious ones of the flags."""
        return tuple(name for name in self.flags if FLAGS[name].serious)


@dataclass(frozen=True, eq=False)
class Run:
    """Input of a verdict: one image, how it was solved, and the end of the fit.

    ``model`` and ``weight`` (ny, nx) are expected data and inverse variance; ``degrees`` the pixels used less
    the free parameters, where nodes of a source on a grid count as far as the data determine them. ``facts``
    that only the producer knows are called as flags: ``interpolated``, ``unlike_training``. ``scene``,
    ``fit`` and ``noise`` (of the residual) are None for an image without a model; ``inversion``,
    `~lenssr.source.Problem` and `~lenssr.source.Solution`, is that of a source on a grid.
    """

    observation: Observation
    settings: Settings
    model: np.ndarray
    weight: np.ndarray
    degrees: float
    facts: dict = field(default_factory=dict)
    scene: Scene | None = None
    fit: Fit | None = None
    noise: SkyNoise | None = None
    inversion: tuple | None = None

    def notes(self, name):
        """Whether the observation or the producer notes something."""
        return name in self.observation.flags or bool(self.facts.get(name))

    @cached_property
    def residual(self):
        """Data - model, 0 where masked (ny, nx)."""
        return np.where(self.observation.mask, 0.0, self.observation.data - self.model)

    @cached_property
    def sigma(self):
        """Noise that was used (ny, nx), nan where no pixel was."""
        used = self.weight > 0
        return np.where(used, 1 / np.sqrt(np.where(used, self.weight, 1)), np.nan)

    @cached_property
    def pulls(self):
        """Residual in sigma (ny, nx)."""
        return self.residual * np.sqrt(self.weight)

    @cached_property
    def chi2(self):
        """Reduced chi2 of all pixels."""
        return float((self.pulls**2).sum() / max(self.degrees, 1))

    @property
    def widening(self):
        """Factor of errors over those of independent noise."""
        return 1.0 if self.noise is None else self.noise.factor

    @cached_property
    def covariance(self):
        """Covariance of the parameters (P, P) for correlated noise."""
        return self.fit.covariance * self.widening**2

    @cached_property
    def sky_level(self):
        """The fitted sky of a pixel; 0 without one."""
        return self.scene.sky_of(self.fit.physical)

    @cached_property
    def lensed_source(self):
        """The source's part of the model (ny, nx)."""
        return self.fit.lensed_source.reshape(self.weight.shape).cpu().numpy()

    @cached_property
    def arcs(self):
        """The pixels with arcs, bool (ny, nx)."""
        return arc_pixels(self.lensed_source, self.weight)

    @cached_property
    def beside_arcs(self):
        """The other pixels that were used, bool (ny, nx)."""
        return (self.weight > 0) & ~self.arcs

    @cached_property
    def determined(self):
        """Numbers of parameters that the pixels of the arcs and of the field determine."""
        if self.fit.leverage is not None:
            leverage = self.fit.leverage.reshape(self.weight.shape).cpu().numpy()
            return leverage[self.arcs].sum(), leverage[self.beside_arcs].sum()
        # Lens light and sky shine outside the arcs: their parameters count against the pixels there.
        in_field = self.scene.count("lens_light") + self.scene.count("sky")
        return np.count_nonzero(self.weight > 0) - self.degrees - in_field, in_field

    @property
    def lens(self):
        """The mass model, or None."""
        return None if self.scene is None else self.scene.lens

    @property
    def theta_E(self):
        """The first Einstein radius in arcsec, or None."""
        column = None if self.scene is None else self.scene.radius
        return None if column is None else float(self.fit.physical[column])


def arc_pixels(lensed_source, weight):
    """Where the lensed source stands more than 3 sigma above the noise, bool (ny, nx)."""
    return lensed_source * np.sqrt(weight) > decisions.ARC_SIGMA


def judge(run):
    """Measure every flag on a `Run` and return the `Verdict`."""
    measured = {name: flag.of(run) for name, flag in FLAGS.items()}
    measured = {name: value for name, value in measured.items() if value is not None}
    flags = tuple(name for name, value in measured.items() if FLAGS[name].raised(value))
    measures = {name: np.asarray(value).tolist() for name, value in measured.items()}
    return Verdict(flags, worst(FLAGS[name].cap for name in flags), measures)


# ---------------------------------------------------------------- what a flag is


@dataclass(frozen=True)
class Flag:
    """One thing that can be wrong or doubtful, and the best grade of a result that has it, its ``cap``.

    ``measure(run)`` is a number, which the threshold ``above`` or ``below`` judges, a bool, a pair (reduced
    chi2, degrees of freedom), or None. ``needs`` names an attribute of a `Run` that must not be None.
    """

    measure: Callable = field(repr=False)
    meaning: str
    cap: str = "secure"
    above: float | None = None
    below: float | None = None
    needs: str | None = None

    @property
    def serious(self):
        """Whether a result that has it is not ok."""
        return self.cap not in OK_GRADES

    @property
    def threshold(self):
        """The threshold, or None."""
        return self.above if self.below is None else self.below

    def of(self, run):
        """Measure a run; None where that cannot be done."""
        return None if self.needs and getattr(run, self.needs) is None else self.measure(run)

    def raises(self, run):
        """Whether a run sets the flag."""
        measured = self.of(run)
        return measured is not None and self.raised(measured)

    def raised(self, measured):
        """Whether a measured value sets the flag; nan does."""
        if isinstance(measured, tuple):
            chi2, degrees = measured
            return not chi2 <= max(self.above, 1 + CHI2_SIGMA * np.sqrt(2 / max(degrees, 1)))
        if self.threshold is None:
            return bool(measured)
        return not (measured <= self.above if self.below is None else measured >= self.below)


FLAGS: dict[str, Flag] = {}


def flag(cap="secure", *, above=None, below=None, needs="fit"):
    """Make a flag of the function that measures it, by the function's name."""

    def register(measure):
        FLAGS[measure.__name__] = Flag(measure, measure.__doc__, cap, above, below, needs)
        return measure

    return register


def noted(name, meaning, cap="secure"):
    """Make a flag of a note of the observation, or of the producer of a result."""
    FLAGS[name] = Flag(lambda run: run.notes(name) or None, meaning, cap)


# ---------------------------------------------------------------- does the model explain the data?


@flag("doubtful", above=decisions.BAD_CHI2, needs=None)
def bad_chi2(run):
    """reduced chi2 above the threshold and 5 sigma above 1"""
    return None if run.notes("interpolated") else (run.chi2, max(run.degrees, 1) / run.widening**2)


@flag("doubtful", above=1.4)
def bad_arc_chi2(run):
    """reduced chi2 of the pixels with arcs above the threshold and 5 sigma above 1"""
    return _chi2(run, run.arcs, run.determined[0]) if run.arcs.sum() >= FEWEST_ARC_PIXELS else None


@flag("doubtful", above=decisions.BAD_CHI2)
def bad_field_chi2(run):
    """reduced chi2 of the pixels without arcs above the threshold and 5 sigma above 1"""
    return _chi2(run, run.beside_arcs, run.determined[1])


@flag(below=0.8)
def low_chi2(run):
    """reduced chi2 below the threshold: errors too large, or correlated noise"""
    return run.chi2


@flag("doubtful", above=0.1)
def residual_structure(run):
    """residuals of neighbouring pixels in the arcs correlate more than the sky's, by"""
    count = run.arcs.sum()
    if count < FEWEST_ARC_PIXELS:
        return None
    excess = lag_one(run.pulls, run.arcs) - lag_one(run.pulls, run.beside_arcs)
    return excess if excess > LAG_SIGMA / np.sqrt(count) else 0.0


def _chi2(run, region, parameters):
    """Reduced chi2 and degrees of freedom of a region whose pixels determine a number of parameters."""
    pulls = run.pulls[region]
    degrees = max(len(pulls) - min(parameters, MOST_DETERMINED * len(pulls)), 1)
    return float((pulls**2).sum() / degrees), degrees / run.widening**2


def lag_one(pulls, region):
    """Correlation between neighbouring pixels of a region, along rows and columns; 0 without neighbours."""
    product = square = 0.0
    for values, inside in ((pulls, region), (pulls.T, region.T)):
        both = inside[1:] & inside[:-1]
        first, second = values[:-1][both], values[1:][both]
        product += (first * second).sum()
        square += (first**2 + second**2).sum() / 2
    return float(product / square) if square > 0 else 0.0


# ---------------------------------------------------------------- did the fit end well?


@flag("doubtful")
def not_converged(run):
    """the fit stopped before it converged"""
    return not run.fit.converged


def _at_bound(role, run):
    kept = run.scene.keep(role)
    return any(not kept[place] for place in run.fit.at_bound)


for _role, _what, _cap in (
    ("lens", "a lens parameter", "doubtful"),
    ("source", "a source parameter", "doubtful"),
    ("lens_light", "a parameter of the lens light", "secure"),
):
    _meaning = f"{_what} ended on a bound"
    FLAGS[f"{_role}_at_bound"] = Flag(partial(_at_bound, _role), _meaning, _cap, needs="fit")


@flag("doubtful", below=decisions.SECOND_MODE)
def starts_disagree(run):
    """another lens explains the data as well, chi2, or -2 ln(evidence), larger by less than"""
    return min((excess for excess, _ in run.fit.modes), default=np.inf)


@flag("doubtful", above=decisions.PROBABLE_ERROR, needs="theta_E")
def theta_E_uncertain(run):
    """error of the Einstein radius over its value above"""
    column = run.scene.radius
    return float(run.covariance[column, column].sqrt()) / run.theta_E if run.scene.free[column] else None


@flag("probable", above=decisions.SECURE_ERROR, needs="theta_E")
def theta_E_imprecise(run):
    """5 % of the Einstein radius are less than three of its errors: error over value above"""
    return theta_E_uncertain(run)


# ---------------------------------------------------------------- is it a lensed source?


@flag("doubtful", below=10.0)
def no_arcs(run):
    """signal-to-noise of the lensed source below"""
    return _signal(run) / run.widening


@flag("doubtful", below=5.0, needs="lens")
def not_multiply_imaged(run):
    """signal-to-noise of the images of negative parity below"""
    return _signal(run, _flipped(run))


@flag("doubtful", below=0.3, needs="lens")
def brightest_image_hidden(run):
    """share of the light of images whose parity is positive below: behind an isothermal lens it is half"""
    light = np.where(run.arcs, run.lensed_source, 0.0)
    return float(light[~_flipped(run)].sum() / light.sum()) if light.any() else None


@flag("probable", above=decisions.OFF_LIGHT, needs="theta_E")
def mass_off_light(run):
    """distance in arcsec of a fitted lens from its light above: galaxies have 0.05"""
    columns, physical = run.scene.lens_centre_columns, run.fit.physical
    if not run.scene.lights or not columns or not bool(run.scene.free[columns].all()):
        return None
    centre = physical[columns]
    lights = [physical[[block.start + k for k in block.profile.centre]] for block in run.scene.lights]
    return min(float((light - centre).norm()) for light in lights)


@flag("doubtful", above=decisions.LIGHTS_APART, needs="theta_E")
def lights_apart(run):
    """distance between two parts of a fitted lens light over the Einstein radius above: one is in the arcs"""
    lights = [block for block in run.scene.lights if block.profile.given is None]
    places = [run.fit.physical[[block.start + k for k in block.profile.centre]] for block in lights]
    return max((float((a - b).norm()) for a in places for b in places), default=0.0) / run.theta_E


@flag("doubtful", above=decisions.UNLIKE_LIGHT, needs="theta_E")
def lens_unlike_light(run):
    """difference between the ellipticities (e1, e2) of a fitted lens and of its light above"""
    block, physical = run.scene["lens"], run.fit.physical
    columns = [k for name in ("e1", "e2") for k in block.columns(name)]
    lights = [one for one in run.scene.lights if {"e1", "e2"} <= set(one.profile.names)]
    if not lights or len(columns) != 2 or not bool(run.scene.free[columns].all()):
        return None
    shapes = [
        physical[[one.start + one.profile.names.index(name) for name in ("e1", "e2")]] for one in lights
    ]
    fluxes = torch.stack([one.profile.flux(physical[one.slice]) for one in lights]).clamp_min(1e-300)
    return float((physical[columns] - fluxes @ torch.stack(shapes) / fluxes.sum()).norm())


@flag("doubtful", below=decisions.RESOLVED_RING, needs="theta_E")
def ring_unresolved(run):
    """Einstein radius in pixels below"""
    return run.theta_E / run.observation.grid.pixel_scale


@flag("doubtful", above=8.0, needs="inversion")
def source_off_grid(run):
    """light on the rim of the source's grid, or that the data hold beyond it, in sigma above"""
    return None if source_extent.is_cut(run) else source_extent.off_grid(run)


@flag("probable", above=8.0, needs="inversion")
def source_cut(run):
    """the same where the grid has to end an Einstein radius from the middle of the source, in sigma above"""
    return source_extent.off_grid(run) if source_extent.is_cut(run) else None


@flag("doubtful")
def galaxy_in_source(run):
    """the lens lies off its light (mass_off_light), and its source is cut or its radius imprecise"""
    # Chosen after three fits of real lenses with such a pair of doubts: all three radii were too small.
    weakened = any(FLAGS[name].raises(run) for name in ("source_cut", "theta_E_imprecise"))
    return weakened and FLAGS["mass_off_light"].raises(run)


@flag("doubtful", above=1.0, needs="theta_E")
def source_too_large(run):
    """half-light radius of the source over the Einstein radius above"""
    # Of two sources, and for a Sérsic times a field, the larger radius counts.
    physical = run.fit.physical
    radii = [float(one.profile.effective_radius(physical[one.slice])) for one in run.scene.sources]
    if run.inversion is not None:
        radii.append(source_extent.half_light_radius(*run.inversion))
    return float(np.max(radii)) / run.theta_E if radii else None


def _flipped(run):
    """Where images have negative parity, bool (ny, nx)."""
    grid, physical = run.observation.grid, run.fit.physical
    x, y = (torch.as_tensor(axis.ravel()).to(physical) for axis in (grid.x, grid.y))
    physical, vector = physical[None], physical[None, run.scene["lens"].slice]
    if len(run.scene.sources) < 2:
        flipped = _negative(run.lens.jacobian_at(x, y, vector))
    else:  # in each pixel the brighter source counts
        scenes = [run.scene.behind(block) for block in run.scene.sources]
        lights = [one.brightness(x, y, physical[:, k], roles=("source",)) for one, k in scenes]
        first, second = (_negative(one.lens.jacobian_at(x, y, vector)) for one, _ in scenes)
        flipped = torch.where(lights[0] > lights[1], first, second)
    return flipped[0].reshape(grid.shape).cpu().numpy()


def _negative(jacobian):
    """Whether the determinant of entries (1, N) of a jacobian is negative."""
    xx, xy, yx, yy = jacobian
    return xx * yy - xy * yx < 0


def _signal(run, region=...):
    """Signal-to-noise of the lensed source in a region, less what a fitted sky could take."""
    light = run.lensed_source
    level = np.percentile(light[run.weight > 0], FAINT_SHARE) if run.scene["sky"] else 0.0
    return float(np.sqrt((np.maximum(light - level, 0) ** 2 * run.weight)[region].sum()))


# ---------------------------------------------------------------- the image and its noise


@flag("doubtful", above=0.05)
def flux_disagrees(run):
    """model and data differ in total flux by 5 sigma and a share above"""
    light = run.observation.data - run.residual - run.sky_level
    shining = light * np.sqrt(run.weight) > 1
    if not shining.any():
        return 0.0
    offset = abs(run.residual[shining].sum())
    error = run.widening * np.sqrt((1 / run.weight[shining]).sum())
    return float(offset / light[shining].sum()) if offset > FLUX_SIGMA * error else 0.0


@flag("probable")
def saturated(run):
    """several pixels share the highest value: mask them"""
    valid = run.observation.valid
    data, highest = run.observation.data[valid], run.observation.data[valid].max()
    bright = highest > FULL_SIGMA * np.median(run.observation.sigma()[valid])
    return bright and data.min() < highest and (data == highest).sum() >= FEWEST_FULL_PIXELS


noted("small_image", "the image has fewer than 16 pixels along a side", "probable")


@flag(above=CORRELATED_ABOVE)
def correlated_noise(run):
    """lag-1 autocorrelation of the sky above; errors are widened"""
    return run.noise.lag1


@flag("doubtful", above=decisions.ERRORS_TOO_SMALL)
def errors_too_small(run):
    """rms of the sky over the given errors above"""
    return run.noise.rms_ratio


noted("constant_image", "all pixels have the same value", "failed")
noted("hdu_guessed", "the file has several images and names none SCI: the first was taken", "probable")
noted("weight_guessed", "nothing says what the weight map holds: see meta['assumed']", "probable")
noted("mask_guessed", "nothing says what the bits of the mask mean: all hide a pixel", "probable")
noted(
    "psf_place_guessed",
    "the PSF varies, and where the lens lies in its frame is not known: its middle",
    "probable",
)
noted("errors_missing", "pixels whose error is 0, NaN or infinite: they are masked")
noted("border_without_data", "zeros at the edge, where nothing was observed: they are masked")
noted("single_exposure", "one exposure: its cosmic rays are in it", "probable")
noted("cosmic_rays", "many pixels stand alone above all around them, as cosmic rays do", "probable")
noted("cosmic_rays_masked", "cosmic rays were found and masked: meta['cosmic_ray_pixels'] of them")
noted("gain_guessed", "counts of unknown gain: one electron each", "probable")
noted("noise_guessed", "no error plane and no exposure: the noise was estimated from the image", "probable")
noted("noise_from_exposure", "no error plane: Poisson noise from the exposure, the sky's rms from the image")
noted(
    "errors_follow_counts",
    "the error plane was made from the counts seen: its photon noise now follows the model",
)


@flag("probable")
def no_psf(run):
    """no PSF was given: the image is taken as sharp"""
    # Images sampled at pixel centres have not passed a telescope.
    return run.observation.psf is None and run.settings.oversampling == "auto"


@flag("doubtful")
def telescope_without_psf(run):
    """no PSF was given, though the image names its telescope"""
    return no_psf(run) and any(
        str(run.observation.meta.get(name, "")).strip() for name in ("TELESCOP", "INSTRUME")
    )


@flag()
def psf_undersampled(run):
    """FWHM of the PSF below two of its own samples; it had to be interpolated"""
    psf, settings = run.observation.psf, run.settings
    # Only the telescope's own PSF is needed at the finer sampling.
    if psf is None or settings.scale == 1 or settings.psf_out is not None:
        return False
    return psf.undersampled(run.observation.grid.pixel_scale, subsampling=settings.scale)


noted("psf_cropped", "the PSF is larger than the image and was cropped")
noted("psf_off_centre", "centroid of the PSF off by more than 0.05 pixel", "probable")


@flag()
def extrapolated(run):
    """psf_out='pixel': detail finer than the telescope's PSF comes from the model"""
    return is_extrapolated(run.settings.psf_out, run.observation)


noted(
    "unlike_training",
    "pixel scale, PSF or signal-to-noise ratio beyond the network's training: see meta['network']",
    "probable",
)
noted("unit_missing", "the image has no unit: taken as flux per pixel")


@flag()
def no_wcs(run):
    """the image has no WCS: positions are in the image frame only"""
    return run.observation.grid.wcs is None


noted(
    "posterior_not_gaussian",
    "Pareto k of draws (result.with_draws) above 0.7: take errors from draws of method='emcee'",
    "probable",
)
noted("left_out", "the lens that the other bands share does not explain this band", "doubtful")
noted("down_weighted", "no lens explains this band, whose pixels therefore count for less", "probable")
noted("pointing_off", "images of a lens lie more than 1.5 pixels from where their WCSs put them", "probable")
noted("failed", "the image could not be processed", "failed")
noted("interpolated", "no lens, no source: plain interpolation", "probable")
noted(
    "not_relensed",
    "a network without the lens equation: no lens, no source; errors of noise alone",
    "probable",
)
