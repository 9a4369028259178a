"""The benchmark of lenses that lenstronomy renders as HST sees them: draws, truths, failures and counts."""

import importlib

import numpy as np
import pytest
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LensModel.lens_model_extensions import LensModelExtensions

from lenssr.imaging import Observation, measure_sky

pytestmark = pytest.mark.filterwarnings("ignore:`axes` should not be `None`:DeprecationWarning")


@pytest.fixture(scope="module")
def sample():
    return importlib.import_module("foreign_sample")


@pytest.fixture(scope="module")
def benchmark():
    return importlib.import_module("foreign_lenses")


@pytest.fixture(scope="module")
def lens(sample):
    """A small one with a satellite."""
    return sample.drawn("priors", 13)


def test_draws_repeat(sample, lens):
    again = sample.drawn("priors", 13)
    np.testing.assert_array_equal(again.image.data, lens.image.data)
    assert not np.array_equal(sample.drawn("priors", 13, seed=1).image.data, lens.image.data)


def test_signal_to_noise_is_that_of_the_arcs(lens):
    arcs = lens.flux * lens.scene.plane("source")
    variance = (lens.flux * lens.scene.plane("all") + 0.05) / 2000
    assert np.sqrt(np.sum(arcs**2 / variance)) == pytest.approx(lens.snr, rel=1e-4)


def test_noise_is_that_of_a_drizzled_image(sample):
    noise = sample.correlated_noise(np.random.default_rng(1), 1000)
    assert noise.std() == pytest.approx(1, abs=0.01)
    for neighbours in (noise[1:] * noise[:-1], noise[:, 1:] * noise[:, :-1]):
        assert neighbours.mean() == pytest.approx(0.3, abs=0.01)


def test_image_is_read_as_one_of_hst(lens):
    image = Observation.from_any(lens.image, psf=lens.psf)
    assert image.flags == ("errors_follow_counts",)
    assert image.pixel_scale == pytest.approx(0.05)
    assert image.psf_fwhm == pytest.approx(0.1, abs=0.01)
    assert measure_sky(image).lag1 == pytest.approx(0.3, abs=0.05)


def test_einstein_radius_is_the_area_of_lenstronomys_curve(lens):
    theta_E, e1, e2, x, y, gamma1, gamma2 = lens.scene.lens
    mass = {"theta_E": theta_E, "gamma": lens.scene.slope, "e1": e1, "e2": e2, "center_x": x, "center_y": y}
    shear = {"gamma1": gamma1, "gamma2": gamma2}
    [*_, x], [*_, y], *_ = LensModelExtensions(LensModel(["EPL", "SHEAR"])).critical_curve_caustics(
        [mass, shear], compute_window=4, grid_scale=0.01
    )
    area = abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2
    assert lens.scene.satellites
    assert lens.scene.main.einstein_radius().value == pytest.approx(np.sqrt(area / np.pi), rel=1e-3)


def test_groups(sample):
    """Kinds come in turn; what lenses nothing has no source, but something that might pass for arcs."""
    for group, kinds in sample.GROUPS.items():
        for number in range(len(kinds)):
            kind, scene, *_ = sample.scene_of(np.random.default_rng(1), group, number)
            assert kind == kinds[number]
            assert (group == "none") == (not scene.source)
            assert scene.source or scene.others


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("kind", ["as the priors", "misaligned", "flattened", "sheared"])
def test_lenses_are_as_their_kind_says(sample, kind, seed):
    scene, _ = sample.lensed(np.random.default_rng(seed), kind, 1.2, 120)
    mass, shear = scene.main[0], scene.main[1]
    (_, inner), (_, outer) = scene.light
    # The two profiles are turned by half a twist each way.
    angles = [np.exp(1j * np.arctan2(one["e2"], one["e1"])) for one in (inner, outer)]
    turn = np.angle(np.exp(1j * np.arctan2(mass.e2.value, mass.e1.value)) / sum(angles)) / 2
    assert (np.abs(np.degrees(turn)) > 15.001) == (kind == "misaligned")
    assert (0.12 <= np.hypot(shear.gamma1.value, shear.gamma2.value) <= 0.2) == (kind == "sheared")
    assert 0.55 <= mass.q + 1e-9 and 1.7 <= mass.gamma.value <= 2.3
    assert np.hypot(mass.x_0.value - inner["center_x"], mass.y_0.value - inner["center_y"]) <= 0.05
    if kind == "flattened":
        e = np.hypot(inner["e1"], inner["e2"])
        assert (1 - e) / (1 + e) - mass.q == pytest.approx(0.2)


def test_boxy_isophotes(sample):
    """A boxy profile is brighter than the elliptical one on its diagonals, and fainter on its axes."""
    lights = importlib.import_module("rendered_lenses").Lights(["CORE_SERSIC"])
    x, y = np.array([0.3, 0.0]), np.array([0.0, 0.3])
    diagonal = np.full(1, 0.3 / np.sqrt(2))
    (_, plain), (_, boxy) = (sample.cored(1.0, 0.3, 2.0, 1.0, 0.0, 0.0, 0.0, b) for b in (0.0, -0.02))
    for place, factor in (((x, y), 0.98), ((diagonal, diagonal), 1.02)):
        moved = [axis / factor for axis in place]
        brightness = lights.surface_brightness(*place, [boxy])
        np.testing.assert_allclose(brightness, lights.surface_brightness(*moved, [plain]), rtol=1e-9)


def test_a_row(benchmark, capsys):
    """Of a fit that fails, and of one that does not; the second is a fit with a Sérsic, for its speed."""
    row = benchmark.row_of("priors", 13, 0, "sie", "no such source", ["sersic"])
    assert len(row.cells) == len(benchmark.COLUMNS)
    assert not row.ok and not row.right and "no such source" in row.cells[10]
    row = benchmark.row_of("priors", 13, 0, "sie", "sersic", ["sersic"])
    assert len(row.cells) == len(benchmark.COLUMNS)
    assert row.ratio == pytest.approx(1, abs=0.1) and abs(row.gap) < 5
    assert {name: len(offs) for name, offs in row.off.items()} == {"R_E": 1, "q": 1, "shear": 2}
    assert capsys.readouterr().err.count("priors 13 | as the priors | satellite | 59 | ") == 2


def test_counts(benchmark):
    def row(group, ratio, ok, off=0.5, gap=-1.0):
        offs = {"R_E": [off], "q": [0.1], "shear": [0.5, -3.0]}
        return benchmark.Row(group, (), ok, ratio, offs, gap, 10.0)

    failed, unlensed = benchmark.Row("against", (), False), benchmark.Row("none", (), True)
    rows = [row("priors", 1.01, True), row("priors", 1.03, True, 2.0), row("against", 0.99, False)]
    assert dict(benchmark.summary([*rows, failed, unlensed])) == {
        "as the priors: R_E within 2%": "1 of 2 (50%)",
        "as the priors: image less known lens, median dB": "-1.0",
        "against one: R_E within 2%": "1 of 2 (50%)",
        "against one: image less known lens, median dB": "-1.0",
        "68 % intervals that hold R_E": "2 of 3 (67%)",
        "68 % intervals that hold q": "3 of 3 (100%)",
        "68 % intervals that hold shear": "3 of 6 (50%)",
        "ok and right": "1 of 4 (25%)",
        "ok and wrong": "1 of 4 (25%)",
        "right, but not ok": "1 of 4 (25%)",
        "no lens, but ok": "1 of 1 (100%)",
        "seconds, median": "10",
        "seconds, worst": "10",
    }
