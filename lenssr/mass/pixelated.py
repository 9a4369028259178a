"""A deflection map, interpolated by cubic splines."""

from typing import Any, Self

import astropy.units as u
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from lenssr.exceptions import InputError
from lenssr.mass.base import MassModel
from lenssr.mass.kernels import Pair, Triple, WithJacobian
from lenssr.mass.parameter import Length
from lenssr.mass.rays import Limits
from lenssr.units import strip_unit

__all__ = ["PixelatedDeflection"]

OUTSIDE_MARGIN = 1.0
"""Pixels beyond the outermost centres up to which the last polynomials are continued."""


def _collocation(number: int, like: Tensor) -> Tensor:
    """Matrix from the coefficients of a cubic B-spline to its values at the knots, ends not-a-knot."""
    matrix = like.new_zeros(number + 2, number + 2)
    rows = torch.arange(number, device=like.device)
    for offset, weight in enumerate((1 / 6, 2 / 3, 1 / 6)):
        matrix[rows, rows + offset] = weight
    # The third derivative is continuous at the second knot from either end.
    matrix[number, :5] = matrix[number + 1, -5:] = like.new_tensor([1.0, -4.0, 6.0, -4.0, 1.0])
    return matrix


def spline_coefficients(values: Tensor) -> Tensor:
    """Coefficients (..., ny + 2, nx + 2) of the cubic spline through a map (..., ny, nx), both at least 4."""
    for axis in (-2, -1):
        moved = values.movedim(axis, -2)
        padded = torch.nn.functional.pad(moved, (0, 0, 0, 2))
        values = torch.linalg.solve(_collocation(moved.shape[-2], values), padded).movedim(-2, axis)
    return values


def _weights(t: Tensor, order: int) -> tuple[Tensor, ...]:
    """Weights of four neighbours at the fraction t of a pixel, for the value or a derivative."""
    if order == 0:
        r = 1 - t
        return r**3 / 6, (4 - 6 * t**2 + 3 * t**3) / 6, (4 - 6 * r**2 + 3 * r**3) / 6, t**3 / 6
    if order == 1:
        return -((1 - t) ** 2) / 2, (3 * t - 4) * t / 2, (1 + 2 * t - 3 * t**2) / 2, t**2 / 2
    return 1 - t, 3 * t - 2, 1 - 3 * t, t


def spline_values(
    coefficients: Tensor, column: Tensor, row: Tensor, *, column_order: int = 0, row_order: int = 0
) -> Tensor:
    """Values of a cubic spline, or of derivatives per pixel, differentiable by position and coefficients.

    ``column`` and ``row`` are in pixels, the first pixel centre at 0; the orders of the derivatives are 0 to
    2.
    """
    ny, nx = (size - 2 for size in coefficients.shape)
    first_column = column.detach().floor().clamp(0, nx - 2)
    first_row = row.detach().floor().clamp(0, ny - 2)
    along_x = _weights(column - first_column, column_order)
    along_y = _weights(row - first_row, row_order)
    corner = (first_row * (nx + 2) + first_column).long()
    flat = coefficients.reshape(-1)
    values = torch.zeros_like(column)
    for j, wy in enumerate(along_y):
        values = values + wy * sum(wx * flat[corner + j * (nx + 2) + i] for i, wx in enumerate(along_x))
    return values


def _derivative_matrix(number: int, like: Tensor) -> Tensor:
    """Matrix from values at the knots to derivatives of the spline there."""
    inverse = torch.linalg.inv(_collocation(number, like))[:, :number]
    return (inverse[2:] - inverse[:-2]) / 2


def potential_from_deflection(alpha_x: Tensor, alpha_y: Tensor, pixel_scale: float) -> Tensor:
    """Potential (ny, nx) of mean 0 whose gradient fits a deflection map in least squares.

    Lengths are in arcsec. The normal equations of the gradient of the spline at the pixel centres are
    separable and solved exactly in the eigenvectors of the two axes.
    """
    ny, nx = alpha_x.shape
    along_x, along_y = _derivative_matrix(nx, alpha_x), _derivative_matrix(ny, alpha_x)
    values_x, vectors_x = torch.linalg.eigh(along_x.T @ along_x)
    values_y, vectors_y = torch.linalg.eigh(along_y.T @ along_y)
    right = vectors_y.T @ (alpha_x @ along_x + along_y.T @ alpha_y) @ vectors_x
    total = values_y[:, None] + values_x
    # Only the constant is undetermined.
    free = total < 1e-10 * total.max()
    potential = vectors_y @ torch.where(free, 0.0, right / torch.where(free, 1.0, total)) @ vectors_x.T
    return (potential - potential.mean()) * pixel_scale


