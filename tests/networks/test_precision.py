"""Mixed precision rounds convolutions, and nothing of the physics around them."""

import pytest
import torch

from lenssr.grids import PixelGrid
from lenssr.imaging import ImagingOperator
from lenssr.networks import SISR, DeflectionNetwork, RelensingNetwork

OPERATOR = ImagingOperator(PixelGrid((32, 32), 0.1), oversampling=1, dtype=torch.float32)


def image():
    radius = torch.hypot(OPERATOR.x - 0.2, OPERATOR.y).reshape(1, 32, 32)
    return torch.exp(-radius / 0.3) + 0.01 * torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(0))


def noise():
    return torch.full((1, 32, 32), 0.02)


def finer():
    return SISR(channels=4)(image(), noise())


def drawn():
    rays = OPERATOR.x[None], OPERATOR.y[None]
    return RelensingNetwork(32, channels=(4, 6))(image(), noise(), OPERATOR, *rays).image(OPERATOR, *rays)


def estimated():
    estimate = DeflectionNetwork(channels=(4, 5, 6), hidden=8)(image(), noise(), 0.1)
    return estimate.negative_log_likelihood(torch.tensor([[1.0, 0.1, 0, 0, 0, 0, 0.05]]))


@pytest.mark.parametrize("function", [finer, drawn, estimated])
def test_answers_stay_in_single_precision_and_near(function):
    answers = []
    for enabled in (False, True):
        torch.manual_seed(0)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            answers.append(function())
    assert answers[1].dtype == torch.float32
    torch.testing.assert_close(answers[1], answers[0], rtol=0.02, atol=0.02 * float(answers[0].abs().max()))
