"""What a forward model offers whose rays go with the centre of a profile."""

from abc import ABC, abstractmethod

__all__ = ["CentredOperator"]


class CentredOperator(ABC):
    """The linear map from the brightness of profiles to the flux in pixels, with rays that move with them.

    Lengths are in pixels, from the centre of the image. The rays of a profile are those of a lattice that
    stays, then its own, which crowd around its centre; each carries a share of the brightness.

    Attributes
    ----------
    shape : tuple of int
        ``(ny, nx)`` of the images.
    lattice : tuple of int
        Points of the lattice, (rows, columns).
    step : float
        Their distance.
    """

    @abstractmethod
    def rays(self, x_0, y_0):
        """Where the brightness of a profile is asked for.

        Parameters
        ----------
        x_0, y_0 : `torch.Tensor`, shape (B, 1)
            Its centre.

        Returns
        -------
        x, y : `torch.Tensor`, shape (B, R)
            The M points of the lattice, then the rays around the centre.
        share : `torch.Tensor`, shape (B, M)
            What the points of the lattice carry of the brightness.
        """

    @abstractmethod
    def collect(self, values, x_0, y_0, share):
        """Put brightness at rays together, for all profiles of an image to be summed before `convolve`.

        Parameters
        ----------
        values : `torch.Tensor`, shape (B, P, R)
            Brightness, or its derivatives, at the rays.
        x_0, y_0 : `torch.Tensor`, shape (B, 1)
            The centre that `rays` was given.
        share : `torch.Tensor`, shape (B, M)
            From `rays`.

        Returns
        -------
        cells : `torch.Tensor`, shape (B, P, rows, columns)
            As `convolve` takes them.
        """

    @abstractmethod
    def convolve(self, cells):
        """Flux in the pixels, from what `collect` gives.

        Parameters
        ----------
        cells : `torch.Tensor`, shape (..., rows, columns)

        Returns
        -------
        image : `torch.Tensor`, shape (..., ny, nx)
        """
