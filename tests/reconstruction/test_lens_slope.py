"""The slope of an unknown lens: found where it is free, and 2 where it is not, or where that is likelier."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

from lenssr import EPL, SIE, InputError, Sersic, Shear, SuperResolver, render
from lenssr.grids import PixelGrid
from lenssr.model.fit import SLOPE_PRIOR
from lenssr.reconstruction.lens_slope import keep_held

GRID = PixelGrid((48, 48), 0.06)
RIGHT_FLAGS = {"unit_missing", "no_wcs", "no_psf"}


def image_of(gamma, signal=60.0, seed=4):
    """An image behind a power law, sampled at the centres of pixels, their noise, and the lens."""
    lens = EPL(0.9, gamma=gamma, e1=0.12, e2=-0.05) + Shear(0.03, 0.02)
    source = Sersic(60.0, 0.15, 1.2, x_0=0.08, y_0=0.05, e1=0.1, e2=0.1)
    image = np.asarray(render(GRID, lens=lens, source=source, oversampling=1))
    noise = image.max() / signal
    return image + np.random.default_rng(seed).normal(0, noise, image.shape), noise, lens


def solved(gamma, family, source="sersic", **more):
    image, noise, lens = image_of(gamma, **more)
    resolver = SuperResolver(source=source, lens=family, oversampling=1)
    return resolver(image, noise=noise, pixel_scale=GRID.pixel_scale), lens


def test_the_evidence_is_that_of_two_integrals():
    """The ratio of densities equals the ratio of evidences that quadrature gives, to the sign."""
    mean, width = SLOPE_PRIOR
    for peak, sigma in ((2.0, 0.02), (2.1, 0.05), (2.05, 0.02), (2.3, 0.3), (1.9, 0.03)):
        likelihood = stats.norm(peak, sigma).pdf
        free = integrate.quad(
            lambda g, f=likelihood: f(g) * stats.norm(mean, width).pdf(g), 0, 4, points=[peak, mean]
        )[0]
        variance = 1 / (sigma**-2 + width**-2)
        slope = variance * (peak / sigma**2 + mean / width**2)
        assert keep_held(slope, math.sqrt(variance)) == (likelihood(2.0) > free)


@pytest.mark.parametrize("source", ["sersic", pytest.param("pixelated", marks=pytest.mark.slow)])
@pytest.mark.parametrize("gamma", [1.8, 2.3])
def test_a_free_slope_is_found(gamma, source):
    result, lens = solved(gamma, "epl", source)
    found = result.lens[0]
    assert isinstance(found, EPL) and isinstance(result.lens[1], Shear)
    assert abs(found.gamma.value - gamma) < 4 * found.gamma.std and found.gamma.std < 0.1
    assert result.R_E.value == pytest.approx(lens.einstein_radius().value, rel=0.01)
    assert set(result.flags) <= RIGHT_FLAGS
    assert "lens.gamma_0" in result.covariance_names
    held, _ = solved(gamma, "sie", source)
    assert isinstance(held.lens[0], SIE) and held.reduced_chi2 > result.reduced_chi2


@pytest.mark.parametrize("source", ["sersic", pytest.param("pixelated", marks=pytest.mark.slow)])
def test_auto_frees_a_slope_only_where_that_is_likelier(source):
    steep, isothermal = solved(2.3, "auto", source)[0], solved(2.0, "auto", source)[0]
    assert steep.lens[0].gamma.value > 2.15 and not steep.lens[0].gamma.fixed
    assert isothermal.lens[0].gamma.value == 2.0 and isothermal.lens[0].gamma.fixed
    (row,) = [row for row in isothermal.parameters if row["name"] == "gamma_0"]
    assert row["fixed"] and np.isnan(row["error"])


def test_the_prior_holds_a_slope_that_data_do_not_know():
    """Behind much noise the slope is that of the prior, with its width."""
    result, _ = solved(2.0, "epl", signal=2.5)
    slope = result.lens[0].gamma
    assert slope.std == pytest.approx(SLOPE_PRIOR[1], rel=0.4)
    assert abs(slope.value - SLOPE_PRIOR[0]) < 0.4


def test_words_that_a_lens_may_be(tmp_path):
    assert (
        SuperResolver(source="sersic").settings.lens
        == "sie"
        == SuperResolver(source="sersic", lens=None).settings.lens
    )
    with pytest.raises(InputError, match="lens = 'nfw' is not a mass model.*'sie', 'epl', 'auto'"):
        SuperResolver(source="sersic", lens="nfw")
    with pytest.raises(InputError, match="fit_lens = False without a lens"):
        SuperResolver(source="sersic", lens="epl", fit_lens=False)
    with pytest.raises(InputError, match="lens = 'epl' with source = 'interpolation'"):
        SuperResolver(lens="epl", source="interpolation")
    path = tmp_path / "resolver.safetensors"
    SuperResolver(source="sersic", lens="auto").save(path)
    assert SuperResolver.load(path).settings.lens == "auto"
