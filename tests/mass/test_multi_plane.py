"""Lenses at several redshifts, against lenstronomy and in the limits that are one plane."""

import astropy.units as u
import numpy as np
import pytest
import torch
import yaml
from astropy.cosmology import FlatLambdaCDM
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LensModel.Solver.lens_equation_solver import LensEquationSolver

from lenssr import SuperResolver
from lenssr.exceptions import InputError
from lenssr.mass import DPIE, EPL, SIE, SIS, MassSystem, MultiPlane, Shear, from_dict
from lenssr.simulation import DeepLense

COSMOLOGY = FlatLambdaCDM(70, 0.3)
PLANES = [
    (0.5, SIE(1.2, 0.1, -0.05) + Shear(0.03, 0.01)),
    (0.3, EPL(0.3, 2.2, -0.1, 0.1, 0.4, 0.5)),
    (0.9, SIS(0.2, -0.3, 0.1)),
]
LENSES = MultiPlane(PLANES, 2.0, cosmology=COSMOLOGY)
NAMES, REDSHIFTS = ["EPL", "SHEAR", "EPL", "SIS"], [0.5, 0.5, 0.3, 0.9]
KWARGS = [
    {"theta_E": 1.2, "gamma": 2.0, "e1": 0.1, "e2": -0.05},
    {"gamma1": 0.03, "gamma2": 0.01},
    {"theta_E": 0.3, "gamma": 2.2, "e1": -0.1, "e2": 0.1, "center_x": 0.4, "center_y": 0.5},
    {"theta_E": 0.2, "center_x": -0.3, "center_y": 0.1},
]
X, Y = np.random.default_rng(5).normal(scale=1.5, size=(2, 100))


def lenstronomy(z_source):
    options = {"lens_redshift_list": REDSHIFTS, "z_source": z_source, "z_source_convention": 2.0}
    return LensModel(NAMES, multi_plane=True, cosmo=COSMOLOGY, **options)


@pytest.mark.filterwarnings("ignore:Cosmology is provided")
@pytest.mark.parametrize("z_source", [2.0, 0.9, 0.7, 0.4])
def test_deflection_of_any_source_is_lenstronomys(z_source):
    ours, theirs = LENSES.at(z_source).deflection(X, Y), lenstronomy(z_source).alpha(X, Y, KWARGS)
    np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-12)


@pytest.mark.filterwarnings("ignore:Cosmology is provided")
def test_jacobian_and_magnification_are_lenstronomys():
    xx, xy, yx, yy = lenstronomy(2.0).hessian(X, Y, KWARGS)
    theirs = np.moveaxis([[1 - xx, -xy], [-yx, 1 - yy]], 2, 0)
    np.testing.assert_allclose(LENSES.jacobian(X, Y), theirs, atol=2e-6)  # lenstronomy takes differences
    np.testing.assert_allclose(
        1 / LENSES.magnification(X, Y), np.linalg.det(LENSES.jacobian(X, Y)), rtol=1e-12
    )


def test_jacobian_is_that_of_the_deflection():
    x, y = (torch.from_numpy(axis).requires_grad_() for axis in (X, Y))
    ax, ay = LENSES.deflection(x, y)
    rows = [torch.autograd.grad(a.sum(), (x, y), retain_graph=True) for a in (ax, ay)]
    expected = torch.eye(2, dtype=torch.float64) - torch.stack([torch.stack(row, -1) for row in rows], -2)
    torch.testing.assert_close(LENSES.jacobian(x, y), expected, rtol=1e-11, atol=1e-12)
    quick = LENSES.deflection(X, Y)
    np.testing.assert_allclose(quick, (ax.detach(), ay.detach()), rtol=1e-12, atol=1e-13)


def test_planes_at_one_redshift_are_one_plane():
    together = MultiPlane([(0.5, SIE(1.2, 0.1)), (0.5, SIS(0.3, 0.5)), (0.5, Shear(0.05, 0.0))], 2.0)
    single = SIE(1.2, 0.1) + SIS(0.3, 0.5) + Shear(0.05, 0.0)
    np.testing.assert_allclose(together.deflection(X, Y), single.deflection(X, Y), rtol=1e-13)
    np.testing.assert_allclose(together.jacobian(X, Y), single.jacobian(X, Y), rtol=1e-12, atol=1e-13)


