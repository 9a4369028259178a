"""`SersicPhotometry`: its fits, and the table that they make."""

import inspect

import astropy.units as u
import numpy as np
import pytest
from astropy.modeling.models import Sersic2D
from astropy.table import QTable
from scipy.signal import fftconvolve

from lenssr import PixelGrid, Sersic, SersicPhotometry, render
from lenssr.exceptions import InputError
from lenssr.imaging.observation import Reading
from lenssr.photometry.task_batch import TaskBatch

FWHM, SIGMA = 2.5, 0.02
TRUTH = {"amplitude": 1.0, "r_eff": 4.0, "n": 1.5, "x": 20.3, "y": 19.6, "ellip": 0.3, "theta": 35.0}
HERE = {"x": [20.0], "y": [20.0]}
OPTIONS = {"psf": FWHM * u.pix, "fit_shape": 41}


def value(table, name, row=0):
    return float(u.Quantity(table[name][row]).value)


def agree(table, truth, row=0, sigma=4.0):
    """Names of the parameters that are not the true ones."""
    wrong = []
    for name, true in truth.items():
        error = value(table, f"{name}_err", row)
        if not (0 < error and abs(value(table, name, row) - true) < sigma * error):
            wrong.append((name, value(table, name, row), true, error))
    return wrong


@pytest.fixture(scope="module")
def image(galaxy, noisy):
    return noisy(galaxy() + 0.1)


@pytest.fixture(scope="module")
def fitted(image):
    phot = SersicPhotometry(**OPTIONS)
    return phot, phot(image, error=SIGMA, init_params=HERE)


def test_parameters_are_found_within_their_errors(fitted):
    assert not agree(fitted[1], TRUTH | {"sky": 0.1})
    for name, true in TRUTH.items():
        assert value(fitted[1], f"{name}_err") < 0.1 * max(abs(true), 0.5)


def test_flux_is_that_of_the_whole_profile(fitted):
    truth = Sersic.from_sersic2d(Sersic2D(1.0, 4.0, 1.5, ellip=0.3)).flux
    assert not agree(fitted[1], {"flux": truth})


def test_a_good_fit_is_converged_and_unflagged(fitted, galaxy):
    row = fitted[1][0]
    assert row["flags"] == 0
    assert 0.9 < row["reduced_chi2"] < 1.1
    assert row["n_pixels"] == 41 * 41
    assert row["snr"] == pytest.approx(np.sqrt((galaxy() ** 2).sum()) / SIGMA, rel=0.02)


def test_the_meta_says_what_was_done(fitted):
    meta = fitted[1].meta
    assert set(meta["versions"]) >= {"lenssr", "astropy", "torch"}
    assert meta["settings"]["fit_shape"] == (41, 41)


def test_the_table_survives_a_file(fitted, tmp_path):
    fitted[1].write(tmp_path / "table.ecsv")
    again = QTable.read(tmp_path / "table.ecsv")
    assert again["r_eff"].unit == u.pix
    assert again["flux"][0] == fitted[1]["flux"][0]


def test_models_are_in_pixels_of_the_image(fitted):
    model = fitted[0].models[0]
    assert isinstance(model, Sersic2D)
    assert float(model.x_0.value) == pytest.approx(TRUTH["x"], abs=0.05)
    assert model.r_eff.std == pytest.approx(value(fitted[1], "r_eff_err"))


def test_residuals_are_noise(fitted, image):
    left = fitted[0].make_residual_image(image, include_sky=True) / SIGMA
    assert abs(left.mean()) < 0.1
    assert abs(left.std() - 1) < 0.06


def test_fit_info_names_what_it_holds(fitted):
    info = fitted[0].fit_info[0]
    assert info["converged"]
    assert info["covariance"].shape == (len(info["parameters"]),) * 2
    assert info["parameters"][-1] == "sky"


@pytest.mark.parametrize("method", ["__call__", "map"])
def test_keywords_are_in_the_signature(method):
    """What `Observation.from_any` takes beside noise, PSF and mask; nothing hides behind two stars."""
    parameters = inspect.signature(getattr(SersicPhotometry, method)).parameters
    assert not [one for one in parameters.values() if one.kind is one.VAR_KEYWORD]
    assert set(Reading.__annotations__) <= set(parameters)


def test_nothing_fitted_yet_is_said():
    with pytest.raises(InputError, match="nothing has been fitted"):
        SersicPhotometry().models  # noqa: B018 - asking is what fails


