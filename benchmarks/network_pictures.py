"""The pictures of the docs' page on networks; they go to docs/_static.

networks_curves.png: how training went, from the files in docs/benchmarks/training.
networks_images.png: what the networks make of one lens, and what is wrong with it, over the noise of a pixel.
networks_limits.png: what becomes of it where the lens that is given is wrong, and what the verdict says.

    python benchmarks/network_pictures.py
"""

import csv
from pathlib import Path

import common  # noqa: F401 - first: it sets one thread
import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

from lenssr import SIE, NetworkSource, SuperResolver, metrics  # noqa: E402
from lenssr.simulation import DeepLense  # noqa: E402

DOCS = Path(__file__).parents[1] / "docs"
CURVES = DOCS / "benchmarks" / "training"
SCALE, SEED, LENS = 2, 7, 4
WRONG = np.array([-0.02, -0.01, -0.005, -0.0025, 0, 0.0025, 0.005, 0.01, 0.02])
SHOWN = {
    "lenssr-no-source": NetworkSource("lenssr-no-source"),
    "lenssr-with-source": NetworkSource("lenssr-with-source"),
    "relensing": NetworkSource(),
    "relensing + 2 steps": NetworkSource(refine=2),
}


def read_curve(path):
    """Steps, and the score of what was held back at each: T in dB, or the loss where there is no image."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["val_loss"]]
    name = "val_psnr" if rows[0].get("val_psnr") else "val_loss"
    return [int(row["step"]) for row in rows], [float(row[name]) for row in rows], name


def curves():
    """One panel a training, and one for those that tell how many images are enough."""
    panels = {}
    for path in sorted(CURVES.glob("*.csv")):
        together = path.stem.endswith("-images")
        panels.setdefault("relensing, few images" if together else path.stem, []).append(path)
    figure, axes = plt.subplots(2, -(-len(panels) // 2), figsize=(7.5, 4.2), layout="constrained")
    for place, (title, paths) in zip(axes.flat, panels.items(), strict=False):
        for path in paths:
            steps, values, name = read_curve(path)
            place.plot(steps, values, label=path.stem.removeprefix("relensing-").replace("-", " "))
        place.set(title=title, xlabel="step", ylabel="T (dB)" if name == "val_psnr" else "loss")
        if len(paths) > 1:
            place.legend()
    for place in axes.flat[len(panels) :]:
        place.set_axis_off()
    figure.savefig(DOCS / "_static" / "networks_curves.png", dpi=150)


def solve(item, source, lens):
    """The result of a network; those of LensSR take no lens, and the simulations have no sky."""
    known = {} if source.weights else {"lens": lens, "sky": None}
    return SuperResolver(scale=SCALE, source=source, oversampling=1, **known)(item.low, **item.given)


def images():
    item = DeepLense(lens="sie", noise=True, size=LENS + 1, seed=SEED)[LENS]
    made = {"bicubic": metrics.bicubic(item.low.data, SCALE)}
    made |= {name: solve(item, source, item.lens).image.data for name, source in SHOWN.items()}
    truth, peak = item.truth.data, item.truth.data.max()
    # Of a fine pixel: its share of the variance of the pixel around it.
    variance = item.noise.moments(torch.as_tensor(item.low_truth.data))[2].numpy()
    noise = np.sqrt(np.kron(variance, np.ones((SCALE, SCALE)))) / SCALE
    figure, axes = plt.subplots(2, len(made) + 1, figsize=(9.5, 3.6), layout="constrained")
    for (upper, lower), (name, image) in zip(axes.T, made.items(), strict=False):
        upper.imshow(np.sqrt(image.clip(0)), origin="lower", cmap="magma", vmax=np.sqrt(peak))
        upper.set_title(f"{name}\nT = {metrics.scores_t(image, truth).psnr:.1f} dB")
        shown = lower.imshow((image - truth) / noise, origin="lower", cmap="RdBu_r", vmin=-1, vmax=1)
    axes[0, -1].imshow(np.sqrt(truth), origin="lower", cmap="magma")
    axes[0, -1].set_title("truth\n")
    axes[1, -1].imshow(np.sqrt(item.low.data.clip(0)), origin="lower", cmap="magma")
    axes[1, -1].set_title("what was given")
    figure.colorbar(shown, ax=axes[1, :-1], label="(image - truth) / noise", shrink=0.8)
    for place in axes.flat:
        place.set(xticks=[], yticks=[])
    figure.savefig(DOCS / "_static" / "networks_images.png", dpi=150)


def limits():
    figure, place = plt.subplots(figsize=(5, 3.2), layout="constrained")
    for noise, marker in ((False, "o"), (True, "s")):
        items = list(DeepLense(lens="sie", noise=noise, size=6, seed=SEED))
        for source, style in ((NetworkSource(), "-"), (NetworkSource(refine=2), "--")):
            rows = [[wrong_lens(item, source, wrong) for item in items] for wrong in WRONG]
            t = [np.mean([one[0] for one in row]) for row in rows]
            flagged = [np.mean([not one[1] for one in row]) for row in rows]
            steps = f" + {source.refine} steps" if source.refine else ""
            place.plot(100 * WRONG, t, style, label=f"{'noisy' if noise else 'clean'}{steps}")
            place.scatter(
                100 * WRONG, t, c=flagged, cmap="Reds", vmin=0, vmax=1, edgecolors="k", marker=marker
            )
    place.set(xlabel="error of the Einstein radius given (%)", ylabel="T (dB)", title="red: flagged")
    place.legend()
    figure.savefig(DOCS / "_static" / "networks_limits.png", dpi=150)


def wrong_lens(item, source, wrong):
    """T, and whether the result is called fine."""
    values = dict(zip(item.lens.param_names, item.lens.vector.tolist(), strict=True))
    result = solve(item, source, SIE(**{**values, "theta_E": values["theta_E"] * (1 + wrong)}))
    return metrics.scores_t(result.image.data, item.truth.data).psnr, result.ok


def main():
    torch.set_num_threads(1)
    plt.rcParams.update({"font.size": 7, "axes.titlepad": 2})
    curves()
    images()
    limits()


if __name__ == "__main__":
    main()
