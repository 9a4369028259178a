"""Every way to find or refine a lens: radii, trial lenses, network, free-form look, modes, trust region.

1. `find_lens` fits scenes whose lens is unknown, from Einstein radii spread over the field (multi-start),
   from trial lenses where a free-form source will follow and no Sérsic explains the image, or from a
   network's estimate, which the first way checks where it is in doubt.
2. `refine_with_freeform_source` decides where no parametric source explains the arcs.
3. Behind a free-form source `fit_jointly` frees the lens, `search_other_modes` looks for other lenses, and
   `expand_trust_region` lets one go on that only its distance from the parametric fit has stopped.

A given lens is fitted by `lenssr.model.fit.fit_known_lens`; all of them minimise chi2 there, or the posterior
in `lenssr.source.solve`.
"""

import functools
import logging
from dataclasses import dataclass, replace

import numpy as np
import torch

from lenssr.mass import EPL, SIE, DoubleSourcePlane, Shear
from lenssr.model.fit import (
    NEAR_REFITS,
    WEIGHT_REFITS,
    Constraints,
    Fit,
    away_from_lens,
    bin_factor,
    cost,
    early_fit,
    fit_from,
    fit_known_lens,
    joint_covariance,
    lens_ends_at_bound,
    polish,
    refine,
    single_precision,
    softened,
    system,
    template_of,
)
from lenssr.model.initial_guess import light_start, radii_starts, source_start, without_light
from lenssr.model.least_squares import levenberg_marquardt
from lenssr.networks.deflection import LENS_NAMES
from lenssr.options import NETWORK
from lenssr.reconstruction import decisions
from lenssr.reconstruction.agreement import agreement_wanted, explains
from lenssr.reconstruction.lens_modes import Mode, other_starts, posterior_modes
from lenssr.reconstruction.rival_lenses import at_end, likeliest, rivals, rough_fit, start_behind
from lenssr.reconstruction.trial_lenses import lenses_differ, search_trial_lenses
from lenssr.source.batching import ask

__all__ = [
    "expand_trust_region",
    "find_lens",
    "fit_jointly",
    "refine_with_freeform_source",
    "search_other_modes",
    "two_sources",
    "unknown_lens",
]

log = logging.getLogger(__name__)

STARTS = 8  # Einstein radii of a multi-start
# Iterations on binned pixels: with a nearly round lens at its centre, then freely.
NEAR_ROUND, FREE = 25, 40
COARSE_TOLERANCE = 0.1
# Factor of a hopeless chi2 above which starts are hopeless before they are fitted freely.
SURELY = 3.0
# Slopes of an unknown lens, beyond which no galaxy has been seen.
SLOPE_BOUNDS = 1.3, 2.8
# Pixels of all images that are fitted together from other starts.
MOST_DATA = 2**20


def unknown_lens(field, isothermal=True):
    """The lens that is fitted where none is given: SIE, or EPL whose slope is fixed for now, and shear.

    The Einstein radius is below half the field (arcsec).
    """
    main = SIE(theta_E=0.2 * field, e1=0.0, e2=0.0)
    if not isothermal:
        main = EPL(theta_E=0.2 * field, gamma=2.0, e1=0.0, e2=0.0)
        main.gamma.bounds, main.gamma.fixed = SLOPE_BOUNDS, True
    lens = main + Shear(gamma1=0.0, gamma2=0.0)
    lens[0].theta_E.bounds = (min(0.05, 0.05 * field), 0.5 * field)
    return lens


def two_sources(lens, planes, lens_free):
    """The lens in front of two sources in these planes, a `~lenssr.mass.SourcePlanes`.

    Unless ``lens_free`` only what the planes add to the lens is fitted.
    """
    lens = DoubleSourcePlane(lens, planes)
    for parameter in lens.lens.parameters:
        parameter.fixed = parameter.fixed or not lens_free
    return lens


# ---------------------------------------------------------------- an unknown lens


