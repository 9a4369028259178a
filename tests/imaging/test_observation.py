"""Any image becomes an Observation with the right numbers, or is refused with the reason."""

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.io import fits
from astropy.nddata import (
    CCDData,
    InverseVariance,
    NDData,
    StdDevUncertainty,
    UnknownUncertainty,
    VarianceUncertainty,
)
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st

from lenssr.exceptions import InputError, LensSRWarning
from lenssr.imaging import PSF, GaussianNoise, Observation, PoissonNoise
from lenssr.imaging.archive_units import SPELLINGS, parse_unit

SHAPE = (20, 24)
GOOD = dict(pixel_scale=0.05, unit="electron/s", noise=0.1)


def image(shape=SHAPE, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def make_wcs(scale=0.05, angle=0.0, flip=False):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = 150.0, 2.0
    wcs.wcs.crpix = 5.0, 7.0
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    wcs.wcs.cd = np.array([[-c if not flip else c, s], [s if not flip else -s, c]]) * scale / 3600
    wcs.wcs.set()
    return wcs


def write(path, data=None, header=None, **planes):
    data = image() if data is None else data
    header = fits.Header({"BUNIT": "electron/s"} | (header or {}))
    header.update(make_wcs().to_header())
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(data, header, name="SCI")]
    hdus += [fits.ImageHDU(np.asarray(plane), name=name) for name, plane in planes.items()]
    fits.HDUList(hdus).writeto(path)
    return path


def test_array_with_scale_and_unit():
    observation = Observation.from_any(image(), **GOOD)
    assert observation.unit == u.electron / u.s
    assert observation.pixel_scale == 0.05
    assert observation.flags == ()
    assert np.array_equal(observation.data, image())
    assert observation.psf is None
    assert not observation.mask.any()


@pytest.mark.parametrize("angle", [0, 30, 90, 200])
@pytest.mark.parametrize("flip", [False, True])
def test_rotated_and_flipped_wcs(angle, flip):
    ccd = CCDData(image(), unit="electron/s", wcs=make_wcs(0.04, angle, flip))
    observation = Observation.from_any(ccd, noise=0.1)
    assert observation.pixel_scale == pytest.approx(0.04, rel=1e-9)
    assert np.array_equal(observation.data, ccd.data)


@pytest.mark.parametrize("dtype", [">f4", "<f8", ">i2", "u1", "int64"])
def test_kinds_of_number(dtype):
    data = (image() * 20 + 100).astype(dtype)
    observation = Observation.from_any(data, **GOOD)
    assert observation.data.dtype == np.float64
    assert np.array_equal(observation.data, data.astype(float))


def test_unsigned_integers_in_fits(tmp_path):
    data = np.arange(480, dtype=np.uint16).reshape(SHAPE) + 40000
    path = write(tmp_path / "a.fits", data)
    assert fits.getheader(path, 1)["BZERO"] == 32768
    assert np.array_equal(Observation.from_any(path).data, data)


@pytest.mark.parametrize("shape", [(21, 21), (20, 20), (17, 40), (40, 17), (2000, 2000)])
def test_shapes(shape):
    observation = Observation.from_any(image(shape), **GOOD)
    assert observation.shape == shape
    assert observation.grid.x.shape == shape
    assert "small_image" not in observation.flags


def test_small_image_is_flagged():
    assert "small_image" in Observation.from_any(image((8, 8)), **GOOD).flags


def test_constant_image_is_flagged_and_has_noise():
    observation = Observation.from_any(np.full(SHAPE, 3.0), pixel_scale=0.05, unit="nJy")
    assert "constant_image" in observation.flags
    assert observation.noise.sigma > 0


def test_non_finite_pixels_are_masked_with_one_warning():
    data = image()
    data[3, 4], data[5, 6], data[7, 8] = np.nan, np.inf, -np.inf
    mask = np.zeros(SHAPE, bool)
    mask[3, 4] = mask[0, 0] = True
    with pytest.warns(LensSRWarning, match="2 of 480 pixels") as caught:
        observation = Observation.from_any(data, mask=mask, **GOOD)
    assert len(caught) == 1
    assert observation.mask.sum() == observation.meta["masked"] == 4
    assert np.isfinite(observation.data).all()
    assert (observation.data[observation.mask] == 0).all()


