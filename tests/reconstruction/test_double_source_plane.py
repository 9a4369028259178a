"""Two sources behind one lens, of which the first deflects the second: fitted, kept, drawn, refused."""

import importlib

import astropy.units as u
import numpy as np
import pytest

from lenssr import SIE, DoubleSourcePlane, InputError, Shear, SourcePlanes, SuperResolution, SuperResolver
from lenssr.mass import MultiPlane
from lenssr.options import RESOLVER

pytestmark = pytest.mark.filterwarnings("ignore:`axes` should not be `None`:DeprecationWarning")

RINGS = importlib.import_module("rendered_rings")
RING = RINGS.DoubleRing(2)
PLANES = SourcePlanes(beta=0.75, beta_error=0.1)
GIVEN = {"noise": RING.sigma, "psf": RINGS.FWHM * u.arcsec, "pixel_scale": RINGS.PIXEL}


@pytest.fixture(scope="module")
def result():
    """A fit without a hint, beta with a prior."""
    return SuperResolver(source="sersic", source_planes=PLANES, scale=1)(RING.draw(), **GIVEN)


@pytest.fixture(scope="module")
def known():
    """Both sources behind the lens as it is, in an image that gives it away."""
    return SuperResolver(source="sersic", lens=RING.lens, scale=1)(RING.draw(), **GIVEN)


def test_lens_both_sources_and_beta_are_found(result):
    assert result.ok, result.flags
    assert isinstance(result.lens, DoubleSourcePlane)
    for source in (1, 2):
        assert RINGS.radius(result.lens, source) == pytest.approx(RINGS.radius(RING.lens, source), rel=0.005)
    beta, sphere = result.lens.beta, result.lens.sphere
    assert abs(beta.value - RING.planes.beta) < 3 * beta.std < 0.02
    assert abs(sphere.theta_E.value - RING.lens.sphere.theta_E.value) < 3 * sphere.theta_E.std < 0.05
    planes = (result.source, result.second_source)
    assert all(RINGS.difference(*pair) < 0.06 for pair in zip(planes, RING.sources, strict=True))


def test_errors_of_both_sources(result):
    for model, truth in zip((result.source_model, result.second_source_model), RING.sources, strict=True):
        pulls = [
            (getattr(model, name).value - getattr(truth, name).value) / getattr(model, name).std
            for name in ("amplitude", "r_eff", "n", "x_0", "y_0", "e1", "e2")
        ]
        assert 0.1 < np.sqrt(np.mean(np.square(pulls))) < 2.5
    rows = result.parameters
    assert {"lens", "source", "second_source", "sky"} == set(rows["component"])
    assert "second_source.r_eff" in result.covariance_names and "lens.beta_3" in result.covariance_names
    assert len(result.covariance_names) == len(set(result.covariance_names)) == len(result.covariance)
    assert result.table["second_source.r_eff_err"].value[0] > 0
    assert result.lens.sphere.x_0.value == result.source_model.x_0.value


def test_magnifications_are_those_of_each_source(known):
    for source, model, value, error in (
        (1, known.source_model, known.magnification, known.magnification_error),
        (2, known.second_source_model, known.second_magnification, known.second_magnification_error),
    ):
        lens = RING.lens.of_source(source)
        x, y = np.meshgrid(*[np.linspace(-4, 4, 1600)] * 2)
        alpha = lens.deflection(x, y)
        places = ((x - alpha[0], y - alpha[1]), (x, y))
        lensed, plain = (model(*(axis * u.arcsec for axis in place)).sum() for place in places)
        assert value == pytest.approx(float(lensed / plain), rel=0.02)
        assert 0 < error < 0.1 * value


def test_a_known_lens_of_two_sources_is_kept(known):
    assert known.ok and known.lens.beta.std is None
    rows = known.parameters[known.parameters["component"] == "lens"]
    assert all(rows["fixed"]) and len(rows) == len(RING.lens.param_names)
    assert known.reduced_chi2 == pytest.approx(1, abs=0.1)


def test_the_product_holds_both_sources(result, tmp_path):
    result.write(tmp_path / "two.fits")
    again = SuperResolution.read(tmp_path / "two.fits")
    np.testing.assert_array_equal(again.second_source.data, result.second_source.data)
    np.testing.assert_array_equal(
        again.second_source.uncertainty.array, result.second_source.uncertainty.array
    )
    assert again.second_magnification == result.second_magnification
    assert again.second_source_model.n.std == result.second_source_model.n.std
    assert repr(again.lens) == repr(result.lens) and again.summary() == result.summary()
    np.testing.assert_allclose(again.sample(2).image, result.sample(2).image, rtol=1e-8, atol=1e-10)
    draws = again.sample_posterior(50, "laplace")
    assert draws.names == result.covariance_names


def test_the_figure_shows_both_sources(result):
    axes = result.plot().axes
    titles = [one.get_title(loc="left") for one in axes]
    assert "second source, not lensed (model)" in titles and "source, not lensed (model)" in titles
    panel = result.plot_panel("second_source")
    assert "second source" in panel.get_title(loc="left")


def test_settings_are_saved_and_loaded(tmp_path):
    planes = SourcePlanes(z_lens=0.2, z_sources=(0.6, 2.4), cosmology="Planck15", beta_error=0.02)
    resolver = SuperResolver(source="sersic", source_planes=planes, lens=SIE(1.2) + Shear(0.0, 0.0))
    resolver.save(tmp_path / "resolver.safetensors")
    assert SuperResolver.load(tmp_path / "resolver.safetensors").settings.source_planes == planes
    assert RESOLVER["source_planes"].parse("0.7+-0.1") == SourcePlanes(beta=0.7, beta_error=0.1)


LENS = DoubleSourcePlane(SIE(1.2), SourcePlanes(beta=0.7))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"source": "pixelated"}, "two sources behind a lens with source = 'pixelated': give 'sersic'"),
        ({"source": "interpolation"}, "with source = 'interpolation': give 'sersic'"),
        ({"source": "network"}, "give 'sersic'"),
        ({"start": "network"}, "with start = 'network': leave it out"),
        ({"lens": LENS}, "but the lens has planes: leave it out"),
        ({"lens": MultiPlane([(0.3, SIE(1.0))], 2.0)}, "but the lens has planes"),
        ({"source_planes": 0.7}, "source_planes = 0.7: give lenssr.mass.SourcePlanes"),
    ],
)
def test_what_two_sources_are_not_fitted_with(options, match):
    with pytest.raises(InputError, match=match):
        SuperResolver(**{"source_planes": PLANES, **options})


def test_a_lens_of_two_sources_needs_parametric_ones():
    with pytest.raises(InputError, match="two sources behind a lens with source = 'pixelated'"):
        SuperResolver(lens=LENS, source="pixelated")


def test_several_bands_are_refused():
    image = RING.draw()
    with pytest.raises(InputError):
        SuperResolver(source="sersic", source_planes=PLANES)({"F606W": image, "F814W": image}, **GIVEN)
