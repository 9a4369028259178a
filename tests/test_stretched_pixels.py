"""Pixels with unequal sides or a shear: what is fitted and shown is what is on the sky."""

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.modeling.models import Sersic2D
from astropy.nddata import CCDData
from astropy.stats import gaussian_fwhm_to_sigma
from astropy.wcs import WCS
from scipy.signal import fftconvolve

from lenssr import SersicPhotometry, SuperResolver
from lenssr.grids import PixelGrid
from lenssr.imaging import PSF
from lenssr.imaging.operator import ImagingOperator
from lenssr.imaging.render_scene import render
from lenssr.light import PixelatedSource, Sersic
from lenssr.mass import SIE, Shear
from lenssr.reconstruction.fine_images import window_wcs

# Sides that differ by 1 %; by 3 %, with a shear.
STRETCHES = [np.diag([1.01**0.5, 1.01**-0.5]), np.array([[1.01, 0.015], [0.015, 0.98]])]
LENS = SIE(theta_E=1.1, e1=0.1, e2=-0.05) + Shear(gamma1=0.03, gamma2=0.02)
SOURCE = Sersic(amplitude=1.0, r_eff=0.15, n=1.0, x_0=0.06, y_0=0.1, e1=0.1, e2=0.1)


def make_wcs(stretch, side, *, scale=0.05, angle=30.0, flip=False):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = 150.0, 2.2
    wcs.wcs.crpix = 0.3 * side, 0.7 * side
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    wcs.wcs.cd = [[c, -s], [s, c]] @ np.diag([1.0 if flip else -1.0, 1.0]) @ stretch * scale / 3600
    wcs.wcs.set()
    return wcs


def subpixels(matrix, side, parts):
    """Positions (side, parts, side, parts) of equal parts of pixels about the image centre."""
    places = (np.arange(side * parts) + 0.5) / parts - side / 2
    column, row = np.meshgrid(places, places)
    x, y = np.tensordot(matrix, [column, row], 1)
    return x.reshape(side, parts, side, parts), y.reshape(side, parts, side, parts)


@pytest.mark.parametrize("stretch", STRETCHES)
@pytest.mark.parametrize("options", [{"oversampling": 4}, {"oversampling": "auto"}])
def test_images_are_integrals_over_the_pixels(stretch, options):
    matrix, model = 0.05 * stretch, Sersic2D(1.0, 0.3, 3.0, 0.02, -0.01, 0.4, 0.7)
    image = render(PixelGrid((20, 20), matrix=matrix), lens_light=model, **options)
    parts = 4 if options["oversampling"] == 4 else 40
    expected = model(*subpixels(matrix, 20, parts)).mean((1, 3)) * abs(np.linalg.det(matrix))
    assert np.allclose(image, expected, rtol=1e-10 if parts == 4 else 1e-3)


def test_adaptive_cells_are_stretched():
    """A cusp is integrated to the tolerance wherever it lies in a pixel; cells fill the pixels."""
    model = Sersic2D(1.0, 0.2, 4.0, 0.013, 0.007, 0.3, 0.4)
    grid = PixelGrid((20, 20), matrix=0.05 * STRETCHES[1])

    def brightness(x, y):
        return torch.as_tensor(model(x.numpy(), y.numpy()))

    operator = ImagingOperator(grid, refine=brightness)
    image = operator(brightness(operator.x, operator.y)).numpy()
    finer = ImagingOperator(grid.upsample(5), refine=brightness)
    fine = finer(brightness(finer.x, finer.y)).numpy().reshape(20, 5, 20, 5).sum((1, 3))
    assert np.allclose(image, fine, rtol=1e-3, atol=3e-4 * 0.01 * image.max())
    cell, share = operator.shares
    assert np.allclose(torch.bincount(cell, share), grid.pixel_area)