def find_lens(stack, scene, *, seed=0, network=None, look=None, begin=None, freeform=None, thorough=True):
    """The `~lenssr.model.fit.Fit` of every image whose lens is unknown.

    Starts are Einstein radii all over the field, or the estimates of a ``network`` (a ``LensNetwork``);
    ``seed`` is that of their shapes. ``look(number, fit, others)`` gives the fit of an image whose lens is in
    doubt after a look with a free-form source from it and from other lenses (L,),
    `refine_with_freeform_source`; a network and a free-form source need it. ``freeform`` is None unless such
    a source follows: trial lenses then say where to begin wherever no Sérsic explains binned pixels, and it
    is the ``tolerance`` of `~lenssr.model.fit.refine` for the fit from there. Above 1 they do so beside all
    lens light, but where this is one Sérsic and with one behind the lens explains all pixels. Unless
    ``thorough`` the best start alone has a turn where it leaves more than noise.
    """
    rng = np.random.default_rng(seed)
    if network is None:
        log.info("looking for the lens from %d Einstein radii", STARTS)
        options = {"look": look if freeform else None, "begin": begin, "tolerance": freeform}
        options["every"] = thorough
        found = _multi_start(stack, scene, rng, **options)
        fits = [
            one.fit if one.rough else polish(stack, scene, number, one.fit)
            for number, one in enumerate(found)
        ]
        _log_lenses(scene, fits)
        return fits
    log.info("looking for the lens from the estimate of a network")
    estimate = network.estimate(stack, scene)
    starts = _vectors_of(scene, estimate.likely())
    found = _multi_start(stack, scene, rng, starts=starts)
    fits = _checked_by_radii(stack, scene, rng, found, estimate)
    distances = _distances(scene, fits, estimate)
    # Decided by the fit before it is polished, as the network's errors are.
    doubted = [
        number
        for number, (fit, distance) in enumerate(zip(fits, distances, strict=True))
        if distance > agreement_wanted(fit, stack.data[number])
    ]
    fits = [polish(stack, scene, number, fit, brief=True) for number, fit in enumerate(fits)]
    for number in doubted:
        log.info("image %d: no Sérsic explains the arcs behind the network's lens", number)
        fits[number] = look(number, fits[number], [starts[number, 0].to(fits[number].physical)])
    _log_lenses(scene, fits)
    return fits


def _log_lenses(scene, fits):
    """Log Einstein radii and chi2."""
    for number, fit in enumerate(fits):
        radius, chi2 = float(fit.physical[scene.radius]), fit.chi2 / max(fit.used, 1)
        log.debug("image %d: theta_E %.4f arcsec, chi2 per pixel %.3f", number, radius, chi2)


@dataclass(frozen=True)
class _Found:
    """A fit, and the parameters (P,) of its start; None where another start than the best has won.

    A ``rough`` one is where a free-form source begins, and is polished no further. ``rivals`` are lenses (L,)
    that are nearly as likely.
    """

    fit: Fit
    begun: torch.Tensor | None
    rough: bool = False
    rivals: tuple = ()


