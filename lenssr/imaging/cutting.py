"""Cutting a frame about a place on the sky before it is read, and which frames are too large."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS

from lenssr import _wcs
from lenssr._limits import check_unit_text, quoted
from lenssr.exceptions import InputError
from lenssr.imaging.fits_files import shape_of

if TYPE_CHECKING:
    from lenssr.imaging.image_file import ImageFile
    from lenssr.imaging.planes import Request

__all__ = ["cut_file", "cut_size", "sky_place", "window_of"]

# Without a size, frames are fitted up to this many pixels: beyond it a fit takes hours. Chosen.
MOST_PIXELS = 1024**2
# Half the side that is read over the radius of the field that holds lens and arcs. Chosen: in a field as
# small as that sky, lens light and arcs cannot be told apart (three of the first nine real lenses were lost).
AROUND = 1.5
# Characters of a text that can be a place on the sky.
LONGEST_CENTRE = 200


def sky_place(centre: Any) -> SkyCoord:
    """Place on the sky.

    Parameters
    ----------
    centre : `~astropy.coordinates.SkyCoord`, str, or pair of angles
        A text is in degrees where it has no unit ("150.1 2.2"), else hours and degrees
        ("10:00:28.6 +02:12:21"). Numbers of a pair are degrees.

    Returns
    -------
    place : `~astropy.coordinates.SkyCoord`
        One place.

    Raises
    ------
    InputError
        If it is none.
    """
    try:
        if isinstance(centre, SkyCoord):
            place = centre
        elif isinstance(centre, str) and len(centre) <= LONGEST_CENTRE:
            sexagesimal = ":" in centre or "h" in centre.lower()
            place = SkyCoord(centre.replace(",", " "), unit=(u.hourangle if sexagesimal else u.deg, u.deg))
        else:
            ra, dec = (u.Quantity(one, u.deg) for one in centre)
            place = SkyCoord(ra, dec)
        if place.isscalar and np.isfinite(place.spherical.lon) and np.isfinite(place.spherical.lat):
            return place
    except (ValueError, TypeError, AttributeError, u.UnitsError):
        pass
    raise InputError(
        f"centre = {quoted(centre)} is no place on the sky: give a SkyCoord, or a text such as "
        "'150.1192 2.2058' (degrees) or '10:00:28.6 +02:12:21'"
    )


def cut_size(size: Any) -> tuple[float, float]:
    """Height and width of a cutout in arcsec, from one angle or a pair."""
    try:
        if isinstance(size, str):
            check_unit_text(size, "size")
        sides = u.Quantity(size, u.arcsec) if not isinstance(size, str) else u.Quantity(size).to(u.arcsec)
        height, width = np.broadcast_to(sides.value, 2).tolist()
        if all(math.isfinite(side) and side > 0 for side in (height, width)):
            return height, width
    except (TypeError, ValueError, u.UnitsError):
        pass
    raise InputError(f"size = {size!r}: give a positive angle such as 6 * u.arcsec, or (height, width)")


def place_in(wcs: WCS | None, place: SkyCoord, shape: tuple[int, int]) -> tuple[float, float]:
    """Zero-based pixel (column, row) of a place; refused where it lies outside the frame."""
    if wcs is None or not wcs.has_celestial:
        raise InputError("centre is given, but the image has no celestial WCS: cut it yourself")
    try:
        column, row = (float(one) for one in wcs.world_to_pixel(place))
    except Exception as error:  # noqa: BLE001 - distortions that do not invert raise many things
        raise InputError(f"centre = {place.to_string('hmsdms')} is not in the image: check it") from error
    inside = -0.5 <= column <= shape[1] - 0.5 and -0.5 <= row <= shape[0] - 0.5
    if not inside:
        middle = wcs.pixel_to_world((shape[1] - 1) / 2, (shape[0] - 1) / 2)
        raise InputError(
            f"centre = {place.to_string('hmsdms')} lies outside the image, whose centre is at "
            f"{middle.to_string('hmsdms')}: check it"
        )
    return column, row


def window_of(wcs: WCS | None, shape: tuple[int, int], request: Request) -> tuple[slice, slice] | None:
    """Rows and columns of the cutout that a user asked for; None for the whole frame.

    Raises
    ------
    InputError
        If the centre lies outside, or the frame is too large for a fit and is not cut.
    """
    limit = request.most_pixels
    if not request.cuts and limit is not None and shape[0] * shape[1] > limit:
        raise InputError(
            f"the frame has {shape[1]} x {shape[0]} pixels, more than {limit} that can be fitted: cut it "
            "by centre= and size= (--centre '10:00:28.6 +02:12:21' --size 6arcsec)"
        )
    if request.centre is not None:
        column, row = place_in(wcs, sky_place(request.centre), shape)
    else:
        row, column = ((side - 1) / 2 for side in shape)
    if not request.cuts:
        return _about(row, column, shape) if request.centre is not None and request.middle else None
    if wcs is None or not wcs.has_celestial:
        raise InputError(f"radius = {request.radius}, but the image has no celestial WCS: cut it yourself")
    scale = _wcs.side_at(wcs, column, row)
    if request.radius is None:
        asked = cut_size(request.size)
    else:
        height, width = cut_size(request.radius)
        asked = 2 * AROUND * height, 2 * AROUND * width
    sides = [max(round(side / scale), 1) for side in asked]
    window = []
    for middle, side, full in zip((row, column), sides, shape, strict=True):
        # A place in the middle of a pixel is half a pixel off the middle of an even side: always to one side.
        start = math.floor(middle - (side - 1) / 2 + 0.5 - 1e-3)
        window.append(slice(max(start, 0), min(start + side, full)))
    rows, columns = window
    pixels = (rows.stop - rows.start) * (columns.stop - columns.start)
    if limit is not None and pixels > limit:
        name = "size" if request.radius is None else "radius"
        value = getattr(request, name)
        raise InputError(f"{name} = {value} has {pixels} pixels, more than {limit}: give a smaller one")
    return rows, columns


def _about(row: float, column: float, shape: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of the largest window of a frame whose middle is a pixel, or between two."""
    window = []
    for place, side in zip((row, column), shape, strict=True):
        twice = round(2 * place)  # pixels' centres are even, their edges odd
        window.append(slice(max(twice - side + 1, 0), min(twice, side - 1) + 1))
    return window[0], window[1]


def cut_file(file: ImageFile) -> tuple[tuple[slice, slice] | None, WCS | None]:
    """Window of a file that is read, and the WCS of that window."""
    height, width = shape_of(file.science)[-2:]
    wcs = file.full_wcs
    window = window_of(wcs, (height, width), file.request)
    if wcs is None or window is None:
        return window, wcs
    rows, columns = window
    shape = rows.stop - rows.start, columns.stop - columns.start
    return window, _wcs.cut_wcs(wcs, shape, (columns.start, rows.start))
