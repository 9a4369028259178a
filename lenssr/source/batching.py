"""Inversions that ask for their solutions, so that those of many images can be found together.

A step-by-step inversion is a generator: it yields a `Request` wherever it needs a solution, is sent the
solution, and returns what it is after. Who runs it decides how requests are answered.
"""

from dataclasses import dataclass, field
from typing import Any

from lenssr.source.gauss_newton import solve

__all__ = ["Request", "alone", "ask", "ask_each", "choose_prior", "together"]


@dataclass(frozen=True)
class Request:
    """What `lenssr.source.solve` is to be called with.

    Attributes
    ----------
    problem : `~lenssr.source.Problem`
    prior : `~lenssr.source.Prior`
    strength : float or None
    field, parameters : `~numpy.ndarray`, shapes (n,), (K,)
    options : dict
        Its keywords.
    """

    problem: Any
    prior: Any
    strength: float | None
    field: Any
    parameters: Any
    options: dict = field(default_factory=dict)

    def answer(self):
        """The solution, a `~lenssr.source.Solution`, found by itself."""
        return solve(self.problem, self.prior, self.strength, self.field, self.parameters, **self.options)


def ask(problem, prior, strength, field, parameters, **options):
    """Ask for a solution: ``solution = yield from ask(...)`` within an inversion.

    Parameters
    ----------
    problem, prior, strength, field, parameters, **options
        As for `lenssr.source.solve`.

    Yields
    ------
    request : `Request`

    Returns
    -------
    solution : `~lenssr.source.Solution`
    """
    return (yield Request(problem, prior, strength, field, parameters, options))


def ask_each(problem, priors, field, parameters, **options):
    """Ask for solutions with several priors, each from where the one before ended.

    Parameters
    ----------
    problem, field, parameters, **options
        As for `lenssr.source.solve`.
    priors : sequence of `~lenssr.source.Prior`

    Yields
    ------
    request : `Request`

    Returns
    -------
    solutions : list of `~lenssr.source.Solution`
        The likeliest first.
    """
    solutions, strength = [], None
    for prior in priors:
        if solutions:
            strength = solutions[-1].strength_of(prior)
        solutions.append((yield from ask(problem, prior, strength, field, parameters, **options)))
        field, parameters = solutions[-1].field, solutions[-1].parameters
    return sorted(solutions, key=lambda solution: -solution.evidence)


def alone(steps):
    """Run one inversion, each of its requests answered as it comes.

    Parameters
    ----------
    steps : generator of `Request`

    Returns
    -------
    result : object
        What the inversion returns.
    """
    try:
        request = next(steps)
        while True:
            request = steps.send(request.answer())
    except StopIteration as end:
        return end.value


def together(inversions, answer):
    """Run inversions in lock-step: in each round all that are still running ask, and are answered together.

    Parameters
    ----------
    inversions : sequence of generators of `Request`
    answer : callable
        ``answer(requests)`` gives a list with a solution, or an exception, for each request.

    Returns
    -------
    results : list
        What the inversions return, in their order; an exception where one failed.
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


def choose_prior(problem, priors, field, parameters, **options):
    """Solve with several priors, each from where the one before ended.

    Parameters
    ----------
    problem, field, parameters, **options
        As for `lenssr.source.solve`.
    priors : sequence of `~lenssr.source.Prior`

    Returns
    -------
    solutions : list of `~lenssr.source.Solution`
        The likeliest first.
    """
    return alone(ask_each(problem, priors, field, parameters, **options))
