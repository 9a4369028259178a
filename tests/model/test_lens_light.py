"""Fits of the light of a lens galaxy: where they end, what they honour, what comes out."""

import astropy.units as u
import numpy as np
import pytest
import torch
from scipy.optimize import lsq_linear

from lenssr import PSF, SIE, PixelGrid, Sersic, SuperResolution, SuperResolver, render
from lenssr.imaging.noise import GaussianNoise
from lenssr.light import MultiGaussian
from lenssr.light.gaussians import GaussiansProfile
from lenssr.light.lens_light import light_profiles
from lenssr.model.fit import Constraints, fit_from, fit_known_lens, refine
from lenssr.model.image_stack import ImageStack
from lenssr.model.scene import Scene

GRID = PixelGrid((44, 44), 0.1)
NOISE = 0.02
LENS = SIE(1.1, 0.1, -0.05)
SOURCE = Sersic(6.0, 0.15, 1.0, 0.08, -0.05, 0.1, 0.1)
BULGE, DISC = Sersic(600.0, 0.12, 1.5, e1=0.02), Sersic(30.0, 0.8, 1.0, e1=0.25, e2=0.1)
BLUR = PSF.from_fwhm(0.2 * u.arcsec)


def image_of(*light, source=SOURCE, seed=0, unit=None):
    image = render(GRID, lens=LENS, source=source, lens_light=list(light), psf=BLUR, sky=0.01)
    return image + NOISE * np.random.default_rng(seed).normal(size=image.shape)


def resolve(image, **options):
    resolver = SuperResolver(source="sersic", lens=LENS, psf=BLUR, noise=NOISE, **options)
    return resolver(image, pixel_scale=0.1, unit="electron / s")


@pytest.fixture(scope="module")
def image():
    return image_of(BULGE, DISC)


@pytest.fixture(scope="module")
def results(image):
    options = ("sersic", "mge", ["sersic", "sersic"], ["sersic", "mge"])
    return {str(lens_light): resolve(image, lens_light=lens_light) for lens_light in options}


def core(result):
    radius = np.hypot(GRID.x, GRID.y)
    return result.chi2_map[radius < 0.5].mean()


def test_several_profiles_follow_a_bulge_and_a_disc(results):
    assert core(results["sersic"]) > 5
    for key in ("['sersic', 'sersic']", "['sersic', 'mge']"):
        assert core(results[key]) < 1.3 and results[key].ok


def test_gaussians_follow_what_no_sersic_does():
    image = image_of(BULGE, Sersic(30.0, 0.8, 0.5))
    cores = {kind: core(resolve(image, lens_light=kind)) for kind in ("sersic", "mge")}
    assert cores["sersic"] > 3 and cores["mge"] < 1.3


def test_two_groups_follow_a_change_of_shape(image, results):
    assert core(results["mge"]) > 3
    assert core(resolve(image, lens_light=["mge", "mge"])) < 1.3


def test_two_sersics_are_found(results):
    parts = results["['sersic', 'sersic']"].lens_light
    for found, true in zip(parts, (BULGE, DISC), strict=True):
        for name in ("r_eff", "n", "x_0", "e1"):
            parameter = getattr(found, name)
            assert abs(parameter.value - getattr(true, name).value) < 4 * parameter.std


def test_several_profiles_are_numbered(results):
    result = results["['sersic', 'mge']"]
    names = [row["name"] for row in result.parameters if row["component"] == "lens_light"]
    assert names[:2] == ["amplitude_0", "r_eff_0"] and names[-1] == "e2_1" and "flux_0_1" in names
    assert "lens_light.flux_0_1" in result.covariance_names
    assert [type(part) for part in result.lens_light] == [Sersic, MultiGaussian]


