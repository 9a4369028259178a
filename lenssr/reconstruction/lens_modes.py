"""Where fits with a free-form source and a free lens ended, and where to look for other such lenses."""

from dataclasses import dataclass

import numpy as np
import torch

from lenssr.reconstruction import decisions

__all__ = ["Mode", "other_starts", "posterior_modes"]

# Width of the prior of the Einstein radius where it has none, as a share of itself.
FREE_WIDTH = 0.1


@dataclass(frozen=True)
class Mode:
    """Where a fit with a free-form source and a free lens ended.

    Attributes
    ----------
    evidence : float
    lens : `~numpy.ndarray`, shape (L,)
        Free parameters of the lens.
    variance : `~numpy.ndarray`, shape (L,)
    physical : `torch.Tensor`, shape (P,)
        All parameters.
    """

    evidence: float
    lens: np.ndarray
    variance: np.ndarray
    physical: torch.Tensor

    @classmethod
    def of(cls, problem, solution):
        """The mode of a `~lenssr.source.Solution` of a `~lenssr.source.Problem`."""
        lens = slice(0, problem.scene.count("lens"))
        variance = solution.factor.parameter_covariance.diagonal()[lens]
        physical = problem.physical(solution.parameters)[0]
        return cls(solution.evidence, solution.parameters[lens], variance, physical)

    def differs(self, other):
        """Whether any parameter of the lens differs by more than its errors."""
        error = np.sqrt(self.variance + other.variance)
        return bool((np.abs(self.lens - other.lens) > decisions.APART_SIGMA * error).any())


def other_starts(problem, solution, modes):
    """Parameters (K,) to look for other modes of a lens from, a list.

    There and back along the direction of the lens that data determine worst, in units of the priors' widths;
    and at the modes of a parametric fit, as `~lenssr.model.fit.Fit` has them, within the bounds.
    """
    scene, (lower, upper) = problem.scene, problem.bounds
    count = scene.count("lens")
    stiffness = problem.parameter_prior[1][:count]
    own = FREE_WIDTH * np.maximum(np.abs(solution.parameters[:count]), FREE_WIDTH)
    widths = np.where(stiffness > 0, np.maximum(stiffness, np.finfo(float).tiny) ** -0.5, own)
    covariance = solution.factor.parameter_covariance[:count, :count] / np.outer(widths, widths)
    variances, directions = np.linalg.eigh(covariance)
    reach = min(decisions.MODE_START_SIGMA * np.sqrt(max(variances[-1], 0.0)), decisions.MODE_START_REACH)
    step = reach * widths * directions[:, -1]
    lenses = [np.clip(solution.parameters[:count] + by, lower[:count], upper[:count]) for by in (step, -step)]
    free = scene.free_of("lens")
    for _, place in modes:
        lens = place[scene["lens"].slice][free].cpu().numpy()
        if ((lens > lower[:count]) & (lens < upper[:count])).all():
            lenses.append(lens)
    return [np.concatenate([lens, solution.parameters[count:]]) for lens in lenses]


def posterior_modes(best, modes):
    """By how much -2 ln(evidence) is larger, and the parameters, of the modes that differ from the best."""
    return [(2 * (best.evidence - one.evidence), one.physical) for one in modes if one.differs(best)]
