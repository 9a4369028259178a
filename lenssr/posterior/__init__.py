"""Draws from the posterior of a lens: its parameters, with weights, diagnostics and images."""

from lenssr.posterior.draws_of_posterior import PosteriorDraws

__all__ = ["PosteriorDraws"]
