"""Networks that learn from low-resolution images, with the physics of lensing as their teacher."""

from lenssr.networks.deflection import DeflectionNetwork, LensEstimate
from lenssr.networks.network_source import NetworkSource
from lenssr.networks.relensing import PredictedSource, RelensingNetwork
from lenssr.networks.sisr import SISR
from lenssr.networks.weights import Card, available, load, load_weights, save_weights

__all__ = ["SISR", "Card", "DeflectionNetwork", "PredictedSource", "LensEstimate", "NetworkSource"]
__all__ += ["RelensingNetwork", "available", "load", "load_weights", "save_weights"]
