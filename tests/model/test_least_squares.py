"""The batched Levenberg-Marquardt, against scipy and against what its contract says."""

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares

from lenssr.model.least_squares import levenberg_marquardt, masked_inverse

TIMES = np.linspace(0, 4, 60)


def curve(p):
    """Two decaying waves, nonlinear in all four parameters."""
    a, b, c, d = p
    return a * np.exp(-b * TIMES) + c * np.sin(d * TIMES)


def batched(parameters, index):
    """The same for tensors, with derivatives."""
    t = torch.as_tensor(TIMES)
    a, b, c, d = parameters.unsqueeze(-1).unbind(1)
    fall, wave = torch.exp(-b * t), torch.sin(d * t)
    slopes = (fall, -a * t * fall, wave, c * t * torch.cos(d * t))
    return a * fall + c * wave, torch.stack([slope.expand(len(parameters), -1) for slope in slopes], dim=1)


def problems(rng, count, sigma=0.05):
    truth = np.stack(
        [
            rng.uniform(1, 3, count),
            rng.uniform(0.5, 1.5, count),
            rng.uniform(0.5, 1, count),
            rng.uniform(1, 2, count),
        ],
        axis=1,
    )
    data = np.stack([curve(p) for p in truth]) + rng.normal(0, sigma, (count, len(TIMES)))
    weight = np.full(data.shape, sigma**-2) * (rng.uniform(size=data.shape) > 0.1)
    start = truth * rng.uniform(0.8, 1.2, truth.shape)
    return truth, data, weight, start


def fit(model, start, data, weight, **options):
    tensors = (torch.as_tensor(np.asarray(array, dtype=float)) for array in (start, data, weight))
    return levenberg_marquardt(model, *tensors, **options)


def by_scipy(start, data, weight, bounds=(-np.inf, np.inf)):
    root = np.sqrt(weight)
    tight = {"xtol": 1e-12, "ftol": 1e-12, "gtol": 1e-12}
    return least_squares(lambda p: (curve(p) - data) * root, np.clip(start, *bounds), bounds=bounds, **tight)


def test_a_last_step_unseen_ends_in_the_same_place_for_fewer_calls(rng):
    _, data, weight, start = problems(rng, 12)
    calls = [0, 0]

    def counted(parameters, index, which):
        calls[which] += len(index)
        return batched(parameters, index)

    seen, unseen = (
        fit(lambda *given, k=k: counted(*given, k), start, data, weight, look=not k) for k in range(2)
    )
    assert bool(unseen.converged.all()) and calls[1] <= calls[0] - 12
    sigma = torch.diagonal(seen.covariance(), dim1=1, dim2=2).sqrt()
    assert ((unseen.parameters - seen.parameters).abs() < 0.05 * sigma).all()
    assert (unseen.chi2 - seen.chi2).abs().max() < 1e-3


def test_agrees_with_scipy(rng):
    _, data, weight, start = problems(rng, 12)
    result = fit(batched, start, data, weight, tolerance=1e-8)
    assert bool(result.converged.all())
    for k in range(12):
        reference = by_scipy(start[k], data[k], weight[k])
        covariance = np.linalg.inv(reference.jac.T @ reference.jac)
        sigma = np.sqrt(np.diag(covariance))
        assert np.all(np.abs(result.parameters[k].numpy() - reference.x) < 1e-3 * sigma)
        np.testing.assert_allclose(float(result.chi2[k]), 2 * reference.cost, rtol=1e-7)
        in_sigma = (result.covariance()[k].numpy() - covariance) / np.outer(sigma, sigma)
        assert np.abs(in_sigma).max() < 1e-3


def test_a_model_in_parts_gives_the_same(rng):
    _, data, weight, start = problems(rng, 12)

    def in_parts(parameters, index):
        value, jacobian = batched(parameters, index)
        for part in (slice(0, 7), slice(7, 40), slice(40, 60)):
            yield part, value[:, part], jacobian[:, :, part]

    whole, parts = (fit(model, start, data, weight) for model in (batched, in_parts))
    torch.testing.assert_close(parts.parameters, whole.parameters, rtol=1e-9, atol=0)
    torch.testing.assert_close(parts.curvature, whole.curvature, rtol=1e-9, atol=1e-9)


