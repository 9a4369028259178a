"""Templates of COOLEST: its loader reads them, its evaluation and lenstronomy's agree, and they come back."""

import json
import os

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits

from lenssr import SIE, InputError, Sersic, Shear, SuperResolution, SuperResolver, mass
from lenssr._exchange import coolest_profiles
from lenssr.grids import PixelGrid
from lenssr.imaging import PSF, render
from lenssr.posterior import PosteriorDraws

their_light = pytest.importorskip("coolest.api.profiles.light")
their_mass = pytest.importorskip("coolest.api.profiles.mass")
JSONSerializer = pytest.importorskip("coolest.template.json").JSONSerializer

SCALE = 0.1
GRID = PixelGrid((40, 40), SCALE)
LENS = SIE(1.2, 0.1, -0.05, 0.02, 0.01) + Shear(0.03, 0.02)
SOURCE = Sersic(20.0, 0.25, 1.2, 0.05, 0.1, 0.1, 0.05)
PSF_ = PSF.from_fwhm(0.25 * u.arcsec)
X, Y = np.random.default_rng(3).normal(scale=1.0, size=(2, 50))


def resolved(**options):
    image = render(GRID, lens=LENS, source=SOURCE, lens_light=Sersic(5.0, 0.6, 1.0, e1=0.1), psf=PSF_)
    data = image + 0.02 * np.random.default_rng(0).standard_normal(image.shape)
    settings = {"source": "sersic", "lens": LENS, "fit_lens": True, "lens_light": "sersic", **options}
    return SuperResolver(psf=PSF_, **settings)(data, noise=0.02, pixel_scale=SCALE)


@pytest.fixture(scope="module")
def result():
    return resolved()


@pytest.fixture
def path(result, tmp_path):
    result.to_coolest(tmp_path / "lens.json", z_lens=0.5, z_source=2.0)
    return tmp_path / "lens.json"


def loaded(path):
    return JSONSerializer(str(path.with_suffix(""))).load(skip_jsonpickle=True, verbose=False)


# ---------------------------------------------------------------- conventions, number by number


@pytest.mark.parametrize("gamma", [1.7, 2.0])
def test_power_law_is_theirs(gamma):
    lens = mass.EPL(1.2, gamma, 0.15, -0.1, 0.1, -0.2)
    _, values = coolest_profiles.profile_of_mass("EPL", lens._described())
    np.testing.assert_allclose(their_mass.PEMD().deflection(X, Y, **values), lens.deflection(X, Y), atol=1e-9)


def test_shear_is_theirs():
    _, values = coolest_profiles.profile_of_mass("Shear", Shear(0.03, -0.05)._described())
    theirs = their_mass.ExternalShear().deflection(X, Y, **values)
    np.testing.assert_allclose(theirs, Shear(0.03, -0.05).deflection(X, Y), atol=1e-12)


@pytest.mark.parametrize("n", [0.7, 4.0])
def test_sersic_is_theirs(n):
    light = Sersic(2.0, 0.4, n, 0.1, -0.2, 0.15, -0.1)
    values = dict(zip(light.param_names, light.parameters.tolist(), strict=True))
    _, theirs = coolest_profiles.profile_of_light("Sersic", values)
    found = their_light.Sersic().evaluate_surface_brightness(X, Y, **theirs)
    np.testing.assert_allclose(found, light(X, Y), rtol=1e-9)
    back = Sersic(**coolest_profiles.light_of("Sersic", theirs)[1])
    np.testing.assert_allclose(back.parameters, light.parameters, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("phi", "angle"), [(0, -90), (90, 0), (30, -60), (-45, 45), (-89, 1), (179, 89)])
def test_position_angles_count_from_y_to_minus_x(phi, angle):
    lens = SIE.from_q_phi(1.0, q=0.7, phi=phi * u.deg)
    _, values = coolest_profiles.profile_of_mass("SIE", lens._described())
    # Both ends of the interval are one direction.
    assert np.cos(np.radians(2 * (values["phi"] - angle))) == pytest.approx(1, abs=1e-12)
    assert -90 < values["phi"] <= 90


