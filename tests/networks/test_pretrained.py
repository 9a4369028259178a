"""The weights that ship: whole, small, and better than no network."""

from pathlib import Path

import pytest
import torch

import lenssr
from lenssr.metrics import bicubic, psnr
from lenssr.networks import load_weights
from lenssr.networks.deflection import as_family
from lenssr.simulation import BroadLenses, DeepLense
from lenssr.training.data import View

FOLDER = Path(lenssr.__file__).parent / "networks" / "pretrained"
FILES = sorted(FOLDER.glob("*.safetensors"))
NAMES = {"deflection", "lenssr-no-source", "lenssr-with-source", "relensing", "relensing-broad", "supervised"}


def test_all_are_there_with_their_cards_and_small():
    assert NAMES <= {path.stem for path in FILES}
    assert sum(path.stat().st_size for path in FOLDER.rglob("*.safetensors")) <= 6e6
    assert all(path.with_suffix(".md").is_file() for path in FILES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@torch.no_grad()
def test_each_is_whole_and_does_what_it_is_for(path):
    network, card = load_weights(path)  # its checksum and its shapes are verified
    assert card.minutes > 0 and card.steps > 0 and card.scores
    trained_on = {"DeepLense": DeepLense, "BroadLenses": BroadLenses}[card.recipe["data"][0]["dataset"]]
    batch = trained_on(size=4, seed=77).batch(range(4))
    view = View(batch)
    for name, values in (("pixel_scale", batch.pixel_scale), ("psf_fwhm", batch.psf_fwhm)):
        low, high = card.limits[name]
        assert 0.9 * low <= values <= 1.1 * high
    if network.kind == "DeflectionNetwork":
        truth = as_family(batch.scenes.lens, batch.scenes.lens_vector)
        estimate = network(view.image, view.sigma, batch.pixel_scale)
        assert ((estimate.vector - truth)[:, 0].abs() / truth[:, 0]).median() < 0.05
        return
    if network.kind == "SISR":
        images = network(view.image, view.sigma)
    else:
        source = network(view.image, view.sigma, view.operator, *view.rays, psf_sigma=view.psf_sigma)
        images = source.image(view.fine_operator, *view.fine_rays)
    for image, low, truth in zip(images, batch.low, batch.truth, strict=True):
        assert psnr(image, truth) > psnr(bicubic(low, batch.scale), truth)
