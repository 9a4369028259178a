"""The picture of the docs' page on simulated lenses. It writes docs/_static/simulated.png.

python benchmarks/simulated_picture.py
"""

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt  # noqa: E402
import torch  # noqa: E402

from lenssr.simulation import BroadLenses, DeepLense, GalaxyShapes  # noqa: E402

STATIC = Path(__file__).parents[1] / "docs" / "_static"
MODELS, SUBSTRUCTURE = ("I", "II", "III"), ("none", "cdm", "axion")
LENS = 3


def substructure(axes):
    """Rows of low images, and of what substructure changes in them, in units of the noise."""
    shown = None
    for row, model in enumerate(MODELS):
        batches = {
            kind: DeepLense(model, lens="sie+shear", substructure=kind, seed=1).batch([LENS])
            for kind in SUBSTRUCTURE
        }
        smooth = batches["none"].low_truth[0]
        for column, (kind, batch) in enumerate(batches.items()):
            axes[row, column].imshow(batch.low[0], origin="lower", cmap="magma")
            axes[row, column].set_title(f"Model {model}, {kind}")
            if kind != "none":
                change = (batch.low_truth[0] - smooth) / batch.variance[0].sqrt()
                place = axes[row, column + 2]
                shown = place.imshow(change, origin="lower", cmap="RdBu_r", vmin=-10, vmax=10)
                place.set_title(f"change by {kind}")
    return shown


def broad(axes):
    """Lenses of the broad population, each as it is seen, and the truth."""
    data = BroadLenses(size=6400, seed=4, shapes=GalaxyShapes.hubble_deep_field())
    for place, index in enumerate(range(0, 64 * axes.size // 2, 64)):
        batch = data.batch([index])
        low, truth = axes.flat[2 * place], axes.flat[2 * place + 1]
        low.imshow(batch.low[0], origin="lower", cmap="magma")
        low.set_title(f'{batch.pixel_scale:.3f}" pixels')
        truth.imshow(batch.truth[0], origin="lower", cmap="magma")
        truth.set_title(("Sérsic", "clumpy disc", "real shape")[int(batch.settings["kind"][0])])


def main():
    torch.set_num_threads(1)
    plt.rcParams.update({"font.size": 7, "axes.titlepad": 2})
    figure = plt.figure(figsize=(7.5, 8.6), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.15, 1))
    axes = upper.subplots(3, 5), lower.subplots(3, 6)
    upper.colorbar(substructure(axes[0]), ax=axes[0], shrink=0.6, label="change / noise")
    broad(axes[1])
    for place in (*axes[0].flat, *axes[1].flat):
        place.set_xticks([])
        place.set_yticks([])
    figure.savefig(STATIC / "simulated.png", dpi=80)


if __name__ == "__main__":
    main()
