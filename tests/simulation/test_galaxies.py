"""Lenses of real galaxies, and the shapes they are made from."""

import importlib.util

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.io import fits
from scipy import ndimage

from lenssr import SuperResolver
from lenssr.exceptions import InputError
from lenssr.imaging import PSF
from lenssr.light import PixelatedSource
from lenssr.simulation import GALAXY_CELLS, GalaxyLenses, GalaxyShapes, galaxy_shapes, write_dataset

CELLS = list(GALAXY_CELLS)
SIZE = 4


def clumpy(side=40, sky=0.0):
    y, x = np.indices((side, side)) - (side - 1) / 2
    return sky + np.exp(-np.hypot(x, 1.5 * y) / 5) + np.exp(-np.hypot(x - 7, y + 5) / 2)


@pytest.fixture(scope="module")
def deep_field():
    return GalaxyShapes.hubble_deep_field()


@pytest.fixture(scope="module", params=CELLS)
def cell(request):
    return request.param


@pytest.fixture(scope="module")
def items(cell):
    return list(GalaxyLenses([clumpy()], SIZE, 3, **GALAXY_CELLS[cell]))


@pytest.fixture
def folder(tmp_path):
    from matplotlib.image import imsave

    np.save(tmp_path / "b.npy", clumpy(30))
    fits.PrimaryHDU(clumpy(32, sky=5.0)).writeto(tmp_path / "a.fits")
    imsave(tmp_path / "c.png", clumpy(34), cmap="gray")
    (tmp_path / "notes.txt").write_text("not a cutout")
    return tmp_path


# ---------------------------------------------------------------- the deep field


def test_deep_field_has_many_galaxies(deep_field):
    assert 20 <= len(deep_field) <= 30
    assert min(len(shape) for shape in deep_field) >= 30
    assert len(set(deep_field.names)) == len(deep_field)


@pytest.mark.parametrize("which", [slice(None), slice(None, None, 2), slice(1, None, 2), slice(-5, 20)])
def test_deep_field_goes_by_name(deep_field, which):
    ends = ("" if end is None else str(end) for end in (which.start, which.stop, which.step))
    assert GalaxyShapes.from_any(f"hubble_deep_field[{':'.join(ends)}]").names == deep_field.names[which]


def test_deep_field_has_the_spiral_but_no_star(deep_field):
    places = np.array([[int(number) for number in name.split("_")] for name in deep_field.names])

    def nearest(column, row):
        return np.hypot(*(places - (column, row)).T).min()

    assert nearest(123, 401) < 5
    assert min(nearest(754, 578), nearest(252, 166), nearest(147, 217)) > 20


def test_deep_field_is_dark_around_the_galaxies(deep_field):
    for shape in deep_field:
        rim = np.concatenate([shape[0], shape[-1], shape[:, 0], shape[:, -1]])
        assert np.all(rim == 0)
        assert np.all(shape >= 0)


def test_deep_field_galaxies_are_in_the_middle_and_fill_the_box(deep_field):
    for shape in deep_field:
        y, x = (np.indices(shape.shape) - (len(shape) - 1) / 2) / len(shape)
        assert np.hypot((shape * x).sum(), (shape * y).sum()) < 0.05
        assert 0.1 < np.sqrt((shape * (x**2 + y**2)).sum()) < 0.25


def test_deep_field_has_no_background(deep_field):
    for shape in deep_field:
        radius = np.hypot(*(np.indices(shape.shape) / (len(shape) - 1) - 0.5))
        assert shape[radius > 0.45].max() < 0.05 * shape.max()