@pytest.mark.parametrize(
    "uncertainty",
    [
        StdDevUncertainty(np.full(SHAPE, 0.5)),
        VarianceUncertainty(np.full(SHAPE, 0.25)),
        InverseVariance(np.full(SHAPE, 4.0)),
        StdDevUncertainty(np.full(SHAPE, 500.0), unit=u.uJy),
    ],
    ids=lambda value: type(value).__name__,
)
def test_uncertainties(uncertainty):
    ccd = NDData(image(), unit=u.mJy, wcs=make_wcs(), uncertainty=uncertainty)
    observation = Observation.from_any(ccd)
    assert np.allclose(observation.error, 0.5)
    assert isinstance(observation.noise, GaussianNoise)
    assert observation.flags == ()


def test_zero_weight_is_masked():
    weight = np.full(SHAPE, 4.0)
    weight[2, 2] = 0
    observation = Observation.from_any(
        CCDData(image(), unit="nJy", wcs=make_wcs(), uncertainty=InverseVariance(weight))
    )
    assert observation.mask.sum() == 1 and observation.mask[2, 2]
    assert observation.error[2, 2] == 0.5


def test_ccddata_brings_everything():
    mask = np.zeros(SHAPE, bool)
    mask[1, 2] = True
    psf = PSF.from_fwhm(0.15 * u.arcsec).kernel(0.05)
    ccd = CCDData(
        image(),
        unit="electron/s",
        wcs=make_wcs(),
        mask=mask,
        psf=psf,
        uncertainty=StdDevUncertainty(np.ones(SHAPE)),
    )
    ccd.meta.update(EXPTIME=500.0, MAGZERO=25.5, FILTER="F475X")
    observation = Observation.from_any(ccd)
    assert observation.mask[1, 2] and observation.mask.sum() == 1
    assert np.allclose(observation.psf.kernel(0.05), psf)
    assert observation.meta["exposure"] == 500
    assert observation.meta["FILTER"] == "F475X"
    assert observation.ab_magnitude(100.0).value == pytest.approx(20.5)


def test_ccddata_written_by_astropy(tmp_path):
    ccd = CCDData(
        image(), unit="electron/s", wcs=make_wcs(), uncertainty=VarianceUncertainty(np.full(SHAPE, 4.0))
    )
    ccd.write(tmp_path / "ccd.fits")
    observation = Observation.from_any(tmp_path / "ccd.fits")
    assert np.allclose(observation.error, 2)


@pytest.mark.parametrize(
    ("name", "value"), [("ERR", 0.5), ("RMS", 0.5), ("VAR", 0.25), ("VARIANCE", 0.25), ("WHT", 4), ("IVM", 4)]
)
def test_error_planes_of_files(tmp_path, name, value):
    path = write(tmp_path / "a.fits", **{name: np.full(SHAPE, float(value))})
    assert np.allclose(Observation.from_any(path).error, 0.5)


def test_dq_and_psf_of_files(tmp_path):
    quality = np.zeros(SHAPE, np.int16)
    quality[4, 5] = 64
    psf = PSF.from_fwhm(0.15 * u.arcsec).kernel(0.05)
    path = write(tmp_path / "a.fits", DQ=quality, PSF=psf, ERR=np.ones(SHAPE))
    with fits.open(path) as hdus:
        observation = Observation.from_any(hdus)
    assert observation.mask[4, 5] and observation.mask.sum() == 1
    assert np.allclose(observation.psf.array, psf)


def test_image_in_the_primary_hdu(tmp_path):
    header = make_wcs().to_header()
    header["BUNIT"] = "nJy"
    fits.PrimaryHDU(image(), header).writeto(tmp_path / "a.fits")
    observation = Observation.from_any(tmp_path / "a.fits")
    assert observation.unit == u.nJy
    assert observation.meta["zero_point"] == pytest.approx(31.4, abs=1e-3)


def test_hdus_by_other_names(tmp_path):
    header = make_wcs().to_header()
    hdus = [
        fits.PrimaryHDU(),
        fits.ImageHDU(np.ones(SHAPE), header, name="G"),
        fits.ImageHDU(image(), header, name="R"),
    ]
    hdus.append(fits.ImageHDU(np.full(SHAPE, 0.5), name="R_ERR"))
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    observation = Observation.from_any(tmp_path / "a.fits", hdus={"sci": "R", "err": "R_ERR"}, unit="nJy")
    assert np.array_equal(observation.data, image())
    assert np.allclose(observation.error, 0.5)
    with pytest.raises(InputError, match="no HDU 'B'.*'R_ERR'"):
        Observation.from_any(tmp_path / "a.fits", hdus={"sci": "B"})
    with pytest.raises(InputError, match="key 'science'"):
        Observation.from_any(tmp_path / "a.fits", hdus={"science": "R"})
    with pytest.raises(InputError, match="several images .HDU 1 G 24 x 20, HDU 2 R 24 x 20.: choose one by"):
        Observation.from_any(tmp_path / "a.fits", unit="nJy")
    assert np.array_equal(Observation.from_any(tmp_path / "a.fits", unit="nJy", band="r").data, image())


