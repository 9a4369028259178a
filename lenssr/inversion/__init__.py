"""The free-form source: its grid, priors on its roughness, and the inversion."""

from lenssr.inversion.lockstep import choose_prior
from lenssr.inversion.mapping import SourceGrid, SourceMap
from lenssr.inversion.normal import Factor, NormalMatrix
from lenssr.inversion.priors import PRIORS, Prior
from lenssr.inversion.problem import Problem
from lenssr.inversion.solve import Solution, solve

__all__ = [
    "PRIORS",
    "Factor",
    "NormalMatrix",
    "Prior",
    "Problem",
    "Solution",
    "SourceGrid",
    "SourceMap",
    "choose_prior",
    "solve",
]
