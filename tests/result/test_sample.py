"""Draws from the posterior."""

import astropy.units as u
import numpy as np
import pytest

from lenssr.exceptions import InputError

COUNT = 300
CASES = {
    "sersic": {"source": "sersic"},
    "sersic with its lens": {"source": "sersic", "fit": True},
    "pixelated": {"source": "pixelated"},
    "pixelated with its lens": {"source": "pixelated", "fit": True},
    "linear": {"source": "pixelated", "positive": False},
    "narrow output": {"source": "sersic", "psf_out": 0.12 * u.arcsec},
}


@pytest.fixture(params=CASES)
def result(request, solve):
    case = dict(CASES[request.param])
    return solve(case.pop("source"), lens=solve.lens, fit_lens=case.pop("fit", False), **case)


def test_draws_are_images_with_units(result):
    draws = result.sample(2)
    assert draws.image.shape == (2, *result.image.shape)
    assert draws.source.shape == (2, *result.source.shape)
    assert draws.image.unit == result.image.unit
    assert draws.source.unit == result.source.unit


@pytest.mark.parametrize("name", ["image", "source"])
def test_they_scatter_by_the_uncertainties(result, name):
    plane = getattr(result, name)
    error, drawn = plane.uncertainty.array, getattr(result.sample(COUNT, seed=1), name).value
    # An error of a free-form source is itself the scatter of 64 draws, known to 9 %, and neighbours agree.
    strong = error > 0.1 * error.max()
    ratio = drawn.std(axis=0)[strong] / error[strong]
    assert np.median(ratio) == pytest.approx(1, abs=0.15)
    assert ratio.min() > 0.6 and ratio.max() < 1.7
    off = (drawn.mean(axis=0) - plane.data)[strong] / error[strong] * np.sqrt(COUNT)
    assert np.abs(off).max() < 6


def test_the_seed_decides(solve):
    result = solve("pixelated", lens=solve.lens, fit_lens=False)
    first, again, other = (result.sample(2, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.image.value, again.image.value)
    np.testing.assert_array_equal(first.source.value, again.source.value)
    assert np.abs(first.image.value - other.image.value).max() > 0


@pytest.mark.parametrize("source", ["sersic", "pixelated"])
def test_fewer_draws_are_the_first_of_more(solve, source):
    result = solve(source, lens=solve.lens, fit_lens=False)
    more, fewer = result.sample(5, seed=1), result.sample(2, seed=1)
    np.testing.assert_allclose(more.image.value[:2], fewer.image.value, rtol=1e-5)


@pytest.mark.parametrize("source", ["sersic", "pixelated"])
def test_neighbours_vary_together(solve, source):
    result = solve(source, lens=solve.lens, fit_lens=False)
    error = result.image.uncertainty.array
    row, column = np.unravel_index(error.argmax(), error.shape)
    drawn = result.sample(COUNT).image.value
    assert np.corrcoef(drawn[:, row, column], drawn[:, row, column + 1])[0, 1] > 0.5


@pytest.mark.parametrize("wrong", [{"n": 0}, {"n": 2.5}, {"n": True}, {"n": 1, "seed": -1}])
def test_numbers_are_checked(solve, wrong):
    with pytest.raises(InputError, match="give an integer"):
        solve("sersic", lens=solve.lens, fit_lens=False).sample(**wrong)
