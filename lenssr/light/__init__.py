"""What shines: light profiles of galaxies, as astropy models built on pure functions."""

from lenssr.light.pixelated import PixelatedSource, interpolate_image
from lenssr.light.sersic import Sersic, sersic_brightness, sersic_brightness_jacobian, sersic_flux
from lenssr.light.sersic_shape import sersic_b, sersic_from_lenstronomy, sersic_to_lenstronomy

__all__ = [
    "PixelatedSource",
    "Sersic",
    "interpolate_image",
    "sersic_b",
    "sersic_brightness",
    "sersic_brightness_jacobian",
    "sersic_flux",
    "sersic_from_lenstronomy",
    "sersic_to_lenstronomy",
]
