"""DeepLense Model I: the images against lenstronomy, the noise against the models of it, the seeding."""

import astropy.units as u
import numpy as np
import pytest
import scipy.signal
import torch

from lenssr.exceptions import InputError
from lenssr.grids import PixelGrid
from lenssr.imaging import DeepLenseNoise, PoissonNoise
from lenssr.imaging.instruments import EUCLID_VIS
from lenssr.simulation import DeepLense

LENSES = {
    "sis": ("SIS", {"theta_E": 1.28149057, "center_x": 0.0, "center_y": 0.0}),
    "sie": ("SIE", {"theta_E": 1.28149057, "e1": 0.1, "e2": 0.0, "center_x": 0.0, "center_y": 0.0}),
}


SHEAR = ("SHEAR", {"gamma1": 0.05, "gamma2": 0.0})


def lenstronomy_image(lenses, pixels, scale, x_0, y_0, *, supersampling=1, brightness=None):
    pytest.importorskip("lenstronomy")
    from lenstronomy.Data.imaging_data import ImageData
    from lenstronomy.Data.psf import PSF
    from lenstronomy.ImSim.image_model import ImageModel
    from lenstronomy.LensModel.lens_model import LensModel
    from lenstronomy.LightModel.light_model import LightModel

    corner = -(pixels - 1) / 2 * scale
    data = ImageData(np.zeros((pixels, pixels)), transform_pix2angle=np.eye(2) * scale, ra_at_xy_0=corner,
                     dec_at_xy_0=corner)  # fmt: skip
    source = {
        "amp": 20,
        "R_sersic": 0.25,
        "n_sersic": 1,
        "e1": -0.1,
        "e2": 0.1,
        "center_x": x_0,
        "center_y": y_0,
    }
    numerics = {"supersampling_factor": supersampling, "supersampling_convolution": False}
    names, settings = zip(*lenses, strict=True)
    light = LightModel(["SERSIC_ELLIPSE"])
    model = ImageModel(data, PSF("NONE"), LensModel(list(names)), light, kwargs_numerics=numerics)
    if brightness is not None:
        source["amp"] *= brightness / light.total_flux([source], norm=False)[0]
    return model.image(list(settings), [source])


def point_masses(batch):
    return [
        ("POINT_MASS", {"theta_E": theta_E, "center_x": x, "center_y": y})
        for theta_E, x, y in batch.scenes.subhalos[0].tolist()
    ]


@pytest.mark.parametrize("index", [0, 5])
@pytest.mark.parametrize("lens", ["sis", "sie"])
def test_truths_equal_lenstronomy(lens, index):
    item = DeepLense(lens=lens, size=10)[index]
    centre = item.source.x_0.value, item.source.y_0.value
    for truth, pixels in ((item.low_truth, 75), (item.truth, 150)):
        expected = lenstronomy_image([LENSES[lens]], pixels, 3.75 / pixels, *centre)
        assert truth.data == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("substructure", ["cdm", "axion"])
def test_substructure_equals_lenstronomy(substructure):
    data = DeepLense(lens="sie+shear", substructure=substructure, size=3)
    batch = data.batch([2], dtype=torch.float64)
    lenses = [LENSES["sie"], SHEAR, *point_masses(batch)]
    centre = batch.scenes.source_vector[0, 3:5].tolist()
    for truth, pixels in ((batch.low_truth, 75), (batch.truth, 150)):
        expected = lenstronomy_image(lenses, pixels, 3.75 / pixels, *centre)
        assert truth[0].numpy() == pytest.approx(expected, rel=1e-5, abs=1e-7 * expected.max())


@pytest.mark.parametrize(("model", "pixel_scale", "flux"), [("II", 0.101, 194.1), ("III", 0.08, 239.9)])
def test_telescopes_see_what_lenstronomy_sees(model, pixel_scale, flux):
    batch = DeepLense(model, substructure="cdm", size=3).batch([1], dtype=torch.float64)
    expected = lenstronomy_image(
        [LENSES["sie"], SHEAR, *point_masses(batch)],
        128,
        pixel_scale / 2,
        *batch.scenes.source_vector[0, 3:5].tolist(),
        supersampling=5,
        brightness=flux,
    )
    expected = scipy.signal.fftconvolve(expected, batch.kernel(2).numpy(), mode="same")
    difference = np.abs(batch.truth[0].numpy() - expected)
    assert difference.max() < 0.02 * expected.max() and difference.mean() < 1e-4 * expected.max()
    binned = expected.reshape(64, 2, 64, 2).sum((1, 3))
    assert np.abs(batch.low_truth[0].numpy() - binned).max() < 0.01 * binned.max()


