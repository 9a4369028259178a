"""A forward model for galaxies with cusps, whose rays follow the galaxies from fit to fit."""

import math

import numpy as np
import torch
from scipy import ndimage

from lenssr.exceptions import InputError
from lenssr.imaging.cusp_operator import CentredOperator
from lenssr.imaging.operator import Convolution, sharpened

__all__ = ["FollowingOperator", "effective_kernel"]

# Lattice points across the response of a pixel: with 2.6 of them 0.1 % of the light of a cusp is misplaced.
POINTS_ACROSS = 2.0
# The same where the light is thin, or the noise so low that 0.1 % are too many.
FINE_POINTS_ACROSS = 4.0
# A pixel blurs as much as a Gaussian of this FWHM; by itself it has no end to its frequencies.
PIXEL_WIDTH, MOST_POINTS = 0.8, 4
# Widths below are in steps of the lattice. The share of a profile that its own rays carry falls off as
# (1 + t + t^2 / 2) exp(-t), t = r^2 / (2 CORE^2): what is left for the lattice rises as r^6 from the cusp.
CORE, REACH = 1.1, 6.0
RADII, RADIAL_POWER = 14, 3
FEWEST_ANGLES, ANGLE_DENSITY, MOST_ANGLES = 20, 6.0, 32
# A ray is spread over this many points to each side, by a sinc under an exponential of a semicircle.
TAPS, WINDOW = 7, 6.0
SPREAD_DEGREE = 9
# Share of a PSF beyond the margin that is modelled around a stamp.
BEYOND_MARGIN, MOST_MARGIN = 0.02, 16


