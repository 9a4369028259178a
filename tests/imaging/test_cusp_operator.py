"""The forward model whose rays follow the galaxies."""

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.modeling.models import Sersic2D

from lenssr.imaging import PSF
from lenssr.imaging.cusp_operator import IntegratingOperator, TrackingOperator, effective_kernel
from lenssr.light import sersic_brightness
from lenssr.light.sersic import sersic_brightness_jacobian

SHAPE = (41, 41)


def following(fwhm, points, dtype):
    kernel, subsampling = effective_kernel(PSF.from_fwhm(fwhm * u.arcsec), points_across=points)
    return TrackingOperator(SHAPE, kernel, subsampling=subsampling, dtype=dtype)


def modelled(r_eff, n, x_0, y_0, ellip, theta, *, fwhm=2.5, points=2.5, dtype=torch.float64):
    integrating = fwhm is None
    operator = IntegratingOperator(SHAPE, dtype=dtype) if integrating else following(fwhm, points, dtype)
    q = 1 - ellip
    e1, e2 = (1 - q) / (1 + q) * np.array([np.cos(2 * theta), np.sin(2 * theta)])
    column = [torch.tensor([[v]], dtype=dtype) for v in (1.0, r_eff * np.sqrt(q), n, x_0, y_0, e1, e2)]
    x, y, share = operator.rays(column[3], column[4])
    values = sersic_brightness(x, y, *column).unsqueeze(1)
    return operator.convolve(operator.collect(values, column[3], column[4], share))[0, 0].numpy()


