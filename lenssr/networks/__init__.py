"""Networks that learn from low-resolution images, with the physics of lensing as their teacher."""

from lenssr.networks.sisr import SISR

__all__ = ["SISR"]
