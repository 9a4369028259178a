"""The free-form source on another device, beside the CPU: the same images, and how long they take.

A batch of simulated lenses is solved one by one on the CPU, and together on the device, by the same resolver.
Images are compared in their own errors, pixel by pixel; theta_E in its error, where the lens is unknown.
Seconds are of the clock, for an image, the first batch (which loads kernels) left out.

    python benchmarks/devices.py [-n 64] [--device cuda] [--cells "no PSF" PSF]
"""

import argparse
import time

import common  # first: it sets one thread
import numpy as np
import torch

from lenssr import SuperResolver
from lenssr.simulation import GALAXY_CELLS, DeepLense, GalaxyLenses

CELLS = {
    "no PSF": lambda number: (DeepLense(lens="sie", noise=True, size=number, seed=5), {"oversampling": 1}),
    "PSF": lambda number: (GalaxyLenses(size=number, seed=5, **{**GALAXY_CELLS['0.05"'], "pixels": 75}), {}),
}


def solved(items, options, device, lens=None):
    """Results of all images, and seconds of the clock for one."""
    resolver = SuperResolver(source="pixelated", device=device, lens=lens, **options)
    given = {name: [item.given.get(name) for item in items] for name in items[0].given}
    start = time.perf_counter()
    results = list(resolver.map([item.low for item in items], **given))
    if device != "cpu":
        torch.cuda.synchronize()
    return results, (time.perf_counter() - start) / len(items)


def radius(result):
    """The Einstein radius of a fitted lens and its error, in arcsec."""
    theta_E = getattr(result.lens, "components", (result.lens,))[0].theta_E
    return float(theta_E.value), float(theta_E.std)


def row(cell, known, number, device):
    """One row of the table: both devices on the same images."""
    dataset, options = CELLS[cell](number)
    items = [dataset[k] for k in range(number)]
    lens = items[0].lens if known else None
    if known:  # a resolver has one lens: all images are of the first
        items = [items[0]] * number
    solved(items[: min(4, number)], options, device, lens)
    there, seconds = solved(items, options, device, lens)
    here, cpu_seconds = solved(items, options, "cpu", lens)
    off = [
        np.abs(a.image.data - b.image.data).max() / np.median(b.image.uncertainty.array)
        for a, b in zip(there, here, strict=True)
    ]
    evidence = [abs(a.meta["evidence"] - b.meta["evidence"]) for a, b in zip(there, here, strict=True)]
    apart = (
        ""
        if known
        else f"{max(abs(radius(a)[0] - radius(b)[0]) / radius(b)[1] for a, b in zip(there, here)):.2f}"
    )
    return (
        cell,
        "known" if known else "unknown",
        f"{cpu_seconds:.2f} s",
        f"{seconds:.2f} s",
        f"{cpu_seconds / seconds:.1f}",
        f"{max(off):.3f}",
        f"{max(evidence):.2f}",
        apart,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=64, help="images of a batch")
    parser.add_argument("--device", default="cuda", help="what to compare with the CPU")
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS))
    arguments = parser.parse_args()
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("there is no GPU here: give --device cpu to try the script")
    common.header("Devices", images=arguments.n, device=arguments.device)
    columns = [
        "image",
        "lens",
        "CPU",
        arguments.device,
        "ratio",
        "image, sigma",
        "ln evidence",
        "theta_E, sigma",
    ]
    rows = [
        row(cell, known, arguments.n, arguments.device) for cell in arguments.cells for known in (True, False)
    ]
    common.table(columns, rows)


if __name__ == "__main__":
    main()
