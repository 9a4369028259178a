"""The network that reads the lens off one image."""

import numpy as np
import pytest
import torch

from lenssr import EPL, SIE, SIS, InputError, PixelatedDeflection, Shear
from lenssr.networks import DeflectionNetwork, LensEstimate
from lenssr.networks.deflection import LENS_NAMES, as_family

SMALL = {"channels": (4, 6, 8), "hidden": 16}
HALF = 2.0
VECTORS = torch.tensor(
    [[1.1, 0.2, -0.1, 0.05, -0.1, 0.03, -0.02], [0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]], dtype=torch.float64
)


def network(**options):
    """A small one whose correction is not zero."""
    torch.manual_seed(4)
    net = DeflectionNetwork(**{**SMALL, **options})
    if net.settings["knots"]:
        torch.nn.init.normal_(net.last.weight, 0, 1.0)
    return net.double()


def images(shape=(50, 50), number=2):
    generator = torch.Generator().manual_seed(9)
    image = torch.rand(number, *shape, generator=generator, dtype=torch.float64)
    return image, 0.1 + 0.1 * torch.rand(number, *shape, generator=generator, dtype=torch.float64)


def estimate_of(vectors, root):
    from lenssr.networks.deflection import _unbounded

    return LensEstimate(_unbounded(vectors, HALF), root, HALF)


