"""Whether the errors are honest: how often 68 % intervals hold the truth, for parameters and for pixels.

Half of the lenses come from a `lenssr.simulation.LensPopulation` (with PSF, without lens light), half from
the four DeepLense cells in equal numbers; all have a Sérsic source and are fitted with the lens unknown.
Every result counts, flagged or not. The S/N of a pixel of the super-resolved image is its value over its
error. Pixels of one image err together, so the share is taken image by image; the error of the mean is from
the scatter between images.

    python benchmarks/error_coverage.py [-n 200] [--seed 2] [--jobs 1]
"""

import math

import common
import numpy as np

from lenssr import metrics
from lenssr.simulation import DeepLense, LensPopulation

CHUNK = 20
POPULATION, MODEL_ONE = "LensPopulation", "DeepLense"
TARGET = (0.61, 0.75)
BINS = ((3, math.inf), (3, 10), (10, 30), (30, 100), (100, math.inf))


def drawn(number, seed, i):
    """One lens, where it is from, and the settings it is solved with."""
    if i % 2 == 0:
        return LensPopulation(number, seed, lens_light=False)[i], POPULATION, {}
    cells = list(common.deep_lense_cells().values())
    item = DeepLense(**cells[i // 2 % len(cells)], size=number, seed=seed)[i]
    return item, MODEL_ONE, {"oversampling": 1}


def measure(number, seed, start, stop):
    """Of some lenses: where from, whether ok, pulls of the parameters, shares of the pixels."""
    lenses = [drawn(number, seed, i) for i in range(start, stop)]
    results = common.resolve([(item.low, item.given, settings) for item, _, settings in lenses])
    return [
        (origin, result.ok, parameter_pulls(item, result), pixel_shares(item, result))
        for (item, origin, _), result in zip(lenses, results, strict=True)
        if result
    ]


def parameter_pulls(item, result):
    """(Found - true) / error of the free parameters by name: "theta_E" of the lens, "source n"."""
    lens = common.as_fitted(item.lens)
    true = {("lens", name): value for name, value in zip(lens.param_names, lens.vector.tolist(), strict=True)}
    true |= {("source", name): getattr(item.source, name).value for name in item.source.param_names}
    true["sky", "sky"] = 0.0
    pulls = {}
    for row in result.parameters:
        if not row["fixed"]:
            label = row["name"][:-2] if row["component"] == "lens" else row["name"]
            label = f"source {label}" if row["component"] == "source" else label
            pulls[label] = (row["value"] - true[row["component"], row["name"]]) / row["error"]
    return pulls


def pixel_shares(item, result):
    """Share of the pixels within their error, and how many there are, for every bin of S/N."""
    value, error = result.image.data, result.image.uncertainty.array
    ratio = value / error
    shares = []
    for low, high in BINS:
        chosen = (ratio > low) & (ratio <= high)
        count = int(chosen.sum())
        pixels = (each[chosen] for each in (item.truth.data, value, error))
        shares.append((metrics.coverage(*pixels) if count else math.nan, count))
    return shares


def verdict(share):
    return "yes" if TARGET[0] <= share <= TARGET[1] else "NO"


def parameter_row(name, pulls, origins):
    inside = np.abs(pulls) <= 1
    share = inside.mean()
    by_origin = [f"{inside[origins == origin].mean():.0%}" for origin in (POPULATION, MODEL_ONE)]
    error = math.sqrt(share * (1 - share) / len(pulls))
    return name, f"{share:.1%} ± {error:.1%}", verdict(share), *by_origin, f"{np.median(pulls):+.2f}"


def pixel_row(bounds, shares, origins):
    low, high = bounds
    name = f"pixels, S/N > {low}" if high == math.inf else f"pixels, S/N {low} to {high}"
    inside, counts = np.array(shares).T
    present = counts > 0
    summary = metrics.summarize(inside[present])
    by_origin = [f"{inside[present & (origins == origin)].mean():.0%}" for origin in (POPULATION, MODEL_ONE)]
    share = f"{summary.mean:.1%} ± {summary.standard_error:.1%}"
    return name, share, verdict(summary.mean), *by_origin, ""


def main():
    parser = common.parser_of(__doc__, 200, "lenses", 2)
    arguments = parser.parse_args()
    number = arguments.n
    common.header("How often 68 % intervals hold the truth", lenses=number, seed=arguments.seed)
    tasks = [(number, arguments.seed, i, min(i + CHUNK, number)) for i in range(0, number, CHUNK)]
    found = [each for part in common.in_processes(measure, tasks, arguments.jobs) for each in part]
    origins = np.array([each[0] for each in found])
    print(f"{len(found)} results, {sum(each[1] for each in found)} of them ok\n")
    names = found[0][2]
    rows = [parameter_row(name, np.array([each[2][name] for each in found]), origins) for name in names]
    rows += [pixel_row(bounds, [each[3][k] for each in found], origins) for k, bounds in enumerate(BINS)]
    columns = ["quantity", "inside 68 %", "within 61 to 75 %", POPULATION, MODEL_ONE, "median pull"]
    common.table(columns, rows)


if __name__ == "__main__":
    main()
