"""Speed and memory: lenssr beside lenstronomy and caustics, in one run on one thread, in float64.

Times are of the processor (but the import's), so that waiting for it does not count. Where two codes are
compared they take turns in small portions (see `deflection.py` and `simulate.py`, whose functions are used,
as are those of `freeform_speed.py`); the maps of the four DeepLense cells also take turns. The resolver's
images are made before its clock starts.

Memory is that of a fresh process that imports lenssr, then super-resolves a 100x100 cutout from a FITS file:
the high-water mark of its resident memory at the end, less what it was after the import.

    python benchmarks/speed.py [--points 1000000] [--pairs 1000] [-n 50] [--repeats 3]
"""

import argparse
import statistics
import tempfile
import time

import common  # first: it sets one thread
import deflection
import freeform_speed
import import_time
import numpy as np
import simulate
import torch

from lenssr import SuperResolver
from lenssr.simulation import DeepLense, LensPopulation

UNKNOWN_REPEATS = 1


def deflection_rows(points, rounds):
    deflection.keep_memory()
    calls = deflection.contenders(points)
    differences = deflection.compare(calls)
    seconds = deflection.measure(calls, rounds)
    for key, values in seconds.items():
        own = seconds[key[0], "lenssr"]
        ratio = np.median(values / own)
        target = deflection.target(key)
        if target:
            yield (
                f"{key[0]} deflection",
                key[1],
                f"{np.median(own) * 1e3:.1f} ms",
                f"{np.median(values) * 1e3:.1f} ms",
                f"{ratio:.1f}",
                f">= {target:g}",
                "yes" if ratio >= target else "NO",
                f'{differences[key]:.0e}"',
            )


def simulation_rows(pairs):
    for lens in simulate.LENSES:
        for noise in (False, True):
            (own, theirs), worst = simulate.compare(lens, noise, pairs)
            ratio = theirs / own
            yield (
                f"{pairs} Model I pairs, {lens.upper()} {'noisy' if noise else 'clean'}",
                "lenstronomy",
                f"{own:.2f} s",
                f"{theirs:.2f} s",
                f"{ratio:.1f}",
                ">= 3",
                "yes" if ratio >= 3 else "NO",
                f"{worst:.0e}",
            )


def map_seconds(number, repeats, known):
    """Processor seconds an image of every cell: the median over the repeats, which take turns."""
    seconds = {}
    cells = {
        name: list(DeepLense(**options, size=number, seed=5))
        for name, options in common.deep_lense_cells().items()
    }
    for _ in range(repeats):
        for name, items in cells.items():
            resolver = SuperResolver(source="sersic", lens=items[0].lens if known else None, oversampling=1)
            images, noise = [item.low for item in items], [item.noise for item in items]
            start = time.process_time()
            results = resolver.map(images, noise=noise)
            seconds.setdefault(name, []).append((time.process_time() - start) / number)
            if not all(results):
                raise RuntimeError(f"{name}: {[result for result in results if not result][0]}")
    return {name: statistics.median(values) for name, values in seconds.items()}


def map_rows(number, repeats):
    for known, limit, unit, factor in ((True, 30, "ms", 1e3), (False, 1, "s", 1)):
        found = map_seconds(number, repeats if known else UNKNOWN_REPEATS, known)
        for name, seconds in found.items():
            kind = "known" if known else "unknown"
            value = seconds * factor
            met = "yes" if value <= limit else "NO"
            yield f"map of {number}, {kind} lens, {name}", f"{value:.2f} {unit}", f"<= {limit} {unit}", met


def memory_rows():
    """Peak memory of one cutout with the lens unknown, without and with light of the lens."""
    for light in (False, True):
        dataset = LensPopulation(size=40, seed=5, lens_light=light)
        index = next(i for i in range(len(dataset)) if dataset[i].low.shape == (100, 100))
        options = {"lens_light": "sersic" if light else None}
        with tempfile.TemporaryDirectory() as folder:
            path = dataset.write(index, folder)
            gigabytes = common.peak_memory(path, options, "parametric")
        label = f"peak memory, 100x100, lens unknown{', lens light' if light else ''}"
        yield label, f"{gigabytes:.2f} GB", "<= 1 GB", "yes" if gigabytes <= 1 else "NO"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=9, help="of the deflections")
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("-n", type=int, default=50, help="images of a map")
    parser.add_argument("--repeats", type=int, default=3, help="of the maps with known lens")
    parser.add_argument("--freeform", type=int, default=7, help="images of a row of the free-form source")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    common.header("Speed and memory", points=arguments.points)
    rows = [
        *deflection_rows(arguments.points, arguments.rounds),
        *simulation_rows(arguments.pairs),
    ]
    common.table(["task", "beside", "lenssr", "it takes", "ratio", "to reach", "met", "difference"], rows)
    rows = [*map_rows(arguments.n, arguments.repeats), *memory_rows()]
    columns = ["task", "lenssr, an image", "to reach", "met"]
    common.table(columns, rows)
    common.table(columns, freeform_speed.rows(arguments.freeform, many=1))
    import_time.main()


if __name__ == "__main__":
    main()
