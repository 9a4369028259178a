"""Writing and reading a result gives the same one again."""

from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.modeling.models import Sersic2D
from astropy.table import QTable

from lenssr.exceptions import InputError
from lenssr.light import MultiGaussian, Sersic
from lenssr.mass import (
    EPL,
    NFW,
    SIE,
    ConvergenceSheet,
    MassModel,
    MassSystem,
    Parameter,
    PixelatedDeflection,
    PointMass,
    Shear,
)
from lenssr.result import SuperResolution
from lenssr.result.fits import EXACT

OLD = Path(__file__).parents[1] / "data" / "result_layout_1.fits.gz"
IMAGES = ("image", "lensed_source", "lens_light_image", "source", "data", "model_image", "residual")


@pytest.fixture(scope="module")
def again(path):
    return SuperResolution.read(path)


def same_models(first, second):
    assert type(first) is type(second)
    assert first.param_names == second.param_names
    if hasattr(first, "deflection"):
        assert first.deflection(0.11, 0.07) == second.deflection(0.11, 0.07)
    for name in first.param_names:
        one, two = getattr(first, name), getattr(second, name)
        for attribute in ("value", "unit", "fixed", "bounds", "std"):
            assert getattr(one, attribute) == getattr(two, attribute), (name, attribute)


@pytest.mark.parametrize("field", IMAGES)
def test_images_round_trip(result, again, field):
    one, two = getattr(result, field), getattr(again, field)
    np.testing.assert_array_equal(one.data, two.data)
    assert one.unit == two.unit
    assert type(one.meta) is type(two.meta)
    assert one.meta == two.meta
    for plane_name in ("mask", "psf"):
        np.testing.assert_array_equal(getattr(one, plane_name), getattr(two, plane_name))
    assert (one.uncertainty is None) == (two.uncertainty is None)
    if one.uncertainty is not None:
        np.testing.assert_array_equal(one.uncertainty.array, two.uncertainty.array)
        assert two.uncertainty.unit == one.unit


@pytest.mark.parametrize("field", IMAGES)
def test_wcs_keeps_every_digit(result, again, field):
    one, two = getattr(result, field).wcs, getattr(again, field).wcs
    pixels = np.array([[0.0, 0.0], [11.0, 29.0]])
    np.testing.assert_array_equal(one.wcs_pix2world(pixels, 0), two.wcs_pix2world(pixels, 0))
    assert list(two.wcs.ctype) == ["RA---TAN", "DEC--TAN"]


@pytest.mark.parametrize("field", EXACT)
def test_plain_fields_round_trip(result, again, field):
    assert getattr(again, field) == getattr(result, field)
    assert type(getattr(again, field)) is type(getattr(result, field))


@pytest.mark.parametrize("field", ["chi2_map", "covariance", "information"])
def test_arrays_round_trip(result, again, field):
    np.testing.assert_array_equal(getattr(again, field), getattr(result, field))


def test_parameter_table_round_trips(result, again):
    one, two = result.parameters, again.parameters
    assert one.colnames == two.colnames
    assert one.meta == two.meta
    for name in one.colnames:
        assert one[name].dtype.kind == two[name].dtype.kind
        np.testing.assert_array_equal(np.asarray(one[name]), np.asarray(two[name]))


def test_lens_round_trips(result, again):
    same_models(result.lens, again.lens)
    np.testing.assert_array_equal(result.lens.covariance, again.lens.covariance)
    np.testing.assert_array_equal(result.lens[0].covariance, again.lens[0].covariance)


def test_source_model_round_trips(result, again):
    same_models(result.source_model, again.source_model)
    assert again.source_model(0.1, 0.2) == result.source_model(0.1, 0.2)


@pytest.mark.parametrize(
    "changes",
    [
        {"lens": None},
        {"lens": SIE(1.0, 0.0, 0.0)},
        {"lens": MassSystem(SIE(1.0, 0.0, 0.0))},
        {"lens": EPL(1.0, 2.1) + NFW(1.0, 0.5) + PointMass(0.1) + ConvergenceSheet(0.05)},
        {
            "lens": PixelatedDeflection(*np.random.default_rng(0).normal(size=(2, 6, 7)), 0.1)
            + Shear(0.1, 0.0)
        },
        {"lens": PixelatedDeflection.from_potential(np.random.default_rng(0).normal(size=(6, 7)), 0.1)},
        {"lens_light": Sersic(2.0 * u.electron / u.arcsec**2, 0.5 * u.arcsec, 4.0)},
        {"lens_light": (Sersic(2.0, 0.5, 4.0), Sersic(1.0, 1.5, 1.0))},
        {"lens_light": (Sersic(2.0, 0.5, 4.0), MultiGaussian([0.1, 0.3], [1.0, 2.0]))},
        {"lens": None, "source_model": None, "covariance": np.zeros((0, 0)), "covariance_names": ()},
    ],
    ids=[
        "no lens",
        "one lens",
        "system of one",
        "many",
        "maps",
        "a potential",
        "light with units",
        "two lights",
        "Gaussians among them",
        "no models",
    ],
)
def test_kinds_of_models_round_trip(tmp_path, changes, make):
    result = make(shape=(8, 8), **changes)
    result.write(tmp_path / "out.fits")
    again = SuperResolution.read(tmp_path / "out.fits")
    for field in ("lens", "source_model", "lens_light"):
        one, two = getattr(result, field), getattr(again, field)
        assert type(one) is type(two)
        pairs = zip(one, two, strict=True) if isinstance(one, list | tuple) else [(one, two)]
        for pair in pairs:
            if pair[0] is not None:
                same_models(*pair)
    assert again.covariance.shape == result.covariance.shape


