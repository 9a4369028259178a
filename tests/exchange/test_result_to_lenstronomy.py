"""A result as lenstronomy takes it: evaluated there, its models give the same image."""

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import CCDData

from lenssr import SIE, InputError, MultiPlane, Sersic, Shear, SuperResolver
from lenssr.grids import PixelGrid
from lenssr.imaging import PSF, render
from lenssr.light import MultiGaussian, from_lenstronomy
from lenssr.mass import from_lenstronomy as lens_from_lenstronomy

image_model = pytest.importorskip("lenstronomy.ImSim.image_model")
from lenstronomy.Data.imaging_data import ImageData  # noqa: E402
from lenstronomy.Data.psf import PSF as TheirPSF  # noqa: E402
from lenstronomy.Util.class_creator import create_class_instances  # noqa: E402

GRID = PixelGrid((40, 40), 0.1)
LENS = SIE(1.2, 0.1, -0.05, 0.02, 0.01) + Shear(0.03, 0.02)
SOURCE = Sersic(20.0, 0.25, 1.2, 0.05, 0.1, 0.1, 0.05)
GALAXY = Sersic(5.0, 0.6, 1.0, e1=0.1)
PSF_ = PSF.from_fwhm(0.25 * u.arcsec)


def resolved(grid=GRID, **options):
    image = render(grid, lens=LENS, source=SOURCE, lens_light=GALAXY, psf=PSF_)
    data = image + 0.02 * np.random.default_rng(0).standard_normal(image.shape)
    settings = {"source": "sersic", "lens": LENS, "lens_light": "sersic", "psf": PSF_, **options}
    return SuperResolver(**settings)(CCDData(data, unit="electron/s"), noise=0.02, pixel_scale=0.1)


@pytest.fixture(scope="module")
def result():
    return resolved(fit_lens=True)


def their_image(told, psf=None, sampling=1):
    """Image of the models as lenstronomy renders them."""
    lens, source, light, *_ = create_class_instances(**told["kwargs_model"])
    psf = TheirPSF(**({"psf_type": "NONE"} if psf is None else psf))
    numerics = {"supersampling_factor": sampling, "supersampling_convolution": sampling > 1}
    data = ImageData(**told["kwargs_data"])
    model = image_model.ImageModel(data, psf, lens, source, light, kwargs_numerics=numerics)
    return model.image(told["kwargs_lens"], told["kwargs_source"], told["kwargs_lens_light"])


@pytest.mark.parametrize("sampling", [1, 3])
def test_the_image_is_the_same(result, sampling):
    parts = {"lens": result.lens, "source": result.source_model, "lens_light": result.lens_light}
    ours = np.asarray(render(GRID, oversampling=sampling, **parts))
    theirs = their_image(result.to_lenstronomy(), sampling=sampling)
    assert np.abs(theirs - ours).max() < 1e-6 * ours.max()


@pytest.mark.filterwarnings("ignore:.axes. should not be:DeprecationWarning")
def test_the_image_behind_its_psf_is_that_of_the_result(result):
    """Pixels of the result are integrals, theirs means of points."""
    told = result.to_lenstronomy()
    theirs = their_image(told, told["kwargs_psf"], told["kwargs_numerics"]["supersampling_factor"])
    ours = result.model_image.data - result.sky.value
    assert np.abs(theirs - ours).max() < 0.02 * ours.max()
    assert theirs.sum() == pytest.approx(ours.sum(), rel=0.005)


def test_data_less_the_sky_and_their_errors(result):
    told = result.to_lenstronomy()["kwargs_data"]
    np.testing.assert_allclose(told["image_data"], result.data.data - result.sky.value)
    np.testing.assert_allclose(told["noise_map"], result.residual.uncertainty.array)
    assert told["ra_at_xy_0"] == pytest.approx(-1.95)


def test_models_come_back(result):
    told = result.to_lenstronomy()
    lens = lens_from_lenstronomy(told["kwargs_model"]["lens_model_list"], told["kwargs_lens"])
    np.testing.assert_allclose(lens.vector, result.lens.vector, rtol=1e-12, atol=1e-14)
    names = told["kwargs_model"]["source_light_model_list"]
    back = from_lenstronomy(names, told["kwargs_source"])
    np.testing.assert_allclose(back.parameters, result.source_model.parameters, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.axes. should not be:DeprecationWarning")
def test_grids_and_gaussians():
    result = resolved(source="pixelated", lens_light="mge", fit_lens=False)
    told = result.to_lenstronomy()
    assert told["kwargs_model"]["source_light_model_list"] == ["INTERPOL"]
    assert set(told["kwargs_model"]["lens_light_model_list"]) == {"MULTI_GAUSSIAN_ELLIPSE"}
    theirs = their_image(told, told["kwargs_psf"], 2)
    ours = result.model_image.data - result.sky.value
    assert np.abs(theirs - ours).max() < 0.02 * ours.max()
    assert isinstance(np.atleast_1d(result.lens_light)[0], MultiGaussian)


def test_several_planes_say_their_redshifts(result):
    from dataclasses import replace

    several = MultiPlane([(0.3, SIE(1.0)), (0.6, SIE(0.2, x_0=0.5))], z_source=2.0)
    told = replace(result, lens=several).to_lenstronomy()
    assert told["kwargs_model"]["lens_redshift_list"] == [0.3, 0.6]
    assert told["kwargs_model"]["source_light_model_list"] == ["SERSIC_ELLIPSE"]


def test_what_has_no_model_is_refused():
    with pytest.raises(InputError, match="without a lens"):
        resolved(source="interpolation", lens=None, lens_light=None).to_lenstronomy()
