"""The imaging operator against direct sums, scipy and closed forms."""

import math

import numpy as np
import pytest
import scipy.signal
import torch
from scipy.special import erf

from lenssr.exceptions import InputError
from lenssr.grids import PixelGrid
from lenssr.imaging.operator import Convolution, ImagingOperator, margin_around
from lenssr.imaging.quadrature import adaptive_rays
from lenssr.light import sersic_brightness

SCALE = 0.1


def generator(seed=0):
    return np.random.default_rng(seed)


def gaussian(x, y, sigma=0.25, x_0=0.03, y_0=-0.02):
    return torch.exp(-((x - x_0) ** 2 + (y - y_0) ** 2) / (2 * sigma**2)) / (2 * math.pi * sigma**2)


def blurred_pixels(grid, sigma, x_0=0.03, y_0=-0.02):
    """Integrals over pixels of a normalised Gaussian."""

    def line(centres, centre):
        edges = (centres[..., None] + np.array([-0.5, 0.5]) * grid.pixel_scale - centre) / (
            math.sqrt(2) * sigma
        )
        return np.diff(erf(edges)).squeeze(-1) / 2

    return line(grid.x, x_0) * line(grid.y, y_0)


def gaussian_kernel(sigma, spacing, half, pixel=0.0):
    """Samples of a Gaussian, convolved with a square pixel if that has a size."""
    positions = np.arange(-half, half + 1) * spacing
    profile = np.exp(-(positions**2) / (2 * sigma**2))
    if pixel:
        edges = (positions[:, None] + np.array([-0.5, 0.5]) * pixel) / (math.sqrt(2) * sigma)
        profile = np.diff(erf(edges)).squeeze(-1)
    return np.outer(profile, profile) / profile.sum() ** 2


@pytest.mark.parametrize("oversampling", ["auto", 1, 2, 5])
def test_even_light_gives_the_pixel_area(oversampling):
    operator = ImagingOperator(PixelGrid((3, 5), SCALE), oversampling=oversampling)
    image = operator(torch.ones_like(operator.x))
    torch.testing.assert_close(image, torch.full((3, 5), SCALE**2, dtype=torch.float64))


def test_one_ray_lies_at_the_pixel_centre():
    grid = PixelGrid((3, 4), SCALE)
    operator = ImagingOperator(grid, oversampling=1)
    np.testing.assert_allclose(operator.x.numpy(), grid.x.ravel(), atol=1e-15)
    np.testing.assert_allclose(operator.y.numpy(), grid.y.ravel(), atol=1e-15)


def test_rays_lie_at_the_centres_of_equal_parts():
    grid = PixelGrid((3, 4), SCALE)
    operator, fine = ImagingOperator(grid, oversampling=3), grid.upsample(3)
    values = operator(operator.x + 10 * operator.y**2)
    direct = (fine.x + 10 * fine.y**2).reshape(3, 3, 4, 3).sum((1, 3)) * fine.pixel_area
    np.testing.assert_allclose(values.numpy(), direct, rtol=1e-12)


def test_auto_is_exact_for_cubics():
    grid = PixelGrid((2, 3), 1.0)
    operator = ImagingOperator(grid)
    image = operator(operator.x**3 + operator.x * operator.y**2 + 2)
    edges = [(c - 0.5, c + 0.5) for c in grid.x[0]], [(c - 0.5, c + 0.5) for c in grid.y[:, 0]]
    direct = [
        [(b**4 - a**4) / 4 + (b**2 - a**2) / 2 * (d**3 - c**3) / 3 + 2 for a, b in edges[0]]
        for c, d in edges[1]
    ]
    np.testing.assert_allclose(image.numpy(), direct, rtol=1e-12)