def test_default_tolerance_ends_within_a_small_share_of_sigma(rng):
    _, data, weight, start = problems(rng, 8)
    loose = fit(batched, start, data, weight)
    tight = fit(batched, start, data, weight, tolerance=1e-10)
    sigma = tight.covariance().diagonal(dim1=1, dim2=2).sqrt()
    assert bool(((loose.parameters - tight.parameters).abs() < 0.05 * sigma).all())


def test_agrees_with_scipy_at_bounds(rng):
    truth, data, weight, start = problems(rng, 8)
    # The first parameter cannot reach its truth from below, the fourth not from above.
    lower = np.array([-np.inf, 0.0, 0.0, 0.0])
    upper = np.array([0.9 * truth[:, 0].min(), 5.0, 5.0, 5.0])
    result = fit(
        batched,
        start,
        data,
        weight,
        lower=torch.as_tensor(lower),
        upper=torch.as_tensor(upper),
        tolerance=1e-8,
    )
    for k in range(8):
        reference = by_scipy(
            np.clip(start[k], lower + 1e-3, upper - 1e-3), data[k], weight[k], (lower, upper)
        )
        np.testing.assert_allclose(float(result.chi2[k]), 2 * reference.cost, rtol=1e-4)
        np.testing.assert_allclose(result.parameters[k], reference.x, rtol=2e-3)
        assert float(result.parameters[k, 0]) <= upper[0]
    assert bool(result.at_bound[:, 0].all())
    assert not bool(result.at_bound[:, 1:].any())


def test_covariance_leaves_out_what_is_on_a_bound(rng):
    _, data, weight, start = problems(rng, 2)
    result = fit(batched, start, data, weight, upper=torch.tensor([0.5, torch.inf, torch.inf, torch.inf]))
    covariance = result.covariance()
    assert bool((covariance[:, 0] == 0).all()) and bool((covariance[:, :, 0] == 0).all())
    inner = torch.linalg.inv(result.curvature[:, 1:, 1:])
    torch.testing.assert_close(covariance[:, 1:, 1:], inner, rtol=1e-6, atol=1e-12)


def test_start_outside_the_bounds_is_moved_inside(rng):
    _, data, weight, start = problems(rng, 2)
    seen = []

    def model(parameters, index):
        seen.append(parameters.clone())
        return batched(parameters, index)

    fit(model, start + 100, data, weight, lower=torch.zeros(4), upper=torch.full((4,), 5.0))
    assert all(bool((p >= 0).all() and (p <= 5).all()) for p in seen)


def test_finished_problems_are_left_out(rng):
    truth, data, weight, start = problems(rng, 3)
    data[0], start[0] = curve(truth[0]), truth[0]
    start[1] = truth[1] * [1.6, 0.5, 0.5, 1.0]
    calls = []

    def model(parameters, index):
        calls.append(index.tolist())
        return batched(parameters, index)

    result = fit(model, start, data, weight)
    assert calls[0] == [0, 1, 2] and calls[1] == [0, 1, 2]
    assert all(0 not in call for call in calls[2:])
    assert int(result.iterations[0]) == 1 < int(result.iterations[1])
    assert bool(result.converged.all())


def test_stops_at_max_iterations_and_says_so(rng):
    _, data, weight, start = problems(rng, 2)
    result = fit(batched, start * 1.5, data, weight, max_iterations=1)
    assert result.iterations.tolist() == [1, 1] and not bool(result.converged.any())


