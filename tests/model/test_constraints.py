"""Bounds and priors of a fit: which parameters they reach."""

import pytest
import torch

from lenssr import SIE, Shear
from lenssr.light.sersic import SersicProfile
from lenssr.model.fit import Constraints
from lenssr.model.scene import Scene

LENS = SIE(1.1, 0.1, -0.05, 0.02, 0.03) + Shear(0.03, -0.02)
CENTRE = torch.tensor([[0.1, -0.2]], dtype=torch.float64)


def scene_of(lens=LENS, source=1):
    return Scene(lens=lens, lens_free=True, lens_light=0, sky=True, source=source, extent=2.0)


def centred(scene, reach=0.1):
    return Constraints.of(scene, 1).centred_on(scene, CENTRE, reach)


class Flattened(SersicProfile):
    shape_priors = {"n": 0.5}


@pytest.mark.parametrize(
    "source, priors",
    [(1, {"e1": 0.3, "e2": 0.3}), (Flattened(), {"n": 0.5}), (0, {})],
    ids=["Sérsic", "its own", "none"],
)
def test_a_source_says_which_priors_its_shape_has(source, priors):
    scene = scene_of(source=source)
    stiffness, source = centred(scene).stiffness[0], scene["source"]
    found = {} if source is None else dict(zip(source.names, stiffness[source.slice].tolist(), strict=True))
    assert {name: k**-0.5 for name, k in found.items() if k} == pytest.approx(priors)


def test_an_unknown_lens_has_weak_priors_and_stays_near_its_centre():
    scene = scene_of()
    constraints, lens = centred(scene), scene["lens"]
    columns = [lens.column("x_0"), lens.column("y_0")]
    torch.testing.assert_close(constraints.lower[:, columns], CENTRE - 0.1)
    torch.testing.assert_close(constraints.upper[:, columns], CENTRE + 0.1)
    torch.testing.assert_close(constraints.mean[:, columns], CENTRE)
    sigmas = {"e1_0": 0.2, "gamma2_1": 0.1, "y_0_0": 0.1}
    for name, sigma in sigmas.items():
        assert float(constraints.stiffness[0, lens.column(name)]) == pytest.approx(sigma**-2)
    # The Einstein radius has no prior, nor has the origin of the shear, which is fixed.
    assert constraints.stiffness[0, [lens.column("theta_E"), lens.column("x_0_1")]].tolist() == [0, 0]


@pytest.mark.parametrize("follows", [True, False])
def test_a_lens_has_priors_around_its_light_or_not(follows):
    options = {"lens": LENS, "lens_free": True, "sky": True, "extent": 2.0, "follows_light": follows}
    scene = Scene(lens_light=[SersicProfile()], **options)
    stiffness = centred(scene.with_plain_light()).stiffness[0, scene.lens_centre_columns]
    assert stiffness.tolist() == pytest.approx([100.0 * follows] * 2)


def test_narrowed_bounds_bind_where_they_are_the_ones_met():
    scene = scene_of()
    wide, start = Constraints.of(scene, 1), torch.zeros(1, scene.size, dtype=torch.float64)
    near, column = wide.narrowed(scene, start), scene["lens"].column("e1")
    assert (float(near.lower[0, column]), float(near.upper[0, column])) == (-0.25, 0.25)
    there = start.clone()
    there[0, column] = 0.25
    assert near.binding(scene, there, wide).tolist() == [True]
    assert near.binding(scene, start, wide).tolist() == [False]
    assert wide.narrowed(scene, there).binding(scene, there, wide).tolist() == [False]
    assert float(near.widened(scene, there, wide).upper[0, column]) == 0.5


def test_constraints_without_a_role_are_those_of_the_scene_without_it():
    scene = scene_of()
    rest = Constraints.of(scene, 2).without(scene, "source")
    expected = Constraints.of(scene.without("source"), 2)
    torch.testing.assert_close(rest.lower, expected.lower)
    torch.testing.assert_close(rest.upper, expected.upper)


def test_a_scene_without_a_lens_has_nothing_to_narrow():
    scene = scene_of(lens=None)
    constraints = Constraints.of(scene, 1)
    torch.testing.assert_close(
        constraints.narrowed(scene, constraints.lower).lower, constraints.lower, rtol=0, atol=0
    )
