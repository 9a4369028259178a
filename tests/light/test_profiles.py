"""Light profiles as fits see them: what ``lens_light=`` may be, constraints, starts and derivatives."""

import astropy.units as u
import numpy as np
import pytest
import torch

from lenssr import SuperResolver
from lenssr.autodiff import forward_jacobian
from lenssr.exceptions import InputError
from lenssr.light import MultiGaussian, Sersic
from lenssr.light.gaussians_profile import GaussiansProfile
from lenssr.light.lens_light import light_profiles
from lenssr.light.sersic_profile import SersicProfile

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
    SuperResolver(lens_light=lens_light)


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
        SuperResolver(lens_light=lens_light)


def test_settings_describe_models_in_words():
    described = SuperResolver(lens_light=[Sersic(), "mge"]).settings.describe()["lens_light"]
    assert described[1] == "mge" and described[0].startswith("<Sersic")
    assert SuperResolver(lens_light="mge").settings.describe()["lens_light"] == "mge"


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
    with pytest.raises(InputError, match="converts"):
        profiles_of(MultiGaussian([0.1], [2.0] * u.mJy), unit=u.electron)


def test_an_empty_gaussian_can_still_be_found():
    (profile,) = profiles_of(MultiGaussian([0.1, 0.2, 0.4], [1.0, 0.0, 0.0], fixed={"flux_2": True}))
    start = profile.start(SERSIC)
    assert bool((start[:, 1] > 0).all()) and start[:, 2].tolist() == [0, 0]


def test_priors_only_where_light_is_shared_or_expanded():
    assert not np.isfinite(profiles_of("sersic")[0].prior).any()
    assert np.isfinite(profiles_of(["sersic", "sersic"])[0].prior[:3]).all()
    assert np.isfinite(profiles_of("mge")[0].prior[:-4]).all()
