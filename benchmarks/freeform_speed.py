"""Speed and memory of the free-form source, on one thread.

Seconds are of the processor, of one call of the resolver that makes one image, its errors and its verdict
included: the median over some images, which are made before. 75 x 75 pixels without PSF are DeepLense's, half
of them noisy, and have 60 x 60 nodes for the source; those behind one are real galaxies
(`lenssr.simulation.GalaxyLenses`) with 48 x 48 nodes. For four times as many nodes, the constants that hold
their number are changed; both numbers are run by turns on the same images.

Memory is that of a fresh process that imports lenssr, then super-resolves a FITS file: the high-water mark of
its resident memory at the end, less what it was after the import.

    python benchmarks/freeform_speed.py [-n 5] [--many 1]
"""

import argparse
import contextlib
import statistics
import tempfile
import time

import common  # first: it sets one thread

from lenssr import SuperResolver
from lenssr.reconstruction import freeform_fit
from lenssr.simulation import GALAXY_CELLS, DeepLense, GalaxyLenses

SIZE = 75
SIDES = {"SIDE": "no PSF", "SIDE_WITH_PSF": "PSF"}
# Seconds to reach, by the constant that holds the side of the source and whether the lens is known.
LIMITS = {("SIDE", True): 0.3, ("SIDE", False): 2, ("SIDE_WITH_PSF", True): 1, ("SIDE_WITH_PSF", False): 3}
# How many times as long four times as many nodes may take, and the gigabytes of a process.
SLOWER = {"SIDE": 10, "SIDE_WITH_PSF": 8}
GIGABYTES = {"SIDE": 0.5, "SIDE_WITH_PSF": 0.5}


def images(side, number, seed=5):
    """Simulated lenses of 75 x 75 pixels."""
    if side == "SIDE":
        kinds = [DeepLense(lens="sie", noise=noise, size=number, seed=seed) for noise in (False, True)]
        return [kinds[i % 2][i] for i in range(number)]
    return list(GalaxyLenses(size=number, seed=seed, **{**GALAXY_CELLS['0.05"'], "pixels": SIZE}))


def options_of(side):
    return {"source": "pixelated"} | ({"oversampling": 1} if side == "SIDE" else {})


def seconds(side, item, known):
    resolver = SuperResolver(lens=item.lens if known else None, **options_of(side))
    start = time.process_time()
    resolver(item.low, **item.given)
    return time.process_time() - start


@contextlib.contextmanager
def nodes(side, number):
    """Another number of nodes along the side of a source."""
    usual = getattr(freeform_fit, side)
    setattr(freeform_fit, side, number)
    try:
        yield
    finally:
        setattr(freeform_fit, side, usual)


def call_rows(number):
    for (side, known), limit in LIMITS.items():
        found = [seconds(side, item, known) for item in images(side, number)]
        value, count = statistics.median(found), getattr(freeform_fit, side)
        lens = "known lens" if known else "unknown lens"
        what = f"{SIZE}x{SIZE} data, {count}x{count} source, {SIDES[side]}, {lens}"
        yield what, f"{value:.2f} s", f"<= {limit} s", "yes" if value <= limit else "NO"


def growth_rows(number):
    """Four times as many nodes, the lens known."""
    for side, psf in SIDES.items():
        usual, twice = [], []
        for item in images(side, number):
            usual.append(seconds(side, item, True))
            with nodes(side, 2 * getattr(freeform_fit, side)):
                twice.append(seconds(side, item, True))
        count = 2 * getattr(freeform_fit, side)
        ratio = statistics.median(b / a for a, b in zip(usual, twice, strict=True))
        what = f"{count}x{count} source, {psf}, known lens: {statistics.median(twice):.2f} s"
        yield what, f"x {ratio:.1f}", f"<= x {SLOWER[side]}", "yes" if ratio <= SLOWER[side] else "NO"


def memory_rows():
    for side, psf in SIDES.items():
        dataset = (
            DeepLense(lens="sie", size=1, seed=5)
            if side == "SIDE"
            else GalaxyLenses(size=1, seed=5, **{**GALAXY_CELLS['0.05"'], "pixels": SIZE})
        )
        with tempfile.TemporaryDirectory() as folder:
            path = dataset.write(0, folder)
            for count in (getattr(freeform_fit, side), 2 * getattr(freeform_fit, side)):
                gigabytes = common.peak_memory(path, options_of(side), "freeform_fit", {side: count})
                met = "yes" if gigabytes <= GIGABYTES[side] else "NO"
                what = f"peak memory, {count}x{count} source, {psf}, unknown lens"
                yield what, f"{gigabytes:.2f} GB", f"<= {GIGABYTES[side]} GB", met


def rows(number, many):
    """Rows of a table: what was done, what it took, what to reach, whether it was met."""
    return [*call_rows(number), *growth_rows(many), *memory_rows()]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=5, help="images of a row")
    parser.add_argument("--many", type=int, default=1, help="images with four times as many nodes")
    arguments = parser.parse_args()
    common.header("Speed and memory of the free-form source", images=arguments.n)
    columns = ["task", "lenssr, an image", "to reach", "met"]
    common.table(columns, rows(arguments.n, arguments.many))


if __name__ == "__main__":
    main()
