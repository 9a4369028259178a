"""Fits: batched least squares, scenes, image stacks, and the search for an unknown lens."""
