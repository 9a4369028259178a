"""What an affiliated package has beside its code: the files agree with one another and invent no address."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAGES = ("affiliated", "about", "citation", "changelog")
NAMES = (
    "README.md",
    "CONTRIBUTING.md",
    "CODE_OF_CONDUCT.md",
    "CITATION.cff",
    *(f"docs/{p}.rst" for p in PAGES),
)
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in NAMES}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.mark.parametrize("name", NAMES)
def test_no_address_is_invented(name):
    assert not re.search(r"[\w.+-]+@[\w-]+\.\w+", TEXTS[name])
    assert not re.search(r"https?://[^\s>)]*lenssr", TEXTS[name])


@pytest.mark.parametrize("page", PAGES)
def test_pages_are_reached_from_the_first(page):
    assert re.search(rf"^   {page}$", (ROOT / "docs" / "index.rst").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_files_that_pages_name_exist(page):
    named = re.findall(r"``([\w./-]+\.(?:md|py|toml|yaml|yml|cff|txt))``", TEXTS[f"docs/{page}.rst"])
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_code_of_conduct_is_that_of_astropy():
    assert "https://www.astropy.org/code_of_conduct.html" in TEXTS["CODE_OF_CONDUCT.md"]
    assert "## Maintainers" in TEXTS["CONTRIBUTING.md"]


def test_the_citation_has_the_names_of_the_package():
    citation = yaml.safe_load(TEXTS["CITATION.cff"])
    assert citation["license"] == PROJECT["license"]
    assert [one["name"] for one in citation["authors"]] == [one["name"] for one in PROJECT["authors"]]
    assert all(one["name"] in TEXTS["docs/citation.rst"] for one in citation["authors"])
    assert citation["title"] in TEXTS["docs/citation.rst"]


def test_read_the_docs_installs_what_there_is():
    settings = yaml.safe_load((ROOT / ".readthedocs.yaml").read_text(encoding="utf-8"))
    assert settings["version"] == 2
    assert (ROOT / settings["sphinx"]["configuration"]).is_file()
    installed = " ".join(settings["build"]["jobs"]["install"])
    assert "-c constraints.txt" in installed and (ROOT / "constraints.txt").is_file()
    assert set(re.findall(r"\[(\w+)\]", installed)) <= set(PROJECT["optional-dependencies"])
    assert (
        f"Programming Language :: Python :: {settings['build']['tools']['python']}" in PROJECT["classifiers"]
    )


@pytest.mark.parametrize(
    "criterion",
    [
        "Relevance to astronomy",
        "Integration with Astropy",
        "Code of conduct",
        "Licence",
        "Automated tests and CI",
        "Statement of need and audience",
        "Metadata",
        "Citation",
        "badges",
        "Use of language models",
    ],
)
def test_every_criterion_has_a_state(criterion):
    rows = re.findall(r"^   \* - (.+)\n     - (.+)\n     - ", TEXTS["docs/affiliated.rst"], re.MULTILINE)
    states = [state for name, state in rows if criterion.lower() in name.lower()]
    assert states and set(states) <= {"met", "open", "met, not online"}


def test_release_notes_have_every_version():
    """Headings of the changelog are versions, newest first, and the docs show that file."""
    heads = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    versions = [re.fullmatch(r"(\d+(?:\.\d+)+) \((?:unreleased|\d{4}-\d{2}-\d{2})\)", head) for head in heads]
    assert versions and all(versions)
    numbers = [tuple(map(int, one[1].split("."))) for one in versions]
    assert numbers == sorted(numbers, reverse=True)
    assert ".. release-notes:: ../CHANGELOG.md" in TEXTS["docs/changelog.rst"]
