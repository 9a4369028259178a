"""How one image gets a free-form source: candidates on a coarse grid, the likeliest on a fine one."""

import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from lenssr.imaging.sky import residual_noise
from lenssr.model.fit import Constraints
from lenssr.reconstruction import decisions
from lenssr.reconstruction.lens_search import (
    ask_again,
    expand_trust_region,
    fit_jointly,
    search_other_modes,
)
from lenssr.reconstruction.lens_slope import free_slope_jointly
from lenssr.source import Prior, Problem, SourceGrid, View
from lenssr.source.batching import ask, ask_each
from lenssr.source.evidence import ParametricEvidence
from lenssr.source.priors import LINKS, log_field

__all__ = [
    "AUTO_PRIORS",
    "Candidate",
    "CoarseFit",
    "FreeFormFit",
    "constraints_around",
    "dark_brightness",
    "moments_of",
    "noise_excess",
    "source_grid",
    "steep_light",
]

log = logging.getLogger(__name__)

# Priors that compete where none is asked for; the evidence chooses.
AUTO_PRIORS = ("curvature", "curvature+laplacian3")
# Nodes along a side, and how they crowd: a sharp image shows the cusp of a galaxy, one behind a PSF does not.
SIDE, SIDE_WITH_PSF = 60, 48
STRETCH, STRETCH_WITH_PSF = 1.25, 0.5
# Largest distance of nodes in the middle, in pixels, or in FWHM of the PSF; and the most nodes along a side
# that this may take.
SPACING, SPACING_IN_FWHM = 0.75, 0.3
MOST, MOST_WITH_PSF = 100, 80
FAINTEST_SHARE = 3e-3  # of the peak, below which a first source is no guide
DARK = 1e-100  # brightness of a source in an image that holds none
# Share of the side of the grid on which candidates are compared, and the tolerance of solutions there.
COARSE, COARSE_WITH_PSF = 2 / 3, 7 / 12
COARSE_GAIN = 0.5
# Most nodes along a side where only the lens is wanted: more take several times longer, and find the same.
MOST_TO_BEGIN = 36
# Brightness, in the noise of a dark pixel, below which a source fades to nothing. A plain logarithm never
# does: it would rather stand on a pedestal and darken the sky, and is too sure of what is faint.
FLOOR_SIGMA = 0.2
# Share by which an unknown Einstein radius may move from the fit, and the width of its prior.
RADIUS = (decisions.RADIUS_REACH, decisions.RADIUS_WIDTH)


@dataclass(frozen=True)
class Candidate:
    """A description of the source, the lens held, with its ln evidence up to a constant of the data."""

    source: str
    prior: str | None
    evidence: float


@dataclass(frozen=True)
class Part:
    """What is fitted beside the nodes: a scene, its parameters (P,), their bounds and priors."""

    scene: Any
    physical: torch.Tensor
    constraints: Constraints

    def with_slope_free(self):
        """The part with the slope of its lens free, with its prior."""
        scene = self.scene.with_slope_free()
        return Part(scene, self.physical, self.constraints.with_slope_prior(scene))


@dataclass(frozen=True)
class CoarseFit:
    """Where `FreeFormFit.begin` ended, and the ln evidence of the parametric fit that it began from.

    ``correlation`` is the ratio of the variances in the weights to those of independent noise, and
    ``temperature`` to those that were given.
    """

    problem: Any
    solution: Any
    correlation: float
    parametric_evidence: float
    temperature: float

    def evidence_at(self, temperature):
        """The ln evidence if chi2 counted as it does at another temperature."""
        chi2 = self.solution.chi2
        return self.solution.evidence + 0.5 * chi2 * (1 - self.temperature / temperature)


