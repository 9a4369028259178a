"""Super-resolution of strong gravitational lenses with the physics of lensing."""

from importlib.metadata import PackageNotFoundError, version

__all__ = ["__version__"]

try:
    __version__ = version("lenssr")
except PackageNotFoundError:  # a source tree on the path, never installed
    __version__ = "0.1.dev0"

del PackageNotFoundError, version
