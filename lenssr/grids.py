"""Pixel grids: arcsec in the image frame, sky coordinates, and units and WCS of a resampled image.

The image frame is a tangent plane of the sky, turned and perhaps mirrored, in arcsec, with its origin at the
image centre, zero-based pixel ``((nx - 1) / 2, (ny - 1) / 2)``. For square pixels x runs to the right along
columns and y up along rows; N pixels of size d span N d, their centres (N - 1) d. Pixels with unequal sides
or a shear map to it by a symmetric matrix, which turns neither: angles, ellipticities and shears in the frame
are those on the sky.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import astropy.units as u
import numpy as np
from astropy.coordinates import Angle, SkyCoord
from astropy.wcs import WCS
from numpy.typing import ArrayLike, NDArray

from lenssr import _wcs
from lenssr._limits import check_memory, check_unit_text
from lenssr._wcs import pixel_side, scale_matrix, wcs_of_resampled
from lenssr.exceptions import InputError
from lenssr.units import positive_integer, strip_unit

__all__ = ["PixelGrid", "conserves_sum", "resampling_factor", "wcs_of_resampled"]

# Bytes for the position of a pixel along an axis, while it is computed.
POSITION_BYTES = 24.0


def conserves_sum(unit: u.UnitBase | str) -> bool:
    """Whether an image in this unit keeps its sum, rather than its mean, when it is resampled.

    Parameters
    ----------
    unit : `~astropy.units.Unit` or str
        The unit of the pixel values.

    Returns
    -------
    conserves : bool
        True for values per pixel (electron, adu, nJy, no unit at all, ...), False for surface brightness,
        which is anything per solid angle or per beam (MJy/sr, nJy/arcsec2, ...).

    Raises
    ------
    InputError
        For magnitudes and other logarithms, which are neither.

    Examples
    --------
    >>> from lenssr.grids import conserves_sum
    >>> conserves_sum("electron / s"), conserves_sum("MJy / sr")
    (True, False)
    """
    if isinstance(unit, str):
        check_unit_text(unit, "unit")
    unit = u.Unit(unit)
    if isinstance(unit, u.function.FunctionUnitBase) or u.mag in unit.bases or u.dex in unit.bases:
        raise InputError(f"unit {unit} is logarithmic: convert the image to a flux, for example nJy, first")
    decomposed = unit.decompose()
    powers = dict(zip(decomposed.bases, decomposed.powers, strict=True))
    if u.beam in powers:
        return False
    power = powers.get(u.rad, 0)
    if power not in (0, -2):
        raise InputError(f"unit {unit} is neither per pixel nor per solid angle: give unit=, such as MJy/sr")
    return power == 0


def resampling_factor(unit: u.UnitBase | str, factor: float) -> float:
    """Factor for the value of a pixel when it is cut into ``factor`` x ``factor`` equal ones.

    Parameters
    ----------
    unit : `~astropy.units.Unit` or str
        The unit of the pixel values.
    factor : float
        Number of new pixels along an old one.

    Returns
    -------
    multiplier : float
        ``1 / factor**2`` for values per pixel, 1 for surface brightness.
    """
    return 1 / factor**2 if conserves_sum(unit) else 1.0


def without_angle(unit: u.UnitBase) -> u.UnitBase:
    """The unit of the flux of a surface brightness; a unit without an angle as it is."""
    for base, power in zip(unit.bases, unit.powers, strict=True):
        if base.physical_type in ("angle", "solid angle"):
            unit = unit / base**power
    return unit


def rows_of(grid: PixelGrid, first: int, last: int) -> PixelGrid:
    """Grid of some rows of another, where they are in the image frame; it has no WCS."""
    middle = ((first + last - 1) - (grid.shape[0] - 1)) / 2 * grid.pixel_scale
    x, y = transformed(grid.unit_matrix, 0.0, middle)
    origin = grid.origin[0] + float(x), grid.origin[1] + float(y)
    return PixelGrid((last - first, grid.shape[1]), matrix=grid.matrix, origin=origin)


def transformed(matrix: ArrayLike, x: Any, y: Any) -> tuple[Any, Any]:
    """Positions (2 x 2 ``matrix``) @ (x, y), of floats, arrays or tensors."""
    (xx, xy), (yx, yy) = np.asarray(matrix).tolist()
    return xx * x + xy * y, yx * x + yy * y


def frame_axes(wcs: WCS) -> NDArray[np.float64]:
    """Axes of the image frame as columns, (east, north) as rows, in units of a celestial WCS per pixel."""
    matrix = scale_matrix(wcs.celestial)
    return matrix @ np.linalg.inv(_wcs.unit_stretch(matrix))


class PixelGrid:
    """A grid of pixels, with or without a place on the sky.

    Parameters
    ----------
    shape : tuple of int
        ``(ny, nx)``.
    pixel_scale : `~astropy.units.Quantity` or float, optional
        The side of square pixels; a number is in arcsec.
    wcs : `~astropy.wcs.WCS`, optional
        Place of the pixels on the sky, and their stretch unless ``matrix`` is given. Its scale must agree
        with ``pixel_scale`` or ``matrix``; by default they come from it, as in `from_wcs`.
    matrix : array, shape (2, 2), optional
        Arcsec per pixel, instead of ``pixel_scale``: (x, y) = matrix @ (column, row), from the centre.
    origin : tuple of float, optional
        Position of the image centre in arcsec. Default (0, 0).

    Attributes
    ----------
    shape : tuple of int
    matrix : `~numpy.ndarray`, shape (2, 2)
        Arcsec per pixel. From a WCS it is symmetric: the frame is turned against the sky, not sheared.
    pixel_scale : float
        Square root of the area of a pixel, in arcsec.
    origin : tuple of float
        Position of the image centre in arcsec.
    wcs : `~astropy.wcs.WCS` or None

    Raises
    ------
    InputError
        If the shape or the scale is not positive, or pixels are stretched by more than 5 %.

    Examples
    --------
    >>> from lenssr.grids import PixelGrid
    >>> grid = PixelGrid((3, 4), 0.1)
    >>> grid.x[0]
    array([-0.15, -0.05,  0.05,  0.15])
    >>> grid.upsample(2)
    PixelGrid((6, 8), 0.05)

    Pixels of 0.102 x 0.1 arcsec:

    >>> wide = PixelGrid((3, 4), matrix=[[0.102, 0.0], [0.0, 0.1]])
    >>> wide.x[0]
    array([-0.153, -0.051,  0.051,  0.153])
    """

    def __init__(
        self,
        shape: Sequence[int],
        pixel_scale: u.Quantity | float | None = None,
        wcs: WCS | None = None,
        *,
        matrix: ArrayLike | None = None,
        origin: Sequence[u.Quantity | float] = (0.0, 0.0),
    ) -> None:
        if len(shape) != 2 or any(int(size) != size or size < 1 for size in shape):
            raise InputError(f"shape = {tuple(shape)} is not (ny, nx) with positive sizes")
        if pixel_scale is not None and matrix is not None:
            raise InputError("pixel_scale and matrix both say how large a pixel is: give one of them")
        self.shape = int(shape[0]), int(shape[1])
        self.wcs = wcs = None if wcs is None else _wcs.plain(wcs, self.shape)
        x, y = (float(strip_unit(place, u.arcsec, "origin")) for place in origin)
        self.origin = x, y
        found = None if wcs is None else _wcs.matrix_of(wcs, self.shape)
        if matrix is not None:
            self._set_matrix(_wcs.checked_matrix(matrix))
        elif pixel_scale is not None:
            stretch = np.eye(2) if found is None else found / pixel_side(found)
            self._set_matrix(stretch * _wcs.checked_scale(pixel_scale))
        elif found is not None:
            self._set_matrix(found)
        else:
            raise InputError("a grid needs the size of its pixels: give pixel_scale=, matrix= or wcs=")
        if found is not None and abs(pixel_side(found) / self.pixel_scale - 1) > _wcs.SCALE_TOLERANCE:
            scales = f"{self.pixel_scale:g} arcsec, but the WCS says {pixel_side(found):g}"
            raise InputError(f"pixel_scale = {scales}: give one of them")

    def _set_matrix(self, matrix: NDArray[np.float64]) -> None:
        self.matrix, self.pixel_scale = matrix, float(pixel_side(matrix))
        self.matrix.setflags(write=False)

    @classmethod
    def from_wcs(cls, wcs: WCS, shape: Sequence[int]) -> PixelGrid:
        """Grid with the pixels of a WCS.

        Parameters
        ----------
        wcs : `~astropy.wcs.WCS`
            A celestial or linear angular WCS; rotated and mirrored ones are fine, and pixels stretched by up
            to 5 %.
        shape : tuple of int
            ``(ny, nx)``.

        Returns
        -------
        grid : `PixelGrid`

        Raises
        ------
        InputError
            If the pixels are stretched more, or the WCS has no angular axes, or distortions that move pixels
            by more than 0.02 against the best affine map.
        """
        if wcs.naxis != 2 and wcs.has_celestial:
            wcs = wcs.celestial
        return cls(shape, wcs=wcs)

    def seen_from(self, reference: PixelGrid) -> PixelGrid:
        """Return the same pixels in the image frame of another grid, by the WCSs of both.

        Exposures of one lens, dithered and turned against each other, then share one frame.

        Parameters
        ----------
        reference : `PixelGrid`

        Returns
        -------
        grid : `PixelGrid`
            Its ``matrix`` and ``origin`` are those in the frame of ``reference``, linear about its own
            centre.

        Raises
        ------
        InputError
            If one has no celestial WCS, or the projections differ so much that a corner of the image moves
            by more than 0.02 pixel.
        """
        if reference is self:
            return self
        half = (np.array(self.shape[::-1]) - 1) / 2
        steps = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1], [1, 1], [1, -1], [-1, 1], [-1, -1]])
        offsets = steps * np.maximum(half, 1)
        sky = self._celestial().pixel_to_world(*(offsets + self.center).T)
        places = np.array([axis.to_value(u.arcsec) for axis in reference.from_sky(sky)]).T
        slopes = (places[[1, 3]] - places[[2, 4]]) / (2 * np.maximum(half, 1)[:, None])
        shift = np.abs(places[0] + offsets @ slopes - places).max() / self.pixel_scale
        if not shift < _wcs.DISTORTION_TOLERANCE:
            raise InputError(f"the exposure is distorted by {shift:.3g} pixels: drizzle or reproject to TAN")
        twin = self._copy()
        twin._set_matrix(_wcs.checked_matrix(slopes.T))
        x, y = places[0].tolist()
        twin.origin = x, y
        return twin

    def _copy(self) -> PixelGrid:
        """Copy without the properties that are derived from shape, matrix and origin."""
        twin = copy.copy(self)
        for cached in ("x", "y", "unit_matrix", "_axes_on_sky"):
            vars(twin).pop(cached, None)
        return twin

    def __repr__(self) -> str:
        size = f"{self.pixel_scale:.10g}" if self.is_square else f"matrix={self.matrix.tolist()}"
        wcs = "" if self.wcs is None else ", wcs=..."
        origin = "" if self.origin == (0, 0) else f", origin={self.origin}"
        return f"PixelGrid({self.shape}, {size}{wcs}{origin})"

    @property
    def is_square(self) -> bool:
        """Whether pixels are squares along x and y, of side ``pixel_scale``."""
        return bool(np.array_equal(self.unit_matrix, np.eye(2)))

    @cached_property
    def unit_matrix(self) -> NDArray[np.float64]:
        """``matrix`` over ``pixel_scale``: the identity for square pixels; its determinant is 1 or -1."""
        return self.matrix / self.pixel_scale

    @property
    def center(self) -> tuple[float, float]:
        """Zero-based pixel ``(column, row)`` of the image centre."""
        return (self.shape[1] - 1) / 2, (self.shape[0] - 1) / 2

    @property
    def pixel_area(self) -> float:
        """Area of a pixel in arcsec2."""
        return self.pixel_scale**2

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Outer edges ``(left, right, bottom, top)`` in arcsec, for matplotlib's ``imshow``."""
        half_x, half_y = (half / 2 for half in transformed(np.abs(self.matrix), *self.shape[::-1]))
        x, y = self.origin
        return x - half_x, x + half_x, y - half_y, y + half_y

    @cached_property
    def x(self) -> NDArray[np.float64]:
        """Positions of the pixel centres along x in arcsec, shape (ny, nx)."""
        return self._positions(0)

    @cached_property
    def y(self) -> NDArray[np.float64]:
        """Positions of the pixel centres along y in arcsec, shape (ny, nx)."""
        return self._positions(1)

    def _positions(self, axis: int) -> NDArray[np.float64]:
        ny, nx = self.shape
        check_memory(POSITION_BYTES * ny * nx, f"a grid of {ny} x {nx} pixels", "give a smaller one")
        return self.from_pixel(*np.indices(self.shape, sparse=True)[::-1])[axis]

    def upsample(self, factor: int) -> PixelGrid:
        """Grid of the same field with pixels ``factor`` times smaller.

        Parameters
        ----------
        factor : int
            Number of new pixels along an old one.

        Returns
        -------
        grid : `PixelGrid`
        """
        factor = positive_integer(factor, "factor")
        if factor == 1:
            return self
        # Smaller pixels of a checked grid need no check, which would take longer than to make them.
        finer = self._copy()
        finer.shape = self.shape[0] * factor, self.shape[1] * factor
        finer._set_matrix(self.matrix / factor)
        if self.wcs is not None:
            finer.wcs = wcs_of_resampled(self.wcs, factor)
            finer.wcs.pixel_shape = finer.shape[::-1]
        return finer

    def padded(self, pixels: int) -> PixelGrid:
        """Grid of a field that is wider by some pixels on each side; the origin stays where it is.

        Parameters
        ----------
        pixels : int

        Returns
        -------
        grid : `PixelGrid`

        Examples
        --------
        >>> from lenssr.grids import PixelGrid
        >>> PixelGrid((3, 4), 0.1).padded(2)
        PixelGrid((7, 8), 0.1)
        """
        pixels = positive_integer(pixels, "pixels", 0)
        if pixels == 0:
            return self
        wider = self._copy()
        wider.shape = self.shape[0] + 2 * pixels, self.shape[1] + 2 * pixels
        if self.wcs is not None:
            wider.wcs = wcs_of_resampled(self.wcs, 1)
            wider.wcs.wcs.crpix = wider.wcs.wcs.crpix + pixels
            wider.wcs.pixel_shape = wider.shape[::-1]
            wider.wcs.wcs.set()
        return wider

    def moved(self, x: float, y: float) -> PixelGrid:
        """Grid of the same pixels at another place in the image frame; its WCS stays as it is.

        Parameters
        ----------
        x, y : float
            How far, in arcsec.

        Returns
        -------
        grid : `PixelGrid`

        Examples
        --------
        >>> from lenssr.grids import PixelGrid
        >>> PixelGrid((3, 4), 0.1).moved(0.05, 0.0)
        PixelGrid((3, 4), 0.1, origin=(0.05, 0.0))
        """
        twin = self._copy()
        twin.origin = self.origin[0] + float(x), self.origin[1] + float(y)
        return twin

    def to_pixel(self, x: u.Quantity | ArrayLike, y: u.Quantity | ArrayLike) -> tuple[Any, Any]:
        """Zero-based pixel coordinates of positions in the image frame.

        Parameters
        ----------
        x, y : `~astropy.units.Quantity`, float or array
            Positions; numbers are in arcsec.

        Returns
        -------
        column, row : float or array
        """
        x, y = (strip_unit(value, u.arcsec, "position") for value in (x, y))
        x, y = transformed(self._inverse, x - self.origin[0], y - self.origin[1])
        return x / self.pixel_scale + self.center[0], y / self.pixel_scale + self.center[1]

    def from_pixel(self, column: Any, row: Any) -> tuple[Any, Any]:
        """Positions in the image frame, in arcsec, of zero-based pixel coordinates.

        Parameters
        ----------
        column, row : float or array
            Pixel coordinates, 0 at the centre of the first pixel.

        Returns
        -------
        x, y : float or array
        """
        x, y = transformed(self.matrix, column - self.center[0], row - self.center[1])
        return x + self.origin[0], y + self.origin[1]

    def to_square(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Columns and rows from the image centre, times ``pixel_scale``, of positions in arcsec from it."""
        return transformed(self._inverse, x, y)

    @property
    def _inverse(self) -> NDArray[np.float64]:
        """Inverse of `unit_matrix`, whose determinant is 1 or -1; exactly the identity for square pixels."""
        (xx, xy), (yx, yy) = self.unit_matrix.tolist()
        sign = math.copysign(1.0, xx * yy - xy * yx)
        return np.array([[yy, -xy], [-yx, xx]]) * sign

    def to_sky(self, x: u.Quantity | ArrayLike, y: u.Quantity | ArrayLike) -> SkyCoord:
        """Sky coordinates of positions in the image frame.

        Parameters
        ----------
        x, y : `~astropy.units.Quantity`, float or array
            Positions; numbers are in arcsec.

        Returns
        -------
        sky : `~astropy.coordinates.SkyCoord`

        Raises
        ------
        InputError
            If the grid has no celestial WCS.
        """
        return self._celestial().pixel_to_world(*self.to_pixel(x, y))

    def from_sky(self, sky: SkyCoord) -> tuple[u.Quantity, u.Quantity]:
        """Positions in the image frame of sky coordinates.

        Parameters
        ----------
        sky : `~astropy.coordinates.SkyCoord`

        Returns
        -------
        x, y : `~astropy.units.Quantity`
            In arcsec.

        Raises
        ------
        InputError
            If the grid has no celestial WCS.
        """
        x, y = self.from_pixel(*self._celestial().world_to_pixel(sky))
        return x * u.arcsec, y * u.arcsec

    def position_angle(self, phi: u.Quantity) -> Angle:
        """Position angle, east of north at the image centre, of a direction in the image frame.

        Parameters
        ----------
        phi : `~astropy.units.Quantity`
            Angle counter-clockwise from +x.

        Returns
        -------
        angle : `~astropy.coordinates.Angle`
            In [0, 360) degrees.

        Raises
        ------
        InputError
            If the grid has no celestial WCS, or ``phi`` has no unit.
        """
        phi = strip_unit(phi, u.rad, "phi", bare=False)
        east, north = self._axes_on_sky @ np.array([np.cos(phi), np.sin(phi)])
        return Angle(np.arctan2(east, north), u.rad).wrap_at(360 * u.deg).to(u.deg)

    def image_angle(self, position_angle: u.Quantity) -> Angle:
        """Angle counter-clockwise from +x of a position angle east of north: the inverse of `position_angle`.

        Parameters
        ----------
        position_angle : `~astropy.units.Quantity`
            East of north, at the image centre.

        Returns
        -------
        phi : `~astropy.coordinates.Angle`
            In [0, 360) degrees.
        """
        angle = strip_unit(position_angle, u.rad, "position_angle", bare=False)
        x, y = np.linalg.solve(self._axes_on_sky, np.array([np.sin(angle), np.cos(angle)]))
        return Angle(np.arctan2(y, x), u.rad).wrap_at(360 * u.deg).to(u.deg)

    def _celestial(self) -> WCS:
        if self.wcs is None or not self.wcs.has_celestial:
            raise InputError("the image has no celestial WCS: give one, for example CCDData(wcs=...)")
        return self.wcs

    @cached_property
    def _axes_on_sky(self) -> NDArray[np.float64]:
        """Directions of x and y at the image centre as columns, (east, north) as rows."""
        # Central differences, one arcsec each way: right and left, up and down.
        sky = self.to_sky(np.array([1.0, -1.0, 0.0, 0.0]), np.array([0.0, 0.0, 1.0, -1.0])).icrs
        east, north = self.to_sky(0.0, 0.0).icrs.spherical_offsets_to(sky)
        offsets = np.array([east.to_value(u.arcsec), north.to_value(u.arcsec)])
        return (offsets[:, ::2] - offsets[:, 1::2]) / 2
