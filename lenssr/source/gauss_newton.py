"""Gauss-Newton for sources and the parameters of lens, lens light and sky, with their evidence.

One loop serves a batch of lenses; a single one is a batch of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lenssr.exceptions import InputError
from lenssr.source.evidence import SharedLens
from lenssr.source.forward_model import ForwardModel
from lenssr.source.linalg import NOT_POSITIVE, Factor
from lenssr.source.priors import LINKS, BatchPrior, Prior
from lenssr.source.problem import Problem
from lenssr.source.state import STRONGEST, State

__all__ = ["BandsSolution", "Request", "Solution", "solve", "solve_bands", "solve_batch", "weigh"]

LARGEST_STEP = 2.0  # share by which a node may brighten in one step; fading is harmless
# Share of the tolerance that steps to come may gain, and the chi2 by pixel below which that can be told.
LEFT, EXPLAINED = 0.2, 2.0
TRIES = 8  # steps that are tried, each a third of the one before
# Strengths settle within this factor; the evidence is flat there.
SETTLED = 1.1
# Start of the strength around a given field, in units of a first guess; the number of rounds, and the largest
# share of the way that a round may leave.
FIRST_STRENGTH, ROUNDS, MOST_LEFT = 100.0, 6, 0.8


@dataclass(frozen=True)
class Request:
    """Arguments of a call of `solve`.

    Parameters
    ----------
    problem : `Problem`
        Data, telescope and lens.
    prior : `Prior`
    strength : float or None
        Of the prior; None finds it.
    field : `~numpy.ndarray`, shape (n,)
        Where the field of the source begins.
    parameters : `~numpy.ndarray`, shape (K,)
        Where the other parameters begin.
    options : dict
        Keywords of the call.
    """

    problem: Problem
    prior: Prior
    strength: float | None
    field: NDArray
    parameters: NDArray
    options: dict[str, Any]


class Solution:
    """Where the inversion of one lens ended; the factor there, and what needs it, is made when asked for.

    Attributes
    ----------
    field : `~numpy.ndarray`, shape (n,)
        Logarithm of the node values where these are well above the floor, or the values themselves if the
        inversion was linear.
    parameters : `~numpy.ndarray`, shape (K,)
    strength, chi2 : float
    mean : float or `~numpy.ndarray`, shape (n,)
        Mean of the prior of the field.
    prior : `~lenssr.source.Prior`
    options : dict
        ``link`` and ``mean``, the options of `solve`.
    iterations : int
    converged : bool
    """

    def __init__(self, state, prior, options, iterations=0, converged=False):
        self._state, self.prior = state, prior
        self.options = {name: options[name] for name in ("link", "mean")}
        self.field, self.parameters = state.field[0].numpy(), state.parameters[0].numpy()
        self.strength, self.chi2 = float(state.strength[0]), float(state.chi2[0])
        mean = state.mean[0].numpy()
        self.mean = mean if mean.size > 1 else float(mean[0])
        self.iterations, self.converged = iterations, converged

    @property
    def nearly_determined(self) -> float:
        """`determined` one step before the end, where that is known: it needs no factor."""
        return self.determined if self._state.latest is None else float(self._state.latest[0])

    def strength_of(self, prior: Prior, field: NDArray | None = None) -> float:
        """Strength at which another prior would let the data determine equally many nodes.

        Parameters
        ----------
        prior : `~lenssr.source.Prior`
        field : `~numpy.ndarray`, optional
            This solution on the grid of the prior, by default its own.

        Returns
        -------
        strength : float
        """
        field = self.field if field is None else field
        offset = field - (field.mean() if self._state.finds_mean else self.mean)
        return self.determined / max(float(offset @ prior.apply(offset)), 1e-300)

    @property
    def values(self) -> NDArray:
        """Node values, shape (n,)."""
        return self._state.source[0].numpy()

    @property
    def slope(self) -> NDArray:
        """Derivative of the node values with respect to the field, shape (n,)."""
        return self._state.slope[0].numpy()

    @cached_property
    def factor(self) -> Factor:
        """`~lenssr.source.Factor` of the Gauss-Newton matrix at the end."""
        return self._factors.of_one()

    @cached_property
    def _factors(self) -> Any:
        return self._state.factorise(self._state.everything, exact=True)

    @cached_property
    def next_step(self) -> NDArray:
        """The Gauss-Newton step (n + K,) that would follow."""
        step = self._state.step(self._factors, self._state.everything)
        return _shortened([self._state], [step])[1][0][0].numpy()

    @cached_property
    def evidence(self) -> float:
        """Logarithm of the Laplace evidence, up to a constant of the data alone."""
        return float(self._state.evidence(self._factors)[0])

    @cached_property
    def determined(self) -> float:
        """Number of nodes that the data determine."""
        return float(self._state.determined(self._factors, self._state.everything)[0])


def solve(
    problem: Problem, prior: Prior, strength: float | None, field: NDArray, parameters: NDArray, **options
) -> Solution:
    """Maximise the posterior, and with it the evidence of the strength of the prior.

    Between Gauss-Newton steps the strength moves to where the evidence would be stationary if the posterior
    were Gaussian, (nodes that the data determine) / (roughness of the field), and so does the constant mean.

    Parameters
    ----------
    problem : `~lenssr.source.Problem`
    prior : `~lenssr.source.Prior`
    strength : float or None
        Start of its strength; None takes what ``field`` suggests.
    field, parameters : `~numpy.ndarray`, shapes (n,), (K,)
        Their start.
    mean : float or `~numpy.ndarray`, shape (n,), optional
        Mean of the prior; by default a constant that is found with the strength, or 0 if the link is linear.
    link : {"log", "linear"}, optional
        Whether the field is the logarithm of a positive source (default), or the source.
    adapt : bool, optional
        Whether the strength moves; True by default.
    max_iterations : int, optional
        40 by default. The source of a network may need no more than 2.
    tolerance : float, optional
        Converged once a step gains less than this in twice the log posterior, or all steps to come would gain
        less than a fifth of it, by how the last two did (where neither was shortened, and the data are
        explained), and the strength has settled; 0.05 by default.

    Returns
    -------
    solution : `Solution`

    Raises
    ------
    numpy.linalg.LinAlgError
        If the matrix of a step is not positive.

    References
    ----------
    MacKay 1992, Neural Computation 4, 415 (eq. 4.10); Suyu et al. 2006, MNRAS 371, 983.
    """
    (found,) = solve_batch([Request(problem, prior, strength, field, parameters, options)], problem.model)
    if isinstance(found, Exception):
        raise found
    return found


def solve_batch(requests: Sequence[Request], model: ForwardModel) -> list[Solution | Exception]:
    """Solve requests that differ in problem, start and strength only, each as if it were alone.

    Parameters
    ----------
    requests : sequence of `Request`
    model : `~lenssr.source.ForwardModel`
        Of their problems.

    Returns
    -------
    solutions : list of `Solution` or Exception
        The last in place of one whose matrix was not positive.
    """
    options = _options(requests[0])
    state = _begun(requests, model, options)
    iterations, converged, failed = _iterate([state], options)
    ends = zip(iterations.tolist(), converged.tolist(), strict=True)
    return _solutions(requests, state, options, ends, failed)


@dataclass(frozen=True)
class BandsSolution:
    """Where the inversion of several bands of one lens ended.

    Attributes
    ----------
    bands : list of `Solution`
        Source, light and lens of each; their factors know of the other bands only the parameters of the lens.
    lens : `~numpy.ndarray`, shape (L,)
        The free parameters of the lens.
    lens_covariance : `~numpy.ndarray`, shape (L, L)
        By all bands together.
    evidence : float
        Logarithm of the Laplace evidence of all bands, up to a constant of the data alone.
    """

    bands: list[Solution]
    lens: NDArray
    lens_covariance: NDArray
    evidence: float


def solve_bands(requests: Sequence[Request]) -> BandsSolution:
    """Solve several bands of one lens together: each has its own source, light and sky, all share the lens.

    Every band is eliminated down to the lens, where the Schur complements add up.

    Parameters
    ----------
    requests : sequence of `Request`
        One for each band, with the same options. Their scenes have the same lens, with the same parameters
        free, and the same priors and bounds on these, which count once; it starts where the first has it.

    Returns
    -------
    solution : `BandsSolution`

    Raises
    ------
    InputError
        If the lenses differ in their free parameters.
    numpy.linalg.LinAlgError
        If the matrix of a step is not positive.
    """
    free = [request.problem.scene.free_of("lens").tolist() for request in requests]
    if any(one != free[0] for one in free):
        raise InputError("the bands have different free parameters of the lens: give all the same lens")
    options, count = _options(requests[0]), sum(free[0])
    states = []
    for request in requests:
        begin = np.concatenate([requests[0].parameters[:count], request.parameters[count:]])
        shared = replace(request, parameters=begin)
        share = 1 / len(requests)
        states.append(_begun([shared], request.problem.model, options, lens_share=share))
    iterations, converged, failed = _iterate(states, options)
    if bool(failed[0]):
        raise np.linalg.LinAlgError(NOT_POSITIVE)
    bands = [
        Solution(state, request.prior, options, int(iterations[0]), bool(converged[0]))
        for state, request in zip(states, requests, strict=True)
    ]
    everything = states[0].everything
    factors = [state.factorise(everything, exact=True) for state in states]
    bond = SharedLens(states, factors, everything)
    return BandsSolution(
        bands, bands[0].parameters[:count], bond.lens_covariance[0].numpy(), float(bond.evidence(factors)[0])
    )


def _options(request: Request) -> dict[str, Any]:
    """All options of `solve`, with those of a request."""
    options = {"mean": None, "link": "log", "adapt": True, "max_iterations": 40, "tolerance": 0.05}
    if unknown := set(request.options) - set(options):
        raise TypeError(f"solve() has no option {sorted(unknown)}")
    return options | request.options


def _iterate(states, options):
    """Move all lenses (of all their bands) to their maxima: iterations, converged and failed, each (B,)."""
    first = states[0]
    settled = torch.full_like(first.everything, not options["adapt"], dtype=torch.bool)
    converged, failed = torch.zeros_like(settled), torch.zeros_like(settled)
    iterations, gains = torch.zeros_like(first.everything), torch.zeros_like(first.strength)
    whole = torch.zeros_like(settled)
    for _ in range(options["max_iterations"]):
        index = torch.nonzero(~(converged & settled | failed)).squeeze(1)
        if not len(index):
            break
        iterations[index] += 1
        refined = len(states) == 1 and first.model.refines_steps
        factors = [state.factorise(index, loosely=refined) for state in states]
        failed[index] = torch.stack([one.failed for one in factors]).any(0)
        bond = SharedLens(states, factors, index) if len(states) > 1 else None
        steps = [first.held_step(factors[0], index, refined)] if bond is None else bond.steps()
        before, smooth = gains[index], whole[index] & _explained(states, index)
        gains[index], whole[index] = _advance(states, index, steps)
        converged[index] = _arrived(gains[index], before, smooth & whole[index], options["tolerance"])
        if options["adapt"]:
            settled[index] = True
            for number, (state, own) in enumerate(zip(states, factors, strict=True)):
                before, less = state.strength[index], 0.0 if bond is None else bond.less_trace(number)
                state.set_strength(index, state.likeliest_strength(own, index, less=less))
                settled[index] &= (state.strength[index] / before).log().abs() < np.log(SETTLED)
        del factors, bond  # before the next ones are made
    return iterations, converged & settled & ~failed, failed


def _arrived(gain, before, smooth, tolerance):
    """Whether steps gained little, or where all goes smoothly, those to come will: the same share each."""
    share = torch.where(smooth, gain / before.clamp_min(1e-300), 1.0).clamp_max(0.99)
    return (gain < tolerance) | (gain * share / (1 - share) < LEFT * tolerance)


def _explained(states, index):
    """Whether chi2 is like that of noise (b,): only then is Gauss-Newton like Newton's method."""
    pixels = sum((state.model.weight[index] > 0).sum(1) for state in states)
    return sum(state.chi2[index] for state in states) < EXPLAINED * pixels


