"""How one image is inverted: candidates compared on a coarse grid, the likeliest brought to a fine one."""

from dataclasses import replace

import numpy as np
import torch
from scipy import ndimage

from lenssr.imaging.sky import measure_sky
from lenssr.light.sersic import sersic_brightness
from lenssr.model.constraints import Terms
from lenssr.reconstruction.assemble import noise_of_sky
from lenssr.reconstruction.optima import Optimum, other_optima, other_starts
from lenssr.reconstruction.verdict import FLAGS
from lenssr.source import Prior, Problem, SourceGrid
from lenssr.source.batching import ask, ask_each
from lenssr.source.evidence import SERSIC_WIDTHS, Candidate, SersicEvidence
from lenssr.source.gauss_newton import LINKS, log_field

__all__ = ["Inversion", "doubt_of", "source_grid", "terms_around"]

# Which priors compete where none is asked for; the evidence chooses.
AUTO_PRIORS = ("curvature", "curvature+laplacian3")
# Nodes along a side, and how they crowd: a sharp image shows the cusp of a galaxy, one behind a PSF does not.
SIDE, SIDE_WITH_PSF = 60, 48
STRETCH, STRETCH_WITH_PSF = 1.25, 0.5
# In the middle they lie at most so many pixels of the image apart, or this share of the FWHM of the PSF, if
# that takes no more than these: the matrices of 80 x 80 nodes behind a PSF, which are full, take a gigabyte.
SPACING, SPACING_IN_FWHM = 0.75, 0.3
MOST, MOST_WITH_PSF = 100, 80
# The grid holds every ray on which the parametric source shines this much, in sigma of a pixel.
EDGE_SIGMA = 0.25
FAINTEST = 3e-3  # of the peak, below which a first source is no guide
DARK = 1e-100  # brightness of a source in an image that holds none
# Share of the side of the grid on which candidates are compared.
COARSE, COARSE_WITH_PSF = 2 / 3, 7 / 12
COARSE_GAIN = 0.5
# Of nodes along its side, where only the lens is wanted: more take several times longer, and find the same.
MOST_TO_BEGIN = 36
# What it leaves, so many sigma in 3x3 pixels, widens the grid, but not beyond so many times its size.
LEFT_SIGMA, LEFT_REACH = 5.0, 2.0
# How far the Einstein radius may move from the parametric fit: farther off lie lenses that demagnify, behind
# which a ring is the image of a ring. The prior has this width, as a share; real arcs determine it to a
# tenth of that, so only arcs too faint to say feel it.
RADIUS_REACH, RADIUS_WIDTH = 0.1, 0.03
# How often shape and centre of a lens may go on from where only their distance from that fit has held them.
# Not to where its parameters are so far from the means of their priors, a mean square in units of the widths.
TIMES_LET_GO, STRAYS = 2, 1.5
# Below so much of the noise of a dark pixel a source fades to nothing. A plain logarithm never does: it
# would rather stand on a pedestal and darken the sky, and is too sure of what is faint.
FLOOR_SIGMA = 0.2
# Chi2 of a parametric fit counts as beyond its noise from so many standard deviations on.
CHI2_SIGMA = 2.0
# Evidences that differ by less choose the simpler source.
SAME_EVIDENCE = 1.0
# A free-form source takes about as much from chi2 as it has determined nodes, from noise alone.
MISFIT = 3.0


