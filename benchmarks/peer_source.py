"""A pixelated source behind a known lens: lenssr beside PyAutoLens, on the same images in one run.

PyAutoLens is no dependency of lenssr. It holds SciPy, astropy and scikit-image back, so give both an
environment of their own. With Python 3.11 the last release that installs is this one (later ones want 3.12):

    python3.11 -m venv peer
    peer/bin/pip install -c constraints.txt -e . autolens==2026.7.29.1 numba scikit-image
    peer/bin/python benchmarks/peer_source.py [-n 3] [--cells "DeepLense noisy"] [--picture peer.png]

Without it, a line says why it is missing, and the rest is printed.

Both know lens, PSF and noise. PyAutoLens takes one standard deviation per pixel, so it is given that of the
noise-free truth, and data without the shift of the mean that clipping at zero brings to the noisy DeepLense
images; lenssr is tried on just these ("same inputs") and on the image as it comes, with its noise model. No
pixel is masked. lenssr also fits a constant sky; PyAutoLens fits none, and there is none.

PyAutoLens runs with its defaults (NumPy, sources that are nowhere negative, zero at the edge of the mesh),
a mesh of some 900 pixels (a uniform one of 1600 scored no higher on DeepLense images), and the numbers of
the regularization for which its log evidence is highest, found by Nelder-Mead; rays and mesh are computed
once. "Highest evidence" takes from each image the setting that this evidence prefers, and needs the time of
all. The adaptive mesh of this release swaps two weights of its interpolation along one axis, so that
brightness jumps between rows of the mesh; its row is what a user gets. DeepLense images are sampled at
pixel centres by both. Where pixels integrate, PyAutoLens has 4 x 4 rays to a pixel and applies the PSF at
half a pixel, as the images were made. T is scored on the source that PyAutoLens maps to twice the
resolution, blurred by its own convolution. Seconds are of the processor and include every trial.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import common  # first: it sets one thread
import numpy as np
import torch

from lenssr import SuperResolver, metrics
from lenssr.imaging import GaussianNoise, Observation
from lenssr.simulation import GALAXY_CELLS, DeepLense, GalaxyLenses

try:
    import autolens_source as peer
except Exception as error:  # noqa: BLE001 - whatever keeps it from running is reported
    peer, MISSING = None, f"{type(error).__name__}: {error}".splitlines()[0]

CELLS = {
    "DeepLense clean": lambda size, seed: DeepLense(lens="sie", noise=False, size=size, seed=seed),
    "DeepLense noisy": lambda size, seed: DeepLense(lens="sie", noise=True, size=size, seed=seed),
    'real shapes 0.1", PSF': lambda size, seed: GalaxyLenses(size=size, seed=seed, **GALAXY_CELLS['0.1"']),
}
PICTURED_SIGMA = 4


@dataclass(frozen=True)
class Found:
    """What a method made of an image."""

    image: np.ndarray
    chi2: float
    seconds: float
    source: np.ndarray | None = None
    residual: np.ndarray | None = None  # in sigma
    trials: int | None = None
    log_evidence: float | None = None


@dataclass(frozen=True)
class Method:
    """A row of the table: its package and what is done."""

    package: str
    name: str
    run: Callable


def same_inputs(item):
    """The data without the shift of the mean by the noise, and its standard deviation, both by the truth."""
    truth = torch.as_tensor(item.low_truth.data)
    mean, _, variance = Observation.from_any(item.low, noise=item.noise).noise.moments(truth)
    return item.low.data - (mean - truth).numpy(), variance.sqrt().numpy()


def integrates(item):
    """Whether the pixels of an image integrate; DeepLense samples at their centres."""
    return item.psf is not None


def by_lenssr(item, *, same=False, **options):
    image, given = item.low, item.given
    if same:
        data, sigma = same_inputs(item)
        image = image.copy()
        image.data = data
        given = {**given, "noise": GaussianNoise(sigma)}
    oversampling = "auto" if integrates(item) else 1
    resolver = SuperResolver(scale=2, lens=item.lens, oversampling=oversampling, **options)
    start = time.process_time()
    result = resolver(image, **given)
    return Found(result.image.data, result.reduced_chi2, time.process_time() - start)


def by_interpolation(item):
    start = time.process_time()
    result = SuperResolver(scale=2, source="interpolation")(item.low, **item.given)
    return Found(result.image.data, np.nan, time.process_time() - start)


def by_peer(item, setting):
    data, sigma = same_inputs(item)
    scale = Observation.from_any(item.low).grid.pixel_scale
    made = peer.reconstruct(data, sigma, item.lens, item.psf, scale, setting, integrate=integrates(item))
    residual = (data - made.model) / sigma
    return Found(made.image, made.chi2, made.seconds, made.source, residual, made.trials, made.log_evidence)


def methods():
    own = f"lenssr {common.importlib.metadata.version('lenssr')}"
    listed = [
        Method(own, "bicubic", by_interpolation),
        Method(own, "pixelated", lambda item: by_lenssr(item, source="pixelated")),
        Method(own, "pixelated, same inputs", lambda item: by_lenssr(item, source="pixelated", same=True)),
    ]
    for setting in peer.SETTINGS if peer else ():
        run = lambda item, setting=setting: by_peer(item, setting)  # noqa: E731
        listed.append(Method(peer.VERSION, setting.name, run))
    return listed


def preferred(each):
    """Of what several settings made of an image, that of the highest evidence, with the cost of all."""
    best = max(each, key=lambda found: found.log_evidence)
    cost = {name: sum(getattr(found, name) for found in each) for name in ("seconds", "trials")}
    return replace(best, **cost)


def row(cell, method, found, items):
    psnr = [
        metrics.scores_t(each.image, item.truth.data).psnr for each, item in zip(found, items, strict=True)
    ]
    summary = metrics.summarize(psnr)
    trials = [each.trials for each in found if each.trials]
    chi2 = np.mean([each.chi2 for each in found])
    return (
        cell,
        method.package,
        method.name,
        len(found),
        f"{summary.mean:.2f} ± {summary.standard_error:.2f}",
        f"{summary.worst:.2f}",
        "" if np.isnan(chi2) else f"{chi2:.2f}",
        f"{np.mean([each.seconds for each in found]):.2f}",
        f"{np.mean(trials):.0f}" if trials else "",
    )


def picture(path, item, found):
    """Draw the last image by every method, its error, and source and residual where they are at hand."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3 * len(found), 11), layout="constrained")
    axes = figure.subplots(4, len(found), squeeze=False)
    peak = item.truth.data.max()
    for column, (name, each) in zip(axes.T, found.items(), strict=True):
        column[0].set_title(name, fontsize=8)
        column[0].imshow(each.image, origin="lower", vmin=0, vmax=peak)
        error = each.image - item.truth.data
        column[1].imshow(error, origin="lower", vmin=-peak / 50, vmax=peak / 50, cmap="RdBu")
        for axis, extra in zip(column[2:], (each.source, each.residual), strict=True):
            axis.set_axis_off()
            if extra is not None:
                limits = {"vmin": -PICTURED_SIGMA, "vmax": PICTURED_SIGMA, "cmap": "RdBu"}
                axis.imshow(extra, origin="lower", **(limits if extra is each.residual else {}))
    figure.savefig(path, dpi=80)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=3, help="images of a cell")
    parser.add_argument("--cells", nargs="+", choices=list(CELLS), default=list(CELLS))
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--picture", help="where to draw the last image")
    arguments = parser.parse_args()
    common.header("A pixelated source behind a known lens, beside PyAutoLens", seed=arguments.seed, scale=2)
    if peer is None:
        print(f"PyAutoLens does not run here: {MISSING}\n", flush=True)
    rows = []
    for cell in arguments.cells:
        items = list(CELLS[cell](arguments.n, arguments.seed))
        drawn, peers = {}, []
        for method in methods():
            found = [method.run(item) for item in items]
            rows.append(row(cell, method, found, items))
            drawn[f"{method.package}\n{method.name}"] = found[-1]
            if found[-1].trials:
                peers.append(found)
        if peers:
            best = [preferred(each) for each in zip(*peers, strict=True)]
            rows.append(row(cell, Method(peer.VERSION, "highest evidence", None), best, items))
        if peer is None:
            rows.append((cell, "PyAutoLens", "does not run here", *[""] * 6))
        if arguments.picture:
            picture(arguments.picture, items[-1], drawn)
    columns = ["cell", "package", "method", "images", "T (dB)", "worst", "chi2 / pixel", "seconds", "trials"]
    common.table(columns, rows)


if __name__ == "__main__":
    main()