def test_exposure_keyword_gives_poisson_noise(tmp_path):
    observation = Observation.from_any(write(tmp_path / "a.fits", header={"EXPTIME": 500.0}))
    assert observation.flags == ("noise_from_exposure",)
    assert isinstance(observation.noise, PoissonNoise)
    model = torch.full(SHAPE, 100.0, dtype=torch.float64)
    variance = observation.noise.moments(model)[2]
    assert float(variance.mean()) == pytest.approx(100 / 500 + 1, rel=0.15)


def test_exposure_map_gives_poisson_noise(tmp_path):
    exposure = np.full(SHAPE, 500.0)
    exposure[:, 12:] = 250
    observation = Observation.from_any(write(tmp_path / "a.fits", EXPTIME=exposure))
    variance = observation.noise.moments(torch.full(SHAPE, 1e4, dtype=torch.float64))[2]
    assert float(variance[0, -1] - variance[0, 0]) == pytest.approx(1e4 / 500, rel=1e-3)
    assert observation.meta["exposure"] == 375


def test_counts_scatter_by_themselves_whatever_the_exposure():
    rng = np.random.default_rng(3)
    counts = rng.poisson(np.full(SHAPE, 400.0))
    ccd = CCDData(counts, unit="electron", wcs=make_wcs(), meta={"EXPTIME": 700.0})
    observation = Observation.from_any(ccd)
    variance = observation.noise.moments(torch.full(SHAPE, 400.0, dtype=torch.float64))[2]
    # The rms of the unsubtracted sky is its photon noise, which is not to be counted twice.
    assert float(variance.mean()) == pytest.approx(400, rel=0.2)


def test_gain_turns_adu_into_electrons():
    ccd = CCDData(image() + 0.0, unit="adu", wcs=make_wcs(), meta={"GAIN": 4.0})
    variance = Observation.from_any(ccd).noise.moments(torch.full(SHAPE, 1e4, dtype=torch.float64))[2]
    assert float(variance.mean()) == pytest.approx(2500, rel=1e-2)
    ccd.meta.pop("GAIN")
    assert "gain_guessed" in Observation.from_any(ccd).flags


def test_noise_is_guessed_from_the_sky():
    observation = Observation.from_any(image((60, 60)), pixel_scale=0.05, unit="nJy")
    assert observation.flags == ("noise_guessed",)
    assert observation.noise.sigma == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("noise", [0.5 * u.nJy, 5e-4 * u.uJy, 0.5, np.full(SHAPE, 0.5)])
def test_noise_given_as_sigma(noise):
    observation = Observation.from_any(image(), pixel_scale=0.05, unit="nJy", noise=noise)
    assert np.allclose(observation.error, 0.5)
    assert np.allclose(observation.sigma(), 0.5)


def test_noise_model_is_brought_to_the_unit():
    noise = PoissonNoise(1 * u.hour, 2000 * u.electron / u.hour)
    observation = Observation.from_any(image(), pixel_scale=0.05, unit="electron/s", noise=noise)
    assert observation.noise.exposure == 3600
    assert observation.noise.background_rms == pytest.approx(2000 / 3600)
    assert observation.error is None


def test_missing_unit_is_flagged():
    observation = Observation.from_any(image(), pixel_scale=0.05, noise=0.1)
    assert observation.flags == ("unit_missing",)
    assert observation.conserves_sum
    assert (
        "unit_missing"
        not in Observation.from_any(image(), pixel_scale=0.05, noise=0.1, zero_point=24.6).flags
    )


def test_surface_brightness():
    observation = Observation.from_any(image(), pixel_scale=0.05, unit="MJy/sr", noise=0.1)
    assert not observation.conserves_sum
    assert observation.pixel_factor == pytest.approx(0.0025)
    assert observation.brightness_unit == u.MJy / u.sr


