"""The result of several bands: what is shared and what is of a band, its file, figure, table and colours."""

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.visualization import make_lupton_rgb

from lenssr import SuperResolution, SuperResolver
from lenssr.cli import main
from lenssr.exceptions import InputError
from lenssr.result import BandsResolution

FRAME = {"turn": [[0.0, 1.0], [-1.0, 0.0]], "origin": [0.1, 0.0], "matrix": [[0.08, 0.0], [0.0, 0.08]]}


@pytest.fixture(scope="module")
def bands(make):
    """Two bands: the second has a flag of its own, and is turned by a quarter."""
    first = make(flags=("correlated_noise",))
    second = make(flags=("correlated_noise", "bad_chi2"), grade="doubtful")
    first, second = (
        replace(one, meta={**one.meta, "pixel_scale": 0.08, "frame": frame})
        for one, frame in ((first, None), (second, FRAME))
    )
    return BandsResolution.of(
        {"F606W": first, "F814W": second}, lens=first.lens, meta={"evidence": -12.5, "seconds": 3.0}
    )


def test_what_is_shared_and_what_is_of_a_band(bands):
    assert list(bands) == ["F606W", "F814W"]
    assert len(bands) == 2
    assert bands["F814W"].image.shape == (62, 72)
    assert bands.lens is bands["F606W"].lens is bands["F814W"].lens
    assert bands.R_E == bands["F606W"].R_E
    assert bands.flags == ("correlated_noise", "F814W: bad_chi2")
    assert not bands.ok
    assert repr(bands).startswith("<BandsResolution F606W, F814W, doubtful, reduced chi2")


@pytest.mark.parametrize("name", ["image", "source", "lens_light", "residual", "sky", "magnitudes"])
def test_a_plane_of_several_bands_is_refused_by_their_names(bands, name):
    with pytest.raises(AttributeError, match=rf"ask result\['F606W'\]\.{name} \(bands: F606W, F814W\)"):
        getattr(bands, name)
    one = BandsResolution.of({"F606W": bands["F606W"]})
    assert getattr(one, name) is getattr(one["F606W"], name) or name == "magnitudes"


def test_unknown_names_and_bands_are_refused(bands):
    with pytest.raises(AttributeError, match="no attribute 'imgae'"):
        bands.imgae  # noqa: B018
    with pytest.raises(InputError, match="no band 'F110W': give one of F606W, F814W"):
        bands["F110W"]


def test_a_band_that_is_left_out_does_not_make_it_bad(bands):
    good = bands["F606W"]
    three = {"a": good, "b": good, "c": bands["F814W"]}
    assert BandsResolution.of(three, left_out=["c"]).ok
    assert not BandsResolution.of(three).ok
    # Of two that disagree one may be as wrong as the other.
    assert not BandsResolution.of({"a": good, "c": bands["F814W"]}, left_out=["c"]).ok


def test_chi2_is_that_of_all_pixels(bands):
    chi2 = [one.chi2_map.sum() for one in bands.bands.values()]
    degrees = [one.chi2_map.sum() / one.reduced_chi2 for one in bands.bands.values()]
    assert bands.reduced_chi2 == pytest.approx(sum(chi2) / sum(degrees))


def test_the_table_and_the_text_show_every_band(bands):
    table = bands.parameters
    assert list(table["band"]) == ["", "", "F606W", "F606W", "F814W", "F814W"]
    text = bands.summary()
    for line in (
        "bands          F606W, F814W",
        "band F814W",
        "  verdict        doubtful; flags: correlated_noise, bad_chi2",
    ):
        assert line in text.splitlines()
    rows = [line.split()[:3] for line in text.splitlines()]
    assert rows.count(["F814W", "source", "r_eff"]) == rows.count(["shared", "lens", "theta_E_0"]) == 1


@pytest.fixture(scope="module")
def file(bands, tmp_path_factory):
    path = tmp_path_factory.mktemp("bands") / "out.fits"
    bands.write(path)
    return path


