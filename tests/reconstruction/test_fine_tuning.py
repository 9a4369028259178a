"""A network learns from a user's own images, without finer ones."""

import sys
import warnings

import astropy.units as u
import numpy as np
import pytest
import torch

from lenssr import SIE, InputError, LensSRWarning, NetworkSource, SuperResolver
from lenssr.exceptions import LensSRDeprecationWarning
from lenssr.networks import SISR, Card, RelensingNetwork, load_weights, save_weights
from lenssr.networks.weights import find
from lenssr.reconstruction.fine_tuning import HELD
from lenssr.simulation import BroadLenses, DeepLense
from lenssr.training import draw_hidden
from lenssr.training.data import hidden_pixel_generator

LIMITS = {"pixel_scale": [0.05, 0.1], "psf_fwhm": [0.0, 0.2], "snr": [20.0, 5000.0]}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A file of a small network that has learned nothing."""
    path = tmp_path_factory.mktemp("weights") / "start.safetensors"
    torch.manual_seed(3)
    save_weights(RelensingNetwork(16, channels=(4, 6)), path, Card({}, 0, "cpu", 0.0, 0, {}, LIMITS))
    return NetworkSource(path)


@pytest.fixture(scope="module")
def items():
    """One without a PSF, and two of another shape behind PSFs of their own."""
    blurred = BroadLenses(pixels=32, pixel_scale=(0.09, 0.12), size=2, seed=7)
    return [DeepLense(lens="sie", noise=True, size=1, seed=1)[0], blurred[0], blurred[1]]


@pytest.fixture(scope="module")
def fit(source, items):
    """Train the untrained network on the images; few steps may bring little, and then warn."""
    mask = np.zeros(items[0].low.shape, dtype=bool)
    mask[30:34, 50:54] = True
    about = {
        # That of the first image is the resolver's.
        "lenses": [None, items[1].lens, items[2].lens],
        "noise": [item.noise for item in items],
        "psf": [item.psf for item in items],
        "mask": [mask, None, None],
    }

    def fit(seed=0, spoiled=0.0, **options):
        resolver = SuperResolver(source=source, lens=items[0].lens, oversampling=2, seed=seed)
        low = items[0].low
        first = low.__class__(low.data + spoiled * mask, wcs=low.wcs, unit=low.unit)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LensSRWarning)
            return resolver.fine_tune([first, *(item.low for item in items[1:])], **{**about, **options})

    return fit


@pytest.fixture(scope="module")
def fitted(fit, tmp_path_factory):
    return fit(steps=30, learning_rate=4e-3, folder=tmp_path_factory.mktemp("fit"))


def numbers(network):
    """Of a network, or the one of a resolver, to the last bit."""
    network = network._method.networks[0].network if isinstance(network, SuperResolver) else network
    return {name: value.numpy().tobytes() for name, value in network.state_dict().items()}


def test_pixels_held_back_are_predicted_better(fitted):
    scores = fitted.training.scores
    assert 0 < scores["hidden_pixels"] < 0.9 * scores["hidden_pixels_before"]


def test_the_card_tells_of_the_images(fitted, items):
    card = fitted.training
    assert card.steps == 30 and card.seed == 0 and card.device == "cpu" and card.minutes > 0
    assert card.recipe["images"] == 3 and card.recipe["start"]["name"] == "start.safetensors"
    assert card.limits["psf_fwhm"][0] == 0 < card.limits["psf_fwhm"][1]
    assert card.limits["pixel_scale"][0] == pytest.approx(0.05)
    assert 0 < card.limits["snr"][0] < card.limits["snr"][1]


def test_results_are_those_of_the_new_network_also_from_a_file(fitted, source, items, tmp_path):
    fitted.save(tmp_path / "one.safetensors")
    back = SuperResolver.load(tmp_path / "one.safetensors")
    plain = SuperResolver(source=source, lens=items[0].lens, oversampling=2)
    new, again, old = (one(items[0].low, noise=items[0].noise) for one in (fitted, back, plain))
    assert new.image.data.tobytes() == again.image.data.tobytes() != old.image.data.tobytes()
    assert new.meta["network"] == again.meta["network"]
    assert new.meta["network"]["name"] == "start.safetensors, trained on own images"
    assert new.meta["network"]["checksum"] != old.meta["network"]["checksum"]
    assert back.training == fitted.training and plain.training is None


def test_the_folder_holds_network_and_losses(fit, tmp_path):
    resolver = fit(steps=2, folder=tmp_path / "run")
    network, card = load_weights(tmp_path / "run" / "source.safetensors", kind="RelensingNetwork")
    assert numbers(network) == numbers(resolver)
    assert card == resolver.training
    (log,) = (tmp_path / "run").rglob("metrics.csv")
    assert "hidden_pixels" in log.read_text() and len(log.read_text().splitlines()) == 3


def test_the_seed_says_it_all_and_masked_pixels_nothing(fit):
    first, spoiled, other = (fit(steps=4, **options) for options in ({}, {"spoiled": 1e3}, {"seed": 1}))
    assert numbers(first) == numbers(spoiled) != numbers(other)
    assert first.training.scores == spoiled.training.scores


def test_no_step_learns_from_pixels_held_back(source, items):
    item, trained = items[0], []
    held = draw_hidden(torch.zeros(1, *item.low.shape), HELD, hidden_pixel_generator(0, -1))[0].numpy()
    for more in (0.0, 0.2):
        image = item.low.__class__(item.low.data + more * held, wcs=item.low.wcs, unit=item.low.unit)
        resolver = SuperResolver(source=source, lens=item.lens, oversampling=2, sky=None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LensSRWarning)
            trained.append(resolver.fine_tune([image], noise=0.1 * u.electron / u.s, steps=3))
    assert numbers(trained[0]) == numbers(trained[1])
    assert trained[0].training.scores != trained[1].training.scores


def test_an_unknown_lens_is_fitted_first_and_training_goes_on(items, tmp_path):
    before = find("relensing").read_bytes()
    resolver = SuperResolver(source="network", oversampling=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LensSRWarning)
        resolver.fine_tune([items[0].low], noise=items[0].noise, steps=1)
        first = resolver.training
        resolver.fine_tune([items[0].low], noise=items[0].noise, lenses=items[0].lens, steps=1)
    assert 0.8 < first.scores["hidden_pixels"] < 1.3
    assert first.recipe["start"]["name"] == "relensing"
    assert resolver.training.recipe["start"]["name"] == "relensing, trained on own images"
    assert resolver._method.networks[0].name == "relensing, trained on own images"
    assert find("relensing").read_bytes() == before


def test_it_warns_where_training_makes_it_worse(items):
    """A trained network, and steps that are far too long for it."""
    resolver = SuperResolver(source="network", lens=items[0].lens, oversampling=1)
    with pytest.warns(LensSRWarning, match="give more images, fewer steps or a lower learning_rate"):
        resolver.fine_tune([items[0].low], noise=items[0].noise, steps=2, learning_rate=1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lenses": [SIE(1.0)]}, "lenses has 1 entries for 3 images: give one each, or one"),
        ({"lenses": ["SIE", None, None]}, "image 0: lens = 'SIE' is not a mass model"),
        ({"psf": [None]}, "psf has 1 entries for 3 images"),
        ({"steps": 0}, "steps = 0: give"),
        ({"learning_rate": -1.0}, "learning_rate = -1.0: give"),
    ],
)
def test_options_without_meaning_are_refused(fit, options, message):
    with pytest.raises(InputError, match=message):
        fit(**options)


@pytest.mark.parametrize("images", [[], "one.fits"])
def test_images_come_in_a_list(source, images):
    with pytest.raises(InputError, match="images is empty"):
        SuperResolver(source=source).fine_tune(images)


def test_what_draws_no_source_is_refused(tmp_path):
    with pytest.raises(InputError, match="source = 'sersic' is not a network"):
        SuperResolver(source="sersic").fine_tune([])
    path = tmp_path / "finer.safetensors"
    save_weights(SISR(channels=4, depth=1), path, Card({}, 0, "cpu", 0.0, 0, {}, LIMITS))
    with pytest.raises(InputError, match="an SISR, which knows no lens"):
        SuperResolver(source=NetworkSource(path)).fine_tune([])


def test_without_lightning_it_says_what_to_install(fit, monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    with pytest.raises(InputError, match=r"pip install 'lenssr\[train\]'"):
        fit(steps=1)


def test_fit_is_the_deprecated_name():
    with (
        pytest.warns(LensSRDeprecationWarning, match="fine_tune"),
        pytest.raises(InputError, match="not a network"),
    ):
        SuperResolver(source="sersic").fit([])
