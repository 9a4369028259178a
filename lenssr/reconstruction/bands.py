"""Several bands and exposures of one lens, fitted together with sources on grids.

1. `place` puts all images into the frame of the first, by their WCSs and by what they show.
2. Each band is searched by itself, and every lens that is found is a candidate: which band shows the arcs
   best is not known before, and chi2 of different data cannot be compared.
3. Behind each candidate, all bands are solved together on coarse grids, each with a source and a lens light
   of its own; the candidate with the highest evidence of all bands goes on.
4. Bands that the shared lens does not explain, although one of their own would, are left out; those that no
   lens explains count for less.
5. The rest is solved together on fine grids. Errors of the lens are by all bands, and those of each band know
   them.
"""

import copy
import logging
import time
from dataclasses import dataclass, replace

import numpy as np
import torch

from lenssr.exceptions import InputError
from lenssr.model.fit import fit_known_lens
from lenssr.options import AUTO, ISOTHERMAL
from lenssr.reconstruction import decisions
from lenssr.reconstruction.band_fit import COARSE, KIND, BandFit, Inversion
from lenssr.reconstruction.field_mask import without_others
from lenssr.reconstruction.freeform import as_fit, solved_freeform
from lenssr.reconstruction.freeform_fit import RADIUS
from lenssr.reconstruction.lens_modes import Mode, posterior_modes
from lenssr.reconstruction.lens_slope import keep_held, slope_of
from lenssr.reconstruction.light_choice import with_light_shown
from lenssr.reconstruction.parametric import ParametricReconstruction, stack_of
from lenssr.reconstruction.registration import in_one_frame, offset_between
from lenssr.reconstruction.trial_lenses import lenses_differ
from lenssr.reconstruction.verdict import MOST_DETERMINED
from lenssr.result.bands_result import BandsResolution
from lenssr.source import BoundFactor, solve, solve_bands

__all__ = ["BandsReconstruction", "Group", "place"]

log = logging.getLogger(__name__)

# Kinds of source that several bands may have.
KINDS = (KIND, "interpolation")
# Width of the prior of a pointing around where images lie best on each other, in pixels. Chosen: these are
# right to half a pixel where bands show the same, and galaxies of another colour are off by more.
POINTING_PIXELS = 1.0
# Standard deviation of the distance of the lens's centres of light in two bands, in arcsec. Chosen: well
# below a pixel of HST, above what the centre of a galaxy with dust moves by.
LIGHT_TIE = 0.01
# The trust region of the Einstein radius where the candidates of the bands differ.
WIDE_RADIUS = (decisions.DOUBTED_RADIUS_REACH, decisions.DOUBTED_RADIUS_WIDTH)


@dataclass(frozen=True)
class Group:
    """Observations of one lens: those of each band by its name, a list of exposures."""

    bands: dict

    def __iter__(self):
        return (one for exposures in self.bands.values() for one in exposures)

    def hiding_others(self):
        """The group with other objects masked in each image of which they are to be found."""
        searched = {
            name: [without_others(one) if one.meta.get("mask") == AUTO else one for one in exposures]
            for name, exposures in self.bands.items()
        }
        return replace(self, bands=searched)

    @property
    def first(self):
        """The observation whose frame is that of the lens."""
        return next(iter(self))


@dataclass(frozen=True)
class Placed:
    """An observation in the shared frame.

    ``offset`` is how far it was moved beyond its WCS, in arcsec; ``own_matrix`` is that of its pixels in its
    own frame.
    """

    observation: object
    offset: tuple
    own_matrix: np.ndarray


def place(group):
    """`Placed` observations of a `Group`, a dict of lists by band.

    Raises
    ------
    InputError
        If their places on the sky differ, or a band is hardly there.
    """
    names = [f"image {i + 1} of {n}" for n, some in group.bands.items() for i in range(len(some))]
    own = list(group)
    moved = iter(zip(own, in_one_frame(own, names, group.first), strict=True))
    placed, frame = {}, None
    for name, exposures in group.bands.items():
        first, placed[name] = frame, []
        for _ in exposures:
            before, after = next(moved)
            x, y = (0.0, 0.0) if first is None else offset_between(after, first)
            after = replace(after, grid=after.grid.moved(x, y))
            placed[name].append(Placed(after, (x, y), before.grid.matrix))
            first = placed[name][0].observation  # exposures of a band show the same galaxies
            frame = frame or first
    return placed