def test_a_file_gives_everything_back(bands, file):
    back = BandsResolution.read(file)
    assert list(back) == list(bands)
    for name in ("flags", "ok", "left_out", "meta"):
        assert getattr(back, name) == getattr(bands, name)
    for name in bands:
        mine, theirs = bands[name], back[name]
        for plane in ("image", "source", "data", "residual"):
            np.testing.assert_array_equal(getattr(mine, plane).data, getattr(theirs, plane).data)
        np.testing.assert_array_equal(mine.image.uncertainty.array, theirs.image.uncertainty.array)
        assert theirs.meta["frame"] == mine.meta["frame"]
        assert theirs.flags == mine.flags
    np.testing.assert_array_equal(back.lens.vector, bands.lens.vector)
    np.testing.assert_array_equal(back.lens.covariance, bands.lens.covariance)


def test_every_plane_is_an_nddata(bands, file):
    own = {"hdu_mask": "F814W_SCI_MASK", "hdu_uncertainty": "F814W_SCI_ERR"}
    image = CCDData.read(file, hdu="F814W_SCI", **own)
    np.testing.assert_array_equal(image.data, bands["F814W"].image.data)
    np.testing.assert_array_equal(image.uncertainty.array, bands["F814W"].image.uncertainty.array)
    assert image.unit == bands["F814W"].image.unit
    with fits.open(file, checksum=True) as opened:
        assert opened[0].header["BANDS"] == "F606W,F814W"
        assert list(opened["BANDS"].data["band"]) == ["F606W", "F814W"]
        assert len(opened["LENS"].data) == len(bands.lens.param_names)


def test_the_file_is_good_fits(file, fitsverify):
    fitsverify(file)


def test_files_of_one_image_and_of_bands_say_how_they_are_read(file, path):
    with pytest.raises(
        InputError, match="holds several bands: read it by lenssr.result.BandsResolution.read"
    ):
        SuperResolution.read(file)
    with pytest.raises(InputError, match="holds no bands: read the result of one image by"):
        BandsResolution.read(path)


def test_a_file_without_an_hdu_is_refused(file, tmp_path):
    with fits.open(file) as opened:
        del opened["F814W_CHI2"]
        opened.writeto(tmp_path / "less.fits", checksum=True)
    with pytest.raises(InputError, match="get the file again"):
        BandsResolution.read(tmp_path / "less.fits")


def test_copies_are_whole(bands):
    for twin in (pickle.loads(pickle.dumps(bands)), copy.copy(bands)):
        assert list(twin) == list(bands)
        assert twin.flags == bands.flags


def test_the_figure_has_a_row_for_every_band(bands, panels, tmp_path):
    figure = bands.plot(path=tmp_path / "out.png")
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.images]
    assert [title for title in titles if title.startswith(("F606W", "F814W"))] == [
        'F606W: data, 0.08" pixels',
        'F814W: data, 0.08" pixels',
    ]
    assert {"super-resolved model, F606W + F814W", "source, not lensed, F606W + F814W"} <= set(titles)
    assert (tmp_path / "out.png").stat().st_size > 10_000


def test_curves_are_drawn_in_the_frame_of_the_band(bands):
    """The second band sees everything turned by a quarter about a place 0.1" to the right."""
    figure = bands.plot()
    shown = [axes for axes in figure.axes if axes.get_title(loc="left").startswith("super-resolved model, 0")]
    lines = [axes.lines[0].get_xydata() for axes in shown]
    np.testing.assert_allclose(lines[1][:, 0], lines[0][:, 1], atol=1e-12)
    np.testing.assert_allclose(lines[1][:, 1], -(lines[0][:, 0] - 0.1), atol=1e-12)