@pytest.mark.parametrize("shape", [(7, 8), (8, 7), (5, 5), (1, 6)])
@pytest.mark.parametrize("kernel_shape", [(3, 3), (5, 1), (7, 9), (31, 21)])
def test_convolution_equals_the_direct_sum(shape, kernel_shape):
    image, kernel = generator().random(shape), generator(1).random(kernel_shape)
    full = scipy.signal.convolve(image, kernel, method="direct")
    start = [side // 2 for side in kernel_shape]
    expected = full[start[0] : start[0] + shape[0], start[1] : start[1] + shape[1]]
    result = Convolution(kernel, shape)(torch.tensor(image))
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-12)


def test_convolution_in_single_precision():
    image, kernel = generator().random((20, 21)), generator(1).random((9, 9))
    result = Convolution(kernel, (20, 21), dtype=torch.float32)(torch.tensor(image, dtype=torch.float32))
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result.numpy(), scipy.signal.convolve(image, kernel, mode="same"), rtol=1e-5)


@pytest.mark.parametrize(
    "kernel, match", [(np.ones((4, 3)), "odd"), (np.ones(3), "odd"), (np.full((3, 3), np.nan), "not finite")]
)
def test_kernel_is_checked(kernel, match):
    with pytest.raises(InputError, match=match):
        Convolution(kernel, (5, 5))


@pytest.mark.parametrize(
    "subsampling, includes_pixel", [(1, False), (2, False), (3, False), (1, True), (3, True)]
)
def test_operator_is_linear_batched_and_differentiable(subsampling, includes_pixel):
    kernel = generator().random((5, 7))
    operator = ImagingOperator(
        PixelGrid((6, 5), SCALE),
        kernel,
        kernel_subsampling=subsampling,
        includes_pixel=includes_pixel,
        refine=gaussian,
    )
    values = torch.tensor(generator(1).random((2, 3, len(operator.x))), requires_grad=True)
    images = operator(values)
    assert images.shape == (2, 3, 6, 5)
    torch.testing.assert_close(images[1, 2], operator(values[1, 2]))
    # A linear map is its own derivative: <w, A v> = <A^T w, v>.
    weights = torch.tensor(generator(2).random(images.shape))
    (adjoint,) = torch.autograd.grad(images, values, weights)
    assert (adjoint * values).sum().item() == pytest.approx((images * weights).sum().item())


def test_kernel_subsampling_equals_the_sums_by_hand():
    grid, kernel = PixelGrid((6, 7), SCALE), generator().random((5, 7))
    operator = ImagingOperator(grid, kernel, oversampling=6, kernel_subsampling=3)
    image = operator(gaussian(operator.x, operator.y)).numpy()
    fine, (ny, nx), rim = grid.padded(operator.margin).upsample(6), operator.cells, 3 * operator.margin
    samples = gaussian(torch.tensor(fine.x), torch.tensor(fine.y)).numpy() * fine.pixel_area
    cells = samples.reshape(ny, 2, nx, 2).sum((1, 3))
    blurred = scipy.signal.convolve(cells, kernel, mode="same", method="direct")[rim:-rim, rim:-rim]
    np.testing.assert_allclose(image, blurred.reshape(6, 3, 7, 3).sum((1, 3)), rtol=1e-12)


def test_convolution_without_a_frame_equals_the_direct_sum_and_its_transpose():
    for side, margin in [(3, 1), (7, 2), (9, 4), (9, 6), (31, 2)]:
        kernel, image = (
            generator(1).random((side, side)),
            generator().random((12 + 2 * margin, 9 + 2 * margin)),
        )
        blur = Convolution(kernel, image.shape, margin=margin)
        whole = scipy.signal.fftconvolve(image, kernel)
        cut = side // 2 + margin
        expected = whole[cut : cut + 12, cut : cut + 9]
        found = blur(torch.tensor(image))
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-11)
        other = torch.tensor(generator(2).random((12, 9)))
        turned = blur.transposed(other)
        assert turned.shape == image.shape
        assert (turned * torch.tensor(image)).sum().item() == pytest.approx((other * found).sum().item())