def test_units_kinds_and_batches():
    ax, _ = LENSES.deflection(500 * u.mas, [0.3, 0.4] * u.arcsec)
    assert ax.unit == u.arcsec and ax.shape == (2,)
    assert LENSES.jacobian(500 * u.mas, 0 * u.arcsec).shape == (2, 2)
    x, y = torch.from_numpy(X), torch.from_numpy(Y)
    vectors = torch.stack((LENSES.vector, 1.1 * LENSES.vector))
    ax, ay, dax, day = LENSES.deflection_jacobian_at(x, y, vectors)
    assert dax.shape == day.shape == (2, 18, 100)
    for k, vector in enumerate(vectors):
        bx, by = LENSES.with_vector(vector).deflection(x, y)
        torch.testing.assert_close((ax[k], ay[k]), (bx, by), rtol=1e-11, atol=1e-12)
    step = torch.zeros(18, dtype=torch.float64).index_fill(0, torch.tensor(9), 1e-6)
    high, low = (LENSES.deflection_at(x, y, (LENSES.vector + sign * step)[None])[0] for sign in (1, -1))
    torch.testing.assert_close(dax[:1, 9], (high - low) / 2e-6, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    "cosmology", [None, "Planck15", COSMOLOGY, {"FlatwCDM": {"H0": 70, "Om0": 0.3, "w0": -0.9}}]
)
@pytest.mark.parametrize("z_source", [2.0, 0.8])
def test_yaml_round_trip(cosmology, z_source):
    lenses = MultiPlane(PLANES, 2.0, cosmology=cosmology).at(z_source)
    lenses[1].theta_E.fixed = True
    again = from_dict(yaml.safe_load(yaml.safe_dump(lenses.to_dict())))
    assert repr(again) == repr(lenses) and again[1].theta_E.fixed
    np.testing.assert_array_equal(again.deflection(X, Y), lenses.deflection(X, Y))


def test_a_lens_file():
    front, back = "{z: 0.3, lens: {SIE: {theta_E: 1.2, q: 0.8, phi: 30 deg}}}", "[0.8, {SIS: {theta_E: 0.2}}]"
    text = f"MultiPlane: {{planes: [{front}, {back}], z_source: 2, cosmology: Planck15}}"
    lenses = from_dict(yaml.safe_load(text))
    assert lenses.redshifts == (0.3, 0.8) and lenses[0].q == pytest.approx(0.8) and len(lenses) == 2


@pytest.mark.parametrize("name", ["potential", "convergence", "shear", "fermat_potential"])
def test_what_has_no_meaning_is_refused(name):
    with pytest.raises(InputError, match="has no meaning for lenses at several redshifts"):
        getattr(LENSES, name)(1.0, 0.5)


@pytest.mark.parametrize(
    "build, match",
    [
        (lambda: MultiPlane([], 2.0), "no planes"),
        (lambda: MultiPlane([SIS(1.0)], 2.0), "is not a plane"),
        (lambda: MultiPlane([(0.5, "SIS")], 2.0), "not a mass model of one plane"),
        (lambda: MultiPlane([(0.5, LENSES)], 2.0), "not a mass model of one plane"),
        (lambda: MultiPlane([(2.0, SIS(1.0))], 2.0), "z = 2.0 is not in front"),
        (lambda: MultiPlane([(0.5, SIS(1.0))], -1.0), "z_source = -1.0"),
        (lambda: MultiPlane([(0.5, SIS(1.0))], 2.0, cosmology="Planck"), "cosmology = 'Planck' is not known"),
        (lambda: LENSES + SIS(1.0), "add to the model of one of its planes"),
        (lambda: SIS(1.0) + LENSES, "add to the model of one of its planes"),
        (lambda: MassSystem(LENSES), "add to the model of one of its planes"),
        (lambda: LENSES.at(0.0), "z_source = 0.0"),
    ],
)
def test_refused(build, match):
    with pytest.raises(InputError, match=match):
        build()


