"""The result of a run: the super-resolved image, its source, its lens, their errors, and a verdict."""

from lenssr.result import ccddata_reader  # noqa: F401 - it tells CCDData.read of products
from lenssr.result.bands_result import BandsResolution
from lenssr.result.failed_resolution import FailedResolution
from lenssr.result.resolution import Draws, SuperResolution

__all__ = ["BandsResolution", "Draws", "FailedResolution", "SuperResolution"]
