"""Outputs replace what they should and nothing else, results can be trusted, and the caller's state stays."""

import os
import stat
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from astropy.io import fits
from cases import image_file, result_file

from lenssr import InputError, SersicPhotometry, SuperResolution, SuperResolver
from lenssr._files import atomic, sweep
from lenssr._quiet import quiet
from lenssr.cli import main
from lenssr.networks import load
from lenssr.simulation import DeepLense, write_dataset


@pytest.fixture
def image(tmp_path):
    return image_file(tmp_path / "image.fits")


def resolve(image, out, *more):
    return main(
        ["resolve", str(image), "-o", str(out), "--source", "interpolation", "--quiet", *map(str, more)]
    )


@pytest.mark.parametrize("link", [False, True])
def test_an_input_is_never_replaced(image, tmp_path, capsys, link):
    before, out = image.read_bytes(), image
    if link:
        out = tmp_path / "link.fits"
        out.symlink_to(image)
    assert resolve(image, out, "--overwrite") == 1
    assert "is an input of this run" in capsys.readouterr().err
    assert image.read_bytes() == before


def test_two_outputs_of_one_name_are_refused(image, tmp_path, capsys):
    assert resolve(image, tmp_path / "a.png", "--plot", tmp_path / "a.png") == 1
    assert "the name of two outputs" in capsys.readouterr().err
    assert resolve(image, tmp_path / "a.fits", "--log-file", image) == 1
    assert "is an input or another output" in capsys.readouterr().err


def test_a_fifo_is_never_replaced(image, tmp_path, capsys):
    os.mkfifo(tmp_path / "out.fits")
    assert resolve(image, tmp_path / "out.fits", "--overwrite") == 1
    assert "a device, a FIFO" in capsys.readouterr().err


def test_the_mode_of_a_file_and_a_link_stay(tmp_path):
    (tmp_path / "a").write_text("old")
    (tmp_path / "a").chmod(0o600)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with atomic(tmp_path / "link") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "a").read_text() == "new" and (tmp_path / "link").is_symlink()
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600


def test_what_a_killed_process_left_is_swept(tmp_path):
    with atomic(tmp_path / "a") as temporary:
        temporary.write_text("new")
        host = temporary.name.split("-")[0]
        gone = tmp_path / f"{host}-{2**30}-0.a"
        gone.write_text("half")
        other = tmp_path / ".00000000-1-0.a"
        other.write_text("of another machine")
        sweep(tmp_path)
        assert temporary.exists() and not gone.exists() and other.exists()


# ---------------------------------------------------------------- results


def test_every_hdu_of_a_result_has_its_sums(tmp_path):
    path = result_file(tmp_path / "result.fits")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with fits.open(path, checksum=True) as hdus:
            assert all({"CHECKSUM", "DATASUM"} <= set(hdu.header) for hdu in hdus)
    assert SuperResolution.read(path).image.uncertainty is not None


@pytest.mark.parametrize("place", [30, 5800, 9000])
def test_a_bit_of_a_result_is_missed(tmp_path, place):
    path = result_file(tmp_path / "result.fits")
    raw = bytearray(path.read_bytes())
    raw[place] ^= 64
    path.write_bytes(raw)
    with pytest.raises(InputError):
        SuperResolution.read(path)


@pytest.mark.parametrize("name", ["SCI", "ERR", "DATA"])
def test_a_plane_of_a_result_is_missed_by_name(tmp_path, name):
    path = result_file(tmp_path / "result.fits")
    with fits.open(path) as hdus:
        hdus.readall()
        del hdus[name]
        hdus.writeto(tmp_path / "less.fits", checksum=True)
    with pytest.raises(InputError, match=f"the HDU {name} is missing"):
        SuperResolution.read(tmp_path / "less.fits")


def test_a_reshaped_plane_is_refused(tmp_path):
    path = result_file(tmp_path / "result.fits")
    with fits.open(path) as hdus:
        hdus["ERR"].data = hdus["ERR"].data[:-1]
        hdus.writeto(tmp_path / "other.fits", checksum=True)
    with pytest.raises(InputError, match="the HDU ERR has the size"):
        SuperResolution.read(tmp_path / "other.fits")


