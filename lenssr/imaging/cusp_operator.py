"""Base of the forward models for profiles with cusps."""

from abc import ABC, abstractmethod

__all__ = ["CuspOperator"]


class CuspOperator(ABC):
    """Linear map from the brightness of profiles to the flux in pixels, with rays that follow their centres.

    Lengths are in pixels, from the centre of the image. The rays of a profile are those of a fixed
    ``lattice`` (rows, columns), ``step`` apart, then its own, concentrated around its centre; each carries a
    share of the brightness. ``shape`` is that of the images.
    """

    @abstractmethod
    def rays(self, x_0, y_0):
        """Rays x and y (B, R) of profiles with centres (B, 1), and the share (B, M) of each lattice point.

        The M lattice points come first, then the rays around the centre.
        """

    @abstractmethod
    def collect(self, values, x_0, y_0, share):
        """Flux in cells (B, P, rows, columns), additive over profiles, from values (B, P, R) at rays.

        ``x_0``, ``y_0`` and ``share`` are those of `rays`.
        """

    @abstractmethod
    def convolve(self, cells):
        """Flux in pixels (..., ny, nx) from cells (..., rows, columns) of `collect`."""
