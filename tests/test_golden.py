"""The simulated half of the golden run gives what is recorded; `benchmarks/golden.py` compares all of it."""

import importlib

import pytest

SOURCES = ("interpolation", "sersic", "pixelated", "perturbed_sersic", "auto", "network")


@pytest.fixture(scope="module")
def golden():
    return importlib.import_module("golden")


def test_every_source_is_recorded(golden):
    assert golden.SOURCES == SOURCES
    assert len(list(golden.FOLDER.glob("*.npz"))) == 24


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("image", ["DeepLense", "galaxies"])
def test_a_golden_run_gives_what_is_recorded(golden, image, source):
    old, new = golden.load(golden.file_of(image, source)), golden.run(image, source)
    found, flags_kept = golden.differences(old, new)
    assert flags_kept
    assert {name: value for name, value in found.items() if not value <= golden.KEPT[name]} == {}