@pytest.mark.parametrize("subsampling, picks", [(1, False), (2, False), (3, True)])
def test_light_from_beyond_the_frame_is_blurred_into_it(subsampling, picks):
    kernel, grid = gaussian_kernel(0.15, SCALE / subsampling, 10 * subsampling), PixelGrid((34, 31), SCALE)
    options = {"kernel_subsampling": subsampling, "includes_pixel": picks, "oversampling": 3 * subsampling}

    def slope(x, y):
        return 2 + torch.exp(x - y / 2)

    operator, wide = ImagingOperator(grid, kernel, **options), grid.padded(12)
    image = operator(slope(operator.x, operator.y)).numpy()
    fine = wide.upsample(3 * subsampling)
    samples = slope(torch.tensor(fine.x), torch.tensor(fine.y)).numpy() * fine.pixel_area
    ny, nx = (size * subsampling for size in wide.shape)
    cells, whole = (
        samples.reshape(ny, 3, nx, 3).sum((1, 3)),
        ImagingOperator(wide, kernel, **options, margin=0),
    )
    blurred = scipy.signal.fftconvolve(cells, whole._convolution.kernel.numpy(), mode="same")
    blurred = blurred.reshape(wide.shape[0], subsampling, wide.shape[1], subsampling)
    middle = subsampling // 2
    truth = blurred[:, middle, :, middle] * subsampling**2 if picks else blurred.sum((1, 3))
    truth = truth[12:-12, 12:-12]
    # The margin holds 99 % of the PSF; before, the corners were down to a quarter.
    np.testing.assert_allclose(image, truth, rtol=0.01)
    everything = ImagingOperator(grid, kernel, **options, margin=12)
    np.testing.assert_allclose(everything(slope(everything.x, everything.y)).numpy(), truth, rtol=1e-10)


def test_the_first_cell_of_a_pixel_and_its_response_say_what_an_image_holds():
    kernel = generator().random((5, 7))
    operator = ImagingOperator(PixelGrid((6, 5), SCALE), kernel, kernel_subsampling=2)
    assert operator.margin > 0
    cells = torch.tensor(generator(1).random(operator.cells))
    rows, columns, values = operator.response
    first = [2 * (place + operator.margin) for place in (3, 1)]
    row, column = rows + first[0], columns + first[1]
    inside = (row >= 0) & (row < cells.shape[0]) & (column >= 0) & (column < cells.shape[1])
    by_hand = (cells.numpy()[row[inside], column[inside]] * values[inside]).sum()
    assert by_hand == pytest.approx(operator.convolve(cells)[3, 1].item())


@pytest.mark.parametrize("refine", [None, gaussian])
def test_spreading_is_the_transpose_of_convolving_and_rays_know_the_margin(refine):
    operator = ImagingOperator(PixelGrid((6, 5), SCALE), np.ones((5, 3)), kernel_subsampling=2, refine=refine)
    cells, image = torch.tensor(generator().random(operator.cells)), torch.tensor(generator(1).random((6, 5)))
    direct = (operator.convolve(cells) * image).sum().item()
    assert (cells * operator.spread(image)).sum().item() == pytest.approx(direct)
    field = operator.crop(operator.collect(torch.ones_like(operator.x)))
    assert field.shape == (12, 10)
    assert (operator.shares[1] * operator.inside).sum().item() == pytest.approx(30 * SCALE**2)
    half_y, half_x = 3 * SCALE, 2.5 * SCALE
    assert torch.equal(operator.inside, (operator.x.abs() < half_x) & (operator.y.abs() < half_y))