class FreeFormFit:
    """The way of one image, alone in its stack, from its parametric fit to a free-form source.

    ``radius`` is the share by which an unknown Einstein radius may move, and the width of its prior. With
    ``compares_light`` all of the lens light has priors, so that evidence compares models of it. Found
    are the ``candidates`` that were compared; the ``temperature``, by which chi2 counts less because noise is
    correlated or the errors are too small, by the factor ``excess`` (1 unless they clearly are); and other
    lenses, ``modes`` (see `~lenssr.reconstruction.lens_modes.posterior_modes`).
    """

    def __init__(self, stack, scene, fit, observation, settings, *, radius=RADIUS, compares_light=False):
        self.stack, self.scene, self.bare = stack, scene, scene.without("source")
        self.fit, self.observation, self.settings = fit, observation, settings
        self.sharp = stack.kernel is None
        # Errors that the sky belies would let the source follow its noise. Both must say so: faint light may
        # pass for the noise of the image, and what a poor model leaves for that of its residual.
        noise = residual_noise(observation, fit.model, fit.weight, scene.sky_of(fit.physical))
        self.excess = noise_excess(observation.sky, noise)
        self.temperature = self.excess**2
        keep = scene.keep("source")
        self.physical, self.source = fit.physical[keep], fit.physical[scene["source"].slice]
        whole = constraints_around(scene, fit, self.temperature, settings, radius=radius)
        whole = with_light_ranges(whole, scene, fit) if compares_light else whole
        self.parts = {
            "pixelated": Part(self.bare, self.physical, whole.without(scene, "source")),
            "perturbed_sersic": Part(scene, fit.physical, whole),
        }
        self.weight, self.offset = fit.weight.numpy() / self.temperature, self._offset()
        self.floor = FLOOR_SIGMA * dark_brightness(stack, self.weight)
        self.grid = self._place_grid(decisions.GRID_LEFT_SIGMA * _widening(observation.sky, noise))
        coarse = stack.sparser()
        self._traced = {True: (stack, self._anchor(stack)), False: (coarse, self._anchor(coarse))}
        self.light_stack = steep_light(stack, self.bare, self.physical[None], settings)
        tempered = {"weight": fit.weight / self.temperature, "covariance": fit.covariance * self.temperature}
        self.parametric = ParametricEvidence(scene, replace(fit, **tempered), whole.stiffness[0])
        self.candidates, self.modes = [], []

    def run(self):
        """Find the source, and the lens where it is free: a generator of `~lenssr.source.Request`.

        Returns problem and solution; None and None if the parametric fit is the likeliest candidate.
        """
        # 1. Candidates on a coarse grid, the lens held.
        grid = self._coarse_grid()
        log.info("comparing descriptions of the source on %d x %d nodes", grid.side, grid.side)
        found = yield from self._choose(grid)
        if not found:
            return None, None
        # 2. The temperature of the likelihood, from what the likeliest source leaves of the sky.
        self._set_temperature(*found[0][1:])
        # 3. Lens, light and source together; other lenses; the slope; a lens stopped by its trust region.
        log.info("fitting lens, light and source together")
        coarse = {"tolerance": COARSE_GAIN}
        kind, problem, solution = yield from self._fit_each_jointly(found, **coarse)
        solution, self.modes = yield from search_other_modes(self, problem, solution, **coarse)
        problem, solution = yield from free_slope_jointly(self, kind, problem, solution, **coarse)
        problem, solution = yield from expand_trust_region(self, kind, problem, solution, **coarse)
        problem, solution = yield from self._update_weights(kind, problem, solution, **coarse)
        # 4. The fine grid.
        log.info("refining the source to %d x %d nodes", self.grid.side, self.grid.side)
        problem, solution = yield from self._refine(kind, problem, solution)
        problem, solution = yield from self._update_weights(kind, problem, solution)
        return (yield from expand_trust_region(self, kind, problem, solution))

    def begin(self, **steps):
        """Find source and lens on the coarse grid only; yields requests, returns a `CoarseFit`.

        ``steps`` are options of the request that frees the lens.
        """
        grid = self._coarse_grid()
        if grid.side > MOST_TO_BEGIN:
            grid = self.grid.refined(MOST_TO_BEGIN)
        _, problem, solution = yield from self._compare("pixelated", grid)
        evidence = self.parametric.value(self.stack.data[0])
        self._set_temperature(problem, solution)
        problem, solution = yield from fit_jointly(
            self, "pixelated", problem, solution, tolerance=COARSE_GAIN, **steps
        )
        return CoarseFit(problem, solution, self.correlation, evidence, self.temperature)

    @property
    def correlation(self):
        """Factor by which correlated noise alone makes variances larger."""
        return self.temperature / self.excess**2

    def problem(self, kind, scene, physical, grid):
        """The `~lenssr.source.Problem` of one kind of source on a grid; a coarse one needs fewer rays."""
        floor = self.floor if kind == "pixelated" else 0.0
        stack, anchor = self._traced[grid.side == self.grid.side]
        constraints = self.parts[kind].constraints
        return Problem(self.views(stack), scene, physical, constraints, grid, anchor, floor=floor)

    def views(self, stack):
        """The exposures, a list of `~lenssr.source.View`, the first with the rays of a stack."""
        return [View(stack, self.light_stack, self.weight, self.offset)]

    def _fit_each_jointly(self, found, **options):
        """The likeliest kind of source once the lens has moved, its problem and solution.

        Behind a lens that is held where a poor fit had it, one kind may make up for it better than another.
        """
        if not self.bare.lens_moves:
            found = found[:1]
        joint = []
        for kind, problem, solution in found:
            joint.append((kind, *(yield from fit_jointly(self, kind, problem, solution, **options))))
        return max(joint, key=lambda one: one[2].evidence)

    def _choose(self, grid):
        """Kinds of source on a grid with problem and solution, the likeliest first; none if parametric."""
        automatic = self.settings.source == "auto"
        kinds = ("pixelated", "perturbed_sersic") if automatic else (self.settings.source,)
        found = []
        for kind in kinds:
            found.append((yield from self._compare(kind, grid)))
        found.sort(key=lambda one: -one[0].evidence)
        if automatic:
            evidence = self.parametric.value(self.stack.data[0])
            self.candidates.append(Candidate("sersic", None, evidence))
            # A modulation that fades away ends at the parametric source itself.
            if evidence > found[0][0].evidence - decisions.SAME_EVIDENCE:
                return []
        log.debug("candidates %s", self.candidates)
        return [(candidate.source, *rest) for candidate, *rest in found]

    def _coarse_grid(self):
        share = COARSE if self.sharp else COARSE_WITH_PSF
        return self.grid.refined(round(share * self.grid.side))

    def _compare(self, kind, grid):
        """The likeliest prior for one kind of source, the lens held: candidate, problem and solution."""
        part = self.parts[kind]
        held = part.scene.with_lens_held()
        problem = self.problem(kind, held, part.physical, grid)
        parameters = problem.start()
        names = AUTO_PRIORS if self.settings.prior == "auto" else (self.settings.prior,)
        priors = [Prior(name, grid.side) for name in names]
        field, parameters = yield from self._first_field(kind, problem, parameters)
        options = {"tolerance": COARSE_GAIN, **self._options(kind)}
        found = yield from ask_each(problem, priors, field, parameters, **options)
        candidates = [Candidate(kind, one.prior.name, one.evidence) for one in found]
        self.candidates += candidates
        return candidates[0], problem, found[0]

    def _options(self, kind):
        """Link and mean of the field: beside a Sérsic it is the logarithm of a factor, or the factor."""
        positive = self.settings.positive
        mean = (0.0 if positive else 1.0) if kind == "perturbed_sersic" else None
        return {"link": "log" if positive else "linear", "mean": mean}

    def _first_field(self, kind, problem, parameters):
        """Field and parameters to begin with: none beside a Sérsic, else those of the parametric fit.

        If that does not explain the data, these or those of the linear inversion, whichever fit; after a look
        where that has ended.
        """
        grid, positive = problem.grid, self.settings.positive
        if kind == "perturbed_sersic":
            return np.zeros(grid.size) if positive else np.ones(grid.size), parameters
        if self.fit.look is not None:
            values = self._seen_before(grid)
            return (log_field(_positive_guide(values), problem.log_floor) if positive else values), parameters
        smooth, prior = self._parametric_at(grid), Prior("curvature", grid.side)
        if positive and _excess(self.fit, self.temperature) == 0:
            return log_field(_positive_guide(smooth), problem.log_floor), parameters
        options = {"link": "linear", "tolerance": COARSE_GAIN}
        linear = yield from ask(problem, prior, None, smooth, parameters, **options)
        if not positive:
            return linear.values, linear.parameters
        starts = [(smooth, parameters), (linear.values, linear.parameters)]
        starts = [(_positive_guide(values), beside) for values, beside in starts]
        values, beside = min(starts, key=lambda start: problem.chi2(*start))
        return log_field(values, problem.log_floor), beside

    def _seen_before(self, grid):
        """Brightness at the nodes of a grid of the source that a look has found."""
        before = self.fit.look.problem.grid_at(self.fit.look.solution.parameters)
        return before.matrix(*_within(before, grid)) @ self.fit.look.solution.values

    def _parametric_at(self, grid):
        """Brightness of the parametric source at the nodes of a grid."""
        nodes = (torch.as_tensor(axis) for axis in grid.nodes)
        return self.scene["source"].profile.brightness(*nodes, self.source[None])[0].numpy()

    def _set_temperature(self, problem, solution):
        """Let chi2 count less where noise of neighbouring pixels is correlated, or beyond its errors.

        Measured around a free-form source: what a Sérsic leaves would pass for correlated noise.
        """
        first = slice(0, len(self.weight))  # of several exposures
        model = torch.as_tensor(problem.predict(solution.values, solution.parameters)[first])
        expected = model + self.stack.data[0] - torch.as_tensor(problem.data[first])
        sky = problem.scene.sky_of(problem.physical(solution.parameters)[0])
        noise = residual_noise(self.observation, expected, self.fit.weight, sky)
        self.excess, before = noise_excess(self.observation.sky, noise), self.temperature
        self.temperature = (noise.factor * self.excess) ** 2
        self.weight = self.weight * (before / self.temperature)

    def _refine(self, kind, problem, solution):
        """From the coarse grid to the fine one, beginning with as many determined nodes.

        Where the coarse grid could not follow the data, a parametric source that can is the better beginning.
        """
        scene, coarse = problem.scene, problem.grid_at(solution.parameters)
        fine = coarse.refined(self.grid.side)
        field, parameters = coarse.matrix(*_within(coarse, fine)) @ solution.field, solution.parameters
        problem = self.problem(kind, scene, problem.physical(parameters)[0], fine)
        prior = Prior(solution.prior.name, fine.side)
        strength = solution.strength * solution.prior.finer(fine.side)
        if kind == "pixelated" and self.settings.positive:
            plain = scene.to_fit(self.physical[None])[0].numpy()
            smooth = _positive_guide(self._parametric_at(problem.grid_at(plain)))
            source = LINKS["log"].on_arrays(field, problem.log_floor)[0]
            if problem.chi2(smooth, plain) < problem.chi2(source, parameters):
                field, parameters = log_field(smooth, problem.log_floor), plain
                strength = solution.strength_of(prior, field)
        options = dict(solution.options)
        if self._beats_the_parametric(solution):
            options["tolerance"] = COARSE_GAIN  # weights will change, and then it goes on
        return problem, (yield from ask(problem, prior, strength, field, parameters, **options))

    def _update_weights(self, kind, problem, solution, **options):
        """Weights as the model has them, where the noise depends on it, and the solution that follows.

        Not where the parametric source explains the data as well: its weights follow less of their noise.
        """
        if not self._beats_the_parametric(solution):
            return problem, solution
        model = problem.predict(solution.values, solution.parameters)
        shown, (variance, self.offset) = self.weight > 0, moments_of(self.stack, model)
        self.weight = np.where(shown, 1 / (self.temperature * variance), 0.0)
        physical = problem.physical(solution.parameters)[0]
        grid = problem.grid_at(solution.parameters)
        problem = self.problem(kind, problem.scene, physical, grid)
        return problem, (yield from ask_again(problem, solution, solution.parameters, **options))

    def _beats_the_parametric(self, solution):
        """Whether the parametric source leaves what a solution explains, and the noise depends on that."""
        gain = self.fit.chi2 / self.temperature - solution.chi2
        needed = decisions.BETTER_THAN_PARAMETRIC * solution.nearly_determined
        return not self.stack.gaussian and gain >= needed

    def _offset(self):
        """By how much the noise shifts the expected data, by the parametric fit; 0 for unbiased noise."""
        if self.stack.noise.unbiased:
            return np.zeros(len(self.fit.model))
        light = self.stack.image(self.bare, self.physical[None], roles=("lens_light", "sky"))[0]
        return (self.fit.model - self.fit.lensed_source - light).numpy()

    def _place_grid(self, significant):
        """The square of all rays on which the parametric source shines, or leaves so many sigma of light."""
        operator, shape = self.stack.operator, self.stack.grid.shape
        rays = self.scene.source_positions(operator.x, operator.y, self.fit.physical[None])
        x, y = (axis[0].numpy() for axis in rays)
        pulls = self._pulls(self.stack)
        bright = pulls > decisions.GRID_EDGE_SIGMA
        if not bright.any():
            bright[:] = True
        within = self._within_reach(x, y, np.where(bright, pulls, 0.0))
        bright &= within
        place = SourceGrid.around(x[bright], y[bright], SIDE)
        # What the parametric source leaves of the arcs may be another part of the galaxy, not far from it.
        root = (self.fit.weight / self.temperature).sqrt()
        left = ((self.stack.data[0] - self.fit.model) * root).numpy().reshape(shape)
        left = 3 * ndimage.uniform_filter(left, 3)[_pixels_of(self.stack)] > significant
        near = np.hypot(x - place.x_0, y - place.y_0) < decisions.GRID_LEFT_REACH * place.half
        bright |= left & near & within
        return source_grid(x[bright], y[bright], self.observation)

    def _within_reach(self, x, y, pulls):
        """Rays (R,) that a source may reach: near its middle if a galaxy shines and the lens is free, or all.

        Its halo would look like a source as large as the galaxy, behind a lens that makes up for the rest.
        """
        if not (self.bare.lights and self.bare.lens_moves) or self.scene.radius is None:
            return np.ones(len(x), dtype=bool)
        weight = np.minimum(pulls, decisions.GRID_MOST_SIGMA) ** 2
        away = np.maximum(*(np.abs(axis - weighted_median(axis, weight)) for axis in (x, y)))
        return away <= decisions.LARGEST_SOURCE * float(self.fit.physical[self.scene.radius])

    def _pulls(self, stack):
        """The parametric source in the pixel of each ray of a stack, in sigma."""
        pulls = self.fit.lensed_source * (self.fit.weight / self.temperature).sqrt()
        return pulls.numpy().reshape(stack.grid.shape)[_pixels_of(stack)]

    def _anchor(self, stack):
        """What makes the data say where the source lies: the grid moves with it when the lens does."""
        pulls = self._pulls(stack)
        bright = pulls > decisions.GRID_EDGE_SIGMA
        seen = bright & stack.operator.inside.numpy()
        return np.where(seen, pulls, 0.0) ** 2 if bright.any() else np.ones(len(pulls))


