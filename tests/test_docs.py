"""The docs keep up with the package."""

import pkgutil
from pathlib import Path

import pytest

import lenssr

DOCS = Path(__file__).parents[1] / "docs"
PAGES = "\n".join(path.read_text(encoding="utf-8") for path in (DOCS / "reference").glob("*.rst"))
ROOMS = [room.name for room in pkgutil.iter_modules(lenssr.__path__) if not room.name.startswith("_")]


@pytest.mark.parametrize("room", sorted(set(ROOMS) - {"cli"}))
def test_every_room_has_a_reference_page(room):
    assert f".. automodapi:: lenssr.{room}" in PAGES
