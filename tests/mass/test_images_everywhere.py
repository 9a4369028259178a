"""Images that a single grid loses, rings, tables of images, and their arrival times."""

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.cosmology import FlatLambdaCDM
from lenstronomy.LensModel.lens_model import LensModel
from matplotlib.figure import Figure

from lenssr.exceptions import InputError
from lenssr.mass import EPL, NFW, SIE, SIS, ConvergenceSheet, PixelatedDeflection, PointMass, Shear

QUAD = SIE(1.2, 0.2, 0.1, 0.05, 0.02) + Shear(0.05, 0.02)
QUAD_MODEL = (
    ["EPL", "SHEAR"],
    [
        {"theta_E": 1.2, "gamma": 2.0, "e1": 0.2, "e2": 0.1, "center_x": 0.05, "center_y": 0.02},
        {"gamma1": 0.05, "gamma2": 0.02},
    ],
)


def chang_refsdal(kappa, gamma, b):
    """Images of a source on the axis behind a point mass, exactly, as complex numbers."""
    a, c = 1 - kappa - gamma, 1 - kappa + gamma
    found = [complex(x.real) for x in np.roots([a, -b, -1]) if abs(x.imag) < 1e-12]
    x = b / (a - c)
    if c > 0 and 1 / c - x * x > 0:
        found += [x + 1j * np.sqrt(1 / c - x * x), x - 1j * np.sqrt(1 / c - x * x)]
    return np.sort_complex(np.round(found, 9))


@pytest.mark.parametrize(
    "kappa, gamma", [(0.3, 0.3), (0.45, 0.6), (0.55, 0.55), (0.0, 1.05), (1.6, 0.2), (0.5, 0.495)]
)
@pytest.mark.parametrize("b", [0.15, 0.7, 3.0])
def test_images_of_a_point_mass_in_any_background(kappa, gamma, b):
    lens = PointMass(1.0) + Shear(gamma, 0.0) + ConvergenceSheet(kappa)
    x, y = lens.image_positions(b, 0.0)
    found = np.sort_complex(np.round(x, 9) + 1j * np.round(y, 9))
    np.testing.assert_allclose(found, chang_refsdal(kappa, gamma, b), atol=3e-9)


@pytest.mark.parametrize("offset", [1e-2, 1e-4, 1e-6, 1e-8])
def test_source_next_to_the_axis_of_a_round_lens(offset):
    x, y = SIS(1.0).image_positions(0.6 * offset, 0.8 * offset)
    np.testing.assert_allclose(x, [0.6 * (1 + offset), -0.6 * (1 - offset)], atol=1e-9)
    np.testing.assert_allclose(y, [0.8 * (1 + offset), -0.8 * (1 - offset)], atol=1e-9)


@pytest.mark.parametrize("e", [1e-3, 1e-5, 1e-7])
def test_cross_of_a_nearly_round_lens(e):
    x, y = SIE(1.0, e).image_positions(0.0, 0.0)
    assert sorted(np.round(np.degrees(np.arctan2(y, x))).astype(int) % 360) == [0, 90, 180, 270]


@pytest.mark.parametrize(
    "lens, centre, radius",
    [
        (SIE(1.0), (0.0, 0.0), "1 arcsec"),
        (SIS(1.1, 0.3, -0.2), (0.3, -0.2), "1.1 arcsec"),
        (PointMass(0.7), (0.0, 0.0), "0.7 arcsec"),
        (EPL(1.3, 1.8), (0.0, 0.0), "1.3 arcsec"),
        (SIS(1.0) + ConvergenceSheet(0.2), (0.0, 0.0), "1.25 arcsec"),
        (NFW(5.0, 3.0), (0.0, 0.0), "2.67"),
    ],
)
def test_point_behind_a_round_lens_is_a_ring(lens, centre, radius):
    with pytest.raises(InputError, match=f"ring of radius {radius}"):
        lens.image_positions(*centre)


def test_focusing_sheet_has_no_list_of_images():
    with pytest.raises(InputError, match="all over the field"):
        ConvergenceSheet(1.0).image_positions(0.0, 0.0)


@pytest.mark.parametrize("distance", [1e-3, 1e-5, 1e-7])
def test_pair_at_a_fold(distance):
    [(x, y)] = QUAD.caustics()
    k = len(x) // 16
    tangent = np.array([x[k + 1] - x[k - 1], y[k + 1] - y[k - 1]])
    across = distance * np.array([-tangent[1], tangent[0]]) / np.hypot(*tangent)
    numbers = {
        sign: len(QUAD.image_positions(x[k] + sign * across[0], y[k] + sign * across[1])[0])
        for sign in (1, -1)
    }
    assert sorted(numbers.values()) == [2, 4]


def test_satellite_doubles_the_image_that_it_covers():
    # On the axis x - 1.2 - 0.003 sign(x - 3) = 1.8025, exactly.
    x, y = (SIS(1.2) + SIS(0.003, 3.0)).image_positions(1.8025, 0.0)
    np.testing.assert_allclose(sorted(x), [2.9995, 3.0055], atol=1e-10)
    np.testing.assert_allclose(y, 0, atol=1e-10)


