"""The network that draws a source, re-lensed exactly."""

import astropy.units as u
import numpy as np
import pytest
import torch

from lenssr import PSF, SIE, InputError, Shear, metrics
from lenssr.grids import PixelGrid
from lenssr.imaging import ImagingOperator
from lenssr.networks import RelensingNetwork
from lenssr.networks.relensing import gridded_image
from lenssr.simulation import DeepLense

LENS = SIE(1.0, 0.1, -0.05) + Shear(0.02, 0.03)
SMALL = {"side": 16, "channels": (4, 6), "passes": 2}


def network(**options):
    """A small one that looks twice, its last layers not zero."""
    torch.manual_seed(5)
    net = RelensingNetwork(**{**SMALL, **options})
    with torch.no_grad():
        net.net.last.weight.normal_(0, 0.1)
        net.again.last.weight.normal_(0, 0.1)
    return net.double()


def rays(operator, number=2, lens=LENS):
    vectors = lens.vector.expand(number, -1)
    alpha = lens.deflection_at(operator.x, operator.y, vectors)
    return [place - shift for place, shift in zip((operator.x, operator.y), alpha, strict=True)]


def scene(shape=(30, 30), scale=0.1, **options):
    """Operator, rays, and two noisy images with their noise."""
    operator = ImagingOperator(PixelGrid(shape, scale), **{"oversampling": 1, **options})
    x, y = rays(operator)
    shift = torch.tensor([[0.1], [-0.15]], dtype=torch.float64)
    image = operator(torch.exp(-((x - shift).square() + y.square()).sqrt() / 0.15))
    generator = torch.Generator().manual_seed(2)
    sigma = 0.01 * image.max() * torch.ones_like(image)
    noise = sigma * torch.randn(image.shape, generator=generator, dtype=image.dtype)
    return operator, (x, y), image + noise, sigma


def test_it_has_less_than_300_000_parameters():
    assert sum(p.numel() for p in RelensingNetwork(passes=3).parameters()) < 300_000
    with pytest.raises(InputError, match="give fewer, for less than 300000"):
        RelensingNetwork(channels=(32, 64, 128))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"side": 8}, "at least 16"),
        ({"side": 40.5}, "40.5"),
        ({"stretch": -1}, "between 0 and 3"),
        ({"passes": 0}, "an integer of at least 1"),
    ],
)
def test_meaningless_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        RelensingNetwork(**options)


@pytest.mark.parametrize("factor", [1e-6, 3.0, 1e8])
def test_scale_equivariance(factor):
    operator, places, image, sigma = scene()
    net = network()
    before = net(image, sigma, operator, *places)
    after = net(factor * image, factor * sigma, operator, *places)
    torch.testing.assert_close(after.brightness, factor * before.brightness, rtol=1e-7, atol=0)


def test_it_knows_no_angle():
    """The same scene with all lengths three times larger gives the same source, as wide in proportion."""
    operator, places, image, sigma = scene()
    wide = ImagingOperator(PixelGrid((30, 30), 0.3), oversampling=1)
    net = network()
    before = net(image, sigma, operator, *places, psf_sigma=0.05)
    after = net(9 * image, 9 * sigma, wide, *(3 * place for place in places), psf_sigma=0.15)
    torch.testing.assert_close(after.brightness, before.brightness, rtol=1e-9, atol=0)
    torch.testing.assert_close(after.plane.half, 3 * before.plane.half)


def test_images_of_a_batch_do_not_see_each_other():
    operator, places, image, sigma = scene()
    both = network()(image, sigma, operator, *places)
    alone = network()(image[1:], sigma[1:], operator, *(place[1:] for place in places))
    torch.testing.assert_close(both.brightness[1:], alone.brightness)


def test_masked_pixels_are_not_seen():
    operator, places, image, sigma = scene()
    sigma[:, 7, 8] = torch.inf
    spoiled = image.clone()
    spoiled[:, 7, 8] = torch.nan
    found = [network()(data, sigma, operator, *places).brightness for data in (image, spoiled)]
    torch.testing.assert_close(*found)
    assert torch.isfinite(found[0]).all()


@pytest.mark.parametrize(
    ("shape", "scale", "options"),
    [
        ((31, 26), 0.08, {}),
        ((30, 30), 0.1, {"oversampling": "auto"}),
        ((24, 24), 0.1, {"oversampling": 2, "kernel_subsampling": 2, "kernel": 0.2}),
    ],
)
def test_any_grid_telescope_and_resolution(shape, scale, options):
    if "kernel" in options:
        options = {**options, "kernel": PSF.from_fwhm(options["kernel"] * u.arcsec).kernel(scale, 2)}
    operator, places, image, sigma = scene(shape, scale, **options)
    source = network()(image, sigma, operator, *places, psf_sigma=0.05)
    fine = ImagingOperator(operator.grid.upsample(3), oversampling=2)
    finer = source.image(fine, *rays(fine))
    assert finer.shape == (2, 3 * shape[0], 3 * shape[1])
    assert torch.isfinite(finer).all() and (finer >= 0).all()


