"""One lens in front of two sources: against a lens of several planes, in derivatives, files and refusals."""

import numpy as np
import pytest
import torch
import yaml

from lenssr.cosmology import lens_distances
from lenssr.exceptions import InputError
from lenssr.mass import SIE, SIS, DoubleSourcePlane, MultiPlane, Shear, SourcePlanes, from_dict
from lenssr.mass.multi_plane import MultiPlane as Base

Z = (0.222, 0.609, 2.4)
PLANES = SourcePlanes(z_lens=Z[0], z_sources=Z[1:], cosmology="Planck15")
MAIN = SIE(1.5, 0.1, 0.05) + Shear(0.03, 0.01)
LENS = DoubleSourcePlane(MAIN, PLANES, theta_E=0.2, x_0=0.05, y_0=-0.03)
SAME = MultiPlane([(Z[0], MAIN), (Z[1], SIS(0.2, 0.05, -0.03))], Z[2], cosmology="Planck15")
X, Y = np.random.default_rng(5).normal(scale=1.5, size=(2, 100))
PAIRS = [(LENS, SAME), (LENS.of_source(1), SAME.at(Z[1]))]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=["second", "first"])
def test_each_source_has_the_lens_of_several_planes(ours, theirs):
    np.testing.assert_allclose(ours.deflection(X, Y), theirs.deflection(X, Y), atol=1e-14)
    np.testing.assert_allclose(ours.jacobian(X, Y), theirs.jacobian(X, Y), atol=1e-12)
    images = [lens.image_positions(0.1, 0.05) for lens in (ours, theirs)]
    np.testing.assert_allclose(*images, atol=1e-9)
    delays = [lens.time_delays(*images[0]).value for lens in (ours, theirs)]
    np.testing.assert_allclose(*delays, rtol=1e-6)
    assert ours.einstein_radius().value == pytest.approx(theirs.einstein_radius().value, rel=1e-9)


def test_curves_are_those_of_several_planes():
    assert len(LENS.critical_curves()) == len(SAME.critical_curves())
    assert LENS.to_lenstronomy()[0]["lens_redshift_list"] == [Z[0], Z[0], Z[1]]