def test_light_in_the_margin_is_divided_too():
    def cusp(x, y):
        return sersic_brightness(x, y, 1.0, 0.2, 4.0, 0.47, 0.0, 0.0, 0.0)

    grid, kernel = PixelGrid((9, 8), SCALE), gaussian_kernel(0.12, SCALE, 6)
    operator = ImagingOperator(grid, kernel, refine=cusp, margin=6)
    wide = ImagingOperator(grid.padded(12), kernel, refine=cusp, tolerance=1e-5, margin=0)
    image, truth = (one(cusp(one.x, one.y)) for one in (operator, wide))
    torch.testing.assert_close(image, truth[12:-12, 12:-12], rtol=1e-3, atol=0)


@pytest.mark.parametrize("subsampling", [1, 2, 3])
def test_gaussian_light_and_kernel_give_the_closed_form(subsampling):
    grid = PixelGrid((31, 30), SCALE)
    kernel = gaussian_kernel(0.12, SCALE / subsampling, 8 * subsampling)
    operator = ImagingOperator(grid, kernel, kernel_subsampling=subsampling, refine=gaussian, tolerance=1e-5)
    image = operator(gaussian(operator.x, operator.y)).numpy()
    truth = blurred_pixels(grid, math.hypot(0.25, 0.12))
    np.testing.assert_allclose(image, truth, atol=2e-5 * truth.max())


@pytest.mark.parametrize(
    "subsampling, oversampling, tolerance", [(1, 1, 1e-5), (3, 3, 1e-5), (1, "auto", 5e-3), (3, "auto", 1e-4)]
)
def test_kernel_with_the_pixel_in_it_gives_the_closed_form(subsampling, oversampling, tolerance):
    grid = PixelGrid((31, 30), SCALE)
    kernel = gaussian_kernel(0.12, SCALE / subsampling, 8 * subsampling, pixel=SCALE)
    operator = ImagingOperator(
        grid, kernel, kernel_subsampling=subsampling, oversampling=oversampling, includes_pixel=True
    )
    image = operator(gaussian(operator.x, operator.y)).numpy()
    truth = blurred_pixels(grid, math.hypot(0.25, 0.12))
    np.testing.assert_allclose(image, truth, atol=tolerance * truth.max())


def test_single_precision_and_device_are_kept():
    operator = ImagingOperator(
        PixelGrid((6, 5), SCALE), np.ones((3, 3)), refine=gaussian, dtype=torch.float32
    )
    assert operator.x.dtype == torch.float32
    assert operator(gaussian(operator.x, operator.y)).dtype == torch.float32


@pytest.mark.parametrize("refine", [None, gaussian])
def test_shares_say_what_collecting_does(refine):
    kernel = np.ones((3, 3)) / 9
    operator = ImagingOperator(PixelGrid((6, 5), SCALE), kernel, kernel_subsampling=2, refine=refine)
    values = torch.as_tensor(generator().normal(size=len(operator.x)))
    cell, share = operator.shares
    by_hand = torch.zeros(math.prod(operator.cells), dtype=torch.float64).index_add(0, cell, share * values)
    torch.testing.assert_close(by_hand.reshape(operator.cells), operator.collect(values))


def test_a_copy_elsewhere_leaves_the_operator_alone():
    operator = ImagingOperator(PixelGrid((6, 5), SCALE), refine=gaussian)
    # A device without memory knows shapes only, and refuses tensors from elsewhere.
    twin = operator.to(torch.float64, device="meta")
    assert twin(twin.x).shape == (6, 5) and twin(twin.x).device.type == "meta"
    assert all(part.device.type == "meta" for part in twin.shares)
    assert operator(operator.x).device.type == "cpu"


def test_divided_cells_keep_their_area():
    def cusp(x, y):
        return sersic_brightness(x, y, 1.0, 0.2, 4.0, 0.013, 0.007, 0.2, 0.1)

    operator = ImagingOperator(PixelGrid((9, 8), SCALE), refine=cusp)
    assert len(operator.x) > 9 * 8 * 4
    image = operator(torch.ones_like(operator.x))
    torch.testing.assert_close(image, torch.full((9, 8), SCALE**2, dtype=torch.float64))


