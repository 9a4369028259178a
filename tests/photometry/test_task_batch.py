"""M-estimators beside those of scipy, and their errors beside the scatter of estimates."""

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares

from lenssr.photometry.task_batch import LOSSES, robust_factor, sandwich

VALUES = np.concatenate([np.random.default_rng(0).normal(3, 1, 40), [12.0, 30.0, -9.0]])


def location(values, loss):
    """Centre of values by iteratively reweighted least squares."""
    centre = np.median(values)
    for _ in range(200):
        weight = robust_factor(torch.as_tensor(values - centre), loss).numpy()
        centre = (weight * values).sum() / weight.sum()
    return centre


@pytest.mark.parametrize("loss", LOSSES)
def test_weights_are_those_of_scipy(loss):
    options = {"loss": loss, "f_scale": LOSSES[loss], "x_scale": 1.0, "xtol": 1e-12, "ftol": 1e-12}
    expected = least_squares(lambda c: VALUES - c, [np.median(VALUES)], **options).x[0]
    assert location(VALUES, loss) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_sandwich_is_the_scatter_of_estimates(loss):
    values = np.random.default_rng(1).standard_t(3, (200, 60))
    centres = np.array([location(row, loss) for row in values])
    residual = torch.as_tensor(values - centres[:, None])
    one = torch.ones(200, 1, 60, dtype=residual.dtype)
    held = torch.zeros(200, 1, dtype=torch.bool)
    covariance = sandwich(one, residual, torch.ones_like(residual), loss, held)
    assert float(covariance.mean().sqrt()) == pytest.approx(centres.std(), rel=0.15)
