"""Grids behind lenses for a batch agree with those of the free-form inversion, one by one."""

import numpy as np
import pytest
import torch

from lenssr.networks.source_plane import SourcePlane, significant_pixels

SIDE = 9


def plane(stretch, dtype=torch.float64):
    centres = torch.tensor([[0.1, -0.2], [0.4, 0.0]], dtype=dtype)
    return SourcePlane(*centres, torch.tensor([0.7, 1.3], dtype=dtype), SIDE, stretch)


def positions(rng, number=60, reach=1.5):
    return torch.as_tensor(rng.uniform(-reach, reach, (2, 2, number)))


@pytest.mark.parametrize("stretch", [0.0, 1.25])
def test_interpolation_and_its_transpose_are_those_of_the_inversion(stretch, rng):
    grids, (x, y) = plane(stretch), positions(rng)
    values = torch.as_tensor(rng.normal(size=(2, SIDE, SIDE)))
    carried = torch.as_tensor(rng.normal(size=x.shape))
    bilinear = grids.weights_at(x, y)
    found, sums = bilinear.interpolate(values), bilinear.adjoint(carried)
    squares = bilinear.adjoint(carried, power=2)
    for i in range(2):
        matrix = grids.grid(i).matrix(x[i].numpy(), y[i].numpy())
        np.testing.assert_allclose(found[i], matrix @ values[i].numpy().ravel(), atol=1e-12)
        np.testing.assert_allclose(sums[i].ravel(), matrix.T @ carried[i].numpy(), atol=1e-12)
        np.testing.assert_allclose(squares[i].ravel(), (matrix**2).T @ carried[i].numpy(), atol=1e-12)


@pytest.mark.parametrize("stretch", [0.0, 1.25])
def test_nodes_lie_where_the_inversion_has_them(stretch):
    grids = plane(stretch)
    grid = grids.grid(1)
    np.testing.assert_allclose(grids.offsets * grids.half[1], grid.offsets, atol=1e-12)
    assert float(grids.spacing[1]) == pytest.approx(grid.spacing)


@pytest.mark.parametrize("bad", [1e30, float("inf"), float("nan")])
def test_rays_thrown_far_out_see_no_light(bad):
    x, y = torch.zeros(2, 1, dtype=torch.float64), torch.full((2, 1), bad, dtype=torch.float64)
    bilinear = plane(1.0).weights_at(x, y)
    values = bilinear.interpolate(torch.ones(2, SIDE, SIDE, dtype=torch.float64))
    assert values.tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize("stretch", [0.0, 1.25])
def test_gradients_by_value_and_position(stretch, rng):
    x, y = positions(rng, 12, 0.4)
    values = torch.as_tensor(rng.normal(size=(2, SIDE, SIDE))).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, y, values: plane(stretch).weights_at(x, y).interpolate(values),
        (x.requires_grad_(), y.requires_grad_(), values),
    )


def test_the_square_holds_what_is_lit_but_not_a_stray_ray(rng):
    x, y = positions(rng, 1000, 0.5)
    x, y = x + 0.3, 0.5 * y
    x[:, 0] = 40.0
    significant = torch.ones_like(x, dtype=torch.bool)
    significant[:, 1] = False
    y[:, 1] = 30.0
    grids = SourcePlane.around(x, y, significant, SIDE, margin=1.0)
    torch.testing.assert_close(grids.x_0, torch.full_like(grids.x_0, 0.3), atol=0.02, rtol=0)
    torch.testing.assert_close(grids.half, torch.full_like(grids.half, 0.5), atol=0.02, rtol=0)


def test_without_a_lit_ray_all_count(rng):
    x, y = positions(rng, 500, 0.5)
    dark = torch.zeros_like(x, dtype=torch.bool)
    assert (SourcePlane.around(x, y, dark, SIDE).half > 0.4).all()


def test_pixels_are_lit_by_light_and_not_by_noise_or_masked_pixels(rng):
    image = torch.as_tensor(rng.normal(size=(1, 60, 60)))
    image[0, 10:14, 10:14] += 4
    image[0, 40, 40] = torch.nan
    sigma = torch.ones_like(image)
    sigma[0, 40, 40] = torch.inf
    significant = significant_pixels(image, sigma)[0]
    assert significant[10:14, 10:14].all() and not significant[20:, 20:].any()
