"""Pixel grids: arcsec in the image frame, sky coordinates, and what changes when an image is resampled.

The image frame is a tangent plane of the sky, turned and perhaps mirrored, in arcsec, with its origin at the
image centre, zero-based pixel ``((nx - 1) / 2, (ny - 1) / 2)``. For square pixels x runs to the right along
columns and y up along rows; N pixels of size d span N d, their centres (N - 1) d. Pixels with unequal sides
or a shear map to it by a symmetric matrix, which turns neither: angles, ellipticities and shears in the frame
are those on the sky.
"""

import copy
import math
import warnings
from functools import cached_property

import astropy.units as u
import numpy as np
from astropy.coordinates import Angle
from astropy.wcs import WCS

from lenssr.exceptions import InputError
from lenssr.units import strip_unit

__all__ = ["PixelGrid", "conserves_sum", "resampling_factor", "wcs_of_resampled"]

# Pixels whose sides and angles differ by less than this are squares: headers round their matrices so.
SQUARE_TOLERANCE = 1e-6
# The matrix at CRPIX holds at the image, too, while the projection stretches it by less than this: 0.01 pixel
# at the edge of 200. Cutouts of large mosaics (TAN, half a degree off CRPIX) differ by 8e-5.
PROJECTION_TOLERANCE = 1e-4
# A pixel scale that a user gives beside a WCS may differ from it by this much.
SCALE_TOLERANCE = 1e-3
# Largest stretch of a pixel, longest over shortest image of a unit vector - 1. Networks, trained on squares,
# still read such images, and starts of fits that count pixels are near enough. Chosen.
MOST_STRETCH = 0.05
# In pixels: a shift of the corners by less than this is far below what any fit of a lens resolves.
DISTORTION_TOLERANCE = 0.02
_ARCSEC_PER_RADIAN = 180 / math.pi * 3600


