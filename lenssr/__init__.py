"""Super-resolution of strong gravitational lenses with the physics of lensing."""

from importlib.metadata import PackageNotFoundError, version

from lenssr.exceptions import InputError, LensSRWarning
from lenssr.grids import PixelGrid
from lenssr.imaging import PSF, Observation, render
from lenssr.light import PixelatedSource, Sersic
from lenssr.mass import (
    EPL,
    NFW,
    SIE,
    SIS,
    ConvergenceSheet,
    MassModel,
    MassSystem,
    PixelatedDeflection,
    PointMass,
    Shear,
)
from lenssr.resolver import SuperResolver
from lenssr.result import FailedResolution, SuperResolution

__all__ = [
    "EPL",
    "NFW",
    "PSF",
    "SIE",
    "SIS",
    "ConvergenceSheet",
    "FailedResolution",
    "InputError",
    "LensSRWarning",
    "MassModel",
    "MassSystem",
    "Observation",
    "PixelGrid",
    "PixelatedDeflection",
    "PixelatedSource",
    "PointMass",
    "Sersic",
    "Shear",
    "SuperResolution",
    "SuperResolver",
    "__version__",
    "render",
]

try:
    __version__ = version("lenssr")
except PackageNotFoundError:  # a source tree on the path, never installed
    __version__ = "0.1.dev0"

del PackageNotFoundError, version
