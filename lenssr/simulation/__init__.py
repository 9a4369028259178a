"""Simulated lenses: seeded data sets with everything that went into them."""

from lenssr.simulation.dataset import BatchedLenses, LensDataset, write_dataset
from lenssr.simulation.deeplense import AxionVortex, ColdSubhalos, DeepLense
from lenssr.simulation.galaxies import GALAXY_CELLS, GalaxyLens, GalaxyLenses
from lenssr.simulation.galaxy_shapes import GalaxyShapes
from lenssr.simulation.population import BroadLenses, LensPopulation
from lenssr.simulation.scenes import LensBatch, LensScenes, SimulatedLens
from lenssr.simulation.sersic_stamps import SersicStamp, SersicStamps

__all__ = ["GALAXY_CELLS", "AxionVortex", "BatchedLenses", "BroadLenses", "ColdSubhalos", "DeepLense"]
__all__ += ["GalaxyLens", "GalaxyLenses", "GalaxyShapes", "LensBatch", "LensDataset", "LensPopulation"]
__all__ += ["LensScenes", "SersicStamp", "SersicStamps", "SimulatedLens", "write_dataset"]
