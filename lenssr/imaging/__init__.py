"""What the telescope does: observations, point spread functions, noise, and the forward model."""

from lenssr.imaging.correlation import SkyNoise, measure_sky
from lenssr.imaging.detection import LightCensus, auto_mask, light_census
from lenssr.imaging.forward import ImagingOperator
from lenssr.imaging.instruments import Instrument
from lenssr.imaging.noise import DeepLenseNoise, GaussianNoise, NoiseModel, PoissonNoise, stack_noise
from lenssr.imaging.observation import Observation
from lenssr.imaging.psf import PSF, GaussianPSF
from lenssr.imaging.rendering import render

__all__ = [
    "PSF",
    "DeepLenseNoise",
    "GaussianNoise",
    "GaussianPSF",
    "ImagingOperator",
    "Instrument",
    "LightCensus",
    "NoiseModel",
    "Observation",
    "PoissonNoise",
    "SkyNoise",
    "auto_mask",
    "light_census",
    "measure_sky",
    "render",
    "stack_noise",
]
