"""Four independent ensembles of walkers (emcee) that sample a posterior, across cores.

emcee rather than a nested sampler such as nautilus: most parameters of a fit have flat priors, many without
ends (the sky, the logarithm of a brightness), and a nested sampler needs a proper prior to begin with. It
starts from the Gaussian around the fit, which is nearly right for most lenses, and takes half of its steps
there, so that walkers forget where they were within some ten steps.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lenssr._workers import solve_parts
from lenssr.exceptions import InputError
from lenssr.posterior.importance import Gaussian
from lenssr.posterior.targets import Target

__all__ = ["ENSEMBLES", "autocorrelation", "r_hat", "sample"]

Array = NDArray[np.float64]

ENSEMBLES = 4
# Walkers of an ensemble for each parameter: emcee needs 2 at least.
WALKERS = 2.5
# Degrees of freedom and width of the distribution from which half of the steps are drawn, whatever came
# before: heavier tails than those of the Gaussian around the fit, so that no walker is held there.
DEGREES, WIDER = 8.0, 1.1
# Shares of steps: from that distribution, along the difference of two walkers, and across (snooker).
SHARES = 0.5, 0.4, 0.1
# Steps of the first round; each further one has half as many again. Converged once R-hat of every parameter
# is below this (Vehtari et al. 2021, Bayesian Analysis 16, 667) and a chain has this many autocorrelation
# times (Foreman-Mackey et al. 2013, PASP 125, 306).
FIRST_STEPS, GROWTH, MOST_R_HAT, TIMES = 100, 1.5, 1.01, 50
# Share of a chain that is left out at its beginning.
BURN = 0.3


@dataclass(frozen=True, eq=False)
class Ensemble:
    """One ensemble: its seed, walkers (w, F), their log posterior (w,), and all steps (s, w, F)."""

    target: Target
    seed: Any
    walkers: Array
    chain: Array
    accepted: float = 0.0
    values: Array | None = None


def sample(
    target: Target,
    n: int,
    rng: np.random.Generator,
    *,
    steps: int,
    jobs: int,
    step: Callable[[int], Any],
) -> tuple[Array, Array, dict[str, Any]]:
    """Vectors (n, F), equal weights and diagnostics, of at most ``steps`` steps of each ensemble.

    ``step(number)`` is told of steps that are done, of all ensembles together.
    """
    begun = [_begin(target, seed) for seed in rng.integers(2**31, size=ENSEMBLES)]
    done, length = 0, min(FIRST_STEPS, steps)
    while True:
        advance = functools.partial(_advance, length)
        parts = [[(number, ensemble)] for number, ensemble in enumerate(begun)]
        for numbers, found in solve_parts(advance, parts, jobs):
            for number, ensemble in zip(numbers, found, strict=True):
                if isinstance(ensemble, Exception):
                    raise ensemble
                begun[number] = replace(ensemble, target=target)
            step(length)
        done += length
        chains = np.stack([ensemble.chain[int(BURN * done) :] for ensemble in begun])
        ratios, times = r_hat(chains), autocorrelation(chains)
        converged = ratios.max(initial=1.0) < MOST_R_HAT and chains.shape[1] > TIMES * times.max(initial=1.0)
        if converged or done >= steps:
            break
        length = min(int(GROWTH * length), steps - done)
    flat = chains.reshape(-1, target.size)
    chosen = rng.choice(len(flat), n, replace=len(flat) < n)
    found = {
        "r_hat": dict(zip(target.names, ratios.tolist(), strict=True)),
        "autocorrelation": dict(zip(target.names, times.tolist(), strict=True)),
        "steps": done,
        "walkers": chains.shape[2],
        "ensembles": ENSEMBLES,
        "accepted": float(np.mean([ensemble.accepted for ensemble in begun])),
        "effective_size": float(min(n, len(flat) / max(times.max(initial=1.0), 1.0))),
        "converged": bool(converged),
    }
    return flat[chosen], np.ones(n), found


def _begin(target: Target, seed: Any) -> Ensemble:
    """An ensemble around the fit."""
    rng = np.random.default_rng(seed)
    count = 2 * max(4, int(np.ceil(WALKERS * target.size / 2)))
    walkers, _ = Gaussian(target).draw(count, rng)
    return Ensemble(target, seed, walkers, np.zeros((0, count, target.size)))


def _advance(steps: int, ensembles: list[Ensemble]) -> list[Ensemble]:
    """Ensembles after some more steps."""
    return [_advanced(one, steps) for one in ensembles]


def _advanced(ensemble: Ensemble, steps: int) -> Ensemble:
    """One ensemble after some more steps."""
    try:
        import emcee
    except ImportError as error:
        raise InputError("method='emcee' needs emcee: pip install 'lenssr[posterior]'") from error
    target, (count, size) = ensemble.target, ensemble.walkers.shape
    anew = functools.partial(_anew, Gaussian(target))
    kinds = emcee.moves.MHMove(anew), emcee.moves.DEMove(), emcee.moves.DESnookerMove()
    sampler = emcee.EnsembleSampler(
        count, size, target.log_posterior, vectorize=True, moves=list(zip(kinds, SHARES, strict=True))
    )
    # As many steps were taken before: another stream for each round.
    state = np.random.RandomState([int(ensemble.seed), len(ensemble.chain)]).get_state()
    start = emcee.State(ensemble.walkers, log_prob=ensemble.values, random_state=state)
    if ensemble.values is None:
        start.log_prob = target.log_posterior(ensemble.walkers)
        if not np.isfinite(start.log_prob).any():
            raise InputError("no walker is possible by the data: the fit is not at a maximum, see the flags")
        _replace_impossible(start)
    end = sampler.run_mcmc(start, steps, skip_initial_state_check=True)
    before = len(ensemble.chain)
    accepted = (before * ensemble.accepted + steps * float(sampler.acceptance_fraction.mean())) / (
        before + steps
    )
    chain = np.concatenate([ensemble.chain, sampler.get_chain()])
    return replace(ensemble, walkers=end.coords, values=end.log_prob, chain=chain, accepted=accepted)


def _replace_impossible(start: Any) -> None:
    """Walkers without likelihood begin where another one does."""
    good = np.flatnonzero(np.isfinite(start.log_prob))
    for row in np.flatnonzero(~np.isfinite(start.log_prob)):
        other = good[row % len(good)]
        start.coords[row], start.log_prob[row] = start.coords[other], start.log_prob[other]


def _anew(gaussian: Gaussian, here: Array, random: Any) -> tuple[Array, Array]:
    """Places from a t-distribution around the fit, and ln of its density here over that there.

    Along a parameter that ended on its bound walkers stay where they are.
    """
    size, width = gaussian.root.shape[1], WIDER
    # In the coordinates in which the Gaussian is round; what lies beside them is kept.
    inverse = np.linalg.pinv(gaussian.root)
    old = (here - gaussian.centre) @ inverse.T
    scale = np.sqrt(random.chisquare(DEGREES, len(here)) / DEGREES)
    new = width * random.standard_normal(here.shape[:1] + (size,)) / scale[:, None]

    def log_density(z: Array) -> Array:
        return -0.5 * (DEGREES + size) * np.log1p((z**2).sum(1) / (DEGREES * width**2))

    return here + (new - old) @ gaussian.root.T, log_density(old) - log_density(new)


# ---------------------------------------------------------------- have they converged?


def r_hat(chains: Array) -> Array:
    """Potential scale reduction (F,) of independent ensembles (m, s, w, F), each half of one by itself.

    The walkers of an ensemble know of one another, so it counts as one chain: its mean, and the variance of
    all its walkers.

    References
    ----------
    Gelman & Rubin 1992, Statistical Science 7, 457; Vehtari et al. 2021, Bayesian Analysis 16, 667 (halves).
    """
    half = chains.shape[1] // 2
    halves = np.concatenate([chains[:, :half], chains[:, half : 2 * half]])
    flat = halves.reshape(len(halves), -1, chains.shape[-1])
    within = flat.var(axis=1).mean(axis=0)
    between = flat.mean(axis=1).var(axis=0, ddof=1)
    return np.sqrt(1 + between / np.maximum(within, np.finfo(float).tiny))


def autocorrelation(chains: Array) -> Array:
    """Integrated autocorrelation times (F,) in steps, the mean of ensembles (m, s, w, F)."""
    import emcee

    return np.mean([emcee.autocorr.integrated_time(chain, tol=0, quiet=True) for chain in chains], axis=0)
