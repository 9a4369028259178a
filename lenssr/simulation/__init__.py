"""Simulated lenses: seeded data sets with everything that went into them."""

from lenssr.simulation.broad import BroadLenses
from lenssr.simulation.dataset import BatchedLenses
from lenssr.simulation.deeplense import DeepLense
from lenssr.simulation.galaxies import GALAXY_CELLS, GalaxyLens, GalaxyLenses
from lenssr.simulation.item import LensDataset, SimulatedLens
from lenssr.simulation.lens_batch import LensBatch, LensScenes
from lenssr.simulation.population import LensPopulation
from lenssr.simulation.sersic_stamps import SersicStamp, SersicStamps
from lenssr.simulation.shapes import GalaxyShapes
from lenssr.simulation.spoiled import SPOILED_KINDS, Spoiled, spoiled
from lenssr.simulation.subhalos import AxionVortex, ColdSubhalos
from lenssr.simulation.write import write_dataset

__all__ = [
    "GALAXY_CELLS",
    "SPOILED_KINDS",
    "AxionVortex",
    "BatchedLenses",
    "BroadLenses",
    "ColdSubhalos",
    "DeepLense",
    "GalaxyLens",
    "GalaxyLenses",
    "GalaxyShapes",
    "LensBatch",
    "LensDataset",
    "LensPopulation",
    "LensScenes",
    "SersicStamp",
    "SersicStamps",
    "SimulatedLens",
    "Spoiled",
    "spoiled",
    "write_dataset",
]
