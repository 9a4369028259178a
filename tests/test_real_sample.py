"""The benchmark of real lenses: published models, angles against the WCS, failures and counts."""

import importlib
import json

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LensModel.lens_model_extensions import LensModelExtensions
from PIL import Image

from lenssr import Sersic, SuperResolver, render
from lenssr.grids import PixelGrid
from lenssr.imaging import PSF
from lenssr.mass import SIE

ENTRY = {
    "bands": ["F475X", "F814W"],
    "theta_E": [1.2, 0.01, 0.01],
    "gamma": [2.2, 0.1, 0.1],
    "q": [0.7, 0.02, 0.02],
    "pa": [25.0, 2.0, 2.0],
    "shear": [0.08, 0.01, 0.01],
    "shear_pa": [-40.0, 5.0, 5.0],
}


@pytest.fixture(scope="module")
def sample():
    return importlib.import_module("real_sample")


@pytest.mark.parametrize(
    "bands, chosen",
    [
        (["F390W", "F435W", "F555W", "F814W"], "F555W"),
        (["F435W", "F606W", "F814W"], "F606W"),
        (["F475X", "F600LP"], "F475X"),
        (["F814W"], "F814W"),
    ],
)
def test_band(sample, bands, chosen):
    assert sample.band_of(bands) == chosen


def test_published_radius_is_the_area_of_lenstronomys_curve(sample):
    angle, along = np.radians(25), np.radians(-40)
    modulus = 0.3 / 1.7
    mass = {"theta_E": 1.2, "gamma": 2.2, "center_x": 0.0, "center_y": 0.0}
    mass |= {"e1": modulus * np.cos(2 * angle), "e2": modulus * np.sin(2 * angle)}
    shear = {"gamma1": 0.08 * np.cos(2 * along), "gamma2": 0.08 * np.sin(2 * along)}
    [*_, x], [*_, y], *_ = LensModelExtensions(LensModel(["EPL", "SHEAR"])).critical_curve_caustics(
        [mass, shear], compute_window=5, grid_scale=0.02
    )
    area = abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2
    found = sample.published_lens(ENTRY).einstein_radius().value
    assert found == pytest.approx(np.sqrt(area / np.pi), rel=1e-3)


@pytest.mark.parametrize("turn", [0, 35, -110])
@pytest.mark.parametrize("east", [-1, 1], ids=["east left", "east right"])
def test_angles_are_those_on_the_sky(sample, turn, east):
    """A mass along 25 degrees from east to north, seen in images of any rotation and parity."""
    cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    matrix = np.diag([east, 1]) @ [[cos, -sin], [sin, cos]]
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.cd = ["RA---TAN", "DEC--TAN"], matrix * 0.05 / 3600
    wcs.wcs.set()
    on_sky = np.cos(np.radians(25)), np.sin(np.radians(25))
    x, y = np.linalg.solve(matrix, on_sky)
    mass = SIE.from_q_phi(1.0, q=0.7, phi=np.arctan2(y, x) * u.rad)
    assert sample.angle_off(mass, wcs, 25.0) == pytest.approx(0, abs=1e-6)
    assert sample.angle_off(mass, wcs, 35.0) == pytest.approx(10, abs=1e-6)


def test_a_failure_is_a_row(sample, tmp_path, capsys):
    row = sample.row_of(0, "J0000", tmp_path, ENTRY, {"source": "sersic", "lens_light": ["sersic"]})
    assert len(row.cells) == len(sample.COLUMNS)
    assert row.cells[:2] == ("J0000", "F475X")
    assert row.grade == row.cells[-3] == "failed" and np.isnan(row.ratio)
    assert "J0000_F475X.fits" in row.cells[-2]
    assert capsys.readouterr().err.startswith("J0000 | F475X | 1.2")


def test_hints_are_a_tenth_off_in_turn(sample):
    told = [sample.hints_of(number, 1.5) for number in range(2)]
    assert [one["theta_E"].to_value("arcsec") for one in told] == pytest.approx([1.65, 1.35])
    assert [one["radius"].to_value("arcsec") for one in told] == pytest.approx([2.55] * 2)


def test_counts(sample):
    ratios = [1.01, 0.96, 1.07, 1.4, 0.5, np.nan]
    grades = ["secure", "doubtful", "secure", "probable", "doubtful", "failed"]
    off = [(0.1, -0.02), (-0.2, 0.04), *[(0.9, 0.9)] * 4]
    rows = [
        sample.Row((), *case) for case in zip(ratios, off, grades, [10, 20, 30, 40, 50, 600], strict=True)
    ]
    assert dict(sample.summary(rows)) == {
        "lenses": 6,
        "R_E within 5 %": 2,
        "R_E within 10 %": 3,
        "graded secure": 2,
        "secure, and wrong by more than 5 %": 1,
        "ok: secure or probable": 3,
        "ok, and wrong by more than 5 %": 2,
        "mean absolute difference of q, shear": "0.15, 0.03",
        "seconds, median": "35",
        "seconds, worst": "600",
    }


def test_published_angles_run_along_the_light(sample, real_data):
    """They run from east to north; from north to east they would be off from the light of most lenses."""
    folder = real_data / "real_lenses"
    published = json.loads((folder / "published.json").read_text())
    off = []
    for name, entry in published.items():
        with fits.open(folder / f"{name}_{sample.band_of(entry['bands'])}.fits") as hdus:
            wcs, image = WCS(hdus["SCI"].header), hdus["SCI"].data.astype(float)
        scale = np.sqrt(abs(np.linalg.det(wcs.pixel_scale_matrix))) * 3600
        y, x = (np.indices(image.shape) - np.reshape(image.shape, (2, 1, 1)) / 2 + 0.5) * scale
        weight = np.maximum(image, 0) * np.exp(-(x**2 + y**2) / 0.25)
        middle = [np.average(axis, weights=weight) for axis in (x, y)]
        x, y = x - middle[0], y - middle[1]
        weight = np.maximum(image, 0) * np.exp(-(x**2 + y**2) / 0.25)
        xx, yy, xy = (np.average(product, weights=weight) for product in (x * x, y * y, x * y))
        if entry["q"][0] < 0.8:
            light = SIE.from_q_phi(1.0, q=0.7, phi=np.arctan2(2 * xy, xx - yy) / 2 * u.rad)
            off.append(abs(sample.angle_off(light, wcs, entry["pa"][0])))
    assert len(off) > 10 and np.median(off) < 10


def test_a_lens_is_drawn(sample, tmp_path):
    image = render(
        PixelGrid((24, 24), 0.1),
        lens=SIE(0.7),
        source=Sersic(5.0, 0.15, 1.0, x_0=0.05, y_0=0.0),
        psf=PSF.from_fwhm(0.15 * u.arcsec),
    )
    noisy = np.asarray(getattr(image, "value", image)) + np.random.default_rng(1).normal(0, 0.01, (24, 24))
    resolver = SuperResolver(source="sersic", lens=SIE(0.7), psf=0.15 * u.arcsec)
    sample.draw(resolver(noisy, pixel_scale=0.1, noise=0.01), tmp_path / "lens.jpg", "title")
    with Image.open(tmp_path / "lens.jpg") as picture:
        assert picture.format == "JPEG" and picture.width > 800