def test_scikit_image_without_the_deep_field(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("skimage", tmp_path / "__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    galaxy_shapes._from_deep_field.cache_clear()
    with pytest.raises(InputError, match="install version 0.22 or later"):
        GalaxyShapes.hubble_deep_field()


# ---------------------------------------------------------------- other shapes


def test_folder_is_read_in_the_order_of_names(folder):
    found = GalaxyShapes.from_folder(folder)
    assert found.names == ("a.fits", "b.npy", "c.png")
    assert [len(shape) for shape in found] == [32, 30, 34]


def test_folder_may_stand_for_shapes(folder):
    assert GalaxyLenses(str(folder), size=4)[1].galaxy == "b.npy"


def test_background_is_removed():
    plain, bright = GalaxyShapes([clumpy(), clumpy(sky=100.0)])
    assert bright == pytest.approx(plain, abs=1e-9)


def test_colours_are_averaged_and_opacity_left_out():
    colours = np.stack([clumpy(), 3 * clumpy(), 2 * clumpy(), np.full((40, 40), 9.0)], axis=-1)
    assert GalaxyShapes([colours])[0] == pytest.approx(GalaxyShapes([clumpy()])[0], abs=1e-9)


def test_cutout_becomes_square_about_its_middle():
    shape = GalaxyShapes([clumpy(40)[5:-5]])[0]
    assert shape.shape == (40, 40)
    assert np.corrcoef(shape.ravel(), GalaxyShapes([clumpy()])[0].ravel())[0, 1] > 0.99


def test_pixels_that_are_not_finite_are_dark():
    holed = clumpy()
    holed[:3, :3] = np.nan
    assert GalaxyShapes([holed])[0] == pytest.approx(GalaxyShapes([clumpy()])[0], abs=1e-5)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.ones(30), "cutout 0 has shape"),
        (np.full((30, 30), "a"), "give a plain image"),
        (np.ones((30, 8)), "at least 12 a side"),
        (np.ones((30, 30)), "no light above its background"),
        (np.full((30, 30), np.nan), "no light above its background"),
    ],
)
def test_bad_cutouts_are_refused(image, message):
    with pytest.raises(InputError, match=message):
        GalaxyShapes([image])


def test_no_cutouts_are_refused():
    with pytest.raises(InputError, match="there are no cutouts"):
        GalaxyShapes([])


def test_names_must_be_as_many():
    with pytest.raises(InputError, match="2 names for 1 cutouts"):
        GalaxyShapes([clumpy()], ["a", "b"])


def test_missing_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="nowhere is not a folder"):
        GalaxyShapes.from_folder(tmp_path / "nowhere")


def test_empty_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no cutouts: .*\.fits"):
        GalaxyShapes.from_folder(tmp_path)


@pytest.mark.parametrize("name", ["broken.fits", "broken.npy", "broken.png"])
def test_broken_files_are_named(tmp_path, name):
    (tmp_path / name).write_text("nothing of the kind")
    with pytest.raises(InputError, match=name):
        GalaxyShapes.from_folder(tmp_path)


def test_file_that_is_no_cutout_is_named(tmp_path):
    np.save(tmp_path / "tiny.npy", np.ones((3, 3)))
    with pytest.raises(InputError, match=r"cutout tiny\.npy of \(3, 3\) pixels"):
        GalaxyShapes.from_folder(tmp_path)


# ---------------------------------------------------------------- lenses


def test_item_is_the_same_in_any_order():
    data = GalaxyLenses([clumpy()], size=3, seed=1)
    first = data[2]
    data[0]
    again = GalaxyLenses([clumpy()], size=30, seed=1)[2]
    for name in ("low", "high", "truth"):
        assert np.array_equal(getattr(first, name).data, getattr(again, name).data)
    assert not np.array_equal(first.low.data, GalaxyLenses([clumpy()], size=3, seed=2)[2].low.data)


def test_images_have_the_pixels_of_their_cell(cell, items):
    settings = GALAXY_CELLS[cell]
    for item in items:
        assert item.low.shape == (settings["pixels"],) * 2
        assert item.truth.shape == item.pixel_truth.shape == item.high.shape == (2 * settings["pixels"],) * 2
        assert item.low.wcs.wcs.cd[1, 1] * 3600 == pytest.approx(settings["pixel_scale"])
        assert item.psf.fwhm.to_value(u.arcsec) == settings["fwhm"]
        assert item.noise.background_rms == settings["sky_rms"]


