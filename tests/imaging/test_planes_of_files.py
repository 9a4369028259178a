"""The right plane with the right meaning: names, bits, weights, zero points, borders; guesses are flags."""

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits

from lenssr.exceptions import InputError
from lenssr.imaging import Observation
from lenssr.imaging.readers import READERS, register_reader, standard_planes

SIGMA, SHAPE = 0.5, (40, 44)
DATA = np.random.default_rng(5).normal(0, SIGMA, SHAPE)


def file(*planes, first=(), **cards):
    """HDUs of an image with other planes, each (name, array) or (name, array, cards)."""
    hdus = [fits.PrimaryHDU(header=fits.Header(dict(first)))]
    hdus.append(fits.ImageHDU(DATA, fits.Header({"BUNIT": "electron/s"} | cards), name="SCI"))
    for name, array, *more in planes:
        hdus.append(fits.ImageHDU(np.asarray(array), fits.Header(dict(*more)), name=name))
    return fits.HDUList(hdus)


def read(*planes, first=(), given=None, **cards):
    return Observation.from_any(file(*planes, first=first, **cards), pixel_scale=0.05, **given or {})


def full(value):
    return np.full(SHAPE, float(value))


@pytest.mark.parametrize(
    ("power", "names"),
    [
        (1, ("ERR", "RMS", "ERROR", "SIGMA", "NOISE", "UNCERT", "STDDEV")),
        (2, ("VAR", "VARIANCE", "STAT")),
        (-2, ("IVM", "INVVAR", "IVAR", "WHT", "WEIGHT", "WGT")),
    ],
)
def test_names_of_errors(power, names):
    for name in names:
        seen = read((name, full(SIGMA**power)))
        np.testing.assert_allclose(seen.error, SIGMA)
        assert ("weight_guessed" in seen.flags) == (name in ("WHT", "WEIGHT", "WGT")), name


@pytest.mark.parametrize("name", ["DQ", "MASK", "MSK", "FLAG", "FLAGS", "BPM"])
def test_names_of_masks(name):
    bad = np.zeros(SHAPE, "i2")
    bad[3, 4] = 1
    assert read((name, bad)).mask.sum() == 1


@pytest.mark.parametrize(
    ("name", "value", "unit"),
    [
        ("ERR", 1000 * SIGMA, "uJy"),
        ("VAR", (1000 * SIGMA) ** 2, "uJy**2"),
        ("VAR", (1000 * SIGMA) ** 2, "uJy"),
        ("IVM", (1000 * SIGMA) ** -2, "1 / uJy2"),
    ],
)
def test_the_unit_of_an_error_plane_counts(name, value, unit):
    seen = read((name, full(value), {"BUNIT": unit}), BUNIT="mJy")
    np.testing.assert_allclose(seen.error, SIGMA)


def test_an_error_plane_in_another_kind_of_unit_is_refused():
    with pytest.raises(InputError, match="has BUNIT 's', the image electron / s: correct one"):
        read(("ERR", full(1), {"BUNIT": "s"}))


HST = {"TELESCOP": "HST", "INSTRUME": "ACS", "EXPTIME": 900.0}


@pytest.mark.parametrize(
    ("weight", "first", "history", "given", "kind", "flag"),
    [
        (900.0, HST, "", {}, "exposure", False),
        (SIGMA**-2, HST, "final_wht_type='IVM'", {}, "error", False),
        (650.0, HST, "FINAL_WHT_TYPE : EXP", {}, "exposure", False),
        (650.0, HST, "", {}, "exposure", True),
        (SIGMA**-2, HST, "", {}, "error", True),
        (SIGMA**-2, HST, "", {"weight_kind": "inverse_variance"}, "error", False),
        (SIGMA**2, HST, "", {"weight_kind": "variance"}, "error", False),
        (77.0, {}, "", {"weight_kind": "relative"}, "error", True),
    ],
)
def test_what_a_weight_is(weight, first, history, given, kind, flag):
    hdus = file(("WHT", full(weight)), first=first)
    if history:
        hdus[0].header["HISTORY"] = history
    seen = Observation.from_any(hdus, pixel_scale=0.05, **given)
    assert ("weight_guessed" in seen.flags) == flag
    if kind == "error":
        # A scale from the sky's rms is as good as that.
        np.testing.assert_allclose(
            seen.error, SIGMA, rtol=0.06 if given.get("weight_kind") == "relative" else 1e-6
        )
    else:
        assert seen.meta["exposure"] == weight and "noise_from_exposure" in seen.flags