# ---------------------------------------------------------------- data sets that go on


def test_a_data_set_goes_on_where_it_stopped(tmp_path, monkeypatch):
    whole = write_dataset(DeepLense(size=4, seed=2), tmp_path / "whole")
    dataset = DeepLense(size=4, seed=2)
    item, made = dataset._item, []

    def stops(index):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(index)
        return item(index)

    monkeypatch.setattr(dataset, "_item", stops)
    with pytest.raises(KeyboardInterrupt):
        write_dataset(dataset, tmp_path / "part")
    with pytest.raises(InputError, match="tells of another data set"):
        write_dataset(DeepLense(size=4, seed=3), tmp_path / "part")
    made.clear()
    dataset = DeepLense(size=4, seed=2)
    part = write_dataset(dataset, tmp_path / "part")
    assert part.colnames == whole.colnames and all(np.array_equal(part[n], whole[n]) for n in whole.colnames)
    assert sorted(os.listdir(tmp_path / "part")) == sorted(os.listdir(tmp_path / "whole"))


def test_more_lenses_than_the_disk_holds_are_refused(tmp_path):
    with pytest.raises(InputError, match="need .* GB of disk"):
        write_dataset(DeepLense(size=10**12), tmp_path)


# ---------------------------------------------------------------- the state of the caller


@pytest.mark.parametrize("kind", [SuperResolver, SersicPhotometry])
@pytest.mark.parametrize("name", ["meta", "cuda:999", "nowhere"])
def test_devices_that_cannot_compute_are_refused(kind, name):
    with pytest.raises(InputError, match="is not available here"):
        kind(device=name)


def test_modes_of_torch_change_nothing():
    item = DeepLense(lens="sie", noise=True, size=1, seed=11)[0]

    def run():
        resolver = SuperResolver(source="sersic", lens=item.lens, oversampling=1)
        return resolver(item.low, noise=item.noise).image.data

    usual = run()
    with torch.no_grad():
        assert np.array_equal(run(), usual)
        assert not torch.is_grad_enabled()
    with torch.inference_mode():
        assert np.array_equal(run(), usual)
    with torch.device("meta"):
        assert np.array_equal(run(), usual)


def test_networks_are_read_alike_under_any_default():
    usual, _ = load("relensing")
    torch.manual_seed(0)
    before = torch.get_rng_state()
    torch.set_default_dtype(torch.float64)
    try:
        other, _ = load("relensing")
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(torch.get_rng_state(), before)
    for one, two in zip(usual.parameters(), other.parameters(), strict=True):
        assert two.dtype == torch.float32 and torch.equal(one, two)


GUEST = """
import os, warnings, torch
from lenssr import SuperResolver
from lenssr.simulation import DeepLense
item = DeepLense(lens="sie", noise=True, size=1, seed=11)[0]
before = dict(os.environ), list(warnings.filters), torch.get_num_threads(), torch.is_grad_enabled()
resolver = SuperResolver(source="network", oversampling=1)
resolver.fine_tune([item.low], noise=item.noise, lenses=[item.lens], steps=1)
after = dict(os.environ), list(warnings.filters), torch.get_num_threads(), torch.is_grad_enabled()
assert after == before, [one for one in zip(before, after) if one[0] != one[1]]
"""


@pytest.mark.slow
def test_lightning_is_imported_without_a_trace():
    subprocess.run([sys.executable, "-c", GUEST], check=True)


def test_filters_of_warnings_stay_also_with_threads():
    import threading

    before, steps = list(warnings.filters), threading.Barrier(2)

    def first():
        with quiet(UserWarning):
            steps.wait()
            steps.wait()

    def second():
        steps.wait()
        with quiet(DeprecationWarning):
            steps.wait()
            threads[0].join()

    threads = [threading.Thread(target=one) for one in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == before