def test_many_cutouts_are_one_table(image, fitted, galaxy, noisy):
    phot = SersicPhotometry(**OPTIONS)
    other = noisy(galaxy(n=0.8, x=19.0), seed=2)
    table = phot.map([image, other], error=SIGMA, init_params=HERE)
    assert list(table["image"]) == [0, 1]
    assert value(table, "n") == pytest.approx(value(fitted[1], "n"), rel=1e-4)
    assert not agree(table, TRUTH | {"n": 0.8, "x": 19.0}, row=1)
    left = phot.make_residual_image(other, image=1, include_sky=True)
    assert left.std() < 1.1 * SIGMA


def test_bands_share_their_shape(image, galaxy, noisy):
    phot = SersicPhotometry(**OPTIONS)
    images = {"g": image, "r": noisy(3 * galaxy() + 0.3, seed=3)}
    table = phot(images, error={"g": SIGMA, "r": SIGMA}, init_params=HERE)
    truth = {name: true for name, true in TRUTH.items() if name != "amplitude"}
    assert not agree(table, truth | {"amplitude_g": 1.0, "amplitude_r": 3.0, "sky_g": 0.1, "sky_r": 0.3})
    alone = SersicPhotometry(**OPTIONS)(image, error=SIGMA, init_params=HERE)
    assert value(table, "r_eff_err") < 0.5 * value(alone, "r_eff_err")
    assert set(phot.models[0]) == {"g", "r"}
    assert np.std(phot.make_residual_image(images["r"], band="r", include_sky=True)) < 1.1 * SIGMA


def test_a_bulge_and_a_disc_are_told_apart(galaxy, noisy):
    bulge, disc = {"r_eff": 2.0, "n": 2.5}, {"r_eff": 7.0, "n": 1.0, "amplitude": 0.3, "ellip": 0.5}
    light = galaxy((61, 61), **bulge) + galaxy((61, 61), **disc)
    phot = SersicPhotometry(psf=FWHM * u.pix, fit_shape=61, n_components=2)
    table = phot(noisy(light, 0.002), error=0.002, init_params=HERE)
    truth = {f"{name}_0": v for name, v in bulge.items()} | {"r_eff_1": 7.0, "ellip_1": 0.5}
    assert not agree(table, truth)
    assert value(table, "n_1") == 1.0
    parts = [Sersic.from_sersic2d(Sersic2D(*p)).flux for p in ((1.0, 2.0, 2.5), (0.3, 7.0, 1.0))]
    total = parts[0] * 0.7 + parts[1] * 0.5
    assert not agree(table, {"flux": total})


def test_neighbours_are_fitted_together(galaxy, noisy):
    light = galaxy((70, 70), x=28.0, y=36.0) + galaxy((70, 70), x=42.2, y=39.0, n=1.0, theta=100.0)
    table = SersicPhotometry(**OPTIONS)(
        noisy(light), error=SIGMA, init_params={"x": [28, 42], "y": [36, 39], "id": [7, 9]}
    )
    assert list(table["id"]) == [7, 9]
    assert list(table["group_size"]) == [2, 2]
    assert not agree(table, TRUTH | {"x": 28.0, "y": 36.0})
    assert not agree(table, TRUTH | {"x": 42.2, "y": 39.0, "n": 1.0, "theta": 100.0}, row=1)


@pytest.mark.parametrize("loss", ["huber", "cauchy"])
def test_a_robust_loss_shrugs_off_bad_pixels(image, loss):
    rng = np.random.default_rng(5)
    bad = image.copy()
    bad[tuple(rng.integers(0, 41, (2, 40)))] += rng.exponential(1, 40)
    plain = SersicPhotometry(**OPTIONS)(bad, error=SIGMA, init_params=HERE)
    robust = SersicPhotometry(**OPTIONS, loss=loss)(bad, error=SIGMA, init_params=HERE)
    assert agree(plain, TRUTH)
    assert not agree(robust, TRUTH)


def test_photon_noise_follows_the_model(galaxy):
    from lenssr.imaging import PoissonNoise

    light, rng = galaxy() * 200 + 20, np.random.default_rng(4)
    counts = rng.poisson(light) + rng.normal(0, 2, light.shape)
    table = SersicPhotometry(**OPTIONS)(counts * u.electron, error=PoissonNoise(1.0, 2.0), init_params=HERE)
    assert not agree(table, TRUTH | {"amplitude": 200.0, "sky": 20.0})
    assert abs(table["reduced_chi2"][0] - 1) < 0.15


