"""A scene's parameter vector: packing, bounds, derivatives."""

import numpy as np
import pytest
import torch

from lenssr import EPL, SIE, Shear
from lenssr._tensors import forward_jacobian
from lenssr.exceptions import InputError
from lenssr.light.gaussians import GaussiansProfile
from lenssr.light.sersic import SersicProfile
from lenssr.mass import DoubleSourcePlane, SourcePlanes
from lenssr.model.fit import Constraints
from lenssr.model.scene import Scene

SERSIC = [1.4, 0.2, 1.3, 0.05, -0.04, 0.1, -0.15]
LIGHT = [3.0, 0.5, 2.5, 0.01, 0.02, -0.1, 0.05]


def lens_model(kind):
    lens = {
        "sie": SIE(1.1, 0.1, -0.05, 0.02, 0.03) + Shear(0.03, -0.02),
        "epl": EPL(1.0, 2.1, 0.1, 0.05, 0.0, 0.0),
        "none": None,
    }[kind]
    if kind == "sie":
        lens[0].e1.fixed = True
    return lens


def scene_of(kind, *, free, light=0, sky=True, source=1):
    return Scene(lens=lens_model(kind), lens_free=free, lens_light=light, sky=sky, source=source, extent=2.0)


def physical_of(scene, count=2):
    lens = [] if scene.lens is None else scene.lens.vector.tolist()
    vector = lens + (SERSIC if scene["source"] else []) + LIGHT * len(scene.lights)
    vector = torch.tensor(vector + ([0.2] if scene["sky"] else []), dtype=torch.float64)
    steps = torch.linspace(1, 1.02, count, dtype=torch.float64).unsqueeze(1)
    return vector * steps


def rays(rng, count=40):
    return tuple(torch.as_tensor(rng.uniform(-1.9, 1.9, count)) for _ in range(2))


CASES = [
    pytest.param("sie", True, 0, 1, id="free SIE and shear"),
    pytest.param("sie", True, 1, 1, id="with lens light"),
    pytest.param("sie", False, 1, 1, id="fixed lens"),
    pytest.param("epl", True, 0, 1, id="derivatives by autodiff"),
    pytest.param("none", False, 1, 0, id="lens light alone"),
]


@pytest.mark.parametrize(("kind", "free", "light", "source"), CASES)
def test_packing_is_a_round_trip(kind, free, light, source):
    scene = scene_of(kind, free=free, light=light, source=source)
    physical = physical_of(scene)
    back = scene.to_physical(scene.to_fit(physical), physical * 0 + 9)
    torch.testing.assert_close(back[:, scene.free], physical[:, scene.free])
    assert bool((back[:, ~scene.free] == 9).all())
    assert scene.to_fit(physical).shape == (2, len(scene.free_index))


def test_fixed_parameters_are_not_packed():
    scene = scene_of("sie", free=True)
    names = [name for block in scene.blocks for name in block.names]
    packed = [names[k] for k in scene.free_index.tolist()]
    # The ellipticity was fixed by the user, the shear's origin is by default.
    assert not {"e1_0", "x_0_1", "y_0_1"} & set(packed)
    assert {"theta_E_0", "e2_0", "gamma1_1", "sky", "r_eff"} <= set(packed)


@pytest.mark.parametrize(("kind", "free", "light", "source"), CASES)
def test_jacobian_equals_forward_differentiation(kind, free, light, source, rng):
    scene = scene_of(kind, free=free, light=light, source=source)
    physical = physical_of(scene)
    x, y = rays(rng)
    value, jacobian = scene.brightness_jacobian(x, y, physical)
    torch.testing.assert_close(value, scene.brightness(x, y, physical), rtol=1e-12, atol=0)

    fit = scene.to_fit(physical)
    step = 1e-6
    for k in range(jacobian.shape[1]):
        shift = torch.zeros_like(fit)
        shift[:, k] = step
        ends = [scene.brightness(x, y, scene.to_physical(fit + s, physical)) for s in (shift, -shift)]
        numeric = (ends[0] - ends[1]) / (2 * step)
        torch.testing.assert_close(jacobian[:, k], numeric, rtol=1e-5, atol=1e-6 * float(value.max()))


