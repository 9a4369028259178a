"""Draws with weights: their quantiles, tables and corner plots."""

import astropy.units as u
import numpy as np
import pytest
from matplotlib.figure import Figure

from lenssr.exceptions import InputError
from lenssr.posterior import PosteriorDraws

NAMES, UNITS = ("lens.theta_E", "lens.e1", "sky"), ("arcsec", "", "electron / s")


def make(weights=None, count=400, **changes):
    values = np.random.default_rng(0).normal([1.2, 0.1, 0.0], [0.01, 0.05, 1.0], (count, 3))
    parts = {
        "names": NAMES,
        "values": values,
        "units": UNITS,
        "method": "psis",
        "weights": weights,
        **changes,
    }
    return PosteriorDraws(**parts)


def test_quantiles_are_those_of_numpy_for_equal_weights():
    draws = make()
    for share in (0.16, 0.5, 0.9):
        expected = np.quantile(draws.values[:, 0], share, method="hazen")
        assert draws.quantile("lens.theta_E", share).to_value(u.arcsec) == pytest.approx(expected)


def test_integer_weights_are_repeated_draws():
    repeats = np.random.default_rng(1).integers(1, 5, 400)
    weighted, repeated = make(repeats), np.repeat(make().values, repeats, axis=0)
    np.testing.assert_allclose(weighted.summary["mean"], repeated.mean(0))
    np.testing.assert_allclose(weighted.summary["std"], repeated.std(0))
    assert weighted.quantile("sky", 0.5).value == pytest.approx(np.median(repeated[:, 2]), abs=0.02)


def test_the_effective_size_is_kishs():
    weights = np.random.default_rng(1).exponential(size=400)
    assert make(weights).effective_size == pytest.approx(weights.sum() ** 2 / (weights**2).sum())


def test_resampled_draws_have_no_weights_and_the_same_mean():
    draws = make(np.random.default_rng(1).exponential(size=400))
    again = draws.resampled(20000, seed=3)
    np.testing.assert_allclose(again.weights, 1 / 20000)
    np.testing.assert_allclose(again.values.mean(0), draws.summary["mean"], atol=0.03)


def test_the_table_has_units_and_weights():
    table = make().table
    assert table.colnames == [*NAMES, "weight"]
    assert table["lens.theta_E"].unit == u.arcsec and table.meta["method"] == "psis"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": [1.0]}, "weights of shape"),
        ({"weights": -np.ones(400)}, "give one each, 0 or more"),
        ({"names": ("a",)}, "with 1 names and 3 units"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        make(**changes)


def test_a_name_that_is_not_free_is_refused():
    with pytest.raises(InputError, match="'lens.q' is not a free parameter: give one of lens.theta_E"):
        make()["lens.q"]


def test_a_corner_plot_with_the_truth_and_other_draws(tmp_path):
    draws, path = make(), tmp_path / "corner.png"
    figure = draws.corner(
        truth={"lens.theta_E": 1200 * u.mas}, others={"again": make(count=300)}, label="first", path=path
    )
    assert isinstance(figure, Figure) and path.stat().st_size > 5000
    assert len(figure.axes) == 4  # the two parameters of the lens
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["first", "again", "truth"]
    lines = [line.get_xdata()[0] for line in figure.axes[0].lines]
    assert 1.2 in [pytest.approx(x) for x in lines]
    assert figure.axes[2].get_xlabel() == r"$\theta_\mathrm{E}$ [arcsec]"


def test_a_corner_plot_of_chosen_parameters():
    assert len(make().corner(["sky"]).axes) == 1
    with pytest.raises(InputError, match="truth of 'lens.q'"):
        make().corner(truth={"lens.q": 1.0})
    with pytest.raises(InputError, match="is not a free parameter"):
        make().corner(["lens.q"])
