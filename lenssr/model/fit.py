"""Finding a lens and its source with no hint: many starts on coarse pixels, the best refined on all."""

from dataclasses import dataclass, field, replace

import numpy as np
import torch

from lenssr.model.constraints import Terms
from lenssr.model.initial_guess import light_start, source_start, without_light
from lenssr.model.least_squares import levenberg_marquardt

__all__ = ["POOR_CHI2", "SceneFit", "cost", "fit_known_lens", "fit_unknown_lens", "polish"]

COARSE_SIDE = 25
COARSE_PIXEL = 0.15  # arcsec; coarser pixels cannot tell the smallest rings apart
STARTS = 8
# How often the noise of a fit is found anew; and from a start near its end, whose own noise will do first.
WEIGHT_REFITS, NEAR_REFITS = 3, 1
# Gains in chi2 below which a fit has converged: one that is followed by another, and the last.
EARLY_TOLERANCE = 0.03
LAST_TOLERANCE = 1e-3
# How many iterations a fit may take, and how many more for each parameter beyond a common number of them.
ITERATIONS, MORE_ITERATIONS, COMMON_NUMBER = 60, 4, 22
POLISHES = 2
POLISH_SIGMA = 0.05
# Optima whose Einstein radii differ by less than this share, and whose shapes by less than this, are one.
SAME_RADIUS = 0.02
SAME_SHAPE = 0.1
# Starts whose coarse chi2 is larger by less than this share are worth a second look on all pixels.
RIVAL_SHARE = 0.3
RIVALS = 2
POOR_CHI2 = 1.2
# Share of the light of a lens galaxy that a first, coarse model may miss.
GALAXY_ERROR = 0.1
# The ghost (see `ImageStack`) can sit in any pixel that the lens centre may still reach.
GHOST_PIXELS = 1.4
# A second optimum whose chi2 is larger by less than this, 5 sigma, cannot be told from the best.
RIVAL_CHI2 = 25.0


@dataclass
class SceneFit:
    """Where the fit of one image ended.

    Attributes
    ----------
    physical : `torch.Tensor`, shape (P,)
        Parameters of the scene.
    covariance : `torch.Tensor`, shape (P, P)
        Their covariance for independent noise; zero where fixed or on a bound.
    chi2 : float
    model : `torch.Tensor`, shape (N,)
        Expected data.
    lensed_source : `torch.Tensor`, shape (N,)
        The source's part of it.
    weight : `torch.Tensor`, shape (N,)
        Inverse variance that was used; 0 on masked pixels.
    converged : bool
    at_bound : tuple of int
        Positions in the parameter vector that ended on a bound.
    iterations : int
    terms : `Terms`
        Bounds and priors of this image.
    rivals : list of (float, `torch.Tensor`)
        Other optima: by how much their chi2 is larger, and their parameters.
    leverage : `torch.Tensor`, shape (N,), or None
        Share of itself that every pixel determines of ``model``, where that is known.
    start : {"search", "network", "pixelated"}
        What found the lens, if it was unknown: the last is a source on a grid.
    began : `torch.Tensor`, shape (P,), or None
        Parameters from which it was fitted to all pixels, if its lens was looked for.
    elsewhere : list of `torch.Tensor`, shape (L,)
        Other lenses, where the lens may be if the source is no Sérsic. Empty where that is not in doubt.
    """

    physical: torch.Tensor
    covariance: torch.Tensor
    chi2: float
    model: torch.Tensor
    lensed_source: torch.Tensor
    weight: torch.Tensor
    converged: bool
    at_bound: tuple
    iterations: int
    terms: Terms
    rivals: list = field(default_factory=list)
    start: str = "search"
    leverage: torch.Tensor | None = None
    began: torch.Tensor | None = None
    elsewhere: list = field(default_factory=list)

    def on(self, device):
        """Return the fit with its tensors on a device."""
        moved = ["physical", "covariance", "model", "lensed_source", "weight"]
        moved += [name for name in ("leverage", "began") if getattr(self, name) is not None]
        return replace(
            self,
            **{name: getattr(self, name).to(device) for name in moved},
            terms=self.terms.on(device),
            rivals=[(worse, place.to(device)) for worse, place in self.rivals],
            elsewhere=[place.to(device) for place in self.elsewhere],
        )