def weighted_median(values, weight):
    """Median of values (N,) that count by weights (N,)."""
    order = np.argsort(values)
    below = weight[order].cumsum()
    return float(values[order[np.searchsorted(below, below[-1] / 2)]])


def moments_of(stack, model):
    """Variance of the data of one image, and their shift by the noise, from the model of it (N,)."""
    moments = stack.moments(torch.as_tensor(model)[None], torch.tensor([0]))
    mean, _, variance = (part[0].numpy() for part in moments)
    return np.maximum(variance, np.finfo(float).tiny), mean - model


def _within(grid, other):
    """Nodes of another grid, those beyond a grid moved onto its rim."""
    # Nodes on the rim of both are inside but for rounding.
    rim, centre = grid.half * (1 - 1e-12), (grid.x_0, grid.y_0)
    return [np.clip(axis, at - rim, at + rim) for axis, at in zip(other.nodes, centre, strict=True)]


def _pixels_of(stack):
    """Row and column of the pixel of each ray of a stack; beyond the edge, of the pixel next to it."""
    operator, grid = stack.operator, stack.grid
    pixels = grid.to_pixel(operator.x.numpy(), operator.y.numpy())
    column, row = (
        np.rint(place).astype(int).clip(0, size - 1)
        for place, size in zip(pixels, grid.shape[::-1], strict=True)
    )
    return row, column


