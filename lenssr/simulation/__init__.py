"""Simulated lenses: seeded data sets with everything that went into them."""

from lenssr.simulation.broad import BroadLenses
from lenssr.simulation.dataset import BatchedLenses, LensBatch, LensDataset, SimulatedLens
from lenssr.simulation.deeplense import DeepLense
from lenssr.simulation.galaxies import GALAXY_CELLS, GalaxyLens, GalaxyLenses
from lenssr.simulation.galaxy_shapes import GalaxyShapes
from lenssr.simulation.population import LensPopulation
from lenssr.simulation.scenes import LensScenes
from lenssr.simulation.sersic_stamps import SersicStamp, SersicStamps
from lenssr.simulation.subhalos import AxionVortex, ColdSubhalos
from lenssr.simulation.write import write_dataset

__all__ = [
    "GALAXY_CELLS",
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
    "write_dataset",
]