def _advance(states, index, steps):
    """Move along steps, shortened until the posteriors of all bands together grow.

    Returns the gains (b,), and whether steps were taken whole (b,).
    """
    before = sum(state.objective(index) for state in states)
    gains, left = torch.zeros_like(before), torch.arange(len(index), device=index.device)
    whole, steps = _shortened(states, steps)
    for _ in range(TRIES):
        here = index[left]
        trials = [state.trial(here, step[left]) for state, step in zip(states, steps, strict=True)]
        # Light that the data do not constrain may leap far: a chi2 that overflows counts as a loss.
        gain = before[left] - sum(objective for *_, objective in trials)
        better = gain > 0
        for state, (*parts, _) in zip(states, trials, strict=True):
            state.take(here[better], [part[better] for part in parts])
        gains[left[better]] = gain[better]
        left, steps = left[~better], [step / 3 for step in steps]
        whole[left] = False
        if not len(left):
            break
    for state in states:
        state.renew_jacobian(index[gains > 0])
    return gains, whole


def _shortened(states, steps):
    """Which steps (b, n + K) brighten no node beyond what is linear, and all, the others shortened."""
    if states[0].link.is_linear:
        return torch.ones_like(steps[0][:, 0], dtype=torch.bool), steps
    brightening = [step[:, : state.field.shape[1]].amax(1) for state, step in zip(states, steps, strict=True)]
    scale = (LARGEST_STEP / torch.stack(brightening).amax(0).clamp_min(1e-300)).clamp_max(1.0)
    return scale == 1, [step * scale.unsqueeze(1) for step in steps]


