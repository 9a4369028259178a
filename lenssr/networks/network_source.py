"""The choice of a network as the model of the source."""

from dataclasses import dataclass
from os import PathLike, fspath
from typing import Any

import numpy as np

from lenssr.exceptions import InputError
from lenssr.networks.weights import find

__all__ = ["NetworkSource"]


@dataclass(frozen=True)
class NetworkSource:
    """A trained network draws the source; ``SuperResolver(source=NetworkSource(...))``.

    Parameters
    ----------
    weights : str or path, optional
        One of the weights that come with lenssr (`~lenssr.networks.available`), or a file of
        `~lenssr.networks.save_weights`. By default those of a `~lenssr.networks.RelensingNetwork` that were
        trained on images like the given one. An `~lenssr.networks.SISR` makes the image finer without any
        lens: there is no source then.
    refine : int, optional
        Gauss-Newton steps of the free-form source that follow, beginning with what the network has drawn; 0
        by default. An unknown lens moves with them.

    Raises
    ------
    InputError
        If there are no such weights, or the number of steps has no meaning.

    Examples
    --------
    >>> from lenssr import NetworkSource
    >>> NetworkSource(refine=2)
    NetworkSource(weights=None, refine=2)
    """

    weights: Any = None
    refine: int = 0

    def __post_init__(self):
        if isinstance(self.weights, PathLike):
            object.__setattr__(self, "weights", fspath(self.weights))
        if self.weights is not None:
            find(self.weights)
        refine = self.refine
        if isinstance(refine, bool) or not isinstance(refine, int | np.integer) or refine < 0:
            raise InputError(f"refine = {refine!r}: give a number of steps, 0 or more")