def source_grid(x, y, observation):
    """`~lenssr.source.SourceGrid` that holds places (R,): 60 to 100 nodes a side, 48 to 80 behind a PSF."""
    sharp, pixel = observation.psf is None, observation.grid.pixel_scale
    side, stretch = (SIDE, STRETCH) if sharp else (SIDE_WITH_PSF, STRETCH_WITH_PSF)
    spacing = SPACING * pixel if sharp else SPACING_IN_FWHM * max(observation.psf_fwhm, pixel)
    grid, most = SourceGrid.around(x, y, side, stretch), MOST if sharp else MOST_WITH_PSF
    needed = 1 + int(np.ceil((side - 1) * grid.spacing / spacing))
    return grid.refined(min(needed, most)) if side < min(needed, most) else grid


def constraints_around(scene, fit, temperature, settings, *, radius=RADIUS):
    """`Constraints` around the end of a fit: lens and sky kept near it, a parametric source loosely."""
    start, given = fit.physical[None], fit.constraints
    parts = (given.lower, given.upper, given.mean, given.stiffness)
    constraints = Constraints(*(part.reshape(1, -1).clone() for part in parts))
    fitted = torch.where(scene.log, start.log(), start)
    if (sky := scene["sky"]) is not None:
        # A source that fills the field and its sky are hard to tell apart; the parametric fit helps.
        constraints.mean[:, sky.slice] = start[:, sky.slice]
        variance = fit.covariance.diagonal()[sky.slice] * (1 + _excess(fit, temperature))
        constraints.stiffness[:, sky.slice] = 1 / (temperature * variance)
    if (source := scene["source"]) is not None:
        constraints.mean[:, source.slice] = fitted[:, source.slice]
        widths = torch.tensor(source.profile.evidence_widths, dtype=torch.float64)
        constraints.stiffness[:, source.slice] = widths**-2
    if not settings.knows_lens and scene.lens_moves:
        constraints = constraints.trust_region(scene, start, radius)
    return constraints