def _multi_start(
    stack, scene, rng, *, starts=None, beside=None, look=None, begin=None, tolerance=None, every=True
):
    """Fit binned pixels from many lenses, the best ones to all pixels; a list of `_Found`.

    ``starts`` (B, S, L) are nearly right; by default they are Einstein radii all over the field, and then
    ``every`` one is fitted to all pixels where the best leaves more than noise. ``beside`` (`_Found` each)
    is returned where binned pixels lead to where one of them began; what a Sérsic does not tell is then found
    out elsewhere. With a ``look`` images whose binned pixels no Sérsic explains are left to trial lenses.
    """
    coarse = stack.binned(bin_factor(stack.grid))
    light = light_start(coarse, scene)
    centres = torch.zeros(len(stack), 2) if light is None else light[:, 3:5]
    centres = centres.to(stack.device).double()
    plain = scene.with_plain_light()
    constraints = Constraints.of(plain, len(stack)).centred_on(plain, centres, decisions.CENTRE_BOUND)
    near = starts is not None
    given = stack, scene, constraints, light, rng, begin, tolerance
    search = functools.partial(_from_trial_lenses, *given)
    lit = look is not None and bool(scene.lights) and tolerance > 1
    if lit and plain is not scene:
        found = [search(row) for row in range(len(stack))]
        if all(found):
            return found
    unsure = lit and plain is scene
    asks = unsure or (look is not None and not scene.lights)
    # Beside lens light trial lenses are drawn as if no radii had been.
    radii_rng = rng.spawn(1)[0] if unsure else rng
    vectors = starts if near else radii_starts(plain, coarse.grid, constraints.mean, radii_rng, STARTS)
    hopeless = decisions.HOPELESS_START if asks else None
    fitted = _coarse_fits(coarse, plain, vectors, light, constraints, near=near, hopeless=hopeless)
    physical, chi2 = fitted
    found = list(beside or [None] * len(stack))
    if asks:
        misfit = chi2.amin(dim=1) / (coarse.first_weights > 0).sum(dim=1)
        for row in (misfit > hopeless).nonzero().flatten().tolist():
            found[row] = search(row)
        rows = [row for row, one in enumerate(found) if _is_open(one, stack, row)]
        if not rows:
            return found
    best = torch.arange(len(stack), device=stack.device), chi2.argmin(dim=1)
    if plain is not scene:
        lit = early_fit(stack, plain, physical[best], constraints)
        physical = _with_light_of(plain, physical, lit)
        physical[best] = lit
        physical = scene.from_plain_light(plain, physical)
        constraints = Constraints.of(scene, len(stack)).centred_on(scene, centres, decisions.CENTRE_BOUND)
        constraints = constraints.with_light_priors(scene, physical[best])
    begun = physical[best]
    rows = [row for row in _elsewhere(scene, begun, beside) if beside or _is_open(found[row], stack, row)]
    if rows:
        some = stack if len(rows) == len(stack) else stack.select(rows)
        refits = NEAR_REFITS if near else WEIGHT_REFITS
        fits = fit_from(some, scene, begun[rows], constraints.select(rows), refits)
        thorough = every and not near and beside is None and not unsure
        places = physical[rows], chi2[rows]
        best = _try_other_starts(some, scene, fits, *places, constraints.select(rows), thorough=thorough)
        for row, first, fit in zip(rows, fits, best, strict=True):
            if beside is None and found[row] is not None:
                found[row] = _looked_behind(
                    found[row], fit, scene, stack.data[row], functools.partial(look, row)
                )
                continue
            found[row] = _Found(fit, begun[row] if torch.equal(first.physical, fit.physical) else None)
            if unsure and not explains(fit, stack.data[row]):
                found[row] = search(row) or found[row]
    return found


def _is_open(found, stack, row):
    """Whether a Sérsic has to look for the lens of an image: no trial lens is it, or none yet."""
    return found is None or (not found.rough and not explains(found.fit, stack.data[row]))


def _looked_behind(found, fit, scene, data, look):
    """What began at trial lenses, or at radii where a Sérsic does better from there, as `_Found`.

    ``look(fit, others)``, as of `find_lens`, decides if no Sérsic explains the ``data`` (N,).
    """
    if explains(fit, data):
        return _Found(fit, None)
    better = cost(scene, fit) < cost(scene, found.fit) and _differ(scene, fit.physical, found.fit.physical)
    others = [*([fit.physical[scene["lens"].slice]] if better else ()), *found.rivals]
    return _Found(look(found.fit, others) if others else found.fit, None)


def _from_trial_lenses(stack, scene, constraints, light, rng, begin, tolerance, number):
    """The fit of one image near the likeliest trial lens, as `_Found`; None if nothing shines.

    Where others are nearly as likely, a short look with a free-form source behind each, ``begin``, decides
    beside lens light; without it they are left as rivals.
    """
    stack, plain = stack.select([number]), scene.with_plain_light()
    constraints = constraints.select([number]).kept_to_light(plain)
    light = None if light is None else light[[number]]
    trials = search_trial_lenses(stack, plain, constraints, rng, light)
    if not trials:
        return None
    likely = rivals(trials)
    lenses = [one.lens for one in likely]
    log.info("image %d: %d trial lenses explain the arcs, %d likely", number, len(trials), len(lenses))
    if scene.lights:
        given = stack, scene, plain, light, constraints, tolerance
        rough = [(rough_fit(one.lens, *given), one.oddity) for one in likely[: decisions.LOOKS]]
        fit, end = likeliest(rough, functools.partial(begin, number))
        return _Found(fit if end is None else at_end(scene, fit, end), None, rough=True)
    physical = start_behind(lenses[0], stack, plain, light)
    near = constraints.trust_region(plain, physical, (decisions.RADIUS_REACH, decisions.RADIUS_WIDTH))
    (fit,) = fit_from(stack, scene, physical, near, NEAR_REFITS, tolerance=tolerance)
    return _Found(replace(fit, constraints=constraints), None, rivals=tuple(lenses[1:]))