def _begun(requests, model, options, *, lens_share=1.0):
    """The state of requests at their beginning, with a share of the stiffness of the lens's prior."""
    first = requests[0]
    field, parameters = (
        torch.as_tensor(np.stack([getattr(r, name) for r in requests]), device=model.device)
        for name in ("field", "parameters")
    )
    prior = BatchPrior(first.prior, model.device, dense=model.dense)
    link = LINKS[options["link"]]
    state = State(model, prior, field, parameters, options["mean"], link, lens_share=lens_share)
    strength = [r.strength for r in requests]
    known = first.strength is not None
    begin = torch.tensor(strength, dtype=torch.float64) if known else state.rough_strength()
    state.set_strength(state.everything, begin.to(state.strength))
    return state


def _solutions(requests, state, options, ends, failed):
    """A `Solution` for each request, on the CPU; an exception for those that have failed."""
    alone = len(requests) == 1 and state.model.device.type == "cpu"
    if not alone:
        factors = state.factorise(state.everything, exact=True)
        failed = failed | factors.failed
        numbers = state.evidence(factors).tolist(), state.determined(factors, state.everything).tolist()
    solutions = []
    for row, (request, end) in enumerate(zip(requests, ends, strict=True)):
        if failed[row]:
            solutions.append(np.linalg.LinAlgError(NOT_POSITIVE))
            continue
        found = Solution(state if alone else state.row(row, request), request.prior, options, *end)
        if not alone:
            found.evidence, found.determined = numbers[0][row], numbers[1][row]
        solutions.append(found)
    return solutions


