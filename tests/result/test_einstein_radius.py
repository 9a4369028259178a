"""The effective Einstein radius of a result, against critical curves of lenstronomy, and its error."""

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from lenstronomy.Analysis.lens_profile import LensProfileAnalysis
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LensModel.lens_model_extensions import LensModelExtensions

from lenssr.mass import EPL, NFW, SIE, SIS, ConvergenceSheet, MassModel, Parameter, PixelatedDeflection, Shear
from lenssr.result import SuperResolution


def theirs(theta_E, gamma, e1, e2, x_0, y_0, gamma1, gamma2):
    """Model of lenstronomy, and its keywords."""
    mass = {"theta_E": theta_E, "gamma": gamma, "e1": e1, "e2": e2, "center_x": x_0, "center_y": y_0}
    return LensModel(["EPL", "SHEAR"]), [mass, {"gamma1": gamma1, "gamma2": gamma2}]


def polygon_radius(model, keywords):
    """Radius of the circle with the area inside the longest critical curve of lenstronomy."""
    curves_x, curves_y, *_ = LensModelExtensions(model).critical_curve_caustics(
        keywords, compute_window=6, grid_scale=0.02
    )
    x, y = max(zip(curves_x, curves_y, strict=True), key=lambda curve: len(curve[0]))
    return np.sqrt(abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2 / np.pi)


@pytest.mark.parametrize("e1, e2", [(0.0, 0.0), (0.2, -0.1), (0.05, 0.3)])
def test_of_an_isothermal_ellipsoid_is_theta_E_of_lenstronomy(make, e1, e2):
    result = make(shape=(8, 8), lens=SIE(1.2, e1, e2, 0.1, -0.05))
    model, keywords = theirs(1.2, 2.0, e1, e2, 0.1, -0.05, 0.0, 0.0)
    assert result.R_E.to_value(u.arcsec) == pytest.approx(1.2, rel=1e-6)
    assert result.R_E.value == pytest.approx(polygon_radius(model, keywords), rel=1e-3)


def test_is_near_where_the_mean_convergence_is_one(make):
    """What lenstronomy calls the effective Einstein radius: a circle, which differs at second order in e."""
    result = make(shape=(8, 8), lens=EPL(1.2, 2.2, 0.05, -0.02))
    model, keywords = theirs(1.2, 2.2, 0.05, -0.02, 0.0, 0.0, 0.0, 0.0)
    mean_density = LensProfileAnalysis(model).effective_einstein_radius(keywords, num_points=200)
    assert result.R_E.value == pytest.approx(mean_density, rel=5e-3)


@pytest.mark.parametrize(
    "values",
    [
        (1.1, 2.3, 0.15, 0.1, 0.05, 0.02, 0.06, -0.03),
        (1.4, 1.7, -0.2, 0.05, 0.0, 0.0, 0.1, 0.08),
        (0.8, 2.0, 0.0, 0.25, -0.1, 0.1, -0.15, 0.0),
    ],
)
def test_of_a_power_law_with_shear_is_the_area_of_lenstronomys_curve(make, values):
    result = make(shape=(8, 8), lens=EPL(*values[:6]) + Shear(*values[6:]))
    assert result.R_E.value == pytest.approx(polygon_radius(*theirs(*values)), rel=1e-3)


def test_error_is_the_scatter_of_the_parameters(make, rng):
    lens = EPL(1.2, 2.1, 0.15, -0.1, 0.02, 0.01) + Shear(0.05, 0.03)
    root = rng.normal(size=(8, 8)) * 0.004
    covariance = np.zeros((10, 10))
    covariance[:8, :8] = root @ root.T
    result = make(shape=(8, 8), lens=lens.with_vector(lens.vector, covariance=covariance))
    moves = rng.multivariate_normal(np.zeros(10), covariance, 400, method="eigh")
    radii = [lens.with_vector(lens.vector.numpy() + move).einstein_radius().value for move in moves]
    # The scatter of 400 draws is known to 3.5 %.
    assert result.R_E_error.to_value(u.arcsec) == pytest.approx(np.std(radii), rel=0.12)


@pytest.mark.parametrize("lens", [NFW(2.0, 1.3) + Shear(0.05, 0.02), SIE(1.0, 0.1) + ConvergenceSheet(0.05)])
def test_error_of_other_families_is_that_of_finite_differences(make, lens):
    values, step = lens.vector.numpy(), 1e-3
    covariance = np.diag(np.linspace(1, 2, len(values))) * 1e-4
    slopes = [
        (high.einstein_radius() - low.einstein_radius()).value / (2 * step)
        for low, high in (
            (lens.with_vector(values - step * unit), lens.with_vector(values + step * unit))
            for unit in np.eye(len(values))
        )
    ]
    result = make(shape=(8, 8), lens=lens.with_vector(values, covariance=covariance))
    expected = np.sqrt(slopes @ covariance @ slopes)
    assert result.R_E_error.value == pytest.approx(expected, rel=1e-3)


