"""Telescopes: observations, point spread functions, noise, and the forward model."""

from lenssr.imaging.detection import LightCensus, light_census
from lenssr.imaging.instruments import Instrument
from lenssr.imaging.noise import DeepLenseNoise, GaussianNoise, NoiseModel, PoissonNoise, stack_noise
from lenssr.imaging.observation import Observation
from lenssr.imaging.operator import ImagingOperator
from lenssr.imaging.psf import PSF, GaussianPSF
from lenssr.imaging.render_scene import render
from lenssr.imaging.sky import SkyNoise, measure_sky

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
    "light_census",
    "measure_sky",
    "render",
    "stack_noise",
]
