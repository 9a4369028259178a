"""`SuperResolver`: options, and the right answers on simulated lenses."""

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import CCDData
from astropy.wcs import WCS

from lenssr import SIE, ConvergenceSheet, Sersic, Shear, SuperResolver
from lenssr.exceptions import InputError
from lenssr.grids import PixelGrid
from lenssr.imaging import PSF, GaussianNoise, render
from lenssr.metrics import bicubic
from lenssr.simulation import DeepLense

ELECTRON = u.electron / u.s
SIGMA = 0.02
LENS = SIE(0.8, 0.1, -0.05, 0.02, 0.0) + Shear(0.02, 0.01)
SOURCE = Sersic(20.0, r_eff=0.15, n=1.2, x_0=0.08, y_0=-0.05, e1=0.1, e2=0.0)
LIGHT = Sersic(40.0, r_eff=0.25, n=2.0, x_0=0.02, y_0=0.0, e1=0.1, e2=0.0)
BLUR = PSF.from_fwhm(0.25 * u.arcsec)


def psnr(image, truth):
    return 10 * np.log10(truth.max() ** 2 / np.mean((np.asarray(image) - truth) ** 2))


def binned(image, factor):
    ny, nx = image.shape
    return image.reshape(ny // factor, factor, nx // factor, factor).sum((1, 3))


def simulate(seed=0, *, shape=(36, 36), scale=2, sky=0.01, wcs=None, light=None, psf=None, lens=LENS):
    """A small noisy image and its noise-free truth at the finer sampling, per pixel."""
    grid = PixelGrid(shape, 0.1, wcs)
    truth = render(grid, lens=lens, source=SOURCE, lens_light=light, sky=sky, psf=psf, scale=scale)
    data = binned(truth, scale) + np.random.default_rng(seed).normal(0, SIGMA, shape)
    return CCDData(data, unit=ELECTRON, wcs=wcs), truth


def run(image, *, noise=SIGMA, pixel_scale=0.1, **options):
    return SuperResolver(**{"source": "sersic", "lens": LENS, **options})(
        image, noise=noise, pixel_scale=pixel_scale
    )


def free_sheet():
    sheet = ConvergenceSheet(0.05)
    sheet.kappa.fixed = False
    return SIE(1.0) + sheet


def fixed_sie():
    lens = SIE(1.0)
    for parameter in lens.parameters:
        parameter.fixed = True
    return lens


BAD_OPTIONS = [
    ({"scale": 0}, "scale = 0"),
    ({"scale": 1.5}, "scale = 1.5"),
    ({"scale": True}, "scale = True"),
    ({"source": "magic"}, "source = 'magic': give one of 'interpolation', 'pixelated', "),
    ({"source": "pixelated", "prior": "smooth"}, "prior = 'smooth': give one of 'auto', 'gradient'"),
    ({"source": "pixelated", "positive": "yes"}, "positive = 'yes'"),
    ({"psf_out": 0.1}, "psf_out = 0.1: give a positive FWHM such as"),
    ({"psf_out": "pixels"}, "psf_out = 'pixels'"),
    ({"psf_out": 2 * u.s}, "psf_out = <Quantity 2. s>: give a positive FWHM"),
    ({"psf_out": -1 * u.arcsec}, "psf_out = <Quantity -1. arcsec>: give"),
    ({"psf_out": [0.1, 0.2] * u.arcsec}, "psf_out = .*give a positive FWHM"),
    ({"psf_out": "pixel", "source": "interpolation"}, "with source = 'interpolation'"),
    ({"source": "sersic", "prior": "curvature"}, "prior = 'curvature' with source = 'sersic'"),
    ({"source": "interpolation", "positive": False}, "positive = False with source = 'interpolation'"),
    ({"lens_light": "gaussian"}, "lens_light = 'gaussian'"),
    ({"sky": "tilted"}, "sky = 'tilted'"),
    ({"oversampling": 0}, "oversampling = 0"),
    ({"oversampling": "fine"}, "oversampling = 'fine'"),
    ({"seed": -1}, "seed = -1"),
    ({"seed": 0.5}, "seed = 0.5"),
    ({"lens": "nfw"}, "lens = 'nfw' is not a mass model"),
    ({"fit_lens": "yes", "lens": SIE(1.0)}, "fit_lens = 'yes'"),
    ({"fit_lens": False}, "fit_lens = False without a lens"),
    ({"fit_lens": True, "lens": free_sheet()}, "mass-sheet degeneracy"),
    ({"fit_lens": True, "lens": fixed_sie()}, "every parameter of the lens is fixed"),
    ({"device": "gpu"}, "device = 'gpu'"),
]


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS, ids=[message for _, message in BAD_OPTIONS])
def test_options_are_checked_when_built(options, message):
    with pytest.raises(InputError, match=message):
        SuperResolver(**options)


