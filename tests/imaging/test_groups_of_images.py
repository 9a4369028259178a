"""Which images belong together, and what of the options belongs to each."""

import numpy as np
import pytest
from astropy.io import fits

from lenssr._files import split_band
from lenssr.exceptions import InputError
from lenssr.imaging.groups_of_images import exposures_of, group_of_files, is_group, of_exposure

IMAGE = np.eye(4)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ({"g": "a.fits", "r": "b.fits"}, True),
        ({"g": ["a.fits", "b.fits"]}, True),
        ({"g": [IMAGE, IMAGE]}, True),
        ({"g": "a.fits"}, False),
        ({"g": IMAGE}, False),
        ({"g": [[1.0, 2.0], [3.0, 4.0]]}, False),
        ({"g": (IMAGE, fits.Header())}, False),
        ("a.fits", False),
        (IMAGE, False),
        (fits.Header({"A": 1, "B": 2}), False),
    ],
)
def test_which_inputs_are_several_images(image, expected):
    assert is_group(image) is expected


def test_a_band_that_is_asked_for_is_one_image():
    assert not is_group({"g": "a.fits", "r": "b.fits"}, "r")
    assert is_group({"g": "a.fits", "r": "a.fits"}, {"g": 0, "r": 1})  # planes of one file


def test_bands_have_lists_of_exposures():
    assert exposures_of({"g": "a", "r": ["b", "c"]}) == {"g": ["a"], "r": ["b", "c"]}
    with pytest.raises(InputError, match="'r' has no exposures"):
        exposures_of({"g": "a", "r": []})


BANDS = {"g": ["a"], "r": ["b", "c"]}


@pytest.mark.parametrize(
    ("value", "band", "number", "expected"),
    [
        (0.1, "r", 1, 0.1),
        ({"g": 0.1, "r": 0.2}, "r", 1, 0.2),
        ({"g": 0.1}, "r", 0, None),
        ({"r": [0.1, 0.2]}, "r", 1, 0.2),
        ({"sci": "IMAGE"}, "g", 0, {"sci": "IMAGE"}),
        ({"g": {"sci": "A"}, "r": {"sci": "B"}}, "r", 0, {"sci": "B"}),
    ],
)
def test_options_by_band_and_exposure(value, band, number, expected):
    assert of_exposure(value, "option", BANDS, band, number) == expected


def test_options_of_missing_bands_and_exposures_are_refused():
    with pytest.raises(InputError, match="psf names the band 'i': there are g, r"):
        of_exposure({"g": 1, "i": 2}, "psf", BANDS, "g", 0)
    with pytest.raises(InputError, match="psf has 3 entries for 2 exposures of r"):
        of_exposure({"r": ["a.fits", "b.fits", "c.fits"]}, "psf", BANDS, "r", 0)


def test_files_are_sorted_by_their_filters(tmp_path):
    for name, band in (("a", "F606W"), ("b", "F814W"), ("c", "F606W"), ("d", "")):
        header = fits.Header({"FILTER": band} if band else {})
        fits.PrimaryHDU(np.eye(8), header).writeto(tmp_path / f"{name}.fits")
    a, b, c, d = (str(tmp_path / f"{name}.fits") for name in "abcd")
    assert group_of_files([a, b, c]) == {"F606W": [a, c], "F814W": [b]}
    assert group_of_files([a, f"x={d}"]) == {"F606W": [a], "x": [d]}
    with pytest.raises(InputError, match=r"d\.fits does not say its filter: give NAME="):
        group_of_files([a, d])


def test_a_file_whose_name_has_a_sign_is_a_file(tmp_path):
    path = tmp_path / "x=1.fits"
    path.write_bytes(b"")
    assert split_band(str(path)) == (None, str(path))
    assert split_band("r=x.fits") == ("r", "x.fits")
    with pytest.raises(InputError, match="names no band"):
        split_band("=x.fits")
