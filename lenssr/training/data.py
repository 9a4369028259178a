"""Batches of lenses, which depend on the seed and their number only, and inputs of a network from them."""

import time
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, lru_cache

import numpy as np
import torch
from astropy.stats import gaussian_fwhm_to_sigma

from lenssr.imaging.detection import signal_to_noise, variance_from_neighbours
from lenssr.imaging.operator import ImagingOperator
from lenssr.imaging.render_scene import kernel_options

# Batches, and images in each, from which the properties of a data set are measured.
SAMPLED_BATCHES, SAMPLE_SIZE = 32, 4

# Streams of the random numbers of one training: order of the lenses, hidden pixels.
ORDER_STREAM, HIDDEN_STREAM = 1, 2

# Rays along a side of a pixel, if light is integrated: enough for training. Operators that are kept: some
# recipes have eight cameras, each with two.
RAYS, OPERATORS_KEPT = 2, 32


class Schedule:
    """Order of the batches: each pass over the data sets is shuffled anew."""

    def __init__(self, datasets, batch_size, seed):
        self.datasets, self.batch_size, self.seed = datasets, batch_size, seed
        self._count, self._order = len(self.batches()), lru_cache(1)(self._shuffled)

    def __len__(self):
        """Count the batches of one pass through the data."""
        return self._count

    def __getitem__(self, number):
        """Data set and indices of a batch; numbers continue over passes."""
        which, place = divmod(number, len(self))
        return self._order(which)[place]

    def _shuffled(self, which):
        order = self.batches(which)
        np.random.default_rng([self.seed, ORDER_STREAM, which]).shuffle(order)
        return order

    def batches(self, which=None):
        """All batches of a pass; None stands for the unshuffled order."""
        batches = []
        for number, dataset in enumerate(self.datasets):
            seed = None if which is None else _seed_of(self.seed, ORDER_STREAM, which, number)
            batches += [(dataset, indices) for indices in dataset.index_batches(self.batch_size, seed=seed)]
        return batches


class Prefetcher:
    """Simulate the next batch of a `Schedule` in a thread, while the present one is trained on.

    One thread makes all batches, on one core: with more cores for its small operations it would slow the step
    down. ``seconds`` and ``waited`` are the time between the last two batches, and the wait for the last.
    """

    def __init__(self, schedule):
        self.schedule = schedule
        self._thread, self._coming = _single_thread(), {}
        self.seconds, self.waited, self._handed = 0.0, 0.0, time.monotonic()

    def __call__(self, number, device, after):
        """Return the batch of a number on a device, and begin the one of the number ``after``."""
        asked = time.monotonic()
        present = self._coming.pop(number, None) or self._begin(self.schedule[number], device)
        self._coming = {after: self._begin(self.schedule[after], device)}
        batch, before = present.result(), self._handed
        self._handed = time.monotonic()
        self.seconds, self.waited = self._handed - before, self._handed - asked
        return batch

    def make(self, chosen, device):
        """Return the batch of a data set and indices on a device."""
        return self._begin(chosen, device).result()

    def _begin(self, chosen, device):
        dataset, indices = chosen
        return self._thread.submit(dataset.batch, indices, device=device)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        """End the thread."""
        self._thread.shutdown(cancel_futures=True)


def _single_thread():
    """A pool of one thread in which torch uses one core; elsewhere it uses as many as before."""
    others = torch.get_num_threads()
    pool = ThreadPoolExecutor(1, initializer=_keep_to_one_core)
    pool.submit(torch.get_num_threads).result()
    torch.set_num_threads(others)
    return pool


def _keep_to_one_core():
    # torch ignores the setting in a thread that has not asked for the number before.
    torch.get_num_threads()
    torch.set_num_threads(1)


@lru_cache(OPERATORS_KEPT)
def _operator(grid, psf, oversampling, dtype, device, scale):
    """Operator from rays to ``scale`` times finer pixels, built once for each camera (by its objects)."""
    fine = grid.upsample(scale)
    rays = RAYS if oversampling == "auto" else oversampling
    kernel, options = kernel_options(psf, fine.pixel_scale, oversampling=rays)
    return ImagingOperator(fine, kernel, oversampling=rays, dtype=dtype, device=device, **options)


class View:
    """A batch as an observer sees it: images, the noise estimated from them, and the lens.

    ``hidden`` (B, ny, nx) marks pixels that the network must not see.
    """

    def __init__(self, batch, hidden=None):
        self.batch, self.image, self.hidden = batch, batch.low, hidden

    @cached_property
    def variance(self):
        """Variance of the images, shape (B, ny, nx), estimated from them."""
        seen = None if self.hidden is None else ~self.hidden
        return variance_from_neighbours(self.image, self.batch.noise, seen)

    @cached_property
    def sigma(self):
        """Standard deviation, infinite where a pixel is hidden; shape (B, ny, nx)."""
        sigma = self.variance.sqrt()
        return sigma if self.hidden is None else sigma.masked_fill(self.hidden, torch.inf)

    @property
    def psf_sigma(self):
        """Standard deviation of the PSF along an axis in arcsec, 0 without a PSF."""
        return self.batch.psf_fwhm * gaussian_fwhm_to_sigma

    @property
    def operator(self):
        """`~lenssr.imaging.ImagingOperator` of the images."""
        return self._pixels(1)

    @property
    def fine_operator(self):
        """Operator of ``batch.scale`` times finer pixels."""
        return self._pixels(self.batch.scale)

    def _pixels(self, scale):
        batch = self.batch
        return _operator(batch.grid, batch.psf, batch.oversampling, self.image.dtype, batch.device, scale)

    @cached_property
    def rays(self):
        """Positions of the rays of `operator` in the source plane, x and y of shape (B, R)."""
        return self._trace(self.operator)

    @cached_property
    def fine_rays(self):
        """The same for the rays of `fine_operator`."""
        return self._trace(self.fine_operator)

    def _trace(self, operator):
        # The network knows the lens, but not its substructure.
        scenes = self.batch.scenes
        alpha = scenes.lens.deflection_at(operator.x, operator.y, scenes.lens_vector)
        return tuple(place - shift for place, shift in zip((operator.x, operator.y), alpha, strict=True))


def hidden_pixel_generator(seed, number):
    """Generator for the hidden pixels of a batch; negative numbers are for validation."""
    return torch.Generator().manual_seed(_seed_of(seed, HIDDEN_STREAM, int(number < 0), abs(number)))


def training_ranges(datasets):
    """Least and largest properties of the training images, from some lenses of each data set.

    ``pixel_scale`` and ``psf_fwhm`` are in arcsec (0: no PSF), ``snr`` is summed over all significant pixels.
    """
    found = {"pixel_scale": [], "psf_fwhm": [], "snr": []}
    for dataset in datasets:
        batches = dataset.index_batches(SAMPLE_SIZE)
        for place in np.unique(np.linspace(0, len(batches) - 1, SAMPLED_BATCHES).round().astype(int)):
            view = View(dataset.batch(batches[place]))
            found["pixel_scale"].append(view.batch.pixel_scale)
            found["psf_fwhm"].append(view.batch.psf_fwhm)
            found["snr"] += signal_to_noise(view.image, view.variance).tolist()
    return {name: [float(min(values)), float(max(values))] for name, values in found.items()}


def _seed_of(*numbers):
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
