"""The light of the lens galaxy by evidence, on images that lenstronomy renders."""

import astropy.units as u
import numpy as np
import pytest

from lenssr import InputError, SuperResolver
from lenssr.imaging import PSF
from lenssr.reconstruction.light_choice import LIGHTS, chosen

SIDE, PIXEL, FWHM, SIGMA = 30, 0.1, 0.2, 0.02
LENS = [{"theta_E": 0.8, "e1": 0.1, "e2": 0.05, "center_x": 0.0, "center_y": 0.0}]
SOURCE = {"amp": 8.0, "R_sersic": 0.15, "n_sersic": 1.0, "center_x": 0.1, "center_y": 0.06}
GALAXY = {
    "amp": 20.0, "R_sersic": 0.4, "n_sersic": 2.5, "e1": 0.1, "e2": 0.05, "center_x": 0.0, "center_y": 0.0,
}  # fmt: skip


def rendered(galaxy):
    """An image of lenstronomy, with noise."""
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
    lights = {"lens_light_model_class": LightModel(["SERSIC_ELLIPSE"])} if galaxy else {}
    model = ImageModel(
        data, TheirPSF("GAUSSIAN", fwhm=FWHM, pixel_size=PIXEL), LensModel(["SIE"]),
        LightModel(["SERSIC"]), kwargs_numerics={"supersampling_factor": 4}, **lights,
    )  # fmt: skip
    image = model.image(LENS, [SOURCE], [GALAXY] if galaxy else None)
    return image + SIGMA * np.random.default_rng(3).normal(size=image.shape)


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


@pytest.mark.slow
@pytest.mark.parametrize("galaxy", [False, True])
def test_a_galaxy_is_seen_where_there_is_one(galaxy):
    pytest.importorskip("lenstronomy")
    resolver = SuperResolver(source="sersic", lens_light="auto", psf=PSF.from_fwhm(FWHM * u.arcsec))
    result = resolver(rendered(galaxy), pixel_scale=PIXEL * u.arcsec, noise=SIGMA, unit="electron/s")
    evidence = dict(zip(map(str, LIGHTS), (value for _, value in result.meta["lens_lights"]), strict=True))
    assert [light for light, _ in result.meta["lens_lights"]] == list(LIGHTS)
    assert (result.lens_light is not None) == galaxy, evidence
    if galaxy:
        assert result.meta["lens_light"] == "sersic"
        assert evidence["sersic"] > evidence["None"] + 100
    assert result.R_E.value == pytest.approx(0.8, rel=0.02)


def test_several_bands_name_their_light():
    with pytest.raises(InputError, match="takes one image"):
        SuperResolver(source="pixelated", lens_light="auto")({"a": np.ones((9, 9)), "b": np.ones((9, 9))})
