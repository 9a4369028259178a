"""Score what a training made, and write it to where weights ship, its scores on its card.

Images are drawn with a seed that no recipe uses. For networks that make images: T and M as in
`lenssr.metrics`, on DeepLense cells, or, for a broad population, T on that and on real galaxies that were
kept from training. For networks that read lenses: how often the Einstein radius is near.

    python benchmarks/pretrained.py FOLDER NETWORK NAME [-n 100] [--notes TEXT]

FOLDER is that of the training, NETWORK one of its files without the ending, NAME what it shall be called.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import common  # first: it sets one thread
import numpy as np
import torch

import lenssr
from lenssr import metrics
from lenssr.grids import PixelGrid
from lenssr.networks import load_weights, save_weights
from lenssr.networks.deflection import as_family
from lenssr.simulation import GALAXY_CELLS, BroadLenses, DeepLense, GalaxyLenses
from lenssr.training.data import View

SEED = 9001
KEPT = "hubble_deep_field[1::2]"
NEAR = (0.02, 0.05, 0.1)
TOGETHER = 16


def predicted(network, view):
    """The finer images of a view."""
    if network.kind == "SISR":
        return network(view.image, view.sigma if network.with_noise else None)
    drawn = network(view.image, view.sigma, view.operator, *view.rays, psf_sigma=view.psf_sigma)
    return drawn.image(view.fine_operator, *view.fine_rays)


def mean_scores(name, images, truths, noisy=()):
    """Mean scores of images by name, T always and M where there are noisy ones."""
    found = {"T psnr": [metrics.scores_t(*pair).psnr for pair in zip(images, truths, strict=True)]}
    if noisy:
        each = [metrics.scores_m(*pair) for pair in zip(images, noisy, strict=True)]
        found |= {f"M {key}": [getattr(one, key) for one in each] for key in ("mse", "ssim", "psnr")}
    return {f"{key}, {name}": float(np.mean(values)) for key, values in found.items()}


def batches(data, **options):
    """All lenses of a data set, a few at a time."""
    for indices in data.index_batches(TOGETHER):
        batch = data.batch(indices, **options)
        yield batch, View(batch)


def deep_lense(network, number):
    """The four cells of Model I."""
    scores = {}
    for cell, settings in common.deep_lense_cells().items():
        images, truths, noisy = [], [], []
        for batch, view in batches(DeepLense(**settings, size=number, seed=SEED), high=True):
            images += list(predicted(network, view))
            truths, noisy = [*truths, *batch.truth], [*noisy, *batch.high]
        scores |= mean_scores(cell, images, truths, noisy)
    return scores


def broad(network, number):
    """The broad population, its real galaxies new to the network, and those as two cameras see them."""
    images, truths = [], []
    for batch, view in batches(BroadLenses(shapes=KEPT, size=number, seed=SEED)):
        images, truths = [*images, *predicted(network, view)], [*truths, *batch.truth]
    scores = mean_scores("broad population", images, truths)
    for cell, settings in GALAXY_CELLS.items():
        items = list(GalaxyLenses(KEPT, size=number, seed=SEED, **settings))
        images = [predicted(network, view_of(item))[0] for item in items]
        scores |= mean_scores(f"real galaxies, {cell}", images, [item.truth for item in items])
    return scores


def view_of(item):
    """One lens of a data set whose lenses come one by one, as a batch of one."""
    grid = PixelGrid.from_wcs(item.low.wcs, item.low.shape)
    low = torch.tensor(item.low.data, dtype=torch.float32)[None]
    scenes = SimpleNamespace(lens=item.lens, lens_vector=item.lens.vector[None].float())
    batch = SimpleNamespace(
        low=low,
        noise=item.noise,
        psf=item.psf,
        psf_fwhm=0.0 if item.psf is None else item.psf.fwhm_at(grid.pixel_scale),
        oversampling=1 if item.psf is None else "auto",  # as DeepLense samples
        grid=grid,
        pixel_scale=grid.pixel_scale,
        scale=item.truth.shape[0] // item.low.shape[0],
        device=low.device,
        scenes=scenes,
    )
    return View(batch)


def lenses(network, number):
    """How near the lenses of the broad population are."""
    misses, errors = [], []
    for batch, view in batches(BroadLenses(shapes=KEPT, size=number, seed=SEED)):
        estimate = network(view.image, view.sigma, batch.pixel_scale)
        truth = as_family(batch.scenes.lens, batch.scenes.lens_vector)
        misses.append((estimate.vector - truth) / truth[:, :1])
        errors.append(estimate.covariance[:, 0, 0].sqrt() / truth[:, 0])
    miss, error = torch.cat(misses)[:, 0].abs(), torch.cat(errors)
    scores = {f"theta_E within {near:.0%}": (miss < near).float().mean().item() for near in NEAR}
    return scores | {"theta_E within its error of 68 %": (miss < error).float().mean().item()}


def scores_of(network, card, number):
    """What a network is for says what it is scored by."""
    if network.kind == "DeflectionNetwork":
        return lenses(network, number)
    on = {entry["dataset"] for entry in card.recipe["data"]}
    return (broad if on == {"BroadLenses"} else deep_lense)(network, number)


@torch.no_grad()
def main():
    """Score, write, print the card."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("network")
    parser.add_argument("name")
    parser.add_argument("-n", "--number", type=int, default=100, help="images a cell, by default 100")
    parser.add_argument("--notes", default="", help="a sentence for the card")
    chosen = parser.parse_args()
    network, card = load_weights(chosen.folder / "weights" / f"{chosen.network}.safetensors")
    scores = scores_of(network, card, chosen.number)
    card = replace(card, scores=card.scores | scores, notes=chosen.notes)
    path = Path(lenssr.__file__).parent / "networks" / "pretrained" / f"{chosen.name}.safetensors"
    path.parent.mkdir(exist_ok=True)
    save_weights(network, path, card)
    print(path.with_suffix(".md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