def scale_matrix(wcs):
    """Return the CD matrix of a WCS in its own units, also where a header holds CD and PC together.

    Parameters
    ----------
    wcs : `~astropy.wcs.WCS`
        A WCS of two axes.

    Returns
    -------
    matrix : `~numpy.ndarray`, shape (2, 2)
        In the unit of the axes per pixel.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="cdelt will be ignored", category=RuntimeWarning)
        return np.array(wcs.pixel_scale_matrix, dtype=float)


def wcs_of_resampled(wcs, factor):
    """WCS of the same field with pixels ``factor`` times smaller.

    The outer edges of the image stay where they are: CRPIX' = (CRPIX - 0.5) f + 0.5. The matrix is written
    once, as CD, so that headers which hold CD and PC together do not keep a stale one.

    Parameters
    ----------
    wcs : `~astropy.wcs.WCS`
        A WCS of two axes without distortions.
    factor : float
        How many new pixels lie along an old one.

    Returns
    -------
    resampled : `~astropy.wcs.WCS`

    Examples
    --------
    >>> from astropy.wcs import WCS
    >>> from lenssr.grids import wcs_of_resampled
    >>> wcs = WCS(naxis=2)
    >>> wcs.wcs.crpix = 3, 4
    >>> [float(value) for value in wcs_of_resampled(wcs, 2).wcs.crpix]
    [5.5, 7.5]
    """
    old = wcs.wcs
    new = WCS(naxis=2)
    new.wcs.ctype = list(old.ctype)
    new.wcs.cunit = list(old.cunit)
    new.wcs.crval = old.crval
    new.wcs.crpix = (np.asarray(old.crpix) - 0.5) * factor + 0.5
    new.wcs.cd = scale_matrix(wcs) / factor
    for name in ("radesys", "equinox", "lonpole", "latpole", "dateobs", "mjdobs"):
        value = getattr(old, name)
        if isinstance(value, str) or np.isfinite(value):
            setattr(new.wcs, name, value)
    new.wcs.set_pv(old.get_pv())
    if wcs.pixel_shape is not None:
        new.pixel_shape = [round(size * factor) for size in wcs.pixel_shape]
    new.wcs.set()
    return new


def conserves_sum(unit):
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


def resampling_factor(unit, factor):
    """Return what a pixel's value is multiplied by when it is cut into ``factor`` x ``factor`` equal ones.

    Parameters
    ----------
    unit : `~astropy.units.Unit` or str
        The unit of the pixel values.
    factor : float
        How many new pixels lie along an old one.

    Returns
    -------
    multiplier : float
        ``1 / factor**2`` for values per pixel, 1 for surface brightness.
    """
    return 1 / factor**2 if conserves_sum(unit) else 1.0


def transformed(matrix, x, y):
    """Positions (2 x 2 ``matrix``) @ (x, y), of floats, arrays or tensors."""
    (xx, xy), (yx, yy) = np.asarray(matrix).tolist()
    return xx * x + xy * y, yx * x + yy * y


def pixel_side(pixel_scale):
    """Side of a square with the area of a pixel: of a 2 x 2 matrix, or the number itself."""
    if np.shape(pixel_scale) != (2, 2):
        return pixel_scale
    (xx, xy), (yx, yy) = np.asarray(pixel_scale).tolist()
    return math.sqrt(abs(xx * yy - xy * yx))


def unit_stretch(matrix):
    """Symmetric positive factor of a 2 x 2 matrix over the square root of its determinant.

    A matrix is a rotation, perhaps with a reflection, times this stretch times a scale. It is exactly the
    identity for pixels that are square within the rounding of headers.
    """
    matrix = np.asarray(matrix, dtype=float)
    square, area = matrix.T @ matrix, abs(float(np.linalg.det(matrix)))
    # Square root of a symmetric positive 2 x 2 matrix, by the theorem of Cayley and Hamilton.
    stretch = (square / area + np.eye(2)) / math.sqrt(np.trace(square) / area + 2)
    return np.eye(2) if np.abs(stretch - np.eye(2)).max() < SQUARE_TOLERANCE / 2 else stretch


def frame_axes(wcs):
    """Directions of x and y of the image frame at the reference pixel of a celestial WCS.

    Parameters
    ----------
    wcs : `~astropy.wcs.WCS`
        The image's.

    Returns
    -------
    axes : `~numpy.ndarray`, shape (2, 2)
        One column for each axis, (east, north) as rows, in the unit of the WCS per pixel.
    """
    matrix = scale_matrix(wcs.celestial)
    return matrix @ np.linalg.inv(unit_stretch(matrix))


class PixelGrid:
    """A grid of pixels, with or without a place on the sky.

    Parameters
    ----------
    shape : tuple of int
        ``(ny, nx)``.
    pixel_scale : `~astropy.units.Quantity` or float, optional
        The side of square pixels; a number is in arcsec.
    wcs : `~astropy.wcs.WCS`, optional
        Where the pixels lie on the sky. It says how they are stretched, unless ``matrix`` does. Its scale
        must agree with ``pixel_scale`` or ``matrix``; by default they come from it, as in `from_wcs`.
    matrix : array, shape (2, 2), optional
        Arcsec in a pixel, instead of ``pixel_scale``: (x, y) = matrix @ (column, row), from the centre.
    origin : tuple of float, optional
        Position of the image centre in arcsec. Default (0, 0).

    Attributes
    ----------
    shape : tuple of int
    matrix : `~numpy.ndarray`, shape (2, 2)
        Arcsec in a pixel. From a WCS it is symmetric: the frame is turned against the sky, not sheared.
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

    def __init__(self, shape, pixel_scale=None, wcs=None, *, matrix=None, origin=(0.0, 0.0)):
        if len(shape) != 2 or any(int(size) != size or size < 1 for size in shape):
            raise InputError(f"shape = {tuple(shape)} is not (ny, nx) with positive sizes")
        if pixel_scale is not None and matrix is not None:
            raise InputError("pixel_scale and matrix both say how large a pixel is: give one of them")
        self.shape = tuple(int(size) for size in shape)
        self.wcs = wcs
        self.origin = tuple(float(strip_unit(place, u.arcsec, "origin")) for place in origin)
        found = None if wcs is None else _matrix_of(wcs, self.shape)
        if matrix is not None:
            matrix = _checked_matrix(matrix)
        elif pixel_scale is not None:
            stretch = np.eye(2) if found is None else found / pixel_side(found)
            matrix = stretch * _checked_scale(pixel_scale)
        elif found is not None:
            matrix = found
        else:
            raise InputError("a grid needs the size of its pixels: give pixel_scale=, matrix= or wcs=")
        self._set_matrix(matrix)
        if found is not None and abs(pixel_side(found) / self.pixel_scale - 1) > SCALE_TOLERANCE:
            raise InputError(
                f"pixel_scale = {self.pixel_scale:g} arcsec, but the WCS says {pixel_side(found):g}: "
                "give one of them"
            )

    def _set_matrix(self, matrix):
        self.matrix, self.pixel_scale = matrix, pixel_side(matrix)
        self.matrix.setflags(write=False)

    @classmethod
    def from_wcs(cls, wcs, shape):
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
            If the pixels are stretched more, or the WCS is distorted or has no angular axes.
        """
        if wcs.naxis != 2 and wcs.has_celestial:
            wcs = wcs.celestial
        return cls(shape, wcs=wcs)

    def seen_from(self, reference):
        """Return the same pixels in the image frame of another grid, by the WCSs of both.

        Exposures of one lens, dithered and turned against each other, then share one frame.

        Parameters
        ----------
        reference : `PixelGrid`
            The grid whose frame is taken.

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
        if not shift < DISTORTION_TOLERANCE:
            raise InputError(
                f"the exposure is distorted by {shift:.3g} pixels against the reference: drizzle or "
                "reproject both to plain TAN projections first"
            )
        twin = self._copy()
        vars(twin).pop("_axes_on_sky", None)
        twin._set_matrix(_checked_matrix(slopes.T))
        twin.origin = tuple(places[0].tolist())
        return twin

    def _copy(self):
        """Copy without what is derived from shape, matrix and origin."""
        twin = copy.copy(self)
        for cached in ("x", "y", "unit_matrix"):
            vars(twin).pop(cached, None)
        return twin

    def __repr__(self):
        """Shape, scale or matrix, and origin."""
        size = f"{self.pixel_scale:.10g}" if self.is_square else f"matrix={self.matrix.tolist()}"
        wcs = "" if self.wcs is None else ", wcs=..."
        origin = "" if self.origin == (0, 0) else f", origin={self.origin}"
        return f"PixelGrid({self.shape}, {size}{wcs}{origin})"

    @property
    def is_square(self):
        """Whether pixels are squares along x and y, of side ``pixel_scale``."""
        return bool(np.array_equal(self.unit_matrix, np.eye(2)))

    @cached_property
    def unit_matrix(self):
        """``matrix`` over ``pixel_scale``: the identity for square pixels; its determinant is 1 or -1."""
        return self.matrix / self.pixel_scale

    @property
    def center(self):
        """Zero-based pixel ``(column, row)`` of the image centre."""
        return (self.shape[1] - 1) / 2, (self.shape[0] - 1) / 2

    @property
    def pixel_area(self):
        """Area of a pixel in arcsec2."""
        return self.pixel_scale**2

    @property
    def extent(self):
        """Outer edges ``(left, right, bottom, top)`` in arcsec, as matplotlib's ``imshow`` wants them."""
        half_x, half_y = (half / 2 for half in transformed(np.abs(self.matrix), *self.shape[::-1]))
        x, y = self.origin
        return x - half_x, x + half_x, y - half_y, y + half_y

    @cached_property
    def x(self):
        """Positions of the pixel centres along x in arcsec, shape (ny, nx)."""
        return self.from_pixel(np.arange(self.shape[1]), np.arange(self.shape[0])[:, None])[0]

    @cached_property
    def y(self):
        """Positions of the pixel centres along y in arcsec, shape (ny, nx)."""
        return self.from_pixel(np.arange(self.shape[1]), np.arange(self.shape[0])[:, None])[1]

    def upsample(self, factor):
        """Grid of the same field with pixels ``factor`` times smaller.

        Parameters
        ----------
        factor : int
            How many new pixels lie along an old one.

        Returns
        -------
        grid : `PixelGrid`
        """
        if int(factor) != factor or factor < 1:
            raise InputError(f"factor = {factor} is not a positive integer")
        if factor == 1:
            return self
        # Smaller pixels of a checked grid are fine too; to check them would cost more than to make them.
        finer = self._copy()
        finer.shape = tuple(size * int(factor) for size in self.shape)
        finer._set_matrix(self.matrix / factor)
        if self.wcs is not None:
            finer.wcs = wcs_of_resampled(self.wcs, factor)
            finer.wcs.pixel_shape = finer.shape[::-1]
        return finer

    def padded(self, pixels):
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
        if int(pixels) != pixels or pixels < 0:
            raise InputError(f"pixels = {pixels} is not a whole number of 0 or more")
        if pixels == 0:
            return self
        wider = copy.copy(self)
        for cached in ("x", "y"):
            vars(wider).pop(cached, None)
        wider.shape = tuple(size + 2 * int(pixels) for size in self.shape)
        if self.wcs is not None:
            wider.wcs = wcs_of_resampled(self.wcs, 1)
            wider.wcs.wcs.crpix = wider.wcs.wcs.crpix + pixels
            wider.wcs.pixel_shape = wider.shape[::-1]
            wider.wcs.wcs.set()
        return wider

    def to_pixel(self, x, y):
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

    def from_pixel(self, column, row):
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

    def to_square(self, x, y):
        """Positions on square pixels of side ``pixel_scale`` that take the place of the grid's own.

        Parameters
        ----------
        x, y : float, array or `torch.Tensor`
            In the image frame, relative to the image centre.

        Returns
        -------
        x, y : float, array or `torch.Tensor`
            Their columns and rows, from the centre, times ``pixel_scale``.
        """
        return transformed(self._inverse, x, y)

    @property
    def _inverse(self):
        """Inverse of `unit_matrix`, whose determinant is 1 or -1; exactly the identity for square pixels."""
        (xx, xy), (yx, yy) = self.unit_matrix.tolist()
        sign = math.copysign(1.0, xx * yy - xy * yx)
        return np.array([[yy, -xy], [-yx, xx]]) * sign

    def to_sky(self, x, y):
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

    def from_sky(self, sky):
        """Positions in the image frame of sky coordinates.

        Parameters
        ----------
        sky : `~astropy.coordinates.SkyCoord`
            Positions on the sky.

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

    def position_angle(self, phi):
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

    def image_angle(self, position_angle):
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

    def _celestial(self):
        if self.wcs is None or not self.wcs.has_celestial:
            raise InputError("the image has no celestial WCS: give one, for example CCDData(wcs=...)")
        return self.wcs

    @cached_property
    def _axes_on_sky(self):
        """Directions of x and y at the image centre as columns, (east, north) as rows."""
        # Central differences, one arcsec each way: right and left, up and down.
        sky = self.to_sky(np.array([1.0, -1.0, 0.0, 0.0]), np.array([0.0, 0.0, 1.0, -1.0])).icrs
        east, north = self.to_sky(0.0, 0.0).icrs.spherical_offsets_to(sky)
        offsets = np.array([east.to_value(u.arcsec), north.to_value(u.arcsec)])
        return (offsets[:, ::2] - offsets[:, 1::2]) / 2


def _checked_scale(pixel_scale):
    scale = strip_unit(pixel_scale, u.arcsec, "pixel_scale")
    if np.ndim(scale) != 0:
        raise InputError(
            f"pixel_scale = {pixel_scale} is not one number: pixels that are not squares need a WCS, "
            "or matrix= of a PixelGrid"
        )
    if not (np.isfinite(scale) and scale > 0):
        raise InputError(f"pixel_scale = {pixel_scale} is not positive: give arcsec, such as 0.05 * u.arcsec")
    return float(scale)


def _checked_matrix(matrix):
    matrix = np.array(strip_unit(matrix, u.arcsec, "matrix"), dtype=float)
    if matrix.shape != (2, 2):
        raise InputError(f"matrix has shape {matrix.shape}: give 2 x 2 numbers, arcsec in a pixel")
    _refuse_stretched(matrix, "the matrix has", "")
    return matrix


def _matrix_of(wcs, shape):
    """Symmetric matrix (2, 2) from pixels to the image frame of a WCS, in arcsec."""
    _refuse_distortions(wcs)
    try:
        to_arcsec = [u.Unit(unit).to(u.arcsec) for unit in wcs.wcs.cunit]
    except u.UnitConversionError:
        raise InputError(
            f"the WCS has no angular axes (CTYPE {list(wcs.wcs.ctype)}, "
            f"CUNIT {[str(unit) for unit in wcs.wcs.cunit]}): give pixel_scale="
        ) from None
    matrix, where = scale_matrix(wcs) * np.array(to_arcsec)[:, None], ""
    _refuse_empty(matrix, "the WCS has", where)
    if wcs.has_celestial:
        _refuse_hidden_distortion(wcs, shape)
        # A projection can stretch the field where the matrix at CRPIX does not (CAR off the equator).
        local, places = _local_matrix(wcs, shape)
        if not _same_stretch(local, matrix, SCALE_TOLERANCE):
            where = f" at the image centre (projection {wcs.wcs.ctype[0]})"
        if not _same_stretch(local, matrix, PROJECTION_TOLERANCE):
            matrix = local
    _refuse_stretched(matrix, "the WCS has", where)
    if where:
        _refuse_bent(local, places, shape)
    return unit_stretch(matrix) * math.sqrt(abs(np.linalg.det(matrix)))


def _same_stretch(one, other, tolerance):
    """Whether two matrices, each a rotation times a stretch, stretch alike."""
    area = abs(np.linalg.det(other))
    return bool(np.abs(one.T @ one - other.T @ other).max() < 2 * tolerance * area)


def _refuse_distortions(wcs):
    found = []
    if wcs.sip is not None:
        found.append("SIP polynomials")
    if wcs.cpdis1 is not None or wcs.cpdis2 is not None:
        found.append("distortion tables (CPDIS)")
    if wcs.det2im1 is not None or wcs.det2im2 is not None:
        found.append("detector tables (D2IM)")
    codes = {name[-3:] for name in wcs.wcs.ctype if "-" in name}
    found += sorted(codes & {"TPV", "TPD", "TNX", "ZPX", "ZPN"})
    if found:
        raise InputError(
            f"the WCS has distortions ({', '.join(found)}), so its pixels are not all alike: "
            "drizzle or reproject the cutout to a plain TAN projection first"
        )


def _refuse_hidden_distortion(wcs, shape):
    """Refuse what wcslib applies without saying so: it reads TPV headers as TAN and keeps the polynomial."""
    corners = np.array([[x, y] for x in (-0.5, shape[1] - 0.5) for y in (-0.5, shape[0] - 0.5)])
    plain = wcs_of_resampled(wcs, 1)
    sky, undistorted = wcs.wcs_pix2world(corners, 0), plain.wcs_pix2world(corners, 0)
    if not (np.all(np.isfinite(sky)) and np.all(np.isfinite(undistorted))):
        raise InputError("a corner of the image lies outside the WCS projection: correct its CRPIX")
    shift = np.abs(plain.wcs_world2pix(sky, 0) - corners).max()
    if shift > DISTORTION_TOLERANCE:
        raise InputError(
            f"the WCS has distortions that shift the image's corners by {shift:.3g} pixels (as TPV does): "
            "drizzle or reproject the cutout to a plain TAN projection first"
        )


def _refuse_empty(matrix, what, where):
    sides = np.hypot(*matrix)
    if not (np.all(np.isfinite(sides)) and abs(np.linalg.det(matrix)) > 0):
        raise InputError(f"{what} a pixel of {sides[0]:g} x {sides[1]:g} arcsec{where}: correct it")


def _refuse_stretched(matrix, what, where):
    """Refuse pixels that are empty, or stretched by more than ``MOST_STRETCH``."""
    _refuse_empty(matrix, what, where)
    sides = np.hypot(*matrix)
    longest, shortest = np.linalg.svd(matrix, compute_uv=False)
    if longest / shortest - 1 > MOST_STRETCH:
        angle = math.degrees(math.acos(min(abs(matrix[:, 0] @ matrix[:, 1]) / sides.prod(), 1)))
        raise InputError(
            f"{what} pixels of {sides[0]:.6g} x {sides[1]:.6g} arcsec whose sides meet at {angle:.4g} "
            f"degrees{where}, stretched by {100 * (longest / shortest - 1):.3g} %: resample the "
            f"image to square pixels, for example with reproject; up to {100 * MOST_STRETCH:g} % are fine"
        )


def _refuse_bent(local, places, shape):
    """Refuse a projection that is not linear over the image; ``places`` (4, 2) are its corners in arcsec."""
    half = np.array(shape[::-1]) / 2
    straight = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]]) * half @ local.T
    shift = np.abs(places - straight).max() / pixel_side(local)
    if not shift < DISTORTION_TOLERANCE:
        raise InputError(
            f"the projection shifts the image's corners by {shift:.3g} pixels, the field is distorted: "
            "reproject the cutout to a TAN projection about its centre"
        )


def _local_matrix(wcs, shape):
    """Matrix d(east, north)/d(column, row) at the image centre, arcsec in a pixel, and corners (4, 2)."""
    middle, half = (np.array(shape[::-1]) - 1) / 2, np.array(shape[::-1]) / 2
    steps = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]], dtype=float)
    corners = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]]) * half
    world = wcs.wcs_pix2world(np.concatenate([steps, corners]) + middle, 0)
    if not np.all(np.isfinite(world[:5])):
        raise InputError("the image centre lies outside the WCS projection: correct its CRPIX")
    lon, lat = np.radians(world[:, wcs.wcs.lng]), np.radians(world[:, wcs.wcs.lat])
    vectors = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)
    east = np.array([-np.sin(lon[0]), np.cos(lon[0]), 0.0])
    north = np.cross(vectors[0], east)
    slopes = np.stack([vectors[1] - vectors[2], vectors[3] - vectors[4]]) / 2
    matrix = np.array([[step @ axis for step in slopes] for axis in (east, north)]) * _ARCSEC_PER_RADIAN
    flat = vectors[5:] / (vectors[5:] @ vectors[0])[:, None]
    return matrix, np.stack([flat @ east, flat @ north], axis=1) * _ARCSEC_PER_RADIAN
