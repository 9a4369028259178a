"""Runs that are ended at random moments go on, and leave nothing behind."""

import pytest
from kills import kill_runs


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resolve", "simulate"])
def test_killed_runs_lose_nothing(name):
    assert kill_runs(1, 3, [name]) == {(name, "right"): 1}
