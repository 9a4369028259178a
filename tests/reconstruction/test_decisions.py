"""Thresholds say where they come from, and decide something."""

import re
from pathlib import Path

import pytest

import lenssr
from lenssr.imaging import detection
from lenssr.model import fit
from lenssr.reconstruction import decisions

PACKAGE = Path(lenssr.__file__).parent
TEXT = Path(decisions.__file__).read_text(encoding="utf-8")
NAMES = [name for name in vars(decisions) if name.isupper()]


def above(name):
    """The comment above the line that gives a name its value."""
    lines = TEXT.splitlines()
    place = next(
        k for k, line in enumerate(lines) if re.match(rf"[A-Z_0-9, ]*\b{name}\b[A-Z_0-9, ]* = ", line)
    )
    while lines[place - 1].startswith(tuple(NAMES)):  # those before it share its comment
        place -= 1
    comment = []
    while lines[place - 1].startswith("# ") and "-----" not in lines[place - 1]:
        place -= 1
        comment.insert(0, lines[place])
    return " ".join(comment)


@pytest.mark.parametrize("name", NAMES)
def test_a_threshold_says_where_it_comes_from(name):
    assert re.search(r"\b([Tt]heory|[Tt]able|[Cc]hosen)\b", above(name))


def test_every_threshold_decides_something():
    code = "\n".join(path.read_text(encoding="utf-8") for path in (PACKAGE / "reconstruction").glob("*.py"))
    assert [name for name in NAMES if not re.search(rf"decisions\.{name}\b", code)] == []


def test_thresholds_of_other_rooms_are_the_same():
    # Rooms below the reconstruction cannot ask it.
    assert detection.LEAST_PEAK == decisions.OBJECT_PEAK
    assert fit.BOUND_COST == decisions.SECOND_MODE
