"""The light of the lens galaxy by evidence, on images that lenstronomy renders."""

from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest

from lenssr import SuperResolution, SuperResolver
from lenssr.imaging import PSF, Observation
from lenssr.reconstruction import light_choice
from lenssr.reconstruction.light_choice import LIGHTS, chosen
from lenssr.simulation import LensPopulation

SIDE, PIXEL, FWHM, SIGMA = 30, 0.1, 0.2, 0.02
LENS = [{"theta_E": 0.8, "e1": 0.1, "e2": 0.05, "center_x": 0.0, "center_y": 0.0}]
SOURCE = {"amp": 8.0, "R_sersic": 0.15, "n_sersic": 1.0, "center_x": 0.1, "center_y": 0.06}
GALAXY = {
    "amp": 20.0, "R_sersic": 0.4, "n_sersic": 2.5, "e1": 0.1, "e2": 0.05, "center_x": 0.0, "center_y": 0.0,
}  # fmt: skip


def rendered(shines, *, galaxy=GALAXY, source=True, noise=True):
    """An image of lenstronomy."""
    from lenstronomy.Data.imaging_data import ImageData
    from lenstronomy.Data.psf import PSF as TheirPSF
    from lenstronomy.ImSim.image_model import ImageModel
    from lenstronomy.LensModel.lens_model import LensModel
    from lenstronomy.LightModel.light_model import LightModel

    edge = -PIXEL * (SIDE - 1) / 2
    data = ImageData(
        image_data=np.zeros((SIDE, SIDE)), ra_at_xy_0=edge, dec_at_xy_0=edge,
        transform_pix2angle=PIXEL * np.eye(2),
    )  # fmt: skip
    lights = {"lens_light_model_class": LightModel(["SERSIC_ELLIPSE"])} if shines else {}
    model = ImageModel(
        data, TheirPSF("GAUSSIAN", fwhm=FWHM, pixel_size=PIXEL), LensModel(["SIE"]),
        LightModel(["SERSIC"]), kwargs_numerics={"supersampling_factor": 4}, **lights,
    )  # fmt: skip
    image = model.image(LENS, [{**SOURCE, "amp": SOURCE["amp"] * source}], [galaxy] if shines else None)
    return image + noise * SIGMA * np.random.default_rng(3).normal(size=image.shape)


@pytest.mark.parametrize(
    ("evidence", "light"),
    [
        ([[None, -112.0], ["sersic", -99.6], ["mge", -120.0]], None),
        ([[None, -112.2], ["sersic", -99.6], ["mge", -120.0]], "sersic"),
        ([[None, -200.0], ["sersic", -99.5], ["mge", -99.0]], "sersic"),
        ([[None, -200.0], ["sersic", -99.5], [["mge", "mge"], -90.0]], ["mge", "mge"]),
    ],
)
def test_of_lights_that_are_as_likely_the_simplest_is_chosen(evidence, light):
    assert chosen(evidence) == light


def observed(image):
    options = {"pixel_scale": PIXEL * u.arcsec, "noise": SIGMA, "unit": "electron/s"}
    return Observation.from_any(image, psf=PSF.from_fwhm(FWHM * u.arcsec), **options)


def resolve(image, **options):
    return SuperResolver(**{"source": "sersic", "lens_light": "auto"} | options)(observed(image))


@pytest.mark.parametrize("galaxy", [False, True])
def test_a_galaxy_is_seen_where_there_is_one(galaxy):
    pytest.importorskip("lenstronomy")
    image, light = rendered(galaxy), "sersic" if galaxy else None
    result, same = resolve(image), resolve(image, lens_light=light)
    assert result.meta["lens_light"] == light and "lens_lights" not in result.meta
    np.testing.assert_array_equal(result.image.data, same.image.data)
    assert result.R_E.value == pytest.approx(0.8, rel=0.02)


def test_a_galaxy_alone_is_light_and_no_source():
    pytest.importorskip("lenstronomy")
    method = SuperResolver(source="sersic", lens_light="auto").settings.method()
    assert method._simple_light(observed(rendered(True, source=False)), sure=False) == "sersic"