@pytest.mark.parametrize("stretch", STRETCHES)
@pytest.mark.parametrize("subsampling", [1, 3])
def test_a_gaussian_psf_is_round_on_the_sky(stretch, subsampling):
    kernel = PSF.from_fwhm(0.2 * u.arcsec).kernel(0.05 * stretch, subsampling)
    assert all(side % 2 for side in kernel.shape) and kernel.sum() == pytest.approx(1)
    rows, columns = (np.arange(side) - side // 2 for side in kernel.shape)
    x, y = np.tensordot(0.05 * stretch / subsampling, np.meshgrid(columns, rows), 1)
    variance = (0.2 * gaussian_fwhm_to_sigma) ** 2
    assert [(kernel * x * x).sum(), (kernel * y * y).sum()] == pytest.approx([variance] * 2, rel=1e-4)
    assert (kernel * x * y).sum() == pytest.approx(0, abs=1e-5 * variance)


def test_a_square_matrix_is_the_number():
    psf = PSF.from_fwhm(0.13 * u.arcsec)
    for one in (psf, PSF(psf.kernel(0.04), pixel_scale=0.04)):
        assert np.array_equal(one.kernel(0.05 * np.eye(2), 2), one.kernel(0.05, 2))
        assert one.fwhm_at(0.05 * np.eye(2)) == one.fwhm_at(0.05)


@pytest.fixture(scope="module", params=[0, 1], ids=["sides", "shear"])
def fitted(request):
    """A lens on stretched pixels with an SN of 80, simulated by lenstronomy, and its fit."""
    from lenstronomy.Data.imaging_data import ImageData
    from lenstronomy.Data.psf import PSF as PeerPSF
    from lenstronomy.ImSim.image_model import ImageModel
    from lenstronomy.LensModel.lens_model import LensModel
    from lenstronomy.LightModel.light_model import LightModel

    side, matrix = 64, 0.05 * STRETCHES[request.param]
    corner = -matrix.sum(1) * (side - 1) / 2
    pixels = {
        "image_data": np.zeros((side, side)),
        "background_rms": 1,
        "exposure_time": 1,
        "transform_pix2angle": matrix,
        "ra_at_xy_0": corner[0],
        "dec_at_xy_0": corner[1],
    }
    model = ImageModel(
        ImageData(**pixels),
        PeerPSF("NONE"),
        LensModel(["SIE", "SHEAR"]),
        LightModel(["SERSIC_ELLIPSE"]),
        kwargs_numerics={"supersampling_factor": 5},
    )
    lens = {"theta_E": 1.1, "e1": 0.1, "e2": -0.05, "center_x": 0, "center_y": 0}
    shear = {"gamma1": 0.03, "gamma2": 0.02, "ra_0": 0, "dec_0": 0}
    shape = {"R_sersic": 0.14, "n_sersic": 1, "e1": 0.1, "e2": 0.1}
    sharp = model.image([lens, shear], [{"amp": 10, "center_x": 0.06, "center_y": 0.1, **shape}])
    clean = fftconvolve(sharp, PSF.from_fwhm(0.12 * u.arcsec).kernel(matrix), mode="same")
    sigma = clean.max() / 80
    data = clean + np.random.default_rng(1).normal(0, sigma, clean.shape)
    image = CCDData(data, unit="electron/s", wcs=make_wcs(STRETCHES[request.param], side))
    return SuperResolver(source="sersic", device="cpu")(image, psf=0.12 * u.arcsec, noise=sigma)


def test_the_lens_is_that_on_the_sky(fitted):
    assert fitted.ok and fitted.reduced_chi2 < 1.05
    sie, shear = fitted.lens
    found = [sie.theta_E, sie.e1, sie.e2, shear.gamma1, shear.gamma2]
    pull = [(p.value - true) / p.std for p, true in zip(found, [1.1, 0.1, -0.05, 0.03, 0.02], strict=True)]
    assert np.abs(pull).max() < 3


def test_position_angles_are_those_on_the_sky(fitted):
    sie, grid = fitted.lens[0], PixelGrid.from_wcs(fitted.data.wcs, fitted.data.shape)
    ahead = grid.to_sky(*(0.5 * np.array([np.cos(sie.phi), np.sin(sie.phi)])))
    expected = grid.to_sky(0, 0).position_angle(ahead).to_value(u.deg) % 180
    assert sie.position_angle(fitted.data.wcs).to_value(u.deg) == pytest.approx(expected, abs=0.01)
    assert grid.position_angle(sie.phi).to_value(u.deg) % 180 == pytest.approx(expected, abs=0.01)


def test_the_products_lie_where_the_data_do(fitted):
    """Finer pixels are parts of the data's; the source has square ones, along x and y of the frame."""
    grid = PixelGrid.from_wcs(fitted.data.wcs, fitted.data.shape)
    fine = PixelGrid.from_wcs(fitted.image.wcs, fitted.image.shape)
    assert np.allclose(fine.matrix, grid.matrix / 2, rtol=1e-8)
    assert np.allclose([fine.x, fine.y], [grid.upsample(2).x, grid.upsample(2).y], atol=1e-9)
    source, meta = fitted.source, fitted.source.meta
    window = PixelGrid.from_wcs(source.wcs, source.shape)
    assert window.is_square and window.pixel_scale == pytest.approx(meta["pixel_scale"], rel=1e-8)
    x, y = window.x[::20, ::20] + meta["x_0"], window.y[::20, ::20] + meta["y_0"]
    column, row = window.to_pixel(window.x[::20, ::20], window.y[::20, ::20])
    there = source.wcs.pixel_to_world(column, row)
    assert there.separation(grid.to_sky(x, y)).max().to_value(u.arcsec) < 1e-6


def test_a_file_keeps_the_stretch(fitted, tmp_path):
    fitted.write(tmp_path / "result.fits")
    again = type(fitted).read(tmp_path / "result.fits")
    for name in ("data", "image", "source"):
        before, after = (
            PixelGrid.from_wcs(getattr(r, name).wcs, getattr(r, name).shape) for r in (fitted, again)
        )
        assert np.allclose(after.matrix, before.matrix, rtol=1e-9)
        assert after.to_sky(0.2, 0.1).separation(before.to_sky(0.2, 0.1)).to_value(u.arcsec) < 1e-6


def test_a_figure_is_as_wide_as_the_image(fitted):
    panel = fitted.plot().axes[0]
    grid = PixelGrid.from_wcs(fitted.data.wcs, fitted.data.shape)
    assert np.allclose(panel.images[0].get_extent(), grid.extent, rtol=1e-6)


def test_images_of_different_pixels_are_not_fitted_together():
    """Two images alike but for the stretch of their pixels each get their own grid."""
    images = []
    for stretch in STRETCHES:
        grid = PixelGrid((50, 50), matrix=0.06 * stretch)
        light = render(grid, lens=LENS, source=SOURCE)
        wcs = make_wcs(stretch, 50, scale=0.06)
        images.append(CCDData(light, unit="electron/s", wcs=wcs))
    resolver = SuperResolver(source="sersic", device="cpu", lens=LENS)
    results = resolver.map(images, noise=1e-5)
    assert [result.source_model.r_eff.value for result in results] == pytest.approx([0.15] * 2, rel=1e-3)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("stretch", [np.eye(2), *STRETCHES])
def test_windows_are_square_and_in_place(stretch, flip):
    grid = PixelGrid.from_wcs(make_wcs(stretch, 40, flip=flip), (40, 40))
    wcs = window_wcs(grid, 0.3, -0.2, 0.013, 60)
    assert wcs.pixel_shape == (60, 60)
    for column, row in [(29.5, 29.5), (0, 0), (59, 10)]:
        x, y = 0.3 + (column - 29.5) * 0.013, -0.2 + (row - 29.5) * 0.013
        apart = wcs.pixel_to_world(column, row).separation(grid.to_sky(x, y)).to_value(u.arcsec)
        assert apart < 1e-6


@pytest.mark.parametrize("stretch", STRETCHES)
def test_a_source_on_stretched_pixels(stretch):
    """The light of an image comes from where its pixels lie in the frame, and its flux is their sum."""
    grid = PixelGrid.from_wcs(make_wcs(stretch, 12), (12, 12))
    values = np.random.default_rng(2).random((12, 12))
    source = PixelatedSource(values, wcs=grid.wcs, x_0=0.1, y_0=0.2)
    assert np.allclose(source(grid.x + 0.1, grid.y + 0.2), values)
    assert source.flux == pytest.approx(values.sum() * grid.pixel_area)
    seen = render(PixelGrid((30, 30), 0.05), source=source, oversampling=12)
    assert seen.sum() == pytest.approx(source.flux, rel=1e-3)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("stretch", STRETCHES)
def test_photometry_measures_the_ellipse_on_the_sky(stretch, flip):
    """A galaxy of Sersic2D in arcsec, integrated over affine parts of the pixels."""
    side, matrix, phi = 61, 0.05 * stretch, np.radians(25.0)
    wcs = make_wcs(stretch, side, flip=flip)
    true = Sersic2D(amplitude=1.0, r_eff=0.35, n=1.0, x_0=0.01, y_0=0.02, ellip=0.4, theta=phi)
    image = true(*subpixels(matrix, side, 9)).mean((1, 3)) * abs(np.linalg.det(matrix))
    error = np.full(image.shape, image.max() / 1000)
    table = SersicPhotometry()(CCDData(image, unit="electron", wcs=wcs), error=error)
    grid = PixelGrid.from_wcs(wcs, image.shape)
    assert table["r_eff_sky"][0].to_value(u.arcsec) == pytest.approx(0.35, rel=1e-3)
    assert table["ellip_sky"][0] == pytest.approx(0.4, abs=1e-3)
    expected = grid.position_angle(phi * u.rad).to_value(u.deg) % 180
    assert table["position_angle"][0].to_value(u.deg) == pytest.approx(expected, abs=0.1)
    assert table["skycoord"][0].separation(grid.to_sky(0.01, 0.02)).to_value(u.arcsec) < 1e-3
    # In pixels the ellipse is another one.
    assert abs(table["ellip"][0] - 0.4) > 2e-3


@pytest.mark.parametrize("stretch", STRETCHES)
def test_photometry_behind_a_gaussian_psf(stretch):
    side, matrix = 61, 0.05 * stretch
    wcs, psf = make_wcs(stretch, side), PSF.from_fwhm(0.15 * u.arcsec)
    light = Sersic(amplitude=1.0, r_eff=0.2, n=1.0)
    image = render(PixelGrid((side, side), matrix=matrix), lens_light=light, psf=psf)
    error = np.full(image.shape, image.max() / 1000)
    table = SersicPhotometry(psf=psf)(CCDData(image, unit="electron", wcs=wcs), error=error)
    assert table["ellip_sky"][0] == pytest.approx(0, abs=3e-3)
    assert table["r_eff_sky"][0].to_value(u.arcsec) == pytest.approx(0.2, rel=2e-3)