class BandsReconstruction:
    """Solve bands and exposures of one lens together.

    Parameters
    ----------
    settings : `~lenssr.options.Settings`

    Raises
    ------
    InputError
        If the source is of a kind that bands cannot have.
    """

    def __init__(self, settings):
        settings = replace(settings, source=KIND) if settings.kind == "auto" else settings
        if settings.kind not in KINDS:
            known = " or ".join(map(repr, KINDS))
            raise InputError(
                f"source = {settings.source!r} takes one image: for several bands or exposures give {known}"
            )
        self.settings = settings
        self.parametric = ParametricReconstruction(settings)

    def solve(self, group, finish, started):
        """The `~lenssr.result.BandsResolution` of a `Group`.

        ``finish(solved, observation)`` makes the result of a band; ``started`` is when the clock was started,
        `time.perf_counter`.
        """
        if self.settings.kind == "interpolation":
            return self._interpolated(group, finish)
        if self.settings.lens_light == "auto":
            return type(self)(with_light_shown(self.settings, group)).solve(group, finish, started)
        placed = place(group)
        fits = {name: self._own_fit(exposures) for name, exposures in placed.items()}
        joint = self._best_candidate(placed, fits)
        for fit, found in joint.pairs:
            fit.measure_temperature(found)
        joint = joint.solved(**COARSE).with_slope(**COARSE).expanded(**COARSE).without_misfits()
        log.info("refining the sources of %s", ", ".join(joint.fits))
        joint = joint.renewed(**COARSE).refined().renewed().expanded()
        results = {name: joint.result(name, placed[name], finish) for name in placed}
        meta = {"evidence": joint.solution.evidence, "lens_found_in": joint.reference}
        meta["seconds"] = time.perf_counter() - started
        return BandsResolution.of(results, lens=joint.shared_lens, left_out=joint.left_out, meta=meta)

    def _interpolated(self, group, finish):
        if any(len(exposures) > 1 for exposures in group.bands.values()):
            raise InputError("source = 'interpolation' takes one exposure of each band: give 'pixelated'")
        method, results, placed = self.settings.method(), {}, place(group)
        for name, (observation,) in group.bands.items():
            (found,) = method.solve([observation], finish)
            if isinstance(found, Exception):
                raise found
            (where,) = placed[name]
            told = {"band": name, "frame": _frame(where.observation.grid, where.own_matrix)}
            results[name] = replace(found, meta=found.meta | told)
        return BandsResolution.of(results)

    def _own_fit(self, exposures):
        """Stacks of all exposures, the scene, and the parametric fit of the first."""
        observations = [one.observation for one in exposures]
        stack, scene, (fit,) = self.parametric.fit(observations[:1])
        if stack.device.type != "cpu":
            stack, scene, fit = (
                stack_of(observations[:1], self.settings, "cpu"),
                scene.on("cpu"),
                fit.on("cpu"),
            )
        others = [stack_of([one], self.settings, "cpu") for one in observations[1:]]
        return [stack, *others], scene, fit

    def _best_candidate(self, placed, fits):
        """The `Joint` fit of all bands, on coarse grids, that begins at the likeliest of their lenses."""
        candidates = []
        for name, (_, scene, fit) in fits.items():
            block = scene["lens"]
            lens = fit.physical[block.slice]
            if not candidates or (
                scene.lens_moves and all(lenses_differ(block, lens, other) for _, other in candidates)
            ):
                candidates.append((name, lens))
        log.info("lenses of %d bands to compare: %d", len(fits), len(candidates))
        radius = RADIUS if len(candidates) == 1 else WIDE_RADIUS
        joints, before = [], None
        for name, lens in candidates:
            start = self._behind(placed, fits, name, lens, radius)
            if before is not None:
                for band, fit in start.items():
                    fit.at_temperature_of(before[band])
            before = start
            joints.append(Joint(start, name).begun())
        best = max(joints, key=lambda one: one.solution.evidence)
        return replace(best, others=tuple(one for one in joints if one is not best))

    def _behind(self, placed, fits, name, lens, radius):
        """A `BandFit` of each band, behind the lens (L,) that was found in one of them."""
        found = {}
        for number, (band, (stacks, scene, fit)) in enumerate(fits.items()):
            if band != name and scene.lens_moves:
                (behind,) = fit_known_lens(stacks[0], scene.with_lens_held(), lens[None])
                fit = replace(behind, constraints=fit.constraints, weight=fit.weight)
            observations = [one.observation for one in placed[band]]
            widths = [POINTING_PIXELS * one.grid.pixel_scale for one in observations]
            if number == 0:
                widths[0] = 0.0  # it defines the frame
            options = {"pointings": widths, "radius": radius}
            found[band] = BandFit(stacks, scene, fit, observations, self.settings, **options)
        for band, fit in found.items():
            if band != name:
                fit.share(found[name], LIGHT_TIE)
        return found