def fit_known_lens(stack, scene, lens_vectors):
    """Fit the light of scenes whose lens is given, or refine the lens from where it is given.

    Parameters
    ----------
    stack : `~lenssr.model.image_stack.ImageStack`
    scene : `~lenssr.model.scene.Scene`
    lens_vectors : `torch.Tensor`, shape (B, L)
        Lens parameters of each image.

    Returns
    -------
    fits : list of `SceneFit`
    """
    light = light_start(stack.binned(_bin_factor(stack.grid)), scene)
    plain = scene.with_plain_light()
    template = _assemble(plain, stack, lens_vectors, light)
    weight = _softened(stack.first_weights, stack, plain, template)
    template = source_start(stack, plain, template, without_light(stack, plain, light), weight)
    terms = Terms.of(plain, len(stack))
    if plain is not scene:
        physical = _early(stack, plain, template, terms)
        template = scene.from_plain_light(plain, physical)
        terms = Terms.of(scene, len(stack)).lit(scene, template)
    return _fit(stack, scene, template, terms)


def polish(stack, scene, number, fit, *, brief=False):
    """Fit once more with rays where the fitted scene is steep, if that changes the image.

    Parameters
    ----------
    stack : `~lenssr.model.image_stack.ImageStack`
    scene : `~lenssr.model.scene.Scene`
    number : int
        Which image of the stack.
    fit : `SceneFit`
    brief : bool, optional
        Whether one such fit is enough, from the noise that the last one has: half the time. By default there
        may be a second one, and the noise is found anew.

    Returns
    -------
    fit : `SceneFit`
    """
    if stack.options["oversampling"] != "auto":
        return fit
    physical = fit.physical.unsqueeze(0)
    for _ in range(1 if brief else POLISHES):
        refined = stack.select([number], refine=_brightness_of(scene, physical))
        change = (refined.image(scene, physical) - stack.image(scene, physical))[0]
        if float((change.abs() * fit.weight.sqrt()).max()) < POLISH_SIGMA:
            break
        better = _refine(refined, scene, physical, fit.terms, 0 if brief else WEIGHT_REFITS)[0]
        better.rivals, better.iterations = fit.rivals, fit.iterations + better.iterations
        better.start, better.elsewhere = fit.start, fit.elsewhere
        fit, stack, number, physical = better, refined, 0, better.physical.unsqueeze(0)
    return fit


def _brightness_of(scene, physical):
    return lambda x, y: scene.brightness(x, y, physical)[0]


def fit_unknown_lens(stack, scene, lens_start, *, centre_bound=torch.inf, starts=None, beside=None):
    """Fit scenes whose lens is unknown, from Einstein radii spread over the field, or from lenses at hand.

    Parameters
    ----------
    stack : `~lenssr.model.image_stack.ImageStack`
    scene : `~lenssr.model.scene.Scene`
    lens_start : callable
        ``lens_start(theta_E, x_0, y_0)`` gives the lens parameters to begin with.
    centre_bound : float, optional
        How far the lens may lie from its light, or from the image centre where it has none, along each axis,
        in arcsec; by default anywhere.
    starts : `torch.Tensor`, shape (B, S, L), optional
        Lens parameters to begin with instead, which are taken to be nearly right.
    beside : list of `SceneFit`, optional
        Fits at hand: where the search on coarse pixels comes to the lens from which one of them began, that
        one is returned.

    Returns
    -------
    fits : list of `SceneFit`

    Notes
    -----
    A search from radii alone fits all starts to all pixels where the best leaves more than noise there. With
    ``starts`` or fits at hand there are better ways to find out what a Sérsic does not tell.
    """
    coarse = stack.binned(_bin_factor(stack.grid))
    light = light_start(coarse, scene)
    centres = torch.zeros(len(stack), 2) if light is None else light[:, 3:5]
    centres = centres.to(stack.device).double()
    plain = scene.with_plain_light()
    terms = Terms.of(plain, len(stack)).near(plain, centres, centre_bound)
    vectors = starts
    if starts is None:
        radii, places = einstein_radii(coarse.grid, STARTS), terms.mean[:, plain.lens_centre_columns].tolist()
        vectors = torch.stack([torch.stack([lens_start(r, *place) for r in radii]) for place in places])
    physical, chi2 = _search(coarse, plain, vectors, light, terms, near=starts is not None)
    best = torch.arange(len(stack), device=stack.device), chi2.argmin(dim=1)
    if plain is not scene:
        found = _early(stack, plain, physical[best], terms)
        physical = _with_light_of(plain, physical, found)
        physical[best] = found
        physical = scene.from_plain_light(plain, physical)
        terms = Terms.of(scene, len(stack)).near(scene, centres, centre_bound).lit(scene, physical[best])
    begun = physical[best]
    rows = _not_yet(scene, begun, beside)
    found = list(beside or [None] * len(stack))
    if rows:
        some = stack if len(rows) == len(stack) else stack.select(rows)
        refits = WEIGHT_REFITS if starts is None else NEAR_REFITS
        fits = _fit(some, scene, begun[rows], terms.select(rows), refits)
        for row, fit in zip(rows, fits, strict=True):
            fit.began = begun[row]
        thorough = starts is None and beside is None
        _try_rivals(some, scene, fits, physical[rows], chi2[rows], terms.select(rows), thorough)
        for row, fit in zip(rows, fits, strict=True):
            found[row] = fit
    return found


