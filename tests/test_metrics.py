"""Metrics against scikit-image, torch and hand-made numbers."""

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.nddata import CCDData
from skimage import metrics as skimage_metrics

from lenssr.exceptions import InputError
from lenssr.metrics import (
    bicubic,
    coverage,
    flux_ratio,
    mse,
    oracle,
    psnr,
    reduced_chi2,
    scores_m,
    scores_t,
    ssim,
    stretch,
    summarize,
)


@pytest.fixture
def images():
    rng = np.random.default_rng(1)
    truth = rng.gamma(2.0, size=(31, 40))
    return truth + 0.3 * rng.normal(size=truth.shape), truth


@pytest.mark.parametrize("shape", [(7, 7), (8, 31), (75, 75)])
@pytest.mark.parametrize("data_range", [None, 1.0, 25.0])
def test_ssim_is_the_mean_of_its_formula_over_windows(shape, data_range):
    rng = np.random.default_rng(0)
    image, truth = rng.gamma(2.0, size=(2, *shape))
    c1, c2 = (np.array([0.01, 0.03]) * (data_range or truth.max())) ** 2
    x, y = (np.lib.stride_tricks.sliding_window_view(a, (7, 7)).reshape(-1, 49) for a in (image, truth))
    mean_x, mean_y = x.mean(1), y.mean(1)
    covariance = ((x - mean_x[:, None]) * (y - mean_y[:, None])).sum(1) / 48
    expected = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    expected /= (mean_x**2 + mean_y**2 + c1) * (x.var(1, ddof=1) + y.var(1, ddof=1) + c2)
    assert ssim(image, truth, data_range=data_range) == pytest.approx(expected.mean(), abs=1e-10)


@pytest.mark.parametrize("data_range", [None, 3.0])
def test_psnr_equals_scikit_image(images, data_range):
    reference = skimage_metrics.peak_signal_noise_ratio(
        images[1], images[0], data_range=data_range or images[1].max()
    )
    assert psnr(*images, data_range=data_range) == pytest.approx(reference, abs=1e-10)


def test_mse_equals_scikit_image(images):
    assert mse(*images) == pytest.approx(skimage_metrics.mean_squared_error(*images))


@pytest.mark.parametrize("scale", [1, 2, 3])
@pytest.mark.parametrize("shape", [(9, 12), (2, 3, 5, 6)])
def test_bicubic_equals_torch(scale, shape):
    image = np.random.default_rng(2).normal(size=shape)
    tensor = torch.from_numpy(image).reshape(-1, 1, *shape[-2:])
    reference = torch.nn.functional.interpolate(
        tensor, scale_factor=scale, mode="bicubic", align_corners=False
    )
    assert np.array_equal(
        bicubic(image, scale), reference.numpy().reshape(*shape[:-2], *reference.shape[-2:]) / scale**2
    )


def test_bicubic_keeps_the_unit():
    assert bicubic(np.ones((4, 4)) * u.electron, 2).unit == u.electron
    assert bicubic(CCDData(np.ones((4, 4)), unit="adu"), 2).unit == u.adu


@pytest.mark.parametrize("scale", [0, 1.5, -2])
def test_bicubic_refuses_scale(scale):
    with pytest.raises(InputError, match="an integer of at least 1"):
        bicubic(np.ones((4, 4)), scale)


def test_bicubic_refuses_vector():
    with pytest.raises(InputError, match="two dimensions"):
        bicubic(np.ones(4), 2)


def test_scores_t_uses_peak_of_truth(images):
    scores = scores_t(*images)
    assert scores == (mse(*images), psnr(*images), ssim(*images, data_range=images[1].max()))


def test_scores_m_forgives_scale_and_offset_of_the_reconstruction(images):
    image = np.abs(images[0])
    assert scores_m(5 * image + 2, images[1]) == pytest.approx(scores_m(image, images[1]))


def test_scores_m_by_hand(images):
    image, target = (np.clip(array, 0, None) for array in images)
    image, target = ((a - a.min()) / (a.max() - a.min()) for a in (image, target))
    scores = scores_m(*images)
    assert scores.mse == pytest.approx(np.mean((image - target) ** 2))
    assert scores.psnr == pytest.approx(-10 * np.log10(scores.mse))
    assert scores.ssim == pytest.approx(skimage_metrics.structural_similarity(image, target, data_range=1))


def test_oracle_is_the_truth_scored_in_m(images):
    assert oracle(images[1], images[0]) == scores_m(images[1], images[0])


def test_stretch_of_a_constant_is_zero():
    assert np.array_equal(stretch(np.full((3, 3), 7.0)), np.zeros((3, 3)))


def test_equal_images_have_infinite_psnr(images):
    assert psnr(images[1], images[1]) == np.inf


