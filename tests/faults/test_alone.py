"""One bad image, row or band fails alone, and says why."""

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.modeling.models import Sersic2D

from lenssr import SIE, FailedResolution, InputError, MultiPlane, SersicPhotometry, Shear, SuperResolver
from lenssr.exceptions import LensSRWarning
from lenssr.photometry import decode_flags

RNG = np.random.default_rng(3)
Y, X = np.indices((60, 60))  # two galaxies
FIELD = Sersic2D(1, 4, 1, 20.3, 19.6, 0.3, 0.5)(X, Y) + Sersic2D(1, 4, 1, 42.2, 40.6, 0.2, 0.5)(X, Y)
FIELD = FIELD + RNG.normal(0, 0.02, FIELD.shape)


def photometry(**options):
    return SersicPhotometry(psf=2 * u.pix, fit_shape=17, intervals="gaussian", **options)


def names(table):
    return [
        set(one) & {"NO_DATA", "FAILED", "BAD_START", "DUPLICATE"} for one in decode_flags(table["flags"])
    ]


def image(path, **cards):
    header = fits.Header({"BUNIT": "electron/s", "CDELT1": -0.05 / 3600, "CDELT2": 0.05 / 3600})
    header.update(CTYPE1="RA---TAN", CTYPE2="DEC--TAN")
    header.update(cards)
    fits.PrimaryHDU(RNG.normal(1, 0.1, (24, 24)), header).writeto(path)
    return path


def test_map_goes_on_whatever_a_header_does(tmp_path):
    good = image(tmp_path / "a.fits")
    raw = good.read_bytes()
    place = raw.index(b"CTYPE1  =")
    bad = tmp_path / "b.fits"
    bad.write_bytes(raw[:place] + b"CTYPE1  =                    5".ljust(80) + raw[place + 80 :])
    found = SuperResolver(source="interpolation", noise=0.1).map([good, bad, good])
    assert [isinstance(one, FailedResolution) for one in found] == [False, True, False]
    assert "AttributeError" in str(found[1].error) and isinstance(found[1].error, InputError)


def test_map_takes_a_folder_a_pattern_or_one_path(tmp_path):
    for name in ("b.fits", "a.fits", "c.FIT"):
        image(tmp_path / name)
    (tmp_path / "notes.txt").write_text("none")
    resolver = SuperResolver(source="interpolation", noise=0.1)
    assert len(resolver.map(str(tmp_path))) == 3
    assert len(resolver.map(f"{tmp_path}/*.fits")) == 2
    assert len(resolver.map(tmp_path / "a.fits")) == 1
    with pytest.raises(InputError, match="no file has the pattern"):
        resolver.map(f"{tmp_path}/*.png")


def test_images_that_fail_are_rows_of_a_table():
    images = [FIELD, "missing.fits", np.ones((3, 3, 3))]
    with pytest.warns(LensSRWarning, match=r"2 of 3 rows failed, the first is row 1 \(missing.fits"):
        table = photometry().map(images, error=0.02, init_params={"x": [20.0], "y": [20.0]})
    assert names(table) == [set(), {"NO_DATA", "FAILED"}, {"NO_DATA", "FAILED"}]
    assert "3 dimensions" in table.meta["failures"]["2"]
    assert list(table["image"]) == [0, 1, 2]
    assert table["x"][0] == pytest.approx(20.3, abs=0.2)


def test_a_grouper_that_raises_is_named():
    def group(x, y):
        if len(x) == 2:
            raise KeyError("two")
        return np.arange(len(x)) + 1

    places = [{"x": [200.0], "y": [20.0]}, {"x": [20.0], "y": [20.0]}, {"x": [20.0, 42.0], "y": [20.0, 41.0]}]
    with pytest.warns(LensSRWarning, match="KeyError: 'two'"):
        table = photometry(grouper=group).map([FIELD] * 3, error=0.02, init_params=places)
    assert names(table) == [{"NO_DATA"}, set(), {"NO_DATA", "FAILED"}]


def test_rows_that_mean_nothing_are_flagged():
    places = {"x": [20.0] * 5 + [42.0, np.nan, 1e300], "y": [20.0] * 5 + [41.0, 5.0, 5.0]}
    places["r_eff"] = [4.0] * 5 + [-3.0, 4.0, 4.0]
    table = photometry()(FIELD, error=np.full(FIELD.shape, 0.02), init_params=places)
    expected = [set(), *[{"NO_DATA", "DUPLICATE"}] * 4, {"BAD_START"}, {"NO_DATA"}, {"NO_DATA"}]
    assert names(table) == expected
    assert table["x"][5] == pytest.approx(42.2, abs=0.2)


def test_bands_of_unequal_shapes_are_refused():
    with pytest.raises(InputError, match="the bands have the shapes"):
        photometry()({"g": FIELD, "r": FIELD[:50]}, error=0.02)
    with pytest.raises(InputError, match="no bands"):
        photometry()({}, error=0.02)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda image: -image, {}, "darker than the sky and none is brighter"),
        (lambda image: image * 1e30, {"noise": 1e28}, "a value of"),
        (lambda image: image, {"pixel_scale": 3600.0}, "pixels of 3600 arcsec"),
        (lambda image: image, {"pixel_scale": 1e-9}, "pixels of 1e-09 arcsec"),
        (lambda image: image * 1e-300, {"noise": 1e-302}, "no pixel is above"),
        (lambda image: image, {"noise": 1e25}, "the errors reach"),
        (lambda image: image, {"noise": 1e-300}, "the errors go down to 1e-300"),
        (lambda image: -image - 10, {}, "check the sign"),
        (lambda image: image, {"psf": 100 * u.arcsec}, "100 arcsec"),
        (lambda image: image, {"psf": 0.001 * u.arcsec}, "times as large as the PSF"),
    ],
)
def test_nonsense_is_refused(change, options, message):
    options = {"noise": 0.02, "pixel_scale": 0.05} | options
    with pytest.raises(InputError, match=message):
        SuperResolver(source="interpolation")(change(FIELD), **options)


@pytest.mark.parametrize("planes", [False, True])
def test_a_shear_of_1000_is_refused(planes):
    lens = SIE(1.0) + Shear(1000.0, 0.0)
    lens = MultiPlane([(0.3, SIE(1.0)), (0.5, lens)], z_source=2.0) if planes else lens
    with pytest.raises(InputError, match="a shear of 1000"):
        SuperResolver(source="sersic", lens=lens)
