"""Evidence: the Laplace formula for all kinds of source, and the evidence of a parametric fit."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lenssr.model.fit import Fit
from lenssr.model.scene import Scene

__all__ = ["ParametricEvidence", "laplace_evidence"]


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
