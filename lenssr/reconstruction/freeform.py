"""The free-form source: what the arcs themselves say of the galaxy, with a prior on its roughness only."""

from dataclasses import replace
from functools import partial

import numpy as np
import torch

from lenssr.reconstruction.assemble import Solved
from lenssr.reconstruction.fine_freeform import freeform_products
from lenssr.reconstruction.freeform_fit import FreeFormFit
from lenssr.reconstruction.lens_slope import free_slope
from lenssr.reconstruction.parametric import ParametricReconstruction, stack_of
from lenssr.source.batching import alone, answer_together, together
from lenssr.source.evidence import leverage

__all__ = ["FreeFormReconstruction", "as_fit", "solved_freeform"]


class FreeFormReconstruction:
    """Solve images with a source that is free on a grid, starting from their parametric fits.

    On a CPU every image is inverted by itself, with banded matrices; on other devices, or if ``batched``, all
    are together, with dense ones. All else is done on the CPU for each image.
    """

    def __init__(self, settings, *, batched=None):
        self.settings, self.device = settings, settings.torch_device
        self.batched = self.device.type != "cpu" if batched is None else batched
        self.parametric = ParametricReconstruction(settings)

    def parts(self, members):
        """Cut a list of (number, observation) into pieces: one each, for processes to share, or batches.

        On a CPU an inversion takes so long that starts found together would save a few percent.
        """
        return self.parametric.parts(members) if self.batched else [[member] for member in members]

    def solve(self, observations, finish):
        """Results ``finish(solved, observation)`` of images of one shape, pixel scale, PSF and kind of unit.

        ``finish`` is called as soon as there is a `Solved`. An image that fails by itself gives an exception.
        """
        stack, scene, fits = self.parametric.fit(observations)
        if stack.device.type != "cpu":
            stack, scene = stack_of(observations, self.settings, "cpu"), scene.on("cpu")
        steps = [
            self._steps(stack.select([i]), scene, fit.on("cpu"), observation, finish)
            for i, (fit, observation) in enumerate(zip(fits, observations, strict=True))
        ]
        if self.batched:
            return together(steps, partial(answer_together, device=self.device))
        return [alone(one) for one in steps]

    def _steps(self, stack, scene, fit, observation, finish):
        """One image from its fit to its result, asking for its solutions on the way."""
        freeform = FreeFormFit(stack, scene, fit, observation, self.settings)
        problem, solution = yield from freeform.run()
        candidates = [(one.source, one.prior, one.evidence) for one in freeform.candidates]
        if solution is None:
            scene, fit = free_slope(stack, scene, fit, 0, self.settings.family)
            solved = self.parametric.solved(scene, fit, observation, chosen="sersic", candidates=candidates)
            return finish(solved, observation)
        found = as_fit(problem, fit, solution, stack, freeform)
        meta = {
            "evidence": solution.evidence,
            "chosen": "pixelated" if problem.scene["source"] is None else "perturbed_sersic",
            "candidates": candidates,
        }
        of_one = problem, solution, found, observation, self.settings, freeform
        return finish(solved_freeform(*of_one, meta=meta), observation)


def solved_freeform(problem, solution, fit, observation, settings, tempered, *, off=None, **about):
    """What a result with a free-form source is made of: `Solved`, with its ``facts`` and ``meta``.

    ``tempered`` has the ``correlation`` that the posterior already knows; ``off`` is how far field and
    parameters are from the most likely ones.
    """

    def products(widening):
        known = np.sqrt(tempered.correlation)
        return freeform_products(problem, solution, observation, settings, widening / known, off)

    return Solved(problem.scene, fit, products, inversion=(problem, solution), **about)


def as_fit(problem, fit, solution, stack, tempered):
    """Where a free-form fit ended, in the form that verdict and result read, as if noise were independent.

    Errors of the data are those that were given; errors of parameters know it if these were too small.
    ``fit`` is where it began; ``tempered`` has ``temperature``, ``correlation`` and ``modes`` like a
    `~lenssr.reconstruction.freeform_fit.FreeFormFit`.
    """
    scene, temperature = problem.scene, tempered.temperature
    physical = problem.physical(solution.parameters)
    # Of several exposures the first, whose parameters are those of the scene.
    pixels, count = stack.data.shape[1], len(scene.free_index)
    model = problem.predict(solution.values, solution.parameters)[:pixels]
    lensed = problem.lensed_source(solution.values, solution.parameters)[:pixels]
    covariance = torch.as_tensor(solution.factor.parameter_covariance / tempered.correlation)[None]
    lower, upper = problem.bounds
    outside = ((solution.parameters <= lower) | (solution.parameters >= upper))[:count]
    weight = problem.weight[:pixels]
    chi2 = float((weight * (problem.data[:pixels] - model) ** 2).sum())
    # What no parametric source explains counts as noise where two lenses behind such sources are compared.
    unexplained = max(1.0, fit.chi2 / max(fit.used, 1))
    modes = [(excess / unexplained, place) for excess, place in fit.modes] + list(tempered.modes)
    return replace(
        fit,
        physical=physical[0],
        covariance=scene.physical_covariance(covariance[:, :count, :count], physical)[0],
        chi2=chi2 * temperature,
        model=torch.as_tensor(model + stack.data[0].numpy() - problem.data[:pixels]),
        lensed_source=torch.as_tensor(lensed),
        weight=torch.as_tensor(weight * temperature),
        converged=solution.converged,
        leverage=torch.as_tensor(leverage(problem, solution)[:pixels]),
        at_bound=tuple(scene.free_index[torch.as_tensor(outside)].tolist()),
        iterations=fit.iterations + solution.iterations,
        modes=tuple(modes),
    )
