"""Versions of installed packages."""

from importlib.metadata import PackageNotFoundError, version

__all__ = ["package_version"]


def package_version(name="lenssr"):
    """Version of an installed package; "unknown" for one that is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