def _coarse_fits(coarse, scene, vectors, light, constraints, *, near, hopeless=None):
    """Fit binned pixels from all starts (B, S, L): physical vectors (B, S, P) and chi2 (B, S).

    First with a nearly round lens at its centre, then freely; starts that are ``near`` the end need no first
    fit, nor double precision, and starts that are ``hopeless`` (a reduced chi2) need no second one.
    """
    count, number = vectors.shape[:2]
    owner = torch.arange(count, device=coarse.device).repeat_interleave(number)
    many = coarse.select(owner.tolist())
    light = None if light is None else light[owner]
    free, lens = constraints.select(owner), scene["lens"].slice
    vectors = vectors.flatten(0, 1).to(free.lower)
    if near:
        vectors = torch.maximum(torch.minimum(vectors, free.upper[:, lens]), free.lower[:, lens])
    template = template_of(scene, many, vectors, light)
    weight = softened(many.first_weights, many, scene, template)
    template = source_start(many, scene, template, without_light(many, scene, light), weight)
    if many.shows_ghost and scene.lens_moves:
        weight = weight * away_from_lens(coarse.grid, scene, template)
    stages = ((free.narrowed(scene, template), NEAR_ROUND), (free, FREE))
    where = single_precision(many, weight) if near else many
    for stage, iterations in stages[1:] if near else stages:
        options = {"max_iterations": iterations, "tolerance": COARSE_TOLERANCE}
        fit = levenberg_marquardt(**system(where, scene, template, weight, stage), **options)
        template = scene.to_physical(fit.parameters, template)
        if hopeless is not None and bool((fit.chi2 > SURELY * hopeless * (weight > 0).sum(1)).all()):
            break
    return template.reshape(count, number, -1), fit.chi2.reshape(count, number)


def _with_light_of(scene, physical, found):
    """Physical vectors (B, S, P) with the lens light of others (B, P)."""
    physical = physical.clone()
    for block in scene.lights:
        physical[..., block.slice] = found[:, None, block.slice]
    return physical


def _elsewhere(scene, starts, beside):
    """Rows of starts (B, P) that are not those of fits at hand."""
    if beside is None:
        return list(range(len(starts)))
    pairs = enumerate(zip(starts, beside, strict=True))
    return [row for row, (start, one) in pairs if one.begun is None or _differ(scene, start, one.begun)]


def _try_other_starts(stack, scene, fits, physical, chi2, constraints, *, thorough):
    """Fit other starts to all pixels where they differ and are nearly as good; the best fits, with modes."""
    chosen, starts = [], []
    for i, fit in enumerate(fits):
        order = chi2[i].argsort()
        # A fit that does not explain its pixels may have begun from the wrong start: then all have a turn.
        poor = fit.chi2 > decisions.BAD_CHI2 * fit.used
        if poor and not thorough:
            continue
        worse = chi2[i, order] - chi2[i].min()
        near = worse < decisions.SECOND_MODE + decisions.RIVAL_SHARE * chi2[i].min()
        kept = [physical[i, order[0]]]
        for start in physical[i, order[near | poor]]:
            few = len(kept) <= (STARTS if poor else decisions.RIVALS)
            if few and all(_differ(scene, start, other) for other in kept):
                kept.append(start)
        chosen += [i] * (len(kept) - 1)
        starts += kept[1:]
    if not chosen:
        return fits
    others = _refined(stack, scene, chosen, starts, constraints)
    best, ends = list(fits), [[] for _ in fits]
    for i, other in zip(chosen, others, strict=True):
        best[i], loser = sorted((best[i], other), key=lambda fit: cost(scene, fit))
        ends[i].append((loser.chi2, loser.physical))
    return [_with_modes(scene, fit, found) for fit, found in zip(best, ends, strict=True)]


