"""What shines: light profiles of galaxies, as astropy models built on pure functions."""

from lenssr.light.sersic import Sersic

__all__ = ["Sersic"]
