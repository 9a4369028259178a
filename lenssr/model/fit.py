"""The fit of scenes to all pixels: its bounds and priors, and a `Fit` where it ends."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lenssr.grids import PixelGrid
from lenssr.light.profile import FAINTEST
from lenssr.model.image_stack import ImageStack
from lenssr.model.initial_guess import light_start, source_start, without_light
from lenssr.model.least_squares import levenberg_marquardt, parts_of
from lenssr.model.scene import SLOPE, Block, Scene

COARSE_SIDE = 25  # pixels along the side of a binned image
COARSE_PIXEL = 0.15  # arcsec; coarser pixels cannot tell the smallest rings apart
# Number of fits with weights from the last model, for a start from afar and for one that is nearly right.
WEIGHT_REFITS, NEAR_REFITS = 3, 1
# Gain in chi2 per step below which a fit has converged: one that another fit follows, and the last.
EARLY_TOLERANCE = 0.03
LAST_TOLERANCE = 1e-3
# Iterations of a fit, and the additional ones for each parameter beyond COMMON_NUMBER.
ITERATIONS, MORE_ITERATIONS, COMMON_NUMBER = 60, 4, 22
# Iterations without a gain after which a fit of two sources has ended: where one deflects the other, rays
# cross its centre one by one, so that chi2 has small steps and its derivatives promise more than there is.
IDLE = 4
# Fits with rays placed anew, and the change of a pixel, in sigma, below which the rays are good enough.
POLISHES = 2
POLISH_SIGMA = 0.05
# Share of the light of a lens galaxy that a first, coarse model may miss.
GALAXY_ERROR = 0.1
# Chi2 by which a lens on a bound has to be better than another one: 5 sigma.
BOUND_COST = 25.0
# Radius in pixels of the mask where point-sampled data show the source at the centre of a moving lens.
GHOST_PIXELS = 1.4
# Standard deviations of the priors on an unknown lens: wide against what arcs of any quality say, narrow
# enough that a lens which only mimics the halo of its galaxy does not win. Ellipticities of lens galaxies
# scatter by 0.1-0.2 (Bolton et al. 2008, ApJ 682, 964), external shears by 0.05 (Keeton et al. 1997,
# ApJ 482, 604).
LENS_PRIORS = {"e1": 0.2, "e2": 0.2, "gamma1": 0.1, "gamma2": 0.1, "x_0": 0.1, "y_0": 0.1}
# The same of each coordinate of the centre of a trial lens, in arcsec, around the light of its galaxy, where
# real lenses that are right lie within 0.07. Chosen. A lens in front of a Sérsic makes up for more.
CENTRE_WIDTH = 0.05
# Mean and standard deviation of the prior on the slope of an unknown lens: those of lens galaxies scatter by
# 0.16 (Auger et al. 2010, ApJ 724, 511).
SLOPE_PRIOR = 2.08, 0.2
# Width of the prior of an Einstein radius that is expected, as a share of it.
EXPECTED_WIDTH = 0.2
# Largest change of shapes and centres (arcsec) while the Einstein radius is still being found.
NARROW = {"e1": 0.25, "e2": 0.25, "gamma1": 0.1, "gamma2": 0.1, "x_0": 0.1, "y_0": 0.1}


# ---------------------------------------------------------------- bounds and priors


@dataclass(frozen=True)
class Constraints:
    """Bounds ``lower``, ``upper`` and Gaussian priors on the physical vectors of a batch, each (B, P).

    An inverse variance ``stiffness`` of 0 means that there is no prior. Where a scene fits the logarithm of a
    parameter, ``mean`` and ``stiffness`` are those of the logarithm.
    """

    lower: Tensor
    upper: Tensor
    mean: Tensor
    stiffness: Tensor

    @classmethod
    def of(cls, scene: Scene, count: int) -> "Constraints":
        """The bounds of a scene, and the priors that come with its lens."""
        lower, upper = scene.bounds(count)
        mean, stiffness = torch.zeros_like(lower), torch.zeros_like(lower)
        for column, (value, sigma) in scene.priors.items():
            mean[:, column], stiffness[:, column] = value, sigma**-2
        return cls(lower, upper, mean, stiffness)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Constraints":
        return Constraints(*(change(part) for part in vars(self).values()))

    def on(self, device: torch.device | str) -> "Constraints":
        """Return the constraints on a device."""
        return self._each(lambda part: part.to(device))

    def select(self, index: list[int] | Tensor) -> "Constraints":
        """Constraints of some problems of the batch."""
        return self._each(lambda part: part[index])

    def without(self, scene: Scene, role: str) -> "Constraints":
        """Constraints of ``scene.without(role)``."""
        kept = scene.keep(role)
        return self._each(lambda part: part[:, kept])

    def with_light_priors(self, scene: Scene, physical: Tensor) -> "Constraints":
        """Constraints with the priors that the profiles of the lens light ask for, around a start (B, P)."""
        mean, stiffness = self.mean.clone(), self.stiffness.clone()
        start = torch.where(scene.log, physical.clamp_min(FAINTEST).log(), physical)
        for block in scene.lights:
            sigma = torch.tensor(block.profile.prior, dtype=mean.dtype, device=mean.device)
            mean[:, block.slice] = torch.where(sigma.isfinite(), start[:, block.slice], mean[:, block.slice])
            stiffness[:, block.slice] = sigma**-2
        return replace(self, mean=mean, stiffness=stiffness)

    def centred_on(self, scene: Scene, centres: Tensor, reach: float) -> "Constraints":
        """Constraints of an unknown lens: within ``reach`` arcsec of a centre (B, 2), with weak priors."""
        lower, upper, mean, stiffness = (part.clone() for part in vars(self).values())
        columns = scene.lens_centre_columns
        lower[:, columns], upper[:, columns], mean[:, columns] = centres - reach, centres + reach, centres
        shapes = [(source, source.profile.shape_priors) for source in scene.sources]
        for block, priors in [(scene["lens"], LENS_PRIORS), *shapes]:
            sigma = _by_column(scene, block, priors)
            stiffness = torch.where(sigma.isfinite(), sigma**-2, stiffness)
        if scene.lights and not scene.follows_light:
            stiffness[:, columns] = 0.0
        if scene.theta_E is not None:
            mean[:, scene.radius], stiffness[:, scene.radius] = (
                scene.theta_E,
                (EXPECTED_WIDTH * scene.theta_E) ** -2,
            )
        return Constraints(lower, upper, mean, stiffness)

    def kept_to_light(self, scene: Scene) -> "Constraints":
        """Constraints with a narrower prior on the centre of a lens whose light is fitted."""
        stiffness = self.stiffness.clone()
        if scene.lights and scene.follows_light:
            stiffness[:, scene.lens_centre_columns] = CENTRE_WIDTH**-2
        return replace(self, stiffness=stiffness)

    def with_slope_prior(self, scene: Scene) -> "Constraints":
        """Constraints with the prior on the slope of an unknown lens."""
        mean, stiffness = self.mean.clone(), self.stiffness.clone()
        columns = scene["lens"].columns(SLOPE)
        mean[:, columns], stiffness[:, columns] = SLOPE_PRIOR[0], SLOPE_PRIOR[1] ** -2
        return replace(self, mean=mean, stiffness=stiffness)

    def narrowed(self, scene: Scene, start: Tensor) -> "Constraints":
        """Constraints that keep a lens near its start (B, P), away from distant modes."""
        reach = _by_column(scene, scene["lens"], NARROW)
        lower, upper = torch.maximum(self.lower, start - reach), torch.minimum(self.upper, start + reach)
        return replace(self, lower=lower, upper=upper)

    def trust_region(self, scene: Scene, start: Tensor, radius: tuple[float, float]) -> "Constraints":
        """Constraints that keep an unknown lens near a fit (1, P).

        ``radius`` holds the share by which the Einstein radius may change, and the width of its prior.
        """
        near, columns = self.narrowed(scene, start), scene["lens"].columns("theta_E")
        parts = near.lower, near.upper, near.mean, near.stiffness
        lower, upper, mean, stiffness = (part.clone() for part in parts)
        lower[:, columns] = torch.maximum(lower, start * (1 - radius[0]))[:, columns]
        upper[:, columns] = torch.minimum(upper, start * (1 + radius[0]))[:, columns]
        mean[:, columns] = start[:, columns]
        stiffness[:, columns] = (radius[1] * start[:, columns]) ** -2
        return Constraints(lower, upper, mean, stiffness)

    def tied_to_lens(self, scene: Scene, start: Tensor, width: float) -> "Constraints":
        """Constraints that hardly let the lens of a fit leave its start (1, P).

        ``width`` is that of the prior of its parameters, of lengths over the Einstein radius.
        """
        mean, stiffness, lens = self.mean.clone(), self.stiffness.clone(), scene["lens"].slice
        lengths = [*scene["lens"].columns("theta_E"), *scene.lens_centre_columns]
        widths = torch.full_like(stiffness, width)
        widths[:, lengths] *= start[:, scene["lens"].columns("theta_E")]
        mean[:, lens], stiffness[:, lens] = start[:, lens], widths[:, lens] ** -2
        return replace(self, mean=mean, stiffness=stiffness)

    def binding(self, scene: Scene, place: Tensor, within: "Constraints") -> Tensor:
        """Whether (B,) a lens that ends at ``place`` (B, P) is on a bound that `narrowed` has set."""
        columns = _by_column(scene, scene["lens"], NARROW).isfinite()
        below = (place <= self.lower) & (self.lower > within.lower)
        above = (place >= self.upper) & (self.upper < within.upper)
        return (below | above)[:, columns].any(dim=1)

    def widened(self, scene: Scene, place: Tensor, within: "Constraints") -> "Constraints":
        """Constraints that let a lens as far from another place (B, P) as `narrowed` does from its start."""
        columns = _by_column(scene, scene["lens"], NARROW).isfinite()
        near = within.narrowed(scene, place)
        lower = torch.where(columns, torch.minimum(self.lower, near.lower), self.lower)
        upper = torch.where(columns, torch.maximum(self.upper, near.upper), self.upper)
        return replace(self, lower=lower, upper=upper)


def _by_column(scene: Scene, block: Block | None, table: dict[str, float]) -> Tensor:
    """Entries (P,) of a table for the free parameters of a block that it names; infinite elsewhere."""
    entries = torch.full_like(scene.lower, torch.inf)
    if block is not None:
        for name, entry in table.items():
            entries[block.columns(name)] = entry
    return torch.where(scene.free, entries, torch.inf)


# ---------------------------------------------------------------- where a fit ends


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Where the fit of one image ended, with P parameters and N pixels.

    ``physical`` (P,) are the parameters of the scene, ``covariance`` (P, P) theirs for independent noise,
    zero where fixed or on a bound; ``at_bound`` are the columns that ended on a bound. ``model`` and
    ``lensed_source`` (N,) are the expected data and the source's part of them; ``weight`` (N,) is the inverse
    variance that was used, 0 on masked pixels; ``leverage`` (N,), where it is known, is the diagonal of the
    hat matrix. ``modes`` are other lenses that the data allow: excess of chi2, or of -2 ln(evidence), and
    their parameters (P,). ``lens_from`` is the method that found an unknown lens: "search", "network" or
    "pixelated". ``look`` is where a short free-form fit from here ended, a
    `~lenssr.reconstruction.freeform_fit.CoarseFit`, if there was one.
    """

    physical: Tensor
    covariance: Tensor
    chi2: float
    model: Tensor
    lensed_source: Tensor
    weight: Tensor
    converged: bool
    at_bound: tuple[int, ...]
    iterations: int
    constraints: Constraints
    modes: tuple[tuple[float, Tensor], ...] = ()
    lens_from: str = "search"
    leverage: Tensor | None = None
    look: Any = None

    @property
    def used(self) -> int:
        """Number of pixels that were fitted."""
        return int((self.weight > 0).sum())

    def on(self, device: torch.device | str) -> "Fit":
        """The fit with its tensors on a device."""
        moved: dict[str, Any] = {
            name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        moved["modes"] = tuple((excess, place.to(device)) for excess, place in self.modes)
        return replace(self, **moved, constraints=self.constraints.on(device))

    def without(self, scene: Scene, role: str) -> "Fit":
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


# ---------------------------------------------------------------- the fits


def fit_known_lens(stack: ImageStack, scene: Scene, lens_vectors: Tensor) -> list[Fit]:
    """Fit the light of scenes behind given lenses (B, L), or refine the lens from where it is given."""
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


def fit_from(stack, scene, physical, constraints, refits=WEIGHT_REFITS, *, tolerance=1.0):
    """Fit all pixels from a start (B, P); groups of Gaussians twice, and the better fit is kept.

    Which group takes which light is decided early, when lens and source are still far off: two groups may end
    as a core and its halo, or in the middle of either, tens of chi2 worse. The second fit begins where both
    share what the first one found.
    """
    fits = refine(stack, scene, physical, constraints, refits, tolerance=tolerance)
    shared = scene.with_groups_shared(torch.stack([fit.physical for fit in fits]))
    if shared is None:
        return fits
    others = refine(stack, scene, shared, constraints, tolerance=tolerance)
    return [min(pair, key=lambda fit: cost(scene, fit)) for pair in zip(fits, others, strict=True)]


def cost(scene: Scene, fit: Fit) -> float:
    """Chi2, plus `BOUND_COST` where the lens ended on a bound, which is not an optimum."""
    return fit.chi2 + BOUND_COST * lens_ends_at_bound(scene, fit)


def lens_ends_at_bound(scene: Scene, fit: Fit) -> bool:
    """Whether a parameter of the lens ended on a bound."""
    lens = scene["lens"]
    return lens is not None and any(lens.start <= k < lens.stop for k in fit.at_bound)


def polish(stack: ImageStack, scene: Scene, number: int, fit: Fit, *, brief: bool = False) -> Fit:
    """Fit image ``number`` once more with rays where the fitted scene is steep, if that changes the image.

    A ``brief`` polish is one fit with the last noise, and takes half the time; by default there may be a
    second one, and the noise is found anew.
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


def early_fit(stack: ImageStack, scene: Scene, physical: Tensor, constraints: Constraints) -> Tensor:
    """Fit all pixels once, with the first weights: enough for a start (B, P) of a richer scene."""
    weight = stack.first_weights * _shown(stack, scene, physical)
    where, tolerance = _passes(stack, weight)[0]
    options = {"max_iterations": _patience(scene), "tolerance": tolerance}
    fit = levenberg_marquardt(**system(where, scene, physical, weight, constraints), **options)
    return scene.to_physical(fit.parameters, physical)


def system(
    stack: ImageStack, scene: Scene, physical: Tensor, weight: Tensor, constraints: Constraints
) -> dict[str, Any]:
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


def softened(weight: Tensor, stack: ImageStack, scene: Scene, template: Tensor) -> Tensor:
    """Weights (B, N) that allow for a galaxy that is not quite a Sérsic, and coarse pixels on its cusp."""
    if not scene.lights:
        return weight
    smooth = stack.image(scene, template, roles=("lens_light",))
    return weight / (1 + weight * (GALAXY_ERROR * smooth) ** 2)


def bin_factor(grid: PixelGrid) -> int:
    """Number of pixels along an axis that are binned into one."""
    side = min(grid.shape)
    factor = max(1, side // COARSE_SIDE)
    finest = max(1, round(COARSE_PIXEL / grid.pixel_scale))
    # A field of many hundred pixels would stay expensive at the finest coarse pixel.
    return min(factor, max(finest, side // (4 * COARSE_SIDE)))


def single_precision(stack: ImageStack, weight: Tensor) -> ImageStack:
    """The stack with sparser rays in single precision, or in double where units leave the range of that."""
    used = weight[weight > 0]
    safe = used.numel() > 0 and float(used.max()) < 1e24 and float(used.min()) > 1e-24
    return stack.sparser().single() if safe else stack.sparser()


def away_from_lens(grid: PixelGrid, scene: Scene, physical: Tensor) -> Tensor:
    """1 where a pixel (B, N) lies farther from the lens than its own diagonal, 0 elsewhere."""
    x, y = (torch.as_tensor(c.ravel()).to(physical) for c in (grid.x, grid.y))
    centre = scene.lens_centre(physical)
    return (torch.hypot(x - centre[:, :1], y - centre[:, 1:]) > GHOST_PIXELS * grid.pixel_scale).double()


def refine(stack, scene, physical, constraints, refits=WEIGHT_REFITS, *, tolerance=1.0, patience=None):
    """Fit all pixels, weights frozen and found anew, and collect the `Fit` of every image.

    With fewer ``refits`` than usual the start is near enough for the noise to be as it is there.
    ``tolerance`` multiplies the gains in chi2 below which a fit has converged: the reduced chi2 of a model
    that does not explain its pixels is the unit of its parameters' variances. ``patience`` is the largest
    number of iterations of a fit; by default more, the more parameters are free.
    """
    patience = _patience(scene) if patience is None else patience
    shown = _shown(stack, scene, physical)
    weight = stack.first_weights * shown
    iterations = torch.zeros(len(stack), dtype=torch.long, device=stack.device)
    near = refits < WEIGHT_REFITS
    for number, (where, gain) in enumerate(_passes(stack, weight, refits)):
        if (number or near) and not stack.gaussian:
            weight = stack.weights(stack.image(scene, physical)) * shown
        # The end of a step below the tolerance is not evaluated.
        options = {"max_iterations": patience, "tolerance": tolerance * gain, "look": False}
        options["patience"] = IDLE if scene.tied[0] else None
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
    """Largest number of iterations; faint components with many parameters need more."""
    return ITERATIONS + MORE_ITERATIONS * max(0, len(scene.free_index) - COMMON_NUMBER)


def _shown(stack, scene, physical):
    """1 for pixels (B, N) that a fit may use, 0 for those where point-sampled data show the ghost."""
    if stack.shows_ghost and scene.lens_moves:
        return away_from_lens(stack.grid, scene, physical)
    return 1.0


def joint_covariance(stack, scene, fit, lens):
    """Covariance of everything: that of the lens (L, L) is given, and what shines follows it.

    With the curvature F of chi2, the best light moves by -F_ss^-1 F_sl with the lens.
    """
    physical = fit.physical[None]
    found = stack.model(scene, physical)(scene.to_fit(physical), torch.tensor([0]))
    parts = ((slopes[0], fit.weight[pixels]) for pixels, _, slopes in parts_of(found))
    curvature = sum(((slopes * weight) @ slopes.T).double() for slopes, weight in parts)
    slope = torch.where(scene.log, fit.physical, torch.ones_like(fit.physical))[scene.free]
    light = fit.covariance[scene.free][:, scene.free] / slope[:, None] / slope[None, :]
    count = len(lens)
    follow = torch.cat([torch.eye(count).to(lens), -(light @ curvature)[count:, :count]])
    covariance = follow @ lens @ follow.T
    covariance[count:, count:] += light[count:, count:]
    return scene.physical_covariance(covariance[None], physical)[0]