def effective_kernel(psf, pixel_scale=1.0, *, points_across=POINTS_ACROSS):
    """Response of a pixel to a point of light, on a lattice that is fine enough for it.

    Parameters
    ----------
    psf : `~lenssr.imaging.PSF` or None
        None stands for the pixel alone.
    pixel_scale : float, optional
        Of the image, in arcsec; default 1.
    points_across : float, optional
        How many points of the lattice lie across the FWHM of the response at least.

    Returns
    -------
    kernel : `~numpy.ndarray`, odd sides
        PSF and pixel together, of sum 1.
    subsampling : int
        Points of the lattice along a pixel, at most 4.

    Examples
    --------
    >>> import astropy.units as u
    >>> from lenssr.imaging import PSF
    >>> from lenssr.imaging.tracking_operator import effective_kernel
    >>> kernel, subsampling = effective_kernel(PSF.from_fwhm(0.25 * u.arcsec), 0.1)
    >>> kernel.shape, subsampling
    ((13, 13), 1)
    """
    across, pixel = 0.0, True
    if psf is not None:
        across, pixel = psf.fwhm_at(pixel_scale) / pixel_scale, not psf.includes_pixel
    across = math.hypot(across, PIXEL_WIDTH * pixel)
    subsampling = min(MOST_POINTS, math.ceil(points_across / across))
    fine = 2 * max(3, math.ceil(3 / subsampling)) + 1
    side = fine * subsampling
    kernel = np.ones((1, 1)) if psf is None else psf.kernel(pixel_scale, subsampling=side)
    if pixel:
        kernel = _box(np.pad(kernel, side), side)
    middle = [size // 2 % fine for size in kernel.shape]
    kernel = kernel[middle[0] :: fine, middle[1] :: fine]
    return kernel / kernel.sum(), subsampling


def _box(kernel, side):
    """Mean over a box of so many samples, centred; of an even number the two at the ends count half."""
    weights = np.full(side + 1 - side % 2, 1 / side)
    if side % 2 == 0:
        weights[[0, -1]] /= 2
    for axis in (0, 1):
        kernel = ndimage.convolve1d(kernel, weights, axis=axis, mode="constant")
    # Samples have not the variance of a box: those of an odd number lack that within them.
    return sharpened(torch.as_tensor(kernel), -1 / 12 if side % 2 else 1 / 6).numpy()


class FollowingOperator(CentredOperator):
    """The linear map from the brightness of a profile to the flux in pixels, its cusp wherever it moves.

    Parameters
    ----------
    shape : tuple of int
        ``(ny, nx)`` of the images. Lengths are in pixels, from the centre of the image.
    kernel : array, shape (ky, kx)
        Response of a pixel, from `effective_kernel`.
    subsampling : int, optional
        Points of the lattice along a pixel, by default 1.
    margin : int, optional
        Pixels around the image whose light is modelled, because the PSF scatters it in. By default as far
        as holds 98 % of the PSF, and 16 at most.
    dtype : `torch.dtype`, optional
        Default float64.
    device : str or `torch.device`, optional
        Default "cpu".

    Notes
    -----
    A pixel's flux is an integral over the plane of the brightness times the pixel's response. The response
    is smooth, and so is the brightness away from the centre, for which a sum over a lattice of points is as
    good as exact. Near the centre the brightness is multiplied by a smooth share that falls off within a few
    pixels; this part is integrated on circles about the centre, crowded towards it, and its rays are spread
    over the lattice by interpolation weights. Both parts differentiate through the brightness alone.

    On profiles of r_eff = 2 to 8 pixels, n = 0.5 to 6, behind a PSF of 2.5 pixels FWHM, the image is right
    within 0.1 % of its norm with 1 point in a pixel, and within 0.01 % with 2.

    Examples
    --------
    >>> import torch
    >>> from lenssr.imaging.tracking_operator import FollowingOperator
    >>> operator = FollowingOperator((9, 9), torch.ones(3, 3) / 9)
    >>> centre = torch.zeros(2, 1, 1).double()
    >>> x, y, share = operator.rays(*centre)
    >>> cells = operator.collect(torch.exp(-(x**2 + y**2) / 8).unsqueeze(1), *centre, share)
    >>> round(float(operator.convolve(cells)[0, 0, 4, 4]), 2)
    0.85
    """

    def __init__(self, shape, kernel, *, subsampling=1, margin=None, dtype=torch.float64, device="cpu"):
        kernel = np.asarray(kernel)
        if not isinstance(subsampling, int) or subsampling < 1:
            raise InputError(f"subsampling = {subsampling!r}: give a positive integer")
        self.shape, self.step = tuple(shape), 1 / subsampling
        margin = _margin(kernel, subsampling) if margin is None else margin * subsampling
        self._subsampling, self._margin = subsampling, margin
        self.lattice = tuple((size - 1) * subsampling + 1 + 2 * margin for size in shape)
        options = {"dtype": dtype, "device": device}
        self._axes = [(torch.arange(size, **options) - (size - 1) / 2) * self.step for size in self.lattice]
        y, x = torch.meshgrid(*self._axes, indexing="ij")
        self.x, self.y = x.reshape(1, -1), y.reshape(1, -1)
        self._offset_x, self._offset_y, self._weight = (torch.as_tensor(p).to(**options) for p in _circles())
        self._convolution = Convolution(kernel, self.lattice, **options)
        self._half = math.ceil(REACH + TAPS + 0.5)
        self._tables = [_spreading(o.cpu().numpy(), self._half) for o in (self._offset_y, self._offset_x)]
        self._tables = [torch.as_tensor(table).to(**options) for table in self._tables]

    def rays(self, x_0, y_0):
        """Place rays on the lattice, then on circles about the centre."""
        step = self.step
        t = torch.addcmul((self.x - x_0).square(), self.y - y_0, self.y - y_0) / (2 * (CORE * step) ** 2)
        share = 1 - (1 + t + t**2 / 2) * torch.exp(-t)
        x = torch.cat([self.x.expand(len(x_0), -1), x_0 + step * self._offset_x], 1)
        y = torch.cat([self.y.expand(len(y_0), -1), y_0 + step * self._offset_y], 1)
        return x, y, share

    def collect(self, values, x_0, y_0, share):
        """Spread the rays over the lattice."""
        number = self.x.shape[1]
        cells = values[..., :number] * share.unsqueeze(1)
        (rows, over_rows), (columns, over_columns) = (
            self._spread(centre, axis, table)
            for centre, axis, table in zip((y_0, x_0), self._axes, self._tables, strict=True)
        )
        own = values[..., number:] * self._weight
        patch = (own.unsqueeze(-1) * over_rows.unsqueeze(1)).mT @ over_columns.unsqueeze(1)
        index = (rows.unsqueeze(2) * self.lattice[1] + columns.unsqueeze(1)).flatten(1)
        cells.scatter_add_(-1, index.unsqueeze(1).expand(-1, values.shape[1], -1), patch.flatten(2))
        return cells.reshape(*values.shape[:-1], *self.lattice)

    def _spread(self, centre, axis, table):
        """Points (B, W) of one axis near a centre (B, 1), and the weights (B, K, W) of each ray for them."""
        at = (centre - axis[0]) / self.step
        nearest = at.round()
        powers = (at - nearest) ** torch.arange(len(table), dtype=at.dtype, device=at.device)
        weights = (powers @ table.flatten(1)).reshape(len(at), *table.shape[1:])
        reach = torch.arange(-self._half, self._half + 1, device=at.device)
        points = nearest.long() + reach
        inside = (points >= 0) & (points < len(axis))
        return points.clamp(0, len(axis) - 1), weights * inside.unsqueeze(1)

    def convolve(self, cells):
        """Weigh the lattice by the response of each pixel."""
        image, k = self._convolution(cells), self._subsampling
        rows, columns = (slice(self._margin, size - self._margin, k) for size in self.lattice)
        return image[..., rows, columns]


def _margin(kernel, subsampling):
    """Points beyond the image that scatter light into it."""
    half = max(kernel.shape) // 2
    rows, columns = (np.abs(np.arange(size) - size // 2) for size in kernel.shape)
    distance = np.maximum(rows[:, None], columns)
    inside = np.array([kernel[distance <= k].sum() for k in range(half + 1)])
    enough = int(np.argmax(inside > (1 - BEYOND_MARGIN) * inside[-1]))
    # Whole pixels: the points of the image are every so many of the lattice.
    return min(-(-enough // subsampling), MOST_MARGIN) * subsampling


def _circles():
    """Rays on circles about a centre: their offsets, and their areas times the share that they carry."""
    nodes, weights = np.polynomial.legendre.leggauss(RADII)
    u_, weights = (nodes + 1) / 2, weights / 2
    radii = REACH * u_**RADIAL_POWER
    areas = weights * RADIAL_POWER * REACH * u_ ** (RADIAL_POWER - 1) * radii * 2 * np.pi
    t = radii**2 / (2 * CORE**2)
    areas *= (1 + t + t**2 / 2) * np.exp(-t)
    parts = []
    for k, (radius, area) in enumerate(zip(radii, areas, strict=True)):
        number = int(np.clip(2 * math.ceil(ANGLE_DENSITY * radius / 2), FEWEST_ANGLES, MOST_ANGLES))
        angle = 2 * np.pi * (np.arange(number) + k % 2 / 2) / number
        parts.append((radius * np.cos(angle), radius * np.sin(angle), np.full(number, area / number)))
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def _spreading(offsets, half):
    """Weights of rays for the points around a centre, as polynomials in its place between two points.

    The array has the shape (degree + 1, rays, 2 * half + 1).
    """
    # Nodes of Chebyshev make the polynomial good to round-off's neighbourhood all over the half-open pixel.
    nodes = np.cos(np.pi * (np.arange(SPREAD_DEGREE + 1) + 0.5) / (SPREAD_DEGREE + 1)) / 2
    distance = nodes[:, None, None] + offsets[:, None] - np.arange(-half, half + 1)
    window = np.exp(WINDOW * (np.sqrt((1 - (distance / TAPS) ** 2).clip(0)) - 1)) * (np.abs(distance) < TAPS)
    values = np.sinc(distance) * window
    inverse = np.linalg.inv(np.vander(nodes, increasing=True))
    return np.tensordot(inverse, values, 1)
