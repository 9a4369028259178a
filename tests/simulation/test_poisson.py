"""The fast Poisson numbers against the distribution itself."""

import numpy as np
import pytest
from scipy import stats

from lenssr.simulation.camera import draw_poisson

NUMBER = 200_000


@pytest.mark.parametrize("mean", [1e-3, 0.06, 0.125, 0.3, 1.0, 3.37, 9.99, 31.4, 127.99, 128.0, 300.5])
def test_distribution(mean, rng):
    numbers = draw_poisson(np.full(NUMBER, mean), rng)
    top = int(mean + 12 * np.sqrt(mean) + 12)
    expected = NUMBER * stats.poisson.pmf(np.arange(top), mean)
    seen = np.bincount(numbers.astype(int), minlength=top)[:top]
    often = expected > 10
    # Everything rare goes into one class.
    expected = np.append(expected[often], NUMBER - expected[often].sum())
    seen = np.append(seen[often], NUMBER - seen[often].sum())
    chi2 = np.sum((seen - expected) ** 2 / np.maximum(expected, 1))
    assert stats.chi2.sf(chi2, len(seen) - 1) > 1e-3


def test_mixed_means_stay_in_their_pixels(rng):
    mean = np.array([[0.0, 0.05, 2.0], [60.0, 130.0, 1000.0]])
    numbers = np.mean([draw_poisson(mean, rng) for _ in range(4000)], axis=0)
    assert numbers.shape == mean.shape
    assert numbers == pytest.approx(mean, abs=0, rel=0) or np.all(
        np.abs(numbers - mean) <= 5 * np.sqrt(mean / 4000)
    )


def test_neighbours_are_independent(rng):
    numbers = draw_poisson(np.full(NUMBER, 0.7), rng) - 0.7
    assert abs(np.mean(numbers[1:] * numbers[:-1])) < 5 * 0.7 / np.sqrt(NUMBER)


def test_zero_gives_zero(rng):
    assert not draw_poisson(np.zeros(1000), rng).any()


def test_nothing_to_draw(rng):
    assert draw_poisson(np.zeros((0, 3)), rng).shape == (0, 3)


def test_same_seed_same_numbers():
    mean = np.linspace(0, 300, 1000)
    first, second = (draw_poisson(mean, np.random.default_rng(7)) for _ in range(2))
    assert np.array_equal(first, second)
