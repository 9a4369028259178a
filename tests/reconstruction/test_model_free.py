"""Bicubic interpolation and its errors."""

import astropy.units as u
import numpy as np
import pytest

from lenssr import SuperResolver
from lenssr.metrics import bicubic
from lenssr.reconstruction.model_free import _bicubic_error, fill_masked


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_error_equals_monte_carlo(scale, rng):
    sigma = rng.uniform(0.5, 2, (7, 9))
    sampled = bicubic(rng.normal(size=(4000, 7, 9)) * sigma, scale).std(0)
    np.testing.assert_allclose(_bicubic_error(sigma, scale), sampled, rtol=0.06)


@pytest.mark.parametrize("shape", [(1, 5), (2, 2), (3, 8)])
def test_error_of_tiny_images(shape, rng):
    sigma = np.ones(shape)
    sampled = bicubic(rng.normal(size=(4000, *shape)), 2).std(0)
    np.testing.assert_allclose(_bicubic_error(sigma, 2), sampled, rtol=0.06)


@pytest.mark.parametrize("scale", [1, 2, 3])
@pytest.mark.parametrize("unit", ["electron / s", "MJy / sr"])
def test_image_is_the_metrics_bicubic(scale, unit, rng):
    data = rng.normal(size=(12, 9))
    resolver = SuperResolver(source="interpolation", scale=scale)
    result = resolver(data * u.Unit(unit), pixel_scale=0.1, noise=1.0)
    expected = bicubic(data, scale) * (1 if unit == "electron / s" else scale**2)
    np.testing.assert_allclose(result.image.data, expected)
    ratio = result.image.uncertainty.array / _bicubic_error(np.ones((12, 9)), scale)
    np.testing.assert_allclose(ratio, result.image.data / bicubic(data, scale))
    assert result.image.unit == u.Unit(unit)
    assert result.flags == ("small_image", "interpolated")


def test_masked_pixels_take_the_mean_of_their_neighbours(rng):
    data = rng.normal(size=(12, 12))
    mask = np.zeros(data.shape, dtype=bool)
    mask[5, 5] = mask[0, 0] = True
    filled = fill_masked(np.where(mask, np.nan, data), mask)
    assert filled[5, 5] == pytest.approx(np.delete(data[4:7, 4:7].ravel(), 4).mean())
    assert filled[0, 0] == pytest.approx((data[0, 1] + data[1, 0] + data[1, 1]) / 3)
    np.testing.assert_array_equal(filled[~mask], data[~mask])


def test_large_holes_are_filled():
    mask = np.ones((30, 30), dtype=bool)
    mask[0, 0] = False
    np.testing.assert_allclose(fill_masked(np.full(mask.shape, 2.0), mask), 2.0)


def test_mask_of_the_result_covers_its_pixels(rng):
    mask = np.zeros((20, 20), dtype=bool)
    mask[3, 7] = True
    result = SuperResolver(source="interpolation", scale=3)(
        rng.normal(size=(20, 20)), pixel_scale=0.1, noise=1.0, mask=mask
    )
    assert np.argwhere(result.image.mask).tolist() == [[r, c] for r in (9, 10, 11) for c in (21, 22, 23)]
    assert result.chi2_map[3, 7] == 0 and np.isfinite(result.image.data).all()
