"""Objectives of a training without high-resolution images, one function each.

All are scalars, smallest (most zero) for the truth, means over pixels and images, and independent of the unit
of the images. Recipes add them with weights.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from lenssr.networks import LensEstimate


def data_consistency(model: Tensor, data: Tensor, variance: Tensor, seen: Tensor | None = None) -> Tensor:
    r"""Mean squared residual in units of the noise: 1 for the truth.

    .. math:: \frac{1}{N} \sum_i \frac{(d_i - m_i)^2}{\sigma_i^2}

    Parameters
    ----------
    model, data, variance : `torch.Tensor`, shape (B, ny, nx)
        Expected data, data, and their variance; pixels whose variance is not finite do not count.
    seen : `torch.Tensor` of bool, shape (B, ny, nx), optional
        Pixels that count; all by default.

    References
    ----------
    Warren & Dye 2003, ApJ 590, 673.
    """
    counts = torch.isfinite(variance) if seen is None else seen & torch.isfinite(variance)
    # Data of masked pixels may be NaN, so they must not enter a product either.
    miss = torch.where(counts, data - model, 0)
    return (miss.square() / torch.where(counts, variance, 1)).sum() / counts.sum().clamp_min(1)


def draw_hidden(like: Tensor, fraction: float, generator: torch.Generator) -> Tensor:
    r"""Choose pixels (B, ny, nx) to hide from a network, which it is trained to predict.

    A network cannot copy the noise of hidden pixels: for noise that is independent from pixel to pixel, the
    loss on them is that against the truth up to a constant,

    .. math:: \mathrm{E}\,(d_i - m_i)^2 = \mathrm{E}\,(t_i - m_i)^2 + \sigma_i^2 .

    Parameters
    ----------
    like : `torch.Tensor`, shape (B, ny, nx)
    fraction : float
        Share of the pixels, drawn independently.
    generator : `torch.Generator`
        On the CPU; the choice is the same on every device.

    References
    ----------
    Batson & Royer 2019, ICML, 524 (Noise2Self); Krull et al. 2019, CVPR, 2129 (Noise2Void).
    """
    return (torch.rand(like.shape, generator=generator) < fraction).to(like.device)


def lens_equation(image: Tensor, relensed: Tensor, data: Tensor) -> Tensor:
    r"""The lens equation as a soft constraint, as in LensSR: image and re-lensed source should agree.

    .. math:: \frac{\langle (I(\theta) - S(\theta - \alpha(\theta)))^2 \rangle}{\langle d^2 \rangle}

    Parameters
    ----------
    image, relensed : `torch.Tensor`, shape (B, ny k, nx k)
        Flux in fine pixels: image of one network, lensed source of another.
    data : `torch.Tensor`, shape (B, ny, nx)
        The low image, which sets the unit.

    References
    ----------
    Schneider, Ehlers & Falco 1992, Gravitational Lenses (the equation, and why brightness is conserved).
    """
    return _relative(image - relensed, data, _factor(image, data))


def source_intensity(image: Tensor, relensed: Tensor, data: Tensor) -> Tensor:
    r"""Intensity conservation from image to source: both hold the same flux in the image plane.

    .. math::

        \left( \frac{\sum_\theta I(\theta) - \sum_\theta S(\theta - \alpha(\theta))}{\sum_i d_i} \right)^2

    The second sum is the flux of the source times its magnification.

    Parameters
    ----------
    image, relensed, data : `torch.Tensor`
        As for `lens_equation`.

    References
    ----------
    As for `lens_equation`.
    """
    total = data.abs().sum((-2, -1)).clamp_min(torch.finfo(data.dtype).tiny)
    return ((image - relensed).sum((-2, -1)) / total).square().mean()


def pixel_intensity(image: Tensor, data: Tensor, variance: Tensor) -> Tensor:
    r"""Intensity conservation from image to low image: fine pixels sum to the coarse pixel.

    .. math:: \frac{1}{N} \sum_i \frac{(d_i - \sum_{j \in i} I_j)^2}{\sigma_i^2}

    Parameters
    ----------
    image : `torch.Tensor`, shape (B, ny k, nx k)
        Flux in fine pixels.
    data, variance : `torch.Tensor`, shape (B, ny, nx)

    References
    ----------
    Irani & Peleg 1991, CVGIP 53, 231 (a fine image must give the coarse one back).
    """
    return data_consistency(_block_sums(image, _factor(image, data)), data, variance)


def multi_scale(
    image: Tensor, data: Tensor, variance: Tensor, factors: Sequence[float] = (0.5, 1, 2)
) -> Tensor:
    r"""Agreement with the data at several resolutions.

    .. math:: \frac{1}{F} \sum_f \frac{1}{N_f} \sum_i \frac{(d_{f,i} - I_{f,i})^2}{\sigma_{f,i}^2}

    where fluxes are summed over larger pixels for f < 1, and data are interpolated (bicubic) to smaller
    ones for f > 1, with the variance of independent counts.

    Parameters
    ----------
    image : `torch.Tensor`, shape (B, ny k, nx k)
        Flux in fine pixels.
    data, variance : `torch.Tensor`, shape (B, ny, nx)
    factors : sequence of float, optional
        Resolutions relative to the data: 1 over an integer, or an integer that divides k; (0.5, 1, 2) by
        default.

    References
    ----------
    Lai et al. 2017, CVPR, 5835 (losses at each resolution of a pyramid).
    """
    losses = [_at_resolution(image, data, variance, factor) for factor in factors]
    return torch.stack(losses).mean()


def _at_resolution(image: Tensor, data: Tensor, variance: Tensor, factor: float) -> Tensor:
    """`data_consistency` of pixels 1 / ``factor`` times as large as those of the data."""
    fine = _factor(image, data)
    if factor >= 1:
        finer = data if factor == 1 else enlarged(data, int(factor))
        spread = variance.repeat_interleave(int(factor), -2).repeat_interleave(int(factor), -1)
        return data_consistency(_block_sums(image, fine // int(factor)), finer, spread / factor**2)
    coarse, known = round(1 / factor), torch.isfinite(variance)
    # A block with a masked pixel does not count: its variance is infinite.
    kept = torch.where(known, data, 0), torch.where(known, variance, torch.inf)
    flux, counts, noise = (_block_sums(part, coarse) for part in (_block_sums(image, fine), *kept))
    return data_consistency(flux, counts, noise)


def target_error(image: Tensor, target: Tensor) -> Tensor:
    r"""Relative error against an image of the same pixels: the bicubic image, or the truth.

    .. math:: \frac{\langle (I - t)^2 \rangle}{\langle t^2 \rangle}

    Parameters
    ----------
    image, target : `torch.Tensor`, shape (B, ny, nx)

    References
    ----------
    Dong et al. 2016, IEEE TPAMI 38, 295 (super-resolution learned from known images).
    """
    return _relative(image - target, target, 1)


def variation_density(alpha_x: Tensor, alpha_y: Tensor, pixel_scale: float) -> Tensor:
    r"""Total variation of a deflection per unit area; twice the convergence for a sheet of mass.

    .. math::

        \langle |\partial_x \alpha_x| + |\partial_y \alpha_x|
        + |\partial_x \alpha_y| + |\partial_y \alpha_y| \rangle

    Parameters
    ----------
    alpha_x, alpha_y : `torch.Tensor`, shape (B, ny, nx)
        Deflection at pixel centres, in arcsec.
    pixel_scale : float
        In arcsec.

    References
    ----------
    Rudin, Osher & Fatemi 1992, Physica D 60, 259.
    """
    alphas = (alpha_x, alpha_y)
    slopes = (alpha.diff(dim=axis).abs().mean() / pixel_scale for alpha in alphas for axis in (-2, -1))
    return sum(slopes, alpha_x.new_zeros(()))


def source_smoothness(log_brightness: Tensor) -> Tensor:
    r"""Mean squared curvature of the logarithm of a source, in units of the nodes.

    .. math::

        \langle (g_{i+1,j} - 2 g_{i,j} + g_{i-1,j})^2 \rangle
        + \langle (g_{i,j+1} - 2 g_{i,j} + g_{i,j-1})^2 \rangle

    Parameters
    ----------
    log_brightness : `torch.Tensor`, shape (B, side, side)

    References
    ----------
    Suyu et al. 2006, MNRAS 371, 983 (curvature of the source as a prior; here of its logarithm).
    """
    rows, columns = (log_brightness.diff(n=2, dim=axis).square().mean() for axis in (-2, -1))
    return rows + columns


def positive_convergence(kappa: Tensor) -> Tensor:
    r"""Mean square of negative convergence, which no mass can have.

    .. math:: \langle \max(0, -\kappa)^2 \rangle

    Parameters
    ----------
    kappa : `torch.Tensor`
        Convergence at positions.

    References
    ----------
    Schneider, Ehlers & Falco 1992, Gravitational Lenses (convergence as surface mass density).
    """
    return (-kappa).clamp_min(0).square().mean()


def lens_error(estimate: LensEstimate, vector: Tensor) -> Tensor:
    r"""Mean squared error of estimated lens parameters, as the free numbers u of the network.

    .. math:: \langle (u - \hat u)^2 \rangle

    Parameters
    ----------
    estimate : `~lenssr.networks.LensEstimate`
    vector : `torch.Tensor`, shape (B, 7)
        The truth.

    References
    ----------
    Hezaveh, Perreault Levasseur & Marshall 2017, Nature 548, 555.
    """
    return estimate.miss(vector).square().mean()


def lens_likelihood(estimate: LensEstimate, vector: Tensor) -> Tensor:
    r"""Negative log likelihood of the true lens parameters under an estimate; it trains its errors only.

    .. math:: \frac{1}{2} (u - \hat u)^T C^{-1} (u - \hat u) + \frac{1}{2} \ln \det 2 \pi C

    Parameters
    ----------
    estimate : `~lenssr.networks.LensEstimate`
    vector : `torch.Tensor`, shape (B, 7)
        The truth.

    References
    ----------
    Nix & Weigend 1994, ICNN, 55 (the likelihood as a loss); Stirn et al. 2023, AISTATS, 5593 (the mean held).
    """
    return estimate.negative_log_likelihood(vector, hold_mean=True).mean()


def _factor(image: Tensor, data: Tensor) -> int:
    """Number of fine pixels along one of the data."""
    return image.shape[-1] // data.shape[-1]


def _relative(difference: Tensor, data: Tensor, factor: int) -> Tensor:
    """Mean square of a difference over the mean square of the data in factor^2 pixels; mean over images."""
    unit = (data / factor**2).square().mean((-2, -1)).clamp_min(torch.finfo(data.dtype).tiny)
    return (difference.square().mean((-2, -1)) / unit).mean()


def _block_sums(image: Tensor, factor: int) -> Tensor:
    """Sums over blocks of factor x factor pixels; incomplete blocks are cut off."""
    return image if factor == 1 else avg_pool2d(image[:, None], factor, divisor_override=1)[:, 0]


def enlarged(image: Tensor, factor: int) -> Tensor:
    """Bicubic images (B, ny * factor, nx * factor), flux conserved, with gradients."""
    return interpolate(image[:, None], scale_factor=factor, mode="bicubic")[:, 0] / factor**2
