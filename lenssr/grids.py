"""Pixel grids: arcsec in the image frame, sky coordinates, and what changes when an image is resampled.

The image frame has x to the right along columns and y up along rows, in arcsec, with its origin at the
image centre, zero-based pixel ``((nx - 1) / 2, (ny - 1) / 2)``. N pixels of size d span N d; their
centres span (N - 1) d.
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

# Sides, angles and local scales of a pixel may differ by this much from a square; an Einstein radius then
# does by as much, which is below what other errors leave (real HST drizzled headers differ by 6e-5).
SQUARE_TOLERANCE = 1e-3
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


class PixelGrid:
    """A grid of square pixels, with or without a place on the sky.

    Parameters
    ----------
    shape : tuple of int
        ``(ny, nx)``.
    pixel_scale : `~astropy.units.Quantity` or float
        The side of a pixel; a number is in arcsec.
    wcs : `~astropy.wcs.WCS`, optional
        Where the pixels lie on the sky. It must agree with ``pixel_scale``; `from_wcs` takes the
        scale from it.

    Raises
    ------
    InputError
        If the shape or the scale is not positive, or the WCS has pixels that are not square.

    Examples
    --------
    >>> from lenssr.grids import PixelGrid
    >>> grid = PixelGrid((3, 4), 0.1)
    >>> grid.x[0]
    array([-0.15, -0.05,  0.05,  0.15])
    >>> grid.upsample(2)
    PixelGrid((6, 8), 0.05)
    """

    def __init__(self, shape, pixel_scale, wcs=None):
        if len(shape) != 2 or any(int(size) != size or size < 1 for size in shape):
            raise InputError(f"shape = {tuple(shape)} is not (ny, nx) with positive sizes")
        self.shape = tuple(int(size) for size in shape)
        self.pixel_scale = _checked_scale(pixel_scale)
        self.wcs = wcs
        if wcs is not None:
            scale = _scale_of(wcs, self.shape)
            if abs(scale / self.pixel_scale - 1) > SQUARE_TOLERANCE:
                raise InputError(
                    f"pixel_scale = {self.pixel_scale:g} arcsec, but the WCS says {scale:g}: give one of them"
                )

    @classmethod
    def from_wcs(cls, wcs, shape):
        """Grid with the pixel scale of a WCS.

        Parameters
        ----------
        wcs : `~astropy.wcs.WCS`
            A celestial or linear angular WCS; rotated and mirrored ones are fine.
        shape : tuple of int
            ``(ny, nx)``.

        Returns
        -------
        grid : `PixelGrid`

        Raises
        ------
        InputError
            If the pixels are not square, or the WCS is distorted or has no angular axes.
        """
        if wcs.naxis != 2 and wcs.has_celestial:
            wcs = wcs.celestial
        return cls(shape, _scale_of(wcs, shape), wcs)

    def __repr__(self):
        """Shape and scale."""
        wcs = "" if self.wcs is None else ", wcs=..."
        return f"PixelGrid({self.shape}, {self.pixel_scale:.10g}{wcs})"

    @property
    def center(self):
        """Zero-based pixel ``(column, row)`` of the origin."""
        return (self.shape[1] - 1) / 2, (self.shape[0] - 1) / 2

    @property
    def pixel_area(self):
        """Area of a pixel in arcsec2."""
        return self.pixel_scale**2

    @property
    def extent(self):
        """Outer edges ``(left, right, bottom, top)`` in arcsec, as matplotlib's ``imshow`` wants them."""
        half_x, half_y = (size * self.pixel_scale / 2 for size in self.shape[::-1])
        return -half_x, half_x, -half_y, half_y

    @cached_property
    def x(self):
        """Column positions of the pixel centres in arcsec, shape (ny, nx)."""
        columns = (np.arange(self.shape[1]) - self.center[0]) * self.pixel_scale
        return np.broadcast_to(columns, self.shape).copy()

    @cached_property
    def y(self):
        """Row positions of the pixel centres in arcsec, shape (ny, nx)."""
        rows = (np.arange(self.shape[0]) - self.center[1]) * self.pixel_scale
        return np.broadcast_to(rows[:, None], self.shape).copy()

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
        # Smaller pixels of a checked grid are square too; to check them would cost more than to make them.
        finer = copy.copy(self)
        for cached in ("x", "y"):
            vars(finer).pop(cached, None)
        finer.shape = tuple(size * int(factor) for size in self.shape)
        finer.pixel_scale = self.pixel_scale / factor
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
        return (column - self.center[0]) * self.pixel_scale, (row - self.center[1]) * self.pixel_scale

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
        raise InputError(f"pixel_scale = {pixel_scale} is not one number: pixels must be square")
    if not (np.isfinite(scale) and scale > 0):
        raise InputError(f"pixel_scale = {pixel_scale} is not positive: give arcsec, such as 0.05 * u.arcsec")
    return float(scale)


