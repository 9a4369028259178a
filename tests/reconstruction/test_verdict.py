"""Every flag is raised beyond its threshold, and not before."""

import numpy as np
import pytest

from lenssr.reconstruction.measures import arc_pixels, lag_one
from lenssr.reconstruction.verdict import FLAGS, LOWER_IS_WORSE, is_ok, judge

MANY = 1_000_000
PLAIN = sorted(name for name in FLAGS if FLAGS[name].threshold is not None and not name.endswith("_chi2"))
SWITCHES = sorted(name for name in FLAGS if FLAGS[name].threshold is None)


@pytest.mark.parametrize("name", [*PLAIN, "low_chi2"])
def test_threshold(name):
    threshold = FLAGS[name].threshold
    below, above = (name,) if name in LOWER_IS_WORSE else (), () if name in LOWER_IS_WORSE else (name,)
    assert judge({name: 0.99 * threshold}) == below
    assert judge({name: 1.01 * threshold}) == above
    assert judge({name: threshold}) == ()
    assert judge({name: np.nan}) == (name,)


@pytest.mark.parametrize("name", ["bad_chi2", "bad_arc_chi2", "bad_field_chi2"])
def test_chi2_has_to_be_bad_and_significant(name):
    threshold = FLAGS[name].threshold
    assert judge({name: (threshold + 0.01, MANY)}) == (name,)
    assert judge({name: (threshold - 0.01, MANY)}) == ()
    # Of 50 pixels the chi2 scatters by 0.2.
    assert judge({name: (1.95, 50)}) == ()
    assert judge({name: (2.05, 50)}) == (name,)


@pytest.mark.parametrize("name", ["bad_chi2", "bad_arc_chi2", "bad_field_chi2"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_chi2_that_is_no_number_is_bad(name, value):
    assert judge({name: (value, 1000)}) == (name,)


@pytest.mark.parametrize("name", SWITCHES)
def test_switches(name):
    assert judge({name: True}) == (name,)
    assert judge({name: False}) == ()


@pytest.mark.parametrize("name", FLAGS)
def test_serious_flags_alone_make_it_not_ok(name):
    assert is_ok((name,)) is not FLAGS[name].serious
    assert is_ok(("unit_missing", name)) is not FLAGS[name].serious


def test_flags_come_in_the_order_of_the_list_and_once():
    flags = judge({"no_arcs": 1.0, "bad_chi2": (9.0, MANY)}, ("no_psf", "unit_missing", "no_arcs"))
    assert flags == ("bad_chi2", "no_arcs", "no_psf", "unit_missing")


def test_a_good_fit_has_no_flags():
    good = {
        "bad_chi2": (1.0, 5000),
        "bad_arc_chi2": (1.05, 300),
        "bad_field_chi2": (0.99, 4700),
        "source_off_grid": 3.5,
        "saturated": False,
        "low_chi2": 1.0,
        "residual_structure": 0.02,
        "not_converged": False,
        "starts_disagree": np.inf,
        "theta_E_uncertain": 0.001,
        "no_arcs": 300.0,
        "not_multiply_imaged": 50.0,
        "ring_unresolved": 20.0,
        "source_too_large": 0.2,
        "flux_disagrees": 0.0,
        "correlated_noise": 0.01,
        "errors_too_small": 1.0,
    }
    assert judge(good) == () and is_ok(())


def test_neighbours_of_white_noise_do_not_correlate(rng):
    pulls = rng.normal(size=(60, 60))
    assert abs(lag_one(pulls, np.ones((60, 60), dtype=bool))) < 0.05


def test_neighbours_of_smooth_residuals_correlate(rng):
    pulls = np.kron(rng.normal(size=(12, 12)), np.ones((5, 5)))
    region = np.ones(pulls.shape, dtype=bool)
    assert lag_one(pulls, region) == pytest.approx(0.8, abs=0.08)
    assert lag_one(pulls.T, region) == pytest.approx(lag_one(pulls, region))
    # A checkerboard is the opposite, and opposite edges are no neighbours.
    board = np.indices((6, 7)).sum(0) % 2 * 2.0 - 1
    assert lag_one(board, np.ones(board.shape, dtype=bool)) == pytest.approx(-1)
    edges = np.zeros((6, 7), dtype=bool)
    edges[[0, -1]] = True
    stripes = np.tile(np.arange(7) % 2 * 2.0 - 1, (6, 1))
    assert lag_one(stripes, edges) == pytest.approx(-1)


def test_a_region_without_neighbours_has_no_correlation():
    region = np.zeros((5, 5), dtype=bool)
    region[2, 2] = True
    assert lag_one(np.ones((5, 5)), region) == 0.0


def test_arcs_are_where_the_lensed_source_stands_out():
    source = np.array([[0.0, 0.29, 0.31, 5.0]])
    weight = np.array([[100.0, 100.0, 100.0, 0.0]])
    assert arc_pixels(source, weight).tolist() == [[False, False, True, False]]