def test_even_light_divides_nothing():
    operator = ImagingOperator(PixelGrid((9, 8), SCALE), refine=lambda x, y: torch.ones_like(x))
    assert len(operator.x) == 9 * 8 * 4


def test_a_bad_ray_does_not_stop_the_division():
    def cusp(x, y):
        light = sersic_brightness(x, y, 1.0, 0.2, 4.0, 0.013, 0.007, 0.2, 0.1)
        return torch.where((x < -0.3) & (y < -0.3), torch.nan, light)

    assert len(ImagingOperator(PixelGrid((9, 8), SCALE), refine=cusp).x) > 9 * 8 * 4 + 500


def test_darkness_divides_nothing():
    operator = ImagingOperator(PixelGrid((9, 8), SCALE), refine=lambda x, y: torch.zeros_like(x))
    assert len(operator.x) == 9 * 8 * 4


def test_scenes_together_are_divided_where_any_needs_it():
    def cusp(x, y, x_0):
        return sersic_brightness(x, y, 1.0, 0.2, 4.0, x_0, 0.0, 0.0, 0.0)

    def both(x, y):
        return torch.stack([cusp(x, y, -0.33), cusp(x, y, 0.21)])

    grid = PixelGrid((9, 11), SCALE)
    operator = ImagingOperator(grid, refine=both)
    images = operator(both(operator.x, operator.y))
    for image, x_0 in zip(images, (-0.33, 0.21), strict=True):
        alone = ImagingOperator(grid, refine=lambda x, y, x_0=x_0: cusp(x, y, x_0), tolerance=1e-5)
        torch.testing.assert_close(image, alone(cusp(alone.x, alone.y, x_0)), rtol=5e-4, atol=0)


def test_number_of_rays_is_bounded():
    grid = PixelGrid((20, 20), SCALE)
    rough = torch.tensor(generator().random(10**5))

    def noise(x, y):
        return rough[((x * 7919 + y * 104729) * 1e4).long() % len(rough)]

    x, y = (torch.tensor(centre).reshape(-1) for centre in (grid.x, grid.y))
    divided, ray_x, _, weight, index = adaptive_rays(noise, x, y, SCALE, max_rays=5000)
    assert len(ray_x) <= 5000 + 400 * 4
    shares = torch.zeros(len(divided), dtype=torch.float64).index_add(0, index, weight)
    torch.testing.assert_close(shares, torch.ones_like(shares))


@pytest.mark.parametrize(
    "options, match",
    [
        ({"oversampling": 0}, "oversampling = 0"),
        ({"oversampling": "fine"}, "oversampling = 'fine'"),
        ({"oversampling": 1.5}, "oversampling = 1.5"),
        ({"kernel_subsampling": 0}, "kernel_subsampling = 0"),
        ({"oversampling": 3, "kernel_subsampling": 2}, "not a multiple"),
        ({"oversampling": 3, "refine": gaussian}, "refine needs"),
        ({"kernel": None, "includes_pixel": True}, "describe a kernel"),
        ({"includes_pixel": True, "kernel_subsampling": 2}, "odd"),
    ],
)
def test_options_are_checked_when_built(options, match):
    options = {"kernel": np.ones((3, 3)), **options}
    with pytest.raises(InputError, match=match):
        ImagingOperator(PixelGrid((4, 4), SCALE), **options)


def test_no_images_come_back_as_none():
    operator = ImagingOperator(PixelGrid((6, 5), 0.1), np.full((3, 3), 1 / 9))
    nothing = torch.zeros(0, *operator.cells, dtype=torch.float64)
    image = operator.convolve(nothing)
    assert image.shape == (0, 6, 5) and operator.spread(image).shape == nothing.shape


@pytest.mark.parametrize(("subsampling", "margin"), [(1, 4), (3, 2)])
def test_the_margin_of_a_broad_kernel_counts_whole_pixels(subsampling, margin):
    assert margin_around(np.ones((9, 9)), subsampling) == margin