@pytest.mark.parametrize("wrong", [None, 2, ["sersic"]])
def test_options_of_a_wrong_type_are_refused(wrong):
    with pytest.raises(InputError, match="source = "):
        SuperResolver(source=wrong)


def test_options_are_keywords():
    with pytest.raises(TypeError):
        SuperResolver(2)


def test_repr_shows_the_options():
    resolver = SuperResolver(source="sersic", scale=3, lens=SIE(1.2, 0.1, 0.0), fit_lens=True, noise=0.1)
    text = repr(resolver)
    assert text.startswith("SuperResolver(scale=3, source='sersic', lens=SIE(") and "noise=0.1" in text


def test_a_wrong_mask_word_is_refused():
    with pytest.raises(InputError, match="mask = 'all'"):
        SuperResolver(source="interpolation")(np.eye(20), pixel_scale=0.1, mask="all")


class TestDeepLense:
    """Point-sampled images, as the neural networks had them."""

    @pytest.mark.parametrize(("noise", "least"), [(True, 52), (False, 60)])
    @pytest.mark.parametrize("lens", ["sis", "sie"])
    def test_known_lens(self, lens, noise, least):
        items = list(DeepLense(lens=lens, noise=noise, size=4, seed=11))
        resolver = SuperResolver(source="sersic", lens=items[0].lens, oversampling=1)
        results = [resolver(item.low, noise=item.noise) for item in items]
        scores = [psnr(r.image.data, item.truth.data) for r, item in zip(results, items, strict=True)]
        assert np.mean(scores) > least and min(scores) > least - 4
        assert all(result.ok for result in results)

    @pytest.mark.slow
    @pytest.mark.parametrize("noise", [True, False])
    def test_unknown_lens(self, noise):
        items = list(DeepLense(lens="sie", noise=noise, size=3, seed=12))
        results = SuperResolver(source="sersic", oversampling=1).map(
            [item.low for item in items], noise=[item.noise for item in items]
        )
        for item, result in zip(items, results, strict=True):
            assert result.lens[0].theta_E.value == pytest.approx(1.28149057, rel=0.01)
            assert psnr(result.image.data, item.truth.data) > 47
            assert result.ok, result.flags


def test_same_bytes_on_a_rerun():
    image, _ = simulate(psf=BLUR)
    first, second = (run(image, lens=None, psf=BLUR) for _ in range(2))
    for name in ("image", "source", "model_image", "residual"):
        a, b = getattr(first, name), getattr(second, name)
        assert a.data.tobytes() == b.data.tobytes()
    assert first.image.uncertainty.array.tobytes() == second.image.uncertainty.array.tobytes()
    assert first.lens.vector.numpy().tobytes() == second.lens.vector.numpy().tobytes()
    assert (first.flags, first.covariance.tobytes()) == (second.flags, second.covariance.tobytes())