def _not_yet(scene, starts, beside):
    """Which starts (B, P) are not those of fits at hand."""
    if beside is None:
        return list(range(len(starts)))
    return [
        row
        for row, (start, fit) in enumerate(zip(starts, beside, strict=True))
        if fit.began is None or _differ(scene, start, fit.began)
    ]


def _early(stack, scene, physical, terms):
    """Fit on all pixels once, with the first weights: enough for a start of a richer scene."""
    weight = stack.first_weights * _shown(stack, scene, physical)
    where, tolerance = _passes(stack, weight)[0]
    options = {"max_iterations": _patience(scene), "tolerance": tolerance}
    fit = _minimise(where, scene, physical, weight.to(where.data), terms, **options)
    return scene.to_physical(fit.parameters, physical)


def _patience(scene):
    """Iterations that a fit may take; those with many parameters that fade away need more."""
    return ITERATIONS + MORE_ITERATIONS * max(0, len(scene.free_index) - COMMON_NUMBER)


def _with_light_of(scene, physical, found):
    """Physical vectors (B, S, P) with the lens light of others (B, P)."""
    physical = physical.clone()
    for block in scene.of_role("lens_light"):
        physical[..., block.slice] = found[:, None, block.slice]
    return physical


def _search(coarse, scene, vectors, light, terms, *, near=False):
    """Fit coarse pixels from all starts (B, S, L): first with a nearly round lens at its centre, then freely.

    Starts that are ``near`` the end need no first fit, nor double precision.

    Returns
    -------
    physical : `torch.Tensor`, shape (B, S, P)
    chi2 : `torch.Tensor`, shape (B, S)
    """
    count, number = vectors.shape[:2]
    owner = torch.arange(count, device=coarse.device).repeat_interleave(number)
    many = coarse.select(owner.tolist())
    light = None if light is None else light[owner]
    free, lens = terms.select(owner), scene.blocks[0].slice
    vectors = vectors.flatten(0, 1).to(free.lower)
    if near:
        vectors = torch.maximum(torch.minimum(vectors, free.upper[:, lens]), free.lower[:, lens])
    template = _assemble(scene, many, vectors, light)
    weight = _softened(many.first_weights, many, scene, template)
    template = source_start(many, scene, template, without_light(many, scene, light), weight)
    if many.shows_ghost and scene.lens_moves:
        weight = weight * _away_from_lens(coarse.grid, scene, template)
    stages = ((free.narrowed(scene, template), 25), (free, 40))
    where = _early_stack(many, weight) if near else many
    for stage, iterations in stages[1:] if near else stages:
        options = {"max_iterations": iterations, "tolerance": 0.1}
        fit = _minimise(where, scene, template, weight.to(where.data), stage, **options)
        template = scene.to_physical(fit.parameters, template)
    return template.reshape(count, number, -1), fit.chi2.reshape(count, number)


