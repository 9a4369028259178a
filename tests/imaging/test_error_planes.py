"""Error planes that were made from the counts seen are recognised, and no others are."""

import numpy as np
import pytest
import torch
from astropy.io import fits

from lenssr.imaging import GaussianNoise, Observation, PoissonNoise

EXPOSURE, RMS = 500.0, 0.0064
FLAG = "errors_follow_counts"


def galaxy(side=80, peak=1.0):
    y, x = np.indices((side, side)) - (side - 1) / 2
    return peak * np.exp(-np.hypot(x, y) / 5)


def seen(rng, model, *, sky=0.0):
    """An image of count rates, its sky subtracted."""
    counts = rng.poisson(EXPOSURE * (model + sky)) / EXPOSURE - sky
    return counts + RMS * rng.standard_normal(model.shape)


PLANES = {
    "clipped": lambda data, sky: RMS**2 + np.maximum(data, 0) / EXPOSURE,
    "linear": lambda data, sky: RMS**2 + np.maximum(data + sky, 0) / EXPOSURE,
}


def read(data, variance, *, exposure=EXPOSURE, noise="plane"):
    header = fits.Header({"BUNIT": "electron/s"} | ({} if exposure is None else {"EXPTIME": exposure}))
    planes = [fits.PrimaryHDU(), fits.ImageHDU(data, header, "SCI"), fits.ImageHDU(variance**0.5, name="ERR")]
    options = {} if isinstance(noise, str) else {"noise": noise}
    return Observation.from_any(fits.HDUList(planes), pixel_scale=0.04, **options)


@pytest.mark.parametrize("exposure", [EXPOSURE, None, 100.0], ids=["known", "unknown", "wrong"])
@pytest.mark.parametrize(("kind", "sky"), [("clipped", 0.0), ("linear", 0.05)])
def test_photons_are_taken_out_of_the_plane(rng, kind, sky, exposure):
    data = seen(rng, galaxy(), sky=sky)
    found = read(data, PLANES[kind](data, sky), exposure=exposure)
    assert FLAG in found.flags
    np.testing.assert_allclose(found.noise.exposure, EXPOSURE, rtol=0.02)
    rest = np.median(found.noise.background_rms)
    assert rest == pytest.approx(np.sqrt(RMS**2 + sky / EXPOSURE), rel=0.02)


@pytest.mark.parametrize("peak", [0.0, 1.0, 30.0])
def test_where_the_model_is_the_data_the_plane_stays(rng, peak):
    data = seen(rng, galaxy(peak=peak))
    variance = PLANES["clipped"](data, 0)
    noise = read(data, variance).noise
    np.testing.assert_allclose(noise.moments(torch.as_tensor(data))[2], variance, rtol=1e-6)


@pytest.mark.parametrize("peak", [0.0, 0.1, 1.0, 30.0])
@pytest.mark.parametrize(
    "variance",
    [
        lambda model, data, rng: RMS**2 + model / EXPOSURE,
        lambda model, data, rng: np.full_like(model, RMS**2),
        lambda model, data, rng: (RMS**2 + model / EXPOSURE) * rng.uniform(0.8, 1.2, model.shape),
        lambda model, data, rng: RMS**2 * (1 + 0.3 * np.indices(model.shape)[0] / len(model)),
    ],
    ids=["model", "constant", "weights", "gradient"],
)
def test_planes_that_do_not_know_the_noise_are_used_as_they_are(rng, peak, variance):
    model = galaxy(peak=peak)
    for _ in range(10):
        data = seen(rng, model)
        found = read(data, variance(model, data, rng))
        assert FLAG not in found.flags
        assert isinstance(found.noise, GaussianNoise)


def test_a_plane_from_smoothed_counts_is_used_as_it_is(rng):
    from scipy.ndimage import gaussian_filter

    data = seen(rng, galaxy())
    found = read(data, PLANES["clipped"](gaussian_filter(data, 2), 0))
    assert FLAG not in found.flags


def test_a_bright_pixel_does_not_decide(rng):
    data, variance = seen(rng, galaxy()), np.full((80, 80), RMS**2)
    variance *= rng.uniform(0.99, 1.01, data.shape)
    data[70, 70], variance[70, 70] = 100.0, 100 * RMS**2
    assert FLAG not in read(data, variance).flags


def test_a_model_of_the_noise_wins(rng):
    data = seen(rng, galaxy())
    error = np.sqrt(PLANES["clipped"](data, 0))
    for noise in (GaussianNoise(error), PoissonNoise(EXPOSURE, RMS)):
        found = read(data, error**2, noise=noise)
        assert FLAG not in found.flags
        assert type(found.noise) is type(noise)


def test_plane_given_as_an_array(rng):
    data = seen(rng, galaxy())
    error = np.sqrt(PLANES["clipped"](data, 0))
    assert FLAG in Observation.from_any(data, pixel_scale=0.04, unit="electron/s", noise=error).flags


def test_a_few_pixels_of_sky_decide_nothing(rng):
    data = seen(rng, galaxy(14))
    assert FLAG not in read(data, PLANES["clipped"](data, 0)).flags


def test_masked_pixels_may_hold_anything(rng):
    data = seen(rng, galaxy())
    variance = PLANES["clipped"](data, 0)
    data[10:20, 10:20] = np.nan
    with pytest.warns(UserWarning, match="not finite"):
        found = read(data, variance)
    assert FLAG in found.flags
    assert np.isfinite(found.noise.background_rms).all()


def test_faint_light_is_not_pulled_down(rng):
    # The mean of pixels weighted by their own counts is one count too low.
    truth = 10 / EXPOSURE
    data = seen(rng, np.where(np.indices((200, 200))[1] < 100, truth, 0.0))
    found = read(data, PLANES["clipped"](data, 0))
    means = {}
    for name, noise in (("counts", GaussianNoise(found.error)), ("model", found.noise)):
        model = torch.full(data.shape, truth)
        for _ in range(5):
            weight = 1 / (noise.moments(model)[2] * torch.ones(data.shape)).numpy()[:, :100]
            model = torch.full(data.shape, float((weight * data[:, :100]).sum() / weight.sum()))
        means[name] = float(model[0, 0])
    error = np.sqrt((truth / EXPOSURE + RMS**2) / 20_000)
    assert means["counts"] < truth - 5 * error
    assert means["model"] == pytest.approx(truth, abs=3 * error)