@dataclass(frozen=True)
class Joint:
    """Bands that share a lens, and where they are.

    ``fits`` are the `BandFit` of the bands that are fitted together, ``reference`` the one in which the lens
    was found; ``found`` their `Inversion`; ``solution`` the `~lenssr.source.BandsSolution`; ``coarse`` a
    `Mode` by band, where coarse grids first led; ``others`` the joint fits from other candidates;
    ``left_out`` the `BandFit` and `Inversion` of bands that were left out.
    """

    fits: dict
    reference: str
    found: dict = None
    solution: object = None
    coarse: dict = None
    others: tuple = ()
    left_out: dict = None

    @property
    def pairs(self):
        """Fit and inversion of each band."""
        return [(fit, self.found[name]) for name, fit in self.fits.items()]

    @property
    def moves(self):
        """Whether the lens is free."""
        return next(iter(self.fits.values())).bare.lens_moves

    def begun(self):
        """On coarse grids: the likeliest priors behind the lens that is held, then all together."""
        found = {name: fit.behind_held_lens() for name, fit in self.fits.items()}
        begun = replace(self, found=found).solved(**COARSE)
        if not self.moves:
            return begun
        solution, variance = begun.solution, begun.solution.lens_covariance.diagonal()
        modes = {
            name: Mode(solution.evidence, solution.lens, variance, one.physical)
            for name, one in begun.found.items()
        }
        return replace(begun, coarse=modes)

    def solved(self, **options):
        """All bands together, from where they are, with present weights."""
        return self._answered([fit.request(found, free=True, **options) for fit, found in self.pairs])

    def with_slope(self, **options):
        """With the slope of an unknown lens free, where that is asked for or likelier."""
        if self.settings.family in (None, ISOTHERMAL):
            return self
        before = {name: fit.parts[KIND] for name, fit in self.fits.items()}
        for name, fit in self.fits.items():
            fit.parts[KIND] = before[name].with_slope_free()
        freed = self.solved(**options)
        found = freed.found[self.reference]
        slope = slope_of(found.problem.scene, freed.lens, freed.solution.lens_covariance)
        if self.settings.family == AUTO and keep_held(*slope):
            for name, fit in self.fits.items():
                fit.parts[KIND] = before[name]
            return self
        return freed

    def renewed(self, **options):
        """With weights as the model has them now."""
        changed = [fit.renew_weights(found) for fit, found in self.pairs]
        return self.solved(**options) if any(changed) else self

    def refined(self):
        """On fine grids."""
        return self._answered([fit.finer_request(found) for fit, found in self.pairs])

    def _answered(self, requests):
        if self.moves:
            solution = solve_bands(requests)
        else:
            solution = _Apart([_alone(request) for request in requests])
        pairs = zip(self.fits, requests, solution.bands, strict=True)
        found = {name: Inversion(request.problem, one) for name, request, one in pairs}
        return replace(self, found=found, solution=solution)

    def expanded(self, **options):
        """Gone on from where only the distance from the parametric fit has stopped the lens.

        Not to a lens that is unlikely by its priors, as for one image (`expand_trust_region`).
        """
        joint, reference = self, self.fits[self.reference]
        for _ in range(decisions.EXPANSIONS):
            here = joint.found[self.reference]
            if self.settings.knows_lens or not self.moves or not reference.is_bound(here):
                break
            log.info("the lens leaves its neighbourhood of the parametric fit")
            before = {name: fit.parts[KIND] for name, fit in self.fits.items()}
            reference.widen(here)
            joint._share(reference)
            further = joint.solved(**options)
            unlikely = further.found[self.reference].pull_of_lens > decisions.UNLIKELY_LENS
            if further.solution.evidence <= joint.solution.evidence or unlikely:
                for name, fit in self.fits.items():
                    fit.parts[KIND] = before[name]
                break
            joint = further
        return joint

    def _share(self, reference):
        for fit in self.fits.values():
            if fit is not reference:
                fit.share(reference, LIGHT_TIE)

    @property
    def settings(self):
        """The `~lenssr.options.Settings`."""
        return self.fits[self.reference].settings

    # ------------------------------------------------------------ bands that do not fit

    def without_misfits(self):
        """Without bands that the shared lens does not explain; those that no lens explains count for less."""
        joint = self
        while len(joint.fits) > 1 and joint.moves:
            misfits = joint._misfits()
            if not misfits:
                break
            worst = max(misfits, key=misfits.get)
            log.warning("band %s is left out: the lens of the others does not explain it", worst)
            joint = joint._without(worst)
        heavy = False
        for name, (fit, found) in zip(joint.fits, joint.pairs, strict=True):
            pixels = max(int((found.problem.weight > 0).sum()) - found.solution.nearly_determined, 1.0)
            reduced = found.solution.chi2 / pixels
            if len(joint.fits) > 1 and reduced > decisions.BAD_CHI2:
                log.warning("band %s counts for less: its reduced chi2 is %.2f", name, reduced)
                fit.weigh_down(reduced)
                heavy = True
        return joint.solved(**COARSE) if heavy else joint

    def _misfits(self):
        """How much worse bands are behind the shared lens, by name, of those that it does not explain.

        Of two bands that disagree, it is not known which is right: the one with less signal in its arcs goes.
        """
        worse, signal = {}, {}
        for name, (fit, found) in zip(self.fits, self.pairs, strict=True):
            request = fit.request(found, free=True, **COARSE)
            alone = Inversion(request.problem, _alone(request))
            region = found.arcs()[0] | alone.arcs()[0]
            (_, shared, number), (_, own, _) = found.arcs(region), alone.arcs(region)
            log.debug("band %s: chi2 of %d pixels of arcs %.1f, alone %.1f", name, number, shared, own)
            degrees = max(number - found.solution.nearly_determined, (1 - MOST_DETERMINED) * number, 1.0)
            bad = shared / degrees > decisions.BAD_BAND_CHI2 and shared - own > decisions.SECOND_MODE
            if bad and shared > decisions.WORSE_BAND * own:
                worse[name] = shared / own
            signal[name] = alone.signal
        if worse and len(self.fits) == 2:
            return {min(signal, key=signal.get): 1.0}
        return worse

    def _without(self, name):
        """The joint fit of the other bands, and the band behind their lens."""
        kept = {other: fit for other, fit in self.fits.items() if other != name}
        reference = self.reference if name != self.reference else next(iter(kept))
        rest = replace(self, fits=kept, reference=reference).solved(**COARSE)
        left = dict(self.left_out or {}) | {name: (self.fits[name], self.found[name])}
        return replace(rest, left_out=left)

    # ------------------------------------------------------------ results

    @property
    def lens(self):
        """Physical parameters (L,) of the lens."""
        found = next(iter(self.found.values()))
        return found.physical[found.problem.scene["lens"].slice]

    def result(self, name, placed, finish):
        """The `~lenssr.SuperResolution` of one band."""
        if name in self.fits:
            fit, found = self.fits[name], self.found[name]
            solution = copy.copy(found.solution)
            if self.moves:
                solution.factor = BoundFactor(solution.factor, self.solution.lens_covariance)
        else:
            fit, found = self._behind_the_lens_of_the_rest(*self.left_out[name])
            solution = found.solution
        first = placed[0]
        facts = {"left_out": name not in self.fits, "down_weighted": fit.down > 1}
        exposures, observation = _described(fit, found, solution, placed)
        facts["pointing_off"] = any(one["offset_pixels"] > decisions.POINTING_OFF for one in exposures)
        fit.modes = self._modes(name)
        end = as_fit(found.problem, fit.fit, solution, fit.stack, fit)
        meta = {
            "evidence": solution.evidence,
            "chosen": KIND,
            "band": name,
            "exposures": exposures,
            "frame": _frame(observation.grid, first.own_matrix),
        }
        of_one = found.problem, solution, end, observation, fit.settings, fit
        return finish(solved_freeform(*of_one, facts=facts, meta=meta), observation)

    def _behind_the_lens_of_the_rest(self, fit, found):
        """Fit and inversion of a band that was left out, with the lens of the others, on the fine grid."""
        solution = copy.copy(found.solution)
        free = found.problem.scene.free_of("lens").numpy()
        solution.parameters = solution.parameters.copy()
        solution.parameters[: free.sum()] = self.lens.numpy()[free]
        moved = Inversion(found.problem, solution)
        request = fit.request(moved, free=False, **COARSE)
        held = Inversion(request.problem, _alone(request))
        request = fit.finer_request(held)
        return fit, Inversion(request.problem, _alone(request))

    def _modes(self, name):
        """Other lenses that all bands allow, from the other candidates on coarse grids."""
        if name not in self.fits or not self.moves:
            return []
        return posterior_modes(self.coarse[name], [joint.coarse[name] for joint in self.others])

    @property
    def shared_lens(self):
        """The lens as a model, its errors by all bands."""
        scene = next(iter(self.found.values())).problem.scene
        if not self.moves:
            return scene.lens
        free = scene.free_of("lens").numpy()
        covariance = np.zeros((len(free), len(free)))
        covariance[np.ix_(free, free)] = self.solution.lens_covariance
        return scene.lens.with_vector(self.lens, covariance=torch.as_tensor(covariance))


