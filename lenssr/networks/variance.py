"""What an image tells of its own noise, and how far its light stands out of it."""

import torch
from torch.nn.functional import avg_pool2d

from lenssr.networks.source_plane import lit_pixels

__all__ = ["signal_to_noise", "told_variance"]

# Variances below this share of an image's largest are those of hardly a count.
LEAST_VARIANCE = 1e-3


def told_variance(image, noise, seen=None):
    """Variance of images as they tell it themselves.

    That of the mean of the 3 x 3 pixels around, those that are seen; so the variance of a hidden pixel does
    not know its noise, and weights by it are unbiased.

    Parameters
    ----------
    image : `torch.Tensor`, shape (B, ny, nx)
    noise : `~lenssr.imaging.NoiseModel`
        Of all images together.
    seen : `torch.Tensor` of bool, shape (B, ny, nx), optional
        Which pixels are; all by default.

    Returns
    -------
    variance : `torch.Tensor`, shape (B, ny, nx)
    """
    seen = torch.ones_like(image) if seen is None else seen.to(image)
    total, number = torch.where(seen > 0, image, 0), seen
    guess = torch.zeros_like(total)
    for side in (5, 3):  # the smaller neighbourhood where it holds anything
        planes = torch.stack([total, number], 1)
        sums = avg_pool2d(planes, side, 1, side // 2, divisor_override=1)
        guess = torch.where(sums[:, 1] > 0.5, sums[:, 0] / sums[:, 1].clamp_min(1), guess)
    variance = noise.moments(guess.clamp_min(0))[2].to(guess).expand_as(guess)
    # Errors of pixels that are not seen may be anything.
    least = LEAST_VARIANCE * torch.where(seen > 0, variance, 0).amax((-2, -1), keepdim=True)
    return torch.maximum(variance, least.clamp_min(torch.finfo(guess.dtype).tiny))


def signal_to_noise(image, variance):
    """Signal-to-noise ratio of all pixels together in which light stands out.

    Parameters
    ----------
    image, variance : `torch.Tensor`, shape (B, ny, nx)
        Pixels whose variance is not finite do not count.

    Returns
    -------
    ratio : `torch.Tensor`, shape (B,)
    """
    lit = lit_pixels(image, variance.sqrt())
    return torch.where(lit, image.square() / variance, 0).sum((-2, -1)).sqrt()
