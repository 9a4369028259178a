"""The free-form source: its grid, priors on its roughness, and the inversion."""

from lenssr.inversion.mapping import SourceGrid
from lenssr.inversion.priors import PRIORS, Prior
from lenssr.inversion.problem import Problem
from lenssr.inversion.solve import Solution, maximise_evidence, solve

__all__ = ["PRIORS", "Prior", "Problem", "Solution", "SourceGrid", "maximise_evidence", "solve"]