def test_bits_that_mean_a_defect():
    bits = {"HIERARCH MP_BAD": 0, "HIERARCH MP_SAT": 1, "HIERARCH MP_DETECTED": 5}
    plane = np.full(SHAPE, 32, "i4")
    plane[0, :2] |= 1
    plane[1, :3] |= 2
    seen = read(("MASK", plane, bits))
    assert seen.mask.sum() == 5 and seen.meta["mask_bits"] == "bits BAD, SAT"
    for chosen, count in (
        ("SAT", 3),
        (["bad"], 2),
        (2, 3),
        ("any", plane.size),
        ("DETECTED,SAT", plane.size),
    ):
        if count == plane.size:
            with pytest.raises(InputError, match="pixels are masked"):
                read(("MASK", plane, bits), given={"mask_bits": chosen})
        else:
            assert read(("MASK", plane, bits), given={"mask_bits": chosen}).mask.sum() == count
    with pytest.raises(InputError, match="mask_bits has 'CR': the bits of the mask are BAD, SAT, DETECTED"):
        read(("MASK", plane, bits), given={"mask_bits": "CR"})


def test_bits_of_unknown_meaning_are_flagged():
    plane = np.zeros(SHAPE, "i4")
    plane[0, 0], plane[1, 1] = 4, 32
    seen = read(("DQ", plane))
    assert seen.mask.sum() == 2 and "mask_guessed" in seen.flags
    assert "mask_guessed" not in read(("DQ", (plane > 0).astype("i4"))).flags


@pytest.mark.parametrize(
    ("first", "bit", "hidden"),
    [
        (HST | {"DETECTOR": "WFC"}, 4096, True),
        (HST | {"DETECTOR": "WFC"}, 64, False),
        (HST | {"DETECTOR": "IR"}, 8192, False),
        ({"TELESCOP": "JWST"}, 1, True),
        ({"TELESCOP": "JWST"}, 4, False),
        ({"TELESCOP": "JWST"}, 4096, False),
    ],
)
def test_bits_of_telescopes(first, bit, hidden):
    plane = np.zeros(SHAPE, "i4")
    plane[3, 5] = bit
    seen = read(("DQ", plane), ("ERR", full(SIGMA)), first=first)
    assert seen.mask.sum() == hidden and "mask_guessed" not in seen.flags


@pytest.mark.parametrize(
    ("cards", "expected"),
    [
        ({"PHOTZP": 30.0}, 30.0),
        ({"MAGZP": 26.3}, 26.3),
        ({"MAGZERO": 25.0}, 25.0),
        ({"FLUXMAG0": 6.30957e10}, 27.0),
        ({"BUNIT": "nanomaggy"}, 22.5),
        ({"BUNIT": "nJy"}, 31.4),
        ({"PHOTFNU": 3.631e-7}, 25.0),
        # ACS F814W in 2006: 25.95 (Sirianni et al. 2005, table 10: 25.937).
        ({"PHOTFLAM": 7.07e-20, "PHOTPLAM": 8059.8}, 25.937),
        ({"PHOTFLAM": 7.07e-20, "PHOTPLAM": 8059.8, "BUNIT": "electron", "EXPTIME": 100.0}, 30.937),
        # 3631 Jy is 3.631e-20 erg/s/cm2/Hz, at 5000 Angstrom 4.354e-9 erg/s/cm2/Angstrom.
        ({"BUNIT": "erg/s/cm2/A", "PHOTPLAM": 5000.0}, 2.5 * np.log10(4.354e-9)),
        ({}, None),
    ],
)
def test_zero_points(cards, expected):
    found = read(("ERR", full(SIGMA)), **cards).meta["zero_point"]
    assert found is None if expected is None else found == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("camera", ["VIRCAM", "WFCAM"])
def test_vega_zero_points_are_not_taken_for_ab(camera):
    assert read(("ERR", full(SIGMA)), first={"INSTRUME": camera}, MAGZPT=23.0).meta["zero_point"] is None


def test_asinh_is_made_linear():
    """Waters et al. 2020, equation 6, by its inverse."""
    flux, soften, offset = 1000 + DATA, 30.0, 2.0
    stored = 2.5 / np.log(10) * np.arcsinh((flux - offset) / 2 / soften)
    hdus = file(("ERR", full(SIGMA)), BSOFTEN=soften, BOFFSET=offset)
    hdus[1].data = stored
    np.testing.assert_allclose(Observation.from_any(hdus, pixel_scale=0.25).data, flux)


def test_zeros_at_the_edge_are_no_data():
    data = DATA.copy()
    data[:, :6] = 0
    seen = Observation.from_any(data, pixel_scale=0.05, unit="nJy", noise=SIGMA)
    assert seen.mask.sum() == 6 * SHAPE[0] and "border_without_data" in seen.flags
    assert seen.meta["hidden"] == {"zeros at the edge": 6 * SHAPE[0]}


@pytest.mark.parametrize("kind", ["counts", "noise-free", "inside"])
def test_zeros_that_are_data(kind):
    counts = np.random.default_rng(2).poisson(0.05, SHAPE) * 1.0
    fading = np.clip(np.exp(-(np.hypot(*np.indices(SHAPE) - 20) ** 2) / 60) - 1e-3, 0, None)
    inside = DATA.copy()
    inside[10:14, 10:14] = 0
    data = {"counts": counts, "noise-free": fading, "inside": inside}[kind]
    seen = Observation.from_any(data, pixel_scale=0.05, unit="nJy", noise=SIGMA)
    assert not seen.mask.any()