@pytest.mark.parametrize("source", [1, 2])
def test_batches_of_parameters_and_derivatives(source):
    lens = LENS.of_source(source)
    x, y = torch.from_numpy(X), torch.from_numpy(Y)
    params = torch.stack([lens.vector, 0.9 * lens.vector])
    direct = lens._deflection(x, y, *params.unsqueeze(-2).unbind(-1))
    for one, other in zip(lens.deflection_at(x, y, params), direct, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-13)
    found, forward = (
        lens.deflection_jacobian_at(x, y, params),
        Base.deflection_jacobian_at(lens, x, y, params),
    )
    for one, other in zip(found, forward, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


def test_derivatives_are_bounded_near_the_sphere_only():
    # A ray that passes 1 mas from the sphere: its tidal field there is 200, at the cusp of 10 mas it is 20.
    x, y = (torch.tensor([place], dtype=torch.float64) for place in (0.051, -0.03))
    still = DoubleSourcePlane(SIE(1e-9), SourcePlanes(beta=0.7), theta_E=0.2, x_0=0.05, y_0=-0.03)
    whole, bounded = (still.rays_jacobian_at(x, y, still.vector[None], cusp)[1] for cusp in (0.0, 0.01))
    place = list(still.param_names).index("y_0_1")
    assert float(whole[1][1][0, place, 0]) == pytest.approx(200, rel=1e-3)
    assert float(bounded[1][1][0, place, 0]) == pytest.approx(20, rel=1e-3)


def test_files_hold_all_of_it():
    lens = LENS.of_source(1)
    lens.beta.fixed, lens.beta.bounds = False, (0.5, 0.9)
    size = len(lens.param_names)
    fitted = lens.with_vector(1.01 * lens.vector, covariance=np.diag(np.full(size, 1e-4)))
    again = from_dict(yaml.safe_load(yaml.safe_dump(fitted.to_dict())))
    assert repr(again) == repr(fitted) and again.source == 1
    assert [one.std for one in again.parameters] == pytest.approx([0.01] * size)
    assert again.beta.bounds == (0.5, 0.9) and not again.beta.fixed and again.lens[1].x_0.fixed
    np.testing.assert_array_equal(again.covariance, fitted.covariance)


@pytest.mark.parametrize(
    ("text", "planes"),
    [
        ("0.7", SourcePlanes(beta=0.7)),
        ("0.7+-0.05", SourcePlanes(beta=0.7, beta_error=0.05)),
        ("0.222,0.609,2.4", SourcePlanes(z_lens=0.222, z_sources=(0.609, 2.4))),
    ],
)
def test_planes_from_text_and_from_dicts(text, planes):
    assert SourcePlanes.from_text(text) == planes == SourcePlanes(**planes.to_dict())
    assert eval(repr(planes), {"SourcePlanes": SourcePlanes}) == planes  # noqa: S307


def test_beta_is_the_ratio_of_the_deflections():
    ratio = np.divide(*(SIE(1.0).deflection(1.0, 0.5)[0] * k for k in (PLANES.beta, 1.0)))
    first = DoubleSourcePlane(SIE(1.0), PLANES, source=1).deflection(1.0, 0.5)[0]
    assert first / SIE(1.0).deflection(1.0, 0.5)[0] == pytest.approx(ratio)
    ratios = []
    for z in Z[1:]:
        _, to_source, between = lens_distances(Z[0], z, cosmology=PLANES.cosmology)
        ratios.append(float(between / to_source))
    assert PLANES.beta == pytest.approx(ratios[0] / ratios[1], rel=1e-12)


BETA = DoubleSourcePlane(SIE(1.5), SourcePlanes(beta=0.7, beta_error=0.1))


@pytest.mark.parametrize(
    ("refused", "match"),
    [
        (lambda: SourcePlanes(), "give z_lens= and z_sources="),
        (lambda: SourcePlanes(z_lens=0.2), "give z_lens= and z_sources="),
        (lambda: SourcePlanes(z_lens=0.2, z_sources=(2.0, 1.0)), "the nearer source first"),
        (lambda: SourcePlanes(z_lens=0.2, z_sources=1.0), "two redshifts"),
        (lambda: SourcePlanes(z_lens=1.5, z_sources=(1.0, 2.0)), "0 < z_lens < z_source"),
        (lambda: SourcePlanes(beta=0.7, z_lens=0.2), "beta = 0.7 and redshifts"),
        (lambda: SourcePlanes(beta=1.2), "beta = 1.2 is refused: it is below 1"),
        (lambda: SourcePlanes(beta=0.7, beta_error=-1), "beta_error = -1 is refused"),
        (lambda: SourcePlanes.from_text("0.7,1"), "names no two source planes"),
        (lambda: DoubleSourcePlane("sie", PLANES), "not a mass model of one plane"),
        (lambda: DoubleSourcePlane(SAME, PLANES), "not a mass model of one plane"),
        (lambda: DoubleSourcePlane(SIE(1.0), 0.7), "give SourcePlanes"),
        (lambda: LENS.of_source(3), "there are the sources 1 and 2"),
        (lambda: LENS.at(0.5), "use of_source"),
        (lambda: BETA.time_delays(1.0, 1.0), "needs redshifts, but only beta is known"),
        (lambda: BETA.to_lenstronomy(), "needs redshifts"),
        (lambda: LENS.with_vector(0.9 * LENS.vector).planes, "needs the beta of the redshifts"),
        (lambda: LENS.convergence(1.0, 1.0), "no meaning"),
    ],
)
def test_what_is_refused(refused, match):
    with pytest.raises(InputError, match=match):
        refused()
