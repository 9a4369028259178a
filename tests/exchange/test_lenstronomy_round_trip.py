"""Lenses and light in lenstronomy's names: evaluated there they are the same, and come back as they were."""

import astropy.units as u
import numpy as np
import pytest
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LightModel.light_model import LightModel

from lenssr import mass
from lenssr.exceptions import InputError
from lenssr.light import MultiGaussian, PixelatedSource, Sersic, from_lenstronomy, to_lenstronomy

AT = {"x_0": 0.1, "y_0": -0.2}
E = {"e1": 0.12, "e2": -0.08, **AT}
X, Y = np.random.default_rng(5).normal(scale=1.2, size=(2, 40))
LENSES = {
    "SIS": mass.SIS(1.1, **AT),
    "SIE": mass.SIE(1.2, **E),
    "SIE, round": mass.SIE(1.2, **AT),
    "EPL": mass.EPL(1.2, 2.2, **E),
    "CoredPowerLaw, isothermal": mass.CoredPowerLaw(1.2, 2.0, 0.1, **E),
    "CoredPowerLaw, round": mass.CoredPowerLaw(1.2, 2.3, 0.2, **AT),
    "DPIE": mass.DPIE(1.2, 0.1, 3.0, **E),
    "NFW": mass.NFW(2.0, 1.3, **AT),
    "EllipticalNFW": mass.EllipticalNFW(2.0, 1.3, **E),
    "EllipticalNFW, round": mass.EllipticalNFW(2.0, 1.3, **AT),
    "TruncatedNFW": mass.TruncatedNFW(2.0, 1.3, 5.0, **AT),
    "SersicMass, round": mass.SersicMass(0.2, 1.0, 4.0, **AT, mass_to_light=2.0),
    "SersicMass": mass.SersicMass(0.2, 1.0, 2.5, **E, mass_to_light=2.0),
    "GaussianMass": mass.GaussianMass(0.5, 0.8, **E),
    "GaussianMass, round": mass.GaussianMass(0.5, 0.8, **AT),
    "Multipole 1": mass.Multipole.from_amplitude(1, 0.05, 0.3 * u.rad, **AT),
    "Multipole 4": mass.Multipole.from_amplitude(4, 0.05, 0.3 * u.rad, **AT),
    "EllipticalMultipole": mass.EllipticalMultipole(4, 0.03, 0.02, e1=0.2, **AT),
    "PointMass": mass.PointMass(0.9, **AT),
    "Shear": mass.Shear(0.05, -0.03, **AT),
    "ConvergenceSheet": mass.ConvergenceSheet(0.2),
    "sum": mass.SIE(1.2, **E) + mass.Shear(0.05, -0.03) + mass.NFW(2.0, 0.2, 1.0, 0.5),
    "MultiPlane": mass.MultiPlane(
        [(0.3, mass.SIE(1.2, **E) + mass.Shear(0.03, 0.0)), (0.8, mass.SIS(0.2, **AT))], z_source=2.0
    ),
}


def apart(lens, x=X, y=Y):
    """Largest difference of deflections in arcsec."""
    options, kwargs = lens.to_lenstronomy()
    return np.abs(np.array(lens.deflection(x, y)) - LensModel(**options).alpha(x, y, kwargs)).max()


@pytest.mark.filterwarnings("ignore:Cosmology is provided")
@pytest.mark.parametrize("name", LENSES)
def test_deflection_there_is_the_same(name):
    few = slice(0, 3 if name == "SersicMass" else None)  # theirs is a numerical integral
    assert apart(LENSES[name], X[few], Y[few]) < 1e-6


