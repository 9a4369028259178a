"""Derivatives: by the position and by every parameter, also at the awkward points."""

import pytest
import torch

from lenssr._tensors import forward_jacobian
from lenssr.mass import (
    DPIE,
    EPL,
    NFW,
    SIE,
    SIS,
    ConvergenceSheet,
    CoredPowerLaw,
    EllipticalMultipole,
    EllipticalNFW,
    GaussianMass,
    Multipole,
    PointMass,
    SersicMass,
    Shear,
    TruncatedNFW,
)
from lenssr.mass.isothermal import (
    sie_deflection,
    sie_hessian,
    sie_potential,
    sis_deflection,
    sis_hessian,
    sis_potential,
)
from lenssr.mass.nfw import nfw_deflection, nfw_hessian, nfw_potential
from lenssr.mass.point import point_deflection, point_hessian, point_potential
from lenssr.mass.power_law import epl_deflection, epl_hessian, epl_potential
from lenssr.mass.shear import (
    shear_deflection,
    shear_hessian,
    shear_potential,
    sheet_deflection,
    sheet_potential,
)

# torch's own forward mode calls its own deprecated function
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

ELLIPTICITIES = {
    "round": (0.0, 0.0),
    "nearly round": (0.02, -0.01),
    "switch": (0.03, 0.0),
    "flat": (0.3, 0.2),
}
POINTS = {
    **{f"SIS {k}": (f, (1.2, 0.1, -0.1)) for k, f in (("psi", sis_potential), ("alpha", sis_deflection))},
    "SIS hessian": (sis_hessian, (1.2, 0.1, -0.1)),
    **{
        f"SIE {k} {name}": (f, (1.2, *e, 0.1, -0.1))
        for k, f in (("psi", sie_potential), ("alpha", sie_deflection), ("hessian", sie_hessian))
        for name, e in ELLIPTICITIES.items()
    },
    **{
        f"EPL {k} {name}": (f, (1.2, gamma, *e, 0.1, -0.1))
        for k, f in (("psi", epl_potential), ("alpha", epl_deflection), ("hessian", epl_hessian))
        for (name, e), gamma in zip(ELLIPTICITIES.items(), (2.0, 1.6, 2.4, 2.0), strict=True)
    },
    "point psi": (point_potential, (0.8, 0.1, -0.1)),
    "point alpha": (point_deflection, (0.8, 0.1, -0.1)),
    "point hessian": (point_hessian, (0.8, 0.1, -0.1)),
    "NFW psi": (nfw_potential, (2.0, 1.3, 0.1, -0.1)),
    "NFW alpha": (nfw_deflection, (2.0, 1.3, 0.1, -0.1)),
    "NFW hessian": (nfw_hessian, (2.0, 1.3, 0.1, -0.1)),
    "shear psi": (shear_potential, (0.1, 0.05, 0.1, -0.1)),
    "shear alpha": (shear_deflection, (0.1, 0.05, 0.1, -0.1)),
    "shear hessian": (shear_hessian, (0.1, 0.05, 0.1, -0.1)),
    "sheet psi": (sheet_potential, (0.1,)),
    "sheet alpha": (sheet_deflection, (0.1,)),
}


def tensors(*values):
    return tuple(torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in values)


@pytest.mark.parametrize("name", POINTS)
def test_gradcheck(name):
    function, params = POINTS[name]
    assert torch.autograd.gradcheck(function, tensors([0.7, -0.4], [0.5, 1.1], *params))


@pytest.mark.parametrize("function", [nfw_potential, nfw_deflection, nfw_hessian])
@pytest.mark.parametrize("x", [0.999999, 1.0, 1.000001, 0.81818, 0.5])
def test_gradcheck_of_nfw_at_its_switches(function, x):
    assert torch.autograd.gradcheck(function, tensors(2 * x, 0.0, 2.0, 1.3, 0.0, 0.0))


