"""Which lenses make up which batch: a function of the seed and the number of the batch only."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from lenssr.networks.variance import signal_to_noise
from lenssr.training.views import Telescopes, View

__all__ = ["Ahead", "Schedule", "generator_of", "survey"]

# So many batches, of so many images, tell what a data set is like.
SURVEYED, TOGETHER = 32, 4

# What different random numbers of one training are for.
ORDER, HIDDEN = 1, 2


class Schedule:
    """The order in which lenses are shown: each data set is gone through again and again, shuffled anew.

    Parameters
    ----------
    datasets : list of `~lenssr.simulation.BatchedLenses`
    batch_size : int
    seed : int

    Examples
    --------
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
        """Data set and indices of a batch; numbers go on over passes without end."""
        which, place = divmod(number, len(self))
        if which != self._pass:
            order = self._batches(which)
            np.random.default_rng([self.seed, ORDER, which]).shuffle(order)
            self._pass, self._order = which, order
        return self._order[place]

    def _batches(self, which):
        """All batches of a pass; None: in order."""
        batches = []
        for number, dataset in enumerate(self.datasets):
            seed = None if which is None else _seed_of(self.seed, ORDER, which, number)
            batches += [(dataset, indices) for indices in dataset.index_batches(self.batch_size, seed=seed)]
        return batches

    def fixed(self):
        """All batches of one pass, not shuffled."""
        return self._batches(None)


class Ahead:
    """Simulate the batch that comes next in a thread, while the present one is learnt from.

    What a batch is does not depend on when it was made. One thread makes them all, on one core: were its
    many small sums shared out among cores, they would hold up the step, which takes longer on the whole.

    Parameters
    ----------
    schedule : `Schedule`

    Attributes
    ----------
    seconds, waited : float
        Between handing out the last two batches; how many of them the last was waited for.

    Examples
    --------
    >>> from lenssr.simulation import DeepLense
    >>> from lenssr.training.data import Ahead, Schedule
    >>> with Ahead(Schedule([DeepLense(size=6)], 3, seed=1)) as batches:
    ...     first = batches(0, "cpu", after=1)
    >>> len(first)
    3
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

    def at_once(self, chosen, device):
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
    """Return a pool of one thread whose sums torch does not share out; those of others it does as before."""
    others = torch.get_num_threads()
    pool = ThreadPoolExecutor(1, initializer=_keep_to_one_core)
    pool.submit(torch.get_num_threads).result()
    torch.set_num_threads(others)
    return pool


def _keep_to_one_core():
    # What a thread is set to before it first asks is forgotten.
    torch.get_num_threads()
    torch.set_num_threads(1)


def generator_of(seed, number):
    """Random numbers of a batch, for the pixels to hide.

    Parameters
    ----------
    seed : int
    number : int
        Of the batch; negative ones are for validation.

    Returns
    -------
    generator : `torch.Generator`
    """
    return torch.Generator().manual_seed(_seed_of(seed, HIDDEN, int(number < 0), abs(number)))


def survey(datasets):
    """Ranges of what networks are trained on, from some lenses of each data set.

    Parameters
    ----------
    datasets : list of `~lenssr.simulation.BatchedLenses`

    Returns
    -------
    limits : dict of str to list of float
        Least and largest ``pixel_scale`` and ``psf_fwhm`` in arcsec (0: no PSF), and signal-to-noise ratio
        ``snr`` of all pixels in which light stands out.
    """
    found = {"pixel_scale": [], "psf_fwhm": [], "snr": []}
    for dataset in datasets:
        batches = dataset.index_batches(TOGETHER)
        for place in np.unique(np.linspace(0, len(batches) - 1, SURVEYED).round().astype(int)):
            view = View(dataset.batch(batches[place]), Telescopes())
            found["pixel_scale"].append(view.batch.pixel_scale)
            found["psf_fwhm"].append(view.batch.psf_fwhm)
            found["snr"] += signal_to_noise(view.image, view.variance).tolist()
    return {name: [float(min(values)), float(max(values))] for name, values in found.items()}


def _seed_of(*numbers):
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
