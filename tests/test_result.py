"""What a run returns: its FITS form, its text and its figure, on inputs made by hand."""

import json
import os
import warnings

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.table import QTable
from astropy.wcs import WCS

from lenssr._result_fits import EXACT
from lenssr.exceptions import InputError
from lenssr.light import Sersic
from lenssr.mass import EPL, NFW, SIE, ConvergenceSheet, MassSystem, PixelatedDeflection, PointMass, Shear
from lenssr.result import FailedResolution, SuperResolution

IMAGES = ("image", "lensed_source", "lens_light_image", "source", "data", "model_image", "residual")
UNIT = u.electron / u.s


def tangent(scale, shape, angle=20.0):
    """A rotated TAN projection with east to the left."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [34.123456789012345, -5.987654321098765]
    wcs.wcs.crpix = [(shape[1] + 1) / 2, (shape[0] + 1) / 2]
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    wcs.wcs.cd = scale / 3600 * np.array([[-cos, sin], [sin, cos]])
    wcs.wcs.set()
    return wcs


def plane(array, scale, *, unit=UNIT, error=None, mask=None, psf=None, meta=None, wcs=True):
    return CCDData(
        array,
        unit=unit,
        wcs=tangent(scale, array.shape) if wcs else None,
        uncertainty=None if error is None else StdDevUncertainty(error),
        mask=mask,
        psf=psf,
        meta={} if meta is None else meta,
    )


def fitted_lens():
    lens = SIE(1.2, 0.1, -0.05, 0.01, 0.02) + Shear(0.03, -0.02)
    half = np.random.default_rng(1).normal(size=(9, 9)) * 1e-3
    covariance = half @ half.T
    covariance[7:] = covariance[:, 7:] = 0.0
    lens = lens.with_vector(lens.vector, covariance=covariance)
    lens[0].theta_E.bounds = (0.1, 3.0)
    lens[0].e1.fixed = True
    return lens


def fitted_galaxy(**values):
    galaxy = Sersic(**values, bounds={"n": (0.3, 8.0)}, fixed={"x_0": True})
    galaxy.r_eff.std = 0.0123
    galaxy.amplitude.std = 0.5
    return galaxy


def positions(shape, scale):
    return (np.indices(shape) - np.reshape([(n - 1) / 2 for n in shape], (2, 1, 1)))[::-1] * scale


def lensed(galaxy, lens, shape, scale):
    x, y = positions(shape, scale)
    ax, ay = lens.deflection(x, y)
    return galaxy(x - ax, y - ay) * scale**2


def table():
    return QTable(
        {
            "name": ["theta_E_0", "e1_0", "r_eff", "level"],
            "component": ["lens", "lens", "source", "sky"],
            "value": [1.2, 0.1, 0.3, 0.01],
            "error": [0.0012, np.nan, 0.0123, 0.002],
            "unit": ["arcsec", "", "arcsec", "electron / s"],
            "fixed": [False, True, False, False],
        },
        meta={"note": "errors are conditional on the model"},
    )


def make(shape=(31, 36), scale=0.08, **changes):
    """Make a result by hand: numbers that look like one, not a fit."""
    rng = np.random.default_rng(3)
    lens, galaxy = fitted_lens(), fitted_galaxy(amplitude=60.0, r_eff=0.25, n=1.3, x_0=0.05, y_0=-0.08)
    fine = tuple(2 * n for n in shape)
    mask = np.zeros(shape, bool)
    mask[2:7, 25:32] = True
    model, high = lensed(galaxy, lens, shape, scale), lensed(galaxy, lens, fine, scale / 2)
    noise = np.full(shape, 0.02)
    data = model + rng.normal(size=shape) * noise
    chi2 = np.where(mask, 0, ((data - model) / noise) ** 2)
    psf = np.outer(np.hanning(9), np.hanning(9))[1:-1, 1:-1]
    x, y = positions((40, 44), 0.025)
    own_grid = {"x_0": 0.05, "y_0": -0.08, "pixel_scale": 0.025, "model": True}
    header = fits.Header([("OBJECT", "a lens", "name of the target"), ("EXPTIME", 1200.0)])
    header["HISTORY"] = "made by hand"
    fields = {
        "image": plane(
            high,
            scale / 2,
            error=0.01 + 0.05 * high,
            mask=np.kron(mask, np.ones((2, 2))) > 0,
            psf=psf,
            meta={"model": True, "pixel_scale": scale / 2},
        ),
        "lensed_source": plane(high, scale / 2),
        "lens_light_image": plane(np.zeros(fine), scale / 2),
        "source": plane(
            galaxy(x + 0.05, y - 0.08), 0.025, unit=UNIT / u.arcsec**2, error=np.ones((40, 44)), meta=own_grid
        ),
        "data": plane(np.where(mask, 0, data), scale, mask=mask, meta=header),
        "model_image": plane(model, scale),
        "residual": plane(np.where(mask, 0, data - model), scale, error=noise, mask=mask),
        "chi2_map": chi2,
        "reduced_chi2": float(chi2.sum() / (~mask).sum()),
        "lens": lens,
        "source_model": galaxy,
        "lens_light": None,
        "sky": 0.01 * UNIT,
        "sky_error": 0.002 * UNIT,
        "parameters": table(),
        "covariance": np.diag([1.44e-6, 1.5e-4, 4e-6]),
        "covariance_names": ("theta_E_0", "r_eff", "level"),
        "flags": ("correlated_noise", "psf_undersampled"),
        "ok": True,
        "meta": {
            "source": "sersic",
            "lens": None,
            "fit_lens": True,
            "lens_light": None,
            "oversampling": "auto",
            "measures": {"bad_chi2": [1.0, 1100]},
            "versions": {"lenssr": "0.1", "torch": "2.13"},
            "seconds": 1.25,
            "scale": 2,
        },
    }
    return SuperResolution(**{**fields, **changes})


@pytest.fixture(scope="module")
def result():
    return make()


@pytest.fixture(scope="module")
def path(result, tmp_path_factory):
    path = tmp_path_factory.mktemp("written") / "out.fits"
    result.write(path)
    return path


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


# ---------------------------------------------------------------- round trip


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


@pytest.mark.parametrize("field", ["chi2_map", "covariance"])
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
        {"lens_light": Sersic(2.0 * u.electron / u.arcsec**2, 0.5 * u.arcsec, 4.0)},
        {"lens_light": [Sersic(2.0, 0.5, 4.0), Sersic(1.0, 1.5, 1.0)]},
        {"lens": None, "source_model": None, "covariance": np.zeros((0, 0)), "covariance_names": ()},
    ],
    ids=[
        "no lens",
        "one lens",
        "system of one",
        "many",
        "maps",
        "light with units",
        "two lights",
        "no models",
    ],
)
def test_kinds_of_models_round_trip(tmp_path, changes):
    result = make(shape=(8, 8), **changes)
    result.write(tmp_path / "out.fits")
    again = SuperResolution.read(tmp_path / "out.fits")
    for field in ("lens", "source_model", "lens_light"):
        one, two = getattr(result, field), getattr(again, field)
        assert type(one) is type(two)
        pairs = zip(one, two, strict=True) if isinstance(one, list) else [(one, two)]
        for pair in pairs:
            if pair[0] is not None:
                same_models(*pair)
    assert again.covariance.shape == result.covariance.shape


def test_interpolation_round_trips_without_source(tmp_path):
    bare = dict.fromkeys(("lensed_source", "lens_light_image", "source", "lens", "source_model"))
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
def test_units_round_trip(tmp_path, unit):
    unit = u.Unit(unit)
    result = make(shape=(8, 8), image=plane(np.ones((16, 16)), 0.04, unit=unit), sky=2 * unit)
    result.write(tmp_path / "out.fits")
    again = SuperResolution.read(tmp_path / "out.fits")
    assert again.image.unit == unit
    assert again.sky == result.sky


def test_without_wcs(tmp_path):
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


def test_figure_needs_a_pixel_scale():
    bare = make(shape=(8, 8), meta={}, data=plane(np.ones((8, 8)), 0.08, wcs=False))
    assert "pixels" in bare.summary()
    with pytest.raises(InputError, match="pixel scale is not known"):
        bare.plot()


def test_meta_keeps_quantities_and_odd_floats(tmp_path):
    settings = {"fwhm": 0.1 * u.arcsec}
    meta = {"settings": settings, "best": np.float64(np.inf), "note": "β = θ − α", "n": np.int64(3)}
    result = make(shape=(8, 8), meta=meta, reduced_chi2=float("nan"))
    result.write(tmp_path / "out.fits")
    again = SuperResolution.read(tmp_path / "out.fits")
    assert again.meta == meta
    assert np.isnan(again.reduced_chi2)


# ---------------------------------------------------------------- the file


@pytest.fixture(scope="module")
def written(path):
    with fits.open(path) as hdulist:
        yield hdulist


def test_file_is_standard_fits(written):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        written.verify("exception")
    assert written[0].data is None


def test_file_has_the_planes_in_order(written):
    names = [hdu.name for hdu in written][1:]
    assert names[:11] == [
        "SCI",
        "ERR",
        "MASK",
        "LENSED_SOURCE",
        "LENS_LIGHT",
        "SOURCE",
        "SOURCE_ERR",
        "MODEL",
        "RESIDUAL",
        "PSF",
        "LENS",
    ]
    assert {"DATA", "NOISE", "CHI2", "COVARIANCE"} <= set(names)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", ["SCI", "ERR", "LENSED_SOURCE", "LENS_LIGHT", "MODEL", "NOISE", "DATA"])
def test_planes_carry_unit_and_wcs(written, name):
    header = written[name].header
    assert u.Unit(header["BUNIT"]) == UNIT
    assert header["CTYPE1"] == "RA---TAN"
    assert {"CD1_1", "CD2_1"} <= set(header)
    assert not {"PC1_1", "CDELT1"} & set(header)


def test_source_is_a_brightness(written):
    assert u.Unit(written["SOURCE"].header["BUNIT"]) == UNIT / u.arcsec**2
    assert written["SOURCE"].header["PIXSCALE"] == 0.025


@pytest.mark.parametrize("name", ["PRIMARY", "SCI"])
def test_headers_are_honest(written, name):
    header = written[name].header
    assert header["FLAGS"] == "correlated_noise,psf_undersampled"
    assert header["LSR_OK"] is True
    comments = " ".join(header["COMMENT"])
    assert "SCI is a model image" in comments
    assert header["MODELIMG"] is True
    assert "conditional on the model and correlated between pixels" in comments


def test_primary_header_has_settings_and_versions(written):
    header = written[0].header
    assert [header[key] for key in ("SCALE", "SOURCE", "LENS", "FIT_LENS")] == [2, "sersic", None, True]
    assert header["LENSLITE"] is None
    assert header["OVERSAMP"] == "auto"
    assert header["V_TORCH"] == "2.13"
    assert header["V_LENSSR"] == "0.1"
    assert not any(len(key) > 8 for key in header)


def test_lens_table_has_a_row_for_every_parameter(result, written):
    rows = written["LENS"].data
    assert " ".join(rows.columns.names) == "component model name value error unit fixed lower upper"
    assert len(rows) == 9 + 7
    first = rows[0]
    assert (first["component"], first["model"], first["name"]) == ("lens.0", "SIE", "theta_E")
    assert (first["value"], first["unit"], first["lower"], first["upper"]) == (1.2, "arcsec", 0.1, 3.0)
    assert first["error"] == result.lens[0].theta_E.std


def test_nothing_is_pickled(written):
    for row in written["META"].data:
        json.loads(row["json"])


def test_long_values_are_kept_whole(tmp_path):
    flags, lens = tuple(f"flag_{i}" for i in range(20)), "SIE(theta_E=1.2345678901234567)" * 5
    make(shape=(8, 8), flags=flags, meta={"lens": lens}).write(tmp_path / "out.fits")
    header = fits.getheader(tmp_path / "out.fits")
    assert header["FLAGS"] == ",".join(flags)
    assert header["LENS"] == lens


# ---------------------------------------------------------------- writing and reading go wrong


def test_existing_file_is_kept(result, tmp_path):
    path = tmp_path / "out.fits"
    path.write_text("precious")
    with pytest.raises(InputError, match=r"out\.fits exists: .*overwrite=True"):
        result.write(path)
    assert path.read_text() == "precious"
    result.write(path, overwrite=True)
    assert SuperResolution.read(path).flags == result.flags
    assert os.listdir(tmp_path) == ["out.fits"]


def test_missing_folder_is_refused(result, tmp_path):
    with pytest.raises(InputError, match="does not exist: make it"):
        result.write(tmp_path / "none" / "out.fits")


def test_folder_is_refused(result, tmp_path):
    with pytest.raises(InputError, match="is a folder"):
        result.write(tmp_path)


def test_unwritable_folder_is_refused(result, tmp_path, monkeypatch):
    # by way of os.access, since tests may run as a user who may write anywhere
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(InputError, match="not writable"):
        result.write(tmp_path / "out.fits")


@pytest.mark.parametrize("old", [None, "precious"])
def test_failed_write_leaves_nothing(tmp_path, monkeypatch, old):
    path = tmp_path / "out.fits"
    if old is not None:
        path.write_text(old)

    def full(self, name, **kwargs):
        name.write_text("half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fits.HDUList, "writeto", full)
    with pytest.raises(InputError, match="No space left on device"):
        make(shape=(8, 8)).write(path, overwrite=True)
    assert os.listdir(tmp_path) == ([] if old is None else ["out.fits"])


def test_meta_that_json_cannot_hold_is_refused(tmp_path):
    with pytest.raises(TypeError, match="leave it out"):
        make(shape=(8, 8), meta={"function": print}).write(tmp_path / "out.fits")
    assert os.listdir(tmp_path) == []


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        SuperResolution.read(tmp_path / "none.fits")


def test_other_fits_is_refused(tmp_path):
    fits.PrimaryHDU(np.ones((3, 3))).writeto(tmp_path / "other.fits")
    with pytest.raises(InputError, match="was not written by lenssr"):
        SuperResolution.read(tmp_path / "other.fits")


def test_text_file_is_refused(tmp_path):
    (tmp_path / "text.fits").write_text("not FITS")
    with pytest.raises(InputError, match="cannot be read"):
        SuperResolution.read(tmp_path / "text.fits")


@pytest.mark.filterwarnings("ignore")
def test_truncated_file_is_refused(result, tmp_path):
    path = tmp_path / "out.fits"
    result.write(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    with pytest.raises(InputError, match=r"out\.fits"):
        SuperResolution.read(path)


def test_newer_layout_is_refused(result, tmp_path):
    path = tmp_path / "out.fits"
    result.write(path)
    fits.setval(path, "FILEVER", value=99)
    with pytest.raises(InputError, match="update lenssr"):
        SuperResolution.read(path)


def test_unknown_model_is_refused(result, tmp_path):
    path = tmp_path / "out.fits"
    result.write(path)
    with fits.open(path, mode="update") as hdulist:
        hdulist["LENS"].data["model"] = "Foo"
    with pytest.raises(InputError, match="'Foo', which is not known"):
        SuperResolution.read(path)


# ---------------------------------------------------------------- text


def test_summary_says_verdict_and_errors(result):
    text = result.summary()
    assert "ok; flags: correlated_noise, psf_undersampled" in text
    assert "1.2000 +- 0.0012" in text
    assert "(fixed)" in text
    assert '36 x 31 pixels of 0.08"' in text
    assert "35 masked" in text


def test_repr_is_one_line(result):
    assert repr(result).startswith('<SuperResolution 72x62 at 0.04", ok, reduced chi2 ')
    assert "\n" not in repr(result)


def test_bad_verdict_is_said():
    bad = make(shape=(8, 8), ok=False, flags=("bad_chi2",))
    assert "not ok" in repr(bad)
    assert "NOT OK; flags: bad_chi2" in bad.summary()


def test_failed_resolution_is_false():
    error = InputError("all pixels are masked")
    failed = FailedResolution(error, "a.fits")
    assert not failed
    assert (failed.ok, failed.flags, failed.error, failed.name) == (False, ("failed",), error, "a.fits")


# ---------------------------------------------------------------- figure


def panels(figure):
    return {axes.get_title(loc="left").split(",")[0]: axes for axes in figure.axes if axes.images}


@pytest.fixture(scope="module")
def figure(result):
    return result.plot()


def test_figure_has_five_panels(figure):
    assert list(panels(figure)) == ["data", "model", "residual", "super-resolved model", "source"]


def test_panels_are_in_arcsec(figure):
    shown = panels(figure)["data"].images[0]
    np.testing.assert_allclose(shown.get_extent(), (-1.44, 1.44, -1.24, 1.24))
    assert shown.origin == "lower"
    for axes in panels(figure).values():
        assert axes.get_aspect() == 1.0
        assert axes.get_xlabel() == "x (arcsec)"


def test_source_panel_is_where_the_source_is(figure):
    extent = panels(figure)["source"].images[0].get_extent()
    np.testing.assert_allclose(extent, (0.05 - 0.55, 0.05 + 0.55, -0.08 - 0.5, -0.08 + 0.5))


def test_source_panel_has_room_for_the_caustics():
    wide = make(lens=SIE(1.1, 0.5, 0.0))
    axes = panels(wide.plot())["source"]
    x, y = np.concatenate([np.transpose(line.get_data()) for line in axes.lines]).T
    assert max(abs(x)) > 0.6
    for values, limits in ((x, axes.get_xlim()), (y, axes.get_ylim())):
        assert limits[0] < min(values)
        assert max(values) < limits[1]


def test_data_and_model_share_their_stretch(figure):
    limits = [panels(figure)[name].images[0].get_clim() for name in ("data", "model")]
    assert limits[0] == limits[1]


def test_residual_is_in_sigma(result, figure):
    shown = panels(figure)["residual"].images[0]
    assert shown.get_clim() == (-5, 5)
    good = ~result.data.mask
    np.testing.assert_allclose(shown.get_array()[good], (result.residual.data / 0.02)[good])


@pytest.mark.parametrize("name", ["data", "residual"])
def test_masked_pixels_are_left_out(result, figure, name):
    shown = panels(figure)[name].images[0].get_array()
    np.testing.assert_array_equal(np.ma.getmaskarray(shown), result.data.mask)


def test_colour_bars_have_units(figure):
    labels = [axes.child_axes[0].get_ylabel() for axes in panels(figure).values()]
    assert labels == ["electron / s", "electron / s", "sigma", "electron / s", "electron / (s arcsec2)"]


def test_curves_lie_where_the_lens_puts_them(result, figure):
    lines = panels(figure)["super-resolved model"].lines
    x, y = np.concatenate([np.transpose(line.get_data()) for line in lines]).T
    assert len(x) > 50
    assert np.median(np.abs(1 / result.lens.magnification(x, y))) < 0.02
    assert panels(figure)["source"].lines


def test_title_says_how_good(figure):
    title = figure.get_suptitle()
    assert "chi^2" in title
    assert "1.2000 ± 0.0012" in title


@pytest.mark.parametrize("suffix", ["png", "pdf"])
def test_plot_is_saved(result, tmp_path, suffix):
    result.plot(path=tmp_path / f"out.{suffix}")
    assert os.listdir(tmp_path) == [f"out.{suffix}"]


def test_plot_of_another_suffix_is_refused(result, tmp_path):
    with pytest.raises(InputError, match=r"end its name in \.png"):
        result.plot(path=tmp_path / "out.fits")


def test_plot_into_a_figure(result):
    from matplotlib.figure import Figure

    given = Figure()
    assert result.plot(figure=given) is given
    assert len(panels(given)) == 5


def test_flat_and_masked_images_are_drawn():
    flat = plane(np.zeros((8, 8)), 0.08, mask=np.ones((8, 8), bool))
    make(shape=(8, 8), data=flat).plot()
