"""Fits: batched least squares, scenes, image stacks, and the search for an unknown lens."""

from lenssr.model.least_squares import LeastSquaresResult, levenberg_marquardt

__all__ = ["LeastSquaresResult", "levenberg_marquardt"]