@pytest.mark.parametrize("light", [0, 1])
def test_jacobian_equals_autodiff(light, rng):
    scene = scene_of("epl", free=True, light=light, sky=False)
    physical = physical_of(scene)
    x, y = rays(rng)

    def brightness(*columns):
        vector = torch.cat([column.squeeze(-1).unsqueeze(-1) for column in columns], dim=-1)
        flat = vector.reshape(-1, scene.size)
        return scene.brightness(x, y, flat).reshape(*vector.shape[:-1], -1)

    _, jacobian = scene.brightness_jacobian(x, y, physical)
    _, expected = forward_jacobian(brightness, physical)
    slope = torch.where(scene.log, physical, torch.ones_like(physical))
    torch.testing.assert_close(
        jacobian, (expected * slope.unsqueeze(-1))[:, scene.free], rtol=1e-9, atol=1e-10
    )


def test_blocks_are_reached_by_name():
    scene = scene_of("sie", free=True, light=2)
    assert [scene[role].names[0] for role in ("lens", "source", "sky")] == ["theta_E_0", "amplitude", "sky"]
    assert [block.role for block in scene.lights] == ["lens_light"] * 2
    bare = scene_of("none", free=False, sky=False, source=0)
    assert (bare["lens"], bare["source"], bare["sky"], bare.lights, bare.size) == (None, None, None, (), 0)


@pytest.mark.parametrize(
    "role, match", [("lens_light", "use scene.lights"), ("halo", "'lens', 'source' or 'sky'")]
)
def test_no_block_has_another_name(role, match):
    with pytest.raises(KeyError, match=match):
        scene_of("sie", free=True)[role]


def test_more_than_one_source_is_refused():
    with pytest.raises(InputError, match="a scene of 2 sources"):
        scene_of("sie", free=True, source=2)


@pytest.mark.parametrize("source", [1, SersicProfile(), [SersicProfile()]])
def test_a_source_may_be_a_number_a_profile_or_a_list(source):
    assert isinstance(scene_of("sie", free=True, source=source)["source"].profile, SersicProfile)


@pytest.mark.parametrize(
    "kind, name, column", [("sie", "theta_E", 0), ("sie", "x_0", 3), ("sie", "gamma1_1", 5), ("epl", "e1", 2)]
)
def test_parameters_are_found_by_name(kind, name, column):
    assert scene_of(kind, free=True)["lens"].column(name) == column


def test_all_components_with_a_parameter_are_found():
    scene = scene_of("sie", free=True, light=GaussiansProfile([0.1, 0.4]), sky=False)
    assert scene["lens"].columns("x_0") == [3, 7]
    assert scene["lens"].columns("slope") == [] and scene["lens"].column("theta") is None
    assert scene.lights[0].columns("flux") == [16, 17]


@pytest.mark.parametrize("kind, column", [("sie", 0), ("epl", 0), ("none", None)])
def test_the_radius_is_the_first_einstein_radius(kind, column):
    assert scene_of(kind, free=True).radius == column


def test_free_parameters_are_counted_by_role():
    scene = scene_of("sie", free=True, light=1)
    # The ellipticity e1 and the shear's origin are fixed.
    assert [scene.count(role) for role in ("lens", "source", "lens_light", "sky")] == [6, 7, 7, 1]
    assert scene.free_of("lens").tolist() == [True, False, *[True] * 5, False, False]
    assert scene.with_lens_held().count("lens") == 0 and scene.count("lens") == 6


def test_rows_of_the_fit_vector_by_role():
    scene = scene_of("sie", free=True, light=1)
    assert scene.fit_rows("lens").tolist() == [True] * 6 + [False] * 15
    torch.testing.assert_close(scene.fit_rows("lens", "sky"), scene.fit_rows("lens") | scene.fit_rows("sky"))
    with pytest.raises(KeyError, match="'halo'"):
        scene.fit_rows("halo")