@pytest.mark.parametrize("hits", [0, 30])
def test_cosmic_rays_are_said(hits):
    data = DATA.copy()
    # A star that fills pixels as a PSF does is no ray.
    data += 500 * SIGMA * np.exp(-(np.hypot(*np.indices(SHAPE) - 20) ** 2) / 2 / 0.85**2)
    places = np.random.default_rng(0).integers(2, 38, (hits, 2))
    data[tuple(places.T)] += 60 * SIGMA
    seen = Observation.from_any(data, pixel_scale=0.05, unit="nJy", noise=SIGMA)
    assert ("cosmic_rays" in seen.flags) == (hits > 0)


def test_planes_in_files_of_their_own(tmp_path):
    def save(name, array, **cards):
        fits.PrimaryHDU(array, fits.Header(cards)).writeto(tmp_path / name)
        return tmp_path / name

    bad = np.zeros(SHAPE, "i2")
    bad[1, 2] = 1
    image = file()
    for given in (
        {"error": save("rms.fits", full(SIGMA))},
        {"error": save("x_var.fits", full(SIGMA**2))},
        {"error": save("y.fits", full(SIGMA * 1e3), BUNIT="1e-3 electron/s")},
        {"error": fits.ImageHDU(full(SIGMA))},
        {"error": full(SIGMA) * u.electron / u.s},
        {"error": SIGMA},
        {"noise": save("noise.fits", full(SIGMA))},
        {"weight": save("x.ivm.fits", full(SIGMA**-2))},
        {"weight": full(SIGMA**-2), "weight_kind": "inverse_variance"},
    ):
        seen = Observation.from_any(image, pixel_scale=0.05, mask=save(f"m{id(given)}.fits", bad), **given)
        np.testing.assert_allclose(seen.error, SIGMA)
        assert seen.mask.sum() == 1 and not seen.flags
    seen = Observation.from_any(image, pixel_scale=0.05, exposure=save("exp.fits", full(700)))
    assert seen.meta["exposure"] == 700
    with pytest.raises(InputError, match=r"the weight map .* has shape \(3, 3\)"):
        Observation.from_any(image, pixel_scale=0.05, weight=np.ones((3, 3)))


def test_several_images_need_a_choice():
    hdus = fits.HDUList([fits.PrimaryHDU()])
    for version, name in ((1, "F115W"), (2, "F444W")):
        cards = fits.Header({"BUNIT": "nJy", "FILTER": name})
        hdus.append(fits.ImageHDU(version * DATA, cards, name="SCI", ver=version))
        hdus.append(fits.ImageHDU(full(version * SIGMA), name="ERR", ver=version))
    with pytest.raises(InputError, match="several images .*SCI,1 .*F115W.*SCI,2 .*F444W.*--sci.*--band"):
        Observation.from_any(hdus, pixel_scale=0.05)
    for given in (
        {"band": "f444w"},
        *({"hdus": {"sci": one}} for one in (3, "3", "SCI,2", ("SCI", 2), "SCI,F444W")),
    ):
        seen = Observation.from_any(hdus, pixel_scale=0.05, **given)
        np.testing.assert_array_equal(seen.data, 2 * DATA)
        np.testing.assert_allclose(seen.error, 2 * SIGMA)
    with pytest.raises(InputError, match="band = 'g': the file has"):
        Observation.from_any(hdus, pixel_scale=0.05, band="g")


def test_a_cube_needs_a_choice():
    cube = fits.PrimaryHDU(np.stack([DATA, 2 * DATA]), fits.Header({"BANDS": "gr", "BUNIT": "nJy"}))
    with pytest.raises(InputError, match=r"a cube of 2 planes \(g, r\): choose one by band="):
        Observation.from_any(cube, pixel_scale=0.05)
    for band in ("r", "R", "1", 1):
        np.testing.assert_array_equal(Observation.from_any(cube, pixel_scale=0.05, band=band).data, 2 * DATA)


def test_a_reader_of_ones_own():
    @register_reader("my-camera", "stacks of my camera", lambda hdus: hdus.says("INSTRUME") == "MYCAM")
    def read_mine(hdus):
        planes = standard_planes(hdus, weight="inverse_variance")
        planes.zero_point = 27.5
        return planes

    try:
        seen = read(("WHT", full(SIGMA**-2)), first={"INSTRUME": "MyCam"})
        assert seen.meta["reading"]["reader"] == "my-camera: stacks of my camera"
        assert seen.meta["zero_point"] == 27.5 and not seen.flags
        np.testing.assert_allclose(seen.error, SIGMA)
    finally:
        del READERS["my-camera"]
    with pytest.raises(InputError, match="name = 'my camera': give a word"):
        register_reader("my camera", "", lambda hdus: True)
