"""The grid of a free-form source and its map to rays."""

import numpy as np
import pytest
import torch

from lenssr.light.sersic import sersic_brightness
from lenssr.source import SourceGrid, SourceMap


@pytest.fixture(params=[0.0, 1.5])
def grid(request):
    return SourceGrid(0.1, -0.2, 0.6, 13, request.param)


def test_interpolation_is_exact_for_bilinear_functions(grid, rng):
    x, y = grid.nodes
    rays_x, rays_y = rng.uniform(-0.4, 0.6, 50), rng.uniform(-0.7, 0.3, 50)

    def plane(x, y):
        return 2 + 3 * x - y + 0.5 * x * y

    np.testing.assert_allclose(grid.matrix(rays_x, rays_y) @ plane(x, y), plane(rays_x, rays_y), rtol=1e-12)


def test_rays_outside_see_nothing(grid):
    outside = np.array([-0.51, 0.71, 0.1, 0.1]), np.array([-0.2, -0.2, -0.81, 0.41])
    assert (grid.matrix(*outside) @ np.ones(grid.size) == 0).all()


def test_weights_of_a_ray_inside_sum_to_one(grid, rng):
    matrix = grid.matrix(rng.uniform(-0.5, 0.7, 40), rng.uniform(-0.8, 0.4, 40))
    np.testing.assert_allclose(matrix.sum(axis=1), 1)


def test_slopes_equal_finite_differences(grid, rng):
    values = rng.normal(size=grid.size)
    x, y = rng.uniform(-0.4, 0.6, 30), rng.uniform(-0.7, 0.3, 30)
    step = 1e-7
    along_x, along_y = grid.slope(values, x, y)
    np.testing.assert_allclose(
        along_x, ((grid.matrix(x + step, y) - grid.matrix(x - step, y)) @ values) / (2 * step), atol=1e-5
    )
    np.testing.assert_allclose(
        along_y, ((grid.matrix(x, y + step) - grid.matrix(x, y - step)) @ values) / (2 * step), atol=1e-5
    )


def test_a_grid_around_positions_holds_them_with_a_node_to_spare(rng):
    x, y = rng.normal(0.3, 0.1, 100), rng.normal(-0.1, 0.05, 100)
    grid = SourceGrid.around(x, y, 20)
    assert grid.locate(x, y)[3].all()
    assert grid.half == pytest.approx((x.max() - x.min()) / 2 + grid.spacing)
    assert SourceGrid.around(x, y, 20, 2.0).locate(x, y)[3].all()


def test_a_map_with_a_sersic_multiplies_it(grid, rng):
    sersic = torch.tensor([2.0, 0.2, 1.5, 0.12, -0.15, 0.1, -0.2], dtype=torch.float64)
    mapping, values = SourceMap(grid, sersic), rng.uniform(0.5, 1.5, grid.size)
    x, y = rng.uniform(-0.4, 0.6, 20), rng.uniform(-0.7, 0.3, 20)
    profile = sersic_brightness(torch.as_tensor(x), torch.as_tensor(y), *sersic.reshape(1, 7, 1).unbind(1))[0]
    np.testing.assert_allclose(mapping.matrix(x, y) @ values, profile.numpy() * (grid.matrix(x, y) @ values))
    step = 1e-6
    for slope, (dx, dy) in zip(mapping.slope(values, x, y), ((step, 0), (0, step)), strict=True):
        ends = [mapping.matrix(x + sign * dx, y + sign * dy) @ values for sign in (1, -1)]
        np.testing.assert_allclose(slope, (ends[0] - ends[1]) / (2 * step), rtol=1e-4, atol=1e-4)
