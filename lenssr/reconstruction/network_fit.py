"""A source that a network has drawn, refined and with errors; and its light beyond its grid."""

from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from scipy.optimize import brentq

from lenssr.imaging.sky import residual_noise
from lenssr.reconstruction import decisions
from lenssr.reconstruction.freeform_fit import (
    AUTO_PRIORS,
    FLOOR_SIGMA,
    dark_brightness,
    noise_excess,
    source_grid,
    steep_light,
)
from lenssr.source import LocalPrior, Prior, Problem, View
from lenssr.source.gauss_newton import solve, weigh
from lenssr.source.priors import log_field

# Least brightness of a node, as a share of the largest: a smaller logarithm would only strain the prior.
DARK_SHARE = 1e-9
# Prior of the errors of a drawing, if none is asked for.
PRIOR = "curvature"
# Tolerance of strengths, as a factor, where no steps follow: little depends on them.
ROUGHLY = 1.5
# Largest size of the extrapolated grid in units of the drawing's, and its largest stretch.
LARGEST_GRID, LARGEST_STRETCH = 2.0, 3.0
# Rings between which the slope at the rim is measured, as shares of its radius.
INNER, OUTER = (0.55, 0.75), (0.8, 1.0)
# Bounds of the power of radius with which brightness falls: finite light, and no cliff.
SLOPES = 2.0, 12.0


class NetworkSourceFit:
    """One image, alone in its stack, whose source a network has drawn: ``values`` (n,) per arcsec2.

    ``fit`` holds the parameters of ``bare``: lens, lens light and sky. ``temperature``, ``excess`` and
    ``modes`` are as of `~lenssr.reconstruction.freeform_fit.FreeFormFit`.
    """

    def __init__(self, stack, bare, fit, grid, values, observation, settings):
        self.stack, self.bare, self.fit = stack, bare, fit
        self.observation, self.settings, self.modes = observation, settings, []
        if stack.kernel is not None:
            grid, values = self._regridded(grid, values)
        else:
            # Sharp images show faint wings, and matrices without a PSF stay cheap.
            grid, values = extrapolate_source(grid, values, self._rays, self._faintest())
        self.grid, self.values = grid, np.maximum(values, DARK_SHARE * values.max())
        self.parameters = bare.to_fit(fit.physical[None])[0].numpy()
        self.light_stack = steep_light(stack, bare, fit.physical[None], settings)
        self._weigh_data()

    @property
    def correlation(self):
        """Factor of variances for correlated noise alone."""
        return self.temperature / self.excess**2

    def run(self):
        """Take the steps, if any, and find the prior of the errors: problem and solution.

        The network has seen these data: a prior around its drawing would count them twice and make errors too
        small. So the steps only start from the drawing, with the most likely of the usual priors and, behind
        a PSF, of one that is strict where the drawing is smooth. Their end is averaged with the drawing, as
        errors of noise and priors are only partly alike in both; not with an unknown lens, which moves with
        the steps away from the one of the drawing.
        """
        problem = self._problem(FLOOR_SIGMA * dark_brightness(self.stack, self.weight))
        field, steps = log_field(self.values, problem.log_floor), self.settings.network.refine
        if not steps:
            name = PRIOR if self.settings.prior == "auto" else self.settings.prior
            return problem, self._weighed(problem, name, field)
        found = self._stepped(problem, field, steps)
        share = 0.0 if problem.scene.lens_moves else self._share(problem, found)
        between = share * field + (1 - share) * found.field
        start = found.prior, found.strength, between, found.parameters
        return problem, solve(problem, *start, adapt=False, max_iterations=0)

    def _weigh_data(self):
        """Set the weights from the drawing, tempered where noise is correlated or larger than its errors."""
        stack = self.stack
        self.temperature, self.weight = 1.0, self.fit.weight.numpy()
        self.offset = np.zeros(len(self.weight))
        model = self._problem(0.0).predict(self.values, self.parameters)
        mean, _, variance = (part[0].numpy() for part in stack.moments(torch.as_tensor(model)[None]))
        weight = np.where(stack.valid[0].numpy(), 1 / np.maximum(variance, np.finfo(float).tiny), 0.0)
        sky = self.bare.sky_of(self.fit.physical)
        noise = residual_noise(self.observation, torch.as_tensor(mean), torch.as_tensor(weight), sky)
        self.excess = noise_excess(self.observation.sky, noise)
        self.temperature = (noise.factor * self.excess) ** 2
        self.weight, self.offset = weight / self.temperature, mean - model

    def _problem(self, floor):
        anchor = self._anchor() if self.bare.lens_moves else None
        scene = self.bare, self.fit.physical, self.fit.constraints
        views = [View(self.stack, self.light_stack, self.weight, self.offset)]
        return Problem(views, *scene, self.grid, anchor, floor=floor)

    def _anchor(self):
        """Weights (R,) of the rays in the position of the source."""
        light = self.grid.matrix(*self._rays) @ self.values
        return light**2 if light.any() else np.ones(len(light))

    @cached_property
    def _rays(self):
        """Positions x, y of the rays in the source plane."""
        operator = self.stack.operator
        rays = self.bare.source_positions(operator.x, operator.y, self.fit.physical[None])
        return tuple(axis[0].numpy() for axis in rays)

    def _regridded(self, grid, values):
        """The drawing on a grid with fewer nodes, for blurred images with their full matrices."""
        light = grid.matrix(*self._rays) @ values
        bright = light > self._faintest()
        if not bright.any():
            return grid, values
        finer = source_grid(*(axis[bright] for axis in self._rays), self.observation)
        rim = grid.half * (1 - 1e-12)
        # The new grid may reach beyond that of the network.
        x, y = finer.nodes
        x, y = np.clip(x, grid.x_0 - rim, grid.x_0 + rim), np.clip(y, grid.y_0 - rim, grid.y_0 + rim)
        return finer, grid.matrix(x, y) @ values

    def _faintest(self):
        """Brightness of the source that dark parts of the image still show."""
        sigma = 1 / np.sqrt(float(self.stack.first_weights.max()))
        return decisions.GRID_EDGE_SIGMA * sigma / (self.stack.grid.pixel_area * self.stack.factor)

    def _stepped(self, problem, field, steps):
        """The most likely solution after a number of steps from the drawing."""
        first, *others = AUTO_PRIORS[::-1] if self.settings.prior == "auto" else (self.settings.prior,)
        begun = self._weighed(problem, first, field)
        options = {"max_iterations": steps, "adapt": False}
        found = [solve(problem, begun.prior, begun.strength, field, self.parameters, **options)]
        priors = [Prior(name, self.grid.side) for name in others]
        if others and self.stack.kernel is not None:
            priors.append(LocalPrior.like(field, self.grid.side))
        for prior in priors:
            strength = found[0].strength_of(prior)
            found.append(solve(problem, prior, strength, field, self.parameters, **options))
        return max(found, key=lambda one: one.evidence)

    def _share(self, problem, found):
        """Share of the drawing in the mean: small where its chi2 exceeds what the nodes may take up."""
        excess = max(0.0, problem.chi2(self.values, self.parameters) - found.chi2)
        sharp = self.stack.kernel is None
        most = decisions.DRAWING_SHARE if sharp else decisions.DRAWING_SHARE_WITH_PSF
        return most / (1 + (excess / (decisions.BETTER_THAN_PARAMETRIC * found.determined)) ** 2)

    def _weighed(self, problem, name, field):
        """The drawing with a prior of the most likely strength."""
        return weigh(problem, Prior(name, self.grid.side), field, self.parameters, settled=ROUGHLY)