def test_lenses_are_in_the_ranges_of_the_docs(items):
    for item in items:
        galaxy, shear = item.lens[0], item.lens[1]
        assert 1.0 <= galaxy.theta_E.value <= 1.25
        assert max(abs(galaxy.e1.value), abs(galaxy.e2.value)) <= 0.15
        assert max(abs(galaxy.x_0.value), abs(galaxy.y_0.value)) <= 0.1
        assert max(abs(shear.gamma1.value), abs(shear.gamma2.value)) <= 0.05
        assert max(map(abs, item.source.center)) <= 0.25
        assert 3 <= np.log10(item.low.meta["EXPTIME"]) <= 3.5


def test_source_has_the_flux_and_the_box(items):
    for item in items:
        assert isinstance(item.source, PixelatedSource)
        assert item.source.flux.value == pytest.approx(15.0)
        assert item.source.grid.shape[0] * item.source.grid.pixel_scale == pytest.approx(1.0)
        assert item.truth.data.sum() > 5 * 15.0


def test_source_is_turned_but_not_mirrored():
    item = GalaxyLenses([clumpy()], size=1, seed=5)[0]
    shape = GalaxyShapes([clumpy()])[0]
    large = np.clip(ndimage.zoom(shape, 6, order=3, grid_mode=True, mode="grid-constant"), 0, None)
    turned = ndimage.rotate(large, -item.settings["angle"], reshape=False, order=1)
    source = item.source.image.numpy()
    assert np.corrcoef(source.ravel(), turned.ravel())[0, 1] > 0.999
    assert np.corrcoef(source.ravel(), turned[:, ::-1].ravel())[0, 1] < 0.99


def test_source_shows_no_pixels_of_the_cutout(items):
    """Squares would make steps of one cutout pixel from one node to the next."""
    for item in items:
        source = item.source.image.numpy()
        assert np.abs(np.diff(source, n=2, axis=1)).max() < 0.02 * source.max()


def test_low_truth_is_the_binned_truth(items):
    for item in items:
        side = len(item.low.data)
        assert item.low_truth.data == pytest.approx(item.truth.data.reshape(side, 2, side, 2).sum((1, 3)))


@pytest.mark.parametrize("blurred", [False, True])
def test_truth_against_brute_force(cell, blurred):
    """Rays half as far apart, on a field half a Gaussian wider, which is applied as a filter."""
    item = GalaxyLenses([clumpy()], SIZE, 3, **GALAXY_CELLS[cell])[1]
    scale = GALAXY_CELLS[cell]["pixel_scale"] / 2
    parts, rim = round(scale / 0.003125), 12
    side = len(item.truth.data) + 2 * rim
    positions = (np.arange(side * parts) - (side * parts - 1) / 2) * scale / parts
    x, y = (torch.as_tensor(axis.ravel())[None] for axis in np.meshgrid(positions, positions))
    alpha_x, alpha_y = item.lens.deflection_at(x, y, item.lens.vector[None])
    beta = ((x - alpha_x).numpy() * u.arcsec, (y - alpha_y).numpy() * u.arcsec)
    flux = item.source(*beta).value.reshape(side, parts, side, parts).mean((1, 3)) * scale**2
    if blurred:
        sigma = GALAXY_CELLS[cell]["fwhm"] / np.sqrt(8 * np.log(2)) / scale
        flux = ndimage.gaussian_filter(flux, sigma, mode="constant", truncate=5)
    flux = flux[rim:-rim, rim:-rim]
    truth = item.truth.data if blurred else item.pixel_truth.data
    assert np.sqrt(np.mean((truth - flux) ** 2)) < 2e-4 * flux.max()


def test_truth_behind_its_own_psf_is_the_truth(items):
    item = items[0]
    assert item.truth_behind(item.psf).data == pytest.approx(item.truth.data, abs=1e-12)
    assert item.truth_behind(None).data == pytest.approx(item.pixel_truth.data, abs=1e-12)