@pytest.mark.parametrize("key", ["mge", "['sersic', 'mge']"])
def test_results_round_trip(results, key, tmp_path):
    result = results[key]
    result.write(tmp_path / "out.fits")
    again = SuperResolution.read(tmp_path / "out.fits")
    assert type(again.lens_light) is type(result.lens_light)
    assert again.meta["lens_light"] == result.meta["lens_light"]
    pairs = [(m if isinstance(m, tuple) else (m,)) for m in (result.lens_light, again.lens_light)]
    for one, two in zip(*pairs, strict=True):
        assert one(0.1 * u.arcsec, 0.2 * u.arcsec) == two(0.1 * u.arcsec, 0.2 * u.arcsec)
        np.testing.assert_array_equal(one.covariance, two.covariance)
        assert [getattr(one, n).std for n in one.param_names] == [
            getattr(two, n).std for n in two.param_names
        ]


def test_the_model_is_what_the_image_shows(results):
    result = results["mge"]
    fine = GRID.upsample(2)
    image = render(fine, lens_light=result.lens_light, psf=BLUR)
    np.testing.assert_allclose(image.value, result.lens_light_image.data, atol=2e-3 * image.value.max())


def galaxy_stack(image):
    kernel = BLUR.kernel(0.1)
    valid = np.ones((1, *GRID.shape), dtype=bool)
    return ImageStack(image[None], valid, [GaussianNoise(NOISE)], GRID, kernel)


def galaxy_scene(lens_light):
    profiles = light_profiles(lens_light, 0.1, 2.2)
    return Scene(lens=None, lens_free=False, lens_light=profiles, sky=True, source=0, extent=2.2)


STARTS = ["mge", MultiGaussian(light_profiles("mge", 0.1, 2.2)[0].sigma.numpy(), 2.0, 0.05, 0.05)]


@pytest.mark.parametrize("lens_light", STARTS, ids=["from a Sérsic", "from nothing"])
def test_fluxes_end_where_bounded_linear_least_squares_does(lens_light):
    stack = galaxy_stack(image_of(BULGE, source=Sersic(1e-9)))
    scene = galaxy_scene(lens_light)
    (fit,) = fit_known_lens(stack, scene, torch.zeros(1, 0))
    assert fit.converged
    slopes = scene.light_jacobian(stack.operator.x, stack.operator.y, fit.physical[None])
    number = len(scene.lights[0].profile.bright)
    unit = stack.operator(slopes[:, :number])[0].flatten(1) / fit.physical[:number, None]
    design = torch.cat([unit, torch.ones(1, unit.shape[1])]).numpy().T / NOISE
    best = lsq_linear(design, stack.data[0].numpy() / NOISE, bounds=([0] * number + [-np.inf], np.inf))
    # What is left is the price of the prior: about one unit of chi2 for a Gaussian.
    chi2 = float((((stack.data[0] - fit.model) / NOISE) ** 2).sum())
    assert 0 <= chi2 - 2 * best.cost < number


def test_errors_of_the_light_hold_over_noise():
    scene, pulls = galaxy_scene("mge"), []
    truth = render(GRID, lens_light=BULGE, psf=BLUR)
    stack = galaxy_stack(image_of(BULGE, source=Sersic(1e-9)))
    (fit,) = fit_known_lens(stack, scene, torch.zeros(1, 0))
    jacobian = stack.model(scene, fit.physical[None])(scene.to_fit(fit.physical[None]), torch.tensor([0]))[1]
    slope = torch.where(scene.log, fit.physical, torch.ones_like(fit.physical))
    covariance = fit.covariance / slope[:, None] / slope[None, :]
    error = (jacobian[0] * (covariance @ jacobian[0])).sum(0).sqrt()
    for seed in range(1, 9):
        stack = galaxy_stack(image_of(BULGE, source=Sersic(1e-9), seed=seed))
        (fit,) = fit_known_lens(stack, scene, torch.zeros(1, 0))
        pulls.append((fit.model - torch.as_tensor(truth).ravel() - 0.01) / error)
    bright = torch.as_tensor(truth).ravel() > 3 * NOISE
    assert 0.7 < float(torch.stack(pulls)[:, bright].square().mean().sqrt()) < 1.3