def test_re_lensing_is_that_of_the_free_form_source():
    kernel = PSF.from_fwhm(0.25 * u.arcsec).kernel(0.1)
    operator, places, image, sigma = scene(kernel=kernel, oversampling=2)
    source = network()(image, sigma, operator, *places)
    for i, relensed in enumerate(source.image(operator, *places)):
        matrix = source.plane.one(i).matrix(*(place[i].numpy() for place in places))
        at_rays = torch.as_tensor(matrix @ source.brightness[i].detach().numpy().ravel())
        torch.testing.assert_close(relensed.detach(), operator(at_rays))


def test_each_pass_brings_it_nearer_to_the_image():
    """Also untrained: what a PSF has spread is taken back a little."""
    kernel = PSF.from_fwhm(0.25 * u.arcsec).kernel(0.1)
    operator, places, image, sigma = scene(kernel=kernel, oversampling=2)
    left = []
    for passes in (1, 2, 4):
        net = RelensingNetwork(24, channels=(4, 6), passes=passes).double()
        model = net(image, sigma, operator, *places).image(operator, *places)
        left.append(float(((model - image) / sigma).square().mean().detach()))
    assert left[0] > 1.1 * left[1] > 1.1**2 * left[2]


def test_gradients_reach_weights_and_lens():
    operator, _, image, sigma = scene()
    vector = LENS.vector.clone().requires_grad_()
    alpha = LENS.deflection_at(operator.x, operator.y, vector.expand(2, -1))
    places = [place - shift for place, shift in zip((operator.x, operator.y), alpha, strict=True)]
    net = network()
    model = net(image, sigma, operator, *places).image(operator, *places)
    ((model - image) / sigma).square().mean().backward()
    free = [k for k, name in enumerate(LENS.param_names) if not name.startswith(("x_0_1", "y_0_1"))]
    assert (vector.grad[free] != 0).all()
    assert all((parameter.grad != 0).any() for parameter in net.parameters())


def test_what_is_mapped_back_is_the_mean_of_what_arrives():
    """With one pixel for each node and no lens, node and pixel agree, and so do their errors."""
    operator = ImagingOperator(PixelGrid((16, 16), 0.1), oversampling=1)
    places = [place[None] for place in (operator.x, operator.y)]
    image = torch.rand(1, 16, 16, dtype=torch.float64)
    net = network(stretch=0.0)
    plane = net(image, 0.1 * torch.ones_like(image), operator, *places).plane
    half = torch.full_like(plane.half, 0.75)
    exact = type(plane)(torch.zeros_like(half), torch.zeros_like(half), half, 16)
    bilinear = exact.rays(*places)
    sigma = torch.full_like(image, 0.1)
    sigma[0, 3, 4] = torch.inf
    brightness, error, coverage = gridded_image(image, sigma, operator, bilinear)
    kept = torch.isfinite(sigma)
    torch.testing.assert_close(brightness[kept], image[kept] / 0.01)
    torch.testing.assert_close(error[kept], sigma[kept] / 0.01)
    assert coverage[0, 3, 4] == brightness[0, 3, 4] == 0


@pytest.mark.parametrize("lens", ["sis", "sie"])
def test_even_untrained_it_beats_the_bicubic_image(lens):
    data = DeepLense(lens=lens, size=4, seed=11)
    item = data[2]
    grid = PixelGrid((75, 75), 0.05)
    operator, fine = (
        ImagingOperator(g, oversampling=1, dtype=torch.float32) for g in (grid, grid.upsample(2))
    )
    image = torch.as_tensor(np.asarray(item.low.data), dtype=torch.float32)[None]
    sigma = (torch.as_tensor(item.low_truth.data)[None] / item.low.meta["EXPTIME"]).sqrt().float()
    net = RelensingNetwork()
    with torch.inference_mode():
        source = net(image, sigma, operator, *(p.float() for p in rays(operator, 1, item.lens)))
        finer = source.image(fine, *(p.float() for p in rays(fine, 1, item.lens)))
    psnr = metrics.scores_t(finer[0].double().numpy(), item.truth.data).psnr
    assert psnr > 42 > 40 > metrics.scores_t(metrics.bicubic(item.low.data, 2), item.truth.data).psnr