@pytest.mark.parametrize(
    "lens",
    [mass.SIE(1.2, 0.1, 0.2), mass.EPL(1.1, 2.2, 0.1), mass.DPIE(1.2, 0.1, 3.0, -0.1), Shear(0.1, 0.0)],
)
def test_mass_comes_back(lens):
    name = type(lens).__name__
    kind, values = coolest_profiles.profile_of_mass(name, lens._described())
    back = mass.from_dict(dict([coolest_profiles.mass_of(kind, values, name == "SIE")]))
    assert type(back) is type(lens)
    np.testing.assert_allclose(back.vector, lens.vector, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("kind", "gamma"), [("NIE", None), ("SPEMD", 2.0), ("SPEMD", 1.8), ("SPEMD", 2.3)])
@pytest.mark.parametrize("core", [0.0, 0.03, 0.4])
def test_power_laws_with_a_core_have_their_einstein_radius(kind, gamma, core):
    """The mean convergence within the ellipse of radius theta_E is 1 (COOLEST, conventions)."""
    values = {"theta_E": 1.2, "r_core": core, "q": 0.7, "phi": 30.0, "center_x": 0.1, "center_y": -0.2}
    values |= {} if gamma is None else {"gamma": gamma}
    name, numbers = coolest_profiles.mass_of(kind, values)
    lens = mass.from_dict({name: numbers})
    assert type(lens).__name__ == ("CoredPowerLaw" if core else "SIE" if gamma is None else "EPL")
    nodes, weights = np.polynomial.legendre.leggauss(200)
    radius, step = 1.2 * ((nodes + 1) / 2) ** 3, 1.2 * 1.5 * ((nodes + 1) / 2) ** 2 * weights
    # Along the minor axis, which is at right angles to phi, counted from +y to -x.
    minor = np.radians(30.0)
    along = radius * np.sqrt(0.7)
    kappa = lens.convergence(0.1 + along * np.cos(minor), -0.2 + along * np.sin(minor))
    assert (kappa * 2 * radius * step).sum() / 1.2**2 == pytest.approx(1, abs=1e-6)


def test_nie_is_that_of_lenstronomy_with_their_strength():
    from lenstronomy.LensModel.lens_model import LensModel

    values = {"theta_E": 1.2, "r_core": 0.3, "q": 0.7, "phi": 30.0, "center_x": 0.1, "center_y": -0.2}
    name, numbers = coolest_profiles.mass_of("NIE", values)
    turn = 2 * np.radians(30.0 + 90)
    e = (1 - 0.7) / (1 + 0.7)
    theirs = {"theta_E": 0.3 + np.hypot(0.3, 1.2), "s_scale": 0.3, "center_x": 0.1, "center_y": -0.2}
    theirs |= {"e1": e * np.cos(turn), "e2": e * np.sin(turn)}
    found = mass.from_dict({name: numbers}).deflection(X, Y)
    np.testing.assert_allclose(found, LensModel(["NIE"]).alpha(X, Y, [theirs]), atol=1e-9)


# ---------------------------------------------------------------- whole templates


def test_their_loader_reads_what_is_written(path, result):
    made = loaded(path)
    assert [one.type for one in made.lensing_entities] == ["Galaxy", "MassField", "Galaxy"]
    np.testing.assert_allclose(made.observation.pixels.get_pixels(), result.data.data - result.sky.value)
    pemd = made.lensing_entities[0].mass_model[0]
    assert pemd.parameters["theta_E"].point_estimate.value == pytest.approx(result.lens[0].theta_E.value)
    stats = pemd.parameters["theta_E"].posterior_stats
    spread = (stats.percentile_84th - stats.percentile_16th) / 2
    assert spread == pytest.approx(result.lens[0].theta_E.std, rel=0.15)
    chain = np.genfromtxt(path.with_name(made.meta["chain_file_name"]), delimiter=",", names=True)
    assert len(chain) == 500
    assert (
        SuperResolution.read(path.with_name(made.meta["lenssr_file"])).lens.to_dict() == result.lens.to_dict()
    )