@pytest.mark.parametrize("role", ["lens", "source", "lens_light", "sky"])
def test_a_scene_without_a_role(role):
    scene = scene_of("sie", free=True, light=1).with_lens_held()
    rest, kept = scene.without(role), scene.keep(role)
    names = [name for block in scene.blocks if block.role != role for name in block.names]
    assert [name for block in rest.blocks for name in block.names] == names
    for name in ("lower", "upper", "log", "free"):
        torch.testing.assert_close(getattr(rest, name), getattr(scene, name)[kept])
    assert rest.count(role) == 0 and len(rest.free_index) == int(rest.free.sum())


def test_positions_given_ahead_change_nothing(rng):
    scene = scene_of("sie", free=False, light=1)
    physical = physical_of(scene)
    x, y = rays(rng)
    positions = scene.source_positions(x, y, physical)
    for plain, ahead in zip(
        scene.brightness_jacobian(x, y, physical),
        scene.brightness_jacobian(x, y, physical, positions=positions),
        strict=True,
    ):
        torch.testing.assert_close(plain, ahead, rtol=0, atol=0)


def test_near_a_centre_of_light_derivatives_with_place_are_zero():
    scene = scene_of("none", free=False, light=1, source=0)
    physical = physical_of(scene, 1)
    x = physical[0, 3] + torch.tensor([0.001, 0.1], dtype=torch.float64)
    _, jacobian = scene.brightness_jacobian(x, physical[0, 4].expand(2), physical, cusp=0.01)
    assert jacobian[0, 3:5, 0].tolist() == [0, 0]
    assert float(jacobian[0, 3, 1].abs()) > 0 and float(jacobian[0, 0, 0]) > 0


def test_roles_add_up(rng):
    scene = scene_of("sie", free=True, light=1)
    physical, (x, y) = physical_of(scene), rays(rng)
    parts = [scene.brightness(x, y, physical, roles=(role,)) for role in ("source", "lens_light", "sky")]
    torch.testing.assert_close(sum(parts), scene.brightness(x, y, physical))
    assert float(parts[2].abs().max()) == 0.0


def test_covariance_of_the_logarithm_becomes_that_of_the_value(rng):
    scene = scene_of("sie", free=True, light=1)
    physical = physical_of(scene, 1)
    number = len(scene.free_index)
    root = 1e-3 * rng.normal(size=(number, number))
    covariance = torch.as_tensor(root @ root.T)
    full = scene.physical_covariance(covariance.unsqueeze(0), physical)[0]
    draws = torch.as_tensor(rng.multivariate_normal(np.zeros(number), covariance.numpy(), 40_000))
    moved = scene.to_physical(scene.to_fit(physical) + draws, physical.expand(len(draws), -1))
    sampled = torch.cov(moved.T)
    scale = full.diagonal().clamp_min(1e-30).sqrt()
    assert float(((sampled - full) / scale[:, None] / scale[None, :]).abs().max()) < 0.05
    assert float(full[~scene.free].abs().max()) == 0.0


def test_bounds_of_the_user_win():
    lens = SIE(1.0, 0.1, 0.0)
    lens.theta_E.bounds = (0.9, 1.2)
    lens.e1.bounds = (0.0, 0.6)
    scene = Scene(lens=lens, lens_free=True, lens_light=0, sky=True, extent=2.0)
    lower, upper = scene.bounds(3)
    assert lower.shape == (3, scene.size)
    assert lower[0, :2].tolist() == [0.9, 0.0] and upper[0, :2].tolist() == [1.2, 0.6]
    # Centres of light stay in the field, and a Sérsic stays one.
    source = scene["source"].slice
    assert lower[0, source].tolist()[3:5] == [-2.0, -2.0] and upper[0, source].tolist()[3:5] == [2.0, 2.0]
    assert bool((lower[0, source][:3] > 0).all())


