"""The fit of scenes to all pixels, and where it ends: a `Fit`, which nothing changes afterwards."""

from dataclasses import dataclass, replace

import torch

from lenssr.model.constraints import Constraints
from lenssr.model.initial_guess import light_start, source_start, without_light
from lenssr.model.least_squares import levenberg_marquardt

__all__ = [
    "Fit",
    "away_from_lens",
    "bin_factor",
    "cost",
    "early_fit",
    "fit_from",
    "fit_known_lens",
    "lens_ends_at_bound",
    "polish",
    "refine",
    "single_precision",
    "softened",
    "system",
    "template_of",
]

COARSE_SIDE = 25  # pixels along the side of a binned image
COARSE_PIXEL = 0.15  # arcsec; coarser pixels cannot tell the smallest rings apart
# Number of fits with weights from the last model, for a start from afar and for one that is nearly right.
WEIGHT_REFITS, NEAR_REFITS = 3, 1
# Gain in chi2 per step below which a fit has converged: one that another fit follows, and the last.
EARLY_TOLERANCE = 0.03
LAST_TOLERANCE = 1e-3
# Iterations of a fit, and the additional ones for each parameter beyond COMMON_NUMBER.
ITERATIONS, MORE_ITERATIONS, COMMON_NUMBER = 60, 4, 22
# Fits with rays placed anew, and the change of a pixel, in sigma, below which the rays are good enough.
POLISHES = 2
POLISH_SIGMA = 0.05
# Share of the light of a lens galaxy that a first, coarse model may miss.
GALAXY_ERROR = 0.1
# Chi2 by which a lens on a bound has to be better than one that is not: 5 sigma.
BOUND_COST = 25.0
# Radius in pixels of the mask around a moving lens whose point-sampled centre shows the source
# (`ImageStack`).
GHOST_PIXELS = 1.4