def test_a_posterior_that_was_kept_is_in_the_template(result, tmp_path):
    """Its draws are skewed and weighed, as those of the covariance cannot be."""
    rng = np.random.default_rng(4)
    names, values = result.covariance_names, {one["name"]: one["value"] for one in result.parameters}
    point = [values[name.split(".")[-1]] if "." in name else 0.0 for name in names]
    drawn = np.array(point) + 1e-4 * rng.normal(size=(1500, len(names)))
    excess = 0.01 * rng.exponential(size=1500)
    drawn[:, names.index("lens.theta_E_0")] = values["theta_E_0"] + excess
    about = {"units": ("",) * len(names), "method": "psis", "weights": np.exp(-excess / 0.01)}
    draws = PosteriorDraws(names=names, values=drawn, **about)
    result.with_draws(draws).to_coolest(tmp_path / "kept.json")
    stats = (
        loaded(tmp_path / "kept.json").lensing_entities[0].mass_model[0].parameters["theta_E"].posterior_stats
    )
    # Weighed so, the scale of the exponential is halved; its quantiles are -ln(1 - p).
    expected = values["theta_E_0"] - 0.005 * np.log(1 - np.array([0.16, 0.5, 0.84]))
    found = [stats.percentile_16th, stats.median, stats.percentile_84th]
    np.testing.assert_allclose(found, expected, atol=8e-4)


def test_lens_and_result_come_back(path, result):
    lens = mass.from_coolest(path)
    np.testing.assert_allclose(lens.vector, result.lens.vector, rtol=1e-9, atol=1e-12)
    back = SuperResolution.from_coolest(path)
    np.testing.assert_allclose(back.source_model.parameters, result.source_model.parameters, rtol=1e-9)
    image = result.image.data - result.sky.value / 4
    assert np.abs(back.image.data - image).max() < 1e-5 * image.max()
    assert back.reduced_chi2 == pytest.approx(result.reduced_chi2, rel=0.05)
    assert not back.ok


def test_lenstronomy_renders_the_same_from_the_template(path, result, monkeypatch, capsys):
    from lenstronomy.LensModel.lens_model import LensModel
    from lenstronomy.LightModel.light_model import LightModel
    from lenstronomy.Util.coolest_interface import create_lenstronomy_from_coolest

    monkeypatch.chdir(path.parent)
    read = create_lenstronomy_from_coolest(str(path.with_suffix("")))
    models, found = read["kwargs_model"], read["kwargs_result"]
    # Its x runs to the left.
    rays = LensModel(models["lens_model_list"]).ray_shooting(-X, Y, found["kwargs_lens"])
    source = LightModel(models["source_light_model_list"])
    theirs = source.surface_brightness(*rays, found["kwargs_source"])
    light = LightModel(models["lens_light_model_list"])
    theirs += light.surface_brightness(-X, Y, found["kwargs_lens_light"])
    ax, ay = result.lens.deflection(X, Y)
    ours = [
        type(one).from_vector(one.vector)(*at)
        for one, at in ((result.source_model, (X - ax, Y - ay)), (result.lens_light, (X, Y)))
    ]
    np.testing.assert_allclose(theirs, sum(ours), atol=1e-6 * max(theirs))


