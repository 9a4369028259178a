"""The figure of a result."""

import os

import numpy as np
import pytest
from astropy.table import Table

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


@pytest.mark.parametrize("stretched", [(0.5, 0.0), (0.75, 0.0)])
def test_source_panel_has_room_for_the_caustics(make, panels, stretched):
    wide = make(lens=SIE(1.1, *stretched))
    axes = panels(wide.plot())["source"]
    x, y = np.concatenate([np.transpose(curve) for curve in wide.lens.caustics(1.44)]).T
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


def test_masked_pixels_are_left_out_of_the_residual(result, figure, panels):
    shown = panels(figure)["residual"].images[0].get_array()
    np.testing.assert_array_equal(np.ma.getmaskarray(shown), result.data.mask)


def test_masks_are_outlined_over_the_data(result, figure, panels):
    axes = panels(figure)["data"]
    assert not np.ma.getmaskarray(axes.images[0].get_array()).any()
    segments = np.concatenate(axes.collections[0].get_segments())
    # Rows 2 to 6 and columns 25 to 31 of pixels of 0.08", from edges at -1.44" and -1.24".
    assert segments.min(axis=0) == pytest.approx([25 * 0.08 - 1.44, 2 * 0.08 - 1.24])
    assert segments.max(axis=0) == pytest.approx([32 * 0.08 - 1.44, 7 * 0.08 - 1.24])
    assert len(axes.collections[0].get_segments()) == 2 * (5 + 7)


def test_colour_bars_have_units(figure, panels):
    labels = [axes.child_axes[0].get_ylabel() for axes in panels(figure).values()]
    rate, brightness = r"$\mathrm{e^{-}\,s^{-1}}$", r"$\mathrm{e^{-}\,s^{-1}\,arcsec^{-2}}$"
    assert labels == [rate, rate, r"$\sigma$", rate, brightness]


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


def test_columns_of_the_parameters_stand_apart(make):
    """Also where names and components are long."""
    names = [f"flux_{k}_{number}" for number in range(2) for k in range(6)]
    columns = {
        "component": "lens_light",
        "value": 12345.6,
        "error": 0.123,
        "unit": "electron",
        "fixed": False,
    }
    parameters = Table({"name": names} | {name: [value] * len(names) for name, value in columns.items()})
    figure = make(parameters=parameters).plot(panels=["verdict"])
    figure.canvas.draw()
    rows = {}
    for text in figure.axes[0].texts:
        rows.setdefault(round(text.get_position()[1], 6), []).append(text.get_window_extent())
    rows = [sorted(boxes, key=lambda box: box.x0) for boxes in rows.values() if len(boxes) == 3]
    assert len(rows) > 10
    for boxes in rows:
        assert all(
            left.x1 + 3 < right.x0 for left, right in zip(boxes[:-1], boxes[1:], strict=True) if left.width
        )


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


def test_panels_are_drawn_in_the_order_asked_for(result):
    figure = result.plot(panels=["residual", "lens_light", "data", "source_error"])
    titles = [axes.get_title(loc="left").split(",")[0] for axes in figure.axes]
    assert titles == ["residual", "lens light", "data", "error of the source"]
    assert result.plot(panels=["data", "source"], columns=1).axes[1].get_subplotspec().rowspan.start == 1


def test_a_figure_without_the_verdict_names_lens_and_band_alone(make):
    result = make(meta=make().meta | {"OBJECT": "a lens", "filter": "F475X"})
    assert result.plot(panels=["data", "source"]).get_suptitle() == "a lens, F475X"
    assert result.plot().get_suptitle().startswith("a lens, F475X     reduced")


def test_one_panel_goes_into_axes(make):
    from matplotlib.figure import Figure

    result = make(meta=make().meta | {"OBJECT": "a lens", "filter": "F475X"})
    axes = Figure().subplots()
    assert result.plot_panel("source", ax=axes) is axes
    assert axes.get_title(loc="left") == "a lens, F475X: source, not lensed (model)"
    assert len(axes.child_axes) == 1
    assert not result.plot_panel("source", colorbar=False).child_axes


def test_unknown_panels_are_refused(result):
    with pytest.raises(InputError, match="no panel 'sauce': give some of data, lens_subtracted, model"):
        result.plot(panels=["data", "sauce"])
    with pytest.raises(InputError, match="no panels are asked for"):
        result.plot(panels=[])
    with pytest.raises(InputError, match="no panel 'sauce': give one of data"):
        result.plot_panel("sauce")
    with pytest.raises(InputError, match="columns"):
        result.plot(columns=0)


def test_data_less_lens_light_are_the_arcs_and_the_noise(solve):
    result = solve("sersic", lens=solve.lens, fit_lens=False, lens_light="sersic")
    shown = result.plot_panel("lens_subtracted").images[0].get_array()
    fine = result.lensed_source.data.reshape(32, 2, 32, 2).sum((1, 3))
    np.testing.assert_allclose(shown, result.residual.data + fine, atol=1e-9)


def test_what_a_run_does_not_have_is_said(result, solve):
    assert "models no lens light" in result.plot_panel("lens_subtracted").texts[0].get_text()
    plain = solve("interpolation")
    for name in ("source", "source_error", "lensed_source", "lens_light", "lens_subtracted"):
        axes = plain.plot_panel(name)
        assert axes.texts[0].get_text().startswith("no ")
        assert not axes.images


def test_north_and_length_are_marked_once_in_each_plane(figure, panels):
    marked = [name for name, axes in panels(figure).items() if {"N", "E"} <= _words(axes)]
    assert marked == ["data", "source"]
    assert '0.5"' in _words(panels(figure)["data"])
    bar = panels(figure)["data"].lines[0].get_xdata()
    assert bar[1] - bar[0] == pytest.approx(0.5)


def _words(axes):
    return {text.get_text() for text in axes.texts}


def test_names_are_symbols(figure):
    words = {text.get_text() for text in figure.axes[5].texts}
    assert {r"$\theta_\mathrm{E}$", r"$r_\mathrm{eff}$"} <= words
    assert not {"theta_E", "theta_E_0"} & words


@pytest.mark.parametrize("suffix", ["pdf", "svg"])
def test_vector_files_are_small(make, tmp_path, suffix):
    """All panels of an image of 260 x 260 fine pixels, in less than a megabyte."""
    result = make(shape=(130, 130), scale=0.04)
    path = tmp_path / f"out.{suffix}"
    result.plot(panels=["data", "lensed_source", "model", "residual", "image", "source"], path=path)
    assert 20_000 < path.stat().st_size < 1_000_000


def test_flat_and_masked_images_are_drawn(plane, make):
    flat = plane(np.zeros((8, 8)), 0.08, mask=np.ones((8, 8), bool))
    make(shape=(8, 8), data=flat).plot()