def test_a_better_minimum_that_the_intervals_come_across_becomes_the_fit(image, monkeypatch):
    phot = SersicPhotometry(**OPTIONS, intervals="profile")
    expected = phot(image, error=SIGMA, init_params=HERE)
    usual = TaskBatch.minimise

    def lame(self, *args, rough=False, **kwargs):
        """Whatever is rough gets no farther than a step; what comes after the intervals does."""
        return usual(self, *args, rough=rough, **(kwargs | {"max_iterations": 1} if rough else kwargs))

    monkeypatch.setattr(TaskBatch, "minimise", lame)
    monkeypatch.setattr("lenssr.photometry.solve._BatchFit._sharpen", lambda self: None)
    found = phot(image, error=SIGMA, init_params=HERE)
    for name in ("x", "flux", "r_eff", "n", "ellip", "n_lower", "n_upper", "flux_lower", "flux_upper"):
        error = value(expected, name.removesuffix("_lower").removesuffix("_upper") + "_err")
        assert value(found, name) == pytest.approx(value(expected, name), abs=0.1 * error)


@pytest.mark.parametrize("x, fit_shape", [(1.3, 61), (20.3, 21)])
def test_light_from_beyond_the_edge_is_in_the_model(x, fit_shape, noisy):
    """A galaxy at the edge of the image, and one larger than its stamp; scipy convolves a wide frame."""
    rim, parts, shape = 15, 9, (41, 41)
    places = (np.arange((41 + 2 * rim) * parts) + 0.5) / parts - 0.5 - rim
    model = Sersic2D(1.0, 4.0, 1.5, x, 19.6, ellip=0.3, theta=np.radians(35))
    fine = model(*np.meshgrid(places, places)) / parts**2
    spread = np.arange(-6 * parts, 6 * parts + 1) / parts
    line = np.exp(-4 * np.log(2) * (spread / FWHM) ** 2)
    blurred = fftconvolve(fine, np.outer(line, line) / line.sum() ** 2, mode="same")
    wide = blurred.reshape(41 + 2 * rim, parts, 41 + 2 * rim, parts).sum((1, 3))
    image = noisy(wide[rim:-rim, rim:-rim] + 0.1)
    assert image.shape == shape
    table = SersicPhotometry(psf=FWHM * u.pix, fit_shape=fit_shape)(
        image, error=SIGMA, init_params={"x": [round(x)], "y": [20.0]}
    )
    truth = TRUTH | {"x": x, "sky": 0.1, "flux": Sersic.from_sersic2d(model).flux}
    assert not agree(table, truth, sigma=3.0)


def test_stages_are_logged(image, caplog):
    caplog.set_level("DEBUG", logger="lenssr")
    SersicPhotometry(**OPTIONS)(image, error=SIGMA, init_params=HERE)
    assert "1 galaxies in 1 groups" in caplog.messages


def test_a_bar_counts_the_fits(image, capsys):
    SersicPhotometry(**OPTIONS, progress_bar=True)(image)
    assert "fits: 100%" in capsys.readouterr().err
    SersicPhotometry(**OPTIONS)(image)
    assert not capsys.readouterr().err


def test_magnitudes_and_colours_where_there_are_zero_points():
    """Magnitudes by hand from the fluxes; those of surface brightness are the same."""
    galaxy = Sersic(20.0, r_eff=0.3, n=1.0)
    image = render(PixelGrid((40, 40), 0.1), source=galaxy) + np.random.default_rng(0).normal(
        0, 0.01, (40, 40)
    )
    per_pixel = (1 * u.nJy / (0.1 * u.arcsec) ** 2).to_value(u.MJy / u.sr)
    phot, places = SersicPhotometry(), QTable({"x": [19.5], "y": [19.5]})
    found = []
    for factor, unit in ((1.0, "nJy"), (per_pixel, "MJy/sr")):
        told = {"error": 0.01 * factor, "init_params": places, "pixel_scale": 0.1}
        found.append(phot(factor * image, unit=unit, **told))
    row = found[0][0]
    assert row["mag"].value == pytest.approx(31.4 - 2.5 * np.log10(row["flux"].value), abs=1e-3)
    assert row["mag_err"].value == pytest.approx(1.0857 * float(row["flux_err"] / row["flux"]), rel=1e-3)
    assert found[1]["mag"][0].value == pytest.approx(row["mag"].value, abs=1e-4)
    bands = {"g": image * u.nJy, "r": 10 * image * u.nJy}
    told = {"error": {"g": 0.01, "r": 0.1}, "init_params": places, "pixel_scale": 0.1}
    colour = phot(bands, **told)["colour_g_r"][0]
    assert colour.value == pytest.approx(2.5, abs=1e-3)
    bare = phot(image, error=0.01, init_params=places, pixel_scale=0.1)
    assert not [name for name in bare.colnames if name.startswith("mag")]
