"""Tests of one group run in one process, which makes what they share once."""

import pytest


@pytest.mark.xdist_group("shared")
def test_processes_see_the_groups_of_tests(request):
    # In a process of pytest-xdist; alone there is one process.
    grouped = getattr(request.config.option, "loadgroup", False)
    assert not grouped or request.node.nodeid.endswith("@shared")
