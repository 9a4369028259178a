"""Photometry of galaxies: Sérsic fits of many small stamps."""

from lenssr.photometry.flags import SersicFlag, decode_flags
from lenssr.photometry.photometry import SersicPhotometry

__all__ = ["SersicFlag", "SersicPhotometry", "decode_flags"]