class Inversion:
    """The way of one image from its parametric fit to a free-form source.

    Parameters
    ----------
    stack : `~lenssr.model.image_stack.ImageStack`
        Holding the one image.
    scene, bare : `~lenssr.model.scene.Scene`
        With the Sérsic source, and without.
    fit : `~lenssr.model.fit.SceneFit`
    observation : `~lenssr.imaging.Observation`
    settings : `~lenssr.options.Settings`
    radius : tuple of float, optional
        How far an unknown Einstein radius may move from the fit, and the width of its prior, as shares of it.

    Attributes
    ----------
    candidates : list of `Candidate`
        What was compared.
    temper : float
        By how much chi2 counts less because noise is correlated, or larger than the errors say.
    doubt : float
        By how much the errors are too small, if they clearly are; else 1.
    rivals : list of (float, `torch.Tensor`)
        Other optima of an unknown lens (`~lenssr.reconstruction.optima.other_optima`).
    """

    def __init__(
        self, stack, scene, bare, fit, observation, settings, *, radius=(RADIUS_REACH, RADIUS_WIDTH)
    ):
        self.observation, self.sharp = observation, stack.kernel is None
        # Errors that the sky belies would let the source follow its noise. Both must say so: faint light may
        # pass for the noise of the image, and what a poor model leaves for that of its residual.
        self.sky = measure_sky(observation)
        noise = noise_of_sky(scene, fit, observation)
        self.doubt = doubt_of(self.sky, noise)
        self.temper = self.doubt**2
        self.stack, self.bare, self.fit, self.settings = stack, bare, fit, settings
        self.scene = scene
        source = scene.of_role("source")[0]
        keep = torch.ones(scene.size, dtype=torch.bool)
        keep[source.slice] = False
        self.physical, self.sersic = fit.physical[keep], fit.physical[source.slice]
        # What is fitted beside the nodes, by kind of source: scene, its parameters, their bounds and priors.
        whole = terms_around(scene, fit, self.temper, settings, radius=radius)
        self.parts = {
            "pixelated": (bare, self.physical, whole.without(scene, "source")),
            "perturbed_sersic": (scene, fit.physical, whole),
        }
        self.weight, self.offset = fit.weight.numpy() / self.temper, self._offset()
        self.floor = self._floor()
        self.grid = self._place_grid(scene, LEFT_SIGMA * _widening(self.sky, noise))
        self.light_stack = stack
        if settings.oversampling == "auto" and bare.of_role("lens_light"):
            physical = self.physical[None]
            self.light_stack = stack.select([0], refine=lambda x, y: bare.brightness(x, y, physical)[0])
        doubted = replace(fit, weight=fit.weight / self.temper, covariance=fit.covariance * self.temper)
        self.sersic_evidence = SersicEvidence(scene, doubted, whole.stiffness[0])
        self.candidates, self.rivals = [], []

    def run(self):
        """Invert.

        Yields
        ------
        request : `~lenssr.source.batching.Request`
            Wherever it needs a solution, which it is to be sent.

        Returns
        -------
        problem : `~lenssr.source.Problem` or None
        solution : `~lenssr.source.Solution` or None
            None if candidates of several kinds were compared and the parametric fit is the likeliest.
        """
        coarse = self._coarse_grid()
        automatic = self.settings.source == "auto"
        kinds = ("pixelated", "perturbed_sersic") if automatic else (self.settings.source,)
        found = []
        for kind in kinds:
            found.append((yield from self._compare(kind, coarse)))
        if automatic:
            evidence = self.sersic_evidence.value(self.stack.data[0])
            self.candidates.append(Candidate("sersic", None, evidence))
            # A modulation that fades away ends at the Sérsic itself.
            if evidence > max(one[0].evidence for one in found) - SAME_EVIDENCE:
                return None, None
        candidate, problem, solution = max(found, key=lambda one: one[0].evidence)
        kind = candidate.source
        self._temper(problem, solution)
        problem, solution = yield from self._free_the_lens(kind, problem, solution)
        solution = yield from self._look_around(problem, solution)
        problem, solution = yield from self._let_go(kind, problem, solution, tolerance=COARSE_GAIN)
        problem, solution = yield from self._reweigh(kind, problem, solution, tolerance=COARSE_GAIN)
        problem, solution = yield from self._refine(kind, problem, solution)
        problem, solution = yield from self._reweigh(kind, problem, solution)
        return (yield from self._let_go(kind, problem, solution))

    def begin(self):
        """Invert on the coarse grid only, from the parametric fit: the lens, and what it costs to find it.

        Yields and returns what `run` does, but for the fine grid and for other starts.
        """
        grid = self._coarse_grid()
        if grid.side > MOST_TO_BEGIN:
            grid = self.grid.refined(MOST_TO_BEGIN)
        _, problem, solution = yield from self._compare("pixelated", grid)
        self._temper(problem, solution)
        return (yield from self._free_the_lens("pixelated", problem, solution))

    def _coarse_grid(self):
        share = COARSE if self.sharp else COARSE_WITH_PSF
        return self.grid.refined(round(share * self.grid.side))

    def _compare(self, kind, grid):
        """The likeliest prior for one kind of source, the lens held: candidate, problem and solution."""
        scene, physical, _ = self.parts[kind]
        held = scene.with_lens_held()
        problem = self._problem(kind, held, physical, grid)
        parameters = held.to_fit(physical[None])[0].numpy()
        names = AUTO_PRIORS if self.settings.prior == "auto" else (self.settings.prior,)
        priors = [Prior(name, grid.side) for name in names]
        field = yield from self._first_field(kind, problem, parameters)
        options = {"tolerance": COARSE_GAIN, **self._options(kind)}
        found = yield from ask_each(problem, priors, field, parameters, **options)
        candidates = [Candidate(kind, one.prior.name, one.evidence) for one in found]
        self.candidates += candidates
        return candidates[0], problem, found[0]

    def _options(self, kind):
        link = "log" if self.settings.positive else "linear"
        if kind == "perturbed_sersic":
            # The field is the logarithm of a factor, or the factor.
            return {"link": link, "mean": 0.0 if self.settings.positive else 1.0}
        return {"link": link, "mean": None}

    def _first_field(self, kind, problem, parameters):
        """A field to begin with: none beside a Sérsic, else that if it explains the data.

        If it does not, that or the linear inversion, whichever fits.
        """
        grid = problem.grid
        if kind == "perturbed_sersic":
            return np.zeros(grid.size) if self.settings.positive else np.ones(grid.size)
        sersic, prior = self._sersic_at(grid), Prior("curvature", grid.side)
        if self.settings.positive and _excess(self.fit, self.temper) == 0:
            return log_field(_positive(sersic), problem.log_floor)
        options = {"link": "linear", "tolerance": COARSE_GAIN}
        linear = (yield from ask(problem, prior, None, sersic, parameters, **options)).values
        if not self.settings.positive:
            return linear
        starts = [_positive(values) for values in (sersic, linear)]
        return log_field(min(starts, key=lambda s: problem.chi2(s, parameters)), problem.log_floor)

    def _sersic_at(self, grid):
        nodes = (torch.as_tensor(axis) for axis in grid.nodes)
        return sersic_brightness(*nodes, *self.sersic.reshape(1, 7, 1).unbind(1))[0].numpy()

    def _temper(self, problem, solution):
        """Let chi2 count less where noise of neighbouring pixels is correlated, or beyond its errors.

        Measured around a free-form source: what a Sérsic leaves would pass for correlated noise.
        """
        model = torch.as_tensor(problem.predict(solution.values, solution.parameters))
        physical = problem.physical(solution.parameters)[0]
        expected = model + self.stack.data[0] - torch.as_tensor(problem.data)
        around = replace(self.fit, model=expected, physical=physical)
        noise = noise_of_sky(problem.scene, around, self.observation)
        self.doubt, before = doubt_of(self.sky, noise), self.temper
        self.temper = (noise.factor * self.doubt) ** 2
        self.weight = self.weight * (before / self.temper)

    def _free_the_lens(self, kind, problem, solution):
        """Everything together, on the coarse grid."""
        if not self.bare.lens_moves and np.array_equal(self.weight, problem.weight):
            return problem, solution
        physical = problem.physical(solution.parameters)[0]
        scene = self.parts[kind][0]
        parameters = scene.to_fit(physical[None])[0].numpy()
        problem = self._problem(kind, scene, physical, problem.grid_at(solution.parameters))
        return problem, (yield from _again(problem, solution, parameters, tolerance=COARSE_GAIN))

    def _look_around(self, problem, solution):
        """The likeliest of several optima of an unknown lens, from other starts on the coarse grid."""
        if self.settings.lens is not None or not problem.scene.lens_moves:
            return solution
        found = [solution]
        for start in other_starts(problem, solution, self.fit.rivals):
            found.append((yield from _again(problem, solution, start, tolerance=COARSE_GAIN)))
        best = max(found, key=lambda one: one.evidence)
        optima = [Optimum.of(problem, one) for one in found]
        self.rivals = other_optima(Optimum.of(problem, best), optima)
        return best

    def _let_go(self, kind, problem, solution, **options):
        """Go on from where a lens ended if only its distance from the parametric fit has stopped it.

        Not to a lens that is unlikely by its priors, that of the Einstein radius among them: a source on a
        grid makes up for much, from a poor model of the galaxy's halo to a lens that demagnifies. The bound,
        and its flag, are more honest there.
        """
        for _ in range(TIMES_LET_GO):
            wider = self._wider(kind, problem, solution)
            if wider is None:
                break
            held, self.parts[kind] = self.parts[kind], wider
            physical, grid = problem.physical(solution.parameters)[0], problem.grid_at(solution.parameters)
            free = self._problem(kind, problem.scene, physical, grid)
            further = yield from _again(free, solution, solution.parameters, **options)
            if further.evidence <= solution.evidence or _strays(free, further):
                self.parts[kind] = held
                break
            problem, solution = free, further
        return problem, solution

    def _wider(self, kind, problem, solution):
        """What is fitted beside the nodes, with bounds that reach farther; None if nothing calls for them."""
        scene, start, terms = self.parts[kind]
        if not problem.scene.lens_moves:
            return None
        within = self.fit.terms if scene is self.scene else self.fit.terms.without(self.scene, "source")
        place = problem.physical(solution.parameters)
        if not bool(terms.hold(scene, place, within)):
            return None
        return scene, start, terms.reaching(scene, place, within)

    def _refine(self, kind, problem, solution):
        """From the coarse grid to the fine one, beginning with as many determined nodes.

        Where the coarse grid could not follow the data, a Sérsic that can is the better beginning.
        """
        scene, coarse = problem.scene, problem.grid_at(solution.parameters)
        fine = coarse.refined(self.grid.side)
        # Nodes on the rim of both grids are inside but for rounding.
        rim, centre = coarse.half * (1 - 1e-12), (coarse.x_0, coarse.y_0)
        nodes = [np.clip(axis, at - rim, at + rim) for axis, at in zip(fine.nodes, centre, strict=True)]
        field, parameters = coarse.matrix(*nodes) @ solution.field, solution.parameters
        problem = self._problem(kind, scene, problem.physical(parameters)[0], fine)
        if kind == "pixelated" and self.settings.positive:
            plain = scene.to_fit(self.physical[None])[0].numpy()
            smooth, log_floor = _positive(self._sersic_at(problem.grid_at(plain))), problem.log_floor
            source = LINKS["log"].brightness(field, log_floor)
            if problem.chi2(smooth, plain) < problem.chi2(source, parameters):
                field, parameters = log_field(smooth, log_floor), plain
        prior = Prior(solution.prior.name, fine.side)
        strength = solution.strength_of(prior, field)
        options = dict(solution.options)
        if self._misfits(solution):
            options["tolerance"] = COARSE_GAIN  # weights will change, and then it goes on
        return problem, (yield from ask(problem, prior, strength, field, parameters, **options))

    def _reweigh(self, kind, problem, solution, **options):
        """Weights as the model has them, where the noise depends on it, and the solution that follows.

        Not where the Sérsic explains the data as well: its weights follow less of their noise.
        """
        if not self._misfits(solution):
            return problem, solution
        model = problem.predict(solution.values, solution.parameters)
        mean, _, variance = (
            part[0].numpy() for part in self.stack.moments(torch.as_tensor(model)[None], torch.tensor([0]))
        )
        floor = np.finfo(float).tiny
        self.weight = np.where(self.weight > 0, 1 / np.maximum(self.temper * variance, floor), 0.0)
        self.offset = mean - model
        physical = problem.physical(solution.parameters)[0]
        grid = problem.grid_at(solution.parameters)
        problem = self._problem(kind, problem.scene, physical, grid)
        return problem, (yield from _again(problem, solution, solution.parameters, **options))

    def _misfits(self, solution):
        """Whether the Sérsic leaves what a solution explains, and the noise depends on that."""
        gain = self.fit.chi2 / self.temper - solution.chi2
        return not self.stack.gaussian and gain >= MISFIT * solution.nearly_determined

    def _problem(self, kind, scene, physical, grid):
        terms = self.parts[kind][2]
        planes = self.weight, self.offset, self.anchor
        floor = self.floor if kind == "pixelated" else 0.0
        return Problem(self.stack, self.light_stack, scene, physical, terms, grid, *planes, floor=floor)

    def _floor(self):
        """Brightness below which the source fades to nothing, from the noise where the image is dark."""
        stack = self.stack
        largest = np.quantile(self.weight[self.weight > 0], 0.9)
        return FLOOR_SIGMA / (np.sqrt(largest) * stack.grid.pixel_area * stack.factor)

    def _offset(self):
        """By how much the noise shifts the expected data; zero for noise without a bias."""
        if self.stack.noise.unbiased:
            return np.zeros(len(self.fit.model))
        light = self.stack.image(self.bare, self.physical[None], roles=("lens_light", "sky"))[0]
        return (self.fit.model - self.fit.lensed_source - light).numpy()

    def _place_grid(self, scene, significant):
        """The square of all rays on which the parametric source shines, or leaves so many sigma of light."""
        operator = self.stack.operator
        x, y = (
            axis[0].numpy()
            for axis in scene.source_positions(operator.x, operator.y, self.fit.physical[None])
        )
        column, row = (
            np.rint(place).astype(int)
            for place in self.stack.grid.to_pixel(operator.x.numpy(), operator.y.numpy())
        )
        root, shape = (self.fit.weight / self.temper).sqrt(), self.stack.grid.shape
        pulls = (self.fit.lensed_source * root).numpy().reshape(shape)[row, column]
        bright = pulls > EDGE_SIGMA
        # What makes the data say where the source lies: the grid moves with it when the lens does.
        self.anchor = np.where(bright, pulls, 0.0) ** 2 if bright.any() else np.ones(len(x))
        if not bright.any():
            bright[:] = True
        grid = SourceGrid.around(x[bright], y[bright], SIDE)
        # What the parametric source leaves of the arcs may be another part of the galaxy, not far from it.
        left = ((self.stack.data[0] - self.fit.model) * root).numpy().reshape(shape)
        left = 3 * ndimage.uniform_filter(left, 3)[row, column] > significant
        bright |= left & (np.hypot(x - grid.x_0, y - grid.y_0) < LEFT_REACH * grid.half)
        return source_grid(x[bright], y[bright], self.observation)


