"""Coordinates of the fits of galaxies."""

import pytest
import torch

from lenssr.photometry.parameters import smooth_from_axes


@pytest.mark.parametrize("flux", [False, True])
def test_derivatives_of_smooth_coordinates_are_those_of_autograd(flux):
    c = torch.tensor([[0.3, 1.2, 0.8, 0.1, -2.0, 0.4, 0.7], [-1.0, 0.2, 5.5, 3.0, 1.0, 0.05, -1.9]]).double()
    slopes = smooth_from_axes(c, flux=flux)[1]
    expected = torch.autograd.functional.jacobian(lambda v: smooth_from_axes(v, flux=flux)[0].sum(0), c)
    torch.testing.assert_close(slopes, expected.permute(1, 0, 2), rtol=1e-7, atol=1e-9)