def test_constraints_are_honoured(image):
    disc = Sersic(25.0, 0.8, 1.0, e1=0.2, fixed={"n": True, "r_eff": True}, bounds={"e1": (0.0, 0.22)})
    result = resolve(image, lens_light=["mge", disc])
    found = result.lens_light[1]
    assert found.r_eff.value == pytest.approx(0.8) and found.n.value == 1.0 and found.n.fixed
    assert 0 <= found.e1.value <= 0.22
    rows = {row["name"]: row for row in result.parameters if row["component"] == "lens_light"}
    assert rows["n_1"]["fixed"] and np.isnan(rows["r_eff_1"]["error"]) and not rows["e1_1"]["fixed"]


def test_a_given_model_says_where_the_galaxy_is():
    away = Sersic(30.0, 0.2, 1.5, 0.9, 0.8)
    result = resolve(image_of(away), lens_light=Sersic(20.0, 0.3, 1.0, 0.85, 0.85))
    assert np.hypot(result.lens_light.x_0.value - 0.9, result.lens_light.y_0.value - 0.8) < 0.01


@pytest.mark.parametrize("source", [1, 0])
def test_terms_keep_the_priors_of_the_light_without_the_source(source):
    profiles = (GaussiansProfile([0.1, 0.3]),)
    scene = Scene(lens=LENS, lens_free=True, lens_light=profiles, sky=True, source=source, extent=2.0)
    bare = scene.without("source")
    physical = torch.ones(1, scene.size, dtype=torch.float64)
    terms = Constraints.of(scene, 1).with_light_priors(scene, physical).without(scene, "source")
    assert terms.mean.shape == (1, bare.size)
    place = bare.lights[0].slice
    assert terms.stiffness[0, place].tolist() == [0.25, 0.25, 0, 0, 0, 0]
    torch.testing.assert_close(terms.lower, bare.bounds(1)[0])


def test_groups_share_what_they_have_found_anew():
    scene = galaxy_scene(["mge", "mge", Sersic()])
    first, second, other = scene.lights
    number = len(first.profile.bright)
    physical = torch.rand(2, scene.size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    shared = scene.with_groups_shared(physical)
    total, again = (v[:, first.slice] + v[:, second.slice] for v in (physical, shared))
    torch.testing.assert_close(again, total)
    inner = shared[:, first.slice][:, :number] / again[:, :number]
    assert (inner.diff(dim=1) < 0).all()
    torch.testing.assert_close(shared[:, first.slice][:, number:], shared[:, second.slice][:, number:])
    torch.testing.assert_close(shared[:, other.slice], physical[:, other.slice])
    assert galaxy_scene(["mge", Sersic()]).with_groups_shared(physical) is None


def test_a_fit_leaves_a_poor_share_of_the_light():
    # A core that lies across its halo, begun from where each group has half of either.
    core, halo = Sersic(300.0, 0.2, 1.0, e1=0.1, e2=0.25), Sersic(30.0, 0.8, 1.0, e1=0.1, e2=-0.2)
    stack = galaxy_stack(image_of(core, halo, source=Sersic(1e-9)))
    scene = galaxy_scene(["mge", "mge"])
    start = scene.with_groups_shared(fit_known_lens(stack, scene, torch.zeros(1, 0))[0].physical[None])
    first, second = scene.lights
    start[:, first.slice] = start[:, second.slice] = 0.5 * (start[:, first.slice] + start[:, second.slice])
    terms = Constraints.of(scene, 1).with_light_priors(scene, start)
    (poor,), (fit,) = (way(stack, scene, start, terms) for way in (refine, fit_from))
    assert fit.chi2 < poor.chi2 - 100
    assert fit.chi2 < 1.1 * stack.data[0].numel()
