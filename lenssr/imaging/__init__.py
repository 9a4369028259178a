"""Telescopes: observations, point spread functions, noise, and the forward model."""

import importlib as _importlib
import typing as _typing

from lenssr.imaging.instruments import Instrument
from lenssr.imaging.noise import DeepLenseNoise, GaussianNoise, NoiseModel, PoissonNoise, stack_noise
from lenssr.imaging.observation import Observation
from lenssr.imaging.operator import ImagingOperator
from lenssr.imaging.psf import PSF, GaussianPSF
from lenssr.imaging.sky import SkyNoise, measure_sky

if _typing.TYPE_CHECKING:
    from lenssr.imaging.detection import LightCensus as LightCensus
    from lenssr.imaging.detection import light_census as light_census
    from lenssr.imaging.render_scene import render as render
else:
    # Imported when they are first used: they need light, mass and photutils, which reading a file does not.
    _HOME_OF = {"LightCensus": "detection", "light_census": "detection", "render": "render_scene"}

    def __getattr__(name):
        if name not in _HOME_OF:
            raise AttributeError(f"module 'lenssr.imaging' has no attribute {name!r}")
        value = getattr(_importlib.import_module(f"lenssr.imaging.{_HOME_OF[name]}"), name)
        globals()[name] = value
        return value


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
