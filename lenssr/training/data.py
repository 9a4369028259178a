"""Which lenses make up which batch: a function of the seed and the number of the batch only."""

import numpy as np
import torch

__all__ = ["Schedule", "generator_of"]

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


def _seed_of(*numbers):
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
