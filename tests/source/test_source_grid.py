"""The grid of a free-form source and its map to rays."""

import numpy as np
import pytest
import torch

from lenssr.light.sersic import sersic_brightness
from lenssr.source import SourceGrid


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


def rays_of(grid, x, y, sersic=None):
    return grid.rays(torch.as_tensor(x), torch.as_tensor(y), sersic)


def test_slopes_equal_finite_differences(grid, rng):
    values = rng.normal(size=grid.size)
    x, y = rng.uniform(-0.4, 0.6, 30), rng.uniform(-0.7, 0.3, 30)
    step = 1e-7
    along_x, along_y = rays_of(grid, x, y).slope(torch.as_tensor(values))
    np.testing.assert_allclose(
        along_x, ((grid.matrix(x + step, y) - grid.matrix(x - step, y)) @ values) / (2 * step), atol=1e-5
    )
    np.testing.assert_allclose(
        along_y, ((grid.matrix(x, y + step) - grid.matrix(x, y - step)) @ values) / (2 * step), atol=1e-5
    )


def test_a_grid_around_positions_holds_them_with_a_node_to_spare(rng):
    x, y = rng.normal(0.3, 0.1, 100), rng.normal(-0.1, 0.05, 100)
    grid = SourceGrid.around(x, y, 20)
    assert grid.matrix(x, y).sum(axis=1) == pytest.approx(1)
    assert grid.half == pytest.approx((x.max() - x.min()) / 2 + grid.spacing)
    assert SourceGrid.around(x, y, 20, 2.0).matrix(x, y).sum(axis=1) == pytest.approx(1)


def test_a_map_with_a_sersic_multiplies_it(grid, rng):
    sersic = torch.tensor([2.0, 0.2, 1.5, 0.12, -0.15, 0.1, -0.2], dtype=torch.float64)
    values = rng.uniform(0.5, 1.5, grid.size)
    x, y = rng.uniform(-0.4, 0.6, 20), rng.uniform(-0.7, 0.3, 20)
    profile = sersic_brightness(torch.as_tensor(x), torch.as_tensor(y), *sersic.reshape(1, 7, 1).unbind(1))[0]
    np.testing.assert_allclose(
        rays_of(grid, x, y, sersic).matrix() @ values, profile.numpy() * (grid.matrix(x, y) @ values)
    )
    step = 1e-6
    slopes = rays_of(grid, x, y, sersic).slope(torch.as_tensor(values))
    for slope, (dx, dy) in zip(slopes, ((step, 0), (0, step)), strict=True):
        ends = [rays_of(grid, x + s * dx, y + s * dy, sersic).matrix() @ values for s in (1, -1)]
        np.testing.assert_allclose(slope, (ends[0] - ends[1]) / (2 * step), rtol=1e-4, atol=1e-4)


SIDE = 9


def batch(stretch, dtype=torch.float64):
    centres = torch.tensor([[0.1, -0.2], [0.4, 0.0]], dtype=dtype)
    return SourceGrid(*centres, torch.tensor([0.7, 1.3], dtype=dtype), SIDE, stretch)


def positions(rng, number=60, reach=1.5):
    return torch.as_tensor(rng.uniform(-reach, reach, (2, 2, number)))


@pytest.mark.parametrize("stretch", [0.0, 1.25])
def test_interpolation_and_its_transpose_are_those_of_the_inversion(stretch, rng):
    grids, (x, y) = batch(stretch), positions(rng)
    values = torch.as_tensor(rng.normal(size=(2, SIDE, SIDE)))
    carried = torch.as_tensor(rng.normal(size=x.shape))
    bilinear = grids.rays(x, y)
    found, sums = bilinear.interpolate(values), bilinear.adjoint(carried)
    squares = bilinear.adjoint(carried, power=2)
    for i in range(2):
        matrix = grids.one(i).matrix(x[i].numpy(), y[i].numpy())
        np.testing.assert_allclose(found[i], matrix @ values[i].numpy().ravel(), atol=1e-12)
        np.testing.assert_allclose(sums[i].ravel(), matrix.T @ carried[i].numpy(), atol=1e-12)
        np.testing.assert_allclose(squares[i].ravel(), (matrix**2).T @ carried[i].numpy(), atol=1e-12)


@pytest.mark.parametrize("stretch", [0.0, 1.25])
def test_nodes_of_a_batch_lie_where_each_grid_has_them(stretch):
    grids = batch(stretch)
    grid = grids.one(1)
    np.testing.assert_allclose(grids.offsets[1], grid.offsets, atol=1e-12)
    assert float(grids.spacing[1]) == pytest.approx(grid.spacing)


@pytest.mark.parametrize("bad", [1e30, float("inf"), float("nan")])
def test_rays_thrown_far_out_see_no_light(bad):
    x, y = torch.zeros(2, 1, dtype=torch.float64), torch.full((2, 1), bad, dtype=torch.float64)
    bilinear = batch(1.0).rays(x, y)
    values = bilinear.interpolate(torch.ones(2, SIDE, SIDE, dtype=torch.float64))
    assert values.tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize("stretch", [0.0, 1.25])
def test_gradients_by_value_and_position(stretch, rng):
    x, y = positions(rng, 12, 0.4)
    values = torch.as_tensor(rng.normal(size=(2, SIDE, SIDE))).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, y, values: batch(stretch).rays(x, y).interpolate(values),
        (x.requires_grad_(), y.requires_grad_(), values),
    )


def test_the_square_holds_what_is_lit_but_not_a_stray_ray(rng):
    x, y = positions(rng, 1000, 0.5)
    x, y = x + 0.3, 0.5 * y
    x[:, 0] = 40.0
    significant = torch.ones_like(x, dtype=torch.bool)
    significant[:, 1] = False
    y[:, 1] = 30.0
    grids = SourceGrid.around_significant(x, y, significant, SIDE, margin=1.0)
    torch.testing.assert_close(grids.x_0, torch.full_like(grids.x_0, 0.3), atol=0.02, rtol=0)
    torch.testing.assert_close(grids.half, torch.full_like(grids.half, 0.5), atol=0.02, rtol=0)


def test_without_a_lit_ray_all_count(rng):
    x, y = positions(rng, 500, 0.5)
    dark = torch.zeros_like(x, dtype=torch.bool)
    assert (SourceGrid.around_significant(x, y, dark, SIDE).half > 0.4).all()
