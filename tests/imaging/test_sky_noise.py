"""Correlated noise is measured as it was made: white noise through a kernel that is known."""

import numpy as np
import pytest
from scipy import ndimage, signal

from lenssr.imaging import Observation, measure_sky
from lenssr.imaging.sky import noise_rms
from lenssr.imaging.weight_maps import scaled_to_sky

SIDE = 256
TENT = np.outer([1.0, 2.0, 1.0], [1.0, 2.0, 1.0])
KERNELS = {
    "white": np.ones((1, 1)),
    "pairs in a row": np.array([[1.0, 1.0]]),
    "weak": np.array([[0.0, 0.2, 0.0], [0.2, 1.0, 0.2], [0.0, 0.2, 0.0]]),
    "square": np.ones((2, 2)),
    "tent": TENT,
    "alternating": np.array([[1.0, -0.4]]),
}


def noise(kernel, rng, sigma=1.0, shape=(SIDE, SIDE)):
    """White noise through a kernel, with a standard deviation of sigma."""
    return sigma * ndimage.convolve(rng.normal(size=shape), kernel, mode="wrap") / np.sqrt((kernel**2).sum())


def autocorrelation(kernel):
    """Of such noise, by lag from (0, 0), which is 1: a dict."""
    whole = signal.correlate2d(kernel, kernel) / (kernel**2).sum()
    middle = np.array(kernel.shape) - 1
    return {tuple(place - middle): value for place, value in np.ndenumerate(whole)}


def measured(image, sigma):
    return measure_sky(Observation.from_any(image, pixel_scale=0.05, noise=sigma, unit="electron/s"))


@pytest.mark.parametrize("name", KERNELS)
def test_neighbours_correlate_as_the_kernel_says(name, rng):
    kernel = KERNELS[name]
    sky, known = measured(noise(kernel, rng, 0.3), 0.3), autocorrelation(kernel)
    lag1 = (known.get((0, 1), 0.0) + known.get((1, 0), 0.0)) / 2
    # A lag of 65,000 pixels scatters by 0.004, and the subtraction of what is smooth lowers it by as much.
    assert sky.lag1 == pytest.approx(lag1, abs=0.02)
    assert sky.rms == pytest.approx(0.3, rel=0.02) and sky.rms_ratio == pytest.approx(1, rel=0.02)
    assert sky.correlated == (lag1 > 0.15)


@pytest.mark.parametrize("name", KERNELS)
def test_the_factor_is_how_much_wider_a_mean_scatters(name, rng):
    """The scatter of a mean of many pixels is that of independent ones times |sum k| / sqrt(sum k^2)."""
    kernel = KERNELS[name]
    total = sum(autocorrelation(kernel).values())
    assert total == pytest.approx(kernel.sum() ** 2 / (kernel**2).sum())
    expected = max(np.sqrt(total), 1.0)
    assert measured(noise(kernel, rng), 1.0).factor == pytest.approx(expected, rel=0.06)
    if name == "tent":
        means = [noise(kernel, rng, shape=(40, 40))[4:-4, 4:-4].mean() for _ in range(400)]
        assert np.std(means) * 32 == pytest.approx(expected, rel=0.12)


def test_errors_that_are_too_large_make_the_factor_smaller(rng):
    """What resampling moves into correlations pixels by themselves lack. Errors too small change nothing."""
    image = noise(TENT, rng)
    right, large = measured(image, 1.0), measured(image, 1.5)
    assert large.rms_ratio == pytest.approx(right.rms_ratio / 1.5)
    assert large.factor == pytest.approx(right.factor / 1.5)
    assert measured(image, 0.5).factor == pytest.approx(measured(image, 0.2).factor)
    assert measured(image, 0.5).factor == pytest.approx(TENT.sum() / np.sqrt((TENT**2).sum()), rel=0.08)


