"""The posterior of one lens as a function of the free parameters of its fit.

`SceneTarget` has a parametric source and the exact likelihood; `FreeFormTarget` one on a grid, over which it
integrates.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lenssr.model.fit import Constraints
from lenssr.model.scene import Scene
from lenssr.source.gauss_newton import Solution, solve
from lenssr.source.problem import Problem

__all__ = ["FreeFormTarget", "SceneTarget", "Target"]

Array = NDArray[np.float64]

# Values of rays of a batch of images that are in memory at a time: few enough for the cache of a CPU.
VALUES_AT_ONCE = 2**18
# Steps of a source towards its maximum at other parameters, and the gain in twice the log posterior at which
# it is there: the evidence is off by half of that at most, which weights do not see.
STEPS, STEP_GAIN = 6, 0.05


@dataclass(frozen=True, eq=False, kw_only=True)
class Target(ABC):
    """A posterior density over F parameters, in the variables of the fit: logarithms of positive ones.

    The priors are those of the fit: Gaussian where it has one, flat in these variables elsewhere, zero
    beyond the bounds.

    Attributes
    ----------
    scene : ``lenssr.model.scene.Scene``
    physical : `torch.Tensor`, shape (P,)
        Where the fit ended.
    covariance : `~numpy.ndarray`, shape (F, F)
        Of the fit's variables, for the noise as it is; zero for those that ended on a bound.
    constraints : ``lenssr.model.fit.Constraints``
        Of one problem.
    names, units : tuple of str
        Of the parameters as users see them, (F,).
    temperature : float
        Factor by which correlated noise makes variances larger: chi2 counts less by as much.
    """

    scene: Scene
    physical: Tensor
    covariance: Array
    constraints: Constraints
    names: tuple[str, ...]
    units: tuple[str, ...]
    temperature: float = 1.0

    @property
    def size(self) -> int:
        """Number of parameters."""
        return len(self.names)

    @property
    def centre(self) -> Array:
        """The most likely vector (F,)."""
        return self.scene.to_fit(self.physical).numpy()

    @property
    def bounds(self) -> tuple[Array, Array]:
        """Lower and upper ends (F,)."""
        ends = (self.constraints.lower, self.constraints.upper)
        lower, upper = (self.scene.to_fit(end)[0].numpy() for end in ends)
        return lower, upper

    def inside(self, vectors: Array) -> NDArray[np.bool_]:
        """Which vectors (m, F) lie within the bounds, (m,)."""
        lower, upper = self.bounds
        return np.asarray(((vectors >= lower) & (vectors <= upper)).all(axis=1))

    def log_prior(self, vectors: Array) -> Array:
        """Logarithm of the prior (m,) of vectors (m, F), up to a constant."""
        free = self.scene.free
        mean, stiffness = (
            part[0, free].numpy() for part in (self.constraints.mean, self.constraints.stiffness)
        )
        value = -0.5 * ((vectors - mean) ** 2 * stiffness).sum(axis=1)
        return np.where(self.inside(vectors), value, -np.inf)

    def log_posterior(self, vectors: Array) -> Array:
        """Logarithm of the posterior (m,) of vectors (m, F), up to a constant; -inf beyond bounds."""
        value = self.log_prior(vectors)
        possible = np.flatnonzero(np.isfinite(value))
        if len(possible):
            value[possible] += self.log_likelihood(vectors[possible])
        return np.where(np.isnan(value), -np.inf, value)

    @abstractmethod
    def log_likelihood(self, vectors: Array) -> Array:
        """Logarithm of the likelihood (m,) of vectors (m, F) within the bounds, up to a constant."""

    def to_physical(self, vectors: Array) -> Tensor:
        """Physical vectors (m, P) of vectors (m, F)."""
        template = self.physical.expand(len(vectors), -1)
        return self.scene.to_physical(torch.as_tensor(vectors), template)

    def outward(self, vectors: Array) -> Array:
        """Values (m, F) of the parameters as users see them, in ``units``."""
        physical = self.to_physical(vectors)
        for block in self.scene.blocks:
            if block.profile is not None:
                physical[:, block.slice] = block.profile.outer(physical[:, block.slice])
        return physical[:, self.scene.free].numpy()


@dataclass(frozen=True, eq=False, kw_only=True)
class SceneTarget(Target):
    """A parametric source: Gaussian noise whose variances are held where the fit found them.

    ``stack`` is an ``ImageStack`` of the one image; ``weight`` (N,) are inverse variances for independent
    noise and ``offset`` (N,) is the shift of the expected data by the noise.
    """

    stack: Any
    weight: Tensor
    offset: Tensor

    def log_likelihood(self, vectors: Array) -> Array:
        """Logarithm of the likelihood (m,) of vectors (m, F) within the bounds, up to a constant."""
        used = self.weight > 0
        data, root = (self.stack.data[0] - self.offset)[used], self.weight[used].sqrt()
        step = max(1, VALUES_AT_ONCE // self.stack.operator.x.numel())
        parts = []
        for piece in self.to_physical(vectors).split(step):
            image = self.stack.image(self.scene, piece)[:, used]
            parts.append(((image - data) * root).square().sum(1))
        return -0.5 / self.temperature * torch.cat(parts).numpy()


@dataclass(frozen=True, eq=False, kw_only=True)
class FreeFormTarget(Target):
    """A source on a grid: its logarithm (or itself) is integrated over, by Laplace's method, at each vector.

    Grid, prior and its strength are held where the fit found them; the grid follows the lens as in the
    fit. The integral is exact where the source is linear, an approximation where its logarithm has the prior.
    ``problem`` and ``solution`` are those of `lenssr.source.solve`; the weights of the problem know the
    temperature.
    """

    problem: Problem
    solution: Solution

    def log_likelihood(self, vectors: Array) -> Array:
        """Logarithm of the evidence (m,) of vectors (m, F) within the bounds, up to a constant."""
        values = np.full(len(vectors), -np.inf)
        for row, vector in enumerate(vectors):
            try:
                values[row] = self.source_at(vector).evidence
            except np.linalg.LinAlgError:  # a matrix that is not positive: far from what data allow
                continue
        return values

    def source_at(self, vector: Array) -> Solution:
        """The most likely source at a vector (F,), all else held."""
        problem, solution = self.held(vector), self.solution
        field = solution.field + self.field_slope @ (vector - solution.parameters)
        options = {**solution.options, "mean": solution.mean, "adapt": False}
        options |= {"max_iterations": STEPS, "tolerance": STEP_GAIN}
        # The matrix that the evidence needs is good for the steps, too: it is made once.
        problem.model.normal(torch.zeros(1, 0, dtype=torch.float64), problem.model.everything, exact=True)
        return solve(problem, solution.prior, solution.strength, field, np.zeros(0), **options)

    def held(self, vector: Array) -> Problem:
        """The problem of the source alone, all parameters held at a vector (F,)."""
        problem = self.problem
        scene = copy.copy(self.scene)
        scene._set_free(torch.zeros_like(scene.free))
        physical = problem.physical(vector)[0]
        twin = Problem(problem.views, scene, physical, self.constraints, problem.grid_at(vector))
        twin.log_floor = problem.log_floor
        return twin

    @property
    def field_slope(self) -> Array:
        """Derivatives (n, F) of the most likely field by the parameters, from the matrix of the last step."""
        kept = self.__dict__.get("_field_slope")
        if kept is None:
            factor = self.solution.factor
            right = np.zeros((factor.size, self.size))
            right[factor.count :] = np.eye(self.size)
            joint = factor.solve(right)
            # The covariance of field and parameters, over that of the parameters.
            kept = joint[: factor.count] @ np.linalg.inv(joint[factor.count :])
            object.__setattr__(self, "_field_slope", kept)
        return kept
