"""Coordinates of the fits of galaxies."""

import numpy as np
import pytest
import torch

from lenssr import Sersic
from lenssr.photometry.parameters import measured, smooth_from_axes


@pytest.mark.parametrize("flux", [False, True])
def test_derivatives_of_smooth_coordinates_are_those_of_autograd(flux):
    c = torch.tensor([[0.3, 1.2, 0.8, 0.1, -2.0, 0.4, 0.7], [-1.0, 0.2, 5.5, 3.0, 1.0, 0.05, -1.9]]).double()
    slopes = smooth_from_axes(c, flux=flux)[1]
    expected = torch.autograd.functional.jacobian(lambda v: smooth_from_axes(v, flux=flux)[0].sum(0), c)
    torch.testing.assert_close(slopes, expected.permute(1, 0, 2), rtol=1e-7, atol=1e-9)


def test_derivatives_of_what_is_measured_are_differences():
    smooth = np.array([[0.3, 1.2, 0.8, 0.1, -2.0, 0.2, -0.1], [-1.0, 0.2, 5.5, 3.0, 1.0, -0.3, 0.4]])
    steps = 1e-6 * np.eye(7)
    values, slopes = measured(smooth)
    moved = (measured(smooth[:, None] + sign * steps)[0] for sign in (1, -1))
    expected = np.subtract(*moved).swapaxes(1, 2) / 2e-6
    assert slopes == pytest.approx(expected, rel=1e-6, abs=1e-7)
    assert values[:, 3] == pytest.approx(
        [Sersic.from_vector([np.exp(a), np.exp(r), *rest]).flux for a, r, *rest in smooth]
    )