def _refined(stack, scene, chosen, starts, constraints):
    """Yield fits of images ``chosen`` from starts (P,), as many together as memory should hold."""
    step = max(1, MOST_DATA // stack.data.shape[1])
    for first in range(0, len(chosen), step):
        some = slice(first, first + step)
        index, begin = chosen[some], torch.stack(starts[some])
        yield from refine(stack.select(index), scene, begin, constraints.select(index))


def _with_modes(scene, fit, ends):
    """The fit with the other ends, (chi2, parameters) each, that lie at another lens."""
    modes = tuple((chi2 - fit.chi2, place) for chi2, place in ends if _differ(scene, place, fit.physical))
    return replace(fit, modes=modes)


def _differ(scene, first, second):
    """Whether the lenses of two physical vectors (P,) are more than one mode seen twice."""
    block = scene["lens"]
    return lenses_differ(block, first[block.slice], second[block.slice])


# ---------------------------------------------------------------- the estimate of a network


def _vectors_of(scene, estimates):
    """Lens vectors (B, S, L) of a network's numbers (B, S, 7); the rest is as the model has it."""
    block = scene["lens"]
    vectors = scene.lens.vector.double().to(estimates.device).expand(*estimates.shape[:-1], -1).clone()
    vectors[..., [block.column(name) - block.start for name in LENS_NAMES]] = estimates.double()
    return vectors


def _distances(scene, fits, estimate):
    """Standard deviations between the lenses of fits and a network's estimate, all parameters together."""
    columns = [scene["lens"].column(name) for name in LENS_NAMES]
    vectors = torch.stack([fit.physical[columns] for fit in fits])
    return estimate.distance(vectors.to(estimate.free)).tolist()


def _checked_by_radii(stack, scene, rng, found, estimate):
    """Fits from the network's lens, and the better ones from a multi-start where its lens is in doubt."""
    fits = [replace(one.fit, lens_from=NETWORK) for one in found]
    distances = _distances(scene, fits, estimate)
    doubted = [
        number
        for number, (fit, distance) in enumerate(zip(fits, distances, strict=True))
        if lens_ends_at_bound(scene, fit)
        or (distance > decisions.AGREES and fit.chi2 > decisions.BAD_CHI2 * fit.used)
    ]
    if doubted:
        log.info(
            "the network's lens is in doubt for %d images: looking from Einstein radii too", len(doubted)
        )
        beside = [replace(found[number], fit=fits[number]) for number in doubted]
        others = _multi_start(stack.select(doubted), scene, rng, beside=beside)
        for number, other in zip(doubted, others, strict=True):
            fits[number] = min(fits[number], other.fit, key=lambda fit: cost(scene, fit))
    return fits


# ---------------------------------------------------------------- a look with a free-form source


def refine_with_freeform_source(stack, scene, fit, others, begin):
    """Find a doubted lens by a source on a coarse grid, from a fit and other lenses (L,).

    A Sérsic takes up what is wrong with it by a wrong lens: the Einstein radius behind a clumpy galaxy may be
    off by 10 %, its chi2 not much larger than that of noise. The free-form source is not part of the result.
    ``begin(fit)`` gives the `~lenssr.reconstruction.freeform_fit.CoarseFit` that starts from a fit, all on a
    CPU. The fit that is returned has the likeliest lens, its errors, and the parametric source that fits best
    behind it; it is the one that came in where that source is likelier than all on a grid.
    """
    held = scene.with_lens_held()
    starts = [fit, *(_fit_behind(stack, held, lens, fit) for lens in others)]
    found = [begin(start) for start in starts]
    best = max(found, key=lambda one: one.solution.evidence)
    problem, solution = best.problem, best.solution
    if solution.evidence < found[0].parametric_evidence:
        return fit
    lens = problem.physical(solution.parameters)[0, scene["lens"].slice]
    freed = polish(stack, held, 0, _fit_behind(stack, held, lens, fit))
    count = scene.count("lens")
    covariance = torch.as_tensor(solution.factor.parameter_covariance[:count, :count] / best.correlation)
    modes = [Mode.of(one.problem, one.solution) for one in found if one is not best]
    lower, upper = problem.bounds
    outside = ((solution.parameters <= lower) | (solution.parameters >= upper))[:count].nonzero()[0]
    return replace(
        freed,
        covariance=joint_covariance(stack, scene, freed, covariance),
        at_bound=tuple(sorted({*freed.at_bound, *scene.free_index[outside].tolist()})),
        iterations=fit.iterations + freed.iterations + solution.iterations,
        modes=tuple(
            (excess, _with_lens_of(scene, freed, place))
            for excess, place in posterior_modes(Mode.of(problem, solution), modes)
        ),
        lens_from="pixelated",
    )


def _fit_behind(stack, held, lens, fit):
    """What shines behind a lens (L,) that is held, with the bounds and priors of another fit."""
    return replace(fit_known_lens(stack, held, lens[None])[0], constraints=fit.constraints)


def _with_lens_of(scene, fit, place):
    """Parameters of a fit with the lens of another place."""
    there, lens = fit.physical.clone(), scene["lens"].slice
    there[lens] = place[lens]
    return there


# ---------------------------------------------------------------- jointly with a free-form source


def fit_jointly(freeform, kind, problem, solution, **options):
    """Free the lens, and all else, from where a free-form source was found behind a lens that was held.

    ``freeform`` is the `~lenssr.reconstruction.freeform_fit.FreeFormFit`, here and below; options are those
    of a request. Yields requests, and returns problem and solution.
    """
    if not freeform.bare.lens_moves and np.array_equal(freeform.weight, problem.weight):
        return problem, solution
    physical = problem.physical(solution.parameters)[0]
    scene = freeform.parts[kind].scene
    parameters = scene.to_fit(physical[None])[0].numpy()
    problem = freeform.problem(kind, scene, physical, problem.grid_at(solution.parameters))
    return problem, (yield from ask_again(problem, solution, parameters, **options))


def search_other_modes(freeform, problem, solution, **options):
    """Look for other lenses from other starts on the coarse grid.

    Yields requests.

    Returns
    -------
    solution : `~lenssr.source.Solution`
        The likeliest.
    modes : list of (float, `torch.Tensor`)
        The other lenses, as `~lenssr.reconstruction.lens_modes.posterior_modes` gives them.
    """
    if freeform.settings.knows_lens or not problem.scene.lens_moves:
        return solution, []
    found = [solution]
    for start in other_starts(problem, solution, freeform.fit.modes):
        found.append((yield from ask_again(problem, solution, start, **options)))
    best = max(found, key=lambda one: one.evidence)
    modes = [Mode.of(problem, one) for one in found]
    return best, posterior_modes(Mode.of(problem, best), modes)


def expand_trust_region(freeform, kind, problem, solution, **options):
    """Go on from where a lens ended if only its distance from the parametric fit has stopped it.

    Not to a lens that is unlikely by its priors, that of the Einstein radius among them: a source on a grid
    makes up for much, from a poor model of the galaxy's halo to a lens that demagnifies. The bound, and its
    flag, are more honest there. Yields requests, and returns problem and solution.
    """
    for _ in range(decisions.EXPANSIONS):
        wider = _wider(freeform, kind, problem, solution)
        if wider is None:
            break
        log.info("the lens leaves its neighbourhood of the parametric fit")
        held, freeform.parts[kind] = freeform.parts[kind], wider
        physical, grid = problem.physical(solution.parameters)[0], problem.grid_at(solution.parameters)
        free = freeform.problem(kind, problem.scene, physical, grid)
        further = yield from ask_again(free, solution, solution.parameters, **options)
        if further.evidence <= solution.evidence or _prior_z2(free, further) > decisions.UNLIKELY_LENS:
            freeform.parts[kind] = held
            break
        problem, solution = free, further
    return problem, solution


def ask_again(problem, solution, parameters, **options):
    """Ask for a solution once more, from where one ended."""
    start = (solution.prior, solution.strength, solution.field, parameters)
    return ask(problem, *start, **solution.options, **options)


def _wider(freeform, kind, problem, solution):
    """What is fitted beside the nodes, in a wider trust region; None if nothing calls for it."""
    part = freeform.parts[kind]
    if not problem.scene.lens_moves:
        return None
    within = freeform.fit.constraints
    within = within if part.scene["source"] is not None else within.without(freeform.scene, "source")
    place = problem.physical(solution.parameters)
    if not bool(part.constraints.binding(part.scene, place, within)):
        return None
    return replace(part, constraints=part.constraints.widened(part.scene, place, within))


def _prior_z2(problem, solution):
    """Mean squared z-score of the lens by its own priors."""
    mean, stiffness = problem.parameter_prior
    pulls = stiffness * (solution.parameters - mean) ** 2
    return float(pulls[: problem.scene.count("lens")].mean())