def test_table_of_images():
    model = LensModel(QUAD_MODEL[0], z_lens=0.5, z_source=2.0, cosmo=FlatLambdaCDM(70, 0.3))
    table = QUAD.images(0.1 * u.arcsec, -0.05, z_lens=0.5, z_source=2.0, cosmology=FlatLambdaCDM(70, 0.3))
    x, y = table["x"].to_value(u.arcsec), table["y"].to_value(u.arcsec)
    np.testing.assert_array_equal((x, y), QUAD.image_positions(0.1, -0.05))
    np.testing.assert_allclose(table["magnification"], model.magnification(x, y, QUAD_MODEL[1]), rtol=1e-7)
    np.testing.assert_array_equal(table["parity"], np.sign(table["magnification"]))
    times = model.arrival_time(x, y, QUAD_MODEL[1])
    np.testing.assert_allclose(table["time_delay"].to_value(u.day), times - times.min(), rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(table["order"], np.argsort(np.argsort(times)) + 1)
    assert sorted(table["type"]) == ["minimum", "minimum", "saddle", "saddle"]


def test_maximum_in_the_centre_of_a_halo():
    table = NFW(5.0, 2.0).images(0.01, 0.0)
    assert set(table["type"]) == {"minimum", "saddle", "maximum"}
    assert table["order"][list(table["type"]).index("maximum")] == 3
    assert "time_delay" not in table.colnames


@pytest.mark.parametrize("source", [None, (0.1, -0.05)])
def test_time_delays_equal_lenstronomys(source):
    model = LensModel(QUAD_MODEL[0], z_lens=0.3, z_source=1.5, cosmo=FlatLambdaCDM(70, 0.3))
    # Observed positions, which do not map to one source.
    x, y = np.array([0.1, 1.0, 0.54, -1.05]), np.array([1.15, 0.68, -1.17, 0.02])
    behind = {} if source is None else {"x_source": source[0], "y_source": source[1]}
    theirs = model.arrival_time(x, y, QUAD_MODEL[1], **behind)
    kwargs = {"z_lens": 0.3, "z_source": 1.5, "cosmology": FlatLambdaCDM(70, 0.3), "source": source}
    for args in ((x, y), (x * u.arcsec, y * 1000 * u.mas), (torch.tensor(x), torch.tensor(y))):
        ours = QUAD.time_delays(*args, **kwargs).to_value(u.day)
        np.testing.assert_allclose(ours, theirs - theirs.min(), rtol=1e-6, atol=1e-9)


def test_fermat_potential_is_stationary_at_images():
    x, y = QUAD.image_positions(0.1, -0.05)
    x, y = torch.tensor(x, requires_grad=True), torch.tensor(y, requires_grad=True)
    source = torch.tensor(0.1), torch.tensor(-0.05)
    slopes = torch.autograd.grad(QUAD.fermat_potential(x, y, source=source).sum(), (x, y))
    assert max(slope.abs().max() for slope in slopes) < 1e-7


def test_fermat_potential_keeps_the_kind():
    assert QUAD.fermat_potential(1 * u.arcsec, 0.5, source=(100 * u.mas, 0.0)).unit == u.arcsec**2
    assert QUAD.fermat_potential([1.0, 2.0], 0.5).shape == (2,)


@pytest.mark.parametrize(
    "call, match",
    [
        (lambda: QUAD.images(0.1, 0.0, z_lens=0.5), "need both"),
        (lambda: QUAD.images([0.1, 0.2], 0.0), "one source position"),
        (lambda: QUAD.time_delays([1.0], [1.0], z_lens=2.0, z_source=0.5), "0 < z_lens < z_source"),
        (lambda: QUAD.cross_section(0), "n_images = 0"),
        (lambda: QUAD.cross_section(extent=-1.0), "extent = -1.0"),
        (lambda: QUAD.plot((np.nan, 0.0), ax=Figure().subplots()), "finite"),
    ],
)
def test_refused(call, match):
    with pytest.raises(InputError, match=match):
        call()


def test_plot():
    axes = Figure().subplots()
    assert QUAD.plot((0.1, -0.05), ax=axes) is axes
    labels = axes.get_legend_handles_labels()[1]
    assert labels == ["critical curves", "caustics", "source", "images"]
    assert len(axes.lines[-1].get_xdata()) == 4
    half = np.ptp(axes.get_xlim()) / 2
    assert 1.3 < half < 2.5 and np.ptp(axes.get_ylim()) == pytest.approx(2 * half)
    assert axes.images[0].get_array().shape == (300, 300)


@pytest.mark.slow
def test_plot_of_a_map_shows_all_of_it():
    y, x = np.mgrid[-20:21, -40:41] * 0.1
    axes = PixelatedDeflection(*SIE(1.0, 0.1).deflection(x, y), 0.1).plot(ax=Figure().subplots())
    assert axes.get_xlim() == (-4, 4) and axes.get_ylim() == (-2, 2)


def test_plot_by_default_goes_to_pyplots_axes():
    plt = pytest.importorskip("matplotlib.pyplot")
    axes = plt.figure().add_subplot()
    assert Shear(0.1, 0.0).plot() is axes
    plt.close()