MODELS = {
    "SIS": (SIS(1.0), [[1.2, 0.1, -0.1], [0.7, 0.0, 0.2]]),
    "SIE": (SIE(1.0), [[1.2, *e, 0.1, -0.1] for e in ELLIPTICITIES.values()]),
    "SIE, all round": (SIE(1.0), [[1.2, 0.0, 0.0, 0.1, -0.1], [1.2, 0.01, 0.0, 0.1, -0.1]]),
    "SIE, all flat": (SIE(1.0), [[1.2, 0.2, 0.1, 0.1, -0.1], [0.8, -0.6, 0.3, 0.1, -0.1]]),
    "EPL": (
        EPL(1.0),
        [[1.2, g, *e, 0.1, -0.1] for e, g in zip(ELLIPTICITIES.values(), (1.3, 2.0, 2.2, 2.7), strict=True)],
    ),
    "Shear": (Shear(0, 0), [[0.1, 0.05, 0.1, 0.2], [-0.1, 0.2, 0.0, 0.0]]),
    "Sheet": (ConvergenceSheet(0), [[0.1], [-0.2]]),
    "NFW": (NFW(1, 1), [[2.0, 1.3, 0.1, 0.2], [1.0, 0.5, 0.0, 0.0]]),
    "SIE + Shear": (SIE(1.0) + Shear(0, 0), [[1.2, 0.2, 0.1, 0.1, -0.1, 0.05, 0.02, 0.0, 0.0]] * 2),
}


