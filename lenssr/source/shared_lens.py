"""The lens that several bands share, from what each says of it by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["SharedLens"]


class SharedLens:
    """The lens that the bands of a batch share: its constraints by each band, and by all together.

    With the covariance X of everything with the lens in a band, P the inverse of its part for the lens and d
    the step that the band would take alone, the lens takes (sum P)^-1 sum P d, and the rest follows it.
    """

    def __init__(self, states: Sequence[Any], factors: Sequence[Any], index: Tensor) -> None:
        self._states, self._index = states, index
        self._count = states[0].model.scene.count("lens")
        self._alone, self._with_lens, self._precisions = [], [], []
        for state, own in zip(states, factors, strict=True):
            size = own.count + state.parameters.shape[1]
            lens = slice(own.count, own.count + self._count)
            right = torch.eye(size, dtype=torch.float64, device=index.device)[:, lens]
            with_lens = own.solve(right.expand(len(index), -1, -1))
            self._alone.append(state.step(own, index))
            self._with_lens.append(with_lens)
            self._precisions.append(torch.linalg.inv(with_lens[:, lens]))
        self.lens_covariance = torch.linalg.inv(sum(self._precisions))

    def steps(self) -> list[Tensor]:
        """The steps (b, n + K) of all bands, a list."""
        lenses = [
            step[:, state.field.shape[1] :][:, : self._count]
            for state, step in zip(self._states, self._alone, strict=True)
        ]
        pull = sum(p @ d.unsqueeze(2) for p, d in zip(self._precisions, lenses, strict=True))
        together = (self.lens_covariance @ pull).squeeze(2)
        parts = zip(self._alone, self._with_lens, self._precisions, lenses, strict=True)
        return [step + (x @ (p @ (together - lens).unsqueeze(2))).squeeze(2) for step, x, p, lens in parts]

    def less_trace(self, number: int) -> Tensor:
        """Decrease, by the other bands, of the trace (b,) of covariance times prior of one band."""
        p, x, state = self._precisions[number], self._with_lens[number], self._states[number]
        nodes = x[:, : state.field.shape[1]]
        rough = torch.stack([state.prior.apply(column) for column in nodes.unbind(2)], dim=2)
        return ((p - p @ self.lens_covariance @ p) * (nodes.mT @ rough)).sum((1, 2))

    def evidence(self, factors: Sequence[Any]) -> Tensor:
        """Laplace evidence (b,) of all bands, each with its share of the prior of the lens."""
        own = sum(state.evidence(one) for state, one in zip(self._states, factors, strict=True))
        eliminated = sum(torch.linalg.slogdet(p)[1] for p in self._precisions)
        stiffness = self._states[0].parameter_prior[1][self._index, : self._count]
        once = torch.where(stiffness > 0, stiffness, 1.0).log().sum(1)
        number, informed = len(self._states), (stiffness > 0).sum(1)
        # The prior of the lens counts once, and with all of its stiffness.
        prior = (1 - number) * once + informed * np.log(number)
        return own + 0.5 * (prior + eliminated + torch.linalg.slogdet(self.lens_covariance)[1])