def source_grid(x, y, observation):
    """Place the grid of a source where it shines, with as many nodes as the image calls for.

    Parameters
    ----------
    x, y : `~numpy.ndarray`, shape (R,)
        Places that it has to hold, in arcsec.
    observation : `~lenssr.imaging.Observation`
        The image.

    Returns
    -------
    grid : `~lenssr.source.SourceGrid`
        Of 60 to 100 nodes along a side, or 48 to 80 behind a PSF.
    """
    sharp, pixel = observation.psf is None, observation.grid.pixel_scale
    side, stretch = (SIDE, STRETCH) if sharp else (SIDE_WITH_PSF, STRETCH_WITH_PSF)
    spacing = SPACING * pixel if sharp else SPACING_IN_FWHM * max(observation.psf_fwhm, pixel)
    grid, most = SourceGrid.around(x, y, side, stretch), MOST if sharp else MOST_WITH_PSF
    needed = 1 + int(np.ceil((side - 1) * grid.spacing / spacing))
    return grid.refined(min(needed, most)) if side < min(needed, most) else grid


def terms_around(scene, fit, temper, settings, *, radius=(RADIUS_REACH, RADIUS_WIDTH)):
    """Bounds and priors of a fit; lens and sky kept near its end, a Sérsic loosely.

    Parameters
    ----------
    scene : `~lenssr.model.scene.Scene`
    fit : `~lenssr.model.fit.SceneFit`
    temper : float
        By how much chi2 counts less.
    settings : `~lenssr.options.Settings`
    radius : tuple of float, optional
        As of `Inversion`.

    Returns
    -------
    terms : `~lenssr.model.constraints.Terms`
    """
    start, parts = fit.physical[None], vars(fit.terms)
    terms = Terms(*(part.reshape(1, -1).clone() for part in parts.values()))
    fitted = torch.where(scene.log, start.log(), start)
    for block in scene.of_role("sky"):
        # A source that fills the field and its sky are hard to tell apart; the parametric fit helps.
        terms.mean[:, block.slice] = start[:, block.slice]
        variance = fit.covariance.diagonal()[block.slice] * (1 + _excess(fit, temper))
        terms.stiffness[:, block.slice] = 1 / (temper * variance)
    for block in scene.of_role("source"):
        terms.mean[:, block.slice] = fitted[:, block.slice]
        widths = torch.tensor(SERSIC_WIDTHS, dtype=torch.float64)
        terms.stiffness[:, block.slice] = widths**-2
    if settings.lens is None and scene.lens_moves:
        terms = terms.narrowed(scene, start)
        block = scene.blocks[0]
        radii = [k for k, name in enumerate(block.names) if name.startswith("theta_E")]
        terms.lower[:, radii] = torch.maximum(terms.lower, start * (1 - radius[0]))[:, radii]
        terms.upper[:, radii] = torch.minimum(terms.upper, start * (1 + radius[0]))[:, radii]
        terms.mean[:, radii] = start[:, radii]
        terms.stiffness[:, radii] = (radius[1] * start[:, radii]) ** -2
    return terms


