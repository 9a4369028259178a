"""Which pixels a network takes for light."""

import torch

from lenssr.imaging.detection import significant_pixels


def test_pixels_are_lit_by_light_and_not_by_noise_or_masked_pixels(rng):
    image = torch.as_tensor(rng.normal(size=(1, 60, 60)))
    image[0, 10:14, 10:14] += 6
    image[0, 40, 40] = torch.nan
    sigma = torch.ones_like(image)
    sigma[0, 40, 40] = torch.inf
    significant = significant_pixels(image, sigma)[0]
    assert significant[10:14, 10:14].all() and not significant[20:, 20:].any()