def test_psf_larger_than_the_image_is_cropped():
    psf = PSF.from_fwhm(0.15 * u.arcsec).kernel(0.01)[:, ::1]
    observation = Observation.from_any(image((21, 31)), psf=psf, **GOOD)
    assert "psf_cropped" in observation.flags
    assert all(a <= b for a, b in zip(observation.psf.kernel(0.05).shape, (21, 31), strict=True))
    assert observation.psf.kernel(0.05).sum() == pytest.approx(1)


def test_masked_adds_to_the_mask():
    more = np.zeros(SHAPE, bool)
    more[0] = True
    observation = Observation.from_any(image(), **GOOD).masked(more)
    assert observation.mask.sum() == SHAPE[1]
    assert (observation.data[0] == 0).all()


BAD_ERROR = np.ones(SHAPE)
BAD_ERROR[2, 3] = 0
NAN_ERROR = np.ones(SHAPE)
NAN_ERROR[2, 3] = np.nan


@pytest.mark.parametrize(
    ("data", "change", "match"),
    [
        (image(), dict(pixel_scale=None), "no pixel scale: give pixel_scale="),
        (image(), dict(pixel_scale=-0.1), "pixel_scale = -0.1"),
        (image(), dict(pixel_scale=1 * u.s), "pixel_scale = 1.0 s is not convertible"),
        (image(), dict(unit="mag"), "unit mag is a magnitude"),
        (image(), dict(unit=u.ABmag), "is a magnitude"),
        (image(), dict(unit="furlongs"), "unit 'furlongs' is not known: give unit="),
        (image(), dict(mask=np.ones(SHAPE, bool)), "all 480 pixels are masked"),
        (image(), dict(mask=np.ones((3, 3), bool)), r"mask has shape \(3, 3\), the image \(20, 24\)"),
        (image(), dict(noise=np.ones((3, 3))), r"noise has shape \(3, 3\)"),
        (image(), dict(noise=GaussianNoise(np.ones((3, 3)))), r"noise's sigma has shape \(3, 3\)"),
        (image(), dict(noise=0), "noise is 0"),
        (image(), dict(noise=BAD_ERROR), "noise is 0 in one of 1 unmasked"),
        (image(), dict(noise=NAN_ERROR), "noise is nan"),
        (image(), dict(noise=1 * u.s), "noise = 1.0 s"),
        (image(), dict(noise="loud"), "noise = 'loud'"),
        (image(), dict(zero_point=3 * u.s), "zero_point = 3.0 s"),
        (image(), dict(hdus={"sci": 1}), "hdus"),
        (image((20,)), {}, "1 dimensions"),
        (image((2, 20, 20)), {}, "3 dimensions"),
        (np.ones((0, 3)), {}, "empty"),
        (image() * 1j, {}, "is complex"),
        ("no_such_file.fits", {}, "no_such_file.fits does not exist"),
        (image(), dict(psf=np.zeros((5, 5))), "PSF is zero everywhere"),
        (object(), {}, "is a object"),
    ],
)
def test_refused(data, change, match):
    with pytest.raises(InputError, match=match):
        Observation.from_any(data, **(GOOD | change))


@pytest.mark.parametrize("name", ["ERR", "VAR", "IVM"])
@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_pixels_without_an_error_are_masked_and_counted(tmp_path, name, value):
    plane = np.full(SHAPE, 4.0)
    plane[2, 3] = plane[5, 6] = value
    observation = Observation.from_any(write(tmp_path / "a.fits", **{name: plane}))
    assert observation.mask.sum() == 2 and observation.mask[2, 3]
    assert np.allclose(observation.error, {"ERR": 4, "VAR": 2, "IVM": 0.5}[name])
    # An inverse variance of 0 is how it says that there is none.
    assert ("errors_missing" in observation.flags) == (name != "IVM" or value != 0)
    assert list(observation.meta.get("hidden", {}).values()) in ([2], [] if value == 0 else [2])


@pytest.mark.parametrize("name", ["ERR", "VAR", "IVM"])
@pytest.mark.parametrize("value", [-1.0])
def test_bad_error_planes_are_refused_unless_masked(tmp_path, name, value):
    plane = np.ones(SHAPE)
    plane[2, 3] = value
    path = write(tmp_path / "a.fits", **{name: plane})
    with pytest.raises(InputError, match="1 unmasked pixels"):
        Observation.from_any(path)
    assert np.allclose(Observation.from_any(path, mask=plane != 1).error, 1)


