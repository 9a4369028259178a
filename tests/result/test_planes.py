"""A new plane of a result is a declared field: its file form follows."""

from dataclasses import asdict, dataclass, fields

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData

from lenssr import SuperResolution
from lenssr.result.fits import plane, planes_of


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Wider(SuperResolution):
    """A result with two more planes."""

    no_sky: CCDData | None = plane("NO_SKY", "the scene without the sky", default=None)
    trust: np.ndarray | None = plane("TRUST", "of every pixel", array=True, wcs_of="data", default=None)


@pytest.fixture(scope="module")
def wider(result):
    same = {one.name: getattr(result, one.name) for one in fields(result)}
    noise = np.full(result.image.shape, 0.1)
    no_sky = CCDData(result.image.data - 1, unit=result.image.unit, wcs=result.image.wcs, mask=noise > 1)
    return Wider(
        **same, no_sky=no_sky, trust=np.arange(result.data.data.size).reshape(result.data.shape) * 1.0
    )


def test_a_new_plane_is_written_and_read(wider, tmp_path):
    wider.write(tmp_path / "out.fits")
    again = Wider.read(tmp_path / "out.fits")
    assert isinstance(again, Wider)
    np.testing.assert_array_equal(again.no_sky.data, wider.no_sky.data)
    np.testing.assert_array_equal(again.no_sky.mask, wider.no_sky.mask)
    np.testing.assert_array_equal(again.trust, wider.trust)
    assert again.no_sky.unit == wider.no_sky.unit
    with fits.open(tmp_path / "out.fits") as hdus:
        assert hdus["NO_SKY"].header["CONTENT"] == "the scene without the sky"
        assert hdus["TRUST"].header["CTYPE1"] == "RA---TAN"
        names = [hdu.name for hdu in hdus]
    # Before the tables; what belongs to it comes last.
    assert names.index("RESIDUAL") < names.index("NO_SKY") < names.index("LENS") < names.index("NO_SKY_MASK")


def test_a_plane_that_is_missing_is_left_out(result, tmp_path):
    result.write(tmp_path / "out.fits")
    again = Wider.read(tmp_path / "out.fits")
    assert again.no_sky is None and again.trust is None


def test_no_two_planes_share_an_hdu():
    names = [
        name
        for one in planes_of(SuperResolution).values()
        for name in ((one.hdu,) if one.array else (one.hdu, one.error, one.mask, one.psf))
    ]
    assert len(set(names)) == len(names)


def test_names_follow_from_the_first():
    found = asdict(planes_of(SuperResolution)["source"])
    assert [found[name] for name in ("hdu", "error", "mask", "psf")] == [
        "SOURCE",
        "SOURCE_ERR",
        "SOURCE_MASK",
        "SOURCE_PSF",
    ]


def test_every_plane_of_a_result_comes_back(result, tmp_path):
    result.write(tmp_path / "out.fits")
    again = SuperResolution.read(tmp_path / "out.fits")
    for name in planes_of(SuperResolution):
        before, after = (np.asarray(getattr(one, name)) for one in (result, again))
        np.testing.assert_array_equal(after, before, err_msg=name)
