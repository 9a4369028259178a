"""Simulated lenses: seeded data sets with everything that went into them."""

from lenssr.simulation.deeplense import DeepLense, DeepLenseBatch
from lenssr.simulation.item import LensDataset, SimulatedLens

__all__ = ["DeepLense", "DeepLenseBatch", "LensDataset", "SimulatedLens"]
