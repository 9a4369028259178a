"""The evidence of a parametric fit, to compare it with free-form sources."""

from dataclasses import dataclass

import torch

__all__ = ["SERSIC_WIDTHS", "Candidate", "SersicEvidence"]

# Widths of the priors on a Sérsic that is compared, or modulated: log amplitude, log r_eff, n, centre,
# ellipticity.
SERSIC_WIDTHS = (3.0, 1.0, 2.0, 0.3, 0.3, 0.3, 0.3)


@dataclass(frozen=True)
class Candidate:
    """One description of the source with its evidence.

    Attributes
    ----------
    source : {"sersic", "perturbed_sersic", "pixelated"}
    prior : str or None
    evidence : float
        Its logarithm, up to what data alone determine; the lens is held.
    """

    source: str
    prior: str | None
    evidence: float


class SersicEvidence:
    """Laplace evidence of a Sérsic source behind a lens that is held.

    Parameters
    ----------
    scene : `~lenssr.model.scene.Scene`
        With the source.
    fit : `~lenssr.model.fit.SceneFit`
    stiffness : `torch.Tensor`, shape (P,)
        Inverse variances of the priors, in the fit's variables.
    """

    def __init__(self, scene, fit, stiffness):
        self.scene, self.fit = scene, fit
        held = torch.zeros(scene.size, dtype=torch.bool)
        for block in scene.of_role("lens"):
            held[block.slice] = True
        covariance, used = self._covariance()
        precision = torch.linalg.inv(covariance)[~held[used]][:, ~held[used]]
        kept = used[~held[used]]
        self._stiffness = stiffness[kept]
        self._precision = precision + torch.diag(self._stiffness)

    def _covariance(self):
        """Covariance of the fit's variables that are free and not on a bound, and which these are."""
        fit, log = self.fit, self.scene.log
        slope = torch.where(log, fit.physical, torch.ones_like(fit.physical))
        covariance = fit.covariance / slope[:, None] / slope[None, :]
        used = torch.nonzero(self.scene.free & (covariance.diagonal() > 0)).squeeze(1)
        return covariance[used][:, used], used

    def value(self, data):
        """Logarithm of the evidence given the data (N,), as `Solution` counts it."""
        chi2 = float((self.fit.weight * (data - self.fit.model) ** 2).sum())
        stiffness = self._stiffness[self._stiffness > 0]
        return 0.5 * float(stiffness.log().sum() - torch.linalg.slogdet(self._precision)[1] - chi2)
