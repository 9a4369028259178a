"""Values and errors of the parameters that users see, from the coordinates of a fit."""

import math

import numpy as np
import torch

from lenssr.light.sersic import sersic_flux
from lenssr.photometry.parameters import flux_slope

__all__ = ["MEASURED", "Component", "measured"]

MEASURED = ("x", "y", "amplitude", "flux", "r_eff", "n", "ellip", "theta")


def measured(coordinates):
    """Values (B, 8) in the order of `MEASURED`, and derivatives (B, 8, 7), of profiles (B, 7).

    The coordinates are logarithms of amplitude and mean radius, n, x, y, e1, e2. At a round galaxy, where
    ellip has a cone, its derivative is 0.
    """
    bright, radius, n, x, y, e1, e2 = np.asarray(coordinates, dtype=float).T
    amplitude, circular, modulus = np.exp(bright), np.exp(radius), np.hypot(e1, e2)
    q = (1 - modulus) / (1 + modulus)
    flux = sersic_flux(*(torch.as_tensor(part) for part in (amplitude, circular, n))).numpy()
    major = circular / np.sqrt(q)
    theta = np.arctan2(e2, e1) / 2
    values = np.stack([x, y, amplitude, flux, major, n, 1 - q, theta], axis=1)
    slopes = np.zeros((len(values), 8, 7))
    slopes[:, 0, 3] = slopes[:, 1, 4] = slopes[:, 5, 2] = 1
    slopes[:, 2, 0] = amplitude
    slopes[:, 3, 0], slopes[:, 3, 1] = flux, 2 * flux
    slopes[:, 3, 2] = flux * flux_slope(torch.as_tensor(n)).numpy()
    slopes[:, 4, 1] = major
    some = np.where(modulus > 0, modulus, 1.0)
    for k, part in enumerate((e1, e2), start=5):
        slopes[:, 4, k] = major / (1 - modulus**2) * part / some
        slopes[:, 6, k] = 2 / (1 + modulus) ** 2 * part / some
    slopes[:, 7, 5], slopes[:, 7, 6] = -e2 / (2 * some**2), e1 / (2 * some**2)
    return values, slopes


class Component:
    """One component of one galaxy in one band.

    ``values`` and ``errors`` (8,) are in the order of `MEASURED`: positions in pixels of the image, theta in
    radians; the error of what was not fitted, or ended on a bound, is 0. ``slope`` (8, C) is the derivative
    of the values by the coordinates of the group.
    """

    def __init__(self, fit, galaxy, component, band):
        layout, self._place = fit.layout, (galaxy, component, band)
        self._point, self._intervals = fit.is_point(galaxy, component), fit.intervals
        first = layout.column("r_eff", galaxy, component)
        columns = [layout.column("bright", galaxy, component, band), *range(first, first + 6)]
        values, slopes = measured(fit.coordinates.numpy()[None, columns])
        self.values = values[0]
        self.values[:2] += fit.task.middle
        self.values[7] %= math.pi
        self.slope = np.zeros((len(MEASURED), layout.size))
        self.slope[:, columns] = slopes[0]
        self.errors = np.sqrt(
            np.einsum("ij,jk,ik->i", self.slope, fit.covariance.numpy(), self.slope).clip(0)
        )

    def interval(self, name):
        """Value of one of `MEASURED`, and the ends of its 68 % interval.

        The ends are NaN for what was not fitted, ended on a bound, or is the shape of a point; the size of a
        point has an upper end alone.
        """
        k = MEASURED.index(name)
        value, error = self.values[k], self.errors[k] or np.nan
        low, high = value - error, value + error
        galaxy, component, band = self._place
        place = name, galaxy, component, band if name == "flux" else 0
        if place in self._intervals:
            low, high = self._intervals[place]
            low, high = min(low, value), max(high, value)
        if self._point and name == "r_eff":
            low = np.nan
        return float(value), float(low), float(high)
