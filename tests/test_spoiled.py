"""Images that a verdict has to flag, from `benchmarks/spoiled.py`."""

import numpy as np
import pytest
import torch
from spoiled import SPOILED_KINDS, spoiled

from lenssr.exceptions import InputError
from lenssr.imaging import GaussianNoise
from lenssr.light import Sersic


@pytest.mark.parametrize("kind", SPOILED_KINDS)
def test_spoiled_is_seeded(kind):
    first, again, other = (spoiled(kind, seed).image.data for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert first.shape != other.shape or not np.array_equal(first, other)
    assert np.all(np.isfinite(first))


def test_star_is_a_point_at_the_centre():
    image = spoiled("star", 1).image.data
    rows, columns = np.nonzero(image > image.max() / 2)
    assert len(rows) <= 9
    assert np.hypot(rows.mean() - 49.5, columns.mean() - 49.5) < 4


def test_noise_has_no_light():
    case = spoiled("noise", 1)
    assert case.image.data.std() == pytest.approx(0.01, rel=0.05)
    assert abs(case.image.data.mean()) < 0.001


def test_constant_is_constant():
    assert np.ptp(spoiled("constant", 1).image.data) == 0


def test_spiral_has_arms():
    image = spoiled("spiral", 4).image.data
    assert np.sqrt(np.sum(image**2)) / 0.01 > 100
    bright = image > 0.05
    # Two arms look the same turned by half, but wind the other way in a mirror.
    turned, mirrored = (
        np.corrcoef(image[bright], other[bright])[0, 1] for other in (np.rot90(image, 2), np.fliplr(image))
    )
    assert turned > 0.95 and turned > mirrored + 0.01


def test_psf_wide_is_twice_too_wide():
    case = spoiled("psf_wide", 0)
    assert case.given["psf"].fwhm == 2 * case.item.psf.fwhm
    assert case.given["noise"] is case.item.noise


def test_errors_are_a_third():
    case = spoiled("errors_third", 0)
    model = torch.linspace(0.1, 5, 7, dtype=torch.float64)
    ratio = (case.item.noise.moments(model)[2] / case.given["noise"].moments(model)[2]).sqrt()
    assert ratio.numpy() == pytest.approx(3)


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_wrong_lens_is_off_by_ten_to_twenty_percent(seed):
    case = spoiled("wrong_lens", seed)
    ratio = case.settings["lens"][0].theta_E.value / case.item.lens[0].theta_E.value
    assert 0.1 <= abs(ratio - 1) <= 0.2


@pytest.mark.parametrize("kind", ["psf_wide", "errors_third", "wrong_lens"])
def test_lens_light_is_asked_for_where_there_is_some(kind):
    for seed in (0, 1):
        case = spoiled(kind, seed)
        assert ("lens_light" in case.settings) == isinstance(case.item.lens_light, Sersic)
        assert not isinstance(case.given["noise"], GaussianNoise)


def test_unknown_kind():
    with pytest.raises(InputError, match="'galaxy' is not known"):
        spoiled("galaxy")
