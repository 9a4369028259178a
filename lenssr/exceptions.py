"""The warning and the errors of lenssr."""

from astropy.utils.exceptions import AstropyUserWarning

__all__ = ["InputError", "LensSRWarning"]


class LensSRWarning(AstropyUserWarning):
    """Something in the data or the settings that the user should know about."""


class InputError(ValueError):
    """Input that lenssr refuses; the message names the value and the remedy."""