@pytest.mark.parametrize("function", [mse, psnr, ssim, scores_t, scores_m, flux_ratio, oracle])
class TestInputs:
    def test_shapes_must_agree(self, function):
        with pytest.raises(InputError, match=r"\(8, 8\).*\(9, 8\)"):
            function(np.ones((8, 8)), np.ones((9, 8)))

    def test_non_finite_is_refused(self, function):
        bad = np.ones((8, 8))
        bad[3, 3] = np.nan
        with pytest.raises(InputError, match="1 non-finite"):
            function(bad, np.ones((8, 8)))

    def test_units_must_convert(self, function):
        with pytest.raises(InputError, match="does not convert"):
            function(np.ones((8, 8)) * u.m, np.ones((8, 8)) * u.s)

    @pytest.mark.parametrize("kind", ["quantity", "ccddata", "tensor", "float32"])
    def test_kinds_give_the_same(self, function, images, kind):
        image, truth = (np.round(array * 64) / 64 for array in images)  # exact in float32
        reference = function(image, truth)
        if kind == "quantity":
            got = function(image * 1000 * u.mm, truth * u.m)
        elif kind == "ccddata":
            got = function(CCDData(image, unit="adu"), CCDData(truth, unit="adu"))
        elif kind == "tensor":
            got = function(torch.from_numpy(image), torch.from_numpy(truth))
        else:
            got = function(image.astype("f4"), truth.astype("f4"))
        assert got == pytest.approx(reference)


def test_images_smaller_than_the_window_are_refused():
    with pytest.raises(InputError, match="7 pixels"):
        ssim(np.ones((6, 8)), np.ones((6, 8)))


def test_negative_truth_needs_a_range():
    with pytest.raises(InputError, match="not positive"):
        psnr(np.ones((8, 8)), -np.ones((8, 8)))


def test_flux_ratio_of_empty_truth():
    with pytest.raises(InputError, match="sums to zero"):
        flux_ratio(np.ones((8, 8)), np.zeros((8, 8)))


def test_reduced_chi2_of_right_errors_is_one():
    rng = np.random.default_rng(3)
    error = rng.uniform(0.5, 2.0, size=(100, 100))
    assert reduced_chi2(error * rng.normal(size=error.shape), np.zeros_like(error), error) == pytest.approx(
        1, abs=0.05
    )


def test_reduced_chi2_leaves_out_masked_pixels():
    data, mask = np.array([1.0, np.nan, 3.0]), np.array([False, True, False])
    assert reduced_chi2(data, np.ones(3), np.array([1.0, 0.0, 1.0]), mask=mask) == 2.0


def test_reduced_chi2_converts_units():
    data, model = np.array([1.0, 3.0]) * u.m, np.array([100.0, 100.0]) * u.cm
    assert reduced_chi2(data, model, 1 * u.m) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("error", "n_parameters", "match"),
    [(0.0, 0, "positive and finite"), (np.nan, 0, "positive and finite"), (1.0, 4, "leave nothing")],
)
def test_reduced_chi2_refuses(error, n_parameters, match):
    with pytest.raises(InputError, match=match):
        reduced_chi2(np.ones((2, 2)), np.ones((2, 2)), error, n_parameters=n_parameters)


def test_reduced_chi2_refuses_mask_of_another_shape():
    with pytest.raises(InputError, match="mask has shape"):
        reduced_chi2(np.ones((2, 2)), np.ones((2, 2)), 1.0, mask=np.zeros(3, bool))


@pytest.mark.parametrize(("n_sigma", "expected"), [(1, 0.6827), (2, 0.9545)])
def test_coverage_of_gaussian_errors(n_sigma, expected):
    truth = np.random.default_rng(4).normal(size=(20000, 3))
    got = coverage(truth, np.zeros_like(truth), np.ones_like(truth), n_sigma=n_sigma, axis=0)
    assert got.shape == (3,)
    assert got == pytest.approx(expected, abs=0.015)


def test_coverage_refuses_negative_errors():
    with pytest.raises(InputError, match="negative"):
        coverage([1.0], [1.0], [-1.0])


def test_summary():
    values = np.array([3.0, 1.0, 2.0, 6.0])
    summary = summarize(values)
    assert (summary.mean, summary.worst, summary.worst_index, summary.count) == (3.0, 1.0, 1, 4)
    assert summary.standard_error == pytest.approx(values.std(ddof=1) / 2)
    assert summarize(values, higher_is_better=False).worst_index == 3


@pytest.mark.parametrize("values", [[], [[1.0]], [1.0, np.nan]])
def test_summary_refuses(values):
    with pytest.raises(InputError):
        summarize(values)
