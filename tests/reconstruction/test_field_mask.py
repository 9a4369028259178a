"""Other objects are masked and arcs are not; what the sky says about the noise."""

import numpy as np
import pytest
from scipy import ndimage

from lenssr.imaging import Observation, light_census, measure_sky
from lenssr.imaging.detection import label_objects
from lenssr.reconstruction.field_mask import auto_mask
from lenssr.simulation import BroadLenses

SIDE = 120
Y, X = np.indices((SIDE, SIDE), dtype=float)
MIDDLE = (SIDE - 1) / 2


def observe(light, seed=0, psf=None, **options):
    noise = np.random.default_rng(seed).normal(size=light.shape)
    return Observation.from_any(
        light + noise, pixel_scale=0.05, noise=1.0, unit="electron/s", psf=psf, **options
    )


def star(x, y, peak):
    return peak * np.exp(-((X - x) ** 2 + (Y - y) ** 2) / (2 * 1.2**2))


def galaxy(peak, scale, q=0.8, angle=0.5, index=1.0):
    dx, dy = X - MIDDLE, Y - MIDDLE
    along, across = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
    return peak * np.exp(-((np.hypot(along, across / q) / scale) ** (1 / index)))


def arc(radius, start, end, peak, width=1.5):
    r, phi = np.hypot(X - MIDDLE, Y - MIDDLE), np.degrees(np.arctan2(Y - MIDDLE, X - MIDDLE)) % 360
    middle, half = (start + end) / 2, (end - start) / 2
    turn = np.abs((phi - middle + 180) % 360 - 180)
    return peak * np.exp(-0.5 * ((r - radius) / width) ** 2) * np.clip((half - turn) / 8 + 0.5, 0, 1)


LENS = galaxy(100, 6)
ARCS = arc(28, -40, 40, 6) + arc(20, 165, 195, 5)
STARS = star(12, 15, 40) + star(105, 100, 15) + star(60, 112, 200)


def test_stars_are_masked_and_arcs_are_not():
    mask = auto_mask(observe(LENS + ARCS + STARS))
    assert not mask[ARCS > 1].any()
    assert not mask[np.hypot(X - MIDDLE, Y - MIDDLE) < 15].any()
    assert mask[STARS > 3].mean() > 0.97
    assert mask.mean() < 0.06


def test_ring_is_kept_without_a_lens_galaxy():
    mask = auto_mask(observe(arc(25, 0, 360, 8) + star(12, 15, 40)))
    assert not mask[arc(25, 0, 360, 8) > 1].any()
    assert mask[15, 12]


def test_four_images_are_kept():
    quad = sum(star(MIDDLE + dx, MIDDLE + dy, 40) for dx, dy in ((24, 0), (-20, 3), (2, 23), (-1, -22)))
    assert not auto_mask(observe(LENS + quad))[quad > 1].any()


def test_bright_star_without_a_counterpart_is_masked():
    mask = auto_mask(observe(LENS + star(MIDDLE + 30, MIDDLE + 25, 100)))
    assert mask[int(MIDDLE + 25), int(MIDDLE + 30)]


def test_a_galaxy_is_masked_with_its_wings():
    neighbour = 10 * np.exp(-np.hypot(X - MIDDLE - 40, Y - MIDDLE + 24) / 2.5)
    mask = auto_mask(observe(LENS + ARCS + neighbour))
    assert mask[neighbour > 0.3].mean() > 0.98
    assert not mask[ARCS > 1].any()


def test_touching_objects_are_deblended_if_each_is_bright_and_large():
    for peak, count in ((5.0, 2), (0.5, 1)):
        labels = label_objects(star(40, 60, 100) + star(46, 60, peak), 2.8, threshold=0.05).data
        assert labels.max() == count
        assert (labels[60, 40] != labels[60, 46]) == (count == 2)


def test_small_objects_are_not_deblended_and_empty_images_have_none():
    assert label_objects(star(40, 60, 4.0) + star(44, 60, 4.0), 2.8, threshold=0.5).data.max() == 1
    assert label_objects(np.zeros((20, 20)), 2.8) is None


def test_nothing_is_masked_in_noise_and_constants():
    assert not auto_mask(observe(np.zeros((SIDE, SIDE)))).any()
    constant = Observation.from_any(np.full((30, 30), 5.0), pixel_scale=0.05, unit="nJy")
    assert not auto_mask(constant).any()
    assert light_census(constant).total == 0


def test_masked_pixels_are_left_alone():
    bad = np.zeros((SIDE, SIDE), bool)
    bad[:40, :40] = True
    mask = auto_mask(observe(LENS + ARCS + STARS, mask=bad))
    assert not (mask & bad).any()


@pytest.mark.parametrize("seed", range(4))
def test_census_of_noise(seed):
    census = light_census(observe(np.zeros((SIDE, SIDE)), seed))
    assert census.total < 6 and census.arcs < 6


