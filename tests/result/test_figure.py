"""The figure of a result."""

import os

import numpy as np
import pytest

from lenssr.exceptions import InputError
from lenssr.mass import SIE


@pytest.fixture(scope="module")
def figure(result):
    return result.plot()


def test_figure_has_five_panels(figure, panels):
    assert list(panels(figure)) == ["data", "model", "residual", "super-resolved model", "source"]


def test_panels_are_in_arcsec(figure, panels):
    shown = panels(figure)["data"].images[0]
    np.testing.assert_allclose(shown.get_extent(), (-1.44, 1.44, -1.24, 1.24))
    assert shown.origin == "lower"
    for axes in panels(figure).values():
        assert axes.get_aspect() == 1.0
        assert axes.get_xlabel() == "x (arcsec)"


def test_source_panel_is_where_the_source_is(figure, panels):
    extent = panels(figure)["source"].images[0].get_extent()
    np.testing.assert_allclose(extent, (0.05 - 0.55, 0.05 + 0.55, -0.08 - 0.5, -0.08 + 0.5))


def test_source_panel_has_room_for_the_caustics(make, panels):
    wide = make(lens=SIE(1.1, 0.5, 0.0))
    axes = panels(wide.plot())["source"]
    x, y = np.concatenate([np.transpose(line.get_data()) for line in axes.lines]).T
    assert max(abs(x)) > 0.6
    for values, limits in ((x, axes.get_xlim()), (y, axes.get_ylim())):
        assert limits[0] < min(values)
        assert max(values) < limits[1]


def test_data_and_model_share_their_stretch(figure, panels):
    limits = [panels(figure)[name].images[0].get_clim() for name in ("data", "model")]
    assert limits[0] == limits[1]


def test_residual_is_in_sigma(result, figure, panels):
    shown = panels(figure)["residual"].images[0]
    assert shown.get_clim() == (-5, 5)
    good = ~result.data.mask
    np.testing.assert_allclose(shown.get_array()[good], (result.residual.data / 0.02)[good])


@pytest.mark.parametrize("name", ["data", "residual"])
def test_masked_pixels_are_left_out(result, figure, name, panels):
    shown = panels(figure)[name].images[0].get_array()
    np.testing.assert_array_equal(np.ma.getmaskarray(shown), result.data.mask)


def test_colour_bars_have_units(figure, panels):
    labels = [axes.child_axes[0].get_ylabel() for axes in panels(figure).values()]
    assert labels == ["electron / s", "electron / s", "sigma", "electron / s", "electron / (s arcsec2)"]


def test_curves_lie_where_the_lens_puts_them(result, figure, panels):
    lines = panels(figure)["super-resolved model"].lines
    x, y = np.concatenate([np.transpose(line.get_data()) for line in lines]).T
    assert len(x) > 50
    assert np.median(np.abs(1 / result.lens.magnification(x, y))) < 0.02
    assert panels(figure)["source"].lines


def test_title_says_how_good(figure):
    title = figure.get_suptitle()
    assert "chi^2" in title
    assert "1.2000 ± 0.0012" in title


@pytest.mark.parametrize("suffix", ["png", "pdf"])
def test_plot_is_saved(result, tmp_path, suffix):
    result.plot(path=tmp_path / f"out.{suffix}")
    assert os.listdir(tmp_path) == [f"out.{suffix}"]


def test_plot_of_another_suffix_is_refused(result, tmp_path):
    with pytest.raises(InputError, match=r"end its name in \.png"):
        result.plot(path=tmp_path / "out.fits")


def test_plot_into_a_figure(result, panels):
    from matplotlib.figure import Figure

    given = Figure()
    assert result.plot(figure=given) is given
    assert len(panels(given)) == 5


def test_flat_and_masked_images_are_drawn(plane, make):
    flat = plane(np.zeros((8, 8)), 0.08, mask=np.ones((8, 8), bool))
    make(shape=(8, 8), data=flat).plot()