def test_a_galaxy_and_a_slope_are_not_noise(rng):
    y, x = np.indices((SIDE, SIDE)) - SIDE / 2
    halo = 40 * np.exp(-np.hypot(x, y) / 9) + 0.01 * x
    plain, under = measured(noise(TENT, rng), 1.0), measured(noise(TENT, rng) + halo, 1.0)
    assert under.pixels < plain.pixels
    assert under.lag1 == pytest.approx(plain.lag1, abs=0.03)
    assert under.factor == pytest.approx(plain.factor, rel=0.1)


def test_masked_pixels_do_not_count(rng):
    image = noise(TENT, rng)
    mask = rng.random(image.shape) < 0.3
    spoiled = np.where(mask, 1e6, image)
    observation = Observation.from_any(spoiled, mask=mask, pixel_scale=0.05, noise=1.0, unit="electron/s")
    sky = measure_sky(observation)
    assert sky.lag1 == pytest.approx(autocorrelation(TENT)[0, 1], abs=0.03)
    assert sky.factor == pytest.approx(TENT.sum() / np.sqrt((TENT**2).sum()), rel=0.08)


def filled(rng, kernel, shape=(64, 64)):
    """A galaxy with an extended halo and arcs that fill the frame; noise of sigma 1, and its weight."""
    y, x = (np.indices(shape) - 31.5) * 0.05
    radius = np.hypot(x, y / 0.8)
    arc = 25 * np.exp(-0.5 * ((radius - 1.1) / 0.06) ** 2) * (x > 0)
    light = 20 * np.exp(-7.67 * (radius**0.25 - 1)) + arc
    weight = np.where(x < 0, 4.0, 1.0)
    return light + noise(kernel, rng, 1.0, shape) / np.sqrt(weight), weight


@pytest.mark.parametrize(
    ("name", "most"), [("white", 1.5), ("pairs in a row", 1.5), ("square", 1.5), ("tent", 1.9)]
)
def test_light_that_fills_a_frame_hardly_raises_its_noise(name, most, rng):
    """The clipped rms of this image is 11 times the noise."""
    image, weight = filled(rng, KERNELS[name])
    good = np.ones(image.shape, dtype=bool)
    good[3:6, 8:12] = False
    image[~good] = np.nan
    sigma = 1 / np.sqrt(scaled_to_sky(0.02 * weight * good, image)[good])
    assert 0.95 < np.median(sigma * np.sqrt(weight[good])) < most
    pure = noise(KERNELS[name], rng, 0.3)
    assert noise_rms(pure, np.ones(pure.shape, dtype=bool)) == pytest.approx(0.3, rel=0.05)


@pytest.mark.parametrize(("smoothed", "within"), [(0.0, 0.05), (0.5, 0.05), (1.0, 0.1), (1.5, 0.2)])
@pytest.mark.parametrize("unit", ["nanomaggy", "electron"])
def test_noise_that_is_estimated_is_that_of_the_sky_beside_a_ring(smoothed, within, unit, rng):
    """The clipped rms is 1.6 times the noise. Photons of the image add nothing: they are 1e6."""
    y, x = (np.indices((64, 64)) - 31.5) * 0.05
    ring = 40 * np.exp(-0.5 * ((np.hypot(x, y) - 1.1) / 0.1) ** 2) * (1.2 + x / np.hypot(x, y)) / 2.2
    pure = ndimage.gaussian_filter(rng.normal(size=ring.shape), smoothed, mode="wrap")
    sigma = 1e3 if unit == "electron" else 0.1
    image = sigma * (ring + pure / pure.std())
    image[:, :8] = 0
    seen = Observation.from_any(image, pixel_scale=0.05, unit=unit)
    assert {"border_without_data", "noise_guessed" if unit == "nanomaggy" else "noise_from_exposure"} <= set(
        seen.flags
    )
    rms = seen.noise.background_rms if unit == "electron" else seen.noise.sigma
    assert rms == pytest.approx(sigma, rel=within)