def test_a_batch_ends_where_its_problems_end_alone(rng):
    _, data, weight, start = problems(rng, 5)
    together = fit(batched, start, data, weight)
    for k in range(5):
        alone = fit(batched, start[k : k + 1], data[k : k + 1], weight[k : k + 1])
        torch.testing.assert_close(together.parameters[k], alone.parameters[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_steps_to_non_finite_models_are_rejected(broken, rng):
    _, data, weight, start = problems(rng, 4)
    calls = []

    def model(parameters, index):
        value, jacobian = batched(parameters, index)
        calls.append(len(index))
        fails = 1 < len(calls) <= 4
        return (value + broken, jacobian + broken) if fails else (value, jacobian)

    result = fit(model, start, data, weight, tolerance=1e-8)
    free = fit(batched, start, data, weight, tolerance=1e-8)
    assert calls[:5] == [4] * 5
    torch.testing.assert_close(result.parameters, free.parameters, rtol=1e-5, atol=1e-5)
    assert bool(result.converged.all())


@pytest.mark.parametrize("scale", (1e-12, 1e-6, 1e-2, 1e2, 1e6, 1e12))
def test_badly_scaled_parameters_end_at_the_same_place(scale, rng):
    _, data, weight, start = problems(rng, 4)
    factor = torch.tensor([scale, 1.0, 1 / scale, 1.0], dtype=torch.float64)

    def model(parameters, index):
        value, jacobian = batched(parameters / factor, index)
        return value, jacobian / factor[:, None]

    scaled = fit(model, torch.as_tensor(start) * factor, data, weight, tolerance=1e-8)
    plain = fit(batched, start, data, weight, tolerance=1e-8)
    torch.testing.assert_close(scaled.parameters / factor, plain.parameters, rtol=1e-5, atol=0)
    torch.testing.assert_close(
        scaled.covariance() / factor[:, None] / factor[None, :], plain.covariance(), rtol=1e-3, atol=1e-9
    )


def test_a_parameter_without_effect_stays_where_it_was(rng):
    _, data, weight, start = problems(rng, 2)

    def model(parameters, index):
        value, jacobian = batched(parameters[:, :4], index)
        return value, torch.cat([jacobian, torch.zeros_like(jacobian[:, :1])], dim=1)

    result = fit(model, np.concatenate([start, np.full((2, 1), 7.0)], axis=1), data, weight)
    assert result.parameters[:, 4].tolist() == [7.0, 7.0]
    plain = fit(batched, start, data, weight)
    torch.testing.assert_close(result.parameters[:, :4], plain.parameters, rtol=1e-4, atol=1e-4)
    assert bool(result.converged.all())


def test_float32_ends_at_the_same_place(rng):
    _, data, weight, start = problems(rng, 4)

    def model(parameters, index):
        value, jacobian = batched(parameters.double(), index)
        return value.float(), jacobian.float()

    tensors = [torch.as_tensor(array).float() for array in (start, data, weight)]
    single = levenberg_marquardt(model, *tensors)
    double = fit(batched, start, data, weight)
    assert single.parameters.dtype is torch.float32 and single.chi2.dtype is torch.float64
    sigma = double.covariance().diagonal(dim1=1, dim2=2).sqrt()
    assert bool(((single.parameters - double.parameters).abs() < 0.1 * sigma).all())


def test_masked_inverse_is_the_inverse_of_the_rest(rng):
    root = rng.normal(size=(3, 6, 5)) * 10.0 ** rng.uniform(-5, 5, (3, 1, 5))
    matrix = torch.as_tensor(root.transpose(0, 2, 1) @ root)
    held = torch.tensor([False, True, False, False, True])
    inverse = masked_inverse(matrix, held.expand(3, 5))
    kept = [0, 2, 3]
    product = (matrix[:, kept][:, :, kept] @ inverse[:, kept][:, :, kept]).numpy()
    scale = np.sqrt(np.einsum("bii->bi", matrix.numpy()))[:, kept]
    unit = product / scale[:, :, None] * scale[:, None, :]
    np.testing.assert_allclose(unit, np.tile(np.eye(3), (3, 1, 1)), atol=1e-6)
    assert bool((inverse[:, held] == 0).all())


def test_masked_inverse_of_a_degenerate_pair_is_finite_and_huge():
    matrix = torch.tensor([[[1.0, 1.0], [1.0, 1.0]]], dtype=torch.float64)
    inverse = masked_inverse(matrix, torch.zeros(1, 2, dtype=torch.bool))
    assert bool(torch.isfinite(inverse).all()) and float(inverse[0, 0, 0]) > 1e9