class TestMap:
    """Many images at once."""

    @pytest.mark.parametrize("options", [{"lens": LENS}, {"lens": None}], ids=["known", "unknown"])
    def test_equals_single_calls(self, options):
        images = [simulate(k)[0] for k in range(2)]
        resolver = SuperResolver(source="sersic", **options, noise=SIGMA)
        for image, result in zip(images, resolver.map(images, pixel_scale=0.1), strict=True):
            single = resolver(image, pixel_scale=0.1)
            assert result.flags == single.flags
            error = single.image.uncertainty.array
            # The default tolerance of a fit is a few percent of a standard deviation.
            assert np.abs((result.image.data - single.image.data) / error).max() < 0.15
            assert result.reduced_chi2 == pytest.approx(single.reduced_chi2, abs=1e-4)

    def test_keeps_the_order_of_mixed_shapes(self):
        shapes = [(36, 36), (30, 36), (36, 36), (36, 30)]
        images = [simulate(k, shape=shape)[0] for k, shape in enumerate(shapes)]
        images = [CCDData(image.data + k, unit=ELECTRON) for k, image in enumerate(images)]
        results = SuperResolver(source="sersic", lens=LENS, noise=SIGMA).map(images, pixel_scale=0.1)
        assert [result.data.shape for result in results] == shapes
        assert [round(result.sky.value) for result in results] == [0, 1, 2, 3]
        assert all(result.meta["seconds"] > 0 and "lenssr" in result.meta["versions"] for result in results)

    def test_a_failing_image_does_not_stop_the_rest(self, tmp_path):
        good = simulate()[0]
        images = [good, tmp_path / "missing.fits", good, np.full((36, 36), np.nan) * ELECTRON, np.zeros(5)]
        with pytest.warns(Warning, match="not finite"):
            results = SuperResolver(source="sersic", lens=LENS, noise=SIGMA).map(images, pixel_scale=0.1)
        assert [bool(result) for result in results] == [True, False, True, False, False]
        assert "missing.fits" in results[1].name and isinstance(results[1].error, InputError)
        assert "all 1296 pixels" in str(results[3].error) and results[4].flags == ("failed",)

    def test_an_image_that_breaks_the_fit_fails_alone(self, monkeypatch):
        resolver = SuperResolver(source="sersic", lens=LENS, noise=SIGMA, mask=None)
        solve, seen = resolver._method.solve, []

        def fragile(observations, finish):
            seen.append(len(observations))
            if any(observation.data[0, 0] > 50 for observation in observations):
                raise RuntimeError("this one")
            return solve(observations, finish)

        monkeypatch.setattr(resolver._method, "solve", fragile)
        images = [simulate(k)[0] for k in range(3)]
        images[1].data[0, 0] = 99
        results = resolver.map(images, pixel_scale=0.1)
        assert [bool(result) for result in results] == [True, False, True]
        assert str(results[1].error) == "this one" and results[1].name == "image 1"
        assert seen == [3, 1, 1, 1]

    def test_each_image_may_have_its_own_psf_noise_and_mask(self):
        psfs = [None, PSF.from_fwhm(0.2 * u.arcsec), PSF.from_fwhm(0.4 * u.arcsec)]
        masks = [None, np.zeros((36, 36), dtype=bool), None]
        masks[1][3:6, 3:6] = True
        images = [simulate(k, psf=psf)[0] for k, psf in enumerate(psfs)]
        images[1].data[masks[1]] = 1e4
        noise = [SIGMA, GaussianNoise(SIGMA), np.full((36, 36), 2 * SIGMA)]
        given = {"psf": psfs, "noise": noise, "mask": masks, "pixel_scale": 0.1}
        results = SuperResolver(source="sersic", lens=LENS).map(images, **given)
        chi2 = [result.reduced_chi2 for result in results]
        assert chi2 == pytest.approx([1, 1, 0.25], rel=0.15)
        assert results[0].image.psf is None and results[1].image.psf.shape < results[2].image.psf.shape
        assert ["no_psf" in result.flags for result in results] == [True, False, False]
        assert results[1].image.mask.sum() == 36 and not results[0].image.mask.any()

    def test_lists_must_be_as_long_as_the_images(self):
        with pytest.raises(InputError, match="noise has 2 entries for 1 images"):
            SuperResolver(source="sersic", lens=LENS).map([simulate()[0]], noise=[1, 2], pixel_scale=0.1)

    def test_no_images(self):
        assert SuperResolver(source="sersic").map([]) == []


class TestFitLens:
    """A given lens, refined."""

    def test_default_keeps_it(self):
        wrong = LENS.with_vector(LENS.vector * 1.02)
        result = run(simulate()[0], lens=wrong)
        assert result.lens.vector.tolist() == wrong.vector.tolist()
        fixed = result.parameters["fixed"][result.parameters["component"] == "lens"]
        assert fixed.all() and "bad_chi2" in result.flags and not result.ok

    def test_refines_it(self):
        near = LENS.with_vector(LENS.vector * 1.02 + 0.005)
        result = run(simulate()[0], lens=near, fit_lens=True)
        pull = (result.lens[0].theta_E.value - 0.8) / result.lens[0].theta_E.std
        assert abs(pull) < 4 and result.ok, result.flags
        # What the caller handed over is left as it was.
        assert near.vector.tolist() == (LENS.vector * 1.02 + 0.005).tolist()

    def test_fixed_parameters_stay(self):
        lens = SIE(0.81, 0.1, -0.05, 0.02, 0.0) + Shear(0.02, 0.01)
        for name in ("e1", "e2", "x_0"):
            getattr(lens[0], name).fixed = True
        result = run(simulate()[0], lens=lens, fit_lens=True)
        assert result.lens.vector[1:4].tolist() == [0.1, -0.05, 0.02]
        table = result.parameters[result.parameters["component"] == "lens"]
        # The shear's origin is fixed by default.
        assert list(table["name"][table["fixed"]]) == ["e1_0", "e2_0", "x_0_0", "x_0_1", "y_0_1"]
        assert np.isnan(table["error"][table["fixed"]]).all()
        assert np.isfinite(table["error"][~table["fixed"]]).all()
        assert not [name for name in result.covariance_names if "e1_0" in name]
        assert abs(result.lens[0].theta_E.value / 0.8 - 1) < 0.005

    def test_bounds_hold_and_are_flagged(self):
        lens = SIE(0.83, 0.1, -0.05, 0.02, 0.0) + Shear(0.02, 0.01)
        lens[0].theta_E.bounds = (0.82, 0.9)
        result = run(simulate()[0], lens=lens, fit_lens=True)
        assert result.lens[0].theta_E.value == pytest.approx(0.82)
        assert "lens_at_bound" in result.flags and not result.ok