def brute_force(r_eff, n, x_0, y_0, ellip, theta, *, fwhm=2.5, fine=11, margin=8):
    """The same from astropy's model on a grid 11 times finer, its cells near the centre 400 times finer."""
    model = Sersic2D(1.0, r_eff, n, x_0, y_0, ellip=ellip, theta=theta)
    size = (SHAPE[0] + 2 * margin) * fine
    axis = (np.arange(size) - (size - 1) / 2) / fine
    x, y = np.meshgrid(axis, axis)
    offset = 0.5 / np.sqrt(3) / fine
    light = sum(model(x + a * offset, y + b * offset) for a in (-1, 1) for b in (-1, 1)) / 4
    column, row = (round(centre * fine + (size - 1) / 2) for centre in (x_0, y_0))
    for j in range(row - 4, row + 5):
        for i in range(column - 4, column + 5):
            parts = 200 if max(abs(i - column), abs(j - row)) <= 1 else 20
            within = (np.arange(parts) - (parts - 1) / 2) / parts / fine
            light[j, i] = model(*np.meshgrid(axis[i] + within, axis[j] + within)).mean()
    if fwhm is None:
        image = light.reshape(size // fine, fine, size // fine, fine).mean((1, 3))
        return image[margin:-margin, margin:-margin]
    sigma = fwhm / 2.35482 * fine
    reach = np.arange(-int(6 * sigma), int(6 * sigma) + 1)
    psf = np.exp(-0.5 * (reach / sigma) ** 2)
    psf /= psf.sum()
    # A matrix for each axis does what a convolution does.
    blur = np.zeros((size, size))
    for shift, share in zip(reach, psf, strict=True):
        blur += share * np.eye(size, k=shift)
    image = (blur @ light @ blur.T).reshape(size // fine, fine, size // fine, fine).sum((1, 3)) / fine**2
    return image[margin:-margin, margin:-margin]


def distance(first, second):
    return np.linalg.norm(first - second) / np.linalg.norm(second)


@pytest.mark.parametrize(
    "galaxy",
    [(2.0, 6.0, 0.3, -0.2, 0.3, 0.5), (2.0, 6.0, 0.5, 0.5, 0.0, 0.0), (3.0, 1.0, 0.1, 0.4, 0.6, 2.0)],
    ids=["cusp", "cusp_on_a_corner", "thin_disc"],
)
def test_images_are_those_of_brute_force(galaxy):
    truth = brute_force(*galaxy)
    assert distance(modelled(*galaxy), truth) < 1e-3
    assert distance(modelled(*galaxy, points=4.0), truth) < 5e-4


@pytest.mark.parametrize(
    "galaxy",
    [
        (2.0, 6.0, 0.3, -0.2, 0.3, 0.5),
        (2.0, 6.0, 0.5, 0.5, 0.0, 0.0),
        (2.0, 6.0, 0.0, 0.49, 0.7, 0.8),
        (4.0, 1.0, 0.1, 0.4, 0.6, 2.0),
        (2.0, 0.5, -3.3, 0.4, 0.7, 0.9),
        (0.5, 4.0, 0.2, 0.1, 0.3, 0.5),
    ],
    ids=["cusp", "cusp_on_a_corner", "thin_cusp", "thin_disc", "thin_gaussian", "small"],
)
def test_images_without_a_psf_are_those_of_brute_force(galaxy):
    truth = brute_force(*galaxy, fwhm=None)
    assert distance(modelled(*galaxy, fwhm=None), truth) < 1e-3


def test_a_cusp_without_a_psf_leaves_the_image_by_its_edge():
    inside = modelled(3.0, 4.0, 0.2, 0.0, 0.0, 0.0, fwhm=None)
    for shift in (18.0, 23.0):
        moved = modelled(3.0, 4.0, shift + 0.2, 0.0, 0.0, 0.0, fwhm=None)
        start = int(shift)
        assert distance(moved[:, start:], inside[:, : 41 - start]) < 1e-3


def test_derivatives_of_integrals_by_the_centre_are_those_of_moved_images():
    vector = torch.tensor([[1.0, 2.0, 4.0, 0.31, -0.2, 0.1, 0.05]], dtype=torch.float64)
    operator = IntegratingOperator(SHAPE, points=3)

    def image(moved):
        column = moved.unsqueeze(2).unbind(1)
        x, y, share = operator.rays(column[3], column[4])
        values = sersic_brightness(x, y, *column).unsqueeze(1)
        return operator.collect(values, column[3], column[4], share)[0, 0]

    column = vector.unsqueeze(2).unbind(1)
    x, y, share = operator.rays(column[3], column[4])
    derivative = sersic_brightness_jacobian(x, y, *column)[3]
    found = operator.collect(derivative, column[3], column[4], share)[0]
    for k in (1, 2, 3, 4):
        step = torch.zeros_like(vector)
        step[:, k] = 1e-3
        expected = (image(vector + step) - image(vector - step)) / 2e-3
        assert distance(found[k].numpy(), expected.numpy()) < 5e-3


def test_flux_does_not_depend_on_the_place_in_a_pixel():
    sums = [modelled(1.0, 3.0, shift, 0.3 * shift, 0.2, 0.1).sum() for shift in (0.0, 0.21, 0.5, 0.83)]
    assert np.ptp(sums) < 5e-4 * np.mean(sums)


def test_a_galaxy_at_the_edge_loses_only_what_falls_outside():
    inside = modelled(3.0, 1.0, 0.0, 0.0, 0.0, 0.0)
    moved = modelled(3.0, 1.0, 18.0, 0.0, 0.0, 0.0)
    assert distance(moved[:, 18:], inside[:, :-18]) < 1e-3


def test_a_galaxy_far_outside_leaves_nothing_bad():
    assert np.abs(modelled(1.0, 2.0, 60.0, 0.0, 0.0, 0.0)).max() < 1e-3


def test_single_precision_is_as_good_as_its_digits():
    galaxy = (2.0, 4.0, 0.3, -0.2, 0.3, 0.5)
    assert distance(modelled(*galaxy, dtype=torch.float32), modelled(*galaxy)) < 1e-5


@pytest.mark.parametrize(("fwhm", "subsampling"), [(2.5, 1), (1.3, 2), (0.5, 3)])
def test_the_lattice_is_as_fine_as_the_psf_needs(fwhm, subsampling):
    kernel, found = effective_kernel(PSF.from_fwhm(fwhm * u.arcsec))
    assert found == subsampling
    assert kernel.sum() == pytest.approx(1)
    side = np.arange(len(kernel)) - len(kernel) // 2
    variance = (kernel.sum(0) * side**2).sum() / subsampling**2
    assert variance == pytest.approx((fwhm / 2.35482) ** 2 + 1 / 12, rel=2e-3)


def test_psfs_that_include_the_pixel_stay_as_they_are():
    array = PSF.from_fwhm(2.6 * u.arcsec).kernel(1.0)
    kernel, subsampling = effective_kernel(PSF(array, includes_pixel=True))
    assert subsampling == 1
    assert kernel.shape == array.shape
    assert np.allclose(kernel, array, atol=1e-6)
