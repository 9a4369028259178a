"""Variance and signal-to-noise ratio of images, estimated from the images."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

__all__ = ["signal_to_noise", "significant_pixels", "variance_from_neighbours"]

# Side of the window, in pixels, and significance of its sum, in sigma, above which its centre is significant.
WINDOW_SIDE, WINDOW_SIGMA = 5, 5.0

# Least variance over the largest of an image: lower ones come from hardly a count.
LEAST_VARIANCE_SHARE = 1e-3


def variance_from_neighbours(image: Tensor, noise: Any, seen: Tensor | None = None) -> Tensor:
    """Variance of images (B, ny, nx), from the mean of the 3 x 3 pixels around each that are not hidden.

    The variance of a hidden pixel does not depend on its noise, so weights by it are unbiased. ``seen`` (B,
    ny, nx) marks the pixels that are not hidden; by default all.
    """
    seen = torch.ones_like(image) if seen is None else seen.to(image)
    total, number = torch.where(seen > 0, image, 0), seen
    guess = torch.zeros_like(total)
    for side in (5, 3):  # The 3 x 3 pixels replace the 5 x 5 where any of them is seen.
        planes = torch.stack([total, number], 1)
        sums = avg_pool2d(planes, side, 1, side // 2, divisor_override=1)
        guess = torch.where(sums[:, 1] > 0.5, sums[:, 0] / sums[:, 1].clamp_min(1), guess)
    variance = noise.moments(guess.clamp_min(0))[2].to(guess).expand_as(guess)
    # The variance of hidden pixels may be arbitrary.
    least = LEAST_VARIANCE_SHARE * torch.where(seen > 0, variance, 0).amax((-2, -1), keepdim=True)
    return torch.maximum(variance, least.clamp_min(torch.finfo(guess.dtype).tiny))


def significant_pixels(image: Tensor, sigma: Tensor) -> Tensor:
    """Pixels (B, ny, nx) in or near significant light; those with infinite ``sigma`` are ignored."""
    seen = torch.isfinite(sigma)
    planes = torch.stack([torch.where(seen, image, 0), torch.where(seen, sigma, 0).square()], 1)
    total, variance = avg_pool2d(planes, WINDOW_SIDE, 1, WINDOW_SIDE // 2, divisor_override=1).unbind(1)
    return seen & (total > WINDOW_SIGMA * variance.sqrt())


def signal_to_noise(image: Tensor, variance: Tensor) -> Tensor:
    """Signal-to-noise ratio (B,) of all significant pixels; infinite variances are ignored."""
    lit = significant_pixels(image, variance.sqrt())
    return torch.where(lit, image.square() / variance, 0).sum((-2, -1)).sqrt()
