"""Second derivatives in place equal those that are differentiable."""

import numpy as np
import pytest
import torch

from lenssr.mass import EPL, NFW, SIE, SIS, ConvergenceSheet, PointMass, Shear
from lenssr.mass.rays import rays_of

LENSES = [
    SIS(1.1, 0.1, -0.2),
    SIE(1.1, -0.2, 0.15, 0.1, -0.2),
    EPL(1.1, 1.7, 0.2, 0.1, 0.1, -0.2),
    EPL(0.9, 2.3),
    NFW(0.7, 1.2, 0.1, -0.2),
    NFW(9.0, 1.2, 0.1, -0.2),
    Shear(0.1, -0.05, 0.3, 0.2),
    SIE(1.1, -0.2, 0.15) + PointMass(0.3, 0.5, 0.5) + ConvergenceSheet(0.2) + Shear(0.1, -0.05),
]


@pytest.mark.parametrize("lens", LENSES)
def test_map_of_rays_equals_the_public_methods(lens):
    x, y = np.random.default_rng(5).normal(size=(2, 500))
    rays = rays_of(lens)
    (bx, by), entries = rays.all_at(x, y)
    ax, ay = lens.deflection(x, y)
    np.testing.assert_allclose((bx, by), (x - ax, y - ay), rtol=0, atol=1e-13)
    jacobian = lens.jacobian(x, y)
    for found in (entries, rays.jacobian(x, y)):
        np.testing.assert_allclose(
            np.stack(found, axis=-1).reshape(-1, 2, 2), jacobian, rtol=1e-11, atol=1e-12
        )


@pytest.mark.parametrize("lens", LENSES)
def test_jacobian_is_the_derivative_of_the_map(lens):
    x, y = torch.tensor([[0.7], [-0.4]], dtype=torch.float64)
    slopes = torch.autograd.functional.jacobian(lambda x, y: torch.stack(lens.deflection(x, y)), (x, y))
    xx, xy, yx, yy = rays_of(lens).jacobian(x.numpy(), y.numpy())
    found = np.array([[xx[0], xy[0]], [yx[0], yy[0]]])
    np.testing.assert_allclose(np.eye(2) - np.concatenate(slopes, axis=-1)[:, 0], found, rtol=1e-9)
