"""The free-form source: its grid, priors on its roughness, and the inversion."""

from lenssr.inversion.dense import (
    BatchSolution,
    DenseFactor,
    DensePrior,
    answer_together,
    images_at_once,
    solve_batch,
)
from lenssr.inversion.lockstep import Request, choose_prior, together
from lenssr.inversion.mapping import GridMotion, SourceGrid, SourceMap
from lenssr.inversion.normal import Factor, NormalMatrix
from lenssr.inversion.priors import PRIORS, LocalPrior, Prior
from lenssr.inversion.problem import Problem
from lenssr.inversion.problem_batch import ProblemBatch
from lenssr.inversion.solve import Solution, solve

__all__ = [
    "PRIORS",
    "LocalPrior",
    "BatchSolution",
    "DenseFactor",
    "DensePrior",
    "Factor",
    "GridMotion",
    "NormalMatrix",
    "Prior",
    "Problem",
    "ProblemBatch",
    "Request",
    "Solution",
    "SourceGrid",
    "SourceMap",
    "answer_together",
    "choose_prior",
    "images_at_once",
    "solve",
    "solve_batch",
    "together",
]
