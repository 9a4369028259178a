"""The docs keep up with the package."""

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import lenssr
from lenssr.photometry import SersicFlag
from lenssr.reconstruction.verdict import FLAGS

DOCS = Path(__file__).parents[1] / "docs"
PAGES = "\n".join(path.read_text(encoding="utf-8") for path in (DOCS / "reference").glob("*.rst"))
USER = {path.stem: path.read_text(encoding="utf-8") for path in (DOCS / "user").glob("*.rst")}
NAMED = set(re.findall(r":(?:constant|inner):`([\w.]+)`", " ".join(USER.values())))
ROOMS = [room.name for room in pkgutil.iter_modules(lenssr.__path__) if not room.name.startswith("_")]


@pytest.mark.parametrize("room", sorted(set(ROOMS) - {"cli"}))
def test_every_room_has_a_reference_page(room):
    assert f".. automodapi:: lenssr.{room}" in PAGES


def test_every_public_name_has_a_reference_page():
    documented = set()
    for module in re.findall(r"automod\w+:: (lenssr[.\w]*)\n", PAGES):
        documented |= set(importlib.import_module(module).__all__)
    assert set(lenssr.__all__) - {"__version__"} <= documented


def test_the_verdict_page_speaks_of_every_serious_flag():
    serious = {name for name, flag in FLAGS.items() if flag.serious}
    assert serious <= set(re.findall(r"``(\w+)``", USER["verdict"]))


@pytest.mark.parametrize("page", sorted(USER))
def test_pages_name_only_flags_that_exist(page):
    """A name in double backquotes that looks like a flag, behind the word, is one."""
    named = set(re.findall(r"flagged\s+``(\w+)``", USER[page]))
    if page == "verdict":
        headed = " ".join(re.findall(r"^- (``.*?):", USER[page], flags=re.M))
        named |= set(re.findall(r"``(\w+)``", headed))
    assert named <= set(FLAGS) | set(SersicFlag.__members__)


@pytest.mark.parametrize("path", sorted(NAMED))
def test_constants_and_functions_on_the_pages_exist(path):
    assert pkgutil.resolve_name(path) is not None