@pytest.mark.slow
def test_a_resolver_takes_one_as_known_lens(tmp_path):
    item = DeepLense(lens="sie", noise=False, size=1, seed=1)[0]
    lens = MultiPlane([(0.5, item.lens), (0.5, SIS(1e-9))], 1.0)
    alone, several = (
        SuperResolver(source="sersic", lens=one, oversampling=1)(item.low, noise=item.noise)
        for one in (item.lens, lens)
    )
    assert several.ok
    np.testing.assert_allclose(
        several.image.data, alone.image.data, rtol=1e-5, atol=1e-6 * alone.image.data.max()
    )
    several.write(tmp_path / "result.fits")
    again = type(several).read(tmp_path / "result.fits")
    assert repr(again.lens) == repr(lens)


@pytest.mark.filterwarnings("ignore:Cosmology is provided")
def test_images_and_their_times_are_lenstronomys():
    theirs, place = lenstronomy(2.0), (0.05, 0.02)
    solver = LensEquationSolver(theirs)
    options = {"min_distance": 0.05, "search_window": 6, "precision_limit": 1e-12, "num_iter_max": 100}
    expected = np.array(solver.image_position_from_source(*place, KWARGS, **options))
    images = LENSES.images(*place)
    x, y = images["x"].value, images["y"].value
    # lenstronomy misses images in the centres of the lenses, which are faint.
    assert expected.shape[1] >= 2
    for image in expected.T:
        assert np.hypot(x - image[0], y - image[1]).min() < 1e-9
    bx, by = theirs.ray_shooting(x, y, KWARGS)
    np.testing.assert_allclose((bx, by), np.broadcast_to(np.array(place)[:, None], (2, len(x))), atol=1e-9)
    times = theirs.arrival_time(x, y, KWARGS, x_source=place[0], y_source=place[1])
    np.testing.assert_allclose(images["time_delay"].to_value(u.day), times - times.min(), rtol=1e-6)
    delays = LENSES.time_delays(x, y, source=place)
    np.testing.assert_allclose(delays.to_value(u.day), times - times.min(), rtol=1e-6)


def test_curves_and_times_of_one_plane():
    single = SIE(1.2, 0.1) + DPIE(0.2, 0.05, 3.0, x_0=0.4)
    planes = MultiPlane([(0.5, SIE(1.2, 0.1)), (0.5, DPIE(0.2, 0.05, 3.0, x_0=0.4))], 2.0)
    assert planes.einstein_radius().value == pytest.approx(single.einstein_radius().value, rel=1e-6)
    np.testing.assert_allclose(planes.caustic_areas(), single.caustic_areas(), rtol=1e-5)
    ours, expected = planes.image_positions(0.1, 0.05), single.image_positions(0.1, 0.05)
    np.testing.assert_allclose(ours, expected, atol=1e-10)
    delays = single.time_delays(*expected, z_lens=0.5, z_source=2.0)
    np.testing.assert_allclose(planes.time_delays(*ours).value, delays.value, rtol=1e-9)


def test_critical_curves_are_where_the_magnification_is_infinite():
    lenses = MultiPlane([(0.3, SIE(1.2, 0.1)), (0.8, DPIE(0.3, 0.1, 3.0, 0.1, x_0=0.5, y_0=0.2))], 2.0)
    curves = lenses.critical_curves()
    assert len(curves) >= 1
    for x, y in curves:
        assert np.abs(np.linalg.det(lenses.jacobian(x, y))).max() < 1e-9


def test_centres_behind_round_lenses_are_rings():
    lenses = MultiPlane([(0.5, SIS(1.2)), (1.0, SIS(0.2))], 2.0)
    x, y = lenses.image_positions(0.1, 0.05)
    bx, by = lenses.deflection(x, y)
    assert len(x) == 2 and np.hypot(x - bx - 0.1, y - by - 0.05).max() < 1e-9


def test_redshifts_of_ones_own():
    with pytest.raises(InputError, match="z_lens = 0.5 is refused"):
        LENSES.time_delays(1.0, 0.5, z_lens=0.5)
    with pytest.raises(InputError, match="z_source = 2.0 is refused"):
        LENSES.images(0.05, 0.02, z_source=2.0)