def test_models_of_ones_own_read_back(tmp_path, make):
    """A lens of one's own, and a source that no kind of resolver makes yet."""

    class Cored(MassModel):
        theta_E = Parameter("Einstein radius", unit=u.arcsec)
        _deflection = staticmethod(lambda x, y, theta_E: (theta_E * x, theta_E * y))

        def __init__(self, theta_E, table, power=2):
            super().__init__(theta_E=theta_E)
            self.table, self.power = table, power

    source = Sersic2D(1.0, 0.2, 2.0, fixed={"n": True})
    result = make(shape=(8, 8), lens=Cored(1.1, np.eye(3), power=4), source_model=source)
    result.write(tmp_path / "out.fits")
    again = SuperResolution.read(tmp_path / "out.fits")
    assert type(again.lens) is Cored and again.lens.power == 4
    np.testing.assert_array_equal(again.lens.table, np.eye(3))
    same_models(source, again.source_model)


def test_a_file_of_layout_1_reads_the_same(tmp_path):
    """What lenssr wrote before it kept models as plain data; see `data/README.md`."""
    first = SuperResolution.read(OLD)
    first.write(tmp_path / "out.fits")
    again = SuperResolution.read(tmp_path / "out.fits")
    assert [type(part).__name__ for part in first.lens] == ["SIE", "Shear", "PixelatedDeflection"]
    assert first.lens[0].theta_E.bounds == (0.1, 3.0) and first.lens[0].e1.fixed
    assert first.lens[0].e2.std == np.sqrt(first.lens.covariance[2, 2])
    assert first.lens.covariance[0, 1] == -1.8752517051241122e-06
    sersic, gaussians = first.lens_light
    assert sersic.amplitude.unit == u.electron / u.arcsec**2 and sersic.n.fixed and sersic.r_eff.std == 0.02
    assert sersic.r_eff.bounds == (0.1, 2.0) and gaussians.sigma.tolist() == [0.1, 0.3]
    assert gaussians.covariance[1, 1] == 0.04
    same_models(first.lens, again.lens)
    np.testing.assert_array_equal(first.lens.covariance, again.lens.covariance)
    same_models(first.source_model, again.source_model)
    for one, two in zip(first.lens_light, again.lens_light, strict=True):
        same_models(one, two)


def test_interpolation_round_trips_without_source(tmp_path, plane, make, panels):
    bare = dict.fromkeys(
        ("lensed_source", "lens_light_image", "source", "lens", "source_model", "information")
    )
    names, kinds = (
        ("name", "component", "value", "error", "unit", "fixed"),
        (str, str, float, float, str, bool),
    )
    bare |= {"parameters": QTable(names=names, dtype=kinds), "image": plane(np.ones((16, 16)), 0.04)}
    bare["image"].meta["MODEL"] = False
    result = make(shape=(8, 8), covariance=np.zeros((0, 0)), covariance_names=(), **bare)
    result.write(tmp_path / "out.fits")
    again = SuperResolution.read(tmp_path / "out.fits")
    assert again.source is None
    assert again.lensed_source is None
    assert len(again.parameters) == 0
    assert again.parameters.colnames == result.parameters.colnames
    assert "interpolated" in panels(again.plot())
    assert "interpolated" in again.summary()
    assert "interpolated, without a model" in " ".join(
        fits.getheader(tmp_path / "out.fits", "SCI")["COMMENT"]
    )


@pytest.mark.parametrize("unit", [u.nJy, u.MJy / u.sr, u.adu, u.dimensionless_unscaled, 1e-20 * u.W / u.m**2])
def test_units_round_trip(tmp_path, unit, plane, make):
    unit = u.Unit(unit)
    result = make(shape=(8, 8), image=plane(np.ones((16, 16)), 0.04, unit=unit), sky=2 * unit)
    result.write(tmp_path / "out.fits")
    again = SuperResolution.read(tmp_path / "out.fits")
    assert again.image.unit == unit
    assert again.sky == result.sky


def test_without_wcs(tmp_path, plane, make, panels):
    flat = {
        "data": plane(np.ones((8, 8)), 0.08, wcs=False),
        "image": plane(np.ones((16, 16)), 0.04, wcs=False),
    }
    result = make(shape=(8, 8), meta={"pixel_scale": 0.08}, **flat)
    result.write(tmp_path / "out.fits")
    again = SuperResolution.read(tmp_path / "out.fits")
    assert again.data.wcs is None
    assert '16x16 at 0.04"' in repr(again)
    assert panels(again.plot())["data"].images[0].get_extent() == pytest.approx((-0.32, 0.32, -0.32, 0.32))


def test_figure_needs_a_pixel_scale(plane, make):
    bare = make(shape=(8, 8), meta={}, data=plane(np.ones((8, 8)), 0.08, wcs=False))
    assert "pixels" in bare.summary()
    with pytest.raises(InputError, match="pixel scale is not known"):
        bare.plot()


def test_meta_keeps_quantities_and_odd_floats(tmp_path, make):
    settings = {"fwhm": 0.1 * u.arcsec}
    meta = {"settings": settings, "best": np.float64(np.inf), "note": "β = θ − α", "n": np.int64(3)}
    result = make(shape=(8, 8), meta=meta, reduced_chi2=float("nan"))
    result.write(tmp_path / "out.fits")
    again = SuperResolution.read(tmp_path / "out.fits")
    assert again.meta == meta
    assert np.isnan(again.reduced_chi2)
