"""Writing and reading go wrong, and say so."""

import os

import numpy as np
import pytest
from astropy.io import fits

from lenssr.exceptions import InputError
from lenssr.result import SuperResolution
from lenssr.result.hdus import ImageExtension


def test_existing_file_is_kept(result, tmp_path):
    path = tmp_path / "out.fits"
    path.write_text("precious")
    with pytest.raises(InputError, match=r"out\.fits exists: .*overwrite=True"):
        result.write(path)
    assert path.read_text() == "precious"
    result.write(path, overwrite=True)
    assert SuperResolution.read(path).flags == result.flags
    assert os.listdir(tmp_path) == ["out.fits"]


def test_missing_folder_is_refused(result, tmp_path):
    with pytest.raises(InputError, match="does not exist: make it"):
        result.write(tmp_path / "none" / "out.fits")


def test_folder_is_refused(result, tmp_path):
    with pytest.raises(InputError, match="is a folder"):
        result.write(tmp_path)


def test_unwritable_folder_is_refused(result, tmp_path, monkeypatch):
    # by way of os.access, since tests may run as a user who may write anywhere
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(InputError, match="not writable"):
        result.write(tmp_path / "out.fits")


@pytest.mark.parametrize("old", [None, "precious"])
def test_failed_write_leaves_nothing(tmp_path, monkeypatch, old, make):
    path = tmp_path / "out.fits"
    if old is not None:
        path.write_text(old)

    def full(self):
        (half,) = set(tmp_path.iterdir()) - {path}  # the first HDU is in a file of another name
        assert half.name != path.name
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ImageExtension, "content", full)
    with pytest.raises(InputError, match="No space left on device"):
        make(shape=(8, 8)).write(path, overwrite=True)
    assert os.listdir(tmp_path) == ([] if old is None else ["out.fits"])


def test_meta_that_json_cannot_hold_is_refused(tmp_path, make):
    with pytest.raises(TypeError, match="leave it out"):
        make(shape=(8, 8), meta={"function": print}).write(tmp_path / "out.fits")
    assert os.listdir(tmp_path) == []


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        SuperResolution.read(tmp_path / "none.fits")


def test_other_fits_is_refused(tmp_path):
    fits.PrimaryHDU(np.ones((3, 3))).writeto(tmp_path / "other.fits")
    with pytest.raises(InputError, match="was not written by lenssr"):
        SuperResolution.read(tmp_path / "other.fits")


def test_text_file_is_refused(tmp_path):
    (tmp_path / "text.fits").write_text("not FITS")
    with pytest.raises(InputError, match="not a readable FITS file"):
        SuperResolution.read(tmp_path / "text.fits")


@pytest.mark.filterwarnings("ignore")
def test_truncated_file_is_refused(result, tmp_path):
    path = tmp_path / "out.fits"
    result.write(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    with pytest.raises(InputError, match=r"out\.fits"):
        SuperResolution.read(path)


def test_newer_layout_is_refused(result, tmp_path):
    path = tmp_path / "out.fits"
    result.write(path)
    fits.setval(path, "FILEVER", value=99)
    with pytest.raises(InputError, match="update lenssr"):
        SuperResolution.read(path)


def test_unknown_model_is_refused(result, tmp_path):
    path = tmp_path / "out.fits"
    result.write(path)
    with fits.open(path, mode="update") as hdulist:
        text = hdulist["META"].data["json"]
        hdulist["META"].data["json"] = [row.replace('"SIE"', '"Foo"') for row in text]
    with pytest.raises(InputError, match="'Foo' is not a mass model: .*others have to be imported first"):
        SuperResolution.read(path)
