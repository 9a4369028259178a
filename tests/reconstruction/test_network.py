"""Sources that a network draws, through the resolver."""

import astropy.units as u
import numpy as np
import pytest
import torch

from lenssr import InputError, NetworkSource, SuperResolver
from lenssr.grids import PixelGrid
from lenssr.light import Sersic
from lenssr.mass import SIE
from lenssr.metrics import scores_t
from lenssr.networks import SISR, Card, DeflectionNetwork, RelensingNetwork, save_weights
from lenssr.simulation import GALAXY_CELLS, DeepLense, GalaxyLenses

# As the images below are.
LIMITS = {"pixel_scale": [0.05, 0.05], "psf_fwhm": [0.0, 0.0], "snr": [20.0, 5000.0]}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """Files of networks that have learned nothing: what arrives in the source plane, mostly as it is."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(3)
    nets = {"source": RelensingNetwork(32, channels=(4, 6)), "finer": SISR(channels=4, depth=1)}
    for name, net in {**nets, "lens": DeflectionNetwork(hidden=4)}.items():
        save_weights(net, folder / f"{name}.safetensors", Card({}, 0, "cpu", 0.0, 0, {}, LIMITS))
    return folder


@pytest.fixture(scope="module")
def item():
    return DeepLense(lens="sie", noise=True, size=4, seed=1)[0]


@pytest.fixture(scope="module")
def resolve(shelf, item):
    """Resolve the item, or another image, with the untrained network."""

    def resolve(image=None, refine=0, noise=item.noise, **options):
        options = {"lens": item.lens, "oversampling": 1, **options}
        resolver = SuperResolver(source=NetworkSource(shelf / "source.safetensors", refine), **options)
        return resolver(item.low if image is None else image, noise=noise)

    return resolve


@pytest.fixture(scope="module")
def result(resolve):
    return resolve()


def test_even_an_untrained_one_beats_interpolation(result, item):
    plain = SuperResolver(source="interpolation")(item.low, noise=item.noise)
    before, after = (scores_t(one.image.data, item.truth.data).psnr for one in (plain, result))
    assert after > before + 2


def test_steps_gain_on_what_a_trained_one_draws(item):
    options = {"lens": item.lens, "oversampling": 1, "noise": item.noise}
    drawn, refined = (
        SuperResolver(source=NetworkSource("relensing", k), **options)(item.low) for k in (0, 2)
    )
    before, after = (scores_t(one.image.data, item.truth.data).psnr for one in (drawn, refined))
    assert before > 44 and after > before + 0.5
    assert refined.meta["network"]["refine"] == 2 and refined.ok


def test_steps_take_the_prior_that_is_asked_for_or_the_likeliest(resolve):
    assert resolve(refine=1, prior="gradient").meta["prior"] == "gradient"
    assert resolve(refine=1).meta["prior"] == "curvature+laplacian3"


def test_a_drawing_that_does_not_explain_the_data_counts_for_little(resolve, item):
    """An untrained network draws something like the source, which steps that converge have no need of."""
    drawn, found = (resolve(refine=k) for k in (0, 20))
    free = SuperResolver(source="pixelated", lens=item.lens, oversampling=1)(item.low, noise=item.noise)
    off, apart = (np.abs(each.image.data - free.image.data).max() for each in (drawn, found))
    assert off > 3 * apart


@pytest.mark.slow
def test_behind_a_psf_steps_take_from_the_drawing_where_it_is_smooth():
    """Some of eight do, by the noise that they have, and all come nearer to the truth."""
    y, x = np.indices((40, 40)) - 20
    galaxy = np.exp(-np.hypot(x, y) / 4) + np.exp(-np.hypot(x - 8, y + 5) / 2)
    priors, gains = [], []
    for item in (
        one for seed in (1, 2) for one in GalaxyLenses([galaxy], size=4, seed=seed, **GALAXY_CELLS['0.1"'])
    ):
        drawn, refined = (
            SuperResolver(source=NetworkSource("relensing-broad", k), lens=item.lens)(item.low, **item.given)
            for k in (0, 2)
        )
        before, after = (scores_t(one.image.data, item.truth.data).psnr for one in (drawn, refined))
        assert refined.ok and before > 44 and after > before + 0.3
        priors.append(refined.meta["prior"])
        gains.append(after - before)
    assert "local" in priors and np.mean(gains) > 1


def test_steps_mend_what_was_drawn_for_a_lens_that_is_not_right(resolve, item):
    """The drawing is one for another lens then, and does not count."""
    parts = dict(zip(item.lens.param_names, item.lens.vector.tolist(), strict=True))
    off = SIE(**{**parts, "theta_E": 1.005 * parts["theta_E"]})
    drawn, refined = (resolve(refine=k, lens=off, fit_lens=fit) for k, fit in ((0, False), (3, True)))
    before, after = (scores_t(one.image.data, item.truth.data).psnr for one in (drawn, refined))
    assert after > before + 5


def test_the_image_is_the_source_behind_the_lens(result):
    """What the network drew explains the data by itself, nothing is left over from interpolation."""
    residual = result.residual.data * np.sqrt(1 / result.residual.uncertainty.array**2)
    np.testing.assert_allclose(result.chi2_map, residual**2, rtol=1e-8)
    assert result.reduced_chi2 < 1.3


@pytest.mark.parametrize("refine", [0, 2])
def test_errors_are_as_large_as_what_is_wrong(refine, resolve, item):
    """A little wide, by a quarter; errors twice as large, or half as large, lie outside these limits."""
    found, truth = resolve(refine=refine), item.truth.data
    bright = truth > 0.05 * truth.max()
    pulls = (found.image.data - truth)[bright] / found.image.uncertainty.array[bright]
    assert 0.55 < np.sqrt(np.mean(pulls**2)) < 1.1
    assert 0.65 < np.mean(np.abs(pulls) < 1) < 0.9


def test_it_says_which_network_it_was(result, shelf):
    import hashlib

    digest = hashlib.sha256((shelf / "source.safetensors").read_bytes()).hexdigest()
    about = {"name": "source.safetensors", "kind": "RelensingNetwork", "checksum": digest}
    assert result.meta["network"] == {**about, "refine": 0, "unlike_training": []}
    assert result.meta["source"] == "network" and "unlike_training" not in result.flags


def test_a_sky_is_told_from_the_arcs(resolve, item, result):
    low = item.low.data + 0.3 * item.low.data.max()
    lifted = item.low.__class__(low, wcs=item.low.wcs, unit=item.low.unit)
    plain, lifted = (resolve(image, noise=0.1 * u.electron / u.s) for image in (item.low, lifted))
    assert lifted.sky.value - plain.sky.value == pytest.approx(0.3 * item.low.data.max(), rel=1e-3)
    np.testing.assert_allclose(lifted.source.data, plain.source.data, rtol=0.02, atol=1e-3)


def test_a_lens_that_is_not_known_is_fitted_first(item):
    resolver = SuperResolver(source=NetworkSource("relensing", refine=1), oversampling=1)
    found = resolver(item.low, noise=item.noise)
    assert found.lens[0].theta_E.value == pytest.approx(item.lens.theta_E.value, rel=0.01)
    assert found.lens[0].theta_E.std > 0
    assert scores_t(found.image.data, item.truth.data).psnr > 42


@pytest.mark.parametrize("refine", [0, 2])
def test_dark_pixels_without_noise_raise_no_alarm(refine):
    """They count no photons, and would see a source end with its network's grid."""
    clean = DeepLense(lens="sie", size=8, seed=7)[2]
    options = {"lens": clean.lens, "oversampling": 1, "sky": None, "noise": clean.noise}
    found = SuperResolver(source=NetworkSource("relensing", refine), **options)(clean.low)
    assert found.flags == ()
    assert scores_t(found.image.data, clean.truth.data).psnr > 47