@dataclass(frozen=True)
class _Apart:
    """Bands behind a lens that is held, each by itself, as a `~lenssr.source.BandsSolution` has them."""

    bands: list

    @property
    def evidence(self):
        return sum(one.evidence for one in self.bands)


def _alone(request):
    """The solution of one band by itself."""
    start = (request.prior, request.strength, request.field, request.parameters)
    return solve(request.problem, *start, **request.options)


def _described(fit, found, solution, placed):
    """What is told of each exposure, and the observation of the first where it has been found to lie."""
    covariance, pieces, told, start = solution.factor.parameter_covariance, [], [], 0
    for number, one in enumerate(placed):
        where = found.pointing(number, first_is_free=bool(fit.pointings[0]))
        by, error = np.zeros(2), np.zeros(2)
        if where is not None:
            by, error = solution.parameters[where], np.sqrt(covariance.diagonal()[where])
        pixels = fit.stack.data.shape[1] if number == 0 else len(fit.beside[number - 1].weight)
        here = slice(start, start + pixels)
        start += pixels
        chi2 = found.problem.weight[here] * (found.problem.data[here] - found.model[here]) ** 2
        offset = np.add(one.offset, by)
        told.append(
            {
                "file": one.observation.meta.get("file"),
                "offset": offset.tolist(),
                "offset_error": error.tolist(),
                "offset_pixels": float(np.hypot(*offset) / one.observation.grid.pixel_scale),
                "chi2_per_pixel": float(
                    chi2.sum() * fit.temperature / max((found.problem.weight[here] > 0).sum(), 1)
                ),
            }
        )
        pieces.append(by)
    first = placed[0].observation
    return told, replace(first, grid=first.grid.moved(*pieces[0]))


def _frame(grid, own_matrix):
    """How places in the frame of the lens become those in a band's own: turn @ (place - origin)."""
    turn = own_matrix @ np.linalg.inv(grid.matrix)
    return {"turn": turn.tolist(), "origin": list(grid.origin), "matrix": own_matrix.tolist()}
