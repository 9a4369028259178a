"""The free-form source: what the arcs themselves say of the galaxy, with a prior on its roughness only."""

from dataclasses import replace

import numpy as np
import torch

from lenssr.fitting.terms import Terms
from lenssr.inversion import Prior, Problem, SourceGrid, maximise_evidence, solve
from lenssr.light.sersic import sersic_brightness
from lenssr.reconstruction.assemble import assemble
from lenssr.reconstruction.freeform import FineSource
from lenssr.reconstruction.sersic import CENTRE_BOUND, SersicReconstruction

__all__ = ["PixelatedReconstruction"]

# Which priors compete; the evidence chooses.
PRIOR_NAMES = ("curvature", "laplacian3")
SIDE, SIDE_WITH_PSF = 60, 40
# The source grid holds every ray on which the parametric source shines this much, in sigma of a pixel.
EDGE_SIGMA = 0.5
FLOOR = 1e-3  # of the peak, below which the parametric source is no guide
WEIGHT_REFITS = 2


class PixelatedReconstruction:
    """Solve images with a source that is free on a grid, starting from their Sérsic fits.

    Parameters
    ----------
    settings : `~lenssr.resolver.Settings`
    """

    def __init__(self, settings):
        # Banded matrices are factored on the CPU, so everything stays there.
        self.settings = replace(settings, device="cpu")
        self.parametric = SersicReconstruction(self.settings)

    def parts(self, members):
        """Cut a list of (number, observation) into pieces: the starts are found together."""
        return self.parametric.parts(members)

    def solve(self, observations):
        """Reconstruct a group.

        Parameters
        ----------
        observations : list of `~lenssr.imaging.Observation`
            Of one shape, pixel scale, PSF and kind of unit.

        Returns
        -------
        results : list of `~lenssr.SuperResolution`
        """
        stack, scene, fits = self.parametric.fit(observations)
        return [
            self._solve_one(stack.select([i]), scene, fit, observation)
            for i, (fit, observation) in enumerate(zip(fits, observations, strict=True))
        ]

    def _solve_one(self, stack, scene, fit, observation):
        bare = self.parametric.scene(observation, stack.device, source=0)
        start = _Start(stack, scene, bare, fit, self.settings)
        problem, solution = start.invert()
        found = _as_fit(problem, bare, fit, solution, stack)
        settings = self.settings

        def products(widening):
            fine = FineSource(problem, solution, observation, settings, widening)
            return fine.products()

        result = assemble(bare, found, observation, settings, products)
        result.meta |= {
            "prior": start.prior.name,
            "strength": solution.strength,
            "evidence": solution.evidence,
        }
        return result


