"""Many point masses at once: against single ones, lenstronomy, and where a ray meets a mass."""

import numpy as np
import pytest
import torch

from lenssr.mass import SIE, PointMass, Shear, point
from lenssr.mass.point import point_masses_deflection


def masses(batch, number, seed=0, dtype=torch.float64):
    rng = torch.Generator().manual_seed(seed)
    theta_E = 0.1 * torch.rand(batch, number, generator=rng, dtype=torch.float64)
    x_0, y_0 = 4 * torch.rand(2, batch, number, generator=rng, dtype=torch.float64) - 2
    return [values.to(dtype) for values in (theta_E, x_0, y_0)]


def rays(number, dtype=torch.float64):
    rng = torch.Generator().manual_seed(9)
    return tuple((6 * torch.rand(2, 1, number, generator=rng, dtype=torch.float64) - 3).to(dtype))


def test_sum_of_single_masses():
    theta_E, x_0, y_0 = masses(3, 7)
    x, y = rays(50)
    alpha = point_masses_deflection(x, y, theta_E, x_0, y_0)
    for row in range(3):
        single = [
            PointMass(*numbers)
            for numbers in zip(*(v[row].tolist() for v in (theta_E, x_0, y_0)), strict=True)
        ]
        for own, axis in zip(alpha, (0, 1), strict=True):
            expected = sum(mass.deflection(x[0], y[0])[axis] for mass in single)
            assert torch.allclose(own[row], expected, rtol=1e-12, atol=1e-13)


def test_lenstronomy():
    lenstronomy = pytest.importorskip("lenstronomy.LensModel.lens_model")
    theta_E, x_0, y_0 = masses(1, 25, seed=4)
    x, y = rays(300)
    settings = [
        {"theta_E": t, "center_x": a, "center_y": b}
        for t, a, b in zip(*(values[0].tolist() for values in (theta_E, x_0, y_0)), strict=True)
    ]
    model = lenstronomy.LensModel(["SIE", "SHEAR", *["POINT_MASS"] * 25])
    smooth = [
        {"theta_E": 1.28149057, "e1": 0.1, "e2": 0.0, "center_x": 0.0, "center_y": 0.0},
        {"gamma1": 0.05, "gamma2": 0.0},
    ]
    expected = model.alpha(x[0].numpy(), y[0].numpy(), [*smooth, *settings])
    own = point_masses_deflection(x, y, theta_E, x_0, y_0)
    macro = (SIE(1.28149057, e1=0.1) + Shear(0.05, 0.0)).deflection(x, y)
    for part, sub, theirs in zip(macro, own, expected, strict=True):
        assert (part + sub)[0].numpy() == pytest.approx(theirs, abs=3e-7)


def test_blocks_change_nothing(monkeypatch):
    arguments = *rays(1000), *masses(2, 5)
    whole = point_masses_deflection(*arguments)
    monkeypatch.setattr(point, "_CPU_PAIRS", 10)
    for one, other in zip(whole, point_masses_deflection(*arguments), strict=True):
        assert torch.allclose(one, other, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_ray_that_meets_a_mass_is_left_to_the_others(dtype):
    theta_E, x_0, y_0 = masses(2, 4, dtype=dtype)
    x, y = x_0[:1, :1].clone(), y_0[:1, :1].clone()
    alpha = point_masses_deflection(x, y, theta_E, x_0, y_0)
    others = point_masses_deflection(x, y, theta_E[:1, 1:], x_0[:1, 1:], y_0[:1, 1:])
    for own, expected in zip(alpha, others, strict=True):
        assert bool(torch.isfinite(own).all())
        assert torch.allclose(own[0], expected[0], rtol=1e-5)


def test_no_mass_deflects_nothing():
    theta_E, x_0, y_0 = masses(1, 3)
    zeros = point_masses_deflection(*rays(10), 0 * theta_E, x_0, y_0)
    assert all(float(alpha.abs().max()) == 0 for alpha in zeros)


def test_float32_away_from_the_masses():
    x, y = rays(20_000)
    theta_E, x_0, y_0 = masses(1, 25)
    distance = torch.hypot(x.unsqueeze(-1) - x_0, y.unsqueeze(-1) - y_0)
    far = (distance > 0.1 * theta_E).all(-1)[0]
    exact = point_masses_deflection(x, y, theta_E, x_0, y_0)
    single = point_masses_deflection(*(values.float() for values in (x, y, theta_E, x_0, y_0)))
    for own, expected in zip(single, exact, strict=True):
        assert float((own.double() - expected)[0, far].abs().max()) < 2e-5


def test_gradients():
    arguments = [values.requires_grad_() for values in (*rays(4), *masses(2, 3))]
    assert torch.autograd.gradcheck(point_masses_deflection, arguments)


def test_deflection_is_that_of_a_mass_in_the_middle():
    alpha_x, alpha_y = point_masses_deflection(
        torch.tensor([[3.0]]), torch.tensor([[4.0]]), *(torch.full((1, 1), v) for v in (1.0, 0.0, 0.0))
    )
    assert np.allclose([float(alpha_x), float(alpha_y)], [0.12, 0.16])