@pytest.mark.parametrize("name", MODELS)
def test_jacobian_by_parameters(name):
    model, params = MODELS[name]
    params = torch.tensor(params, dtype=torch.float64)
    generator = torch.Generator().manual_seed(3)
    x, y = torch.randn(2, 1, 50, dtype=torch.float64, generator=generator)
    (ax, ay), (dax, day) = forward_jacobian(lambda *p: model._deflection(x, y, *p), params)
    ours = model.deflection_jacobian_at(x, y, params)
    assert ours[2].shape == (len(params), params.shape[1], 50)
    for mine, reference in zip(ours, (ax, ay, dax, day), strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize(
    "theta_E, e1, e2",
    [
        (1.2, 0.15, -0.1),
        (0.8, 0.02, 0.01),
        (1.0, -0.5, 0.3),
        (1.0, -0.2, 0.0),
        (1.0, 0.0, -0.3),
        (1.0, 0.0, 0.0),
    ],
)
@pytest.mark.parametrize("cls", [SIE, EPL])
def test_kernel_equals_differentiable_formula(cls, theta_E, e1, e2):
    model = cls(theta_E=theta_E, e1=e1, e2=e2, x_0=0.1)
    generator = torch.Generator().manual_seed(3)
    x, y = torch.randn(2, 100_000, dtype=torch.float64, generator=generator)
    quick = model.deflection(x, y)
    slow = model.deflection(x.clone().requires_grad_(), y)
    for a, b in zip(quick, slow, strict=True):
        torch.testing.assert_close(a, b.detach(), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("model", [SIS(1.2), SIE(1.2, 0.2, 0.1) + Shear(0.05, 0.02), EPL(1.2, 2.3, 0.2, 0.1)])
def test_vmap_over_positions(model):
    x, y = torch.randn(2, 3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    at_once = torch.func.vmap(model.deflection)(x, y)
    for a, b in zip(at_once, model.deflection(x, y), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


FAMILIES = {
    "elliptical NFW, flat": EllipticalNFW(2.0, 1.3, 0.3, 0.2, 0.1, -0.1),
    **{f"dPIE {k}": DPIE(1.2, 0.2, 2.0, *e, 0.1, -0.1) for k, e in ELLIPTICITIES.items()},
    "cored power law, round": CoredPowerLaw(1.2, 2.2, 0.2, 0.0, 0.0, 0.1, -0.1),
    "cored power law, flat": CoredPowerLaw(1.2, 1.7, 0.2, 0.3, 0.2, 0.1, -0.1),
    "Gaussian, round": GaussianMass(0.5, 0.8, 0.0, 0.0, 0.1, -0.1),
    "Gaussian, flat": GaussianMass(0.5, 0.8, 0.3, 0.2, 0.1, -0.1),
    "Sérsic, round": SersicMass(0.5, 0.8, 4.0, 0.0, 0.0, 0.1, -0.1),
    "Sérsic, flat": SersicMass(0.5, 0.8, 1.0, 0.3, 0.2, 0.1, -0.1, 1.5),
    "truncated NFW": TruncatedNFW(2.0, 1.3, 3.0, 0.1, -0.1),
    "truncated NFW at x = 1": TruncatedNFW(0.2**0.5 * 1.1, 1.3, 3.0, 0.5, 0.1),
    "multipole": Multipole(3, 0.1, 0.05, 0.1, -0.1),
    "elliptical multipole, odd, round": EllipticalMultipole(3, 0.1, 0.05, 0.0, 0.0, 0.1, -0.1),
    "elliptical multipole, odd": EllipticalMultipole(3, 0.1, 0.05, 0.3, 0.2, 0.1, -0.1),
    "elliptical multipole, even": EllipticalMultipole(4, 0.1, 0.05, 0.3, 0.2, 0.1, -0.1),
}


# Sums over many shells, in test_potential_deflection_and_hessian_agree by default.
SUMS = ("elliptical NFW", "cored power law, flat", "Gaussian", "Sérsic")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n.startswith(SUMS) else n for n in FAMILIES]
)
@pytest.mark.parametrize("part", [pytest.param("_potential", marks=pytest.mark.slow), "_hessian"])
def test_gradcheck_of_families(name, part):
    model = FAMILIES[name]
    places = tensors([0.7], [0.5])
    inputs = (*places, *tensors(*model.vector.tolist()))
    assert torch.autograd.gradcheck(getattr(model, part), inputs, fast_mode=True)


@pytest.mark.parametrize("name", FAMILIES)
def test_kernels_of_families_equal_their_formulas(name):
    model = FAMILIES[name]
    x, y = 2 * torch.randn(2, 500, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    quick, slow = model.deflection(x, y), model.deflection(x.clone().requires_grad_(), y)
    for a, b in zip(quick, slow, strict=True):
        torch.testing.assert_close(a, b.detach(), rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", ["dPIE nearly round", "Gaussian, flat", "multipole"])
def test_jacobian_of_families_by_parameters(name):
    model, step = FAMILIES[name], 1e-6
    x, y = torch.randn(2, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    ax, ay, dax, day = model.deflection_jacobian_at(x, y, model.vector[None])
    for k in range(len(model.vector)):
        move = step * torch.eye(len(model.vector), dtype=torch.float64)[k]
        high, low = (model.deflection_at(x, y, (model.vector + sign * move)[None]) for sign in (1, -1))
        for slope, up, down in zip((dax, day), high, low, strict=True):
            torch.testing.assert_close(slope[:, k], (up - down) / (2 * step), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(
        (ax, ay), model.deflection_at(x, y, model.vector[None]), rtol=1e-10, atol=1e-11
    )


CENTRAL = [
    EllipticalNFW(2.0, 1.0, 0.1),
    TruncatedNFW(2.0, 1.0, 3.0),
    DPIE(1.0, 0.1, 3.0, 0.1),
    CoredPowerLaw(1.0, 2.2, 0.1, 0.1),
    SersicMass(0.5, 1.0, 4.0, 0.1),
    GaussianMass(0.5, 1.0, 0.1),
    Multipole(4, 0.1, 0.1),
    EllipticalMultipole(3, 0.1, 0.1, 0.1),
]


@pytest.mark.parametrize(
    "model",
    [
        SIS(1.0),
        SIE(1.0, 0.2, 0.1),
        EPL(1.0, 1.5, 0.1),
        EPL(1.0, 2.5, 0.1),
        PointMass(1.0),
        NFW(2.0, 1.0),
        *CENTRAL,
    ],
)
@pytest.mark.parametrize(
    "name", ["potential", "deflection", "convergence", "shear", "jacobian", "magnification"]
)
def test_centre_is_finite(model, name):
    x, y = tensors([0.0, 1e-10, 1e-8], [0.0, 0.0, 0.0])
    results = getattr(model, name)(x, y)
    results = results if isinstance(results, tuple) else (results,)
    assert all(result.isfinite().all() for result in results)
    for gradient in torch.autograd.grad(sum(result.sum() for result in results), (x, y)):
        assert gradient.isfinite().all()


@pytest.mark.parametrize(
    "model",
    [SIS(1.0, 0.3), SIE(1.0, 0.2, 0.1, 0.3), EPL(1.0, 1.5, 0.1, x_0=0.3), EPL(1.0, 2.5, 0.1, x_0=0.3)],
)
def test_centre_does_not_move_a_fit(model):
    x, y = torch.tensor([[0.3]], dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    ax, ay, dax, day = model.deflection_jacobian_at(x, y, model.vector[None])
    assert ax.item() == ay.item() == 0
    assert dax.abs().max() < 1e-6 and day.abs().max() < 1e-6


@pytest.mark.parametrize(
    "model", [SIE(1.2, 0.2, 0.1), EPL(1.2, 2.3, 0.2, 0.1), NFW(2.0, 1.0), SIS(1.0), *CENTRAL]
)
def test_float32_stays_float32(model):
    x = torch.linspace(0.1, 2, 20, dtype=torch.float32)[None]
    for result in model.deflection_jacobian_at(x, x + 0.1, model.vector[None].to(torch.float32)):
        assert result.dtype == torch.float32
    exact = model.deflection_at(x.double(), x.double() + 0.1, model.vector[None])
    single = model.deflection_at(x, x + 0.1, model.vector[None].to(torch.float32))
    torch.testing.assert_close(single[0].double(), exact[0], rtol=1e-5, atol=1e-6)