def test_the_light_of_the_lens_is_taken_off_and_a_neighbour_is_no_source(item):
    shape, scale = item.low.shape, item.low.wcs.proj_plane_pixel_scales()[0].to_value(u.arcsec)
    grid = PixelGrid(shape, scale)
    galaxy = Sersic(amplitude=0.5 * item.low.data.max() / scale**2, r_eff=0.3, n=1.0)
    light = galaxy(grid.x, grid.y) * scale**2
    sigma = 0.02 * item.low.data.max()
    data = item.low_truth.data + light + np.random.default_rng(1).normal(0, sigma, shape)
    data[-4:, -4:] += 5 * sigma
    image = item.low.__class__(data, wcs=item.low.wcs, unit=item.low.unit)
    options = {"lens": item.lens, "oversampling": 1, "lens_light": "sersic"}
    found = SuperResolver(source=NetworkSource("relensing", 1), **options)(image, noise=sigma * item.low.unit)
    assert found.lens_light.r_eff.value == pytest.approx(0.3, rel=0.05)
    assert found.lens_light.n.value == pytest.approx(1.0, abs=0.1)
    assert scores_t(found.lensed_source.data, item.truth.data).psnr > 30
    assert len(found.source.data) * found.source.meta["pixel_scale"] < 2.1


def test_units_do_not_matter(resolve, item, result):
    tiny = item.low.__class__(1e-25 * item.low.data, wcs=item.low.wcs, unit="W")
    sigma = result.residual.uncertainty.array
    one = resolve(noise=sigma * item.low.unit)
    other = resolve(tiny, noise=1e-25 * sigma * u.W)
    np.testing.assert_allclose(1e25 * other.image.data, one.image.data, rtol=1e-3, atol=1e-4)


