"""The broad population: its ranges, its cameras, its sources, and images that are integrated well."""

import pickle

import numpy as np
import pytest
import torch

from lenssr.exceptions import InputError
from lenssr.grids import PixelGrid
from lenssr.imaging.render_scene import render
from lenssr.light import PixelatedSource, Sersic
from lenssr.simulation import BroadLenses, GalaxyShapes
from lenssr.simulation.galaxy_shapes import (
    NODES,
    blend_galaxies,
    clumpy_disc,
    half_light_radius,
    resample_shape,
    rotate_or_mirror,
)

Y, X = np.indices((40, 40)) - 20.0
GALAXY = np.exp(-np.hypot(X, Y) / 4) + 2 * np.exp(-(np.hypot(X - 7, Y + 4) ** 2) / 4)


@pytest.fixture(scope="module")
def drawn():
    data = BroadLenses(size=2000, seed=3, shapes=[GALAXY])
    return data, [data._draw(index) for index in range(0, 2000, 5)]


def test_lenses_fill_their_ranges(drawn):
    lens = np.array([one.lens for one in drawn[1]])
    theta_E, e, gamma = lens[:, 0], np.hypot(lens[:, 1], lens[:, 2]), np.hypot(lens[:, 5], lens[:, 6])
    q = (1 - e) / (1 + e)
    for values, low, high in ((theta_E, 0.5, 2.0), (q, 0.5, 1.0), (gamma, 0.0, 0.1)):
        assert values.min() >= low - 1e-9 and values.max() <= high + 1e-9
        assert values.min() < low + 0.1 * (high - low) and values.max() > high - 0.15 * (high - low)
    assert np.abs(lens[:, 3:5]).max() <= 0.15 and np.abs(lens[:, 3:5]).max() > 0.13


def test_sources_are_of_all_kinds(drawn):
    kinds = np.bincount([int(one.settings["kind"]) for one in drawn[1]])
    assert len(kinds) == 3 and kinds.min() > 90
    for one in drawn[1]:
        assert (one.source_image is None) == (one.settings["kind"] == 0)
    n = np.array([one.source[2] for one in drawn[1] if one.source_image is None])
    assert 0.5 <= n.min() < 0.8 and 3.7 < n.max() <= 4


# Sérsics reach beyond the box
@pytest.mark.parametrize(
    ("kind", "tolerance"), [("sersic", 0.2), ("clumpy", 0.02), ("shapes", 0.02), ("blends", 0.02)]
)
def test_sources_have_the_signal_to_noise_ratio_that_was_drawn(kind, tolerance):
    data = BroadLenses(size=64, seed=1, shapes=[GALAXY], sources=kind)
    batch = data.batch(range(8), dtype=torch.float64)
    places = torch.linspace(-1.5, 1.5, 601, dtype=torch.float64)
    y, x = (axis.reshape(1, -1) for axis in torch.meshgrid(places, places, indexing="ij"))
    for row in range(8):
        scenes = batch.scenes.select([row])
        centre_x, centre_y = scenes.source_vector[0, 3:5]
        light = scenes.source(x + centre_x, y + centre_y)[0].sort(descending=True).values
        within = light[: int((light.cumsum(0) < light.sum() / 2).sum())]
        radius = (len(within) * 0.005**2 / np.pi) ** 0.5
        width = data._camera_numbers(0)[1] / 2
        flux = float(within.mean()) * batch.pixel_scale**2 * radius / np.hypot(radius, width)
        noise = flux / float(batch.exposure[row]) + float(batch.noise.background_rms[row]) ** 2
        assert flux / noise**0.5 == pytest.approx(float(batch.settings["snr"][row]), rel=tolerance)