def _scale_of(wcs, shape):
    """Pixel scale in arcsec of a WCS, after the checks that make one number enough."""
    _refuse_distortions(wcs)
    try:
        to_arcsec = [u.Unit(unit).to(u.arcsec) for unit in wcs.wcs.cunit]
    except u.UnitConversionError:
        raise InputError(
            f"the WCS has no angular axes (CTYPE {list(wcs.wcs.ctype)}, "
            f"CUNIT {[str(unit) for unit in wcs.wcs.cunit]}): give pixel_scale="
        ) from None
    matrix = scale_matrix(wcs) * np.array(to_arcsec)[:, None]
    _refuse_unless_square(matrix, "")
    if wcs.has_celestial:
        # A projection can stretch the field where the matrix at CRPIX does not (CAR off the equator).
        _refuse_hidden_distortion(wcs, shape)
        local = _local_matrix(wcs, shape)
        _refuse_unless_square(local, f" at the image centre (projection {wcs.wcs.ctype[0]})")
        ratio = math.sqrt(abs(np.linalg.det(local) / np.linalg.det(matrix)))
        if abs(ratio - 1) > SQUARE_TOLERANCE:
            raise InputError(
                f"the pixel scale at the image centre is {ratio:.4f} times that at CRPIX, the field is "
                "distorted: reproject the cutout to a TAN projection about its centre"
            )
    return math.sqrt(abs(np.linalg.det(matrix)))


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
            f"the WCS has distortions ({', '.join(found)}), so its pixels are not squares of one size: "
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


def _refuse_unless_square(matrix, where):
    sides = np.hypot(*matrix)
    if not (np.all(np.isfinite(sides)) and np.all(sides > 0)):
        raise InputError(f"the WCS has a pixel of {sides[0]:g} x {sides[1]:g} arcsec{where}: correct it")
    if abs(sides[0] / sides[1] - 1) > SQUARE_TOLERANCE:
        raise InputError(
            f"pixels have unequal sides, {sides[0]:.6g} x {sides[1]:.6g} arcsec{where}: "
            "resample to square pixels first"
        )
    skew = abs(matrix[:, 0] @ matrix[:, 1]) / sides.prod()
    if skew > SQUARE_TOLERANCE:
        angle = math.degrees(math.acos(min(skew, 1)))
        raise InputError(
            f"pixels are skewed, their sides meet at {angle:.4g} degrees{where}: make them square first"
        )


def _local_matrix(wcs, shape):
    """Return d(east, north)/d(column, row) at the image centre, in arcsec a pixel, by central differences."""
    column, row = (shape[1] - 1) / 2, (shape[0] - 1) / 2
    offsets = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]], dtype=float)
    world = wcs.wcs_pix2world(offsets + [column, row], 0)
    if not np.all(np.isfinite(world)):
        raise InputError("the image centre lies outside the WCS projection: correct its CRPIX")
    lon, lat = np.radians(world[:, wcs.wcs.lng]), np.radians(world[:, wcs.wcs.lat])
    vectors = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)
    east = np.array([-np.sin(lon[0]), np.cos(lon[0]), 0.0])
    north = np.cross(vectors[0], east)
    steps = np.stack([vectors[1] - vectors[2], vectors[3] - vectors[4]]) / 2
    return np.array([[step @ axis for step in steps] for axis in (east, north)]) * _ARCSEC_PER_RADIAN
