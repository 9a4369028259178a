"""How wide a margin around an image has to be modelled behind a PSF: accuracy against time.

A wide ring, and the light of a lens galaxy (n = 4), which reach beyond the image: flux of its edge pixels and
of the whole image against the truth, from a frame wide enough for the whole PSF. Time is that of an image
and its derivatives (rays traced, brightness, convolution), over that without a margin. PSFs: a Gaussian, two
Moffat profiles, and those of FITS files (an HDU named PSF), such as a cutout of HST.

    python benchmarks/margin.py [FILE ...] [--side 75]
"""

import argparse
import math
import time

import common  # first: it sets one thread
import numpy as np
import torch
from astropy.io import fits

from lenssr import SIE, Shear
from lenssr.grids import PixelGrid
from lenssr.imaging.operator import ImagingOperator, margin_around, reach_of
from lenssr.model.scene import Scene

SHARES = (0.95, 0.98, 0.99, 0.995, 0.999)
SCALE = 0.05
# Lens (SIE and shear), source (Sérsic), light of the lens (Sérsic), for a field of 3.75 arcsec.
LENS = (1.45, 0.1, 0.05, 0.0, 0.0, 0.03, -0.02, 0.0, 0.0)
SOURCE, LIGHT = (20.0, 0.25, 1.0, 0.08, 0.06, 0.1, 0.0), (2.0, 1.5, 4.0, 0.01, 0.02, 0.1, 0.05)


def moffat(beta, fwhm=2.0, half=30):
    steps = np.arange(-half, half + 1) / (fwhm / 2 / math.sqrt(2 ** (1 / beta) - 1))
    return (1 + steps**2 + steps[:, None] ** 2) ** -beta


def gaussian(fwhm=2.0, half=6):
    steps = np.arange(-half, half + 1) / fwhm
    return np.exp(-4 * math.log(2) * (steps**2 + steps[:, None] ** 2))


def kernels(files):
    found = {"Gaussian": gaussian(), "Moffat 4": moffat(4.0), "Moffat 2.5": moffat(2.5)}
    for path in files:
        found[path.rsplit("/", 1)[-1]] = fits.getdata(path, "PSF").astype(float)
    return {name: kernel / kernel.sum() for name, kernel in found.items()}


def scene(grid):
    lens = SIE(*LENS[:5]) + Shear(*LENS[5:])
    extent = grid.pixel_scale * max(grid.shape) / 2
    made = Scene(lens=lens, lens_free=True, lens_light=1, sky=False, extent=extent)
    return made, torch.tensor([[*LENS, *SOURCE, *LIGHT]], dtype=torch.float64)


def images(grid, kernel, margin):
    """Images of ring and lens light, and seconds that they and their derivatives take."""
    made, physical = scene(grid)
    operator = ImagingOperator(grid, kernel, margin=margin)
    rays = operator.x, operator.y
    seconds = []
    for _ in range(5):
        start = time.process_time()
        value, jacobian = made.brightness_jacobian(*rays, physical)
        operator(value), operator(jacobian)
        seconds.append(time.process_time() - start)
    parts = [
        operator(made.brightness(*rays, physical, roles=(role,)))[0] for role in ("source", "lens_light")
    ]
    return [part.numpy() for part in parts], min(seconds)


def edge(image):
    return np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])


def rows(name, kernel, side):
    grid, rim = PixelGrid((side, side), SCALE), max(kernel.shape) // 2
    truths = [one[rim:-rim, rim:-rim] for one in images(grid.padded(rim), kernel, 0)[0]]
    plain = images(grid, kernel, 0)[1]
    margins = {"none": 0, **{f"{100 * share:g} %": reach_of(kernel, share) for share in SHARES}}
    for what, margin in {**margins, "chosen": margin_around(kernel)}.items():
        found, seconds = images(grid, kernel, margin)
        pairs = list(zip(found, truths, strict=True))
        edges = [edge(one).sum() / edge(truth).sum() - 1 for one, truth in pairs]
        totals = [one.sum() / truth.sum() - 1 for one, truth in pairs]
        worst = [np.abs(one - truth).max() / truth.max() for one, truth in pairs]
        numbers = [f"{100 * value:+.2f}" for value in (*edges, *totals)] + [f"{100 * v:.3f}" for v in worst]
        yield (name, what, margin, *numbers, f"{seconds / plain:.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*")
    parser.add_argument("--side", type=int, default=75)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    common.header("Margins around an image behind a PSF", side=arguments.side)
    columns = ["PSF", "share within", "margin", "edge of ring, %", "edge of light, %", "ring, %", "light, %",
               "worst of ring, % of peak", "worst of light", "time"]  # fmt: skip
    found = [row for item in kernels(arguments.files).items() for row in rows(*item, arguments.side)]
    common.table(columns, found)


if __name__ == "__main__":
    main()
