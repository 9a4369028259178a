"""What readers make of a file: planes that belong together, and where each comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import astropy.units as u
import numpy as np
from astropy.nddata import InverseVariance, StdDevUncertainty, VarianceUncertainty
from astropy.wcs import WCS
from numpy.typing import NDArray

from lenssr.exceptions import InputError

__all__ = ["UNCERTAINTIES", "Array", "Mask", "Planes", "Request", "as_image", "same_shape"]

# Planes of an image, and samples of kernels.
Array: TypeAlias = NDArray[np.float64]
Mask: TypeAlias = NDArray[np.bool_]
# Name or number of an HDU, ("SCI", 2), or "SCI,2".
HDUName: TypeAlias = "str | int | tuple[str, int | str]"

# Field and power of the image's unit. CCDData writes its uncertainty into one HDU whose UTYPE is the class.
UNCERTAINTIES = {
    StdDevUncertainty: ("error", 1),
    VarianceUncertainty: ("variance", 2),
    InverseVariance: ("inverse_variance", -2),
}
# What a weight map can hold.
WEIGHT_KINDS = ("exposure", "inverse_variance", "variance", "relative")


@dataclass
class Planes:
    """Planes of one image as a file or object holds them; None where it has none.

    Parameters
    ----------
    data : `~numpy.ndarray`, shape (ny, nx)
        The image.
    error, variance, inverse_variance : `~numpy.ndarray`, shape (ny, nx), optional
        The uncertainty of each pixel, in the unit of the image to the power 1, 2 or -2.
    mask : `~numpy.ndarray`, shape (ny, nx), optional
        Not 0 where a pixel is not to be used.
    psf : object, optional
        What `~lenssr.imaging.PSF.from_any` takes.
    exposure : `~numpy.ndarray` or float, optional
        In seconds.
    unit : `~astropy.units.Unit` or str, optional
        Unit of the pixels; a str is a spelling of BUNIT.
    wcs : `~astropy.wcs.WCS`, optional
        Place on the sky.
    gain : float, optional
        Electrons per adu.
    zero_point : float, optional
        AB magnitude of one unit; of surface brightness, of one unit over one arcsec2.
    flags : list of str, optional
        What had to be guessed, by names of the table of flags.
    meta : dict, optional
        Keywords of the header that a result keeps.
    weight_kind : str, optional
        What the archive's weight maps hold, also those in files of their own.
    bits : `BitMask`, optional
        What the bits of its masks mean.
    frame : tuple of int, optional
        Shape of the frame that the planes were cut from.
    found : dict of str, optional
        Where each plane and number comes from, in words: ``lenssr inspect`` prints it.
    """

    data: Array
    error: Array | None = None
    variance: Array | None = None
    inverse_variance: Array | None = None
    mask: NDArray[Any] | None = None
    psf: Any = None
    exposure: Array | float | None = None
    unit: u.UnitBase | str | None = None
    wcs: WCS | None = None
    gain: float | None = None
    zero_point: float | None = None
    flags: list[str] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)
    weight_kind: str | None = None
    bits: Any = None
    frame: tuple[int, ...] | None = None
    found: dict[str, str] = field(default_factory=dict)

    def cut(self, values: Any) -> Any:
        """A plane of the whole frame cut as the image was; any other as it is.

        Parameters
        ----------
        values : array
            The plane.

        Returns
        -------
        values : array
        """
        if self.frame is None or np.shape(values) != self.frame:
            return values
        (column, row), (height, width) = self.meta["corner"], self.data.shape
        return values[row : row + height, column : column + width]

    def guess(self, flag: str, what: str) -> None:
        """Note something that had to be assumed.

        Parameters
        ----------
        flag : str
            Name of the flag that the result gets.
        what : str
            What is assumed, in words.
        """
        if flag not in self.flags:
            self.flags.append(flag)
        self.meta.setdefault("assumed", {})[flag] = what


@dataclass(frozen=True)
class Request:
    """What a user says of an image beside the image itself."""

    hdus: Mapping[str, HDUName] | None = None  # names of HDUs by role
    band: str | int | None = None
    centre: Any = None  # place of the lens, as `lenssr.imaging.cutting.sky_place` takes it
    size: Any = None  # of the cutout
    radius: Any = None  # of the field about the lens
    middle: bool = True  # whether the frame is cut so that the centre becomes its middle
    mask_bits: Any = None  # bits that hide a pixel: their names, or an int
    weight_kind: str | None = None
    most_pixels: int | None = None  # a larger frame is refused before it is read
    lazy: bool = False  # whether pixels are read from an open file, section by section

    def __post_init__(self) -> None:
        if self.weight_kind is not None and self.weight_kind not in WEIGHT_KINDS:
            known = ", ".join(map(repr, WEIGHT_KINDS))
            raise InputError(f"weight_kind = {self.weight_kind!r}: give one of {known}")
        if self.size is not None and self.radius is not None:
            raise InputError(f"size = {self.size} and radius = {self.radius}: give one of them")
        if self.size is not None and self.centre is None:
            raise InputError(f"size = {self.size} without centre: give centre=, the lens's place on the sky")

    @property
    def cuts(self) -> bool:
        """Whether a part of known size is all that is read."""
        return self.size is not None or self.radius is not None


def as_image(values: Any, name: str) -> Array:
    """Two-dimensional float64 copy of an image; axes of length 1 are left out where there are more."""
    if np.iscomplexobj(values):
        raise InputError(f"{name} is complex: give its real part or its modulus")
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is a {type(values).__name__}: give a file, NDData or 2-D array") from error
    if array.ndim != 2:
        raise InputError(f"{name} has {array.ndim} dimensions, shape {array.shape}: give a 2-D image")
    if 0 in array.shape:
        raise InputError(f"{name} is empty, shape {array.shape}: give an image")
    return array


def same_shape(plane: Any, shape: tuple[int, ...], name: str) -> None:
    """Refuse a plane of another shape than the image's."""
    if np.shape(plane) != shape:
        raise InputError(f"{name} has shape {np.shape(plane)}, the image {shape}: give planes of one shape")