# ---------------------------------------------------------------- beyond the grid


def extrapolate_source(grid, values, rays, faintest):
    """Extrapolate a source (n,), positive, beyond its grid: a grid around the same middle, and values there.

    A network draws a source where it stands out of the noise. In dark pixels that count photons an image has
    next to none, and the wings beyond matter. They fall along the lines from the middle as the drawing does
    towards its rim, as far as rays (x, y in arcsec, each (R,)) land on light above ``faintest``.
    """
    middle, logs = _middle(grid, values), np.log(values)
    slope = _slope(grid, values, middle)

    def light(x, y):
        share = _share_inside(grid, middle, x, y)
        rim = (start + share * (axis - start) for axis, start in zip((x, y), middle, strict=True))
        return np.exp(grid.matrix(*rim) @ logs) * share**slope

    bright = light(*rays) > faintest
    ways = (np.abs(axis[bright] - at) for axis, at in zip(rays, (grid.x_0, grid.y_0), strict=True))
    reach = min(max(way.max(initial=0.0) for way in ways), LARGEST_GRID * grid.half)
    if reach <= grid.half:
        return grid, values
    wider = replace(grid, half=reach, stretch=_stretch(grid, reach))
    return wider, light(*wider.nodes)


def _stretch(grid, half):
    """Stretch at which a larger grid with equal nodes has the spacing of this one in its middle."""
    asked = _spacing(grid.stretch) * grid.half / half
    if _spacing(LARGEST_STRETCH) > asked:
        return LARGEST_STRETCH
    return float(brentq(lambda stretch: _spacing(stretch) - asked, grid.stretch, LARGEST_STRETCH))


def _spacing(stretch):
    """Distance of nodes in the middle, over that on an even grid."""
    return stretch / np.sinh(stretch) if stretch else 1.0


def _middle(grid, values):
    """Centre of light, x and y in arcsec."""
    light = values * _areas(grid)
    return tuple(float(light @ axis / light.sum()) for axis in grid.nodes)


def _areas(grid):
    step = np.gradient(grid.offsets)
    return np.outer(step, step).ravel()


def _slope(grid, values, middle):
    """Power of radius with which the mean brightness around the middle falls towards the rim."""
    x, y = grid.nodes
    radius, area = np.hypot(x - middle[0], y - middle[1]), _areas(grid)
    off = max(abs(middle[0] - grid.x_0), abs(middle[1] - grid.y_0))
    rim, ends = max(grid.half - off, 0.2 * grid.half), []
    for low, high in (INNER, OUTER):
        ring = (radius >= low * rim) & (radius < high * rim)
        ends.append([np.log(np.average(each[ring], weights=area[ring])) for each in (values, radius)])
    (inside, near), (outside, far) = ends
    return float(np.clip((inside - outside) / (far - near), *SLOPES))


def _share_inside(grid, middle, x, y):
    """The share of the way from the middle to each point that lies on the grid, at most 1."""
    share = np.ones(len(x))
    for axis, start, centre in zip((x, y), middle, (grid.x_0, grid.y_0), strict=True):
        way = axis - start
        end = np.where(way > 0, centre + grid.half, centre - grid.half) - start
        ratio = np.divide(end, way, out=np.full(len(x), np.inf), where=np.abs(way) > 1e-12 * grid.half)
        share = np.minimum(share, ratio)
    return share * (1 - 1e-9)  # on the rim is on the grid, but for rounding
