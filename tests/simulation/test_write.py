"""Simulated lenses on disk."""

import numpy as np
import pytest
import torch
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.table import Table

from lenssr.exceptions import InputError
from lenssr.imaging import Observation
from lenssr.simulation import BroadLenses, DeepLense, LensPopulation, write_dataset

DATA = DeepLense(lens="sis", noise=False, size=5, seed=1)


def test_images_round_trip(tmp_path):
    path = DATA.write(2, tmp_path)
    item = DATA[2]
    assert path.name == "000002.fits"
    for name, image in (
        ("SCI", item.low),
        ("HIGH", item.high),
        ("TRUTH", item.truth),
        ("LOWTRUTH", item.low_truth),
    ):
        again = CCDData.read(path, hdu=name, unit="electron / s")
        assert np.array_equal(again.data, image.data)
        assert again.wcs.wcs_compare(image.wcs) if hasattr(again.wcs, "wcs_compare") else True
        assert again.wcs.pixel_to_world(3, 4).separation(image.wcs.pixel_to_world(3, 4)).arcsec < 1e-6
    with fits.open(path) as hdus:
        assert hdus["SCI"].header["BUNIT"] == "electron / s"
        assert hdus["SCI"].header["EXPTIME"] == item.low.meta["EXPTIME"]
        assert hdus["HIGH"].header["EXPTIME"] == item.high.meta["EXPTIME"]
        assert "ERR" not in hdus


def test_file_is_an_observation(tmp_path):
    path = DATA.write(0, tmp_path)
    observation = Observation.from_any(path)
    item = DATA[0]
    assert np.array_equal(observation.data, item.low.data)
    assert observation.unit == item.low.unit
    assert observation.grid.pixel_scale == pytest.approx(0.05)


def test_population_has_errors_and_psf(tmp_path):
    data = LensPopulation(size=2, seed=3)
    item = data[1]
    with fits.open(data.write(1, tmp_path)) as hdus:
        pull = (item.low.data - item.low_truth.data) / hdus["ERR"].data
        assert pull.std() == pytest.approx(1, abs=0.05)
        assert hdus["PSF"].data.sum() == pytest.approx(1)
        light = dict(zip(hdus["LIGHT"].data["name"], hdus["LIGHT"].data["value"], strict=True))
        assert light["light_n"] == item.lens_light.n.value
        lens = dict(zip(hdus["LENS"].data["name"], hdus["LENS"].data["value"], strict=True))
        assert lens["lens_gamma1"] == item.lens[1].gamma1.value


def test_substructure_is_written(tmp_path):
    data = DeepLense("II", substructure="cdm", size=2, seed=3)
    with fits.open(data.write(1, tmp_path)) as hdus:
        table = hdus["SUBHALOS"].data
        masses = data.batch([1], dtype=torch.float64).scenes.subhalos[0].numpy()
        for column, name in enumerate(("theta_E", "x_0", "y_0")):
            assert np.array_equal(table[name], masses[:, column])
        lens = dict(zip(hdus["LENS"].data["name"], hdus["LENS"].data["value"], strict=True))
        assert lens["lens_theta_E"] == pytest.approx(1.28149057) and lens["lens_gamma1"] == 0.05


def test_manifest_of_sources_of_different_kinds(tmp_path):
    data = BroadLenses(size=6, seed=1)
    write_dataset(data, tmp_path)
    manifest = Table.read(tmp_path / "manifest.ecsv")
    assert set(manifest["kind"]) == {0.0, 1.0}
    assert np.all(np.isfinite(manifest["source_n"][manifest["kind"] == 0]))
    assert manifest.meta["pixel_scale"] == repr(data.pixel_scale)


def test_dataset_and_manifest(tmp_path):
    write_dataset(DATA, tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"
    manifest = Table.read(folder / "manifest.ecsv")
    assert sorted(path.name for path in folder.iterdir()) == [
        *(f"{i:06d}.fits" for i in range(5)),
        "manifest.ecsv",
    ]
    assert list(manifest["index"]) == [0, 1, 2, 3, 4]
    assert manifest["source_x_0"][3] == DATA[3].source.x_0.value
    assert manifest["lens_theta_E"][0] == 1.28149057
    assert manifest["exposure"][1] == DATA[1].low.meta["EXPTIME"]
    assert manifest.meta["seed"] == 1 and manifest.meta["lens"] == "sis"


def test_manifest_of_mixed_lenses(tmp_path):
    manifest = write_dataset(LensPopulation(size=2, seed=3), tmp_path)
    assert np.ma.is_masked(manifest["light_n"][0]) and not np.ma.is_masked(manifest["light_n"][1])


def test_some_indices(tmp_path):
    manifest = write_dataset(DATA, tmp_path, [4, 1])
    assert list(manifest["file"]) == ["000004.fits", "000001.fits"]


def test_existing_files_are_refused_before_anything_is_written(tmp_path):
    DATA.write(3, tmp_path)
    with pytest.raises(InputError, match="000003.fits exists: choose another folder"):
        write_dataset(DATA, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["000003.fits"]


def test_existing_file_is_refused(tmp_path):
    DATA.write(3, tmp_path)
    with pytest.raises(InputError, match="overwrite=True"):
        DATA.write(3, tmp_path)
    DATA.write(3, tmp_path, overwrite=True)


def test_overwrite(tmp_path):
    write_dataset(DATA, tmp_path, [0])
    write_dataset(DATA, tmp_path, [0], overwrite=True)


def test_missing_folder(tmp_path):
    with pytest.raises(InputError, match="missing does not exist"):
        DATA.write(0, tmp_path / "missing")


def test_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made"):
        write_dataset(DATA, tmp_path / "file")


def test_no_indices(tmp_path):
    with pytest.raises(InputError, match="no indices"):
        write_dataset(DATA, tmp_path, [])


def test_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(fits.HDUList, "writeto", fail)
    with pytest.raises(InputError, match=r"cannot be written \(disk full\)"):
        DATA.write(0, tmp_path)
    assert not list(tmp_path.iterdir())


def test_progress_bar(tmp_path, capsys):
    write_dataset(DATA, tmp_path, [0], progress=True)
    assert "simulating" in capsys.readouterr().err


def test_stages_are_logged(tmp_path, caplog):
    caplog.set_level("DEBUG", logger="lenssr")
    write_dataset(DATA, tmp_path, indices=[0, 1])
    Observation.from_any(tmp_path / "000000.fits")
    assert caplog.messages[0] == f"simulating 2 lenses in {tmp_path}"
    assert caplog.messages[1].startswith(f"read {tmp_path / '000000.fits'}: PRIMARY, SCI")
