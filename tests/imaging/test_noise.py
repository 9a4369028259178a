"""Noise models: their moments are those of what they draw."""

import astropy.units as u
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lenssr.exceptions import InputError
from lenssr.imaging import DeepLenseNoise, GaussianNoise, NoiseModel, PoissonNoise, stack_noise
from lenssr.imaging.noise import _rank_correlation, count_kind, effective_exposure

MODELS = [
    GaussianNoise(0.3),
    PoissonNoise(200),
    PoissonNoise(200, 0.1),
    DeepLenseNoise(1000, 0.01),
    DeepLenseNoise(3000, 0.01),
    DeepLenseNoise(100, 0.2),
]


@pytest.mark.parametrize("noise", MODELS, ids=repr)
@pytest.mark.parametrize("flux", [0.0, 0.002, 0.02, 0.3, 5.0])
def test_moments_are_those_of_the_draw(noise, flux, rng):
    if type(noise) is PoissonNoise and noise.background_rms == 0:
        flux = max(flux, 0.001)  # the scatter of fewer than 0.01 counts is floored on purpose
    drawn = noise.draw(np.full(400_000, flux), rng)
    mean, _, variance = noise.moments(torch.tensor(flux, dtype=torch.float64))
    assert drawn.mean() == pytest.approx(float(mean), abs=4.5 * drawn.std() / np.sqrt(drawn.size))
    # Few counts have a heavy tail, which makes the variance of the sample itself uncertain.
    spread = np.sqrt(((drawn - drawn.mean()) ** 4).mean() / drawn.var() ** 2 / drawn.size)
    assert drawn.var() == pytest.approx(float(variance), rel=5 * spread)


@pytest.mark.parametrize("noise", MODELS, ids=repr)
def test_slope_is_the_derivative_of_the_mean(noise):
    model = torch.tensor([-0.01, 1e-4, 0.01, 0.2, 3.0], dtype=torch.float64, requires_grad=True)
    mean, slope, _ = noise.moments(model)
    (gradient,) = torch.autograd.grad(mean.sum(), model)
    assert torch.allclose(gradient, slope.expand_as(gradient), rtol=1e-10)


@pytest.mark.parametrize("noise", MODELS, ids=repr)
def test_single_precision_follows(noise):
    model = torch.tensor([0.0, 1e-4, 0.01, 0.2, 3.0, 100.0])
    single, double = noise.moments(model), noise.moments(model.double())
    for a, b in zip(single, double, strict=True):
        assert a.dtype == torch.float32
        assert torch.allclose(a.double(), b, rtol=2e-5, atol=1e-9)


def test_clipping_biases_the_empty_sky():
    mean = DeepLenseNoise(1000, 0.01).moments(torch.zeros((), dtype=torch.float64))[0]
    assert float(mean) == pytest.approx(0.01 / np.sqrt(2 * np.pi))


def test_variances_stay_positive_and_finite():
    model = torch.tensor([-5.0, -1e-3, 0.0, 1e-12], dtype=torch.float64)
    for noise in MODELS:
        mean, slope, variance = noise.moments(model)
        assert torch.isfinite(mean).all() and torch.isfinite(slope).all()
        assert (variance > 0).all() and torch.isfinite(variance).all()


@pytest.mark.parametrize("noise", [PoissonNoise(2000.0, 0.02), DeepLenseNoise(2000.0, 0.02)])
def test_a_draw_does_not_hang_by_round_off(noise):
    """What a convolution leaves of darkness differs between processors, and so do last digits."""
    rng, model = np.random.default_rng(0), np.zeros((38, 38))
    model[10:20, 10:20] = np.exp(rng.normal(-5, 2, (10, 10)))
    other = model * (1 + 1e-15 * rng.normal(size=model.shape)) + 1e-18 * rng.normal(size=model.shape)
    first, second = (noise.draw(one, np.random.default_rng(3)) for one in (model, other))
    np.testing.assert_allclose(first, second, rtol=1e-9, atol=1e-12)


def test_maps():
    sigma = np.array([[0.1, 0.2], [0.3, 0.4]])
    variance = GaussianNoise(sigma).moments(torch.zeros(5, 2, 2))[2]
    assert np.allclose(variance, sigma**2)
    variance = PoissonNoise(np.array([[100.0, 200.0]]), 0.1).moments(torch.ones(1, 2))[2]
    assert np.allclose(variance, [[0.02, 0.015]])


