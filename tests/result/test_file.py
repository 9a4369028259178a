"""What the FITS file of a result holds."""

import json
import warnings

import astropy.units as u
import pytest
from astropy.io import fits

from lenssr import InputError, SuperResolution
from lenssr.result.grade import GRADES, grade_told

UNIT = u.electron / u.s


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
    assert names[:12] == [
        "SCI",
        "ERR",
        "MASK",
        "LENSED_SOURCE",
        "LENS_LIGHT",
        "SOURCE",
        "SOURCE_ERR",
        "INFORMATION",
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
    assert [header[key] for key in ("SCALE", "SOURCE", "LENS", "FIT_LENS")] == [2, "sersic", "none", True]
    assert header["LENSLITE"] == "none"
    assert header["OVERSAMP"] == "auto"
    assert header["V_TORCH"] == "2.13"
    assert header["V_LENSSR"] == "0.1"
    assert not any(len(key) > 8 for key in header)


def test_lens_table_has_a_row_for_every_parameter(result, written):
    rows = written["LENS"].data
    assert " ".join(rows.columns.names) == "component model name value error unit fixed lower upper key"
    assert len(rows) == 9 + 7
    first = rows[0]
    assert (first["component"], first["model"], first["name"]) == ("lens.0", "SIE", "theta_E")
    assert (first["value"], first["unit"], first["lower"], first["upper"]) == (1.2, "arcsec", 0.1, 3.0)
    assert first["error"] == result.lens[0].theta_E.std


def test_nothing_is_pickled(written):
    for row in written["META"].data:
        json.loads(row["json"])


def test_long_values_are_kept_whole(tmp_path, make):
    flags, lens = tuple(f"flag_{i}" for i in range(20)), "SIE(theta_E=1.2345678901234567)" * 5
    make(shape=(8, 8), flags=flags, meta={"lens": lens}).write(tmp_path / "out.fits")
    header = fits.getheader(tmp_path / "out.fits")
    assert header["FLAGS"] == ",".join(flags)
    assert header["LENS"] == lens


def test_the_grade_comes_back(make, tmp_path):
    for grade in GRADES:
        make(grade=grade).write(tmp_path / f"{grade}.fits")
        back = SuperResolution.read(tmp_path / f"{grade}.fits")
        assert back.grade == grade and back.ok == (grade in ("secure", "probable"))
        assert fits.getheader(tmp_path / f"{grade}.fits")["LSR_GRAD"] == grade


@pytest.mark.parametrize(("ok", "grade"), [(True, "probable"), (False, "doubtful")])
def test_older_files_without_a_grade_say_what_they_can(ok, grade):
    assert grade_told({"ok": ok}) == grade


def test_a_grade_that_is_none_is_refused():
    with pytest.raises(InputError, match="'splendid' is none of failed, doubtful, probable, secure"):
        grade_told({"grade": "splendid"})
