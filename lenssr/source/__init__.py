"""The free-form source: its grid, priors on its roughness, and the inversion."""

from lenssr.source.batching import Request, choose_prior, together
from lenssr.source.evidence import ParametricEvidence, laplace_evidence
from lenssr.source.gauss_newton import Solution, solve
from lenssr.source.gauss_newton_batch import (
    BatchSolution,
    DenseFactor,
    DensePrior,
    answer_together,
    images_at_once,
    solve_batch,
)
from lenssr.source.linalg import Factor, NormalMatrix
from lenssr.source.priors import PRIORS, LocalPrior, Prior
from lenssr.source.problem import Problem
from lenssr.source.problem_batch import ProblemBatch
from lenssr.source.source_grid import GridMotion, SourceGrid, SourceMap

__all__ = [
    "PRIORS",
    "BatchSolution",
    "DenseFactor",
    "DensePrior",
    "Factor",
    "GridMotion",
    "LocalPrior",
    "NormalMatrix",
    "ParametricEvidence",
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
    "laplace_evidence",
    "solve",
    "solve_batch",
    "together",
]