@pytest.mark.parametrize("scale", [1, 2, 3])
@pytest.mark.parametrize("psf", [None, BLUR], ids=["sharp", "blurred"])
def test_scale(scale, psf):
    image, truth = simulate(scale=scale, psf=psf)
    result = run(image, scale=scale, psf=psf)
    assert result.image.shape == (36 * scale, 36 * scale)
    assert psnr(result.image.data, truth) > 45
    error = result.image.uncertainty.array
    pulls = (result.image.data - truth) / error
    assert np.mean(np.abs(pulls) < 3) > 0.97 and 0.6 < np.sqrt(np.mean(pulls**2)) < 1.6
    assert result.lensed_source.data.sum() + result.sky.value * 36**2 == pytest.approx(
        result.image.data.sum()
    )


@pytest.mark.parametrize("psf", [None, BLUR], ids=["sharp", "blurred"])
@pytest.mark.parametrize("light", [None, LIGHT], ids=["dark", "shining"])
def test_image_is_the_model_at_a_finer_sampling(psf, light):
    image, truth = simulate(psf=psf, light=light)
    result = run(image, psf=psf, lens_light=light and "sersic")
    assert result.image.data.sum() == pytest.approx(result.model_image.data.sum(), rel=2e-3)
    difference = binned(result.image.data, 2) - result.model_image.data
    assert np.abs(difference).max() < 0.03 * result.model_image.data.max()
    if psf is None:
        assert np.abs(difference).max() < 0.003 * result.model_image.data.max()
    np.testing.assert_allclose(result.residual.data, result.data.data - result.model_image.data, atol=1e-12)
    total = result.lensed_source.data + result.lens_light_image.data + result.sky.value / 4
    np.testing.assert_allclose(total, result.image.data, rtol=1e-9, atol=1e-12)
    assert result.reduced_chi2 == pytest.approx(1, abs=0.15) and result.ok, result.flags
    assert (result.lens_light is None) is (light is None)


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_interpolation_is_bicubic(scale):
    image, _ = simulate()
    result = SuperResolver(source="interpolation", scale=scale)(image, noise=SIGMA, pixel_scale=0.1)
    np.testing.assert_array_equal(result.image.data, bicubic(image.data, scale))
    assert "interpolated" in result.flags and result.lens is None and result.source is None


def test_without_sky():
    image, truth = simulate(sky=0.0)
    result = run(image, sky=None)
    assert result.sky.value == 0 and result.sky_error.value == 0
    assert "sky" not in list(result.parameters["component"]) and "sky" not in result.covariance_names
    assert psnr(result.image.data, truth) > 45 and result.ok


def test_sky_is_found():
    result = run(simulate(sky=0.5)[0])
    assert abs(result.sky.value - 0.5) < 4 * result.sky_error.value
    assert 0.3 < result.sky_error.value / (SIGMA / 36) < 3 and result.sky.unit == ELECTRON


def test_surface_brightness_gives_the_same_answer():
    image, _ = simulate(psf=BLUR)
    plain = run(image, psf=BLUR)
    area = (0.1 * u.arcsec) ** 2
    flux = image.data * u.nJy
    density = (flux / area).to(u.MJy / u.sr)
    noise = (SIGMA * u.nJy / area).to(u.MJy / u.sr)
    result = run(density, noise=noise, psf=BLUR)
    fine = 0.25 * area
    np.testing.assert_allclose(
        (result.image.data * result.image.unit * fine).to_value(u.nJy), plain.image.data, rtol=1e-6, atol=1e-9
    )
    np.testing.assert_allclose(
        (result.image.uncertainty.array * result.image.unit * fine).to_value(u.nJy),
        plain.image.uncertainty.array,
        rtol=1e-5,
        atol=1e-12,
    )
    assert result.reduced_chi2 == pytest.approx(plain.reduced_chi2, rel=1e-6)
    # The source is surface brightness either way.
    np.testing.assert_allclose(
        (result.source.data * result.source.unit).to_value(u.nJy / u.arcsec**2), plain.source.data, rtol=1e-5
    )
    assert plain.source.unit == ELECTRON / u.arcsec**2
    assert (result.sky * area).to_value(u.nJy) == pytest.approx(plain.sky.value, rel=1e-5)


