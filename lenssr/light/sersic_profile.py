"""The Sérsic profile in a fit."""

import math

import astropy.units as u
import numpy as np
import torch

from lenssr.light.profile import LightProfile
from lenssr.light.sersic import (
    Sersic,
    from_circular_jacobian,
    sersic_brightness,
    sersic_brightness_jacobian,
    sersic_flux,
)

__all__ = ["SersicProfile"]

NAMES = ("amplitude", "r_eff", "n", "x_0", "y_0", "e1", "e2")
# Priors where several Sérsics share one galaxy: around a start that shares out what one of them found, by
# factors of about 10 in brightness and 3 in radius. Their sum is measured well, the parts hardly are.
CROWDED = {"amplitude": 2.0, "r_eff": 1.0, "n": 1.5, "e1": 0.2, "e2": 0.2}
# Radii and indices of the most compact and of the widest of them, relative to the one Sérsic: bulge and disc.
COMPACT, WIDE = (0.4, 3.0), (1.6, 1.0)


class SersicProfile(LightProfile):
    """A `~lenssr.light.Sersic` in a fit; r_eff of the vector is the product average of both axes.

    If the user constrains r_eff, it is the semi-major axis instead, so that what is held is what they gave.

    Parameters
    ----------
    given : `~lenssr.light.Sersic`, optional
    crowded : bool, optional
        As for `LightProfile`.
    """

    names, centre, model_class = NAMES, (3, 4), Sersic
    bright, bright_unit, lengths = ("amplitude",), u.arcsec**-2, ("r_eff",)
    ranges = {"n": (0.3, 8.0)}

    def __init__(self, given=None, *, crowded=False):
        super().__init__(given, crowded=crowded)
        self.major = given is not None and (
            given.r_eff.fixed or any(end is not None for end in self.own_bounds("r_eff"))
        )

    @property
    def plain(self):
        """Whether nothing is known of it."""
        return self.given is None

    @property
    def prior(self):
        """Standard deviations of the priors."""
        return tuple(CROWDED.get(name, math.inf) if self.crowded else math.inf for name in NAMES)

    def _circular(self, parameters):
        """Parameters (B, 7) as the pure functions take them, and the factor (B,) on the radius."""
        if not self.major:
            return parameters, None
        modulus = torch.hypot(parameters[:, 5], parameters[:, 6])
        root = ((1 - modulus) / (1 + modulus)).sqrt()
        parameters = parameters.clone()
        parameters[:, 1] *= root
        return parameters, root

    def brightness(self, x, y, parameters):
        """Surface brightness (B, R)."""
        return sersic_brightness(x, y, *self._circular(parameters)[0].unsqueeze(-1).unbind(1))

    def jacobian(self, x, y, parameters, cusp=0.0):
        """Surface brightness (B, R), its slopes, and its derivatives (B, 7, R)."""
        circular, root = self._circular(parameters)
        value, d_x, d_y, derivative = sersic_brightness_jacobian(x, y, *circular.unsqueeze(-1).unbind(1))
        if cusp > 0:
            outside = torch.hypot(x - parameters[:, 3:4], y - parameters[:, 4:5]) > cusp
            d_x, d_y = d_x * outside, d_y * outside
            derivative[:, 3:5] *= outside.unsqueeze(1)
        if root is not None:
            self._of_major(parameters, root, derivative)
        return value, d_x, d_y, derivative

    @staticmethod
    def _of_major(parameters, root, derivative):
        """Carry derivatives by the circular radius to the semi-major axis, in place."""
        shape = parameters[:, 5:7]
        square = shape.square().sum(1, keepdim=True)
        # d ln sqrt(q) / d e = -e / (|e| (1 - |e|^2)); its cone at a round galaxy counts as flat.
        turn = torch.where(square > 0, -shape / (square.sqrt() * (1 - square)).clamp_min(1e-30), 0)
        of_radius = derivative[:, 1] * root[:, None]
        derivative[:, 5:7] += (of_radius * parameters[:, 1:2]).unsqueeze(1) * turn.unsqueeze(-1)
        derivative[:, 1] = of_radius

    def from_sersic(self, sersic, rank, count):
        """Where a fit begins (B, 7): several share a galaxy as bulge, disc and what lies between."""
        if count == 1:
            return sersic.clone()
        place = rank / (count - 1)
        parameters = sersic.clone()
        parameters[:, 1] *= COMPACT[0] ** (1 - place) * WIDE[0] ** place
        parameters[:, 2] = COMPACT[1] * (1 - place) + WIDE[1] * place
        old, new = (sersic_flux(p[:, 0], p[:, 1], p[:, 2]) for p in (sersic, parameters))
        parameters[:, 0] *= old / (count * new)
        return parameters

    def effective_radius(self, vector):
        """Half-light radius (...) of vectors (..., 7), in arcsec."""
        return self._circular(vector.reshape(-1, 7))[0][:, 1].reshape(vector.shape[:-1])

    def flux(self, vector):
        """Total flux (...) of vectors (..., 7), in image unit."""
        circular = self._circular(vector.reshape(-1, 7))[0]
        return sersic_flux(*circular[:, :3].unbind(1)).reshape(vector.shape[:-1])

    @property
    def given_vector(self):
        """The parameters of the given model, shape (7,)."""
        vector = self.given.vector
        if self.major:
            modulus = torch.hypot(vector[5], vector[6])
            vector[1] /= ((1 - modulus) / (1 + modulus)).sqrt()
        return vector

    def _model(self, vector, covariance, unit):
        if self.major:
            vector = self._circular(torch.as_tensor(vector)[None])[0][0]
            slope = torch.as_tensor(np.linalg.inv(from_circular_jacobian(vector.numpy())))
            covariance = None if covariance is None else slope @ covariance @ slope.T
        return Sersic.from_vector(vector, covariance=covariance, unit=unit)

    def outward(self, vector):
        """Derivatives (7, 7) of the model's parameters with respect to the vector's."""
        return np.eye(7) if self.major else from_circular_jacobian(np.asarray(vector))
