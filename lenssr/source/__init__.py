"""The free-form source: its grid, priors on its roughness, and the inversion."""

from lenssr.source.batching import answer_together, choose_prior, images_at_once, together
from lenssr.source.bound_factor import BoundFactor
from lenssr.source.evidence import ParametricEvidence, laplace_evidence
from lenssr.source.forward_model import ForwardModel
from lenssr.source.gauss_newton import BandsSolution, Request, Solution, solve, solve_bands, solve_batch
from lenssr.source.linalg import Factor, NormalMatrix
from lenssr.source.priors import PRIORS, LocalPrior, Prior
from lenssr.source.problem import Problem, View
from lenssr.source.source_grid import GridMotion, SourceGrid, SourceRays

__all__ = [
    "PRIORS",
    "BandsSolution",
    "BoundFactor",
    "Factor",
    "ForwardModel",
    "GridMotion",
    "LocalPrior",
    "NormalMatrix",
    "ParametricEvidence",
    "Prior",
    "Problem",
    "Request",
    "Solution",
    "SourceGrid",
    "SourceRays",
    "View",
    "answer_together",
    "choose_prior",
    "images_at_once",
    "laplace_evidence",
    "solve",
    "solve_bands",
    "solve_batch",
    "together",
]
