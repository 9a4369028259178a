"""The matrix of a WCS, the WCS of a resampled image or cutout, and which pixels are refused."""

from __future__ import annotations

import math
from typing import Any

import astropy.units as u
import numpy as np
from astropy.wcs import WCS
from numpy.typing import ArrayLike, NDArray

from lenssr._quiet import quiet
from lenssr.exceptions import InputError
from lenssr.units import positive_number, strip_unit

# Pixels whose sides and angles differ by less than this are squares: headers round their matrices so.
SQUARE_TOLERANCE = 1e-6
# The matrix at CRPIX holds at the image, too, while the projection stretches it by less than this: 0.01 pixel
# at the edge of 200. Cutouts of large mosaics (TAN, half a degree off CRPIX) differ by 8e-5.
PROJECTION_TOLERANCE = 1e-4
# A pixel scale that a user gives beside a WCS may differ from it by this much.
SCALE_TOLERANCE = 1e-3
# Largest stretch of a pixel, longest over shortest image of a unit vector - 1. Networks trained on squares
# still work there, and starts of fits that count pixels are near enough. Chosen.
MOST_STRETCH = 0.05
# Shift of the corners, in pixels, that is far too small to be seen in the fit of a lens. Chosen.
DISTORTION_TOLERANCE = 0.02
_ARCSEC_PER_RADIAN = 180 / math.pi * 3600


def scale_matrix(wcs: WCS) -> NDArray[np.float64]:
    """CD matrix (2, 2) of a WCS in its own units, also where a header holds CD and PC together."""
    with quiet(RuntimeWarning, message="cdelt will be ignored"):
        return np.array(wcs.pixel_scale_matrix, dtype=float)


def wcs_of_resampled(wcs: WCS, factor: float) -> WCS:
    """WCS of the same field with pixels ``factor`` times smaller.

    The outer edges of the image stay where they are: CRPIX' = (CRPIX - 0.5) f + 0.5. The matrix is written
    once, as CD, so that headers which hold CD and PC together do not keep a stale one.

    Parameters
    ----------
    wcs : `~astropy.wcs.WCS`
        A WCS of two axes without distortions.
    factor : float
        Number of new pixels along an old one.

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
    new.wcs.ctype, new.wcs.cunit, new.wcs.crval = list(old.ctype), list(old.cunit), old.crval
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


def pixel_side(pixel_scale: Any) -> Any:
    """Side of a square with the area of a pixel: of a 2 x 2 matrix, or the number itself."""
    if np.shape(pixel_scale) != (2, 2):
        return pixel_scale
    (xx, xy), (yx, yy) = np.asarray(pixel_scale).tolist()
    return math.sqrt(abs(xx * yy - xy * yx))


def unit_stretch(matrix: ArrayLike) -> NDArray[np.float64]:
    """Symmetric positive factor of a 2 x 2 matrix over the square root of its determinant.

    A matrix is a rotation, perhaps with a reflection, times this stretch times a scale. It is exactly the
    identity for pixels that are square within the rounding of headers.
    """
    matrix = np.asarray(matrix, dtype=float)
    square, area = matrix.T @ matrix, abs(float(np.linalg.det(matrix)))
    # Square root of a symmetric positive 2 x 2 matrix, by the theorem of Cayley and Hamilton.
    stretch = (square / area + np.eye(2)) / math.sqrt(np.trace(square) / area + 2)
    return np.eye(2) if np.abs(stretch - np.eye(2)).max() < SQUARE_TOLERANCE / 2 else stretch


def checked_scale(pixel_scale: u.Quantity | float) -> float:
    if np.ndim(strip_unit(pixel_scale, u.arcsec, "pixel_scale")) != 0:
        raise InputError(f"pixel_scale = {pixel_scale} is not one number: give one, or a WCS or matrix=")
    return positive_number(pixel_scale, u.arcsec, "pixel_scale")


def checked_matrix(matrix: Any) -> NDArray[np.float64]:
    matrix = np.array(strip_unit(matrix, u.arcsec, "matrix"), dtype=float)
    if matrix.shape != (2, 2):
        raise InputError(f"matrix has shape {matrix.shape}: give 2 x 2 numbers, arcsec per pixel")
    _refuse_stretched(matrix, "the matrix has", "")
    return matrix


def _refuse_empty(matrix: NDArray[np.float64], what: str, where: str) -> None:
    sides = np.hypot(*matrix)
    if not (np.all(np.isfinite(sides)) and abs(np.linalg.det(matrix)) > 0):
        raise InputError(f"{what} a pixel of {sides[0]:g} x {sides[1]:g} arcsec{where}: correct it")


def _refuse_stretched(matrix: NDArray[np.float64], what: str, where: str) -> None:
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


# ---------------------------------------------------------------- checks of a WCS

# Corners of a square of side 2 around the origin.
_CORNERS = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])


def matrix_of(wcs: WCS, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Symmetric matrix (2, 2) from pixels to the image frame of a WCS, in arcsec."""
    try:
        to_arcsec = [u.Unit(unit).to(u.arcsec) for unit in wcs.wcs.cunit]
    except u.UnitConversionError:
        axes = f"CTYPE {list(wcs.wcs.ctype)}, CUNIT {[str(unit) for unit in wcs.wcs.cunit]}"
        raise InputError(f"the WCS has no angular axes ({axes}): give pixel_scale=") from None
    matrix, where = scale_matrix(wcs) * np.array(to_arcsec)[:, None], ""
    _refuse_empty(matrix, "the WCS has", where)
    if wcs.has_celestial:
        # A projection can stretch the field where the matrix at CRPIX does not (CAR off the equator).
        local, corners = _local_matrix(wcs, shape)
        if not _same_stretch(local, matrix, SCALE_TOLERANCE):
            where = f" at the image centre (projection {wcs.wcs.ctype[0]})"
        if not _same_stretch(local, matrix, PROJECTION_TOLERANCE):
            matrix = local
    _refuse_stretched(matrix, "the WCS has", where)
    if where:
        shift = np.abs(corners - _CORNERS * np.array(shape[::-1]) / 2 @ local.T).max() / pixel_side(local)
        if not shift < DISTORTION_TOLERANCE:
            raise InputError(f"the projection shifts corners by {shift:.3g} pixels: reproject to plain TAN")
    return unit_stretch(matrix) * math.sqrt(abs(np.linalg.det(matrix)))


