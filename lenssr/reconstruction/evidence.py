"""The evidence of a parametric fit, to compare it with free-form sources."""

from dataclasses import dataclass

import torch

__all__ = ["Candidate", "SersicEvidence"]

# Widths of the priors on a Sérsic that is compared: log amplitude, log r_eff, n, centre, ellipticity.
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
    scene : `~lenssr.fitting.scene.Scene`
        With the source.
    fit : `~lenssr.fitting.lens.SceneFit`
    stiffness : `torch.Tensor`, shape (P,)
        Inverse variances of the priors on the scene without its source, in the fit's variables.
    """

    def __init__(self, scene, fit, stiffness):
        self.scene, self.fit = scene, fit
        source = scene.of_role("source")[0]
        whole = torch.zeros(scene.size, dtype=torch.float64)
        others = torch.ones(scene.size, dtype=torch.bool)
        others[source.slice] = False
        whole[others] = stiffness
        whole[source.slice] = torch.tensor(SERSIC_WIDTHS, dtype=torch.float64) ** -2
        held = torch.zeros(scene.size, dtype=torch.bool)
        for block in scene.of_role("lens"):
            held[block.slice] = True
        covariance, used = self._covariance()
        precision = torch.linalg.inv(covariance)[~held[used]][:, ~held[used]]
        kept = used[~held[used]]
        self._stiffness = whole[kept]
        self._precision = precision + torch.diag(self._stiffness)
        self._of_source = torch.isin(kept, torch.arange(source.start, source.stop))

    def _covariance(self):
        """Covariance of the fit's variables that are free and not on a bound, and which these are."""
        fit, log = self.fit, self.scene.log
        slope = torch.where(log, fit.physical, torch.ones_like(fit.physical))
        covariance = fit.covariance / slope[:, None] / slope[None, :]
        used = torch.nonzero(self.scene.free & (covariance.diagonal() > 0)).squeeze(1)
        return covariance[used][:, used], used

    @property
    def volume(self):
        """What its seven parameters cost: log of their posterior's volume over their prior's."""
        covariance = torch.linalg.inv(self._precision)[self._of_source][:, self._of_source]
        prior = self._stiffness[self._of_source]
        return 0.5 * float(torch.linalg.slogdet(covariance)[1] + prior.log().sum())

    def value(self, data):
        """Logarithm of the evidence given the data (N,), as `~lenssr.inversion.solve.Solution` counts it."""
        chi2 = float((self.fit.weight * (data - self.fit.model) ** 2).sum())
        stiffness = self._stiffness[self._stiffness > 0]
        return 0.5 * float(stiffness.log().sum() - torch.linalg.slogdet(self._precision)[1] - chi2)
