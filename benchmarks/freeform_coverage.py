"""Whether the errors of the free-form source are honest: how often 68 % intervals hold the truth.

Half of the lenses come from the four DeepLense cells in equal numbers, half are real galaxies as two cameras
see them (`lenssr.simulation.GalaxyLenses`). All are solved by `source="pixelated"`, the lens unknown, and
every result counts, flagged or not.

Three kinds of quantities: pixels of the super-resolved image; pixels of the source, each beside the true
brightness averaged over it; parameters of the lens. The S/N of a pixel is its value over its error. Pixels of
one image err together, so the share is taken image by image; the error of the mean is from the scatter
between images.

    python benchmarks/freeform_coverage.py [-n 200] [--seed 2] [--jobs 1] [--known]
"""

import math
from dataclasses import dataclass

import astropy.units as u
import common  # first: it sets one thread
import numpy as np
import torch

from lenssr import SuperResolver, metrics
from lenssr.grids import PixelGrid
from lenssr.imaging.operator import ImagingOperator
from lenssr.simulation import GALAXY_CELLS, DeepLense, GalaxyLenses

TARGET = (0.60, 0.80)
BINS = ((3, math.inf), (3, 10), (10, 30), (30, 100), (100, math.inf))
WHOLE = {"image": "image pixels", "source": "source pixels"}
SUBPIXELS = 8


@dataclass(frozen=True)
class Found:
    """What came of one lens.

    Shares are pairs (share of the pixels within their error, how many there are) for every bin of S/N.
    """

    origin: str
    ok: bool
    shares: dict  # of "image" and "source"
    pulls: dict  # (found - true) / error by parameter
    prior: float  # share of the source pixels marked as prior, not data


def drawn(number, seed, i):
    """One lens, where it is from, and the settings it is solved with."""
    if i % 2 == 0:
        cells = list(GALAXY_CELLS.items())
        name, options = cells[i // 2 % len(cells)]
        return GalaxyLenses(size=number, seed=seed, **options)[i], f"real, {name}", {}
    options = list(common.deep_lense_cells().values())
    options = options[i // 2 % len(options)]
    item = DeepLense(**options, size=number, seed=seed)[i]
    return item, f"DeepLense, {'noisy' if options['noise'] else 'clean'}", {"oversampling": 1}


def measure(number, seed, i, known=False):
    """Solve one lens and compare; None where it failed."""
    item, origin, settings = drawn(number, seed, i)
    if known:
        settings = {**settings, "lens": item.lens}
    result = SuperResolver(source="pixelated", **settings)(item.low, **item.given)
    shares = {
        "image": pixel_shares(result.image, item.truth.data),
        "source": pixel_shares(result.source, mean_source(item, result.source)),
    }
    return Found(origin, result.ok, shares, parameter_pulls(item, result), float(result.source.mask.mean()))


def mean_source(item, source):
    """True brightness averaged over the pixels of a reconstructed source."""
    scale, *centre = (source.meta[name] for name in ("pixel_scale", "x_0", "y_0"))
    if hasattr(item, "mean_source"):
        return item.mean_source(source.shape, scale, *centre)
    grid = PixelGrid(source.shape, scale)
    operator = ImagingOperator(grid, oversampling=SUBPIXELS)
    places = (
        (axis.numpy() + offset) * u.arcsec
        for axis, offset in zip((operator.x, operator.y), centre, strict=True)
    )
    values = torch.as_tensor(item.source(*places).value)
    return operator(values).numpy() / grid.pixel_area


def pixel_shares(image, truth):
    value, error = image.data, image.uncertainty.array
    ratio = value / np.maximum(error, np.finfo(float).tiny)
    shares = []
    for low, high in BINS:
        chosen = (ratio > low) & (ratio <= high)
        count = int(chosen.sum())
        pixels = (each[chosen] for each in (truth, value, error))
        shares.append((metrics.coverage(*pixels) if count else math.nan, count))
    return shares


def parameter_pulls(item, result):
    """(Found - true) / error of what is free beside the source."""
    lens = common.as_fitted(item.lens)
    true = dict(zip(lens.param_names, lens.vector.tolist(), strict=True)) | {"sky": 0.0}
    return {
        row["name"].removesuffix("_0").removesuffix("_1"): (row["value"] - true[row["name"]]) / row["error"]
        for row in result.parameters
        if not row["fixed"]
    }


def verdict(share):
    return "yes" if TARGET[0] <= share <= TARGET[1] else "NO"


def pixel_row(kind, k, found, origins):
    low, high = BINS[k]
    name = f"{WHOLE[kind]}, S/N > {low}" if high == math.inf else f"{WHOLE[kind]}, S/N {low} to {high}"
    inside = np.array([each.shares[kind][k][0] for each in found])
    counts = np.array([each.shares[kind][k][1] for each in found])
    if not counts.any():
        return name, *["" for _ in range(len(origins) + 3)]
    summary = metrics.summarize(inside[counts > 0])
    parts = [inside[(counts > 0) & [each.origin == origin for each in found]] for origin in origins]
    return (
        name,
        f"{summary.mean:.1%} ± {summary.standard_error:.1%}",
        verdict(summary.mean),
        *(f"{part.mean():.0%}" if len(part) else "" for part in parts),
        f"{counts.mean():.0f}",
    )


def parameter_row(name, pulls, found, origins):
    """Coverage of one parameter, or of all lens parameters together, image by image."""
    inside = (np.abs(pulls) <= 1).mean(axis=1)
    summary = metrics.summarize(inside)
    parts = [inside[[each.origin == origin for each in found]] for origin in origins]
    return (
        name,
        f"{summary.mean:.1%} ± {summary.standard_error:.1%}",
        verdict(summary.mean),
        *(f"{part.mean():.0%}" if len(part) else "" for part in parts),
        f"{np.median(pulls):+.2f}",
    )


def parameter_rows(found, origins):
    names = list(found[0].pulls)
    pulls = np.array([[each.pulls[name] for name in names] for each in found])
    lens = [k for k, name in enumerate(names) if name != "sky"]
    if lens:
        yield parameter_row("lens parameters", pulls[:, lens], found, origins)
    for k, name in enumerate(names):
        yield parameter_row(name, pulls[:, [k]], found, origins)


def tables(found):
    origins = sorted({each.origin for each in found})
    inside = ["inside 68 %", f"within {TARGET[0]:.0%} to {TARGET[1]:.0%}", *origins]
    rows = [pixel_row(kind, k, found, origins) for kind in WHOLE for k in range(len(BINS))]
    common.table(["quantity", *inside, "pixels an image"], rows)
    common.table(["quantity", *inside, "median pull"], list(parameter_rows(found, origins)))


def main():
    parser = common.parser_of(__doc__, 200, "lenses", 2)
    parser.add_argument("--known", action="store_true", help="give the true lenses")
    arguments = parser.parse_args()
    number, lens = arguments.n, "known" if arguments.known else "unknown"
    common.header(
        "How often 68 % intervals of a free-form source hold the truth",
        lenses=number,
        seed=arguments.seed,
        lens=lens,
    )
    tasks = [(number, arguments.seed, i, arguments.known) for i in range(number)]
    found = list(common.in_processes(measure, tasks, arguments.jobs))
    prior = np.mean([each.prior for each in found])
    print(f"{len(found)} results, {sum(each.ok for each in found)} of them ok")
    print(f"{prior:.0%} of the pixels of a source are marked as prior\n")
    tables(found)


if __name__ == "__main__":
    main()
