"""Inversions that ask for solutions, so that many images can be solved together.

A step-by-step inversion is a generator: it yields a `Request` wherever it needs a solution, is sent the
solution, and returns its result. The caller decides how requests are answered.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lenssr.source.forward_model import ForwardModel
from lenssr.source.gauss_newton import Request, Solution, solve_batch
from lenssr.source.priors import Prior
from lenssr.source.problem import Problem

__all__ = ["alone", "answer_together", "ask", "ask_each", "choose_prior", "images_at_once", "together"]

Answer = Solution | Exception
Steps = Generator[Request, Solution, Any]

# Bytes for matrices on a CPU, and the share of the free memory of a GPU.
CPU_BYTES, FREE_SHARE = 2**30, 0.8
# Peak memory per image, in matrices (n, n) during a step.
MATRICES = 6


def ask(problem, prior, strength, field, parameters, **options):
    """Ask for a solution, ``solution = yield from ask(...)`` in an inversion; arguments as of `solve`."""
    return (yield Request(problem, prior, strength, field, parameters, options))


def ask_each(problem, priors, field, parameters, **options):
    """Ask for solutions with several priors, each from the end of the one before; the most likely first."""
    solutions, strength = [], None
    for prior in priors:
        if solutions:
            strength = solutions[-1].strength_of(prior)
        solutions.append((yield from ask(problem, prior, strength, field, parameters, **options)))
        field, parameters = solutions[-1].field, solutions[-1].parameters
    return sorted(solutions, key=lambda solution: -solution.evidence)


def alone(steps: Steps) -> Any:
    """Run one inversion, a generator of `Request`, each answered as it comes; its return value."""
    (result,) = together([steps], lambda requests: solve_batch(requests, requests[0].problem.model))
    if isinstance(result, Exception):
        raise result
    return result


def together(inversions: Sequence[Steps], answer: Callable[[list[Request]], list[Answer]]) -> list[Any]:
    """Run inversions in lock-step: in each round all that are still running ask, and are answered together.

    Parameters
    ----------
    inversions : sequence of generators of `Request`
    answer : callable
        ``answer(requests)`` gives a list with a solution, or an exception, for each request.

    Returns
    -------
    results : list
        Return values of the inversions in their order; an exception where one failed.
    """
    results = [None] * len(inversions)
    waiting = _advance(inversions, results, dict.fromkeys(range(len(inversions))))
    while waiting:
        solutions = answer(list(waiting.values()))
        waiting = _advance(inversions, results, dict(zip(waiting, solutions, strict=True)))
    return results


def _advance(inversions, results, solutions):
    """Send solutions to inversions by their numbers; the requests of those that go on, by number."""
    waiting = {}
    for number, solution in solutions.items():
        steps = inversions[number]
        try:
            failed = isinstance(solution, Exception)
            waiting[number] = steps.throw(solution) if failed else steps.send(solution)
        except StopIteration as end:
            results[number] = end.value
        except Exception as error:  # noqa: BLE001 - one failure must not stop the rest
            results[number] = error
    return waiting


def choose_prior(
    problem: Problem, priors: Sequence[Prior], field: NDArray, parameters: NDArray, **options: Any
) -> list[Solution]:
    """Solve with several priors, each from where the one before ended.

    Parameters
    ----------
    problem, field, parameters, **options
        As for `lenssr.source.solve`.
    priors : sequence of `~lenssr.source.Prior`

    Returns
    -------
    solutions : list of `~lenssr.source.Solution`
        The most likely first.
    """
    return alone(ask_each(problem, priors, field, parameters, **options))


def images_at_once(problem: Problem, device: torch.device | str) -> int:
    """Number of images like one that fit into the memory of a device, where matrices are whole.

    Parameters
    ----------
    problem : `~lenssr.source.Problem`
    device : `torch.device` or str

    Returns
    -------
    count : int

    Notes
    -----
    An image takes six matrices (n, n) in double precision: 0.6 GB with 60x60 nodes, 0.25 GB with 48x48.
    Beside them lie the maps from nodes to cells and pixels of one image. Of a GPU, 80 % of the free memory is
    taken.
    """
    device, size = torch.device(device), problem.grid.size
    cells = max(np.prod(view.stack.operator.cells) for view in problem.views)
    beside = 2 * size * cells
    free = FREE_SHARE * torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else CPU_BYTES
    return max(1, int((free / 8 - beside) // (MATRICES * size**2)))


def answer_together(
    requests: Sequence[Request], device: torch.device | str, *, dense: bool | None = None
) -> list[Answer]:
    """Answer requests of several images, those of one kind together, as many as fit into memory.

    Parameters
    ----------
    requests : sequence of `~lenssr.source.Request`
        Of images of one shape behind one telescope.
    device : `torch.device` or str
    dense : bool, optional
        Whether matrices are whole, see `~lenssr.source.ForwardModel`.

    Returns
    -------
    solutions : list of `~lenssr.source.Solution` or Exception
        With evidence and determined nodes as found on the device.
    """
    kinds = defaultdict(list)
    for number, request in enumerate(requests):
        kinds[_kind(request)].append(number)
    solutions: list[Any] = [None] * len(requests)
    for members in kinds.values():
        size = images_at_once(requests[members[0]].problem, device)
        for start in range(0, len(members), size):
            part = members[start : start + size]
            some = [requests[number] for number in part]
            model = ForwardModel([request.problem for request in some], device, dense=dense)
            for number, solution in zip(part, solve_batch(some, model), strict=True):
                solutions[number] = solution
    return solutions


def _kind(request: Request) -> tuple[Any, ...]:
    """Key of requests that can be answered together."""
    problem, prior, scene = request.problem, request.prior, request.problem.scene
    blocks = tuple((block.role, block.names) for block in scene.blocks)
    return (
        (prior.name, prior.length, problem.grid.side, request.strength is None, len(problem.views)),
        (blocks, tuple(scene.free.tolist())),
        tuple(sorted(request.options.items())),
    )