def _softened(weight, stack, scene, template):
    """Weights that know that a galaxy is not quite a Sérsic, and that coarse pixels blur its cusp."""
    if not scene.of_role("lens_light"):
        return weight
    smooth = stack.image(scene, template, roles=("lens_light",))
    return weight / (1 + weight * (GALAXY_ERROR * smooth) ** 2)


def einstein_radii(grid, number):
    """Einstein radii to start from, in arcsec: 0.3 to 0.4 of the field, evenly in the logarithm."""
    field_size = min(grid.shape) * grid.pixel_scale
    lowest = min(max(0.3, 2 * grid.pixel_scale), 0.2 * field_size)
    return np.geomspace(lowest, 0.4 * field_size, number)


def _bin_factor(grid):
    side = min(grid.shape)
    factor = max(1, side // COARSE_SIDE)
    finest = max(1, round(COARSE_PIXEL / grid.pixel_scale))
    # A field of many hundred pixels would stay expensive at the finest coarse pixel.
    return min(factor, max(finest, side // (4 * COARSE_SIDE)))


def _assemble(scene, stack, lens_vectors, light):
    """Physical vectors (B, P) from lens parameters and lens light; the source is still empty."""
    physical = torch.ones(len(stack), scene.size, dtype=torch.float64, device=stack.device)
    for block in scene.of_role("lens"):
        physical[:, block.slice] = lens_vectors.to(physical)
    for block in scene.of_role("lens_light"):
        physical[:, block.slice] = light[:, :7].to(physical)
    return physical


def _minimise(stack, scene, physical, weight, terms, **options):
    lower, upper = (scene.to_fit(end) for end in (terms.lower, terms.upper))
    prior = terms.mean[:, scene.free], terms.stiffness[:, scene.free]
    start = scene.to_fit(physical)
    model = stack.model(scene, physical)
    data = torch.where(weight > 0, stack.data, 0)
    return levenberg_marquardt(model, start, data, weight, lower=lower, upper=upper, prior=prior, **options)


def _fit(stack, scene, physical, terms, refits=WEIGHT_REFITS):
    """Fit on all pixels; groups of Gaussians once more, sharing what they have found; the better fits.

    Which group takes which light is decided early, when the lens and the source are still far off: two
    groups may end as a core and its halo, or in the middle of either, tens of chi2 worse.
    """
    fits = _refine(stack, scene, physical, terms, refits)
    shared = scene.with_groups_shared(torch.stack([fit.physical for fit in fits]))
    if shared is None:
        return fits
    others = _refine(stack, scene, shared, terms)
    return [min(pair, key=lambda fit: cost(scene, fit)) for pair in zip(fits, others, strict=True)]


def _refine(stack, scene, physical, terms, refits=WEIGHT_REFITS):
    """Fit on all pixels, the noise weights frozen and refitted, and collect the results.

    With fewer ``refits`` than usual the start is near enough for the noise to be as it is there.
    """
    shown = _shown(stack, scene, physical)
    weight = stack.first_weights * shown
    iterations = torch.zeros(len(stack), dtype=torch.long, device=stack.device)
    near = refits < WEIGHT_REFITS
    for number, (where, tolerance) in enumerate(_passes(stack, weight, refits)):
        if (number or near) and not stack.gaussian:
            weight = stack.weights(stack.image(scene, physical)) * shown
        # A step that promises so little leads where it promises.
        options = {"max_iterations": _patience(scene), "tolerance": tolerance, "look": False}
        fit = _minimise(where, scene, physical, weight.to(where.data), terms, **options)
        physical = scene.to_physical(fit.parameters, physical)
        iterations += fit.iterations
    covariance = scene.physical_covariance(fit.covariance(), physical)
    model = stack.expected(scene, physical)
    source = stack.image(scene, physical, roles=("source",))
    return [
        SceneFit(
            physical[i],
            covariance[i],
            float(fit.chi2[i]),
            model[i],
            source[i],
            weight[i],
            bool(fit.converged[i]),
            tuple(scene.free_index[fit.at_bound[i]].tolist()),
            int(iterations[i]),
            terms.select([i]),
        )
        for i in range(len(stack))
    ]


def _passes(stack, weight, refits=WEIGHT_REFITS):
    """Stacks and tolerances of the fits in turn: in single precision while weights still change.

    Single precision moves no score by more than 0.001 dB and takes half the time; the last fit, from which
    errors are read, is in the precision of the stack.
    """
    early = [(_early_stack(stack, weight), EARLY_TOLERANCE)] * (min(refits, 1) if stack.gaussian else refits)
    return [*early, (stack, LAST_TOLERANCE)]


def _early_stack(stack, weight):
    """The stack in single precision, or itself where units leave the range of that."""
    used = weight[weight > 0]
    safe = used.numel() > 0 and float(used.max()) < 1e24 and float(used.min()) > 1e-24
    return stack.single() if safe else stack


def _shown(stack, scene, physical):
    """1 for pixels (B, N) that a fit may use, 0 for those where point-sampled data show the ghost."""
    if stack.shows_ghost and scene.lens_moves:
        return _away_from_lens(stack.grid, scene, physical)
    return 1.0


def _away_from_lens(grid, scene, physical):
    """1 where a pixel (B, N) lies farther from the lens than its own diagonal, 0 elsewhere."""
    x, y = (torch.as_tensor(c.ravel()).to(physical) for c in (grid.x, grid.y))
    centre = scene.lens_centre(physical)
    return (torch.hypot(x - centre[:, :1], y - centre[:, 1:]) > GHOST_PIXELS * grid.pixel_scale).double()


def _try_rivals(stack, scene, fits, physical, chi2, terms, thorough):
    """Refine the next-best starts where they ended elsewhere and nearly as well; keep the best of all."""
    chosen, starts = [], []
    for i in range(len(fits)):
        order = chi2[i].argsort()
        # A fit that does not explain its pixels may have begun from the wrong start: then all have a turn.
        poor = fits[i].chi2 > POOR_CHI2 * float((fits[i].weight > 0).sum())
        if poor and not thorough:
            continue
        near = chi2[i, order] - chi2[i].min() < RIVAL_CHI2 + RIVAL_SHARE * chi2[i].min()
        kept = [physical[i, order[0]]]
        for start in physical[i, order[near | poor]]:
            if len(kept) <= (STARTS if poor else RIVALS) and all(
                _differ(scene, start, other) for other in kept
            ):
                kept.append(start)
        chosen += [i] * (len(kept) - 1)
        starts += kept[1:]
    if not chosen:
        return
    others = _refine(stack.select(chosen), scene, torch.stack(starts), terms.select(chosen))
    for i, other in zip(chosen, others, strict=True):
        winner, loser = sorted((fits[i], other), key=lambda fit: cost(scene, fit))
        winner.rivals = [*fits[i].rivals, (loser.chi2, loser.physical)]
        fits[i] = winner
    for fit in fits:
        others = [(chi2 - fit.chi2, place) for chi2, place in fit.rivals]
        fit.rivals = [(worse, place) for worse, place in others if _differ(scene, place, fit.physical)]


def cost(scene, fit):
    """Chi2, and more where the lens ended on a bound, which is no optimum: it must be better beyond doubt.

    Parameters
    ----------
    scene : `~lenssr.model.scene.Scene`
    fit : `SceneFit`

    Returns
    -------
    cost : float
    """
    stop = scene.blocks[0].stop
    return fit.chi2 + RIVAL_CHI2 * any(k < stop for k in fit.at_bound)


def _differ(scene, first, second):
    """Whether two lenses are more than one optimum seen twice: in radius, ellipticity or shear."""
    for k, name in enumerate(scene.blocks[0].names):
        apart = abs(float(first[k] - second[k]))
        if name.startswith("theta_E") and apart > SAME_RADIUS * abs(float(second[k])):
            return True
        if name.startswith(("e1", "e2", "gamma1", "gamma2")) and apart > SAME_SHAPE:
            return True
    return False
