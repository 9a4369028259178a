"""The grid of a free-form source and its map to rays."""

import numpy as np
import pytest

from lenssr.inversion import SourceGrid


@pytest.fixture
def grid():
    return SourceGrid(0.1, -0.2, 0.6, 13)


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
