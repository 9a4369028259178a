"""The free-form source on another device, beside the CPU: the same images, and how long they take.

A batch of simulated lenses is solved one by one on the CPU, and together on the device, by the same resolver.
Images are compared in their own errors, pixel by pixel, theta_E in its error; the lens is unknown. Seconds
are of the clock, for an image; a first small batch, which loads kernels, is left out.

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


def solved(items, options, device):
    """Results of all images, the lens unknown, and seconds of the clock for one."""
    resolver = SuperResolver(source="pixelated", device=device, **options)
    given = {name: [item.given.get(name) for item in items] for name in items[0].given}
    start = time.perf_counter()
    results = list(resolver.map([item.low for item in items], **given))
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return results, (time.perf_counter() - start) / len(items)


def differences(result, other):
    """Of image and theta_E in their errors, and of ln evidence."""
    image = np.abs(result.image.data - other.image.data).max() / np.median(other.image.uncertainty.array)
    radii = [getattr(one.lens, "components", (one.lens,))[0].theta_E for one in (result, other)]
    theta_E = abs(float(radii[0].value) - float(radii[1].value)) / float(radii[1].std)
    return image, theta_E, abs(result.meta["evidence"] - other.meta["evidence"])


def row(cell, number, device):
    """One row of the table: both devices on the same images."""
    dataset, options = CELLS[cell](number)
    items = [dataset[k] for k in range(number)]
    solved(items[:2], options, device)
    there, seconds = solved(items, options, device)
    here, cpu_seconds = solved(items, options, "cpu")
    largest = np.max([differences(a, b) for a, b in zip(there, here, strict=True)], axis=0)
    times = f"{cpu_seconds:.2f} s", f"{seconds:.2f} s", f"{cpu_seconds / seconds:.1f}"
    return cell, *times, *(f"{value:.3f}" for value in largest)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=64, help="images of a batch")
    parser.add_argument("--device", default="cuda", help="what to compare with the CPU")
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS))
    arguments = parser.parse_args()
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("there is no GPU here: give --device cpu to try the script")
    common.header("Devices", images=arguments.n, device=arguments.device)
    columns = ["images", "CPU", arguments.device, "ratio", "image, sigma", "theta_E, sigma", "ln evidence"]
    common.table(columns, [row(cell, arguments.n, arguments.device) for cell in arguments.cells])


if __name__ == "__main__":
    main()