def _same_stretch(one: NDArray[np.float64], other: NDArray[np.float64], tolerance: float) -> bool:
    """Whether two matrices, each a rotation times a stretch, stretch alike."""
    area = abs(np.linalg.det(other))
    return bool(np.abs(one.T @ one - other.T @ other).max() < 2 * tolerance * area)


# ---------------------------------------------------------------- distortions

# Codes of projections with polynomials of their own, which wcslib applies.
_DISTORTED = frozenset(("TPV", "TPD", "TNX", "ZPX", "ZPN"))
# Shift in pixels below which two projections are one: far above rounding.
_SAME_PIXEL = 1e-4
# Places along a side of the image at which a distortion is measured.
_SAMPLES = 9


def distortions(wcs: WCS) -> list[str]:
    """Names of the distortions of a WCS; [] for a plain projection."""
    kinds = {
        "SIP polynomials": (wcs.sip,),
        "distortion tables (CPDIS)": (wcs.cpdis1, wcs.cpdis2),
        "detector tables (D2IM)": (wcs.det2im1, wcs.det2im2),
    }
    found = [name for name, parts in kinds.items() if any(part is not None for part in parts)]
    codes = {name.partition("-")[2].strip("-").partition("-")[0] for name in wcs.wcs.ctype if "-" in name}
    found += sorted(codes & _DISTORTED)
    return found


def plain(wcs: WCS, shape: tuple[int, int]) -> WCS:
    """The WCS itself, or the best affine one where it is distorted by less than `DISTORTION_TOLERANCE`.

    Raises
    ------
    InputError
        If a distortion moves pixels by more; the message has the number.
    """
    found = distortions(wcs) or _hidden_distortion(wcs, shape, (0, 0))
    return wcs if not found else affine_wcs(wcs, shape, (0, 0), ", ".join(found))


