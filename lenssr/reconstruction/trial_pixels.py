"""The pixels on which trial lenses are compared: binned data, what shines, linear parts of the light."""

from dataclasses import dataclass

import numpy as np
import torch

from lenssr.model.fit import GHOST_PIXELS
from lenssr.model.initial_guess import first_galaxy, without_light

__all__ = ["CHI2_MEDIAN", "OUTLIERS", "Pixels"]

FIELD_PIXELS = 48  # pixels along a side of the binned field, or more where that leaves FINEST arcsec
FINEST = 0.1
SEARCHED = 0.5  # radius of the pixels that are compared, as a share of the field's side
GAUSSIANS = 10  # of the lens light, from a pixel to half the field, each with a shape of its own
LIGHT_ERROR, ARC_ERROR = 0.03, 0.05  # shares of lens light and arcs by which a coarse model may be off
SHINES = 5.0  # sigma in 3 x 3 pixels above which a pixel places the grid
MOST_SIGMA = 30.0  # largest weight of one pixel
OUTLIERS = 5.0  # degrees of freedom of Student's t
CHI2_MEDIAN = 0.455  # median of chi2 of one degree of freedom
# The widest Gaussians, which say what of a galaxy's halo the first lens light has left. Chosen after 26 real
# lenses: on one, patches of a halo that is flatter outside shone like arcs, and led to a lens 2.7 times too
# large; arcs, which are thinner, are hardly touched. And how often their outliers are weighed anew.
OF_HALO, ROUNDS = 3, 8


@dataclass(frozen=True)
class Pixels:
    """The P pixels that are compared.

    Attributes
    ----------
    x, y : `torch.Tensor`, shape (P,)
        Centres in arcsec.
    size : float
        Side of a pixel in arcsec.
    data, residual : `torch.Tensor`, shape (P,)
        Data in sigma, with and without sky and first lens light; sigma allows for a coarse model.
    light : `torch.Tensor`, shape (K, P)
        Linear components of sky and lens light in sigma, each of unit length.
    root : `torch.Tensor`, shape (P,)
        1 / sigma.
    shining : `torch.Tensor`, shape (P,)
        Weight by which a pixel places the source grid; 0 for a dark one.
    shape : `torch.Tensor`, shape (2,)
        Ellipticity (e1, e2) of the lens light; zeros where none is fitted.
    """

    x: torch.Tensor
    y: torch.Tensor
    size: float
    data: torch.Tensor
    residual: torch.Tensor
    light: torch.Tensor
    root: torch.Tensor
    shining: torch.Tensor
    shape: torch.Tensor

    @classmethod
    def of(cls, stack, scene, light=None):
        """Pixels of a stack that holds one image, with a first lens light (1, 8) where there is one."""
        binned = stack.binned(_bin_factor(stack))
        grid, weight = binned.grid, binned.first_weights[0]
        x, y = (torch.as_tensor(axis.ravel()) for axis in (grid.x, grid.y))
        smooth, galaxy = torch.zeros_like(weight), None
        if light is not None:
            galaxy = light[0, 3:7]
            x, y = x - galaxy[0], y - galaxy[1]
            smooth = binned.image(first_galaxy(scene, binned), light, roles=("lens_light",))[0]
        residual, away = without_light(binned, scene, light)[0], torch.hypot(x, y) / grid.pixel_scale
        parts = _linear_light(x, y, grid, scene["sky"] is not None, galaxy)
        used = binned.valid[0] & (weight > 0) & (away < SEARCHED * min(grid.shape))
        if binned.shows_ghost:
            used &= away > GHOST_PIXELS
        if galaxy is not None:
            residual = residual - _halo_left(residual, torch.where(used, weight, 0), x, y, grid, galaxy)
        arcs = _mean3(torch.where(used, residual, 0), grid.shape)
        root = (weight / (1 + weight * ((LIGHT_ERROR * smooth) ** 2 + (ARC_ERROR * arcs) ** 2))).sqrt()
        sigma = torch.where(used, residual * root, 0)
        signal = torch.maximum(sigma, 3 * _mean3(sigma, grid.shape))
        shining = torch.where(signal > SHINES, signal.clamp_max(MOST_SIGMA) ** 2, 0)
        columns = parts[:, used] * root[used]
        columns = columns / columns.norm(dim=1, keepdim=True).clamp_min(1e-300)
        if galaxy is not None:
            x, y = x + galaxy[0], y + galaxy[1]
        planes = x, y, binned.data[0] * root, sigma, root, shining
        x, y, data, residual, root, shining = (plane[used] for plane in planes)
        shape = root.new_zeros(2) if galaxy is None else galaxy[2:].to(root)
        return cls(x, y, grid.pixel_scale, data, residual, columns, root, shining, shape)


def _linear_light(x, y, grid, sky, galaxy):
    """Sky, and Gaussians around the origin of the ellipticity of a galaxy, or nearly (K, N)."""
    columns = [x.new_zeros(0, len(x)), torch.ones(int(sky), len(x)).to(x)]
    if galaxy is not None:
        columns.append(_gaussians(x, y, grid, galaxy))
    return torch.cat(columns)


def _gaussians(x, y, grid, galaxy, first=0):
    """Gaussians around the origin, from the ``first`` of all widths on, with quadrupoles (K, N)."""
    e = torch.hypot(galaxy[2], galaxy[3]).clamp_max(0.6)
    q, phi = (1 - e) / (1 + e), torch.atan2(galaxy[3], galaxy[2]) / 2
    along, across = x * phi.cos() + y * phi.sin(), y * phi.cos() - x * phi.sin()
    square = q * along**2 + across**2 / q
    widths = np.geomspace(1, 0.5 * min(grid.shape), GAUSSIANS)[first:] * grid.pixel_scale
    widths = torch.as_tensor(widths)[:, None]
    gaussians = torch.exp(-square / (2 * widths**2))
    twisted = gaussians / widths**2
    return torch.cat([gaussians, twisted * (along**2 - across**2), twisted * along * across])


def _halo_left(residual, weight, x, y, grid, galaxy):
    """What the first lens light has left of the halo of a galaxy (N,), and of the sky; arcs are outliers."""
    wide = torch.cat([torch.ones_like(x)[None], _gaussians(x, y, grid, galaxy, GAUSSIANS - OF_HALO)])
    trust, root = torch.ones_like(residual), weight.sqrt()
    used = weight > 0
    for _ in range(ROUNDS):
        rows = (root * trust.sqrt())[used]
        system, right = wide[:, used] * rows, residual[used] * rows
        # By singular values: torch's lstsq gives other last bits from one call to the next.
        amplitudes = torch.linalg.pinv(system.T) @ right
        left = (residual - amplitudes @ wide) * root
        scatter = (left[used] ** 2).median() / CHI2_MEDIAN
        trust = 1 / (1 + left**2 / (OUTLIERS * scatter.clamp_min(1.0)))
    return amplitudes @ wide


def _bin_factor(stack):
    """How many pixels along an axis make one of those that are compared."""
    scale, side = stack.grid.pixel_scale, min(stack.grid.shape)
    return max(1, round(max(side / FIELD_PIXELS, FINEST / scale)))


def _mean3(image, shape):
    """Mean of 3 x 3 pixels (N,) of an image."""
    return torch.nn.functional.avg_pool2d(image.reshape(1, 1, *shape), 3, 1, 1).flatten()
