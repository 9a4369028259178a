"""The mass-sheet degeneracy: it changes the source and the magnification, never the image."""

import numpy as np
import pytest

from lenssr.mass import SIE, ConvergenceSheet, Shear

SHEET = 0.1


def transformed(lens):
    """(1 - kappa_c) times the lens, and a sheet of kappa_c: the source plane shrinks by 1 - kappa_c."""
    sie, shear = lens
    share = 1 - SHEET
    theta_E, e1, e2, x_0, y_0 = sie.vector.tolist()
    gamma1, gamma2 = (share * value for value in shear.vector.tolist()[:2])
    return SIE(share * theta_E, e1, e2, x_0, y_0) + Shear(gamma1, gamma2) + ConvergenceSheet(SHEET)


@pytest.fixture(scope="module", params=["sersic", "pixelated"])
def pair(request, solve):
    lenses = solve.lens, transformed(solve.lens)
    return [solve(request.param, lens=lens, fit_lens=False) for lens in lenses]


def test_image_is_the_same_within_a_fraction_of_its_error(pair):
    plain, sheet = pair
    error = plain.image.uncertainty.array
    share = np.abs(plain.image.data - sheet.image.data) / error
    assert share.max() < 0.01
    assert sheet.reduced_chi2 == pytest.approx(plain.reduced_chi2, rel=1e-3)


def test_errors_are_the_same(pair):
    errors = [result.image.uncertainty.array for result in pair]
    strong = errors[0] > 0.1 * errors[0].max()
    np.testing.assert_allclose(errors[0][strong], errors[1][strong], rtol=0.1)


def test_source_shrinks_and_magnification_grows(pair):
    plain, sheet = pair
    assert sheet.source.meta["pixel_scale"] / plain.source.meta["pixel_scale"] == pytest.approx(0.9, rel=0.02)
    assert sheet.magnification / plain.magnification == pytest.approx(0.9**-2, rel=0.01)
    if plain.source_model is not None:
        sizes = [result.source_model.r_eff.value for result in pair]
        assert sizes[1] / sizes[0] == pytest.approx(0.9, rel=1e-3)
