"""Networks that learn from low-resolution images, with the physics of lensing as their teacher."""

from lenssr.networks.deflection import DeflectionNetwork, LensEstimate
from lenssr.networks.plane import SourcePlane
from lenssr.networks.relensing import DrawnSource, RelensingNetwork
from lenssr.networks.sisr import SISR

__all__ = ["SISR", "DeflectionNetwork", "DrawnSource", "LensEstimate", "RelensingNetwork", "SourcePlane"]