def _strays(problem, solution):
    """Whether a lens is unlikely by its own priors, all parameters together."""
    mean, stiffness = problem.parameter_prior
    lens = slice(0, int(problem.scene.free[problem.scene.blocks[0].slice].sum()))
    pulls = (stiffness * (solution.parameters - mean) ** 2)[lens]
    return bool(pulls.mean() > STRAYS)


def _excess(fit, temper):
    """Chi2 of the parametric fit beyond its noise.

    A residual of this chi2 shifts a parameter by its root in standard deviations, at most.
    """
    count = int((fit.weight > 0).sum())
    expected = count + CHI2_SIGMA * np.sqrt(2 * count)
    return max(0.0, float(fit.chi2) / temper - expected)


def doubt_of(*noises):
    """By how much the sky scatters more than its errors, if all ways to measure it are flagged; else 1.

    Parameters
    ----------
    *noises : `~lenssr.imaging.sky.SkyNoise`

    Returns
    -------
    doubt : float
    """
    ratio = min(noise.rms_ratio for noise in noises)
    return ratio if ratio > FLAGS["errors_too_small"].threshold else 1.0


def _widening(*noises):
    """By how much sums of pixels scatter more than independent ones, if all ways to measure it say so."""
    return min(noise.factor if noise.correlated else 1.0 for noise in noises)


def _positive(values):
    """A first source, which may be dark or negative, as a guide for a positive one."""
    return np.maximum(values, max(FAINTEST * values.max(), DARK))


def _again(problem, solution, parameters, **options):
    """Ask for a solution once more, from where one ended."""
    start = (solution.prior, solution.strength, solution.field, parameters)
    return ask(problem, *start, **solution.options, **options)