MAIN = SIE(1.2, 0.1, -0.05, 0.02, 0.01) + Shear(0.04, 0.02)
MAP = PixelatedDeflection(*np.zeros((2, 60, 60)), 0.1)


@pytest.mark.parametrize(
    "extra, counts",
    [
        (SIS(0.2, 1.5, 0.8), False),
        (SIS(0.05, -0.9, 0.0) + SIS(0.2, 0.0, 2.5), False),
        (NFW(1.0, 0.2, 0.03, 0.0), True),
        (ConvergenceSheet(0.05), True),
        (MAP, True),
    ],
    ids=["satellite", "two", "concentric", "sheet", "map"],
)
def test_satellites_do_not_count(make, extra, counts):
    lens = MAIN + extra
    expected = (lens if counts else MAIN).einstein_radius().value
    assert make(shape=(8, 8), lens=lens).R_E.value == pytest.approx(expected, rel=1e-5)


def test_satellites_do_not_count_in_the_error(make):
    lens = MAIN[0] + SIS(0.2, 1.5, 0.8) + MAIN[1]
    number = len(lens.param_names)
    spread = np.diag(np.full(number, 1e-4))
    kept = [*range(5), *range(8, number)]
    alone = MAIN.with_vector(MAIN.vector, covariance=spread[np.ix_(kept, kept)])
    both = make(shape=(8, 8), lens=lens.with_vector(lens.vector, covariance=spread))
    assert both.R_E_error.value == pytest.approx(make(shape=(8, 8), lens=alone).R_E_error.value, rel=1e-6)
    assert both.R_E.value == pytest.approx(MAIN.einstein_radius().value, rel=1e-6)


def test_of_a_map_with_a_satellite_is_that_of_the_map(make):
    x, y = (np.indices((81, 81))[::-1] - 40) * 0.08
    main = PixelatedDeflection(*SIE(1.2, 0.1, 0.05).deflection(x, y), 0.08)
    radius = make(shape=(8, 8), lens=main + Shear(0.0, 0.0) + SIS(0.2, 1.5, 0.8)).R_E
    assert radius.value == pytest.approx(1.2, rel=2e-3)


class Bent(MassModel):
    """A lens without second derivatives."""

    theta_E = Parameter("Einstein radius", unit=u.arcsec)
    _deflection = staticmethod(lambda x, y, theta_E: (theta_E * x, theta_E * y))


@pytest.mark.parametrize(
    "lens",
    [None, Shear(0.05, 0.0), ConvergenceSheet(0.2), Bent(theta_E=1.0), Bent(theta_E=1.0) + Shear(0.1, 0.0)],
    ids=["none", "shear", "sheet", "no second derivatives", "such a one in a sum"],
)
def test_is_nan_without_a_closed_curve(make, tmp_path, lens):
    result = make(shape=(8, 8), lens=lens)
    assert np.isnan(result.R_E) and np.isnan(result.R_E_error)
    assert result.R_E.unit == u.arcsec
    assert "R_E" not in result.summary()
    result.write(tmp_path / "out.fits")
    assert "R_E" not in fits.getheader(tmp_path / "out.fits", "SCI")


def test_error_is_nan_without_covariance(make, tmp_path):
    result = make(shape=(8, 8), lens=SIE(1.2, 0.1))
    assert np.isnan(result.R_E_error) and result.R_E_error.unit == u.arcsec
    result.write(tmp_path / "out.fits")
    assert fits.getheader(tmp_path / "out.fits")["R_E_ERR"] == "nan"


def test_file_and_summary_have_it(result, path):
    again = SuperResolution.read(path)
    assert (again.R_E, again.R_E_error) == (result.R_E, result.R_E_error)
    for hdu in (0, "SCI"):
        header = fits.getheader(path, hdu)
        assert header["R_E"] == pytest.approx(result.R_E.value, rel=1e-14)
        # A card holds 16 digits.
        assert header["R_E_ERR"] == pytest.approx(result.R_E_error.value, rel=1e-14)
    [line] = [line for line in result.summary().splitlines() if line.startswith("R_E ")]
    assert f"{result.R_E.value:.4f}" in line and "+-" in line and "arcsec" in line


def test_of_a_run_is_near_the_truth(solve):
    result = solve("sersic", lens=solve.lens, fit_lens=True)
    truth = solve.lens.einstein_radius()
    assert abs(result.R_E - truth) < 4 * result.R_E_error
    assert 0 < result.R_E_error.value < 0.02
