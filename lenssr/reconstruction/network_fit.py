"""From a source that a network has drawn to the result of one image."""

from dataclasses import replace
from functools import cached_property

import numpy as np
import torch

from lenssr.imaging.sky import measure_sky
from lenssr.reconstruction.assemble import noise_of_sky
from lenssr.reconstruction.fine_freeform import FineSource
from lenssr.reconstruction.freeform import as_fit, judged
from lenssr.reconstruction.freeform_fit import (
    AUTO_PRIORS,
    EDGE_SIGMA,
    FLOOR_SIGMA,
    MISFIT,
    doubt_of,
    source_grid,
)
from lenssr.reconstruction.wings import with_wings
from lenssr.source import LocalPrior, Prior, Problem
from lenssr.source.gauss_newton import log_field, solve, weigh

__all__ = ["Drawing"]

# Brightness below this share of the largest is none: its logarithm would only strain the prior.
FAINTEST = 1e-9
# What errors of a drawing are taken to be like.
PRIOR = "curvature"
# Of the drawing in the mean of its logarithm and that of the source after the steps; scores of lenses of
# galaxies behind a PSF and of Sérsics without one, clean and noisy, hardly depend on it, by 0.1 either way.
SHARE, SHARE_WITH_PSF = 0.4, 0.3
# How well their strengths are to be known: little depends on them.
ROUGHLY = 1.5