@dataclass(frozen=True, kw_only=True)
class Fit:
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
    constraints : `Constraints`
        Bounds and priors of this image.
    modes : tuple of (float, `torch.Tensor`)
        Other lenses that the data allow: excess of chi2, or of -2 ln(evidence), and their parameters.
    lens_from : {"search", "network", "pixelated"}
        What found the lens, if it was unknown: the last is a source on a grid.
    leverage : `torch.Tensor`, shape (N,), or None
        Diagonal of the hat matrix: how far every pixel determines its own model, where that is known.
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
    constraints: Constraints
    modes: tuple = ()
    lens_from: str = "search"
    leverage: torch.Tensor | None = None

    @property
    def used(self):
        """Number of pixels that were fitted."""
        return int((self.weight > 0).sum())

    def on(self, device):
        """The fit with its tensors on a device."""
        names = ["physical", "covariance", "model", "lensed_source", "weight"]
        names += [] if self.leverage is None else ["leverage"]
        return replace(
            self,
            **{name: getattr(self, name).to(device) for name in names},
            constraints=self.constraints.on(device),
            modes=tuple((excess, place.to(device)) for excess, place in self.modes),
        )

    def without(self, scene, role):
        """The fit of the scene without the blocks of a role; what these explain stays in ``model``."""
        keep = scene.keep(role)
        place = (keep.cumsum(0) - 1).tolist()
        return replace(
            self,
            physical=self.physical[keep],
            covariance=self.covariance[keep][:, keep],
            constraints=self.constraints.without(scene, role),
            at_bound=tuple(place[k] for k in self.at_bound if keep[k]),
            modes=tuple((excess, where[keep]) for excess, where in self.modes),
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
    fits : list of `Fit`
    """
    light = light_start(stack.binned(bin_factor(stack.grid)), scene)
    plain = scene.with_plain_light()
    template = template_of(plain, stack, lens_vectors, light)
    weight = softened(stack.first_weights, stack, plain, template)
    template = source_start(stack, plain, template, without_light(stack, plain, light), weight)
    constraints = Constraints.of(plain, len(stack))
    if plain is not scene:
        physical = early_fit(stack, plain, template, constraints)
        template = scene.from_plain_light(plain, physical)
        constraints = Constraints.of(scene, len(stack)).with_light_priors(scene, template)
    return fit_from(stack, scene, template, constraints)


def fit_from(stack, scene, physical, constraints, refits=WEIGHT_REFITS):
    """Fit all pixels from a start (B, P); groups of Gaussians twice, and the better fit is kept.

    Which group takes which light is decided early, when lens and source are still far off: two groups may end
    as a core and its halo, or in the middle of either, tens of chi2 worse. The second fit begins where both
    share what the first one found.
    """
    fits = refine(stack, scene, physical, constraints, refits)
    shared = scene.with_groups_shared(torch.stack([fit.physical for fit in fits]))
    if shared is None:
        return fits
    others = refine(stack, scene, shared, constraints)
    return [min(pair, key=lambda fit: cost(scene, fit)) for pair in zip(fits, others, strict=True)]


def cost(scene, fit):
    """Chi2, and more where the lens ended on a bound, which is no optimum: it must be better beyond doubt."""
    return fit.chi2 + BOUND_COST * lens_ends_at_bound(scene, fit)


def lens_ends_at_bound(scene, fit):
    """Whether a parameter of the lens ended on a bound."""
    lens = scene["lens"]
    return lens is not None and any(lens.start <= k < lens.stop for k in fit.at_bound)


def polish(stack, scene, number, fit, *, brief=False):
    """Fit image ``number`` once more with rays where the fitted scene is steep, if that changes the image.

    A ``brief`` polish is one fit with the noise that the last one had, and takes half the time; by default
    there may be a second one, and the noise is found anew.
    """
    if stack.options["oversampling"] != "auto":
        return fit
    physical = fit.physical.unsqueeze(0)
    for _ in range(1 if brief else POLISHES):
        refined = stack.select([number], refine=scene.brightness_at(physical))
        change = (refined.image(scene, physical) - stack.image(scene, physical))[0]
        if float((change.abs() * fit.weight.sqrt()).max()) < POLISH_SIGMA:
            break
        (better,) = refine(refined, scene, physical, fit.constraints, 0 if brief else WEIGHT_REFITS)
        iterations = fit.iterations + better.iterations
        fit = replace(better, modes=fit.modes, iterations=iterations, lens_from=fit.lens_from)
        stack, number, physical = refined, 0, fit.physical.unsqueeze(0)
    return fit


def early_fit(stack, scene, physical, constraints):
    """Fit all pixels once, with the first weights: enough for a start (B, P) of a richer scene."""
    weight = stack.first_weights * _shown(stack, scene, physical)
    where, tolerance = _passes(stack, weight)[0]
    options = {"max_iterations": _patience(scene), "tolerance": tolerance}
    fit = levenberg_marquardt(**system(where, scene, physical, weight, constraints), **options)
    return scene.to_physical(fit.parameters, physical)


def system(stack, scene, physical, weight, constraints):
    """The arguments of `levenberg_marquardt` for scenes from a start (B, P), with weights (B, N)."""
    weight = weight.to(stack.data)
    return {
        "model": stack.model(scene, physical),
        "start": scene.to_fit(physical),
        "data": torch.where(weight > 0, stack.data, 0),
        "weight": weight,
        "lower": scene.to_fit(constraints.lower),
        "upper": scene.to_fit(constraints.upper),
        "prior": (constraints.mean[:, scene.free], constraints.stiffness[:, scene.free]),
    }


def template_of(scene, stack, lens_vectors, light):
    """Physical vectors (B, P) from lens parameters (B, L) and lens light (B, 8); no source yet."""
    physical = torch.ones(len(stack), scene.size, dtype=torch.float64, device=stack.device)
    if scene["lens"] is not None:
        physical[:, scene["lens"].slice] = lens_vectors.to(physical)
    for block in scene.lights:
        physical[:, block.slice] = light[:, : len(block.names)].to(physical)
    return physical


def softened(weight, stack, scene, template):
    """Weights (B, N) that allow for a galaxy that is not quite a Sérsic, and coarse pixels on its cusp."""
    if not scene.lights:
        return weight
    smooth = stack.image(scene, template, roles=("lens_light",))
    return weight / (1 + weight * (GALAXY_ERROR * smooth) ** 2)


def bin_factor(grid):
    """How many pixels along an axis make one of a binned image."""
    side = min(grid.shape)
    factor = max(1, side // COARSE_SIDE)
    finest = max(1, round(COARSE_PIXEL / grid.pixel_scale))
    # A field of many hundred pixels would stay expensive at the finest coarse pixel.
    return min(factor, max(finest, side // (4 * COARSE_SIDE)))


def single_precision(stack, weight):
    """The stack with sparser rays in single precision, or in double where units leave the range of that."""
    used = weight[weight > 0]
    safe = used.numel() > 0 and float(used.max()) < 1e24 and float(used.min()) > 1e-24
    return stack.sparser().single() if safe else stack.sparser()


def away_from_lens(grid, scene, physical):
    """1 where a pixel (B, N) lies farther from the lens than its own diagonal, 0 elsewhere."""
    x, y = (torch.as_tensor(c.ravel()).to(physical) for c in (grid.x, grid.y))
    centre = scene.lens_centre(physical)
    return (torch.hypot(x - centre[:, :1], y - centre[:, 1:]) > GHOST_PIXELS * grid.pixel_scale).double()


def refine(stack, scene, physical, constraints, refits=WEIGHT_REFITS):
    """Fit all pixels, weights frozen and found anew, and collect the `Fit` of every image.

    With fewer ``refits`` than usual the start is near enough for the noise to be as it is there.
    """
    shown = _shown(stack, scene, physical)
    weight = stack.first_weights * shown
    iterations = torch.zeros(len(stack), dtype=torch.long, device=stack.device)
    near = refits < WEIGHT_REFITS
    for number, (where, tolerance) in enumerate(_passes(stack, weight, refits)):
        if (number or near) and not stack.gaussian:
            weight = stack.weights(stack.image(scene, physical)) * shown
        # A step that promises so little leads where it promises: its end is not evaluated.
        options = {"max_iterations": _patience(scene), "tolerance": tolerance, "look": False}
        fit = levenberg_marquardt(**system(where, scene, physical, weight, constraints), **options)
        physical = scene.to_physical(fit.parameters, physical)
        iterations += fit.iterations
    covariance = scene.physical_covariance(fit.covariance(), physical)
    model, source = stack.expected(scene, physical), stack.image(scene, physical, roles=("source",))
    return [
        Fit(
            physical=physical[i],
            covariance=covariance[i],
            chi2=float(fit.chi2[i]),
            model=model[i],
            lensed_source=source[i],
            weight=weight[i],
            converged=bool(fit.converged[i]),
            at_bound=tuple(scene.free_index[fit.at_bound[i]].tolist()),
            iterations=int(iterations[i]),
            constraints=constraints.select([i]),
        )
        for i in range(len(stack))
    ]


def _passes(stack, weight, refits=WEIGHT_REFITS):
    """Stacks and tolerances of the fits in turn: in single precision while weights still change.

    Single precision moves no score by more than 0.001 dB and takes half the time; the last fit, from which
    errors are read, is in the precision of the stack.
    """
    count = min(refits, 1) if stack.gaussian else refits
    return [*[(single_precision(stack, weight), EARLY_TOLERANCE)] * count, (stack, LAST_TOLERANCE)]


def _patience(scene):
    """Iterations that a fit may take; those with many parameters that fade away need more."""
    return ITERATIONS + MORE_ITERATIONS * max(0, len(scene.free_index) - COMMON_NUMBER)


def _shown(stack, scene, physical):
    """1 for pixels (B, N) that a fit may use, 0 for those where point-sampled data show the ghost."""
    if stack.shows_ghost and scene.lens_moves:
        return away_from_lens(stack.grid, scene, physical)
    return 1.0