@pytest.mark.parametrize("q", [1.0, 0.8, 0.6])
@pytest.mark.parametrize("index", [1.0, 2.5])
def test_census_of_a_plain_galaxy_finds_no_arcs(q, index):
    census = light_census(observe(galaxy(300, 5 if index == 1 else 0.6, q=q, index=index)))
    assert census.total > 20
    assert census.arcs < 6


def test_census_finds_arcs():
    census = light_census(observe(LENS + ARCS))
    assert census.arcs > 8
    assert np.allclose(census.center, 0, atol=0.005)  # a tenth of a pixel
    assert light_census(observe(ARCS)).arcs > 8


def test_the_galaxy_is_what_light_surrounds():
    hit = LENS + ARCS
    hit[50, 64:67] += 3000  # brighter than the galaxy
    assert np.allclose(light_census(observe(hit)).center, 0, atol=0.005)
    # A bright arc near the middle is no galaxy, and an empty middle has none.
    assert light_census(observe(arc(12, 20, 120, 50) + arc(20, 200, 280, 20))).center == (0.0, 0.0)


def test_images_of_a_clumpy_source_are_kept_without_a_lens_galaxy():
    dataset = BroadLenses(size=20, seed=5)
    masks = [auto_mask(Observation.from_any(item.low)) for item in dataset]
    assert not any(mask.any() for mask in masks)


def correlated(kernel, shape=(140, 140), seed=0):
    kernel = np.array(kernel) / np.sqrt((np.array(kernel) ** 2).sum())
    return ndimage.convolve(np.random.default_rng(seed).normal(size=shape), kernel, mode="wrap"), kernel.sum()


@pytest.mark.parametrize(
    ("kernel", "lag1"),
    [
        ([[1.0]], 0.0),
        ([[0, 0.2, 0], [0.2, 1, 0.2], [0, 0.2, 0]], 0.4 / 1.16),
        ([[0.25, 0.5, 0.25], [0.5, 1, 0.5], [0.25, 0.5, 0.25]], 2 / 3),
    ],
)
def test_correlation_of_known_noise(kernel, lag1):
    noise, factor = correlated(kernel)
    sky = measure_sky(Observation.from_any(noise + 3, pixel_scale=0.05, noise=0.5, unit="nJy"))
    assert sky.lag1 == pytest.approx(lag1, abs=0.03)
    assert sky.factor == pytest.approx(factor, rel=0.08)
    assert sky.rms_ratio == pytest.approx(2, rel=0.04)
    assert sky.level == pytest.approx(3, abs=0.1)
    assert sky.correlated == (lag1 > 0.15)


@pytest.mark.parametrize(("error", "share"), [(0.8, 1.0), (1.25, 0.8), (10.0, 0.0)])
def test_pixels_that_scatter_less_than_their_errors_need_less_widening(error, share):
    noise, factor = correlated([[0.25, 0.5, 0.25], [0.5, 1, 0.5], [0.25, 0.5, 0.25]])
    sky = measure_sky(Observation.from_any(noise, pixel_scale=0.05, noise=error, unit="nJy"))
    assert sky.factor == pytest.approx(max(share * factor, 1.0), rel=0.08)


def test_halo_of_a_galaxy_is_no_correlation():
    light = galaxy(100, 6) + galaxy(3, 25)
    sky = measure_sky(observe(light))
    assert abs(sky.lag1) < 0.04
    assert sky.factor < 1.1


def test_too_little_sky_says_nothing():
    sky = measure_sky(
        Observation.from_any(np.random.default_rng(0).normal(size=(10, 10)), pixel_scale=0.1, noise=1)
    )
    assert (sky.lag1, sky.factor, sky.rms_ratio) == (0, 1, 1)


@pytest.mark.parametrize("name", ["hst_f475x.fits", "hst_f600lp.fits"])
def test_hst(real_data, name):
    observation = Observation.from_any(real_data / name)
    mask = auto_mask(observation)
    assert mask[112, 8] and mask[46, 118]
    # A part of the neighbour that is fainter than what counts by itself.
    assert mask[52, 113]
    for row, column in ((60, 98), (75, 96), (48, 93), (88, 88), (40, 87), (62, 36), (66, 63)):
        assert not mask[row, column]
    assert mask.mean() < 0.03
    assert measure_sky(observation).correlated
    assert light_census(observation.masked(mask)).arcs > 6


def test_euclid(real_data):
    hdus = {"sci": "VIS_BGSUB", "err": "VIS_RMS", "psf": "VIS_PSF"}
    observation = Observation.from_any(real_data / "euclid_q1_des.fits", hdus=hdus)
    mask = auto_mask(observation)
    assert mask[83, 52] and mask[92, 65]
    assert not mask[np.hypot(*(np.indices((100, 100)) - 49.5)) < 22].any()
    assert mask.mean() < 0.15
    assert measure_sky(observation).correlated
