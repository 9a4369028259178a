"""The lens that ships with the package: what its files hold, how large they are, and whose they are."""

import importlib.util
import tomllib
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from lenssr import Observation
from lenssr.datasets import hst_lens

ROOT = Path(__file__).parents[1]
MOST_BYTES = 400_000
FILES = hst_lens()


def test_both_bands_are_small_together():
    assert sum(path.stat().st_size for path in FILES.values()) <= MOST_BYTES


@pytest.mark.parametrize("band", FILES)
def test_a_file_says_what_a_run_needs(band):
    image = Observation.from_any(FILES[band])
    assert image.shape == (112, 112) and image.valid.all()
    assert image.psf is not None and image.meta["FILTER"] == band
    assert image.pixel_scale == pytest.approx(0.04, abs=1e-4)
    assert not {"noise_guessed", "no_psf", "no_wcs", "unit_missing"} & set(image.flags)


@pytest.mark.parametrize("band", FILES)
def test_a_file_is_the_middle_of_the_original(real_data, band):
    path = Path(__file__).parents[1] / "benchmarks" / "datasets_hst.py"
    spec = importlib.util.spec_from_file_location("datasets_hst", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    with fits.open(real_data / FILES[band].name) as original, fits.open(FILES[band]) as shipped:
        original = script.crop(original)
        for name in (*script.PLANES, "PSF"):
            np.testing.assert_array_equal(shipped[name].data, original[name].data)
        assert shipped["SCI"].header == original["SCI"].header


@pytest.mark.parametrize("band", FILES)
def test_the_crop_keeps_places_on_the_sky(real_data, band):
    shipped, original = (fits.getheader(path, "SCI") for path in (FILES[band], real_data / FILES[band].name))
    shift = (original["NAXIS1"] - shipped["NAXIS1"]) / 2
    there = WCS(original).pixel_to_world(shift + 3.0, shift + 5.0)
    assert WCS(shipped).pixel_to_world(3.0, 5.0).separation(there).arcsec < 1e-6


def test_the_notice_is_installed_and_names_its_source():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    notice = "lenssr/datasets/hst/NOTICE.txt"
    assert notice in project["project"]["license-files"]
    assert "hst/NOTICE.txt" in project["tool"]["setuptools"]["package-data"]["lenssr.datasets"]
    text = (ROOT / notice).read_text(encoding="utf-8")
    assert "ajshajib/dolphin" in text and "dolphin developers" in text
    assert all(path.name in text for path in FILES.values())
