"""Which galaxies are fitted together, and in which pixels."""

import numpy as np
import pytest
from photutils.psf import SourceGrouper

from lenssr.imaging import Observation
from lenssr.photometry.groups import AutoGrouper, batches, make_tasks
from lenssr.photometry.sources import Sources

SHAPE = (80, 90)


def partition(groups):
    return {frozenset(np.flatnonzero(groups == group)) for group in np.unique(groups)}


def tasks_of(x, y, *, grouper=None, segments=None, labels=None):
    image = Observation.from_any(np.zeros(SHAPE), noise=1.0, pixel_scale=1.0)
    image.meta["widening"] = 1.0
    sources = Sources(x, y, segments=segments, labels=labels)
    return make_tasks([image], sources, (21, 21), grouper)[0]


@pytest.mark.parametrize("seed", range(3))
def test_groups_are_those_of_photutils(seed):
    x, y = np.random.default_rng(seed).uniform(0, 100, (2, 60))
    assert partition(AutoGrouper(9.0, most=60)(x, y)) == partition(SourceGrouper(9.0)(x, y))


def test_a_group_with_too_many_members_is_divided_at_its_widest_gaps():
    x = np.array([0, 4, 8, 13, 17, 21], dtype=float)
    groups = AutoGrouper(6.0, most=4)(x, np.zeros(6))
    assert partition(groups) == {frozenset({0, 1, 2}), frozenset({3, 4, 5})}


def test_a_stamp_holds_the_boxes_of_its_galaxies():
    (task,) = tasks_of([40.2, 49.0], [30.0, 41.0], grouper=AutoGrouper(20.0))
    rows, columns = (
        np.arange(start, start + size) for start, size in zip(task.corner, task.shape, strict=True)
    )
    assert rows[0] <= 20 and columns[0] <= 30 and rows[-1] >= 51 and columns[-1] >= 59
    assert task.centres + task.middle == pytest.approx(np.array([[40.2, 30.0], [49.0, 41.0]]))
    boxes = np.zeros(SHAPE, dtype=bool)
    boxes[20:41, 30:51] = boxes[31:52, 39:60] = True
    assert np.array_equal(task.own_pixels, boxes[np.ix_(rows, columns)])


def test_pixels_belong_to_the_nearest_galaxy_or_to_segments():
    first, _ = tasks_of([30.0, 42.0], [30.0, 30.0])
    assert first.own_pixels.sum(0).tolist() == [21] * 17 + [0] * 4
    segments = np.zeros(SHAPE, dtype=int)
    segments[:, 26:] = 2
    first, _ = tasks_of([30.0, 42.0], [30.0, 30.0], segments=segments, labels=np.array([1, 2]))
    assert first.own_pixels.sum(0).tolist() == [21] * 6 + [0] * 15


def test_batches_hold_every_task_once_and_no_more_than_asked_for():
    x, y = np.random.default_rng(0).uniform(20, 60, (2, 25))
    tasks = tasks_of(x, y)
    found = batches(tasks, 4 * 21 * 21 * 9)
    assert [len(batch) for batch in found] == [4] * 6 + [1]
    assert {id(task) for batch in found for task in batch} == {id(task) for task in tasks}