def test_truth_behind_a_narrower_psf_is_sharper(cell, items):
    item, fwhm = items[0], GALAXY_CELLS[cell]["pixel_scale"]
    between = item.truth_behind(fwhm * u.arcsec)
    assert item.truth.data.max() < between.data.max() < item.pixel_truth.data.max()
    assert between.unit == item.truth.unit and between.wcs.wcs == item.truth.wcs.wcs
    assert item.truth_behind(PSF.from_fwhm(fwhm * u.arcsec)).data == pytest.approx(between.data)


def test_mean_source_is_an_average_and_keeps_the_flux(items):
    item = items[0]
    x_0, y_0 = item.source.center
    mean = item.mean_source((30, 24), 0.05, x_0 + 0.01, y_0 * u.arcsec)
    assert mean.shape == (30, 24)
    assert mean.sum() * 0.05**2 == pytest.approx(15.0, rel=1e-3)
    # The very nodes: pixels of twelve of them each, about the same centre.
    nodes = item.source.image.numpy().reshape(20, 12, 20, 12).mean((1, 3))
    assert item.mean_source((20, 20), 0.05, x_0, y_0) == pytest.approx(nodes, abs=5e-3 * nodes.max())


def test_noise_models_describe_the_images(items):
    for item in items:
        for image, truth, noise in (
            (item.low, item.low_truth, item.noise),
            (item.high, item.truth, item.high_noise),
        ):
            variance = noise.moments(torch.as_tensor(truth.data))[2].numpy()
            pull = (image.data - truth.data) / np.sqrt(variance)
            assert pull.mean() == pytest.approx(0, abs=5 / np.sqrt(pull.size))
            assert pull.var() == pytest.approx(1, abs=6 * np.sqrt(2 / pull.size))


def test_every_shape_gets_its_turn():
    data = GalaxyLenses([clumpy(), clumpy(30)], size=3)
    assert [item.galaxy for item in data] == ["0", "1", "0"]
    assert [item.settings["shape"] for item in data] == [0, 1, 0]


def test_lengths_may_have_units():
    data = GalaxyLenses([clumpy()], pixel_scale=100 * u.mas, fwhm=0.16 * u.arcsec)
    assert (data.pixel_scale, data.fwhm) == pytest.approx((0.1, 0.16))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"flux": -1.0}, "flux = -1.0 is not a positive number"),
        ({"sky_rms": np.nan}, "sky_rms = nan"),
        ({"pixel_scale": 0}, "pixel_scale = 0"),
        ({"fwhm": 1 * u.s}, "not convertible to arcsec"),
        ({"pixels": 76.5}, "pixels = 76.5: give an integer"),
        ({"scale": 0}, "scale = 0: give an integer of at least 1"),
    ],
)
def test_bad_settings_are_refused(setting, message):
    with pytest.raises(InputError, match=message):
        GalaxyLenses([clumpy()], **setting)


def test_data_set_is_written(tmp_path):
    data = GalaxyLenses([clumpy()], size=2, **GALAXY_CELLS[CELLS[1]])
    manifest = write_dataset(data, tmp_path / "out")
    assert list(manifest["shape"]) == [0, 0]
    assert manifest.meta["pixel_scale"] == 0.1
    with fits.open(tmp_path / "out" / "000001.fits") as hdus:
        assert hdus["SCI"].shape == (38, 38) and hdus["ERR"].shape == (38, 38)


def test_repr_shows_the_settings():
    data = GalaxyLenses([clumpy()], size=2, **GALAXY_CELLS[CELLS[1]])
    assert repr(data).startswith(
        "GalaxyLenses(shapes=<GalaxyShapes: 1 cutout>, size=2, seed=0, pixel_scale=0.1,"
    )


def test_resolver_takes_an_item(items):
    result = SuperResolver(source="interpolation")(items[0].low, **items[0].given)
    assert result.image.shape == items[0].truth.shape