@pytest.mark.parametrize("size", [1.0, 1e3])
def test_parameters_are_bounded_by_construction(size):
    free = size * torch.randn(200, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    vector = LensEstimate(free, torch.eye(7).expand(200, 7, 7), HALF).vector
    lens = dict(zip(LENS_NAMES, vector.T, strict=True))
    assert (lens["theta_E"] > 0).all() and (lens["theta_E"] <= HALF).all()
    assert (torch.hypot(lens["e1"], lens["e2"]) <= 0.5 + 1e-12).all()
    assert (torch.hypot(lens["gamma1"], lens["gamma2"]) <= 0.3 + 1e-12).all()
    assert (lens["x_0"].abs() <= 0.3 * HALF + 1e-12).all() and (lens["y_0"].abs() <= 0.3 * HALF + 1e-12).all()
    assert torch.isfinite(vector).all()


def test_free_numbers_are_the_parameters_and_back():
    torch.testing.assert_close(estimate_of(VECTORS, torch.eye(7).expand(2, 7, 7)).vector, VECTORS)


def test_the_likelihood_is_that_of_a_gaussian():
    estimate = network()(*images(), 0.05)
    reference = torch.distributions.MultivariateNormal(
        estimate.free, precision_matrix=estimate.root.mT @ estimate.root
    )
    truth = estimate_of(VECTORS, estimate.root)
    same_field = LensEstimate(estimate.free, estimate.root, HALF)
    expected = -reference.log_prob(truth.free)
    torch.testing.assert_close(same_field.negative_log_likelihood(VECTORS), expected)


def test_covariance_is_that_of_draws(rng):
    root = 40 * torch.eye(7, dtype=torch.float64) + torch.tril(torch.as_tensor(rng.normal(0, 15, (7, 7))), -1)
    estimate = estimate_of(VECTORS[:1], root[None])
    normal = torch.as_tensor(rng.normal(size=(7, 20_000)))
    free = estimate.free + torch.linalg.solve_triangular(root, normal, upper=False).T
    draws = LensEstimate(free, root.expand(20_000, 7, 7), HALF).vector
    found, expected = np.cov(draws.T), estimate.covariance[0].numpy()
    scale = np.sqrt(np.diag(expected))
    np.testing.assert_allclose(found / np.outer(scale, scale), expected / np.outer(scale, scale), atol=0.05)


@pytest.mark.parametrize("shape", [(50, 50), (64, 64), (131, 97)])
def test_images_of_any_shape(shape):
    estimate = network()(*images(shape), 0.05)
    assert estimate.vector.shape == (2, 7)
    assert torch.linalg.eigvalsh(estimate.covariance).min() > 0


def test_a_model_of_the_lens_carries_errors_and_leaves_the_shear_at_the_origin():
    estimate = network()(*images(), 0.05)
    lens = estimate.lens(1)
    np.testing.assert_allclose(lens.vector[:7], estimate.vector[1].detach())
    assert lens.theta_E.std == pytest.approx(float(estimate.covariance[1, 0, 0].detach().sqrt()))
    assert lens[1].x_0.value == lens[1].y_0.value == 0 and lens[1].x_0.fixed


@pytest.mark.parametrize("factor", [1e-5, 1e6])
def test_the_unit_of_the_image_does_not_matter(factor):
    (image, sigma), net = images(), network()
    expected = net(image, sigma, 0.05)
    found = net(factor * image, factor * sigma, 0.05)
    torch.testing.assert_close(found.vector, expected.vector)
    torch.testing.assert_close(found.root, expected.root)


def test_lengths_are_in_units_of_the_field():
    (image, sigma), net = images(), network()
    near, far = (net(image, sigma, scale).vector for scale in (0.05, 0.15))
    lengths = torch.tensor([3.0, 1, 1, 3, 3, 1, 1], dtype=torch.float64)
    torch.testing.assert_close(far, near * lengths)


def test_masked_pixels_are_not_seen():
    (image, sigma), net = images(), network()
    sigma[:, 5, 6] = torch.inf
    spoiled = image.clone()
    spoiled[:, 5, 6] = torch.nan
    torch.testing.assert_close(net(spoiled, sigma, 0.05).vector, net(image, sigma, 0.05).vector)


@pytest.mark.parametrize(
    ("turn", "signs"),
    [
        (lambda image: image.flip(-1), [1, 1, -1, -1, 1, 1, -1]),
        (lambda image: image.flip(-2), [1, 1, -1, 1, -1, 1, -1]),
        (lambda image: image.rot90(2, (-2, -1)), [1, 1, 1, -1, -1, 1, 1]),
        (lambda image: image.rot90(1, (-2, -1)), [1, -1, -1, 1, -1, -1, -1]),
    ],
)
def test_lenses_turn_with_their_images(turn, signs):
    # The network itself does not: only what it sees from all sides together.
    (image, sigma), net = images((40, 40)), network()
    expected, found = net(image, sigma, 0.05).vector, net(turn(image), turn(sigma), 0.05).vector
    if signs[1] < 0:  # a quarter turn takes x to y
        expected = expected[:, [0, 1, 2, 4, 3, 5, 6]]
    torch.testing.assert_close(found, expected * torch.tensor(signs, dtype=torch.float64))
    one = net(turn(image), turn(sigma), 0.05, views=1).vector
    assert not torch.allclose(one, found)


def positions():
    generator = torch.Generator().manual_seed(3)
    return (2 * torch.rand(2, 2, 40, generator=generator, dtype=torch.float64) - 1).requires_grad_()


@pytest.mark.parametrize("knots", [None, 8])
def test_deflection_has_no_curl_and_its_divergence_is_the_convergence(knots):
    places = positions()
    estimate = network(knots=knots)(*images(), 0.05)
    alpha = estimate.deflection(*places)
    gradients = [torch.autograd.grad(part.sum(), places, retain_graph=True)[0] for part in alpha]
    torch.testing.assert_close(gradients[0][1], gradients[1][0], rtol=1e-8, atol=1e-10)
    divergence = (gradients[0][0] + gradients[1][1]) / 2
    torch.testing.assert_close(estimate.convergence(*places), divergence, rtol=1e-8, atol=1e-8)


def test_without_a_correction_the_deflection_is_that_of_the_model():
    x, y = positions().detach()
    estimate = network()(*images(), 0.05)
    for i in range(2):
        expected = estimate.lens(i).deflection(x[i], y[i])
        for found, part in zip(estimate.deflection(x, y), expected, strict=True):
            torch.testing.assert_close(found[i].detach(), part)


def test_the_correction_is_the_gradient_of_its_map():
    x, y = positions().detach()
    with_it, without = (network(knots=k)(*images(), 0.05) for k in (9, None))
    plain = LensEstimate(with_it.free, with_it.root, with_it.half)
    assert without.coefficients is None
    step = 2 * with_it.half / 8
    for i in range(2):
        line = (torch.arange(9, dtype=torch.float64) - 4) * step
        knots = torch.meshgrid(line, line, indexing="ij")
        psi = with_it._spline(knots[1].reshape(1, -1), knots[0].reshape(1, -1), 0, 0)[i].reshape(9, 9)
        # the spline through the values at the knots differs from a B-spline with free ends only at its rim
        model = PixelatedDeflection.from_potential(psi.detach().numpy(), step)
        inner = torch.hypot(x[i], y[i]) < 0.3
        for full, part, expected in zip(
            with_it.deflection(x, y), plain.deflection(x, y), model.deflection(x[i], y[i]), strict=True
        ):
            torch.testing.assert_close((full - part)[i][inner].detach(), expected[inner], atol=0.02, rtol=0)


def test_untrained_there_is_no_correction():
    net = DeflectionNetwork(**SMALL, knots=6).double()
    assert (net(*images(), 0.05).coefficients == 0).all()


@pytest.mark.parametrize(
    ("lens", "expected"),
    [
        (SIS(1.1, 0.1, 0.2), [1.1, 0, 0, 0.1, 0.2, 0, 0]),
        (SIE(1.1, 0.1, 0.2, 0.3, 0.4), [1.1, 0.1, 0.2, 0.3, 0.4, 0, 0]),
        (SIE(1.1, 0.1, 0.2, 0.3, 0.4) + Shear(0.05, 0.06), [1.1, 0.1, 0.2, 0.3, 0.4, 0.05, 0.06]),
    ],
)
def test_lenses_as_the_family(lens, expected):
    vectors = as_family(lens, lens.vector[None])
    torch.testing.assert_close(vectors, torch.tensor([expected], dtype=torch.float64))


def test_other_lenses_are_refused():
    with pytest.raises(InputError, match="EPL is not an SIE with shear"):
        as_family(EPL(1.0, gamma=2.1), EPL(1.0, gamma=2.1).vector[None])


@pytest.mark.parametrize(
    ("options", "message"), [({"channels": (3, 4)}, "give three"), ({"knots": 3}, "at least 4, or None")]
)
def test_meaningless_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        DeflectionNetwork(**options)


def rings(theta_E, pixel_scale=0.1):
    line = (torch.arange(40) - 19.5) * pixel_scale
    radius = torch.hypot(line[:, None], line)
    return torch.exp(-((radius - theta_E[:, None, None]) ** 2) / 0.02)


def test_it_learns_an_einstein_radius():
    """A few steps on rings of different size bring the radius near, and the likelihood of the truth up."""
    torch.manual_seed(0)
    theta_E = torch.linspace(0.5, 1.5, 16)
    image, truth = rings(theta_E), torch.zeros(16, 7)
    truth[:, 0] = theta_E
    net = DeflectionNetwork(channels=(8, 8, 8), hidden=32)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    likelihoods = []
    for _ in range(50):
        estimate = net(image, torch.full_like(image, 0.05), 0.1)
        likelihood = estimate.negative_log_likelihood(truth, hold_mean=True).mean()
        optimizer.zero_grad()
        (estimate.miss(truth).square().mean() + likelihood).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        likelihoods.append(likelihood.item())
    assert (estimate.vector[:, 0] / theta_E - 1).abs().max() < 0.1
    assert likelihoods[-1] < likelihoods[0] - 5


def test_errors_do_not_change_what_is_estimated():
    net = network()
    estimate = net(*images(), 0.05)
    estimate.negative_log_likelihood(VECTORS, hold_mean=True).mean().backward()
    assert all(parameter.grad is None for name, parameter in net.named_parameters() if "spread" not in name)
    assert all((parameter.grad != 0).any() for parameter in net.spread.parameters())