def test_colours_are_those_of_the_bands_in_one_frame(make):
    """One band without a turn, and one turned by a quarter, its pixels turned back: a grey picture."""
    size, rng = 12, np.random.default_rng(4)
    plane = rng.uniform(1, 2, (size, size))
    flat = {"sky": 0 * make().sky}
    first, second = make(**flat), make(**flat)
    planes = plane, np.rot90(plane)  # the frame's +y is x of the second
    made = []
    for one, pixels, turn in zip((first, second), planes, (np.eye(2), FRAME["turn"]), strict=True):
        frame = {"turn": np.array(turn).tolist(), "origin": [0.0, 0.0], "matrix": FRAME["matrix"]}
        data = CCDData(pixels, unit=one.data.unit)
        made.append(replace(one, data=data, meta={**one.meta, "pixel_scale": 0.08, "frame": frame}))
    picture = BandsResolution.of({"F814W": made[0], "F606W": made[1]}).colour("data")
    level = plane / np.percentile(plane, 99.5)
    np.testing.assert_array_equal(picture, make_lupton_rgb(level, level, level, stretch=0.4, Q=8.0))
    blue = replace(made[1], data=CCDData(0.5 * made[1].data.data + 0.5, unit=made[1].data.unit))
    coloured = BandsResolution.of({"F814W": made[0], "F606W": blue}).colour("data")
    assert (coloured[..., 2].astype(int) >= coloured[..., 0]).all()


def test_colours_need_two_or_three_bands(bands):
    with pytest.raises(InputError, match="1 bands make no colours"):
        BandsResolution.of({"a": bands["F606W"]}).colour()
    with pytest.raises(InputError, match="give one of 'data', 'lens_subtracted', 'model', 'image', 'source'"):
        bands.colour("mass")


# ---------------------------------------------------------------- many of them, and the command


def test_map_takes_groups(plane):
    flat = plane(np.random.default_rng(6).normal(1, 0.1, (20, 20)), 0.1)
    alone = plane(flat.data, 0.1, wcs=False)
    images = [flat, {"g": flat, "r": flat}, {"g": flat, "r": alone}]
    resolver = SuperResolver(source="interpolation", noise={"g": 0.1, "r": 0.2})
    one, both, failed = resolver.map(images[:1], noise=0.1) + resolver.map(images[1:], pixel_scale=0.1)
    assert isinstance(one, SuperResolution)
    assert list(both) == ["g", "r"]
    ratio = both["r"].residual.uncertainty.array / both["g"].residual.uncertainty.array
    np.testing.assert_allclose(ratio, 2.0)
    assert "image 1 of r has no WCS" in repr(failed)
    assert not failed


@pytest.fixture(scope="module")
def two_files(tmp_path_factory, plane):
    folder, rng = tmp_path_factory.mktemp("two"), np.random.default_rng(5)
    for name, band in (("a", "F606W"), ("b", "F814W")):
        image = plane(rng.normal(1, 0.1, (20, 20)), 0.1, error=np.full((20, 20), 0.1))
        hdus = image.to_hdu(hdu_uncertainty="ERR")
        hdus[0].header["FILTER"] = band
        hdus.writeto(folder / f"{name}.fits")
    return folder


def test_the_command_takes_several_files(two_files, capsys):
    out = two_files / "out.fits"
    files = [str(two_files / "a.fits"), f"red={two_files / 'b.fits'}"]
    assert main(["resolve", *files, "-o", str(out), "--source", "interpolation"]) == 0
    assert "bands          F606W, red" in capsys.readouterr().out
    assert list(BandsResolution.read(out)) == ["F606W", "red"]


def test_the_command_refuses_places_that_differ_and_inputs_as_outputs(two_files, plane, capsys):
    a, b = str(two_files / "a.fits"), str(two_files / "b.fits")
    assert main(["resolve", a, f"x={b}", "-o", b, "--overwrite"]) == 1
    with fits.open(b) as opened:
        opened[0].header["CRVAL2"] += 10 / 3600
        opened.writeto(two_files / "far.fits")
    out = str(two_files / "never.fits")
    assert main(["resolve", a, str(two_files / "far.fits"), "-o", out, "--source", "interpolation"]) == 1
    assert "10 arcsec from the first image" in capsys.readouterr().err
