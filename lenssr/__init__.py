"""Super-resolution of strong gravitational lenses with the physics of lensing."""

import importlib as _importlib
import logging as _logging
from importlib.metadata import PackageNotFoundError as _PackageNotFoundError
from importlib.metadata import version as _version

# Public names and the modules they live in. They are imported when they are first used, so that
# `import lenssr` costs a script nothing before it does.
_HOMES = {
    "lenssr.exceptions": ("InputError", "LensSRWarning"),
    "lenssr.grids": ("PixelGrid",),
    "lenssr.imaging": ("PSF", "Observation", "render"),
    "lenssr.light": ("PixelatedSource", "Sersic"),
    "lenssr.mass": (
        "EPL",
        "NFW",
        "SIE",
        "SIS",
        "ConvergenceSheet",
        "MassModel",
        "MassSystem",
        "PixelatedDeflection",
        "PointMass",
        "Shear",
    ),
    "lenssr.networks": ("NetworkSource",),
    "lenssr.options": ("register_source",),
    "lenssr.photometry": ("SersicPhotometry",),
    "lenssr.resolver": ("SuperResolver",),
    "lenssr.result": ("FailedResolution", "SuperResolution"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", *_HOME_OF]  # noqa: PLE0604

# What lenssr has to say of its stages is for a program that asks for it.
_logging.getLogger("lenssr").addHandler(_logging.NullHandler())

try:
    __version__ = _version("lenssr")
except _PackageNotFoundError:  # a source tree on the path, never installed
    __version__ = "0.1.dev0"


def __getattr__(name):
    if name not in _HOME_OF:
        raise AttributeError(f"module 'lenssr' has no attribute {name!r}")
    value = getattr(_importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted(__all__)
