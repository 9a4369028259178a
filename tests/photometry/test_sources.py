"""Where galaxies are found, beside where they were put."""

import astropy.units as u
import numpy as np
import pytest

from lenssr.imaging import Observation
from lenssr.photometry.sources import find_sources

FWHM, SIGMA = 2.5, 0.02  # as in conftest.py
SHAPE = (60, 110)
PLACES = np.array([[25.3, 30.2], [82.6, 27.9]])


@pytest.fixture
def observation(galaxy, noisy):
    return _observe(noisy(sum(galaxy(SHAPE, x=x, y=y) for x, y in PLACES)))


def _observe(data, **options):
    return Observation.from_any(data, noise=SIGMA, pixel_scale=1.0, psf=FWHM * u.arcsec, **options)


def _segments():
    plane = np.zeros(SHAPE, dtype=int)
    plane[15:45, 10:40], plane[15:45, 70:100] = 7, 3
    return plane


def test_galaxies_are_detected_where_they_are(observation):
    found = find_sources(None, observation)
    assert np.sort(found.x) == pytest.approx(PLACES[:, 0], abs=0.1)
    assert found.y[np.argsort(found.x)] == pytest.approx(PLACES[:, 1], abs=0.1)
    assert found.segments is None


def test_galaxies_of_segments_have_the_numbers_of_their_labels(observation):
    found = find_sources(_segments(), observation)
    assert found.id.tolist() == found.labels.tolist() == [3, 7]
    assert np.stack([found.x, found.y], axis=1) == pytest.approx(PLACES[::-1], abs=0.1)


def test_a_neighbour_outside_a_segment_does_not_move_its_galaxy(galaxy):
    alone, both = galaxy(SHAPE, x=25.3, y=30.2), galaxy(SHAPE, x=36.0, y=30.0)
    segments = np.where(np.indices(SHAPE)[1] < 31, 1, 0)
    found = find_sources(segments, _observe(alone + both))
    assert (found.x[0], found.y[0]) == pytest.approx((25.3, 30.2), abs=0.2)


def test_hidden_segments_lie_in_the_middle_of_their_boxes():
    hidden = np.zeros(SHAPE, dtype=bool)
    hidden[10:50, 5:45] = True
    found = find_sources(_segments(), _observe(np.zeros(SHAPE), mask=hidden))
    inside = (found.x > [69, 9]) & (found.x < [100, 40]) & (found.y > 14) & (found.y < 45)
    assert inside.all()


def test_an_empty_image_has_no_galaxies(noisy):
    assert len(find_sources(None, _observe(noisy(np.zeros(SHAPE))))) == 0
    assert len(find_sources(np.zeros(SHAPE, dtype=int), _observe(np.zeros(SHAPE)))) == 0
