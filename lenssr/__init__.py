"""Super-resolution of strong gravitational lenses with the physics of lensing."""

import importlib as _importlib
import logging as _logging
import typing as _typing
from importlib.metadata import PackageNotFoundError as _PackageNotFoundError
from importlib.metadata import version as _version

# Public names by the module that holds them. Each is imported when it is first used, so that `import lenssr`
# stays fast.
_HOMES = {
    "exceptions": "InputError LensSRWarning",
    "grids": "PixelGrid",
    "imaging": "PSF Observation render",
    "light": "PixelatedSource Sersic",
    "mass": "DPIE EPL NFW SIE SIS ConvergenceSheet CoredPowerLaw DoubleSourcePlane EllipticalMultipole "
    "EllipticalNFW GaussianMass MassModel MassSystem MultiPlane Multipole PixelatedDeflection PointMass "
    "SersicMass Shear SourcePlanes TruncatedNFW",
    "networks": "NetworkSource",
    "options": "register_source",
    "photometry": "SersicPhotometry",
    "resolver": "SuperResolver",
    "result": "FailedResolution SuperResolution",
}
# Modules and subpackages, which are imported when they are first used, too.
_ROOMS = (
    "cosmology datasets exceptions grids imaging light mass metrics model networks options photometry "
    "posterior reconstruction resolver result simulation source survey training units"
).split()
_HOME_OF = {name: f"lenssr.{home}" for home, names in _HOMES.items() for name in names.split()}

if _typing.TYPE_CHECKING:  # the same names for type checkers; a test compares both lists
    # isort: off
    import lenssr.cosmology as cosmology, lenssr.datasets as datasets  # noqa: E401
    import lenssr.exceptions as exceptions, lenssr.grids as grids  # noqa: E401
    import lenssr.imaging as imaging, lenssr.light as light, lenssr.mass as mass  # noqa: E401
    import lenssr.metrics as metrics, lenssr.model as model, lenssr.networks as networks  # noqa: E401
    import lenssr.options as options, lenssr.photometry as photometry  # noqa: E401
    import lenssr.posterior as posterior, lenssr.reconstruction as reconstruction  # noqa: E401
    import lenssr.resolver as resolver, lenssr.result as result, lenssr.simulation as simulation  # noqa: E401
    import lenssr.source as source, lenssr.survey as survey, lenssr.training as training  # noqa: E401
    import lenssr.units as units  # noqa: E401
    from lenssr.exceptions import InputError as InputError, LensSRWarning as LensSRWarning
    from lenssr.grids import PixelGrid as PixelGrid
    from lenssr.imaging import PSF as PSF, Observation as Observation, render as render
    from lenssr.light import PixelatedSource as PixelatedSource, Sersic as Sersic
    from lenssr.mass import DPIE as DPIE, EPL as EPL, NFW as NFW, SIE as SIE, SIS as SIS, Shear as Shear
    from lenssr.mass import CoredPowerLaw as CoredPowerLaw, EllipticalMultipole as EllipticalMultipole
    from lenssr.mass import EllipticalNFW as EllipticalNFW, GaussianMass as GaussianMass
    from lenssr.mass import MultiPlane as MultiPlane, Multipole as Multipole, SersicMass as SersicMass
    from lenssr.mass import TruncatedNFW as TruncatedNFW
    from lenssr.mass import DoubleSourcePlane as DoubleSourcePlane, SourcePlanes as SourcePlanes
    from lenssr.mass import MassModel as MassModel, MassSystem as MassSystem, PointMass as PointMass
    from lenssr.mass import ConvergenceSheet as ConvergenceSheet, PixelatedDeflection as PixelatedDeflection
    from lenssr.networks import NetworkSource as NetworkSource
    from lenssr.options import register_source as register_source
    from lenssr.photometry import SersicPhotometry as SersicPhotometry
    from lenssr.resolver import SuperResolver as SuperResolver
    from lenssr.result import FailedResolution as FailedResolution, SuperResolution as SuperResolution

__all__ = ["__version__", *_HOME_OF]  # noqa: PLE0604

# Records of the logger reach only programs that ask for them.
_logging.getLogger("lenssr").addHandler(_logging.NullHandler())

try:
    __version__ = _version("lenssr")
except _PackageNotFoundError:  # a source tree on the path, never installed
    __version__ = "0.1.dev0"

if not _typing.TYPE_CHECKING:  # a type checker would accept every name

    def __getattr__(name):
        if name in _ROOMS:
            return _importlib.import_module(f"lenssr.{name}")
        if name not in _HOME_OF:
            raise AttributeError(f"module 'lenssr' has no attribute {name!r}")
        value = getattr(_importlib.import_module(_HOME_OF[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*__all__, *_ROOMS})
