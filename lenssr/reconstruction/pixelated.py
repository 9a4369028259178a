"""The free-form source: what the arcs themselves say of the galaxy, with a prior on its roughness only."""

from dataclasses import replace

import numpy as np
import torch

from lenssr.inversion.lockstep import alone
from lenssr.reconstruction.assemble import assemble, noise_of_sky
from lenssr.reconstruction.freeform import FineSource
from lenssr.reconstruction.levels import Inversion
from lenssr.reconstruction.measures import measure_source
from lenssr.reconstruction.sersic import SersicReconstruction
from lenssr.reconstruction.verdict import is_ok, judge

__all__ = ["PixelatedReconstruction"]


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
        """Cut a list of (number, observation) into pieces: one each, for processes to share.

        An inversion takes so long that starts found together would save a few percent.
        """
        return [[member] for member in members]

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
        settings = self.settings
        inversion = Inversion(stack, scene, bare, fit, observation, settings)
        problem, solution = alone(inversion.run())
        candidates = [(one.source, one.prior, one.evidence) for one in inversion.candidates]
        if solution is None:
            result = self.parametric.result(scene, fit, observation)
            result.meta |= {"chosen": "sersic", "candidates": candidates}
            return result
        bare = problem.scene
        found = _as_fit(problem, bare, fit, solution, stack, inversion)
        # The posterior already knows how noise was correlated around the coarse solution.
        known = np.sqrt(inversion.temper) / inversion.doubt

        def products(now):
            return FineSource(problem, solution, observation, settings, now / known).products()

        result = assemble(bare, found, observation, settings, products)
        measures = measure_source(problem, solution, found, noise_of_sky(bare, found, observation))
        result.meta["measures"] |= measures
        result.flags = judge(measures, result.flags)
        result.ok = is_ok(result.flags)
        result.meta |= {
            "prior": solution.prior.name,
            "strength": solution.strength,
            "evidence": solution.evidence,
            "determined": solution.determined,
            "chosen": "perturbed_sersic" if problem.scene.of_role("source") else "pixelated",
            "candidates": candidates,
        }
        return result


def _as_fit(problem, scene, fit, solution, stack, inversion):
    """The inversion in the form that the verdict and the result read, as if noise were independent.

    Errors of the data are those that were given; errors of parameters know it if these were too small.
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
        at_bound=tuple(scene.free_index[torch.as_tensor(outside)].tolist()),
        iterations=fit.iterations + solution.iterations,
        rivals=[(worse / unexplained, place) for worse, place in fit.rivals],
    )