def weigh(problem, prior, field, parameters, *, mean=None, link="log", rounds=ROUNDS, settled=SETTLED):
    """Find the strength of a prior by the evidence of the problem linearised around a field, which is held.

    Roughness of the field that the prior forbids and the data do not ask for would be gone after one step: so
    the roughness of the field one Gauss-Newton step on counts. The strength moves at most ``rounds`` times,
    and no more once it would by less than a factor ``settled``.
    """
    options = {"mean": mean, "link": link}
    state = _begun([Request(problem, prior, None, field, parameters, options)], problem.model, options)
    everything = state.everything
    state.set_strength(everything, FIRST_STRENGTH * state.strength)
    before, done, number = None, False, 0
    while number < rounds and not done:
        number += 1
        factors = state.factorise(everything)
        step = factors.solve(state.gradient(everything).unsqueeze(2))[:, : factors.count, 0]
        likeliest = state.likeliest_strength(factors, everything, state.field + step)
        now = float(state.strength[0].log()), float(likeliest[0].log())
        change = now[1] - now[0]
        done = abs(change) < np.log(settled) or now[1] > np.log(STRONGEST)
        if before is not None and now[0] != before[0]:
            # Each round leaves the same share of the way, so the rest can be taken at once.
            left = (now[1] - before[1]) / (now[0] - before[0])
            change /= 1 - np.clip(left, 0.0, MOST_LEFT)
        before = now
        state.set_strength(everything, torch.full_like(state.strength, np.exp(now[0] + change)))
    return Solution(state, prior, options, converged=done)
