"""Light profiles as fits see them: what ``lens_light=`` may be, constraints, starts and derivatives."""

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.modeling import Fittable2DModel, Parameter
from scipy import integrate

from lenssr import PSF, SIE, PixelGrid, SuperResolver
from lenssr._tensors import forward_jacobian
from lenssr.exceptions import InputError
from lenssr.imaging.noise import GaussianNoise
from lenssr.light import LightProfile, MultiGaussian, Sersic, elliptical_radius
from lenssr.light.gaussians import GaussiansProfile
from lenssr.light.lens_light import light_profiles
from lenssr.light.sersic import SersicProfile
from lenssr.model.fit import Constraints
from lenssr.model.image_stack import ImageStack
from lenssr.model.initial_guess import source_start
from lenssr.model.least_squares import levenberg_marquardt
from lenssr.model.scene import Scene

SERSIC = torch.tensor(
    [[1.4, 0.4, 1.3, 0.05, -0.04, 0.1, -0.15], [0.4, 0.5, 2.0, 0.02, 0.03, 0.1, 0.0]]
).double()


def profiles_of(lens_light, **kwargs):
    return light_profiles(lens_light, 0.05, 2.0, **kwargs)


def flux_of(profile, vectors, grid):
    return profile.brightness(*grid, vectors).sum(1)


@pytest.mark.parametrize(
    "lens_light, kinds",
    [
        (None, []),
        ("sersic", [SersicProfile]),
        ("mge", [GaussiansProfile]),
        (["sersic", "sersic"], [SersicProfile] * 2),
        ((Sersic(), "mge"), [SersicProfile, GaussiansProfile]),
        (MultiGaussian([0.1, 0.3]), [GaussiansProfile]),
    ],
)
def test_what_lens_light_may_be(lens_light, kinds):
    assert [type(profile) for profile in profiles_of(lens_light)] == kinds
    SuperResolver(source="sersic", lens_light=lens_light)


@pytest.mark.parametrize(
    "lens_light, match",
    [
        ("gaussian", "'sersic', 'mge'"),
        (["sersic", "disc"], "'sersic', 'mge'"),
        ([], "empty list"),
        (3, "lens_light = 3"),
        ([None], "give one of"),
        (Sersic, "give one of"),
        (Sersic(n=3.0, bounds={"n": (0.5, 2.0)}), "outside its bounds"),
        (Sersic(tied={"e2": lambda model: model.e1}), "tied"),
        (Sersic(*([1.0, 0.5],) * 3, *([0.0, 0.0],) * 4, n_models=2), "2 parameter sets"),
    ],
)
def test_wrong_lens_light_is_refused_when_built(lens_light, match):
    with pytest.raises(InputError, match=match):
        SuperResolver(source="sersic", lens_light=lens_light)


def test_settings_describe_models_in_words():
    described = SuperResolver(source="sersic", lens_light=[Sersic(), "mge"]).settings.describe()["lens_light"]
    assert described[1] == "mge" and described[0].startswith("<Sersic")
    assert SuperResolver(source="sersic", lens_light="mge").settings.describe()["lens_light"] == "mge"


MODELS = [
    pytest.param(SersicProfile(), id="Sérsic"),
    pytest.param(SersicProfile(Sersic(fixed={"r_eff": True})), id="Sérsic by semi-major axis"),
    pytest.param(GaussiansProfile([0.05, 0.2, 0.9]), id="Gaussians"),
]


@pytest.mark.parametrize("profile", MODELS)
def test_derivatives(profile, rng):
    vectors = SERSIC if isinstance(profile, SersicProfile) else profile.start(SERSIC)
    x, y = (torch.as_tensor(rng.uniform(-1, 1, 30)) for _ in range(2))

    def brightness(*columns):
        stacked = torch.cat(columns, dim=-1)
        return profile.brightness(x, y, stacked.reshape(-1, stacked.shape[-1])).reshape(
            *stacked.shape[:-1], -1
        )

    value, d_x, d_y, jacobian = profile.jacobian(x, y, vectors)
    expected, slopes = forward_jacobian(brightness, vectors)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(jacobian, slopes)
    place = profile.centre
    torch.testing.assert_close(d_x, -slopes[:, place[0]])
    torch.testing.assert_close(d_y, -slopes[:, place[1]])


@pytest.mark.parametrize(
    "kinds", [["sersic"], ["mge"], ["sersic", "sersic"], ["mge", "mge"], ["sersic", "mge"]]
)
def test_starts_share_out_the_light(kinds):
    axis = torch.linspace(-2, 2, 81).double()
    grid = [part.reshape(-1) for part in torch.meshgrid(axis, axis, indexing="xy")]
    profiles = profiles_of(kinds)
    parts = [profile.start(SERSIC, i, len(kinds)) for i, profile in enumerate(profiles)]
    total = sum(flux_of(*pair, grid) for pair in zip(profiles, parts, strict=True))
    torch.testing.assert_close(total, flux_of(SersicProfile(), SERSIC, grid), rtol=0.25, atol=0)


