"""The warning and the errors of lenssr."""

from astropy.utils.exceptions import AstropyUserWarning

__all__ = ["InputError", "LensSRDeprecationWarning", "LensSRWarning"]


class LensSRWarning(AstropyUserWarning):
    """Something in the data or the settings that the user should know about."""


class LensSRDeprecationWarning(LensSRWarning):
    """A name or an answer of lenssr that goes with the next release; the message says what replaces it."""


class InputError(ValueError):
    """Input that lenssr refuses; the message names the value and the remedy."""