def test_cameras_change_every_64_lenses():
    data = BroadLenses(size=200, seed=0)
    cameras = [data.batch([index]) for index in (0, 63, 64, 128)]
    assert cameras[0].pixel_scale == cameras[1].pixel_scale
    assert len({camera.grid.pixel_scale for camera in cameras}) == 3
    assert all(0.05 <= camera.grid.pixel_scale <= 0.12 for camera in cameras)
    with pytest.raises(InputError, match="2 cameras"):
        data.batch([63, 64])
    batches = data.index_batches(40, seed=1)
    assert sorted(sum(batches, [])) == list(range(200))
    assert all(len({index // 64 for index in batch}) == 1 for batch in batches)


def test_psfs_are_gaussians_and_moffats_of_the_width_drawn():
    data = BroadLenses(size=64 * 40, seed=2)
    cameras = [data._make_camera(number) for number in range(40)]
    kinds = [type(camera.psf).__name__ for camera in cameras]
    assert 10 < kinds.count("GaussianPSF") < 30 and set(kinds) == {"GaussianPSF", "PSF"}
    for camera in cameras:
        assert 0.95 < camera.psf.fwhm.to_value("arcsec") / camera.grid.pixel_scale < 2.6


@pytest.mark.parametrize("source", ["sersic", "clumpy", "shapes", "blends"])
def test_images_are_those_of_the_models(source):
    data = BroadLenses(size=640, seed=1, sources=source, shapes=[GALAXY])
    for index in (5, 200):
        item = data[index]
        assert isinstance(item.source, Sersic if source == "sersic" else PixelatedSource)
        grid = PixelGrid.from_wcs(item.low.wcs, item.low.shape)
        image = render(grid, lens=item.lens, source=item.source, psf=item.psf, scale=2).value
        assert np.abs(item.truth.data - image).max() < 0.02 * image.max()
        assert np.mean((item.truth.data - image) ** 2) < 1e-6 * image.max() ** 2
        assert item.low_truth.data.sum() == pytest.approx(image.sum(), rel=5e-3)


def test_arcs_beyond_the_edge_are_blurred_into_the_image():
    options = {"sources": "sersic", "largest": 0.5, "pixels": 32, "pixel_scale": (0.05, 0.06)}
    data, cut = BroadLenses(size=640, seed=1, **options), []
    for index in range(0, 640, 64):
        item = data[index]
        grid, truth = PixelGrid.from_wcs(item.low.wcs, item.low.shape), item.truth.data
        rim, options = 30, {"lens": item.lens, "source": item.source, "psf": item.psf, "scale": 2}
        wide = render(grid.padded(rim), **options).value[2 * rim : -2 * rim, 2 * rim : -2 * rim]
        edges = [np.concatenate([one[0], one[-1], one[:, 0], one[:, -1]]) for one in (truth, wide)]
        if edges[1].max() > 0.1 * wide.max():
            cut.append(index)
            assert edges[0].sum() == pytest.approx(edges[1].sum(), rel=0.01)
    assert cut


def test_one_part_of_the_shapes():
    shapes = GalaxyShapes([GALAXY, GALAXY.T, GALAXY[::-1]], names="abc")
    assert shapes[::2].names == ("a", "c") and np.array_equal(shapes[1:][0], shapes[1])
    with pytest.raises(InputError, match="at least one"):
        shapes[5:]


def test_a_clumpy_disc_has_a_flux_of_one_and_the_size_asked_for():
    for seed in range(5):
        image, step = clumpy_disc(np.random.default_rng(seed), 0.2, 0.6, 0.3)
        assert image.shape == (NODES, NODES) and image.min() >= 0
        assert image.sum() * step**2 == pytest.approx(1)
        assert max(image[0].max(), image[:, 0].max()) < 1e-3 * image.max()
        assert 0.5 * 0.2 < half_light_radius(image) * NODES * step < 1.5 * 0.2


def test_a_blend_is_of_both_and_like_neither():
    first, second = (image / image.sum() for image in map(resample_shape, (GALAXY, GALAXY.T)))
    found = [blend_galaxies(np.random.default_rng(seed), first, second) for seed in range(6)]
    for image in found:
        assert image.shape == (NODES, NODES) and image.min() >= 0 and image.sum() == pytest.approx(1)
        assert max(image[0].max(), image[:, 0].max()) < 0.05 * image.max()
        assert np.abs(image - first).sum() > 0.1
    assert np.abs(found[0] - found[1]).sum() > 0.1
    np.testing.assert_array_equal(found[3], blend_galaxies(np.random.default_rng(3), first, second))


def test_einstein_radii_can_be_larger_in_the_image():
    data = BroadLenses(size=400, seed=3, pixel_scale=(0.05, 0.05), largest=0.35)
    share = np.array([data._draw(index).lens[0] for index in range(0, 400, 5)]) / (64 * 0.05)
    assert 0.33 < share.max() <= 0.35
    with pytest.raises(InputError, match="largest = 0.7: give a share"):
        BroadLenses(largest=0.7)


def test_half_light_radius_of_a_gaussian():
    y, x = np.indices((101, 101)) - 50
    gaussian = np.exp(-(x**2 + y**2) / 2 / 10**2)
    assert half_light_radius(gaussian) * 101 == pytest.approx(10 * np.sqrt(2 * np.log(2)), rel=0.01)


def test_orientations_are_eight():
    ways = {rotate_or_mirror(GALAXY, number).tobytes() for number in range(8)}
    assert len(ways) == 8
    nodes = resample_shape(GalaxyShapes([GALAXY])[0])
    assert nodes.shape == (NODES, NODES) and nodes.mean() * 40**2 == pytest.approx(1, rel=1e-3)


def test_pickle_makes_the_same():
    data = BroadLenses(size=64, seed=4)
    data.batch([1])
    assert torch.equal(pickle.loads(pickle.dumps(data)).batch([1]).low, data.batch([1]).low)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"sources": "spiral"}, "spiral"),
        ({"sources": "shapes"}, "shapes="),
        ({"pixels": 8}, "pixels = 8"),
        ({"pixels": 16}, "do not hold"),
        ({"pixel_scale": (0.1, 0.05)}, "pixel_scale"),
        ({"fwhm": (0, 2)}, "fwhm"),
        ({"snr": (-1, 2)}, "snr"),
        ({"scale": 0}, "scale = 0"),
    ],
)
def test_settings_are_checked_at_once(settings, match):
    with pytest.raises(InputError, match=match):
        BroadLenses(**settings)