def test_a_given_model_is_the_start_and_its_constraints_hold():
    model = Sersic(
        2.0, 0.6, 9.0, 0.1, 0.2, 0.1, 0.0, fixed={"x_0": True, "y_0": True}, bounds={"e1": (0.05, 0.2)}
    )
    (profile,) = profiles_of(model)
    torch.testing.assert_close(profile.start(SERSIC), model.vector.expand(2, -1))
    lower, upper = profile.bounds(2.0)
    assert (lower[5], upper[5]) == (0.05, 0.2) and upper[2] == 9.0
    assert profile.free == (True, True, True, False, False, True, True)


def test_a_constrained_radius_is_the_semi_major_axis():
    (profile,) = profiles_of(Sersic(2.0, 0.6, 1.0, e1=0.2, fixed={"r_eff": True}))
    assert float(profile.given_vector[1]) == pytest.approx(0.6)
    model = profile.model(profile.given_vector, torch.eye(7).double(), None)
    assert model.r_eff.value == pytest.approx(0.6) and model.r_eff.fixed
    assert model.r_eff.std == pytest.approx(1.0) and model.e1.std == pytest.approx(1.0)


def test_a_given_model_is_taken_in_the_unit_of_the_image():
    (profile,) = profiles_of(
        Sersic(2 * u.mJy / u.arcsec**2, 0.5 * u.arcsec, bounds={"amplitude": (1.0, 3.0)}), unit=u.uJy
    )
    assert float(profile.given_vector[0]) == pytest.approx(2000.0)
    assert profile.bounds(2.0)[0][0] == pytest.approx(1000.0)
    (profile,) = profiles_of(MultiGaussian([0.1], [2.0] * u.mJy), unit=u.uJy)
    assert float(profile.given_vector[0]) == pytest.approx(2000.0)
    with pytest.raises(InputError, match="convertible"):
        profiles_of(MultiGaussian([0.1], [2.0] * u.mJy), unit=u.electron)


def test_an_empty_gaussian_can_still_be_found():
    (profile,) = profiles_of(MultiGaussian([0.1, 0.2, 0.4], [1.0, 0.0, 0.0], fixed={"flux_2": True}))
    start = profile.start(SERSIC)
    assert bool((start[:, 1] > 0).all()) and start[:, 2].tolist() == [0, 0]


def test_priors_only_where_light_is_shared_or_expanded():
    assert not np.isfinite(profiles_of("sersic")[0].prior).any()
    assert np.isfinite(profiles_of(["sersic", "sersic"])[0].prior[:3]).all()
    assert np.isfinite(profiles_of("mge")[0].prior[:-4]).all()


# ---------------------------------------------------------------- what a profile says about itself


def test_widths_and_limits_follow_from_what_parameters_are():
    assert SersicProfile().evidence_widths == (3.0, 1.0, 2.0, 0.3, 0.3, 0.3, 0.3)
    lower, upper = SersicProfile().bounds(2.0, 0.3)
    assert lower == [1e-60, 1e-3, 0.3, -2.0, -2.0, -0.6, -0.6]
    assert upper == [np.inf, 0.6, 8.0, 2.0, 2.0, 0.6, 0.6]
    assert GaussiansProfile([0.1, 0.2]).evidence_widths == (3.0, 3.0, 0.3, 0.3, 0.3, 0.3)


@pytest.mark.parametrize("cusp", [0.0, 0.2])
@pytest.mark.parametrize("positions", [1, 2], ids=["shared rays", "rays of their own"])
def test_the_default_jacobian_is_that_by_hand(cusp, positions, rng):
    rays = torch.as_tensor(rng.uniform(-0.4, 0.4, (2, positions, 50)))
    x, y = rays.squeeze(1) if positions == 1 else rays
    default = LightProfile.jacobian(SersicProfile(), x, y, SERSIC, cusp)
    for part, by_hand in zip(default, SersicProfile().jacobian(x, y, SERSIC, cusp), strict=True):
        torch.testing.assert_close(part, by_hand)


def test_the_default_jacobian_is_finite_at_the_centre():
    x, y = SERSIC[:, 3:4], SERSIC[:, 4:5]
    for vectors in (SERSIC, RING):
        profile = SersicProfile() if vectors is SERSIC else RingProfile()
        for part in LightProfile.jacobian(profile, x[: len(vectors)], y[: len(vectors)], vectors):
            assert bool(part.isfinite().all())