def test_masked_pixels_say_nothing(resolve, item):
    mask = np.zeros(item.low.shape, dtype=bool)
    mask[30:34, 50:54] = True
    spoiled = item.low.data.copy()
    spoiled[mask] = 1e4
    first, second = (
        resolve(item.low.__class__(data, wcs=item.low.wcs, unit=item.low.unit, mask=mask))
        for data in (item.low.data, spoiled)
    )
    np.testing.assert_allclose(first.image.data, second.image.data, rtol=1e-9)


def test_map_gives_the_same_bytes(resolve, shelf, item, result):
    resolver = SuperResolver(
        source=NetworkSource(shelf / "source.safetensors"), lens=item.lens, oversampling=1, noise=item.noise
    )
    again = resolver.map([item.low])[0]
    assert again.image.data.tobytes() == result.image.data.tobytes()
    assert again.image.uncertainty.array.tobytes() == result.image.uncertainty.array.tobytes()


def test_a_result_survives_its_file(result, tmp_path):
    result.write(tmp_path / "out.fits")
    back = type(result).read(tmp_path / "out.fits")
    assert back.meta["network"] == result.meta["network"]
    assert result.sample(2).image.shape == (2, *result.image.shape)


@pytest.mark.parametrize(
    ("limits", "word"),
    [
        ({"pixel_scale": [0.08, 0.1]}, 'pixel scale 0.05", trained on 0.08" to 0.1"'),
        ({"psf_fwhm": [0.1, 0.2]}, 'FWHM of the PSF 0"'),
        ({"snr": [1e5, 1e6]}, "signal-to-noise ratio"),
    ],
)
def test_what_it_was_not_trained_on_is_flagged_by_name(limits, word, item, tmp_path):
    path = tmp_path / "other.safetensors"
    card = Card({}, 0, "cpu", 0.0, 0, {}, {**LIMITS, **limits})
    save_weights(RelensingNetwork(16, channels=(4, 6)), path, card)
    resolver = SuperResolver(source=NetworkSource(path), lens=item.lens, oversampling=1)
    one = resolver(item.low, noise=item.noise)
    assert "unlike_training" in one.flags
    (words,) = one.meta["network"]["unlike_training"]
    assert words.startswith(word)


def test_the_narrow_weights_have_the_first_turn(item, tmp_path, monkeypatch):
    from lenssr.networks import weights

    monkeypatch.setattr(weights, "PRETRAINED_FOLDER", tmp_path)
    for name, scale in (("relensing", 0.1), ("relensing-broad", 0.05)):
        limits = {**LIMITS, "pixel_scale": [scale, scale]}
        card = Card({}, 0, "cpu", 0.0, 0, {}, limits)
        save_weights(RelensingNetwork(16, channels=(4, 6)), tmp_path / f"{name}.safetensors", card)
    one = SuperResolver(source="network", lens=item.lens, oversampling=1)(item.low, noise=item.noise)
    assert one.meta["network"]["name"] == "relensing-broad"
    (tmp_path / "relensing.safetensors").unlink()
    (tmp_path / "relensing-broad.safetensors").unlink()
    with pytest.raises(InputError, match="name a file"):
        SuperResolver(source="network")


def test_an_sisr_makes_the_image_finer_without_a_lens(shelf, item):
    sources = NetworkSource(shelf / "finer.safetensors"), "interpolation"
    noise = 0.1 * u.electron / u.s
    finer, plain = (SuperResolver(source=source)(item.low, noise=noise) for source in sources)
    np.testing.assert_allclose(finer.image.data, plain.image.data, atol=1e-2 * plain.image.data.max())
    assert finer.lens is None and finer.source is None
    assert "not_relensed" in finer.flags
    ratio = finer.image.uncertainty.array / plain.image.uncertainty.array
    assert 0.7 < np.median(ratio) < 1.3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 3}, "makes images 2 times finer"),
        ({"lens_light": "sersic"}, "lens_light with weights"),
        ({"prior": "curvature"}, "prior with weights"),
        ({"psf_out": "pixel"}, "psf_out with weights"),
    ],
)
def test_what_an_sisr_does_not_know_is_refused(options, message, shelf):
    with pytest.raises(InputError, match=message):
        SuperResolver(source=NetworkSource(shelf / "finer.safetensors"), **options)


def test_a_network_that_draws_nothing_is_refused(shelf):
    with pytest.raises(InputError, match="a DeflectionNetwork, draws no image"):
        SuperResolver(source=NetworkSource(shelf / "lens.safetensors"))
