"""Gauss-Newton for sources and the parameters of lens, lens light and sky, with their evidence.

One loop serves a batch of lenses; a single one is a batch of one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lenssr.exceptions import InputError
from lenssr.source.evidence import SharedLens, laplace_evidence
from lenssr.source.forward_model import ForwardModel
from lenssr.source.linalg import NOT_POSITIVE, BandedFactors, DenseFactors, Factor, within_box
from lenssr.source.priors import LINKS, BatchPrior, Prior
from lenssr.source.problem import Problem

__all__ = ["BandsSolution", "Request", "Solution", "solve", "solve_bands", "solve_batch", "weigh"]

LARGEST_STEP = 2.0  # share by which a node may brighten in one step; fading is harmless
DIMMER, BRIGHTER = 0.8, 10.0  # shares of a flux by which one step may change it
# Share of the tolerance that steps to come may gain, and the chi2 by pixel below which that can be told.
LEFT, EXPLAINED = 0.2, 2.0
TRIES = 8  # steps that are tried, each a third of the one before
PROBES = 8
PROBE_SEED = 20061
# Strengths settle within this factor; the evidence is flat there.
SETTLED = 1.1
# Start of the strength around a given field, in units of a first guess; the number of rounds, and the largest
# share of the way that a round may leave.
FIRST_STRENGTH, ROUNDS, MOST_LEFT = 100.0, 6, 0.8
WEAKEST, STRONGEST = 1e-8, 1e9

Factors = BandedFactors | DenseFactors


@dataclass(frozen=True)
class Request:
    """Arguments of a call of `solve`, with its keywords as ``options``."""

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
        factors = [state.factorise(index) for state in states]
        failed[index] = torch.stack([one.failed for one in factors]).any(0)
        bond = SharedLens(states, factors, index) if len(states) > 1 else None
        steps = [first.held_step(factors[0], index)] if bond is None else bond.steps()
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
    state = _State(model, prior, field, parameters, options["mean"], link, lens_share=lens_share)
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


class _State:
    """Fields and parameters of a batch with what they predict."""

    def __init__(self, model, prior, field, parameters, mean, link, *, lens_share=1.0):
        self.model, self.prior, self.link, self.latest = model, prior, link, None
        self.parameter_prior = model.parameter_prior
        if lens_share != 1:
            mean_, stiffness = (part.clone() for part in model.parameter_prior)
            stiffness[:, : model.scene.count("lens")] *= lens_share
            self.parameter_prior = mean_, stiffness
        self.everything = model.everything
        self.finds_mean = mean is None and not link.is_linear
        given = torch.as_tensor(0.0 if mean is None else mean, dtype=field.dtype).to(field).reshape(1, -1)
        self.mean = field.mean(1, keepdim=True) if self.finds_mean else given.expand(len(field), -1).clone()
        self.field, self.parameters = field.clone(), parameters.clone()
        self.source, self.slope = self._brightness(field, self.everything)
        self.strength = torch.ones_like(self.field[:, 0])
        self.residual = self._residual(self.source, parameters, self.everything)
        self.chi2 = self._chi2(self.residual, self.everything)
        self.jacobian = model.jacobian(self.source, parameters, self.everything)
        self._probes = None

    def row(self, row: int, request: Request) -> _State:
        """The state of one lens by itself, on the CPU."""
        parts = self.field[row : row + 1].cpu(), self.parameters[row : row + 1].cpu()
        prior = BatchPrior(request.prior, "cpu", dense=False)
        mean = None if self.finds_mean else self.mean[row].cpu().numpy()
        one = _State(request.problem.model, prior, *parts, mean, self.link)
        one.mean = self.mean[row : row + 1].cpu()
        one.set_strength(one.everything, self.strength[row : row + 1].cpu())
        return one

    def _brightness(self, field: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        return self.link.on_tensors(field, self.model.log_floor[index].unsqueeze(1))

    def _residual(self, source: Tensor, parameters: Tensor, index: Tensor) -> Tensor:
        return self.model.data[index] - self.model.predict(source, parameters, index)

    def _chi2(self, residual: Tensor, index: Tensor) -> Tensor:
        return (self.model.weight[index] * residual.square()).sum(1)

    def _roughness(self, field: Tensor, index: Tensor) -> Tensor:
        offset = field - self.mean[index]
        return (self.prior.apply(offset) * offset).sum(1)

    def _penalty(self, field, parameters, index):
        mean, stiffness = (part[index] for part in self.parameter_prior)
        pull = (stiffness * (parameters - mean).square()).sum(1)
        return self.strength[index] * self._roughness(field, index) + pull

    def set_strength(self, index: Tensor, strength: Tensor) -> None:
        """Change the strengths of the prior."""
        self.strength[index] = torch.nan_to_num(strength, nan=WEAKEST).clamp(WEAKEST, STRONGEST)

    def rough_strength(self) -> Tensor:
        """First strengths: as if data determined a tenth of the nodes, but no stiffer than the data."""
        rough = self._roughness(self.field, self.everything).clamp_min(1e-300)
        normal = self.model.normal(self.parameters, self.everything)
        diagonal = torch.stack([torch.as_tensor(one.diagonal()) for one in normal])
        data = (self.slope.square() * diagonal).sum(1)
        return torch.minimum(0.1 * self.field.shape[1] / rough, data / self.prior.trace)

    def gradient(self, index: Tensor) -> Tensor:
        """Half the gradients (b, n + K) of the log posteriors."""
        weighted = self.model.weight[index] * self.residual[index]
        parameters = self.parameters[index]
        by_source = self.model.adjoint(weighted.unsqueeze(1), parameters, index).squeeze(1)
        rough = self.prior.apply(self.field[index] - self.mean[index])
        mean, stiffness = (part[index] for part in self.parameter_prior)
        by_field = self.slope[index] * by_source - self.strength[index].unsqueeze(1) * rough
        by_parameter = (self.jacobian[index] @ weighted.unsqueeze(2)).squeeze(2)
        return torch.cat([by_field, by_parameter - stiffness * (parameters - mean)], dim=1)

    def factorise(self, index: Tensor, *, exact: bool = False) -> Factors:
        """Factor the Gauss-Newton matrices."""
        jacobian, parameters, slope = self.jacobian[index], self.parameters[index], self.slope[index]
        weighted = jacobian * self.model.weight[index].unsqueeze(1)
        cross = slope.unsqueeze(2) * self.model.adjoint(weighted, parameters, index).mT
        corner = jacobian @ weighted.mT + torch.diag_embed(self.parameter_prior[1][index])
        kind = DenseFactors if self.model.dense else BandedFactors
        normal = self.model.normal(parameters, index, exact=exact)
        return kind(normal, slope, self.prior, self.strength[index], cross, corner, for_step=not exact)

    def step(self, factors: Factors, index: Tensor) -> Tensor:
        """The Gauss-Newton steps (b, n + K)."""
        step = factors.solve(self.gradient(index).unsqueeze(2)).squeeze(2)
        return torch.where(factors.failed.unsqueeze(1), 0.0, step)

    def held_step(self, factors: Factors, index: Tensor) -> Tensor:
        """The Gauss-Newton steps (b, n + K), within bounds and within what one step may change."""
        down, up = (torch.where(self.model.bright, end, self.model.reach) for end in (DIMMER, BRIGHTER))
        lower, upper = (bound[index] - self.parameters[index] for bound in self.model.bounds)
        box = torch.maximum(lower, -down), torch.minimum(upper, up)
        return within_box(factors, self.step(factors, index), *box)

    def objective(self, index: Tensor) -> Tensor:
        """Twice the negative log posteriors (b,), but for constants."""
        return self.chi2[index] + self._penalty(self.field[index], self.parameters[index], index)

    def trial(self, index: Tensor, step: Tensor) -> tuple[Tensor, ...]:
        """Where steps lead: field, parameters, source, slope, residual and chi2, and the objectives (b,)."""
        count, (lower, upper) = self.field.shape[1], self.model.bounds
        nodes, asked = step[:, :count], step[:, count:]
        if not self.link.is_linear and bool(self.model.bright.any()):
            # Beside lens light, which the same pixels show, a step is meant in what the image is proportional
            # to, not in its logarithm.
            nodes = torch.where(nodes > 0, nodes.clamp_min(0.0).log1p(), nodes)
        field = self.field[index] + nodes
        moved = torch.where(self.model.bright, asked.clamp_min(-DIMMER).log1p(), asked)
        parameters = (self.parameters[index] + moved).clamp(lower[index], upper[index])
        source, slope = self._brightness(field, index)
        residual = self._residual(source, parameters, index)
        chi2 = self._chi2(residual, index)
        objective = chi2 + self._penalty(field, parameters, index)
        return field, parameters, source, slope, residual, chi2, objective

    def take(self, index: Tensor, parts: Iterable[Tensor]) -> None:
        """Move to where trials have led."""
        kept = (self.field, self.parameters, self.source, self.slope, self.residual, self.chi2)
        for mine, part in zip(kept, parts, strict=True):
            mine[index] = part

    def renew_jacobian(self, index: Tensor) -> None:
        """Find the derivatives anew after a move."""
        if len(index):
            self.jacobian[index] = self.model.jacobian(self.source[index], self.parameters[index], index)

    def determined(self, factors: Factors, index: Tensor, less: float | Tensor = 0.0) -> Tensor:
        """Numbers (b,) of nodes that the data determine: n - strength (tr(A^-1 C) - less)."""
        undetermined = self.strength[index] * (factors.trace(self.prior, self.probes) - less)
        return (factors.count - undetermined).clamp(1.0, factors.count)

    @property
    def probes(self) -> NDArray:
        """Fixed signs (n + K, PROBES) for traces."""
        if self._probes is None:
            size = self.field.shape[1] + self.parameters.shape[1]
            self._probes = np.random.default_rng(PROBE_SEED).choice([-1.0, 1.0], (size, PROBES))
        return self._probes

    def likeliest_strength(self, factors, index, field=None, *, less=0.0):
        """The strengths at which the evidence of fields, by default the present ones, is stationary."""
        field = self.field[index] if field is None else field
        if self.finds_mean:
            self.mean[index] = field.mean(1, keepdim=True)
        determined = self.determined(factors, index, less)
        if self.latest is None:
            self.latest = torch.full_like(self.strength, torch.nan)
        self.latest[index] = determined
        return determined / self._roughness(field, index).clamp_min(1e-300)

    def evidence(self, factors: Factors) -> Tensor:
        """Laplace evidence (B,): fit, prior, and the ratio of the volumes of posterior and prior."""
        stiffness = self.parameter_prior[1]
        prior = self.prior.log_determinant + self.field.shape[1] * self.strength.log()
        prior = prior + torch.where(stiffness > 0, stiffness, 1.0).log().sum(1)
        penalty = self.chi2 + self._penalty(self.field, self.parameters, self.everything)
        return laplace_evidence(prior, factors.log_determinant, penalty)
