"""Where else the lens behind a free-form source may lie: other starts, and the optima they lead to."""

from dataclasses import dataclass

import numpy as np

__all__ = ["Optimum", "other_optima", "other_starts"]

# Starts lie so many errors away along what the data determine worst, but no farther than the priors allow.
START_SIGMA, START_REACH = 5.0, 1.0
# Width of what has no prior, as a share of itself: the Einstein radius.
FREE_WIDTH = 0.1
# Lenses that are apart by more than so many of their combined errors are two.
APART_SIGMA = 3.0


@dataclass(frozen=True)
class Optimum:
    """Where an inversion with a free lens ended.

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
    physical: object

    @classmethod
    def of(cls, problem, solution):
        """The optimum of a `~lenssr.source.Solution` of a `~lenssr.source.Problem`."""
        lens = slice(0, _count(problem.scene))
        variance = solution.factor.parameter_covariance.diagonal()[lens]
        physical = problem.physical(solution.parameters)[0]
        return cls(solution.evidence, solution.parameters[lens], variance, physical)

    def differs(self, other):
        """Whether any parameter of the lens differs by more than its errors."""
        error = np.sqrt(self.variance + other.variance)
        return bool((np.abs(self.lens - other.lens) > APART_SIGMA * error).any())


def other_starts(problem, solution, rivals):
    """Parameters to look for other optima of a lens from.

    Parameters
    ----------
    problem : `~lenssr.source.Problem`
    solution : `~lenssr.source.Solution`
        With the lens free.
    rivals : list of (float, `torch.Tensor`)
        Other optima of a parametric fit, as `~lenssr.model.fit.SceneFit` has them.

    Returns
    -------
    starts : list of `~numpy.ndarray`, shape (K,)
        There and back along the direction of the lens that data determine worst, in units of the priors'
        widths; and at the rivals within the bounds.
    """
    scene, (lower, upper) = problem.scene, problem.bounds
    count = _count(scene)
    stiffness = problem.parameter_prior[1][:count]
    own = FREE_WIDTH * np.maximum(np.abs(solution.parameters[:count]), FREE_WIDTH)
    widths = np.where(stiffness > 0, np.maximum(stiffness, np.finfo(float).tiny) ** -0.5, own)
    covariance = solution.factor.parameter_covariance[:count, :count] / np.outer(widths, widths)
    variances, directions = np.linalg.eigh(covariance)
    step = min(START_SIGMA * np.sqrt(max(variances[-1], 0.0)), START_REACH) * widths * directions[:, -1]
    lenses = [np.clip(solution.parameters[:count] + by, lower[:count], upper[:count]) for by in (step, -step)]
    free = scene.free[scene.blocks[0].slice]
    for _, place in rivals:
        lens = place[scene.blocks[0].slice][free].cpu().numpy()
        if ((lens > lower[:count]) & (lens < upper[:count])).all():
            lenses.append(lens)
    return [np.concatenate([lens, solution.parameters[count:]]) for lens in lenses]


def other_optima(best, optima):
    """What may be another lens, in the form of a fit's rivals.

    Parameters
    ----------
    best : Optimum
    optima : iterable of Optimum

    Returns
    -------
    rivals : list of (float, `torch.Tensor`)
        By how much -2 ln(evidence) is larger, and the parameters, of those that differ from the best.
    """
    return [(2 * (best.evidence - one.evidence), one.physical) for one in optima if one.differs(best)]


def _count(scene):
    """Number of free parameters of the lens, which come first."""
    return int(scene.free[scene.blocks[0].slice].sum())
