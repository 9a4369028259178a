"""What a fit says in the numbers that people use."""

import math

import numpy as np
import torch

from lenssr.autodiff import forward_jacobian
from lenssr.light.sersic import sersic_flux

__all__ = ["MEASURED", "Component", "measure"]

MEASURED = ("x", "y", "amplitude", "flux", "r_eff", "n", "ellip", "theta")


def _measured(bright, r_eff, n, x, y, e1, e2):
    """Values (B, 8), in the order of `MEASURED`, of smooth coordinates, each (B, 1)."""
    # The ellipticity has a cone at 0, whose slope counts as zero.
    modulus = (e1**2 + e2**2 + 1e-24).sqrt()
    q = (1 - modulus) / (1 + modulus)
    amplitude, circular = bright.exp(), r_eff.exp()
    flux = sersic_flux(amplitude, circular, n)
    theta = torch.atan2(e2, e1 + 1e-24) / 2
    return torch.cat([x, y, amplitude, flux, circular / q.sqrt(), n, 1 - q, theta], dim=-1)


class Component:
    """One component of one galaxy in one band.

    Attributes
    ----------
    values, errors : `~numpy.ndarray`, shape (8,)
        In the order of `MEASURED`; positions in pixels of the image, theta in radians.
    slope : `~numpy.ndarray`, shape (8, C)
        Of the values by the coordinates of the group.
    """

    def __init__(self, fit, galaxy, component, band):
        layout = fit.layout
        columns = [layout.column("bright", galaxy, component, band)]
        columns += range(
            layout.column("r_eff", galaxy, component), layout.start(galaxy, component) + layout.block
        )
        value, slope = forward_jacobian(lambda *p: _measured(*p), fit.coordinates[None, columns])
        self.values = value[0].numpy().copy()
        self.values[:2] += fit.task.middle
        self.values[7] %= math.pi
        self.slope = np.zeros((len(MEASURED), layout.size))
        self.slope[:, columns] = slope[0].numpy().T
        covariance = fit.covariance.numpy()
        self.errors = np.sqrt(np.einsum("ij,jk,ik->i", self.slope, covariance, self.slope).clip(0))


def measure(fit, galaxy):
    """Components of a galaxy.

    Parameters
    ----------
    fit : `~lenssr.photometry.solve.GroupFit`
    galaxy : int
        Its place in the group.

    Returns
    -------
    components : list of list of `Component`
        By band, then by component.
    """
    layout = fit.layout
    return [
        [Component(fit, galaxy, component, band) for component in range(layout.components)]
        for band in range(layout.bands)
    ]
