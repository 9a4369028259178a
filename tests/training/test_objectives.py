"""Each objective against values worked out by hand, or known."""

import inspect
import math

import pytest
import torch

from lenssr import SIE, ConvergenceSheet, metrics, training
from lenssr.grids import PixelGrid
from lenssr.networks import LensEstimate
from lenssr.training import objectives
from lenssr.training.objectives import (
    data_consistency,
    draw_hidden,
    lens_equation,
    lens_error,
    lens_likelihood,
    multi_scale,
    pixel_intensity,
    positive_convergence,
    source_intensity,
    source_smoothness,
    target_error,
    variation_density,
)


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def draw(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.5


@pytest.mark.parametrize("name", [name for name in training.__all__ if hasattr(objectives, name)])
def test_formula_and_reference_are_in_the_docstring(name):
    text = inspect.getdoc(getattr(objectives, name))
    assert ".. math::" in text and "References\n" in text


# ---------------------------------------------------------------- data


def test_data_consistency_by_hand():
    model, data, variance = tensor([[[1.0, 2.0]]]), tensor([[[2.0, 5.0]]]), tensor([[[1.0, 4.0]]])
    assert data_consistency(model, data, variance).item() == pytest.approx((1 + 9 / 4) / 2)


def test_data_consistency_is_the_reduced_chi2():
    model, data, variance = draw(1, 5, 6), draw(1, 5, 6, seed=1), draw(1, 5, 6, seed=2)
    expected = metrics.reduced_chi2(data[0].numpy(), model[0].numpy(), variance[0].sqrt().numpy())
    assert data_consistency(model, data, variance).item() == pytest.approx(expected)


def test_pixels_that_are_masked_or_not_asked_for_do_not_count():
    model = tensor([[[1.0, 2.0, 3.0]]]).requires_grad_()
    data, variance = tensor([[[2.0, math.nan, 9.0]]]), tensor([[[1.0, math.inf, 1.0]]])
    loss = data_consistency(model, data, variance, torch.tensor([[[True, True, False]]]))
    loss.backward()
    assert loss.item() == 1.0
    assert model.grad.tolist() == [[[-2.0, 0.0, 0.0]]]


def test_hidden_pixels_are_as_many_as_asked_for_and_the_same_again():
    like = torch.zeros(4, 100, 100)
    first, again = (draw_hidden(like, 0.3, torch.Generator().manual_seed(5)) for _ in range(2))
    assert first.double().mean().item() == pytest.approx(0.3, abs=0.01)
    assert torch.equal(first, again)


def test_loss_on_hidden_pixels_is_that_against_the_truth_and_the_noise():
    """The identity that the method rests on, for a model that has not seen these pixels."""
    generator = torch.Generator().manual_seed(1)
    truth = draw(1, 400, 400)
    model, sigma = 0.9 * truth, 0.3
    data = truth + sigma * torch.randn(truth.shape, generator=generator, dtype=torch.float64)
    hidden = draw_hidden(truth, 0.3, generator)
    found = data_consistency(model, data, torch.ones_like(data), hidden).item()
    expected = (truth - model)[hidden].square().mean().item() + sigma**2
    assert found == pytest.approx(expected, rel=0.02)


# ---------------------------------------------------------------- lens equation and intensities


def test_lens_equation_by_hand():
    data = tensor([[[4.0]]])
    image, relensed = tensor([[[1.0, 1.0], [1.0, 1.0]]]), tensor([[[1.0, 2.0], [1.0, 1.0]]])
    assert lens_equation(image, relensed, data).item() == pytest.approx(0.25)


def test_lens_equation_holds_for_a_lensed_source():
    grid = PixelGrid((20, 20), 0.1)
    x, y = (torch.as_tensor(c).reshape(1, -1) for c in (grid.x, grid.y))
    lens = SIE(0.6, 0.1, 0.05)

    def source(x, y):
        return torch.exp(-((x - 0.1) ** 2 + y**2) / 0.05).reshape(1, 20, 20)

    ax, ay = lens.deflection_at(x, y, lens.vector[None])
    image, bx, by = source(x - ax, y - ay), x - 1.01 * ax, y - 1.01 * ay
    assert lens_equation(image, source(x - ax, y - ay), image).item() == 0
    assert lens_equation(image, source(bx, by), image).item() > 1e-4


def test_source_intensity_by_hand():
    data = tensor([[[10.0]], [[20.0]]])
    image, relensed = tensor([[[11.0]], [[20.0]]]), tensor([[[10.0]], [[18.0]]])
    assert source_intensity(image, relensed, data).item() == pytest.approx((0.1**2 + 0.1**2) / 2)


def test_source_intensity_is_blind_to_where_the_flux_is():
    image = draw(2, 4, 4)
    assert source_intensity(image, image.flip(-1), image).item() == pytest.approx(0, abs=1e-30)


def test_pixel_intensity_by_hand():
    image = tensor([[[1.0, 2.0, 0.0, 0.0], [3.0, 4.0, 0.0, 1.0]]])
    data, variance = tensor([[[8.0, 1.0]]]), tensor([[[4.0, 1.0]]])
    assert pixel_intensity(image, data, variance).item() == pytest.approx((2**2 / 4 + 0) / 2)


# ---------------------------------------------------------------- several resolutions


def test_multi_scale_by_hand_at_each_resolution():
    data, variance = torch.full((1, 4, 4), 8.0), torch.full((1, 4, 4), 2.0)
    image = torch.full((1, 8, 8), 3.0)  # 12 in a pixel, 4 too many
    assert multi_scale(image, data, variance, (1,)).item() == pytest.approx(16 / 2)
    assert multi_scale(image, data, variance, (0.5,)).item() == pytest.approx(16**2 / 8)
    assert multi_scale(image, data, variance, (2,)).item() == pytest.approx(1 / 0.5)
    assert multi_scale(image, data, variance).item() == pytest.approx((8 + 32 + 2) / 3)


def test_multi_scale_of_the_bicubic_image_is_zero_at_twice_the_resolution():
    data = draw(1, 6, 6)
    image = torch.as_tensor(metrics.bicubic(data[0].numpy(), 2))[None]
    assert multi_scale(image, data, torch.ones_like(data), (2,)).item() == pytest.approx(0, abs=1e-25)


def test_multi_scale_leaves_masked_pixels_out():
    data, variance = torch.full((1, 5, 4), 8.0), torch.full((1, 5, 4), 2.0)
    data[0, 0, 0], variance[0, 0, 0] = math.nan, math.inf
    image = torch.full((1, 10, 8), 2.0)
    assert multi_scale(image, data, variance, (0.5, 1)).item() == pytest.approx(0)


def test_target_error_by_hand_and_without_unit():
    image, target = tensor([[[1.0, 2.0]]]), tensor([[[1.0, 3.0]]])
    assert target_error(image, target).item() == pytest.approx(0.1)
    assert target_error(7 * image, 7 * target).item() == pytest.approx(0.1)


# ---------------------------------------------------------------- deflection, source, mass


def deflection_map(lens, shape=(30, 40), scale=0.1):
    grid = PixelGrid(shape, scale)
    x, y = (torch.as_tensor(c).reshape(1, -1) for c in (grid.x, grid.y))
    return [part.reshape(1, *shape) for part in lens.deflection_at(x, y, lens.vector[None])]


@pytest.mark.parametrize("scale", [0.05, 0.2])
def test_variation_density_of_a_sheet_is_twice_its_convergence(scale):
    alpha = deflection_map(ConvergenceSheet(0.3), scale=scale)
    assert variation_density(*alpha, scale).item() == pytest.approx(0.6)


def test_variation_density_of_rough_deflection_is_larger(rng):
    alpha = deflection_map(SIE(0.8, 0.1, 0.0))
    rough = [part + torch.as_tensor(rng.normal(0, 0.03, part.shape)) for part in alpha]
    assert variation_density(*rough, 0.1) > variation_density(*alpha, 0.1) + 0.1


def test_source_smoothness_of_a_gaussian():
    """Its logarithm is a parabola whose second differences are the same everywhere."""
    line = torch.arange(9, dtype=torch.float64)
    log = -(line[:, None] ** 2) / (2 * 3.0**2) - line**2 / (2 * 2.0**2)
    assert source_smoothness(log[None]).item() == pytest.approx(3.0**-4 + 2.0**-4)


def test_a_tilted_plane_is_smooth():
    line = torch.arange(9, dtype=torch.float64)
    assert source_smoothness((3 * line[:, None] - 2 * line)[None]).item() == pytest.approx(0, abs=1e-24)


def test_positive_convergence_by_hand():
    assert positive_convergence(tensor([1.0, -2.0, 0.0, -1.0])).item() == pytest.approx(5 / 4)


def test_mass_is_not_blamed_for_being_positive():
    x = torch.linspace(0.1, 2, 9, dtype=torch.float64)
    kappa = SIE(1.0, 0.2, 0.1).convergence(x, x)
    assert positive_convergence(kappa).item() == 0
    assert positive_convergence(kappa - 0.5).item() > 0


# ---------------------------------------------------------------- lens parameters


def estimate(root=1.0):
    free = torch.zeros(1, 7, dtype=torch.float64)
    return LensEstimate(free, root * torch.eye(7, dtype=torch.float64)[None], 2.0)


def test_lens_error_by_hand():
    # u = v / radius / sqrt(1 - (v / radius)^2) for the shear, whose radius is 0.3
    truth = estimate().vector.clone()
    truth[0, 5] = 0.18
    assert lens_error(estimate(), truth).item() == pytest.approx(0.75**2 / 7)


@pytest.mark.parametrize("root", [1.0, 4.0])
def test_lens_likelihood_by_hand(root):
    truth = estimate().vector.clone()
    truth[0, 5] = 0.18
    expected = (0.75 * root) ** 2 / 2 - 7 * math.log(root) + 3.5 * math.log(2 * math.pi)
    assert lens_likelihood(estimate(root), truth).item() == pytest.approx(expected)


def test_lens_likelihood_is_best_for_errors_of_the_right_size(rng):
    truth = estimate().vector + torch.as_tensor(rng.normal(0, 0.02, (2000, 7)))
    spread = estimate().miss(truth).square().mean().sqrt().item()

    def loss(size):
        free = torch.zeros(2000, 7, dtype=torch.float64)
        return lens_likelihood(
            LensEstimate(free, torch.eye(7).double().expand(2000, 7, 7) / size, 2.0), truth
        )

    assert loss(spread) < min(loss(0.8 * spread), loss(1.25 * spread))


# ---------------------------------------------------------------- all


@pytest.mark.parametrize("factor", [1e-4, 1e5])
def test_no_objective_depends_on_the_unit_of_the_image(factor):
    image, relensed, data, variance = draw(2, 8, 8), draw(2, 8, 8, seed=1), draw(2, 4, 4), draw(2, 4, 4)
    for objective, arguments, powers in (
        (lens_equation, (image, relensed, data), (1, 1, 1)),
        (source_intensity, (image, relensed, data), (1, 1, 1)),
        (pixel_intensity, (image, data, variance), (1, 1, 2)),
        (multi_scale, (image, data, variance), (1, 1, 2)),
        (target_error, (image, relensed), (1, 1)),
    ):
        scaled = [factor**power * part for power, part in zip(powers, arguments, strict=True)]
        torch.testing.assert_close(objective(*scaled), objective(*arguments))


def test_all_objectives_have_gradients():
    image, relensed, data, variance = draw(1, 4, 4), draw(1, 4, 4, seed=1), draw(1, 2, 2), draw(1, 2, 2)
    image.requires_grad_()
    for function in (
        lambda image: lens_equation(image, relensed, data),
        lambda image: source_intensity(image, relensed, data),
        lambda image: pixel_intensity(image, data, variance),
        lambda image: multi_scale(image, data, variance),
        lambda image: target_error(image, relensed),
        lambda image: source_smoothness(image),
        lambda image: positive_convergence(-image),
        lambda image: variation_density(image, relensed, 0.1),
    ):
        assert torch.autograd.gradcheck(function, image)