def test_template_that_lenstronomy_wrote_comes_back(path, monkeypatch, capsys):
    from lenstronomy.Util.coolest_interface import update_coolest_from_lenstronomy

    # As lenstronomy has them, with x to the left.
    lens = {"theta_E": 1.31, "gamma": 1.9, "e1": 0.08, "e2": 0.11, "center_x": -0.03, "center_y": 0.02}
    shear = {"gamma1": 0.04, "gamma2": -0.02, "ra_0": 0.0, "dec_0": 0.0}
    light = {
        "amp": 3.0,
        "R_sersic": 0.4,
        "n_sersic": 2.0,
        "e1": 0.1,
        "e2": 0.0,
        "center_x": 0.1,
        "center_y": 0,
    }
    kwargs = {"kwargs_lens": [lens, shear], "kwargs_source": [light], "kwargs_lens_light": [light]}
    monkeypatch.chdir(path.parent)
    update_coolest_from_lenstronomy(str(path.with_suffix("")), kwargs)
    found = mass.from_coolest(path.with_name("lens_update.json"))
    expected = mass.EPL(1.31, 1.9, 0.08, -0.11, 0.03, 0.02) + Shear(0.04, 0.02)
    np.testing.assert_allclose(found.vector, expected.vector, atol=1e-12)


@pytest.mark.slow
def test_free_form_source_and_gaussians_are_grids(tmp_path):
    result = resolved(source="pixelated", lens_light="mge", fit_lens=False)
    result.to_coolest(tmp_path / "lens.json")
    made = loaded(tmp_path / "lens.json")
    assert [one.light_model[0].type for one in (made.lensing_entities[0], made.lensing_entities[-1])] == [
        "PixelatedRegularGrid"
    ] * 2
    back = SuperResolution.from_coolest(tmp_path / "lens.json")
    np.testing.assert_allclose(back.source.data[:50, :50], result.source.data, rtol=1e-12)
    gap = back.lensed_source.data - result.lensed_source.data
    assert np.abs(gap).max() < 0.01 * result.lensed_source.data.max()