class Drawing:
    """One image whose source a network has drawn.

    Parameters
    ----------
    stack : `~lenssr.model.image_stack.ImageStack`
        Holding the one image.
    bare : `~lenssr.model.scene.Scene`
        Lens, lens light and sky.
    fit : `~lenssr.model.fit.SceneFit`
        Their parameters, and what else is known of them.
    grid : `~lenssr.source.SourceGrid`
        Of the source.
    values : `~numpy.ndarray`, shape (n,)
        Its brightness at the nodes, per arcsec2.
    observation : `~lenssr.imaging.Observation`
    settings : `~lenssr.options.Settings`

    Attributes
    ----------
    temper, doubt, rivals
        As of `~lenssr.reconstruction.freeform_fit.Inversion`.
    """

    def __init__(self, stack, bare, fit, grid, values, observation, settings):
        self.stack, self.bare, self.fit = stack, bare, fit
        self.observation, self.settings, self.rivals = observation, settings, []
        if stack.kernel is not None:
            grid, values = self._regridded(grid, values)
        else:
            # Sharp images show its wings, which cost little here.
            grid, values = with_wings(grid, values, self._rays, self._faintest())
        self.grid, self.values = grid, np.maximum(values, FAINTEST * values.max())
        self.parameters = bare.to_fit(fit.physical[None])[0].numpy()
        self.light_stack = stack
        if settings.oversampling == "auto" and bare.of_role("lens_light"):
            physical = fit.physical[None]
            self.light_stack = stack.select([0], refine=lambda x, y: bare.brightness(x, y, physical)[0])
        self._see()

    def _see(self):
        """Weights as what was drawn has them, tempered where noise is correlated or beyond its errors."""
        stack = self.stack
        self.temper, self.weight, self.offset = 1.0, self.fit.weight.numpy(), np.zeros(len(self.fit.weight))
        model = self._problem(0.0).predict(self.values, self.parameters)
        mean, _, variance = (part[0].numpy() for part in stack.moments(torch.as_tensor(model)[None]))
        weight = np.where(stack.valid[0].numpy(), 1 / np.maximum(variance, np.finfo(float).tiny), 0.0)
        around = replace(self.fit, model=torch.as_tensor(mean), weight=torch.as_tensor(weight))
        noise = noise_of_sky(self.bare, around, self.observation)
        self.doubt = doubt_of(measure_sky(self.observation), noise)
        self.temper = (noise.factor * self.doubt) ** 2
        self.weight, self.offset = weight / self.temper, mean - model

    def _problem(self, floor):
        stack, bare = self.stack, self.bare
        anchor = self._anchor() if bare.lens_moves else None
        planes = self.weight, self.offset, anchor
        return Problem(
            stack, self.light_stack, bare, self.fit.physical, self.fit.terms, self.grid, *planes, floor=floor
        )

    def _anchor(self):
        """How much each ray says where the source lies, (R,)."""
        light = self.grid.matrix(*self._rays) @ self.values
        return light**2 if light.any() else np.ones(len(light))

    @cached_property
    def _rays(self):
        """Where the rays land, x and y."""
        operator = self.stack.operator
        rays = self.bare.source_positions(operator.x, operator.y, self.fit.physical[None])
        return tuple(axis[0].numpy() for axis in rays)

    def _regridded(self, grid, values):
        """The drawing on a grid for blurred images, where matrices are full: fewer nodes, no farther out."""
        light = grid.matrix(*self._rays) @ values
        bright = light > self._faintest()
        if not bright.any():
            return grid, values
        places = [axis[bright] for axis in self._rays]
        finer = source_grid(*places, self.observation)
        rim = grid.half * (1 - 1e-12)
        # Beyond the grid of the network there is nothing.
        x, y = (
            np.clip(axis, at - rim, at + rim)
            for axis, at in zip(finer.nodes, (grid.x_0, grid.y_0), strict=True)
        )
        return finer, grid.matrix(x, y) @ values

    def _faintest(self):
        """Brightness that the image still shows, where it is dark."""
        sigma = 1 / np.sqrt(float(self.stack.first_weights.max()))
        return EDGE_SIGMA * sigma / (self.stack.grid.pixel_area * self.stack.factor)

    def result(self):
        """The result, after as many Gauss-Newton steps as the settings ask for.

        Returns
        -------
        result : `~lenssr.SuperResolution`
        """
        problem, solution = self.invert()
        bare, observation, settings = problem.scene, self.observation, self.settings
        found = replace(as_fit(problem, bare, self.fit, solution, self.stack, self), converged=True)
        known = np.sqrt(self.temper) / self.doubt

        def products(now):
            # Draws are around what was drawn, which is not the middle of what the data allow.
            off = solution.next_step
            return FineSource(problem, solution, observation, settings, now / known, off).products()

        return judged(problem, solution, found, observation, settings, products)

    def invert(self):
        """Take the steps, or none, and find the prior that errors follow from.

        A prior around what was drawn would have the data change nothing and make errors too small, for the
        network has seen these data. So the steps know of the drawing where they begin, and how rough it is
        where: theirs is the likeliest of the usual priors and, behind a PSF, one that is strict where the
        drawing is smooth. What they find is averaged with the drawing: noise and priors have misled the two
        in ways that are only partly alike. With an unknown lens, which moves with the steps, the drawing is
        one for another lens and no more than the beginning.

        Returns
        -------
        problem : `~lenssr.source.Problem`
        solution : `~lenssr.source.Solution`
        """
        problem = self._problem(self._floor())
        field, steps = log_field(self.values, problem.log_floor), self.settings.network.refine
        if not steps:
            name = PRIOR if self.settings.prior == "auto" else self.settings.prior
            return problem, self._weighed(problem, name, field)
        found = self._stepped(problem, field, steps)
        share = 0.0 if problem.scene.lens_moves else self._share(problem, found)
        between = share * field + (1 - share) * found.field
        start = found.prior, found.strength, between, found.parameters
        return problem, solve(problem, *start, adapt=False, max_iterations=0)

    def _stepped(self, problem, field, steps):
        """The likelier solution after so many steps from the drawing."""
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
        """Of the drawing in the mean: next to none where it explains the data much worse than what was found.

        That is, by more than the noise which so many determined nodes may follow.
        """
        excess = max(0.0, problem.chi2(self.values, self.parameters) - found.chi2)
        most = SHARE if self.stack.kernel is None else SHARE_WITH_PSF
        return most / (1 + (excess / (MISFIT * found.determined)) ** 2)

    def _weighed(self, problem, name, field):
        """The drawing, with as strong a prior as data and drawing ask for."""
        return weigh(problem, Prior(name, self.grid.side), field, self.parameters, settled=ROUGHLY)

    def _floor(self):
        """Brightness below which the source fades to nothing, from the noise where the image is dark."""
        largest = np.quantile(self.weight[self.weight > 0], 0.9)
        return FLOOR_SIGMA / (np.sqrt(largest) * self.stack.grid.pixel_area * self.stack.factor)
