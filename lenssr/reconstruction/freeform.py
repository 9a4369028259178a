"""The free-form source: what the arcs themselves say of the galaxy, with a prior on its roughness only."""

from dataclasses import replace
from functools import partial

import numpy as np
import torch

from lenssr.reconstruction.assemble import assemble, noise_of_sky
from lenssr.reconstruction.fine_freeform import FineSource
from lenssr.reconstruction.freeform_fit import Inversion
from lenssr.reconstruction.measures import measure_source
from lenssr.reconstruction.parametric import SersicReconstruction, stack_of
from lenssr.reconstruction.verdict import is_ok, judge
from lenssr.source.batching import alone, together
from lenssr.source.gauss_newton_batch import answer_together
from lenssr.source.information import leverage

__all__ = ["PixelatedReconstruction", "as_fit", "judged"]


class PixelatedReconstruction:
    """Solve images with a source that is free on a grid, starting from their Sérsic fits.

    Parameters
    ----------
    settings : `~lenssr.options.Settings`
        On a CPU every image is inverted by itself, with banded matrices where they are; on other devices all
        are inverted together, with dense ones. What leads from one inversion to the next, and from the last
        to a result, is done on the CPU for each image.
    batched : bool, optional
        Whether images are inverted together; by default as the device says.
    """

    def __init__(self, settings, *, batched=None):
        self.settings, self.device = settings, settings.torch_device
        self.batched = self.device.type != "cpu" if batched is None else batched
        self.parametric = SersicReconstruction(settings)

    def parts(self, members):
        """Cut a list of (number, observation) into pieces: one each, for processes to share, or batches.

        On a CPU an inversion takes so long that starts found together would save a few percent.
        """
        return self.parametric.parts(members) if self.batched else [[member] for member in members]

    def solve(self, observations):
        """Reconstruct a group.

        Parameters
        ----------
        observations : list of `~lenssr.imaging.Observation`
            Of one shape, pixel scale, PSF and kind of unit.

        Returns
        -------
        results : list of `~lenssr.SuperResolution` or Exception
            An exception where one of several images failed by itself.
        """
        stack, scene, fits = self.parametric.fit(observations)
        if stack.device.type != "cpu":
            stack, scene = stack_of(observations, replace(self.settings, device="cpu")), scene.on("cpu")
        steps = [
            self._steps(stack.select([i]), scene, fit.on("cpu"), observation)
            for i, (fit, observation) in enumerate(zip(fits, observations, strict=True))
        ]
        if self.batched:
            return together(steps, partial(answer_together, device=self.device))
        return [alone(one) for one in steps]

    def _steps(self, stack, scene, fit, observation):
        """One image from its fit to its result, asking for its inversions on the way."""
        bare = self.parametric.scene(observation, stack.device, source=0)
        settings = self.settings
        inversion = Inversion(stack, scene, bare, fit, observation, settings)
        problem, solution = yield from inversion.run()
        candidates = [(one.source, one.prior, one.evidence) for one in inversion.candidates]
        if solution is None:
            result = self.parametric.result(scene, fit, observation)
            result.meta |= {"chosen": "sersic", "candidates": candidates}
            return result
        bare = problem.scene
        found = as_fit(problem, bare, fit, solution, stack, inversion)
        # The posterior already knows how noise was correlated around the coarse solution.
        known = np.sqrt(inversion.temper) / inversion.doubt

        def products(now):
            return FineSource(problem, solution, observation, settings, now / known).products()

        result = judged(problem, solution, found, observation, settings, products)
        result.meta |= {
            "evidence": solution.evidence,
            "chosen": "perturbed_sersic" if problem.scene.of_role("source") else "pixelated",
            "candidates": candidates,
        }
        return result


def judged(problem, solution, found, observation, settings, products):
    """The result of an inversion, with a verdict that has looked at the source too.

    Parameters
    ----------
    problem : `~lenssr.source.Problem`
    solution : `~lenssr.source.Solution`
    found : `~lenssr.model.fit.SceneFit`
        The same, from `as_fit`.
    observation : `~lenssr.imaging.Observation`
    settings : `~lenssr.options.Settings`
    products : callable
        As `~lenssr.reconstruction.assemble.assemble` takes it.

    Returns
    -------
    result : `~lenssr.SuperResolution`
    """
    bare = problem.scene
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
    return result


def as_fit(problem, scene, fit, solution, stack, inversion):
    """The inversion in the form that the verdict and the result read, as if noise were independent.

    Errors of the data are those that were given; errors of parameters know it if these were too small.

    Parameters
    ----------
    problem : `~lenssr.source.Problem`
    scene : `~lenssr.model.scene.Scene`
        Its scene.
    fit : `~lenssr.model.fit.SceneFit`
        From which it began.
    solution : `~lenssr.source.Solution`
    stack : `~lenssr.model.image_stack.ImageStack`
        Holding the one image.
    inversion : object
        ``temper``, ``doubt`` and ``rivals`` as of `~lenssr.reconstruction.freeform_fit.Inversion`.

    Returns
    -------
    fit : `~lenssr.model.fit.SceneFit`
    """
    temper, correlated = inversion.temper, inversion.temper / inversion.doubt**2
    physical = problem.physical(solution.parameters)
    model = problem.predict(solution.values, solution.parameters)
    covariance = torch.as_tensor(solution.factor.parameter_covariance / correlated)[None]
    lower, upper = problem.bounds
    outside = (solution.parameters <= lower) | (solution.parameters >= upper)
    # What no Sérsic explains counts as noise where two lenses behind Sérsics are compared.
    unexplained = max(1.0, fit.chi2 / max(int((fit.weight > 0).sum()), 1))
    expected = torch.as_tensor(model + stack.data[0].numpy() - problem.data)
    return replace(
        fit,
        physical=physical[0],
        covariance=scene.physical_covariance(covariance, physical)[0],
        chi2=solution.chi2 * temper,
        model=expected,
        lensed_source=torch.as_tensor(problem.lensed_source(solution.values, solution.parameters)),
        weight=torch.as_tensor(problem.weight * temper),
        converged=solution.converged,
        leverage=torch.as_tensor(leverage(problem, solution)),
        at_bound=tuple(scene.free_index[torch.as_tensor(outside)].tolist()),
        iterations=fit.iterations + solution.iterations,
        rivals=[(worse / unexplained, place) for worse, place in fit.rivals] + inversion.rivals,
    )