@pytest.mark.slow
def test_a_galaxy_that_no_sersic_describes_is_described_by_evidence():
    pytest.importorskip("lenstronomy")
    bar = {**GALAXY, "amp": 60.0, "R_sersic": 0.25, "n_sersic": 0.5, "e1": -0.3, "e2": 0.2}
    image = rendered(True) + rendered(True, galaxy=bar, source=False, noise=False)
    result = resolve(image)
    evidence = result.meta.get("lens_lights")
    assert result.meta["lens_light"] not in (None, "sersic")
    assert evidence is None or [light for light, _ in evidence] == list(LIGHTS)
    assert result.R_E.value == pytest.approx(0.8, rel=0.02)


def test_a_sersic_that_leaves_an_object_is_not_enough():
    pytest.importorskip("lenstronomy")
    image = rendered(True, source=False)
    image[22:25, 9:12] += 3 * SIGMA  # too few pixels for chi2
    settings = SuperResolver(source="sersic", lens_light="sersic").settings
    _, fit = light_choice.plain_fit(settings, observed(rendered(True, source=False)))
    assert light_choice._brightest_spot(fit, observed(rendered(True, source=False))) < 4.5
    assert light_choice._explains(fit, observed(image))
    assert light_choice._brightest_spot(fit, observed(image)) > 4.5


def test_draws_beside_a_chosen_light_are_there_after_a_file(tmp_path):
    pytest.importorskip("lenstronomy")
    result = resolve(rendered(True))
    assert result.meta["lens_light"] == "sersic" and result.meta["source"] == "sersic"
    result.write(tmp_path / "one.fits")
    again = SuperResolution.read(tmp_path / "one.fits")
    first, second = (one.sample_posterior(4, method="laplace", seed=1) for one in (result, again))
    for name in first.names:
        np.testing.assert_allclose(second[name].value, first[name].value, rtol=1e-6)


def test_what_one_sersic_behind_a_lens_explains_is_no_other_object(monkeypatch):
    pytest.importorskip("lenstronomy")
    settings = SuperResolver(source="sersic").settings

    def crossed(observation):
        return observation.masked(np.broadcast_to(np.arange(SIDE) < 8, (SIDE, SIDE)))

    def hidden(image, settings=settings, **meta):
        image = observed(image)
        return int(light_choice.hiding_others(replace(image, meta=image.meta | meta), settings).mask.sum())

    monkeypatch.setattr(light_choice, "without_others", crossed)
    ring = rendered(False)
    beside = ring.copy()
    beside[3:5, 3:5] += 30 * SIGMA
    assert hidden(ring, mask="auto") == 0 and hidden(beside, mask="auto") == 8 * SIDE
    assert hidden(beside) == 0
    # Beside a light that is asked for, nothing is tried.
    assert hidden(ring, replace(settings, lens_light="mge"), mask="auto") == 8 * SIDE


def test_images_that_show_a_galaxy_are_parts_of_their_own():
    pytest.importorskip("lenstronomy")
    bright, dark = (observed(rendered(galaxy)) for galaxy in (True, False))
    method = SuperResolver(source="sersic", lens_light="auto").settings.method()
    parts = method.parts([(0, dark), (1, bright), (2, dark)])
    assert [[number for number, _ in part] for part in parts] == [[0, 2], [1]]


def test_methods_without_a_model_know_no_light():
    image = rendered(True)
    found = [resolve(image, source="interpolation", lens_light=light) for light in ("auto", None)]
    np.testing.assert_array_equal(*(one.image.data for one in found))


@pytest.mark.parametrize(
    ("light", "source"), [("mge", "pixelated"), (["sersic", "mge"], "pixelated"), ("sersic", "auto")]
)
def test_beside_gaussians_auto_is_a_source_on_a_grid(light, source):
    assert SuperResolver(source="auto", lens_light=light).settings.method().settings.source == source


@pytest.mark.slow
def test_arcs_that_a_source_explains_get_no_galaxy_on_a_bound():
    """Images so bright that a Sérsic of lens light, on its bounds, still takes a hundredth of their chi2."""
    item = LensPopulation(size=4, seed=6, lens_light=False)[2]
    result = SuperResolver(source="sersic", psf=item.psf, noise=item.noise)(item.low)
    assert light_choice.shows_galaxy(Observation.from_any(item.low, **item.given))
    assert result.meta["lens_light"] is None and result.grade == "secure"
