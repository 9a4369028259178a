"""What data say of a source and its lens: evidence, information by node, and the lens that bands share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lenssr.model.fit import Fit
from lenssr.model.scene import Scene

if TYPE_CHECKING:
    from lenssr.source.gauss_newton import Solution
    from lenssr.source.problem import Problem

__all__ = [
    "LEAST_INFORMATION",
    "ParametricEvidence",
    "SharedLens",
    "information",
    "laplace_evidence",
    "leverage",
]

# Below this a pixel of the source is prior rather than data.
LEAST_INFORMATION = 0.5
# Draws for the leverage of pixels, which is summed over regions.
DRAWS, DRAW_SEED = 16, 1821


def laplace_evidence(log_prior: Any, log_posterior: Any, penalty: Any) -> Any:
    """Logarithm of the Laplace evidence, up to a constant of the data alone.

    Parameters
    ----------
    log_prior, log_posterior : float or `torch.Tensor`
        Logarithms of the determinants of the inverse covariances of prior and posterior.
    penalty : float or `torch.Tensor`
        Chi2, and the squared distance from the means of the priors in their widths, at the maximum.

    Returns
    -------
    evidence : float or `torch.Tensor`

    References
    ----------
    MacKay 1992, Neural Computation 4, 415; Suyu et al. 2006, MNRAS 371, 983 (eq. 19).
    """
    return 0.5 * (log_prior - log_posterior - penalty)


class ParametricEvidence:
    """Evidence of a parametric source behind a lens that is held.

    Parameters
    ----------
    scene : ``lenssr.model.scene.Scene``
        With the source.
    fit : ``lenssr.model.fit.Fit``
    stiffness : `torch.Tensor`, shape (P,)
        Inverse variances of the priors, in the fit's variables.
    """

    def __init__(self, scene: Scene, fit: Fit, stiffness: Tensor) -> None:
        self.scene, self.fit = scene, fit
        held = torch.zeros(scene.size, dtype=torch.bool)
        if scene["lens"] is not None:
            held[scene["lens"].slice] = True
        covariance, used = self._covariance()
        precision = torch.linalg.inv(covariance)[~held[used]][:, ~held[used]]
        self._stiffness = stiffness[used[~held[used]]]
        self._precision = precision + torch.diag(self._stiffness)

    def _covariance(self) -> tuple[Tensor, Tensor]:
        """Covariance of the fit's variables that are free and off their bounds, and their indices."""
        fit, log = self.fit, self.scene.log
        slope = torch.where(log, fit.physical, torch.ones_like(fit.physical))
        covariance = fit.covariance / slope[:, None] / slope[None, :]
        used = torch.nonzero(self.scene.free & (covariance.diagonal() > 0)).squeeze(1)
        return covariance[used][:, used], used

    def value(self, data: Tensor) -> float:
        """Logarithm of the evidence given the data (N,)."""
        chi2 = float((self.fit.weight * (data - self.fit.model) ** 2).sum())
        stiffness = self._stiffness[self._stiffness > 0]
        return laplace_evidence(
            float(stiffness.log().sum()), float(torch.linalg.slogdet(self._precision)[1]), chi2
        )


class SharedLens:
    """The lens that the bands of a batch share: its constraints by each band, and by all together.

    With the covariance X of everything with the lens in a band, P the inverse of its part for the lens and d
    the step that the band would take alone, the lens takes (sum P)^-1 sum P d, and the rest follows it.
    """

    def __init__(self, states: Sequence[Any], factors: Sequence[Any], index: Tensor) -> None:
        self._states, self._index = states, index
        self._count = states[0].model.scene.count("lens")
        self._alone, self._with_lens, self._precisions = [], [], []
        for state, own in zip(states, factors, strict=True):
            size = own.count + state.parameters.shape[1]
            lens = slice(own.count, own.count + self._count)
            right = torch.eye(size, dtype=torch.float64, device=index.device)[:, lens]
            with_lens = own.solve(right.expand(len(index), -1, -1))
            self._alone.append(state.step(own, index))
            self._with_lens.append(with_lens)
            self._precisions.append(torch.linalg.inv(with_lens[:, lens]))
        self.lens_covariance = torch.linalg.inv(sum(self._precisions))

    def steps(self) -> list[Tensor]:
        """The steps (b, n + K) of all bands, a list."""
        lenses = [
            step[:, state.field.shape[1] :][:, : self._count]
            for state, step in zip(self._states, self._alone, strict=True)
        ]
        pull = sum(p @ d.unsqueeze(2) for p, d in zip(self._precisions, lenses, strict=True))
        together = (self.lens_covariance @ pull).squeeze(2)
        parts = zip(self._alone, self._with_lens, self._precisions, lenses, strict=True)
        return [step + (x @ (p @ (together - lens).unsqueeze(2))).squeeze(2) for step, x, p, lens in parts]

    def less_trace(self, number: int) -> Tensor:
        """Decrease, by the other bands, of the trace (b,) of covariance times prior of one band."""
        p, x, state = self._precisions[number], self._with_lens[number], self._states[number]
        nodes = x[:, : state.field.shape[1]]
        rough = torch.stack([state.prior.apply(column) for column in nodes.unbind(2)], dim=2)
        return ((p - p @ self.lens_covariance @ p) * (nodes.mT @ rough)).sum((1, 2))

    def evidence(self, factors: Sequence[Any]) -> Tensor:
        """Laplace evidence (b,) of all bands, each with its share of the prior of the lens."""
        own = sum(state.evidence(one) for state, one in zip(self._states, factors, strict=True))
        eliminated = sum(torch.linalg.slogdet(p)[1] for p in self._precisions)
        stiffness = self._states[0].parameter_prior[1][self._index, : self._count]
        once = torch.where(stiffness > 0, stiffness, 1.0).log().sum(1)
        number, informed = len(self._states), (stiffness > 0).sum(1)
        # The prior of the lens counts once, and with all of its stiffness.
        prior = (1 - number) * once + informed * np.log(number)
        return own + 0.5 * (prior + eliminated + torch.linalg.slogdet(self.lens_covariance)[1])


def information(solution: Solution) -> NDArray:
    """1 - (posterior variance) / (prior variance) of the field at every node, (n,): 1 is data, 0 is prior.

    The variance of the prior is conditional on its free modes (see `~lenssr.source.Prior`): any data
    determine these, and with their own variance the ratio would be near 0 everywhere.
    """
    prior = solution.prior.local_variance / solution.strength
    return np.clip(1 - solution.factor.node_variances(np.float32) / prior, 0.0, 1.0)


def leverage(problem: Problem, solution: Solution) -> NDArray:
    """Diagonal (N,) of the hat matrix by draws, to a third for a single pixel.

    Its sum over a region is the number of parameters that the region determines; its pixels less that number
    are the expectation of their chi2, if prior and noise are right.
    """
    factor, parameters = solution.factor, solution.parameters
    signs = np.random.default_rng(DRAW_SEED).choice([-1.0, 1.0], (factor.size, DRAWS))
    draws = factor.sample(signs)
    of_parameters = problem.jacobian(solution.values, parameters) @ draws[factor.count :]
    nodes = solution.slope[:, None] * draws[: factor.count]
    of_source = np.stack([problem.lensed_source(column, parameters) for column in nodes.T], axis=1)
    return problem.weight * ((of_source + of_parameters) ** 2).mean(axis=1)
