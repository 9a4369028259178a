"""One way to sample a posterior, chosen by its name."""

from __future__ import annotations

import time
from typing import Any, Literal, get_args

import numpy as np
from tqdm import tqdm

from lenssr._limits import check_memory
from lenssr._workers import count_jobs
from lenssr.exceptions import InputError
from lenssr.posterior.draws_of_posterior import PosteriorDraws
from lenssr.posterior.ensembles import ENSEMBLES, sample
from lenssr.posterior.importance import laplace, psis
from lenssr.posterior.targets import Target
from lenssr.units import positive_integer

__all__ = ["Method", "check_draws", "draw"]

Method = Literal["laplace", "psis", "emcee"]
# Bytes for each number of each draw: normal deviates, changes, and values with their unit.
DRAWING_BYTES = 40.0
METHODS: tuple[str, ...] = get_args(Method)


def check_draws(n: int, size: int) -> None:
    """Refuse a number of draws, of so many numbers each, that memory does not hold."""
    check_memory(DRAWING_BYTES * n * size, f"n = {n} draws of {size} numbers", "give fewer")


def draw(
    target: Target,
    n: int,
    method: str,
    *,
    seed: int = 0,
    steps: int = 2000,
    jobs: int | None = 1,
    progress: bool = False,
) -> tuple[PosteriorDraws, Any]:
    """Draws of a `Target`, and their vectors (n, F) in the variables of the fit."""
    if method not in METHODS:
        raise InputError(f"method = {method!r}: give one of {', '.join(map(repr, METHODS))}")
    n, seed = positive_integer(n, "n"), positive_integer(seed, "seed", 0)
    steps, jobs = positive_integer(steps, "steps"), count_jobs(jobs, target.physical.device)
    if not target.size:
        raise InputError("nothing was fitted: a result without free parameters has no posterior")
    check_draws(n, target.size)
    rng, began = np.random.default_rng(seed), time.perf_counter()
    total = {"laplace": n, "psis": n, "emcee": ENSEMBLES * steps}[method]
    with tqdm(total=total, disable=not progress, unit="step" if method == "emcee" else "draw") as bar:
        if method == "laplace":
            vectors, weights, found = laplace(target, n, rng)
        elif method == "psis":
            vectors, weights, found = psis(target, n, rng, bar.update)
        else:
            vectors, weights, found = sample(target, n, rng, steps=steps, jobs=jobs, step=bar.update)
    draws = PosteriorDraws(
        names=target.names,
        values=target.outward(vectors),
        units=target.units,
        method=method,
        weights=weights,
        diagnostics={"seed": seed, "seconds": time.perf_counter() - began, **found},
    )
    return draws, vectors