@pytest.mark.parametrize("name", LENSES)
def test_lens_comes_back(name):
    lens = LENSES[name]
    back = mass.from_lenstronomy(*lens.to_lenstronomy())
    if (
        name == "SersicMass" or name == "SersicMass, round"
    ):  # brightness and mass-to-light ratio are one number
        lens = mass.SersicMass(0.4, *lens.vector[1:-1].tolist())
    assert type(back) is type(lens)
    assert back.param_names == lens.param_names
    np.testing.assert_allclose(back.vector, lens.vector, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(back.deflection(X, Y), lens.deflection(X, Y), rtol=1e-12, atol=1e-13)


def test_fit_of_an_elliptical_nfw_that_they_have():
    halo = mass.EllipticalNFW(2.0, 1.3, **E)
    keywords = {"Rs": 2.0, "alpha_Rs": 1.3, "e1": E["e1"], "e2": E["e2"]}
    centre = {"center_x": E["x_0"], "center_y": E["y_0"]}
    back = mass.from_lenstronomy(["NFW_ELLIPSE_CSE"], [{**keywords, **centre}])
    assert back.to_dict() == halo.to_dict()
    theirs = LensModel(["NFW_ELLIPSE_CSE"]).alpha(X, Y, [{**keywords, **centre}])
    assert np.abs(np.array(halo.deflection(X, Y)) - theirs).max() < 2e-3


def test_ellipsoids_of_halos_beside_others_come_back():
    lens = (
        mass.SIE(1.2)
        + mass.EllipticalNFW(2.0, 1.3, **E)
        + mass.EllipticalNFW(3.0, 0.3)
        + mass.Shear(0.1, 0.0)
    )
    assert mass.from_lenstronomy(*lens.to_lenstronomy()).to_dict() == lens.to_dict()


@pytest.mark.parametrize("change", ["one less", "other strength", "other shape", "alone"])
def test_other_ellipsoids_are_refused(change):
    options, kwargs = mass.EllipticalNFW(2.0, 1.3, **E).to_lenstronomy()
    names = options["lens_model_list"]
    if change == "other strength":
        kwargs[40]["a"] *= 1.001
    elif change == "other shape":
        kwargs[40]["e1"] = 0.0
    else:
        names = names[: -1 if change == "one less" else 1]
    with pytest.raises(InputError, match="NFW_ELLIPSE_CSE"):
        mass.from_lenstronomy(names, kwargs[: len(names)])


def test_map_is_the_same_at_its_pixels():
    y, x = (np.mgrid[:41, :45].T - [20, 22]).T * 0.1
    lens = mass.PixelatedDeflection(*mass.SIE(1.2, 0.1, 0.2, 0.03, 0.04).deflection(x, y), 0.1)
    options, kwargs = lens.to_lenstronomy()
    theirs = LensModel(**options)
    inner = x[2:-2, 2:-2].ravel(), y[2:-2, 2:-2].ravel()
    np.testing.assert_allclose(lens.deflection(*inner), theirs.alpha(*inner, kwargs), atol=1e-10)
    np.testing.assert_allclose(lens.convergence(*inner), theirs.kappa(*inner, kwargs), atol=1e-10)
    back = mass.from_lenstronomy(options, kwargs)
    few = np.clip(X[:9], -1.9, 1.9), np.clip(Y[:9], -1.9, 1.9)
    np.testing.assert_allclose(back.deflection(*few), lens.deflection(*few), rtol=1e-12)


@pytest.mark.parametrize(
    ("names", "kwargs", "same"),
    [
        (["PEMD"], {"theta_E": 1.2, "gamma": 2.1, "e1": 0.1, "e2": 0.0}, mass.EPL(1.2, 2.1, 0.1)),
        (["SHEAR_GAMMA_PSI"], {"gamma_ext": 0.05, "psi_ext": 0.3}, None),
        (["PJAFFE"], {"sigma0": 0.7, "Ra": 0.2, "Rs": 2.0, "center_x": 0.1}, None),
    ],
)
def test_other_names_of_theirs(names, kwargs, same):
    ours = mass.from_lenstronomy(names, [kwargs])
    if same is not None:
        assert ours.to_dict() == same.to_dict()
    else:
        np.testing.assert_allclose(
            ours.deflection(X, Y), LensModel(names).alpha(X, Y, [kwargs]), rtol=1e-9, atol=1e-9
        )


REFUSED = {
    "what they lack": (mass.CoredPowerLaw(1.2, 2.3, 0.1, e1=0.2), "no elliptical CoredPowerLaw"),
    "turned multipole": (mass.EllipticalMultipole(4, 0.03, 0.0, e1=0.1, e2=0.1), "major axis along x"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_lenses_that_lenstronomy_cannot_hold(name):
    lens, match = REFUSED[name]
    with pytest.raises(InputError, match=match):
        lens.to_lenstronomy()


@pytest.mark.parametrize(
    ("names", "kwargs", "match"),
    [
        (["CURVED_ARC_CONST"], [{}], "no counterpart"),
        (["SIS"], [{"theta_E": 1.0, "gamma": 2.0}], "no 'gamma'"),
        (["SIS"], [{}], "lacks theta_E"),
        (["SIS", "SHEAR"], [{"theta_E": 1.0}], "one each"),
        (["MULTIPOLE"], [{"m": 1, "a_m": 0.1, "phi_m": 0.0, "r_E": 2.0}], "another r_E"),
    ],
)
def test_descriptions_that_are_refused(names, kwargs, match):
    with pytest.raises(InputError, match=match):
        mass.from_lenstronomy(names, kwargs)


LIGHTS = {
    "Sersic 0.7": Sersic(2.0, 0.3, 0.7, **E),
    "Sersic 4": Sersic(2.0, 0.3, 4.0, **E),
    "Sersic with units": Sersic(2.0 * u.electron / u.arcsec**2, 300 * u.mas, 1.5),
    "MultiGaussian": MultiGaussian([0.1, 0.4], [1.0, 3.0], **E),
    "PixelatedSource": PixelatedSource(
        np.random.default_rng(1).uniform(size=(12, 15)), pixel_scale=0.2, amplitude=2.0, **AT
    ),
}


@pytest.mark.parametrize("name", LIGHTS)
def test_light_there_is_the_same_and_comes_back(name):
    light = LIGHTS[name]
    options, kwargs = to_lenstronomy(light)
    units = "units" in name
    ours = light(X * u.arcsec, Y * u.arcsec).value if units else light(X, Y)
    theirs = LightModel(**options).surface_brightness(X, Y, kwargs)
    np.testing.assert_allclose(ours, theirs, atol=1e-6 * np.max(ours), rtol=0)
    back = from_lenstronomy(options, kwargs)
    assert type(back) is type(light)
    np.testing.assert_allclose(back(X, Y), ours, rtol=1e-12, atol=1e-14)


def test_lensed_image_there_is_the_same():
    """The whole chain: rays through the lens to the source, and the light of the lens."""
    lens, source, galaxy = LENSES["sum"], LIGHTS["Sersic 0.7"], LIGHTS["MultiGaussian"]
    ax, ay = lens.deflection(X, Y)
    ours = source(X - ax, Y - ay) + galaxy(X, Y)
    lens_options, kwargs_lens = lens.to_lenstronomy()
    beta = LensModel(**lens_options).ray_shooting(X, Y, kwargs_lens)
    (light, kwargs), (front, kwargs_front) = to_lenstronomy(source), to_lenstronomy(galaxy)
    theirs = LightModel(**light).surface_brightness(*beta, kwargs)
    theirs += LightModel(**front).surface_brightness(X, Y, kwargs_front)
    np.testing.assert_allclose(ours, theirs, atol=1e-6 * ours.max(), rtol=0)


def test_several_lights_come_back_in_order():
    back = from_lenstronomy(*to_lenstronomy([LIGHTS["Sersic 4"], LIGHTS["MultiGaussian"]]))
    assert [type(one).__name__ for one in back] == ["Sersic", "MultiGaussian"]


@pytest.mark.parametrize(
    ("names", "kwargs", "match"),
    [
        (["SHAPELETS"], {}, "no counterpart"),
        (["INTERPOL"], {"image": np.eye(3), "scale": 0.1, "phi_G": 0.1}, "resample"),
    ],
)
def test_light_that_is_refused(names, kwargs, match):
    with pytest.raises(InputError, match=match):
        from_lenstronomy(names, [kwargs])
