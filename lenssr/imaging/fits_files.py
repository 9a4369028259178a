"""The one place where FITS files are opened, and how pixels are read from them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from os import PathLike
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.io.fits.verify import VerifyWarning
from astropy.utils.exceptions import AstropyUserWarning

from lenssr._quiet import quiet
from lenssr.exceptions import InputError
from lenssr.imaging.fits_checks import check_file, same_hdus

__all__ = ["as_input_error", "is_file", "open_fits", "pixels", "read_hdu", "shape_of"]

log = logging.getLogger(__name__)


def is_file(value: Any) -> bool:
    """Whether a value names a file, or is one that is open."""
    return isinstance(value, (str, PathLike)) or (hasattr(value, "read") and hasattr(value, "seek"))


@contextlib.contextmanager
def open_fits(path: Any, *, whole: bool = True) -> Iterator[fits.HDUList]:
    """Open a FITS file, by path or as an open binary file; an `InputError` says why it cannot be read.

    Headers are checked and read here. Pixels stay in the file until `pixels` asks for them, so that a cutout
    of a large file, which is not read ``whole``, costs no more than itself.
    """
    named = isinstance(path, (str, PathLike))
    content, number = check_file(path, whole=whole)
    name = path if named else getattr(path, "name", "the file")
    truncated = {"message": ".*truncated.*", "category": AstropyUserWarning, "action": "error"}
    with contextlib.ExitStack() as stack:
        with _told(name), quiet(VerifyWarning), quiet(**truncated):
            # astropy does not close a file that it fails to read.
            file = content or (stack.enter_context(open(path, "rb")) if named else path)
            hdus = stack.enter_context(fits.open(file, memmap=None, lazy_load_hdus=False))
            same_hdus(name, hdus, number)
            _check_ends(hdus)
        log.debug("read %s: %s", name, ", ".join(hdu.name or "no name" for hdu in hdus))
        yield hdus


@contextlib.contextmanager
def as_input_error(path: Any) -> Iterator[None]:
    """Turn whatever a damaged header makes astropy raise into an `InputError` with the exception's type."""
    try:
        yield
    except (InputError, Warning):
        raise
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise InputError(f"{path} cannot be used ({why}): correct its header, or get it again") from error


@contextlib.contextmanager
def _told(name: Any) -> Iterator[None]:
    """Turn what astropy raises on a damaged file into an `InputError`."""
    try:
        yield
    except InputError:
        raise
    except AstropyUserWarning as error:
        raise InputError(f"{name} is truncated ({error}): copy or download it again") from error
    except Exception as error:  # whatever astropy raises for a header that it cannot take
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{name} is not a readable FITS file ({reason}): give one") from error


def _check_ends(hdus: fits.HDUList) -> None:
    """Touch the last pixels of every image, which a truncated file lacks."""
    for hdu in hdus:
        shape = shape_of(hdu)
        if shape and 0 not in shape:
            hdu.section[tuple(slice(size - 1, size) for size in shape)]  # noqa: B018


def shape_of(hdu: Any) -> tuple[int, ...]:
    """Shape of an image HDU without reading it; () where there is none."""
    return tuple(hdu.shape) if hdu.is_image and hdu.shape else ()


def pixels(hdu: Any, window: tuple[slice, slice] | None = None, plane: int | None = None) -> Any:
    """Pixels of an image HDU, (ny, nx), perhaps of one plane of a cube, and of a window only.

    Axes of length 1 in front are left out.
    """
    with _told("the file"):
        shape = shape_of(hdu)
        front = _front(shape, plane)
        place = (*front, *(window or (slice(None), slice(None))))
        stored = hdu.fileinfo() is not None and not hdu._data_loaded
        return np.asarray(hdu.section[place] if stored else hdu.data[place])


def _front(shape: tuple[int, ...], plane: int | None) -> tuple[int, ...]:
    """Indices of the axes before the last two: 0 for those of length 1, ``plane`` for the other one."""
    long = [axis for axis, size in enumerate(shape[:-2]) if size > 1]
    if len(long) > 1 or (long and plane is None):
        raise InputError(f"the image has {len(shape)} dimensions, shape {shape}: give a 2-D image")
    return tuple(plane or 0 if axis in long else 0 for axis in range(len(shape) - 2))


def read_hdu(hdu: Any, name: str) -> Any:
    """Pixels of an image HDU that has to hold a two-dimensional image."""
    if len(shape_of(hdu)) < 2:
        raise InputError(f"{name} holds no two-dimensional image: name another HDU")
    return pixels(hdu)