def test_planes_of_another_shape_are_refused(tmp_path):
    path = write(tmp_path / "a.fits", ERR=np.ones((4, 4)))
    with pytest.raises(InputError, match=r"error plane has shape \(4, 4\)"):
        Observation.from_any(path)


def test_unknown_uncertainty_is_refused():
    ccd = CCDData(image(), unit="nJy", wcs=make_wcs(), uncertainty=UnknownUncertainty(np.ones(SHAPE)))
    with pytest.raises(InputError, match="UnknownUncertainty.*StdDev"):
        Observation.from_any(ccd)


def test_not_fits(tmp_path):
    path = tmp_path / "a.fits"
    path.write_text("no stars here")
    with pytest.raises(InputError, match="a.fits is not a readable FITS file"):
        Observation.from_any(path)


@pytest.mark.parametrize("keep", [100, 2880, 4000, 6000, 9000])
def test_truncated(tmp_path, keep):
    path = write(tmp_path / "a.fits", ERR=np.ones(SHAPE))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match="a.fits|no two-dimensional image"):
        Observation.from_any(path)


def test_file_without_an_image(tmp_path):
    fits.HDUList(
        [fits.PrimaryHDU(), fits.BinTableHDU.from_columns([fits.Column("a", "E", array=[1.0])])]
    ).writeto(tmp_path / "a.fits")
    with pytest.raises(InputError, match="no two-dimensional image"):
        Observation.from_any(tmp_path / "a.fits")


def test_header_unit_that_is_a_magnitude_is_refused(tmp_path):
    with pytest.raises(InputError, match="magnitude"):
        Observation.from_any(write(tmp_path / "a.fits", header={"BUNIT": "mag/arcsec2"}))


def test_unit_overrides_an_unknown_one(tmp_path):
    path = write(tmp_path / "a.fits", header={"BUNIT": "quatloos"}, ERR=np.ones(SHAPE))
    assert Observation.from_any(path, unit="nJy").unit == u.nJy


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("ELECTRONS/S", u.electron / u.s),
        ("counts/s", u.ct / u.s),
        ("e-/s", u.electron / u.s),
        ("electrons s^-1", u.electron / u.s),
        ("DN", u.DN),
        ("ADU/sec", u.adu / u.s),
        ("counts/pixel/s", u.ct / u.s),
        ("MJy/sr", u.MJy / u.sr),
        ("mJy", u.mJy),
        ("nJy/arcsec**2", u.nJy / u.arcsec**2),
        ("erg/s/cm2/A", u.erg / u.s / u.cm**2 / u.AA),
        ("10**-6 Jy", u.uJy),
        ("", u.dimensionless_unscaled),
    ],
)
def test_archive_spellings(text, unit):
    assert parse_unit(text) == unit


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(sorted(SPELLINGS)), st.sampled_from([str.upper, str.lower, str.title]), st.booleans())
def test_spellings_in_any_case_and_quotient(name, case, rate):
    if name in ("mjy", "e"):
        return
    expected = SPELLINGS[name] / u.s if rate else SPELLINGS[name]
    assert parse_unit(case(name) + ("/S" if rate else "")) == expected


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(["nJy", "uJy", "Jy"]),
    st.sampled_from(["nJy", "uJy", "Jy"]),
    st.floats(1e-3, 1e3),
)
def test_magnitudes_do_not_depend_on_the_unit(one, other, flux):
    first = Observation.from_any(image(), pixel_scale=0.05, unit=one, noise=1)
    second = Observation.from_any(image(), pixel_scale=0.05, unit=other, noise=1)
    converted = (flux * u.Unit(one)).to_value(other)
    assert first.ab_magnitude(flux).value == pytest.approx(second.ab_magnitude(converted).value, abs=1e-9)


@pytest.mark.parametrize("name", ["hst_f475x.fits", "hst_f600lp.fits"])
def test_hst(real_data, name):
    observation = Observation.from_any(real_data / name)
    assert observation.flags == ("errors_follow_counts",)
    assert observation.pixel_scale == pytest.approx(0.04, rel=1e-4)
    assert observation.unit == u.electron / u.s


def test_euclid(real_data):
    hdus = {"sci": "VIS_BGSUB", "err": "VIS_RMS", "psf": "VIS_PSF"}
    observation = Observation.from_any(real_data / "euclid_q1_des.fits", hdus=hdus)
    assert observation.flags == ()
    assert observation.pixel_scale == pytest.approx(0.1, rel=1e-9)
    assert observation.meta["zero_point"] == 24.6
