"""From a source that a network has drawn to the result of one image."""

from dataclasses import replace

import numpy as np
import torch

from lenssr.imaging.correlation import measure_sky
from lenssr.inversion import Prior, Problem
from lenssr.inversion.solve import log_field, solve, weigh
from lenssr.reconstruction.assemble import assemble, noise_of_sky
from lenssr.reconstruction.freeform import FineSource
from lenssr.reconstruction.levels import AUTO_PRIORS, FLOOR_SIGMA, doubt_of
from lenssr.reconstruction.measures import measure_source
from lenssr.reconstruction.pixelated import as_fit
from lenssr.reconstruction.verdict import is_ok, judge

__all__ = ["Drawing"]

# Brightness below this share of the largest is none: its logarithm would only strain the prior.
FAINTEST = 1e-9
# How well the strength of a prior is to be known from which only errors follow.
ROUGHLY = 1.5


class Drawing:
    """One image whose source a network has drawn.

    Parameters
    ----------
    stack : `~lenssr.fitting.stack.ImageStack`
        Holding the one image.
    bare : `~lenssr.fitting.scene.Scene`
        Lens, lens light and sky.
    fit : `~lenssr.fitting.lens.SceneFit`
        Their parameters, and what else is known of them.
    grid : `~lenssr.inversion.SourceGrid`
        Of the source.
    values : `~numpy.ndarray`, shape (n,)
        Its brightness at the nodes, per arcsec2.
    observation : `~lenssr.imaging.Observation`
    settings : `~lenssr.settings.Settings`

    Attributes
    ----------
    temper, doubt, rivals
        As of `~lenssr.reconstruction.levels.Inversion`.
    """

    def __init__(self, stack, bare, fit, grid, values, observation, settings):
        self.stack, self.bare, self.fit, self.grid = stack, bare, fit, grid
        self.observation, self.settings, self.rivals = observation, settings, []
        self.values = np.maximum(values, FAINTEST * values.max())
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
        operator = self.stack.operator
        x, y = (
            axis[0].numpy()
            for axis in self.bare.source_positions(operator.x, operator.y, self.fit.physical[None])
        )
        light = self.grid.matrix(x, y) @ self.values
        return light**2 if light.any() else np.ones(len(light))

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

        result = assemble(bare, found, observation, settings, products)
        measures = measure_source(problem, solution, found, noise_of_sky(bare, found, observation))
        result.meta["measures"] |= measures
        result.flags = judge(measures, result.flags)
        result.ok = is_ok(result.flags)
        result.meta |= {
            "prior": solution.prior.name,
            "strength": solution.strength,
            "determined": solution.determined,
        }
        if settings.network.refine:
            result.meta["evidence"] = solution.evidence
        return result

    def invert(self):
        """Find the likeliest prior, and take the steps.

        Returns
        -------
        problem : `~lenssr.inversion.Problem`
        solution : `~lenssr.inversion.Solution`
        """
        problem = self._problem(self._floor())
        field = log_field(self.values, problem.log_floor)
        steps = self.settings.network.refine
        if not steps:
            # Only errors follow from it, and these feel little of the prior.
            name = AUTO_PRIORS[0] if self.settings.prior == "auto" else self.settings.prior
            prior = Prior(name, self.grid.side)
            return problem, weigh(problem, prior, field, self.parameters, settled=ROUGHLY)
        names = AUTO_PRIORS if self.settings.prior == "auto" else (self.settings.prior,)
        found = []
        for name in names:
            prior = Prior(name, self.grid.side)
            strength = weigh(problem, prior, field, self.parameters).strength
            options = {"max_iterations": steps}
            found.append(solve(problem, prior, strength, field, self.parameters, **options))
        return problem, max(found, key=lambda one: one.evidence)

    def _floor(self):
        """Brightness below which the source fades to nothing, from the noise where the image is dark."""
        largest = np.quantile(self.weight[self.weight > 0], 0.9)
        return FLOOR_SIGMA / (np.sqrt(largest) * self.stack.grid.pixel_area * self.stack.factor)