def with_light_ranges(constraints, scene, fit):
    """Constraints with a prior on each parameter of the lens light that has none, as evidence takes them."""
    mean, stiffness = constraints.mean.clone(), constraints.stiffness.clone()
    fitted = torch.where(scene.log, fit.physical.log(), fit.physical)[None]
    for block in scene.lights:
        widths = torch.tensor(block.profile.evidence_widths, dtype=torch.float64).expand_as(
            fitted[:, block.slice]
        )
        bare = stiffness[:, block.slice] == 0
        mean[:, block.slice] = torch.where(bare, fitted[:, block.slice], mean[:, block.slice])
        stiffness[:, block.slice] = torch.where(bare, widths**-2, stiffness[:, block.slice])
    return replace(constraints, mean=mean, stiffness=stiffness)


def steep_light(stack, bare, physical, settings):
    """The stack with rays where the lens light of a scene (1, P) is steep; itself where there is none."""
    if settings.oversampling == "auto" and bare.lights:
        return stack.select([0], refine=bare.brightness_at(physical))
    return stack


def dark_brightness(stack, weight):
    """Brightness in the source plane of the noise of a dark pixel, from weights (N,)."""
    largest = np.quantile(weight[weight > 0], 0.9)
    return 1 / (np.sqrt(largest) * stack.grid.pixel_area * stack.factor)


def noise_excess(*noises):
    """Factor by which the sky scatters more than its errors, if all measurements say so; else 1."""
    ratio = min(noise.rms_ratio for noise in noises)
    return ratio if ratio > decisions.ERRORS_TOO_SMALL else 1.0


def _excess(fit, temperature):
    """Chi2 of the parametric fit beyond its noise.

    A residual of this chi2 shifts a parameter by its root in standard deviations, at most.
    """
    expected = fit.used + decisions.PARAMETRIC_EXCESS_SIGMA * np.sqrt(2 * fit.used)
    return max(0.0, float(fit.chi2) / temperature - expected)


def _widening(*noises):
    """Factor by which sums of pixels scatter more than independent ones, if all ways to measure it say so."""
    return min(noise.factor if noise.correlated else 1.0 for noise in noises)


def _positive_guide(values):
    """A first source, which may be dark or negative, as a guide for a positive one."""
    return np.maximum(values, max(FAINTEST_SHARE * values.max(), DARK))
