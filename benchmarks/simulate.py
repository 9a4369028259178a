"""Speed of simulating: DeepLense Model I pairs beside lenstronomy, and batches to train on; one thread.

Of Model I both make the same images: a low and a high one of the same source, each with Poisson counts (and
the extra noise of the low one in the rows "noisy"). lenstronomy does it the usual way: one ``ImageModel`` for
each grid, built once; ``ImageModel.image`` for every source, then ``numpy.random.Generator.poisson``. The two
take turns in chunks, so that whatever else the machine does hits both. lenssr renders in float32, as is its
default, lenstronomy in float64; the largest relative difference is that of the noise-free images in float64.

A second table has the batches of 64 that networks train on, float32, low image, its noise-free twin and the
truth of all data sets: CPU milliseconds an image, and how they divide among the numbers that are drawn, the
rendering of the truths, and the noise.

    python benchmarks/simulate.py [--number 1000]
"""

import argparse
import os
import time

# One thread for everybody; read when numpy and torch are imported.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np  # noqa: E402
import torch  # noqa: E402
from lenstronomy.Data.imaging_data import ImageData  # noqa: E402
from lenstronomy.Data.psf import PSF  # noqa: E402
from lenstronomy.ImSim.image_model import ImageModel  # noqa: E402
from lenstronomy.LensModel.lens_model import LensModel  # noqa: E402
from lenstronomy.LightModel.light_model import LightModel  # noqa: E402

from lenssr.simulation import BroadLenses, DeepLense  # noqa: E402
from lenssr.simulation.scenes import make_scenes  # noqa: E402

LENSES = {
    "sis": ("SIS", {"theta_E": 1.28149057, "center_x": 0.0, "center_y": 0.0}),
    "sie": ("SIE", {"theta_E": 1.28149057, "e1": 0.1, "e2": 0.0, "center_x": 0.0, "center_y": 0.0}),
}
SOURCE = {"amp": 20.0, "R_sersic": 0.25, "n_sersic": 1.0, "e1": -0.1, "e2": 0.1}
CHUNK = 50


class Lenstronomy:
    """Images of Model I the way they are usually made."""

    def __init__(self, lens):
        name, self.lens = LENSES[lens]
        self.models = []
        for pixels, scale in ((75, 0.05), (150, 0.025)):
            corner = -(pixels - 1) / 2 * scale
            data = ImageData(
                image_data=np.zeros((pixels, pixels)),
                transform_pix2angle=np.eye(2) * scale,
                ra_at_xy_0=corner,
                dec_at_xy_0=corner,
            )
            light = LightModel(["SERSIC_ELLIPSE"])
            self.models.append(ImageModel(data, PSF("NONE"), LensModel([name]), light))

    def truths(self, x_0, y_0):
        source = {**SOURCE, "center_x": x_0, "center_y": y_0}
        return [model.image([self.lens], [source]) for model in self.models]

    def pair(self, x_0, y_0, exposure, high_exposure, noise, rng):
        low, high = self.truths(x_0, y_0)
        if noise:
            low = low + rng.normal(size=low.shape) * np.sqrt(low / exposure) + rng.normal(0, 0.01, low.shape)
        low = rng.poisson(np.maximum(low * exposure, 0)) / exposure
        return low, rng.poisson(high * high_exposure) / high_exposure


def compare(lens, noise, number):
    data = DeepLense(lens=lens, noise=noise, size=number, seed=1)
    other, rng = Lenstronomy(lens), np.random.default_rng(1)
    data.batch(slice(0, 1))  # tables and traced rays are made once
    seconds = np.zeros(2)
    stacks = np.empty((CHUNK, 75, 75)), np.empty((CHUNK, 150, 150))
    worst = 0.0
    for start in range(0, number, CHUNK):
        before = time.process_time()
        batch = data.batch(slice(start, start + CHUNK), high=True)
        between = time.process_time()
        numbers = [batch.scenes.source_vector[:, 3], batch.scenes.source_vector[:, 4]]
        numbers += [noise.exposure.flatten() for noise in (batch.noise, batch.high_noise)]
        drawn = list(zip(*(column.tolist() for column in numbers), strict=True))
        for place, settings in enumerate(drawn):
            stacks[0][place], stacks[1][place] = other.pair(*settings, noise, rng)
        seconds += between - before, time.process_time() - between
        high = other.truths(*drawn[0][:2])[1]
        worst = max(worst, np.max(np.abs(data[start].truth.data / high - 1)))
    return seconds, worst


def training_sets():
    for model in ("I", "II", "III"):
        for substructure in ("none", "cdm", "axion"):
            yield f"DeepLense {model} {substructure}", DeepLense(model, substructure=substructure)
    for sources in ("sersic", "clumpy"):
        yield f"BroadLenses {sources}", BroadLenses(sources=sources)


def parts(data, number):
    """CPU seconds for the draws, the rendering, and everything."""
    seconds = np.zeros(3)
    for indices in data.index_batches(64, indices=range(number)):
        camera = data._camera(data._camera_number(indices[0]))
        start = time.process_time()
        drawn = [data._draw(index) for index in indices]
        between = time.process_time()
        camera.render(make_scenes(data._lens, drawn).to(dtype=torch.float32), data._common_lens)
        rendered = time.process_time()
        data.batch(indices)
        seconds += between - start, rendered - between, time.process_time() - rendered
    return seconds


def train(number):
    print(f"\n{number} images in batches of 64 to train on, CPU milliseconds an image")
    print(f"{'':24}{'draws':>8}{'rendering':>12}{'noise':>8}{'all':>8}{'images / s':>13}")
    for name, data in training_sets():
        data.batch([0])
        draws, rendering, everything = 1e3 * parts(data, number) / number
        noise = everything - draws - rendering
        print(f"{name:24}{draws:8.2f}{rendering:12.2f}{noise:8.2f}{everything:8.2f}{1e3 / everything:13.0f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int, default=1000, help="pairs of each kind")
    number = parser.parse_args().number
    torch.set_num_threads(1)
    print(f"{number} pairs of DeepLense Model I, CPU seconds on one thread")
    print(f"{'lens':6}{'noise':8}{'lenssr':>8}{'lenstronomy':>13}{'ratio':>8}{'largest difference':>20}")
    for lens in LENSES:
        for noise in (False, True):
            (own, theirs), worst = compare(lens, noise, number)
            label = "noisy" if noise else "clean"
            print(f"{lens:6}{label:8}{own:8.2f}{theirs:13.2f}{theirs / own:8.2f}{worst:20.1e}")
    train(number)


if __name__ == "__main__":
    main()
