"""The multi-Gaussian expansion in a fit."""

import math

import torch

from lenssr.light.gaussians import (
    SHAPE_NAMES,
    MultiGaussian,
    gaussians_brightness,
    gaussians_brightness_jacobian,
    gaussians_from_sersic,
    usual_bounds,
)
from lenssr.light.profile import LightProfile, growth_radii

__all__ = ["GaussiansProfile"]

# Standard deviation of the prior on the logarithm of each flux, around the Sérsic expanded: a factor of 7.
# Neighbours that data cannot tell apart share their light smoothly, and what is not there fades out of the
# data without running to minus infinity, so that errors stay those of a Gaussian posterior.
FLUX_PRIOR = 2.0
# Where several profiles share one galaxy: the first has most of the light in the middle, the last outside.
TILT = 0.8
CROWDED_SHAPE = 0.2


class GaussiansProfile(LightProfile):
    """A `~lenssr.light.MultiGaussian` in a fit: its vector has the fluxes, x_0, y_0, e1, e2.

    Parameters
    ----------
    sigma : array, shape (K,), optional
        Widths in arcsec; those of ``given`` if there is one.
    given : `~lenssr.light.MultiGaussian`, optional
    crowded : bool, optional
        As for `LightProfile`.
    """

    def __init__(self, sigma=None, given=None, *, crowded=False):
        super().__init__(given, crowded=crowded)
        sigma = given.sigma if sigma is None else sigma
        self.sigma = torch.as_tensor(sigma, dtype=torch.float64)
        number = len(self.sigma)
        self.bright = tuple(f"flux_{k}" for k in range(number))
        self.names = (*self.bright, *SHAPE_NAMES)

    usual_bounds = staticmethod(usual_bounds)

    @property
    def prior(self):
        """Standard deviations of the priors."""
        shape = CROWDED_SHAPE if self.crowded else math.inf
        return (FLUX_PRIOR,) * len(self.bright) + (math.inf, math.inf, shape, shape)

    def _arguments(self, x, parameters):
        number = len(self.bright)
        shape = parameters[:, number:].unsqueeze(-1).unbind(1)
        return self.sigma.to(x), parameters[:, :number], *shape

    def brightness(self, x, y, parameters):
        """Surface brightness (B, R)."""
        return gaussians_brightness(x, y, *self._arguments(x, parameters))

    def jacobian(self, x, y, parameters, cusp=0.0):
        """Surface brightness (B, R), its slopes, and its derivatives (B, P, R); Gaussians have no cusp."""
        return gaussians_brightness_jacobian(x, y, *self._arguments(x, parameters))

    def start(self, sersic, rank=0, count=1):
        """Where a fit begins; a given flux of zero, if free, begins at the smallest share instead."""
        start = super().start(sersic, rank, count)
        number = len(self.bright)
        floor = 1e-4 * start[:, :number].mean(1, keepdim=True)
        free = torch.tensor(self.free[:number], device=start.device)
        start[:, :number] = torch.where(free, torch.maximum(start[:, :number], floor), start[:, :number])
        return start

    def from_sersic(self, sersic, rank, count):
        """Where a fit begins (B, P): the Sérsic expanded, shared out among several groups."""
        flux = gaussians_from_sersic(sersic, self.sigma)
        return self.share(torch.cat([flux / count, sersic[:, 3:]], dim=1), rank, count)

    def share(self, mean, rank, count):
        """What one of several groups has of the light that they have together.

        Parameters
        ----------
        mean : `torch.Tensor`, shape (B, P)
            Mean of the parameters of all groups.
        rank, count : int
            Its place among so many groups; the first gets most of the light in the middle.

        Returns
        -------
        parameters : `torch.Tensor`, shape (B, P)
        """
        if count == 1:
            return mean
        number = len(self.sigma)
        outward = torch.linspace(-1, 1, number).to(mean)
        flux = mean[:, :number] * (1 + TILT * outward * (2 * rank / (count - 1) - 1))
        return torch.cat([flux, mean[:, number:]], dim=1)

    def flux(self, vector):
        """Total flux (...) of vectors (..., P), in image unit."""
        return vector[..., : len(self.bright)].sum(-1)

    def _curve_of_growth(self, vector):
        radii = growth_radii(vector)
        inside = -torch.expm1(-0.5 * (radii / self.sigma.to(vector).unsqueeze(-1)).square())
        return radii, vector[..., : len(self.bright)] @ inside

    def _model(self, vector, covariance, unit):
        return MultiGaussian.from_vector(vector, self.sigma, covariance=covariance, unit=unit)