@pytest.mark.parametrize("profile", MODELS)
def test_the_default_flux_and_radius_are_those_by_formula(profile):
    vectors = SERSIC if isinstance(profile, SersicProfile) else profile.start(SERSIC)
    for name in ("flux", "effective_radius"):
        default, formula = getattr(LightProfile, name)(profile, vectors), getattr(profile, name)(vectors)
        torch.testing.assert_close(default, formula, rtol=2e-4, atol=0)
    assert profile.flux(vectors[0]).shape == () and profile.effective_radius(vectors[None]).shape == (1, 2)


def test_half_of_the_gaussians_flux_lies_within_the_effective_radius():
    profile = GaussiansProfile([0.1, 0.5])
    vector = torch.tensor([1.0, 2.0, 0.0, 0.0, 0.2, 0.1], dtype=torch.float64)
    radius = float(profile.effective_radius(vector))
    inside = [flux * (1 - np.exp(-0.5 * (radius / s) ** 2)) for flux, s in ((1.0, 0.1), (2.0, 0.5))]
    assert sum(inside) == pytest.approx(1.5, rel=1e-4)


@pytest.mark.parametrize("profile", [MODELS[0], MODELS[2]])
def test_a_source_starts_round_with_the_radius_asked_for(profile):
    radius, x, y = torch.tensor([[0.1, 0.3], [0.2, 0.0], [-0.1, 0.4]], dtype=torch.float64)
    start = profile.from_moments(radius, x, y)
    torch.testing.assert_close(profile.effective_radius(start), radius, rtol=0.15, atol=0)
    torch.testing.assert_close(start[:, list(profile.centre)], torch.stack([x, y], dim=1))
    brighter = profile.scaled(start, torch.tensor([2.0, 5.0], dtype=torch.float64))
    rays = torch.rand(2, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ratio = profile.brightness(*rays, brighter) / profile.brightness(*rays, start)
    torch.testing.assert_close(ratio, torch.tensor([[2.0], [5.0]]).double().expand(-1, 9))


def test_a_given_source_starts_where_the_arcs_say_but_for_what_is_fixed():
    given = Sersic(5.0, 0.7, 2.5, 0.3, 0.1, e1=0.2, fixed={"n": True, "y_0": True})
    radius, x, y = torch.tensor([[0.1], [0.2], [-0.1]], dtype=torch.float64)
    start = SersicProfile(given).from_moments(radius, x, y)
    torch.testing.assert_close(start, torch.tensor([[1.0, 0.1, 2.5, 0.2, 0.1, 0.2, 0.0]]).double())


def test_a_window_holds_four_radii_of_the_major_axis():
    sersic = Sersic(2.0, 0.6, 1.0, 0.1, -0.2, e1=0.2, e2=0.1)
    x_0, y_0, half = SersicProfile().window(sersic.vector)
    assert (x_0, y_0) == (0.1, -0.2) and half == pytest.approx(4 * 0.6)


# ---------------------------------------------------------------- a profile as a user writes it


def ring_brightness(x, y, amplitude, h, ring, r_ring, width, *shape):
    radius = elliptical_radius(x, y, *shape)
    return amplitude * (torch.exp(-radius / h) + ring * torch.exp(-0.5 * ((radius - r_ring) / width) ** 2))


class RingDisc(Fittable2DModel):
    """What users see: an exponential disc with a ring."""

    amplitude, h, ring = Parameter(default=1.0), Parameter(default=0.1), Parameter(default=1.0)
    r_ring, width = Parameter(default=0.3), Parameter(default=0.1)
    x_0, y_0, e1, e2 = (Parameter(default=0.0) for _ in range(4))

    @staticmethod
    def evaluate(x, y, *parameters):
        arrays = (torch.as_tensor(np.asarray(value, dtype=float)) for value in (x, y, *parameters))
        return ring_brightness(*arrays).numpy()


class RingProfile(LightProfile):
    """The same in a fit."""

    names, model_class = RingDisc.param_names, RingDisc
    bright, bright_unit, lengths = ("amplitude",), u.arcsec**-2, ("h", "r_ring", "width")
    ranges = {"ring": (0.0, 10.0)}

    def brightness(self, x, y, parameters):
        return ring_brightness(x, y, *parameters.unsqueeze(-1).unbind(1))

    def from_sersic(self, sersic, rank, count):
        amplitude, radius = sersic[:, :1] / count, sersic[:, 1:2]
        ring = (torch.full_like(radius, 0.5), 1.5 * radius, 0.5 * radius)
        return torch.cat([amplitude, 0.6 * radius, *ring, sersic[:, 3:]], dim=1)


RING = torch.tensor([[8.0, 0.06, 0.4, 0.2, 0.04, 0.08, -0.05, 0.1, 0.15]], dtype=torch.float64)


def test_the_derivatives_of_a_users_profile(rng):
    x, y = (torch.as_tensor(rng.uniform(-0.4, 0.4, 6)) for _ in range(2))
    vectors = torch.cat([RING, 1.2 * RING])
    value, d_x, d_y, d_p = RingProfile().jacobian(x, y, vectors)
    inputs = [part.clone().requires_grad_() for part in (x, y, vectors)]
    assert torch.autograd.gradcheck(RingProfile().brightness, inputs)
    total = RingProfile().brightness(*inputs)
    torch.testing.assert_close(value, total.detach())
    # Every ray and row has derivatives of its own: those of the sums are theirs.
    slopes = torch.autograd.grad(total[0].sum(), inputs, retain_graph=True)
    torch.testing.assert_close(d_x[0], slopes[0])
    torch.testing.assert_close(d_y[0], slopes[1])
    torch.testing.assert_close(d_p.sum(2)[0], slopes[2][0])
    for k in range(len(x)):
        (slope,) = torch.autograd.grad(total[1, k], inputs[2], retain_graph=True)
        torch.testing.assert_close(d_p[1, :, k], slope[1])


def test_the_size_and_flux_of_a_users_profile():
    profile, (amplitude, h, ring, r_ring, width) = RingProfile(), RING[0, :5].tolist()

    def light_within(radius):
        def brightness(r):
            return (
                2
                * np.pi
                * r
                * amplitude
                * (np.exp(-r / h) + ring * np.exp(-0.5 * ((r - r_ring) / width) ** 2))
            )

        return integrate.quad(brightness, 0, radius, points=[r_ring], limit=200)[0]

    total = light_within(2.0)
    assert float(profile.flux(RING)[0]) == pytest.approx(total, rel=1e-6)
    assert light_within(float(profile.effective_radius(RING[0]))) == pytest.approx(total / 2, rel=1e-3)
    x_0, y_0, half = profile.window(RING[0])
    assert (x_0, y_0) == (0.08, -0.05) and half > 4 * float(profile.effective_radius(RING[0]))
    assert torch.autograd.gradcheck(profile.flux, RING.clone().requires_grad_())


def test_the_model_of_a_users_profile():
    covariance = torch.diag(torch.arange(1.0, 10.0).double() ** 2)
    model = RingProfile().model(RING[0], covariance, u.electron)
    assert model.amplitude.unit == u.electron / u.arcsec**2 and model.r_ring.unit == u.arcsec
    assert model.ring.unit is None and [model.h.std, model.e2.std] == [2.0, 9.0]
    given = RingDisc(*RING[0].tolist(), fixed={"ring": True}, bounds={"h": (0.01, 0.1)})
    profile = RingProfile(given)
    torch.testing.assert_close(profile.start(SERSIC), RING.expand(2, -1))
    assert not profile.free[2] and profile.bounds(2.0)[1][1] == 0.1
    assert profile.model(RING[0]).ring.fixed and profile.model(RING[0])(0.2, 0.1) == model(
        0.2 * u.arcsec, 0.1 * u.arcsec
    )


def test_a_profile_without_a_model_says_so():
    class Plain(RingProfile):
        model_class = None

    with pytest.raises(InputError, match="Plain has no model for users: set its model_class"):
        Plain().model(RING[0])


def test_a_users_profile_is_a_source():
    lens, grid = SIE(0.9, 0.1, -0.05), PixelGrid((60, 60), 0.05)
    scene = Scene(lens=lens, lens_free=False, lens_light=0, sky=True, source=RingProfile(), extent=1.5)
    truth = torch.cat([lens.vector[None], RING, torch.full((1, 1), 0.02)], dim=1)
    shape, noise = (1, *grid.shape), GaussianNoise(0.001)
    kernel, valid = PSF.from_fwhm(0.1 * u.arcsec).kernel(0.05), np.ones((1, *grid.shape), dtype=bool)
    image = ImageStack(np.zeros(shape), valid, [noise], grid, kernel).image(scene, truth)
    stack = ImageStack(image.reshape(shape), valid, [noise], grid, kernel)
    start = source_start(stack, scene, truth, image - 0.02, stack.weights(image))
    column = scene["source"].column("x_0")
    assert float((start - truth)[0, column : column + 2].norm()) < 0.05
    bounds = Constraints.of(scene, 1)
    lower, upper = scene.to_fit(bounds.lower), scene.to_fit(bounds.upper)
    model, weight = stack.model(scene, start), stack.weights(image)
    options = {"lower": lower, "upper": upper, "max_iterations": 200}
    fit = levenberg_marquardt(model, scene.to_fit(start), stack.data, weight, **options)
    found = scene.to_physical(fit.parameters, start)
    torch.testing.assert_close(found, truth, rtol=1e-4, atol=1e-5)
