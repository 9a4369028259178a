"""Real images of lenses, in one file each; they are found where LENSSR_REAL_DATA says."""

import time

import numpy as np
import pytest

from lenssr import SuperResolution, SuperResolver, cli

pytestmark = pytest.mark.slow

BANDS = ("hst_f475x", "hst_f600lp")
# The brightest part of the arc, in arcsec from the image centre.
ARC = (1.35, 0.0)


def resolve(image, folder, *options):
    """Run the command as a user would; its result and how long it took."""
    output = folder / f"{image.stem}.fits"
    start = time.perf_counter()
    arguments = ["resolve", str(image), "-o", str(output), "--lens-light", "sersic", "--mask", "auto"]
    code = cli.main([*arguments, *options])
    seconds = time.perf_counter() - start
    assert code == 0
    return SuperResolution.read(output), seconds


@pytest.fixture(scope="module")
def hst(real_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hst")
    return {band: resolve(real_data / f"{band}.fits", folder) for band in BANDS}


@pytest.mark.parametrize("band", BANDS)
def test_hst_einstein_radius(hst, band):
    assert 1.2 < hst[band][0].lens[0].theta_E.value < 1.4


def test_hst_bands_agree(hst):
    blue, red = (hst[band][0].lens[0].theta_E.value for band in BANDS)
    assert red == pytest.approx(blue, rel=0.03)


@pytest.mark.parametrize("band", BANDS)
def test_hst_critical_curve_passes_through_the_arc(hst, band):
    curves = hst[band][0].lens.critical_curves()
    points = np.concatenate(
        [np.stack([np.asarray(getattr(c, "value", c)) for c in curve], -1) for curve in curves]
    )
    assert np.hypot(*(points - ARC).T).min() < 0.15


@pytest.mark.parametrize("band", BANDS)
def test_hst_arcs_are_explained_and_the_rest_is_said(hst, band):
    result = hst[band][0]
    ny, nx = result.data.shape
    y, x = (
        0.04 * (index - (side - 1) / 2) for index, side in zip(np.indices((ny, nx)), (ny, nx), strict=True)
    )
    near = (np.hypot(x - ARC[0], y - ARC[1]) < 0.4) & ~result.data.mask
    # ERR follows the photons that were counted, not those expected: faint pixels weigh too much, and the
    # model ends about one electron a pixel too low (1/EXPTIME), which adds up on the halo of F600LP.
    assert abs(result.residual.data[near].sum()) < 0.1 * result.model_image.data[near].sum()
    assert "correlated_noise" in result.flags
    assert result.meta["sky_noise"]["lag1"] == pytest.approx(0.3, abs=0.12)
    assert not {"no_arcs", "not_multiply_imaged", "lens_at_bound", "no_psf", "noise_guessed"} & set(
        result.flags
    )
    assert result.image.unit.to_string() == "electron / s"


def core_over_sky(result):
    """Mean chi2 of the pixels of the galaxy's core over that of the sky."""
    y, x = (
        0.04 * (index - (side - 1) / 2)
        for index, side in zip(np.indices((130, 130)), (130, 130), strict=True)
    )
    radius, seen = np.hypot(x, y), ~result.data.mask
    return result.chi2_map[(radius < 0.6) & seen].mean() / result.chi2_map[(radius > 2.2) & seen].mean()


@pytest.mark.parametrize("band", BANDS)
def test_hst_core_of_the_galaxy_needs_two_groups_of_gaussians(hst, real_data, band):
    result = SuperResolver(lens_light=["mge", "mge"], mask="auto")(real_data / f"{band}.fits")
    assert core_over_sky(result) < 1.15 < 1.3 < core_over_sky(hst[band][0])
    assert result.lens[0].theta_E.value == pytest.approx(1.28, abs=0.02)


@pytest.fixture(scope="module")
def euclid(real_data, tmp_path_factory):
    options = ["--sci", "VIS_BGSUB", "--err", "VIS_RMS", "--psf", "VIS_PSF"]
    return resolve(real_data / "euclid_q1_des.fits", tmp_path_factory.mktemp("euclid"), *options)[0]


def test_euclid_vis_is_right_or_says_that_it_is_not(euclid):
    assert 0.75 < euclid.lens[0].theta_E.value < 0.9 or not euclid.ok
    assert {"correlated_noise", "psf_undersampled"} <= set(euclid.flags)
    assert not {"no_psf", "noise_guessed"} & set(euclid.flags)


def test_euclid_vis_einstein_radius(euclid):
    assert 0.75 < euclid.lens[0].theta_E.value < 0.9
