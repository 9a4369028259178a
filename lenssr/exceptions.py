"""The warning and the errors of lenssr."""

from astropy.utils.exceptions import AstropyUserWarning

__all__ = ["InputError", "LensSRDeprecationWarning", "LensSRWarning"]


class LensSRWarning(AstropyUserWarning):
    """A warning about the data or the settings."""


class LensSRDeprecationWarning(LensSRWarning):
    """A name or a result that the next release drops; the message says what replaces it."""


class InputError(ValueError):
    """Input that lenssr refuses; the message names the value and the remedy."""
