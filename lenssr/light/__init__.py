"""Light profiles of galaxies, as astropy models built on pure functions."""

from lenssr.light.gaussians import (
    MultiGaussian,
    gaussian_widths,
    gaussians_brightness,
    gaussians_brightness_jacobian,
    gaussians_from_sersic,
)
from lenssr.light.lens_light import from_dict, to_dict
from lenssr.light.light_codes import from_autolens, from_lenstronomy, to_lenstronomy
from lenssr.light.pixelated_source import PixelatedSource, interpolate_image
from lenssr.light.profile import LightProfile, elliptical_radius
from lenssr.light.sersic import Sersic, sersic_brightness, sersic_brightness_jacobian, sersic_flux
from lenssr.light.sersic_shape import sersic_b, sersic_from_lenstronomy, sersic_to_lenstronomy

__all__ = [
    "LightProfile",
    "MultiGaussian",
    "PixelatedSource",
    "Sersic",
    "elliptical_radius",
    "from_autolens",
    "from_dict",
    "from_lenstronomy",
    "gaussian_widths",
    "gaussians_brightness",
    "gaussians_brightness_jacobian",
    "gaussians_from_sersic",
    "interpolate_image",
    "sersic_b",
    "sersic_brightness",
    "sersic_brightness_jacobian",
    "sersic_flux",
    "sersic_from_lenstronomy",
    "sersic_to_lenstronomy",
    "to_dict",
    "to_lenstronomy",
]
