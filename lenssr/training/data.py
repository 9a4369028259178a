"""Batches of lenses, which depend on the seed and the number of the batch only."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from lenssr.networks.variance import signal_to_noise
from lenssr.training.views import Telescopes, View

__all__ = ["Prefetcher", "Schedule", "hidden_pixel_generator", "training_ranges"]

# Batches, and images in each, from which the properties of a data set are measured.
SAMPLED_BATCHES, SAMPLE_SIZE = 32, 4

# Streams of the random numbers of one training: order of the lenses, hidden pixels.
ORDER_STREAM, HIDDEN_STREAM = 1, 2


class Schedule:
    """Order of the batches: each pass over the data sets is shuffled anew.

    >>> from lenssr.simulation import DeepLense
    >>> from lenssr.training.data import Schedule
    >>> schedule = Schedule([DeepLense(size=5), DeepLense(size=3, lens="sis")], 4, seed=1)
    >>> len(schedule), sorted(len(schedule[k][1]) for k in range(3))
    (3, [1, 3, 4])
    """

    def __init__(self, datasets, batch_size, seed):
        self.datasets, self.batch_size, self.seed = datasets, batch_size, seed
        self._pass, self._order = None, None
        self._count = len(self._batches(None))

    def __len__(self):
        """Count the batches of one pass through the data."""
        return self._count

    def __getitem__(self, number):
        """Data set and indices of a batch; numbers continue over passes."""
        which, place = divmod(number, len(self))
        if which != self._pass:
            order = self._batches(which)
            np.random.default_rng([self.seed, ORDER_STREAM, which]).shuffle(order)
            self._pass, self._order = which, order
        return self._order[place]

    def _batches(self, which):
        """All batches of a pass; None stands for the unshuffled order."""
        batches = []
        for number, dataset in enumerate(self.datasets):
            seed = None if which is None else _seed_of(self.seed, ORDER_STREAM, which, number)
            batches += [(dataset, indices) for indices in dataset.index_batches(self.batch_size, seed=seed)]
        return batches

    def fixed(self):
        """All batches of one pass, not shuffled."""
        return self._batches(None)


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
        """Return the batch of a number on a device, and begin that of the number ``after``."""
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


def hidden_pixel_generator(seed, number):
    """Generator for the hidden pixels of a batch; negative numbers are for validation."""
    return torch.Generator().manual_seed(_seed_of(seed, HIDDEN_STREAM, int(number < 0), abs(number)))


def training_ranges(datasets):
    """Least and largest properties of the training images, from some lenses of each data set.

    ``pixel_scale`` and ``psf_fwhm`` are in arcsec (0: no PSF), ``snr`` is that of all significant pixels.
    """
    found = {"pixel_scale": [], "psf_fwhm": [], "snr": []}
    for dataset in datasets:
        batches = dataset.index_batches(SAMPLE_SIZE)
        for place in np.unique(np.linspace(0, len(batches) - 1, SAMPLED_BATCHES).round().astype(int)):
            view = View(dataset.batch(batches[place]), Telescopes())
            found["pixel_scale"].append(view.batch.pixel_scale)
            found["psf_fwhm"].append(view.batch.psf_fwhm)
            found["snr"] += signal_to_noise(view.image, view.variance).tolist()
    return {name: [float(min(values)), float(max(values))] for name, values in found.items()}


def _seed_of(*numbers):
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
