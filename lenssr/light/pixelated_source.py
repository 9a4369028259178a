"""Any image as a source of light: interpolation between pixels, and the `PixelatedSource` model."""

from typing import Any, Literal, no_type_check

import astropy.units as u
import numpy as np
import torch
from astropy.modeling import Fittable2DModel, Parameter
from astropy.nddata import NDData
from astropy.wcs import WCS
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from lenssr.exceptions import InputError
from lenssr.grids import PixelGrid, conserves_sum, without_angle
from lenssr.light.profile import Length, Real, bare, in_arcsec, lengths_in_arcsec

__all__ = ["PixelatedSource", "interpolate_image"]


def interpolate_image(
    x: Tensor, y: Tensor, image: Tensor, pixel_scale: Real, x_0: Real = 0.0, y_0: Real = 0.0
) -> Tensor:
    """Bilinear interpolation between the pixel centres of an image, zero outside.

    Parameters
    ----------
    x, y : `torch.Tensor`, shape (..., R)
        Positions in arcsec.
    image : `torch.Tensor`, shape (ny, nx) or (..., ny, nx)
        Values at the pixel centres; leading dimensions broadcast with the positions.
    pixel_scale : float
        Distance of the pixel centres in arcsec.
    x_0, y_0 : `torch.Tensor` or float, optional
        Where the image centre, pixel ((nx - 1) / 2, (ny - 1) / 2), lies, in arcsec. Default 0.

    Returns
    -------
    values : `torch.Tensor`, shape (..., R)
        Differentiable in positions and image. Beyond the outermost centres the values fall to zero
        within one pixel, so that the sum over the plane equals that over the image.

    Examples
    --------
    >>> import torch
    >>> from lenssr.light import interpolate_image
    >>> image = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    >>> interpolate_image(torch.tensor([0.0, 0.5, 9.0]), torch.tensor([0.0, 0.5, 0.0]), image, 1.0)
    tensor([1.5000, 3.0000, 0.0000])
    """
    ny, nx = image.shape[-2:]
    column, row = torch.broadcast_tensors((x - x_0) / pixel_scale, (y - y_0) / pixel_scale)
    # A frame of zeros makes the outermost pixels fall off, and gives everything outside a pixel to fall on.
    # The clamp keeps rays that a lens throws far out, or that are not a number, inside it.
    column = (column + (nx - 1) / 2).nan_to_num(-1.0).clamp(-1, nx)
    row = (row + (ny - 1) / 2).nan_to_num(-1.0).clamp(-1, ny)
    framed = torch.nn.functional.pad(image, (1, 1, 1, 1)).flatten(-2)
    left, below = column.detach().floor().clamp(max=nx - 1), row.detach().floor().clamp(max=ny - 1)
    right_share, upper_share = column - left, row - below
    first = ((below + 1) * (nx + 2) + left + 1).long()

    if framed.ndim > 1 and framed.shape[:-1] != first.shape[:-1]:
        lead = torch.broadcast_shapes(framed.shape[:-1], first.shape[:-1])
        framed, first = framed.expand(*lead, -1), first.expand(*lead, -1)

    def corner(offset: int) -> Tensor:
        return framed[first + offset] if framed.ndim == 1 else framed.gather(-1, first + offset)

    lower = torch.lerp(corner(0), corner(1), right_share)
    upper = torch.lerp(corner(nx + 2), corner(nx + 3), right_share)
    return torch.lerp(lower, upper, upper_share)