def test_stacked_noise_is_that_of_each():
    models = [DeepLenseNoise(1000, 0.01), DeepLenseNoise(2000, 0.02)]
    flux = torch.rand(2, 4, 5, dtype=torch.float64)
    together = stack_noise(models).moments(flux)
    for k, noise in enumerate(models):
        for a, b in zip(together, noise.moments(flux[k]), strict=True):
            assert torch.allclose(a[k], b)
    stacked = stack_noise([GaussianNoise(0.1), GaussianNoise(np.full((4, 5), 0.2))])
    assert stacked.sigma.shape == (2, 4, 5)
    with pytest.raises(InputError, match="GaussianNoise.*PoissonNoise"):
        stack_noise([GaussianNoise(0.1), PoissonNoise(1)])


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("electron/s", 500),
        ("", 500),
        ("electron/minute", 500 / 60),
        ("ct/s", 500),
        ("ph/s", 500),
        ("adu/s", 1000),
        ("electron", 1),
        ("DN", 2),
        ("electron/(s arcsec2)", 500 * 0.0025),
        ("electron/arcsec2", 0.0025),
    ],
)
def test_counts_in_a_unit_of_the_image(unit, expected):
    found = effective_exposure(500 * u.s, u.Unit(unit), pixel_area=0.0025, gain=2.0)
    assert found == pytest.approx(expected)


def test_counts_per_flux():
    assert effective_exposure(30 * u.electron / u.nJy, u.uJy) == pytest.approx(30_000)


@given(
    st.floats(1, 1e5),
    st.floats(1e-3, 1e3),
    st.sampled_from(["electron/s", "electron/hour", "kilosecond-1 electron"]),
)
def test_noise_does_not_depend_on_the_unit(exposure, rate, unit):
    unit = u.electron / u.ks if "kilo" in unit else u.Unit(unit)
    noise = PoissonNoise(exposure * u.s, 0.1 * u.electron / u.s)
    factor = (1 * u.electron / u.s).to_value(unit)
    reference = noise.in_unit(u.electron / u.s).moments(torch.tensor(rate, dtype=torch.float64))[2]
    found = noise.in_unit(unit).moments(torch.tensor(rate * factor, dtype=torch.float64))[2]
    assert float(found) == pytest.approx(float(reference) * factor**2, rel=1e-9)


@pytest.mark.parametrize(
    ("unit", "kind"),
    [("electron", "counts"), ("adu/s", "rate"), ("nJy", None), ("", None), ("ct/arcsec2", "counts")],
)
def test_count_kind(unit, kind):
    assert count_kind(u.Unit(unit)) == kind


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: GaussianNoise(0), "sigma = 0 is not positive"),
        (lambda: GaussianNoise(np.array([[1.0, np.nan]])), "sigma = nan in 1 pixels"),
        (lambda: PoissonNoise(-1), "exposure = -1"),
        (lambda: PoissonNoise(1, -1), "background_rms = -1"),
        (lambda: DeepLenseNoise(100, 0), "background_rms = 0"),
        (lambda: PoissonNoise(100).in_unit(u.nJy), "give it in electron / "),
        (lambda: PoissonNoise(100 * u.m).in_unit(u.electron), "neither a time"),
        (lambda: GaussianNoise(1 * u.nJy).in_unit(u.electron), "not convertible"),
        (lambda: PoissonNoise(100).in_unit(u.electron / u.arcsec**2), "pixel_area="),
    ],
)
def test_refused(make, match):
    with pytest.raises(InputError, match=match):
        make()


def test_settings():
    assert DeepLenseNoise(1000 * u.s, 0.01).to_dict() == {
        "noise": "DeepLenseNoise",
        "exposure": "1000.0 s",
        "background_rms": 0.01,
    }
    assert repr(GaussianNoise(np.array([[1.0, 3.0]]))) == "GaussianNoise(sigma=2.0)"


def test_an_unfinished_noise_model_cannot_be_made():
    class Half(NoiseModel):
        def draw(self, model, rng):
            return model

    with pytest.raises(TypeError, match="abstract"):
        Half()


@pytest.mark.parametrize("levels", [4, 1000])
def test_rank_correlation_is_that_of_spearman(levels, rng):
    one = rng.integers(0, levels, 400).astype(float)
    other = one + rng.integers(0, levels, 400)
    assert _rank_correlation(one, other) == pytest.approx(stats.spearmanr(one, other).statistic)
    assert _rank_correlation(one, np.ones(400)) == 0