class PixelatedDeflection(MassModel):
    """Deflection given at pixel centres and interpolated by cubic splines; it has no parameters.

    Convergence and shear are derivatives of the interpolated deflection (of a field with a curl, its
    symmetric part). The gradient of the potential, of mean zero, fits the map in least squares.

    Parameters
    ----------
    alpha_x, alpha_y : array_like or `~astropy.units.Quantity`, shape (ny, nx)
        Deflection, in arcsec; at least 5 x 5 pixels.
    pixel_scale : float or `~astropy.units.Quantity`
        Side of a pixel, in arcsec. The map's centre is the origin, as for images.

    Attributes
    ----------
    alpha_x, alpha_y, potential_map : `~numpy.ndarray`, shape (ny, nx)
        The maps, in arcsec and arcsec2.

    Raises
    ------
    InputError
        If the maps have different shapes or hold non-finite values; and from every method for a position more
        than a pixel outside the outermost pixel centres.

    Examples
    --------
    >>> import numpy as np
    >>> from lenssr.mass import PixelatedDeflection
    >>> y, x = np.mgrid[-2:3, -2:3] * 0.5
    >>> lens = PixelatedDeflection(0.3 * x, 0.3 * y, 0.5)
    >>> lens.convergence(0.2, 0.1)
    0.3
    """

    def __init__(
        self, alpha_x: ArrayLike | u.Quantity, alpha_y: ArrayLike | u.Quantity, pixel_scale: Length
    ) -> None:
        super().__init__()
        self.pixel_scale = _positive_scale(pixel_scale)
        self.alpha_x, self.alpha_y = _map(alpha_x, u.arcsec, "alpha_x"), _map(alpha_y, u.arcsec, "alpha_y")
        if self.alpha_x.shape != self.alpha_y.shape:
            raise InputError(
                f"alpha_x, alpha_y: {self.alpha_x.shape} and {self.alpha_y.shape}, give one shape"
            )
        maps = torch.tensor(np.stack((self.alpha_x, self.alpha_y)))
        potential = potential_from_deflection(maps[0], maps[1], self.pixel_scale)
        self.potential_map: NDArray[np.float64] = potential.numpy()
        self._psi = spline_coefficients(potential)
        # Splines of the deflection along x and y, and the orders of the derivatives that make it of them.
        self._alpha = [(spline, 0, 0) for spline in spline_coefficients(maps)]

    @classmethod
    def from_potential(cls, potential: ArrayLike | u.Quantity, pixel_scale: Length) -> Self:
        """Make a model from a map of the potential; the deflection is the spline's exact gradient.

        Parameters
        ----------
        potential : array_like or `~astropy.units.Quantity`, shape (ny, nx)
            In arcsec2.
        pixel_scale : float or `~astropy.units.Quantity`
            Side of a pixel, in arcsec.
        """
        values = torch.tensor(_map(potential, u.arcsec**2, "potential"))
        scale = _positive_scale(pixel_scale)
        along_y, along_x = (_derivative_matrix(size, values) for size in values.shape)
        model = cls((values @ along_x.T / scale).numpy(), (along_y @ values / scale).numpy(), scale)
        model.potential_map = values.numpy()
        model._psi = spline_coefficients(values)
        model._alpha = [(model._psi, 1, 0), (model._psi, 0, 1)]
        return model

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns of the map."""
        return self.alpha_x.shape

    @property
    def _field(self) -> Limits:
        """The rectangle of the outermost pixel centres."""
        ny, nx = self.shape
        return 0.0, 0.0, (nx - 1) / 2 * self.pixel_scale, (ny - 1) / 2 * self.pixel_scale

    def _pixels(self, x: Tensor, y: Tensor) -> list[Tensor]:
        """Columns and rows, in pixels, of positions in arcsec; refuse those outside the map."""
        x, y = torch.broadcast_tensors(x, y)
        pixels = []
        for place, size, name in ((x, self.shape[1], "x"), (y, self.shape[0], "y")):
            middle, index = (size - 1) / 2, place / self.pixel_scale
            # NaN counts as outside.
            outside = ~(index.detach().abs() <= middle + OUTSIDE_MARGIN)
            if outside.any():
                limit = (middle + OUTSIDE_MARGIN) * self.pixel_scale
                raise InputError(
                    f"{int(outside.sum())} positions lie outside the deflection map, |{name}| > {limit:.6g} "
                    "arcsec: give a wider map"
                )
            pixels.append(index + middle)
        return pixels

    def _values(self, spline: Tensor, pixels: list[Tensor], column_order: int, row_order: int) -> Tensor:
        values = spline_values(spline.to(pixels[0]), *pixels, column_order=column_order, row_order=row_order)
        return values / self.pixel_scale ** (column_order + row_order)

    def _potential(self, x: Tensor, y: Tensor) -> Tensor:
        return self._values(self._psi, self._pixels(x, y), 0, 0)

    def _deflection(self, x: Tensor, y: Tensor) -> Pair:
        pixels = self._pixels(x, y)
        ax, ay = (self._values(spline, pixels, i, j) for spline, i, j in self._alpha)
        return ax, ay

    def _hessian(self, x: Tensor, y: Tensor) -> Triple:
        pixels = self._pixels(x, y)
        (xx, xy), (yx, yy) = (
            (self._values(spline, pixels, i + 1, j), self._values(spline, pixels, i, j + 1))
            for spline, i, j in self._alpha
        )
        return xx, (xy + yx) / 2, yy

    def potential_at(self, x: Tensor, y: Tensor, params: Tensor) -> Tensor:
        """Potential, the same for each of a batch."""
        return _repeat(self._potential(x, y), params)

    def deflection_at(self, x: Tensor, y: Tensor, params: Tensor) -> Pair:
        """Deflection, the same for each of a batch."""
        ax, ay = self._deflection(x, y)
        return _repeat(ax, params), _repeat(ay, params)

    def hessian_at(self, x: Tensor, y: Tensor, params: Tensor) -> Triple:
        """Second derivatives, the same for each of a batch."""
        xx, xy, yy = self._hessian(x, y)
        return _repeat(xx, params), _repeat(xy, params), _repeat(yy, params)

    def deflection_jacobian_at(self, x: Tensor, y: Tensor, params: Tensor) -> WithJacobian:
        """Deflection, and the empty set of its derivatives."""
        ax, ay = self.deflection_at(x, y, params)
        none = ax.new_zeros(ax.shape[0], 0, ax.shape[1])
        return ax, ay, none, none

    def _arguments(self) -> dict[str, Any]:
        """The map that was given, from which the others follow, and the side of its pixels."""
        maps = {"alpha_x": self.alpha_x, "alpha_y": self.alpha_y}
        if self._alpha[0][0] is self._psi:
            maps = {"potential": self.potential_map}
        return {**maps, "pixel_scale": self.pixel_scale}

    def _described(self) -> dict[str, Any]:
        """Potential and derivatives at the pixel centres, and where these are."""
        rows, columns = self.shape
        y, x = ((np.arange(size) - (size - 1) / 2) * self.pixel_scale for size in (rows, columns))
        places = torch.tensor(np.stack(np.meshgrid(x, y)))
        hessian = dict(zip(("f_xx", "f_xy", "f_yy"), self._hessian(*places), strict=True))
        maps = {key: value.numpy() for key, value in {"f_": self._potential(*places), **hessian}.items()}
        return {"x": x, "y": y, "f_x": self.alpha_x, "f_y": self.alpha_y, **maps}

    def __repr__(self) -> str:
        ny, nx = self.shape
        return f"<PixelatedDeflection of {ny} x {nx} pixels of {self.pixel_scale} arcsec>"


def _repeat(values: Tensor, params: Tensor) -> Tensor:
    return values.expand(torch.broadcast_shapes(values.shape, (params.shape[0], 1)))


def _positive_scale(pixel_scale: Length) -> float:
    scale = float(strip_unit(pixel_scale, u.arcsec, "pixel_scale"))
    if not np.isfinite(scale) or scale <= 0:
        raise InputError(f"pixel_scale = {pixel_scale} is refused: give a finite number above 0")
    return scale


def _map(values: Any, unit: u.UnitBase, name: str) -> NDArray[np.float64]:
    values = strip_unit(values, unit, name)
    if isinstance(values, Tensor):
        values = values.detach().cpu()
    values = np.array(values, dtype=np.float64)
    if values.ndim != 2 or min(values.shape) < 5:
        raise InputError(f"{name} has shape {values.shape}: give a map of at least 5 x 5 pixels")
    holes = int((~np.isfinite(values)).sum())
    if holes:
        raise InputError(f"{name} holds {holes} non-finite values: fill them first")
    return values
