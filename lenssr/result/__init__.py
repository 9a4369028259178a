"""The result of a run: the super-resolved image, its source, its lens, their errors, and a verdict."""

from lenssr.result.resolution import Draws, FailedResolution, SuperResolution

__all__ = ["Draws", "FailedResolution", "SuperResolution"]
