"""The stand-in for the result of a run that failed."""

from lenssr.exceptions import InputError, short_line

__all__ = ["FailedResolution"]


class FailedResolution:
    """Stands for a result that could not be made in the list of `~lenssr.SuperResolver.map`.

    Parameters
    ----------
    error : Exception
        The exception.
    name : str
        Name of the image.

    Attributes
    ----------
    grade : str
        "failed".
    ok : bool
        False. The object itself is false too, so that ``filter(None, results)`` keeps the results.
    flags : tuple of str
        ``("failed",)``.

    Examples
    --------
    >>> from lenssr.result import FailedResolution
    >>> failed = FailedResolution(ValueError("all pixels are masked"), "image 3")
    >>> failed
    <FailedResolution image 3: ValueError: all pixels are masked>
    >>> bool(failed), failed.ok, failed.flags
    (False, False, ('failed',))
    """

    grade = "failed"
    ok = False
    flags = ("failed",)

    def __init__(self, error: Exception, name: str) -> None:
        self.error, self.name = error, name

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        # Of an error that lenssr did not mean to raise the type says more than the message.
        kind = "" if isinstance(self.error, InputError) else f"{type(self.error).__name__}: "
        return f"<FailedResolution {self.name}: {kind}{short_line(self.error)}>"