def test_noise_of_a_telescope_is_that_of_its_instrument():
    batch = DeepLense("II", size=5).batch(high=True)
    assert set(batch.exposure.tolist()) == {2260.0}
    sky = EUCLID_VIS.count_rate(22.3) * 0.101**2
    rms = np.sqrt(sky * 2260 + 4 * 4.2**2) / 2260
    assert float(batch.noise.background_rms[0]) == pytest.approx(rms, rel=1e-6)
    assert float(batch.low[:, :10, :10].std()) == pytest.approx(rms, rel=0.1)
    assert float(batch.high[:, :20, :20].std()) == pytest.approx(rms / 2, rel=0.1)


@pytest.mark.parametrize("lens", ["sis", "sie"])
def test_truth_is_the_lensed_source_of_the_item(lens):
    data = DeepLense(lens=lens, size=3)
    item = data[2]
    grid = PixelGrid.from_wcs(item.truth.wcs, item.truth.shape)
    x, y = grid.x * u.arcsec, grid.y * u.arcsec
    alpha_x, alpha_y = item.lens.deflection(x, y)
    flux = item.source(x - alpha_x, y - alpha_y) * (0.025 * u.arcsec) ** 2
    assert item.truth.data == pytest.approx(flux.to_value(u.electron / u.s), rel=1e-9)


def test_item_is_the_same_in_any_order():
    forward = [item.low.data for item in DeepLense(size=4, seed=3)]
    data = DeepLense(size=400, seed=3)
    backward = [data[index].low.data for index in (3, 2, 1, 0)]
    assert all(np.array_equal(a, b) for a, b in zip(forward, backward[::-1], strict=True))


def test_seeds_and_items_differ():
    scenes = [DeepLense(size=2, seed=seed)[index].source.x_0.value for seed in (0, 1) for index in (0, 1)]
    assert len(set(scenes)) == 4


def test_negative_index_counts_from_the_end():
    data = DeepLense(size=5)
    assert np.array_equal(data[-1].low.data, data[4].low.data)


@pytest.mark.parametrize("index", [5, -6])
def test_index_out_of_range(index):
    with pytest.raises(IndexError, match="5 lenses"):
        DeepLense(size=5)[index]


def test_index_must_be_an_integer():
    with pytest.raises(InputError, match="1.5"):
        DeepLense(size=5)[1.5]


def test_length_and_iteration():
    data = DeepLense(size=3)
    assert len(data) == len(list(data)) == 3


def test_high_image_does_not_depend_on_the_noise_of_the_low_one():
    clean, noisy = (DeepLense(noise=noise, size=2)[1] for noise in (False, True))
    assert np.array_equal(clean.high.data, noisy.high.data)
    assert not np.array_equal(clean.low.data, noisy.low.data)


@pytest.mark.parametrize("noise", [False, True])
def test_batch_equals_items(noise):
    data = DeepLense(noise=noise, size=6, seed=2)
    batch = data.batch([4, 1], dtype=torch.float64, high=True)
    for place, index in enumerate((4, 1)):
        item = data[index]
        for name in ("low", "low_truth", "high", "truth"):
            assert np.array_equal(getattr(batch, name)[place].numpy(), getattr(item, name).data)
        assert batch.exposure[place] == item.low.meta["EXPTIME"]
        assert batch.high_noise.exposure[place] == item.high.meta["EXPTIME"]
        centre = [item.source.x_0.value, item.source.y_0.value]
        assert batch.scenes.source_vector[place, 3:5].tolist() == centre


def test_noise_of_the_low_image_is_the_same_without_the_high_one():
    data = DeepLense(size=3)
    assert torch.equal(data.batch(high=False).low, data.batch(high=True).low)