class PixelatedSource(Fittable2DModel):
    """An image as a light profile: bilinear between its pixel centres, zero outside.

    Parameters
    ----------
    image : `~astropy.nddata.NDData`, `~astropy.units.Quantity` or array, shape (ny, nx)
        Any image of a galaxy, `~astropy.nddata.CCDData` included. Masked and non-finite pixels count as zero.
    pixel_scale : `~astropy.units.Quantity` or float, optional
        Side of its pixels, in arcsec without a unit. By default taken from the WCS.
    wcs : `~astropy.wcs.WCS`, optional
        By default the one of the image.
    values : {"surface brightness", "flux"}, optional
        Whether pixels hold surface brightness per arcsec2, or flux per pixel, which is divided by the pixel
        area. By default the unit decides: per solid angle is surface brightness, all else flux, and
        an image without a unit is surface brightness.
    amplitude : float, optional
        Factor on the image. Default 1.
    x_0, y_0 : float or `~astropy.units.Quantity`, optional
        Where the image centre lies, in arcsec. Default 0.
    **kwargs
        As for every `~astropy.modeling.Model`.

    Attributes
    ----------
    image : `torch.Tensor`, shape (ny, nx)
        Surface brightness per arcsec2, float64.
    grid : `~lenssr.grids.PixelGrid`
        Its pixels.

    Raises
    ------
    InputError
        If the image is not two-dimensional, or has no pixel scale, or ``values`` is not one of the two.

    Notes
    -----
    Only the pixel scale of a WCS is used: x runs along columns and y along rows, as in all of lenssr.

    Examples
    --------
    >>> import numpy as np
    >>> from lenssr.light import PixelatedSource
    >>> galaxy = PixelatedSource(np.eye(3), pixel_scale=0.1, x_0=1.0)
    >>> float(galaxy(1.0, 0.0)), float(galaxy(1.05, 0.0)), float(galaxy(0.0, 0.0))
    (1.0, 0.5, 0.0)
    """

    amplitude = Parameter(default=1.0, description="Factor on the image")
    x_0 = Parameter(default=0.0, description="Image centre along x (arcsec)")
    y_0 = Parameter(default=0.0, description="Image centre along y (arcsec)")

    def __init__(
        self,
        image: NDData | u.Quantity | ArrayLike,
        pixel_scale: Length | None = None,
        *,
        wcs: WCS | None = None,
        values: Literal["surface brightness", "flux"] | None = None,
        amplitude: float = 1.0,
        x_0: Length = 0.0,
        y_0: Length = 0.0,
        **kwargs: Any,
    ) -> None:
        if values not in (None, "surface brightness", "flux"):
            raise InputError(f"values = {values!r}: give 'surface brightness' or 'flux'")
        data, unit, own_wcs = _unpack(image)
        wcs = own_wcs if wcs is None else wcs
        if pixel_scale is None and wcs is None:
            raise InputError("the image has no pixel scale: give pixel_scale= or wcs=")
        fixed = pixel_scale is not None
        self.grid = PixelGrid(data.shape, pixel_scale) if fixed else PixelGrid.from_wcs(wcs, data.shape)
        is_flux = values == "flux" if values or unit is None else conserves_sum(unit)
        data, self._unit = _per_arcsec2(data, unit, self.grid.pixel_area if is_flux else None)
        self.image = torch.as_tensor(data)
        super().__init__(amplitude=amplitude, x_0=x_0, y_0=y_0, **kwargs)

    _names = ("values",)
    """Arguments that are text in files, no quantities."""

    def _arguments(self) -> dict[str, Any]:
        """Arguments besides the parameters, for files."""
        if self._unit is not None:
            raise InputError("a PixelatedSource with a unit has no plain form: give its image without a unit")
        scale = float(self.grid.pixel_scale)
        return {"image": self.image.numpy(), "pixel_scale": scale, "values": "surface brightness"}

    @no_type_check  # astropy takes annotations of this method for units
    def evaluate(self, x, y, amplitude, x_0, y_0):
        """Surface brightness at positions; called by the model itself."""
        places = (torch.as_tensor(np.array(value)) for value in lengths_in_arcsec(x, y, x_0, y_0))
        brightness = np.asarray(amplitude) * self._interpolated(self.image, *places).numpy()
        return brightness if self._unit is None else brightness * self._unit

    def brightness(self, x: Tensor, y: Tensor) -> Tensor:
        """Surface brightness (..., R) per arcsec2, without its unit, at positions (..., R) in arcsec."""
        return self._interpolated(self.image * float(self.amplitude.value), x, y, *self.center)

    def _interpolated(self, image: Tensor, x: Tensor, y: Tensor, x_0: Real, y_0: Real) -> Tensor:
        """Interpolate an image (ny, nx) on the pixels of the grid, with its centre at x_0, y_0."""
        x, y = self.grid.to_square(x - x_0, y - y_0)
        return interpolate_image(x, y, image, self.grid.pixel_scale)

    @property
    def flux(self) -> Length:
        """Total flux, in the image unit."""
        total = self.amplitude.value * self.image.sum().item() * self.grid.pixel_area
        return total if self.flux_unit is None else total * self.flux_unit

    @property
    def center(self) -> tuple[float, float]:
        """Where the image centre lies, (x, y) in arcsec."""
        x_0, y_0 = in_arcsec(self, ("x_0", "y_0"), ()).tolist()
        return x_0, y_0

    @property
    def flux_unit(self) -> u.UnitBase | None:
        """Unit of the flux, or None."""
        return None if self._unit is None else self._unit * u.arcsec**2


def _unpack(image: Any) -> tuple[NDArray[np.float64], u.UnitBase | None, WCS | None]:
    """Plain float64 values with holes filled by zero, unit and WCS of any kind of image."""
    data, unit, wcs = bare(getattr(image, "data", image)), getattr(image, "unit", None), None
    if isinstance(image, NDData):
        wcs = image.wcs
        data = data if image.mask is None else np.where(image.mask, 0.0, data)
    if data.ndim != 2 or not data.size:
        raise InputError(f"an image of shape {data.shape} is not a source: give one with two dimensions")
    return np.where(np.isfinite(data), data, 0.0), unit, wcs


def _per_arcsec2(
    data: NDArray[np.float64], unit: u.UnitBase | None, pixel_area: float | None
) -> tuple[NDArray[np.float64], u.UnitBase | None]:
    """Values and unit of surface brightness per arcsec2, from flux per pixel if a pixel area is given."""
    if pixel_area is not None:
        if unit is not None and not conserves_sum(unit):
            raise InputError(f"unit {unit} is not flux per pixel: leave values= out")
        return data / pixel_area, None if unit is None else unit / u.arcsec**2
    factor, flux = to_arcsec2(unit)
    return data * factor, None if flux is None else flux / u.arcsec**2


def to_arcsec2(unit: u.UnitBase | None) -> tuple[float, u.UnitBase | None]:
    """Factor from a surface brightness to a flux unit per arcsec2, and that flux unit."""
    if unit is None:
        return 1.0, None
    flux = without_angle(unit)
    if not unit.is_equivalent(flux / u.arcsec**2):
        raise InputError(f"unit {unit} is not a surface brightness: give one per arcsec2, or MJy/sr")
    return unit.to(flux / u.arcsec**2), flux