def test_what_the_format_lacks_is_a_potential(result, tmp_path):
    from dataclasses import replace

    lens = result.lens + mass.NFW(3.0, 0.1)
    replace(result, lens=lens).to_coolest(tmp_path / "lens.json")
    back = mass.from_coolest(tmp_path / "lens.json")
    assert any(isinstance(one, mass.PixelatedDeflection) for one in back)
    x, y = X.clip(-2, 2), Y.clip(-2, 2)
    np.testing.assert_allclose(back.deflection(x, y), lens.deflection(x, y), atol=2e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning", "ignore::DeprecationWarning")
def test_their_plots_draw_it(path):
    pytest.importorskip("pandas")
    plotting = pytest.importorskip("coolest.api.plotting")
    import matplotlib.pyplot as plt
    from coolest.api.composable_models import ComposableLensModel

    made = loaded(path)
    _, axes = plt.subplots(3)
    plotter = plotting.ModelPlotter(made, coolest_directory=str(path.parent))
    source, lens = {"entity_selection": [2]}, {"entity_selection": [0, 1]}
    plotter.plot_data_image(axes[0])
    plotter.plot_convergence(axes[1], kwargs_lens_mass=lens)
    plotter.plot_model_image(axes[2], kwargs_source=source, kwargs_lens_mass=lens)
    assert all(ax.images for ax in axes)
    plt.close("all")
    chosen = {"kwargs_selection_source": source, "kwargs_selection_lens_mass": lens}
    model = ComposableLensModel(made, str(path.parent), **chosen)
    theirs, _ = model.model_image(supersampling=2)  # as finely as the PSF is sampled
    ours = SuperResolution.from_coolest(path).lensed_source.data.reshape(40, 2, 40, 2).sum(axis=(1, 3))
    assert np.abs(theirs - ours).max() < 0.05 * ours.max()


# ---------------------------------------------------------------- what is refused


def test_nothing_is_run_from_a_file_beside_it(path):
    code = {"py/reduce": [{"py/function": "os.mkdir"}, {"py/tuple": [str(path.parent / "ran")]}]}
    path.with_name("lens_pyAPI.json").write_text(json.dumps(code))
    mass.from_coolest(path)
    assert not path.with_name("ran").exists()


def test_all_files_or_none(result, path, monkeypatch):
    before = {name: path.with_name(name).read_bytes() for name in os.listdir(path.parent)}
    with pytest.raises(InputError, match="exists"):
        result.to_coolest(path)
    monkeypatch.setattr(JSONSerializer, "load", lambda *_, **__: 1 / 0)
    with pytest.raises(InputError, match="ZeroDivisionError"):
        result.to_coolest(path, overwrite=True)
    assert {name: path.with_name(name).read_bytes() for name in os.listdir(path.parent)} == before


def test_files_are_as_before_where_one_cannot_be_placed(result, path, monkeypatch):
    before = {name: path.with_name(name).read_bytes() for name in os.listdir(path.parent)}
    path.with_name("lens_noise.fits").unlink()
    del before["lens_noise.fits"]
    move = os.replace

    def fails_at_the_template(source, target):
        if str(target).endswith("lens.json") and not str(source).endswith(".before"):
            raise OSError(28, "No space left on device")
        move(source, target)

    monkeypatch.setattr(os, "replace", fails_at_the_template)
    with pytest.raises(InputError, match="lens.json cannot be written .No space"):
        result.to_coolest(path, overwrite=True, z_lens=0.3)
    assert {name: path.with_name(name).read_bytes() for name in os.listdir(path.parent)} == before


def test_bands_are_a_template_each_all_or_none(result, tmp_path, monkeypatch):
    from lenssr.result import BandsResolution

    bands = BandsResolution.of({"F606W": result, "F814W/2": result})
    bands.to_coolest(tmp_path / "lens.json", z_lens=0.5, z_source=2.0)
    written = set(os.listdir(tmp_path))
    assert {"lens_F606W.json", "lens_F814W_2.json", "lens_F814W_2_data.fits"} <= written
    for name in ("lens_F606W.json", "lens_F814W_2.json"):
        np.testing.assert_allclose(
            mass.from_coolest(tmp_path / name).vector, result.lens.vector, rtol=1e-9, atol=1e-12
        )
    (tmp_path / "lens_F606W.json").unlink()
    with pytest.raises(InputError, match="lens_F814W_2.json exists"):
        bands.to_coolest(tmp_path / "lens.json")
    assert set(os.listdir(tmp_path)) == written - {"lens_F606W.json"}


def changed(path, old, new):
    path.write_text(path.read_text().replace(old, new))
    return path


def test_files_elsewhere_are_refused(path):
    with pytest.raises(InputError, match="have to lie beside it"):
        SuperResolution.from_coolest(changed(path, '"lens_data.fits"', '"../lens_data.fits"'))


def test_profile_without_counterpart_is_refused(path):
    text = json.loads(path.read_text())
    profile = text["lensing_entities"][0]["mass_model"][0]
    profile["type"], gamma = "NFW", profile["parameters"].pop("gamma")
    profile["parameters"] |= {"r_s": gamma, "rho_c": gamma}
    del profile["parameters"]["theta_E"]
    path.write_text(json.dumps(text))
    with pytest.raises(InputError, match="NFW of COOLEST has no counterpart.*unit of rho_c"):
        mass.from_coolest(path)


@pytest.mark.parametrize("text", ["{}", "", "[" * 100_000, '{"lensing_entities": [5]}', "nothing"])
def test_no_template(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match="not a template"):
        mass.from_coolest(tmp_path / "a.json")


def test_wide_images_are_padded(tmp_path, result):
    from dataclasses import replace

    def cut(name):
        return getattr(result, name)[2:-2]

    parts = {name: cut(name) for name in ("data", "residual", "model_image")}
    parts |= {name: getattr(result, name)[4:-4] for name in ("image", "lensed_source", "lens_light_image")}
    wide = replace(result, **parts, chi2_map=result.chi2_map[2:-2])
    wide.image.psf = result.image.psf
    wide.to_coolest(tmp_path / "lens.json")
    assert fits.getdata(tmp_path / "lens_data.fits").shape == (40, 40)
    back = SuperResolution.from_coolest(tmp_path / "lens.json")
    assert back.data.shape == (36, 40)
    np.testing.assert_allclose(back.image.data, wide.image.data - result.sky.value / 4, atol=1e-5)