def _hidden_distortion(wcs: WCS, shape: tuple[int, int], corner: tuple[int, int]) -> list[str]:
    """Name of polynomials that wcslib applies silently: it reads TPV headers as TAN and keeps them."""
    if not wcs.has_celestial or wcs.naxis != 2 or not np.linalg.det(scale_matrix(wcs)):
        return []
    corners = (_CORNERS * np.array(shape[::-1]) + np.array(shape[::-1]) - 1) / 2 + corner
    simple = wcs_of_resampled(wcs, 1)
    sky, undistorted = wcs.wcs_pix2world(corners, 0), simple.wcs_pix2world(corners, 0)
    if not (np.all(np.isfinite(sky)) and np.all(np.isfinite(undistorted))):
        raise InputError("a corner of the image lies outside the WCS projection: correct its CRPIX")
    shift = np.abs(simple.wcs_world2pix(sky, 0) - corners).max()
    return ["polynomials as of TPV"] if not shift < _SAME_PIXEL else []


def cut_wcs(wcs: WCS, shape: tuple[int, int], corner: tuple[int, int]) -> WCS:
    """WCS of a cutout whose first pixel is ``corner`` (column, row) of the frame."""
    found = distortions(wcs) or _hidden_distortion(wcs, shape, corner)
    if found:
        return affine_wcs(wcs, shape, corner, ", ".join(found))
    cut = wcs.deepcopy()
    cut.wcs.crpix = np.asarray(wcs.wcs.crpix) - corner
    cut.pixel_shape = shape[::-1]
    cut.wcs.set()
    return cut


def affine_wcs(wcs: Any, shape: tuple[int, int], corner: tuple[int, int], what: str) -> WCS:
    """Tangent projection about the middle of an image with the affine map that is closest to a WCS.

    Parameters
    ----------
    wcs : `~astropy.wcs.wcsapi.BaseLowLevelWCS`
        Any WCS of two celestial axes.
    shape : tuple of int
        (ny, nx) of the image.
    corner : tuple of int
        Its first pixel, (column, row), in the frame of ``wcs``.
    what : str
        Names of the distortions, for the message.

    Returns
    -------
    affine : `~astropy.wcs.WCS`

    Raises
    ------
    InputError
        If no affine map is within `DISTORTION_TOLERANCE`, or the WCS is not defined there.
    """
    middle = (np.array(shape[::-1]) - 1) / 2
    axes = (np.linspace(-0.5, size - 0.5, _SAMPLES) for size in shape[::-1])
    places = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
    longitude, latitude = _celestial_degrees(wcs, np.concatenate([[middle], places]) + corner)
    if not np.all(np.isfinite(longitude) & np.isfinite(latitude)):
        raise InputError(f"the WCS ({what}) is not defined over the whole image: reproject to plain TAN")
    flat = _tangent_plane(longitude, latitude)[1:]
    design = np.column_stack([places - middle, np.ones(len(places))])
    (x_axis, y_axis, offset), *_ = np.linalg.lstsq(design, flat, rcond=None)
    matrix = np.stack([x_axis, y_axis], axis=1)
    _refuse_empty(matrix, f"the WCS ({what}) has", "")
    moved = np.linalg.solve(matrix, (flat - design @ np.stack([x_axis, y_axis, offset])).T)
    shift = float(np.hypot(*moved).max())
    if not shift <= DISTORTION_TOLERANCE:
        raise InputError(
            f"the WCS has distortions ({what}) that move pixels by up to {shift:.3g} against the best affine "
            f"map, more than {DISTORTION_TOLERANCE}: drizzle or reproject to plain TAN, or cut it smaller"
        )
    return _tangent_wcs(wcs, shape, (longitude[0], latitude[0]), matrix, np.linalg.solve(matrix, offset))


def _tangent_wcs(wcs: Any, shape: Any, crval: Any, matrix: Any, offset: Any) -> WCS:
    """WCS of a tangent projection with a matrix in arcsec, in the celestial frame of another one."""
    new = WCS(naxis=2)
    old = getattr(wcs, "wcs", None)
    heads = ("RA--", "DEC-") if old is None else [old.ctype[axis][:4] for axis in (old.lng, old.lat)]
    new.wcs.ctype = [f"{head}-TAN" for head in heads]
    new.wcs.cunit, new.wcs.crval = ["deg", "deg"], [float(one) for one in crval]
    new.wcs.crpix = (np.array(shape[::-1]) + 1) / 2 - offset
    new.wcs.cd = matrix / 3600
    for name in ("radesys", "equinox", "dateobs", "mjdobs"):
        value = "ICRS" if old is None and name == "radesys" else getattr(old, name, "")
        if value and (isinstance(value, str) or np.isfinite(value)):
            setattr(new.wcs, name, value)
    new.pixel_shape = shape[::-1]
    new.wcs.set()
    return new


