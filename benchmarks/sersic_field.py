"""Photometry of a crowded field: time, memory, and errors beside those of stamps of the same galaxies.

GalSim, which has to be installed as for `sersic.py`, draws the galaxies of its `population` at random places
of a square field, behind a Moffat PSF of 2.5 pixels (FWHM) that is given on native pixels, with Gaussian
noise of known sigma. lenssr is given their true places and nothing else, fits all of them in one call with
Gaussian errors and its defaults else, and then some of them on stamps of their own, with the same light and
noise and without neighbours. A fit fails as in `sersic.py`. Seconds a galaxy are of the processor.

    python benchmarks/sersic_field.py [-n 2000] [--side 4096] [--stamps 400] [--threads 1]
"""

import argparse
import dataclasses
import resource
import time

import common  # first: it sets one thread
import numpy as np
import torch
from sersic import FITTED, FORMATS, MEASURED, errors_of, failed, population
from sersic_sample import psf_kernel, render
from tqdm import tqdm

from lenssr import SersicPhotometry
from lenssr.imaging import PSF

# Sides of the boxes in which galaxies are drawn, and of the stamps: odd.
DRAWN, STAMP = 257, 51


def draw_field(number, side, seed):
    """Galaxies at random places of a field, and their light (ny, nx) in noise of 1."""
    rng = np.random.default_rng([22, seed])
    light = np.zeros((side, side))
    galaxies = []
    for galaxy in tqdm(population(number, seed), "drawing"):
        x, y = rng.uniform(STAMP / 2, side - STAMP / 2, 2)
        column, row = round(x), round(y)
        middle = (DRAWN - 1) / 2
        box = render(dataclasses.replace(galaxy, x=middle + x - column, y=middle + y - row), (DRAWN, DRAWN))
        # The noise is 1: its signal to noise says how bright a galaxy is.
        scale = galaxy.snr / np.sqrt((box**2).sum())
        low = np.array([row, column]) - DRAWN // 2
        first, last = np.maximum(low, 0), np.minimum(low + DRAWN, side)
        inside = tuple(map(slice, first, last)), tuple(map(slice, first - low, last - low))
        light[inside[0]] += scale * box[inside[1]]
        galaxies.append(dataclasses.replace(galaxy, x=x, y=y, flux=galaxy.flux * scale))
    return galaxies, light, np.random.default_rng([23, seed]).standard_normal(light.shape)


def stamp_of(galaxy, noise):
    """A galaxy without its neighbours in the noise of the field, and its place on the stamp."""
    column, row = round(galaxy.x), round(galaxy.y)
    x, y = STAMP // 2 + galaxy.x - column, STAMP // 2 + galaxy.y - row
    light = render(dataclasses.replace(galaxy, x=x, y=y), (STAMP, STAMP))
    part = tuple(slice(c - STAMP // 2, c - STAMP // 2 + STAMP) for c in (row, column))
    return light + noise[part], dataclasses.replace(galaxy, x=x, y=y)


def fits_of(table):
    """Rows of a table by the names of `sersic.FITTED`."""
    columns = [
        np.ma.filled(np.asarray(getattr(table[name], "value", table[name])), np.nan) for name in FITTED
    ]
    return [dict(zip(FITTED, row, strict=True)) for row in zip(*columns, strict=True)]


def timed(call):
    """What a call returns, seconds of the clock, and of all processors."""
    clock, processor = time.perf_counter(), time.process_time()
    value = call()
    return value, time.perf_counter() - clock, time.process_time() - processor


def row_of(name, fits, galaxies, seconds):
    """One line of the table."""
    errors = errors_of(fits, galaxies)
    parts = [", ".join(f"{v:{FORMATS[q]}}" for v in np.nanpercentile(errors[q], (50, 90))) for q in MEASURED]
    return name, f"{seconds / len(fits):.4f}", *parts, sum(map(failed, fits, galaxies))


def main():
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("-n", 2000), ("--side", 4096), ("--stamps", 400), ("--seed", 1), ("--threads", 1)):
        parser.add_argument(name, type=int, default=default)
    arguments = parser.parse_args()
    side, count = arguments.side, min(arguments.stamps, arguments.n)
    galaxies, light, noise = draw_field(arguments.n, side, arguments.seed)
    torch.set_num_threads(arguments.threads)
    threads = f"{arguments.threads} threads"
    common.header("Photometry of a crowded field", threads=threads, galaxies=arguments.n, side=side)
    places = {name: [getattr(galaxy, name) for galaxy in galaxies] for name in ("x", "y")}
    phot = SersicPhotometry(psf=PSF(psf_kernel()), intervals="gaussian", progress_bar=True)
    image = light + noise
    del light
    table, clock, processor = timed(lambda: phot(image, error=1.0, init_params=places))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    stamps, alone = zip(*(stamp_of(galaxy, noise) for galaxy in galaxies[:count]), strict=True)
    starts = [{"x": [galaxy.x], "y": [galaxy.y]} for galaxy in alone]
    own, _, seconds = timed(lambda: phot.map(list(stamps), error=1.0, init_params=starts))
    columns = (
        "fit",
        "s a galaxy",
        "r_eff, relative",
        "n",
        "ellip",
        "position, pixel",
        "failures",
    )
    found = fits_of(table)
    rows = [
        ("all, in the field", found, galaxies, processor),
        (f"{count} of them, in the field", found[:count], galaxies[:count], processor * count / len(found)),
        ("these on stamps", fits_of(own), alone, seconds),
    ]
    common.table(columns, [row_of(*row) for row in rows])
    groups, sizes = np.unique(table["group_id"], return_counts=True)
    print(f"{clock:.0f} s by the clock for the field, {processor:.0f} s of processors")
    print(f"{memory:.2f} GB of memory at the peak of the process, with image and noise")
    print(f"{len(groups)} groups, {np.mean(sizes == 1):.0%} of one galaxy, the largest of {sizes.max()}")


if __name__ == "__main__":
    main()
