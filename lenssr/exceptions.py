"""The warning and the errors of lenssr."""

from astropy.utils.exceptions import AstropyUserWarning

__all__ = ["InputError", "LensSRDeprecationWarning", "LensSRWarning"]


class LensSRWarning(AstropyUserWarning):
    """A warning about the data or the settings."""


class LensSRDeprecationWarning(LensSRWarning):
    """A name or a result that the next release drops; the message says what replaces it."""


class InputError(ValueError):
    """Input that lenssr refuses; the message names the value and the remedy, in one line.

    A long message keeps its beginning and its end, 200 characters each.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(short_line(message))


def short_line(message: object, most: int = 200) -> str:
    """One printable line of a message; beyond twice ``most`` characters only its beginning and its end."""
    text = str(message)
    if len(text) > 2 * most + 20:
        text = f"{text[:most]} ... {text[-most:]}"
    if text.isprintable():
        return text
    shown = (c if c.isprintable() else " " if c.isspace() else ascii(c)[1:-1] for c in text)
    return " ".join("".join(shown).split())