class _Start:
    """Where the inversion of one image begins, and the way from there to its end."""

    def __init__(self, stack, scene, bare, fit, settings):
        self.stack, self.bare, self.fit, self.settings = stack, bare, fit, settings
        source = scene.of_role("source")[0]
        keep = torch.ones(scene.size, dtype=torch.bool)
        keep[source.slice] = False
        self.physical = fit.physical[keep]
        self.grid = self._place_grid(scene)
        nodes = (torch.as_tensor(axis) for axis in self.grid.nodes)
        columns = fit.physical[source.slice].reshape(1, 7, 1).unbind(1)
        sersic = sersic_brightness(*nodes, *columns)[0].numpy()
        self.log_source = np.log(np.maximum(sersic, FLOOR * sersic.max()))
        self.light_stack = stack
        if settings.oversampling == "auto" and bare.of_role("lens_light"):
            physical = self.physical[None]
            self.light_stack = stack.select([0], refine=lambda x, y: bare.brightness(x, y, physical)[0])
        self.prior = None

    def _place_grid(self, scene):
        operator = self.stack.operator
        x, y = (
            axis[0].numpy()
            for axis in scene.source_positions(operator.x, operator.y, self.fit.physical[None])
        )
        column, row = (
            np.rint(place).astype(int)
            for place in self.stack.grid.to_pixel(operator.x.numpy(), operator.y.numpy())
        )
        bright = (self.fit.lensed_source * self.fit.weight.sqrt()).numpy() > EDGE_SIGMA
        bright = bright.reshape(self.stack.grid.shape)[row, column]
        if not bright.any():
            bright[:] = True
        return SourceGrid.around(x[bright], y[bright], SIDE if self.stack.kernel is None else SIDE_WITH_PSF)

    def _problem(self, scene, physical, weight, offset):
        terms = Terms.of(scene, 1)
        if self.settings.lens is None and scene.lens_moves:
            terms = terms.near(scene, physical[None, scene.lens_centre_columns] * 0, CENTRE_BOUND)
        mean = float(self.log_source.mean())
        return Problem(self.stack, self.light_stack, scene, physical, terms, self.grid, weight, offset, mean)

    def invert(self):
        """Prior and strength with the lens held, then everything together, the noise weights refitted."""
        weight, offset = self.fit.weight.numpy(), self._offset(self.fit.model)
        held = _with_lens_held(self.bare)
        problem = self._problem(held, self.physical, weight, offset)
        parameters = held.to_fit(self.physical[None])[0].numpy()
        tries = [
            (prior, maximise_evidence(problem, prior, self.log_source, parameters))
            for prior in (Prior(name, self.grid.side) for name in PRIOR_NAMES)
        ]
        self.prior, solution = max(tries, key=lambda pair: pair[1].evidence)
        physical = problem.physical(solution.parameters)[0]
        if self.bare.lens_moves:
            problem, solution = self._free_the_lens(physical, solution, weight, offset)
        for _ in range(0 if self.stack.gaussian else WEIGHT_REFITS):
            problem, solution = self._reweigh(problem, solution)
        return problem, solution

    def _free_the_lens(self, physical, solution, weight, offset):
        problem = self._problem(self.bare, physical, weight, offset)
        parameters = self.bare.to_fit(physical[None])[0].numpy()
        solution = solve(problem, self.prior, solution.strength, solution.log_source, parameters)
        return problem, solution

    def _reweigh(self, problem, solution):
        model = problem.linearise(np.exp(solution.log_source), solution.parameters)[0]
        mean, _, variance = (
            part[0].numpy() for part in self.stack.moments(torch.as_tensor(model)[None], torch.tensor([0]))
        )
        weight = np.where(problem.weight > 0, 1 / np.maximum(variance, np.finfo(float).tiny), 0.0)
        physical = problem.physical(solution.parameters)[0]
        problem = self._problem(problem.scene, physical, weight, mean - model)
        return problem, solve(
            problem, self.prior, solution.strength, solution.log_source, solution.parameters
        )

    def _offset(self, model):
        """By how much the noise shifts the expected data; zero for noise without a bias."""
        if self.stack.gaussian:
            return np.zeros(len(model))
        plain = (
            self.fit.lensed_source
            + self.stack.image(self.bare, self.physical[None], roles=("lens_light", "sky"))[0]
        )
        return (model - plain).numpy()


def _with_lens_held(scene):
    held = scene.copy()
    for block in held.of_role("lens"):
        held.free[block.slice] = False
    held.free_index = torch.nonzero(held.free).squeeze(1)
    return held


def _as_fit(problem, scene, fit, solution, stack):
    """The inversion in the form that the verdict and the result read."""
    physical = problem.physical(solution.parameters)
    model = problem.linearise(np.exp(solution.log_source), solution.parameters)[0]
    covariance = torch.as_tensor(solution.factor.parameter_covariance)[None]
    lower, upper = problem.bounds
    outside = (solution.parameters <= lower) | (solution.parameters >= upper)
    expected = torch.as_tensor(model + stack.data[0].numpy() - problem.data)
    return replace(
        fit,
        physical=physical[0],
        covariance=scene.physical_covariance(covariance, physical)[0],
        chi2=solution.chi2,
        model=expected,
        lensed_source=torch.as_tensor(
            problem.lensed_source(np.exp(solution.log_source), solution.parameters)
        ),
        weight=torch.as_tensor(problem.weight),
        converged=solution.converged,
        at_bound=tuple(scene.free_index[torch.as_tensor(outside)].tolist()),
        iterations=fit.iterations + solution.iterations,
    )
