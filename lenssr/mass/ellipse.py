"""Functions of elliptical mass models: ellipticity without angles, and power series around e = 0."""

import math

import astropy.units as u
import numpy as np
import torch
from astropy.coordinates import Angle

from lenssr.exceptions import InputError
from lenssr.grids import frame_axes
from lenssr.mass.blocks import CORE, lift
from lenssr.units import strip_unit

__all__ = [
    "FAR",
    "EllipticalMixin",
    "centred",
    "e_from_q_phi",
    "e_range",
    "elliptical",
    "ellipticity",
    "power_series",
    "safe_divisor",
    "number_of_terms",
]

FAR = 1e30
"""Squared radius in arcsec2 that stands for infinity."""


def elliptical(x, y, e1, e2):
    """Real and imaginary part of zeta = w - e conj(w), for w = x + i y and e = e1 + i e2.

    Its modulus is the elliptical radius times sqrt(1 - e^2). Without angles it is smooth at e = 0.
    """
    return (1 - e1) * x - e2 * y, (1 + e1) * y - e2 * x


def safe_divisor(square):
    """Squared radius to divide by: very large inside the core, where the quotient then vanishes."""
    return torch.nn.functional.threshold(square, CORE**2, FAR)


def number_of_terms(largest, dtype):
    """Number of terms of a power series in u for the precision of dtype, with |u| at most ``largest``."""
    if largest == 0:
        return 2
    return max(2, math.ceil(math.log(torch.finfo(dtype).eps / 2) / math.log(min(largest, 0.999))))


def e_range(e1, e2):
    """Smallest and largest ellipticity of a batch, as floats."""
    square = (e1 * e1 + e2 * e2).detach()
    return math.sqrt(square.min().item()), math.sqrt(square.max().item())


def power_series(coefficients, re, im, square):
    """Sum of a_k z^k, a_k real, z = re + i im, square = |z|^2, by Clenshaw's recurrence, real arithmetic."""
    twice = 2 * re
    b0, b1 = coefficients[-1] + torch.zeros_like(re), torch.zeros_like(re)
    for a in reversed(coefficients[:-1]):
        b0, b1 = torch.addcmul(a - square * b1, twice, b0), b0
    return b0 - re * b1, im * b1


def ellipticity(q, phi):
    """Components e1, e2 for an axis ratio and the angle of the major axis from +x in radians."""
    modulus = (1 - q) / (1 + q)
    return modulus * math.cos(2 * phi), modulus * math.sin(2 * phi)


def e_from_q_phi(q, phi):
    """Ellipticity e1, e2 from axis ratio q in (0, 1] and angle phi of the major axis from +x (a Quantity)."""
    q = float(strip_unit(q, u.dimensionless_unscaled, "q"))
    if not 0 < q <= 1:
        raise InputError(f"q = {q} is refused: give minor over major axis, 0 < q <= 1")
    return ellipticity(q, strip_unit(phi, u.rad, "phi", bare=False))


class EllipticalMixin:
    """Axis ratio and angles, for mass models with parameters e1 and e2."""

    def _validate(self):
        e = math.hypot(self.e1.value, self.e2.value)
        if e >= 1:
            raise InputError(
                f"e1 = {self.e1.value}, e2 = {self.e2.value} have modulus {e:.4g}: it must be below 1, "
                "e = (1 - q) / (1 + q)"
            )
        super()._validate()

    @classmethod
    def from_q_phi(cls, *args, q, phi, **values):
        """Make a model from axis ratio and angle.

        Parameters
        ----------
        *args, **values : float or `~astropy.units.Quantity`
            The other parameters, as for the class.
        q : float
            Minor over major axis, in (0, 1].
        phi : `~astropy.units.Quantity`
            Angle of the major axis, counter-clockwise from +x.
        """
        e1, e2 = e_from_q_phi(q, phi)
        return cls(*args, e1=e1, e2=e2, **values)

    @property
    def q(self):
        """Minor over major axis."""
        e = math.hypot(self.e1.value, self.e2.value)
        return (1 - e) / (1 + e)

    @property
    def phi(self):
        """Angle of the major axis counter-clockwise from +x, within +-90 degrees."""
        return Angle(0.5 * math.atan2(self.e2.value, self.e1.value) * u.rad).to(u.deg)

    def position_angle(self, wcs):
        """Angle of the major axis on the sky.

        Parameters
        ----------
        wcs : `~astropy.wcs.WCS`
            The image's; north is taken at its reference pixel.

        Returns
        -------
        angle : `~astropy.coordinates.Angle`
            East of north, in [0, 180) degrees.
        """
        phi = self.phi.to_value(u.rad)
        east, north = frame_axes(wcs) @ np.array([math.cos(phi), math.sin(phi)])
        return Angle(np.degrees(np.arctan2(east, north)) % 180, u.deg)


def centred(x, y, *params):
    """Positions relative to the centre (the last two parameters), and the other parameters."""
    x, y, *others, x_0, y_0 = lift(x, y, *params)
    return x - x_0, y - y_0, *others