def test_values_are_counts_over_exposure():
    item = DeepLense(size=1)[0]
    for image in (item.low, item.high):
        counts = image.data * image.meta["EXPTIME"]
        assert counts == pytest.approx(np.round(counts), abs=1e-9)


@pytest.mark.parametrize("noise", [False, True])
def test_noise_models_describe_the_images(noise):
    data = DeepLense(lens="sis", noise=noise, size=150, seed=4)
    pulls, high_pulls = [], []
    for item in data:
        for image, truth, model, into in (
            (item.low, item.low_truth, item.noise, pulls),
            (item.high, item.truth, item.high_noise, high_pulls),
        ):
            mean, _, variance = model.moments(torch.as_tensor(truth.data))
            bright = truth.data * image.meta["EXPTIME"] > 5
            into.append(((image.data - mean.numpy()) / np.sqrt(variance.numpy()))[bright])
    for pull in map(np.concatenate, (pulls, high_pulls)):
        assert abs(pull.mean()) < 5 / np.sqrt(pull.size)
        assert pull.var() == pytest.approx(1, abs=0.02)


def test_clipping_biases_the_sky_as_modelled():
    batch = DeepLense(lens="sis", noise=True, size=100).batch()
    corner, truth = batch.low[:, :8, :8], batch.low_truth[:, :8, :8]
    assert type(batch.noise) is DeepLenseNoise
    assert corner.mean().item() == pytest.approx(batch.noise.moments(truth)[0].mean().item(), rel=0.03)
    assert corner.mean() > 1.5 * truth.mean()


def test_noise_models():
    clean, noisy = (DeepLense(noise=noise, size=1)[0] for noise in (False, True))
    assert type(clean.noise) is type(noisy.high_noise) is PoissonNoise
    assert type(noisy.noise) is DeepLenseNoise
    assert clean.noise.exposure == clean.low.meta["EXPTIME"]


def test_draws_are_where_the_model_says():
    drawn = [DeepLense(size=300, seed=8)._draw(index) for index in range(300)]
    for centre in np.stack([one.source[3:5] for one in drawn], axis=1):
        assert -0.35 <= centre.min() < -0.3 and 0.3 < centre.max() <= 0.35
    exposure, high_exposure = np.array([(one.noise.exposure, one.high_noise.exposure) for one in drawn]).T
    for seconds in (exposure, high_exposure):
        assert np.log10(seconds).min() >= 3 and np.log10(seconds).max() <= 3.5
        assert np.log10(seconds).mean() == pytest.approx(3.25, abs=0.03)
    assert abs(np.corrcoef(exposure, high_exposure)[0, 1]) < 0.2


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_grids_share_field_and_unit(scale):
    item = DeepLense(size=1, scale=scale)[0]
    assert item.high.shape == (75 * scale, 75 * scale)
    assert item.low.unit == item.high.unit == item.truth.unit == u.electron / u.s
    assert item.low.wcs.proj_plane_pixel_scales()[0].to_value(u.arcsec) == pytest.approx(0.05)
    assert item.high.wcs.proj_plane_pixel_scales()[0].to_value(u.arcsec) == pytest.approx(0.05 / scale)
    corner = item.low.wcs.pixel_to_world(-0.5, -0.5)
    assert corner.separation(item.high.wcs.pixel_to_world(-0.5, -0.5)).to_value(u.arcsec) < 1e-6


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"model": "IV"}, "'IV'"),
        ({"lens": "nfw"}, "'nfw'"),
        ({"noise": "yes"}, "'yes'"),
        ({"size": 0}, "size = 0"),
        ({"size": 2.5}, "2.5"),
        ({"seed": -1}, "seed = -1"),
        ({"scale": 0}, "scale = 0"),
        ({"substructure": "wdm"}, "'wdm'"),
    ],
)
def test_settings_are_checked_at_once(settings, match):
    with pytest.raises(InputError, match=match):
        DeepLense(**settings)


def test_repr_makes_the_same_data_set():
    data = DeepLense(lens="sis", noise=True, size=7, seed=9)
    again = eval(repr(data))
    assert np.array_equal(again[3].low.data, data[3].low.data)