def _celestial_degrees(wcs: Any, places: NDArray[np.float64]) -> tuple[Any, Any]:
    """Longitude and latitude in degrees of pixels (N, 2), by all that the WCS holds."""
    with quiet(RuntimeWarning):
        values = wcs.pixel_to_world_values(*places.T)
    types = [str(kind) for kind in wcs.world_axis_physical_types]
    pairs = (("pos.eq.ra", "pos.eq.dec"), ("pos.galactic.lon", "pos.galactic.lat"))
    pairs += (("pos.ecliptic.lon", "pos.ecliptic.lat"), ("custom:pos.helioprojective.lon", "?"))
    for first, second in pairs:
        if first in types and second in types:
            found = [types.index(first), types.index(second)]
            units = [u.Unit(wcs.world_axis_units[axis]) for axis in found]
            return tuple(
                np.asarray(values[axis]) * unit.to(u.deg) for axis, unit in zip(found, units, strict=True)
            )
    raise InputError(f"the WCS has no celestial axes ({', '.join(types)}): give an astropy.wcs.WCS")


def _tangent_plane(longitude: Any, latitude: Any) -> NDArray[np.float64]:
    """Positions (N, 2), east and north in arcsec, on the plane that touches the sky at the first of them."""
    lon, lat = np.radians(longitude), np.radians(latitude)
    vectors = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)
    east = np.array([-np.sin(lon[0]), np.cos(lon[0]), 0.0])
    axes = np.stack([east, np.cross(vectors[0], east)])
    return (vectors / (vectors @ vectors[0])[:, None]) @ axes.T * _ARCSEC_PER_RADIAN


def side_at(wcs: Any, column: float, row: float) -> float:
    """Side in arcsec of a square with the area of the pixel at a place."""
    steps = np.array([[0, 0], [0.5, 0], [-0.5, 0], [0, 0.5], [0, -0.5]]) + (column, row)
    flat = _tangent_plane(*_celestial_degrees(wcs, steps))
    return float(abs(np.linalg.det(np.stack([flat[1] - flat[2], flat[3] - flat[4]]))) ** 0.5)


def has_scale(wcs: WCS) -> bool:
    """Whether a header gave the WCS a scale: wcslib takes 1 degree for a missing one."""
    old = wcs.wcs
    matrix = old.cd if old.has_cd() else np.array(old.cdelt)[:, None] * np.array(old.get_pc())
    return not np.array_equal(matrix, np.eye(len(matrix))) and bool(np.any(matrix))


def _local_matrix(wcs: WCS, shape: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Matrix d(east, north)/d(column, row) at the image centre, and corners (4, 2), in arcsec."""
    middle, half = (np.array(shape[::-1]) - 1) / 2, np.array(shape[::-1]) / 2
    steps = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]], dtype=float)
    world = wcs.wcs_pix2world(np.concatenate([steps, _CORNERS * half]) + middle, 0)
    if not np.all(np.isfinite(world[:5])):
        raise InputError("the image centre lies outside the WCS projection: correct its CRPIX")
    lon, lat = np.radians(world[:, wcs.wcs.lng]), np.radians(world[:, wcs.wcs.lat])
    vectors = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)
    east = np.array([-np.sin(lon[0]), np.cos(lon[0]), 0.0])
    axes = np.stack([east, np.cross(vectors[0], east)])
    slopes = np.stack([vectors[1] - vectors[2], vectors[3] - vectors[4]]) / 2
    flat = vectors[5:] / (vectors[5:] @ vectors[0])[:, None]
    return axes @ slopes.T * _ARCSEC_PER_RADIAN, flat @ axes.T * _ARCSEC_PER_RADIAN
