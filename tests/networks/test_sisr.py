"""The network that makes an image finer from that image alone."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lenssr import InputError, metrics
from lenssr.networks import SISR

SMALL = {"channels": 6, "depth": 1}


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def trained(scale=2, **options):
    """A small network whose last layer is not zero."""
    torch.manual_seed(3)
    network = SISR(scale, **SMALL, **options)
    with torch.no_grad():
        for parameter in network.last.parameters():
            parameter.normal_(0, 0.3)
    return network.double().eval()


def image_and_noise(shape, lead=()):
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(*lead, *shape, generator=generator, dtype=torch.float64) - 0.1
    return image, 0.1 + 0.1 * torch.rand(*lead, *shape, generator=generator, dtype=torch.float64)


def test_the_configuration_of_lenssr_has_its_number_of_parameters():
    assert count(SISR.seed()) == 899_843
    assert count(SISR.named("lenssr")) == 899_843


def test_the_default_is_lean_and_without_batch_norm():
    network = SISR()
    assert count(network) <= 110_000
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("shape", [(7, 7), (5, 8)])
def test_images_of_any_shape_become_finer_by_any_integer(scale, shape):
    image, noise = image_and_noise(shape, (2, 3))
    assert trained(scale)(image, noise).shape == (2, 3, scale * shape[0], scale * shape[1])


def test_repeated_factors_take_a_shuffle_each():
    network = SISR(12, **SMALL)
    assert [stage[1].upscale_factor for stage in network.finer] == [2, 2, 3]


@given(factor=st.floats(1e-6, 1e6))
def test_scale_equivariance(factor):
    network, (image, noise) = trained(), image_and_noise((9, 9))
    expected = factor * network(image, noise)
    torch.testing.assert_close(network(factor * image, factor * noise), expected, rtol=1e-9, atol=0)


def test_the_range_of_lenssr_scales_with_the_image_too():
    network = SISR(**SMALL, batch_norm=True, with_noise=False, head="sigmoid").double().eval()
    image, _ = image_and_noise((9, 9))
    torch.testing.assert_close(network(1e3 * image), 1e3 * network(image))


@pytest.mark.parametrize("scale", [2, 3])
def test_flux_is_conserved(scale):
    image, noise = image_and_noise((8, 11), (4,))
    finer = trained(scale)(image, noise)
    torch.testing.assert_close(finer.sum((-2, -1)), image.sum((-2, -1)))


def test_it_begins_as_the_bicubic_image():
    image, noise = image_and_noise((10, 10))
    bicubic = metrics.bicubic(image.numpy(), 2)
    bicubic += (image.sum().item() - bicubic.sum()) / bicubic.size
    np.testing.assert_allclose(SISR().double()(image, noise).detach(), bicubic, atol=1e-12)


def test_nothing_bounds_a_bright_pixel_but_the_sigmoid_does():
    image, noise = image_and_noise((9, 9))
    network = trained(with_noise=False)
    with torch.no_grad():
        network.last.weight *= 100
    assert network(image).max() > image.max() / 4
    bounded = trained(with_noise=False, head="sigmoid")(image)
    assert image.min() / 4 <= bounded.min() and bounded.max() <= image.max() / 4


def test_an_empty_image_stays_empty():
    dark = torch.zeros(6, 6, dtype=torch.float64)
    finer = trained()(dark, dark)
    assert torch.isfinite(finer).all() and finer.abs().max() < 1e-300


def test_the_settings_build_it_again():
    network = SISR(3, channels=4, depth=2, kernels=(5, 1), first_kernel=7, last_kernel=5, with_noise=False)
    twin = SISR(**network.settings)
    twin.load_state_dict(network.state_dict())
    assert twin.settings == network.settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 0}, "scale = 0: give an integer of at least 1"),
        ({"scale": 2.5}, "scale = 2.5: give an integer of at least 1"),
        ({"channels": True}, "channels = True"),
        ({"kernels": (3, 4)}, "side 4: give a positive odd integer"),
        ({"head": "tanh"}, "head = 'tanh': give one of 'flux', 'sigmoid'"),
    ],
)
def test_meaningless_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        SISR(**options)


def test_unknown_configurations_are_refused():
    with pytest.raises(InputError, match="configuration = 'edsr': give one of 'lean', 'lenssr'"):
        SISR.named("edsr")


@pytest.mark.parametrize("with_noise", [True, False])
def test_noise_is_asked_for_and_never_ignored(with_noise):
    image, noise = image_and_noise((6, 6))
    given = () if with_noise else (noise,)
    with pytest.raises(InputError, match="give the noise" if with_noise else "leave the noise out"):
        trained(with_noise=with_noise)(image, *given)


@pytest.mark.parametrize("head", ["flux", "sigmoid"])
def test_gradients_are_right(head):
    network = trained(with_noise=False, head=head)
    image = image_and_noise((4, 4))[0].requires_grad_()
    assert torch.autograd.gradcheck(network, image)