def test_lens_centre_is_found():
    scene = scene_of("sie", free=True)
    torch.testing.assert_close(
        scene.lens_centre(physical_of(scene, 1)), torch.tensor([[0.02, 0.03]], dtype=torch.float64)
    )
    assert scene_of("none", free=False).lens_centre(torch.zeros(2, 8)).tolist() == [[0, 0], [0, 0]]


# ---------------------------------------------------------------- two sources


def double_scene(light=0):
    lens = DoubleSourcePlane(lens_model("sie"), SourcePlanes(beta=0.7, beta_error=0.1), theta_E=0.2)
    scene = Scene(lens=lens, lens_free=True, lens_light=light, sky=True, source=2, extent=2.0)
    second = [0.9, 0.15, 1.1, -0.06, 0.02, 0.05, 0.1]
    vector = scene.lens.vector.tolist() + SERSIC + second + LIGHT * light + [0.2]
    steps = torch.linspace(1, 1.02, 2, dtype=torch.float64).unsqueeze(1)
    return scene, scene.with_ties(torch.tensor(vector, dtype=torch.float64) * steps)


@pytest.mark.parametrize("light", [0, 1])
def test_jacobian_of_two_sources_equals_differences(light, rng):
    scene, physical = double_scene(light)
    x, y = rays(rng)
    value, jacobian = scene.brightness_jacobian(x, y, physical)
    torch.testing.assert_close(value, scene.brightness(x, y, physical), rtol=1e-12, atol=0)
    fit, step = scene.to_fit(physical), 1e-6
    assert jacobian.shape[1] == fit.shape[1] - 1  # the sky does not pass the telescope
    for k in range(jacobian.shape[1]):
        shift = torch.zeros_like(fit)
        shift[:, k] = step
        ends = [scene.brightness(x, y, scene.to_physical(fit + s, physical)) for s in (shift, -shift)]
        numeric = (ends[0] - ends[1]) / (2 * step)
        torch.testing.assert_close(jacobian[:, k], numeric, rtol=1e-5, atol=1e-6 * float(value.max()))


def test_each_source_is_lensed_by_what_is_in_front_of_it(rng):
    scene, physical = double_scene()
    x, y = rays(rng)
    alone = [scene.behind(block) for block in scene.sources]
    images = [one.brightness(x, y, physical[:, columns]) for one, columns in alone]
    torch.testing.assert_close(sum(images), scene.brightness(x, y, physical))
    places = scene.source_positions(x, y, physical)
    for k, (one, columns) in enumerate(alone):
        for mine, both in zip(
            one.source_positions(x, y, physical[:, columns]), places[2 * k :], strict=False
        ):
            torch.testing.assert_close(mine, both)


def test_the_sphere_stays_at_the_first_source(rng):
    scene, physical = double_scene()
    lens, (first, second) = scene["lens"], scene.sources
    assert [first.label, second.label] == ["source", "second_source"] and scene["source"] is first
    fit = scene.to_fit(physical)
    moved = scene.to_physical(fit + 0.01, physical)
    torch.testing.assert_close(
        moved[:, lens.stop - 3 : lens.stop - 1], moved[:, first.start + 3 : first.start + 5]
    )
    root = torch.as_tensor(rng.normal(size=(2, fit.shape[1], fit.shape[1])))
    covariance = scene.physical_covariance(root @ root.mT, physical)
    sphere, place = lens.stop - 3, first.start + 3
    torch.testing.assert_close(covariance[:, sphere], covariance[:, place])
    torch.testing.assert_close(covariance[:, sphere, sphere], covariance[:, place, place])
    assert scene.with_lens_held().tied == ([], [])


def test_the_scaling_has_its_prior():
    scene, _ = double_scene()
    constraints = Constraints.of(scene, 1)
    column = scene["lens"].column("beta")
    assert scene.priors == {column: (0.7, 0.1)}
    assert float(constraints.mean[0, column]) == 0.7
    assert float(constraints.stiffness[0, column]) == pytest.approx(100)
    assert int((constraints.stiffness > 0).sum()) == 1