@pytest.mark.parametrize(
    ("factor", "unit"),
    [
        (1e-12, ELECTRON),
        (1e-6, ELECTRON),
        (1e6, ELECTRON),
    ],
)
def test_unit_does_not_matter(factor, unit):
    image, _ = simulate()
    plain = run(image)
    result = run(CCDData(image.data * factor, unit=unit), noise=SIGMA * factor)
    np.testing.assert_allclose(result.image.data / factor, plain.image.data, rtol=1e-3, atol=1e-3 * SIGMA)
    assert result.flags == plain.flags


def sky_wcs(angle, flip, shape=(36, 36), scale=0.1):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150.0, 2.0]
    wcs.wcs.crpix = [7.0, 11.0]
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    wcs.wcs.cd = np.array([[-1.0 if flip else 1.0, 0], [0, 1]]) @ np.array([[c, -s], [s, c]]) * scale / 3600
    wcs.wcs.set()
    return wcs


@pytest.mark.parametrize(("angle", "flip"), [(0, True), (37, True), (-120, False)])
@pytest.mark.parametrize("scale", [2, 3])
def test_places_on_the_sky_are_kept(angle, flip, scale):
    wcs = sky_wcs(angle, flip)
    image, _ = simulate(scale=scale, wcs=wcs)
    result = run(image, scale=scale, pixel_scale=None)
    # The edges of the image are where they were.
    corners = np.array([-0.5, 35.5])
    fine = np.array([-0.5, 36 * scale - 0.5])
    for row in (0, 1):
        expected = wcs.pixel_to_world(corners, np.roll(corners, row))
        found = result.image.wcs.pixel_to_world(fine, np.roll(fine, row))
        assert found.separation(expected).to_value(u.arcsec).max() < 1e-6
    # The light is where it was.
    places = []
    for plane, pixels in ((result.model_image, 1), (result.image, scale**2)):
        rows, columns = np.indices(plane.shape)
        light = plane.data - result.sky.value / pixels
        middle = (light * columns).sum() / light.sum(), (light * rows).sum() / light.sum()
        places.append(plane.wcs.pixel_to_world(*middle))
    assert places[0].separation(places[1]).to_value(u.arcsec) < 0.002
    grid = PixelGrid((36, 36), 0.1, wcs)
    row, column = np.unravel_index(result.source.data.argmax(), result.source.shape)
    source = result.source.wcs.pixel_to_world(column, row)
    assert source.separation(grid.to_sky(0.08, -0.05)).to_value(u.arcsec) < 0.03


def test_results_say_how_they_were_made():
    result = run(simulate()[0])
    assert result.meta["scale"] == 2 and result.meta["source"] == "sersic" and result.meta["seconds"] > 0
    assert {"lenssr", "torch", "numpy", "astropy"} <= set(result.meta["versions"])
    assert result.image.meta["MODEL"] is True
    assert set(result.covariance_names) == {
        *(f"source.{name}" for name in ("amplitude", "r_eff", "n", "x_0", "y_0", "e1", "e2")),
        "sky",
    }
    errors = np.sqrt(np.diag(result.covariance))
    free = result.parameters[~result.parameters["fixed"]]
    np.testing.assert_allclose(errors, free["error"], rtol=1e-6)
    assert result.chi2_map.sum() / (36**2 - 8) == pytest.approx(result.reduced_chi2)


def test_masked_pixels_do_not_matter():
    image, truth = simulate()
    mask = np.zeros(image.shape, dtype=bool)
    mask[10:14, 20:24] = True
    spoiled = CCDData(np.where(mask, 1e5, image.data), unit=ELECTRON, mask=mask)
    result = run(spoiled)
    assert psnr(result.image.data, truth) > 45 and result.ok
    assert result.image.mask.sum() == 4 * mask.sum() and np.all(result.chi2_map[mask] == 0)


def test_automatic_mask_hides_a_neighbour():
    image, truth = simulate(shape=(64, 64), light=LIGHT, psf=BLUR)
    y, x = np.indices(image.shape)
    image.data += 30 * np.exp(-0.5 * ((x - 54) ** 2 + (y - 52) ** 2) / 1.5**2)
    result = run(image, lens=LENS, lens_light="sersic", psf=BLUR, mask="auto")
    assert result.data.mask[52, 54] and not result.data.mask[22:42, 22:42].any()
    assert psnr(result.image.data, truth) > 45 and result.ok, result.flags
