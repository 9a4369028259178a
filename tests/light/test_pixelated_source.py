"""Any image as a source."""

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.nddata import CCDData, NDData
from astropy.wcs import WCS
from scipy.interpolate import RegularGridInterpolator

from lenssr.exceptions import InputError
from lenssr.light import PixelatedSource, interpolate_image

IMAGE = np.random.default_rng(0).random((6, 9))


def celestial(scale):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.cunit = "deg", "deg"
    wcs.wcs.crpix, wcs.wcs.crval = (3, 3), (150, 2)
    wcs.wcs.cd = np.diag([-scale, scale]) / 3600
    return wcs


def test_interpolation_equals_scipy():
    rows, columns = (np.arange(6) - 2.5) * 0.2 - 0.1, (np.arange(9) - 4) * 0.2 + 0.3
    x, y = np.random.default_rng(1).uniform([[-0.5], [-0.6]], [[1.1], [0.4]], (2, 200))
    expected = RegularGridInterpolator((rows, columns), IMAGE)(np.stack([y, x], -1))
    values = interpolate_image(torch.tensor(x), torch.tensor(y), torch.tensor(IMAGE), 0.2, 0.3, -0.1)
    np.testing.assert_allclose(values.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize(
    "x, y", [(1.01, 0.0), (-5.0, 0.0), (0.0, 0.71), (1e30, 1e30), (np.inf, 0.0), (np.nan, 0.0)]
)
def test_outside_is_zero(x, y):
    x, y = (torch.tensor([value], dtype=torch.float64) for value in (x, y))
    assert interpolate_image(x, y, torch.ones(6, 9, dtype=torch.float64), 0.2).item() == 0


def test_far_corners_are_reached():
    x, y = torch.tensor([-0.8, 0.8], dtype=torch.float64), torch.tensor([-0.5, 0.5], dtype=torch.float64)
    values = interpolate_image(x, y, torch.tensor(IMAGE), 0.2)
    np.testing.assert_allclose(values.numpy(), [IMAGE[0, 0], IMAGE[-1, -1]])


def test_gradcheck():
    x = torch.tensor([0.13, -0.31, 0.92], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0.05, 0.41, -0.22], dtype=torch.float64, requires_grad=True)
    image = torch.tensor(IMAGE, requires_grad=True)
    centre = torch.tensor(0.01, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(interpolate_image, (x, y, image, 0.2, centre, centre))


@pytest.mark.parametrize("image_lead, ray_lead", [((3,), (3,)), ((3,), ()), ((), (3,)), ((2, 1), (3,))])
def test_batches(image_lead, ray_lead):
    generator = torch.Generator().manual_seed(2)
    image = torch.rand(*image_lead, 4, 5, generator=generator)
    x, y = torch.rand(2, *ray_lead, 11, generator=generator) - 0.5
    values = interpolate_image(x, y, image, 0.3)
    lead = torch.broadcast_shapes(image_lead, ray_lead)
    assert values.shape == (*lead, 11)
    images, xs, ys = image.expand(*lead, 4, 5), x.expand(*lead, 11), y.expand(*lead, 11)
    for index in np.ndindex(*lead):
        torch.testing.assert_close(values[index], interpolate_image(xs[index], ys[index], images[index], 0.3))


def test_flux_is_the_integral_over_the_plane():
    source = PixelatedSource(IMAGE * u.electron, pixel_scale=0.2)
    y, x = np.mgrid[-1:1:200j, -1.5:1.5:300j]
    step = (y[1, 0] - y[0, 0]) * (x[0, 1] - x[0, 0])
    assert source.flux.to_value(u.electron) == pytest.approx(IMAGE.sum())
    assert source(x, y).sum().value * step == pytest.approx(IMAGE.sum(), rel=1e-3)


@pytest.mark.parametrize(
    "image, options, unit, factor",
    [
        (IMAGE, {}, None, 1.0),
        (IMAGE, {"values": "flux"}, None, 25.0),
        (IMAGE * u.electron, {}, u.electron / u.arcsec**2, 25.0),
        (IMAGE * u.nJy / u.arcsec**2, {}, u.nJy / u.arcsec**2, 1.0),
        (IMAGE * u.MJy / u.sr, {}, u.MJy / u.arcsec**2, (1 * u.arcsec**2).to_value(u.sr)),
        (NDData(IMAGE, unit="adu"), {"values": "flux"}, u.adu / u.arcsec**2, 25.0),
    ],
)
def test_units(image, options, unit, factor):
    value = PixelatedSource(image, pixel_scale=0.2, **options)(0.0, 0.1)
    assert getattr(value, "unit", None) == unit
    assert getattr(value, "value", value) == pytest.approx(IMAGE[3, 4] * factor)


def test_scale_from_the_wcs():
    source = PixelatedSource(CCDData(IMAGE, unit="electron", wcs=celestial(0.3)))
    assert source.grid.pixel_scale == pytest.approx(0.3, rel=1e-6)


def test_holes_are_zero():
    data = np.ones((3, 3))
    data[0, 0] = np.nan
    mask = np.zeros((3, 3), dtype=bool)
    mask[1, 1] = True
    source = PixelatedSource(NDData(data, mask=mask), pixel_scale=1.0)
    assert source(0.0, 0.0) == source(-1.0, -1.0) == 0
    assert source(1.0, 1.0) == 1


def test_position_and_factor():
    source = PixelatedSource(IMAGE, 0.2, amplitude=2.0, x_0=300 * u.mas, y_0=-100 * u.mas)
    assert source(0.3 * u.arcsec, 0.0 * u.arcsec) == pytest.approx(2 * IMAGE[3, 4])


@pytest.mark.parametrize(
    "image, options, match",
    [
        (IMAGE, {}, "no pixel scale"),
        (IMAGE[0], {"pixel_scale": 0.1}, "two dimensions"),
        (IMAGE, {"pixel_scale": 0.1, "values": "counts"}, "counts"),
        (IMAGE, {"pixel_scale": -0.1}, "not a positive number"),
        (IMAGE * u.Jy / u.beam, {"pixel_scale": 0.1}, "surface brightness"),
        (IMAGE * u.Jy / u.sr, {"pixel_scale": 0.1, "values": "flux"}, "not flux per pixel"),
    ],
)
def test_refused(image, options, match):
    with pytest.raises(InputError, match=match):
        PixelatedSource(image, **options)
