"""How a file is read by the names of its HDUs and keywords, and what readers of archives add to that."""

from __future__ import annotations

import contextlib
from typing import Any

import astropy.units as u
import numpy as np

from lenssr.exceptions import InputError
from lenssr.imaging import psf_files
from lenssr.imaging.archive_units import parse_unit
from lenssr.imaging.bit_masks import BitMask, named_bits, unusable
from lenssr.imaging.cutting import cut_file
from lenssr.imaging.fits_files import shape_of
from lenssr.imaging.image_file import ImageFile, float_plane
from lenssr.imaging.planes import UNCERTAINTIES, Planes, as_image, same_shape
from lenssr.imaging.weight_maps import kind_of_weight, scaled_to_sky, stated_kind
from lenssr.imaging.zero_points import zero_point_of_header

__all__ = ["standard_planes"]

# Keywords that a result keeps.
KEPT = (
    "TELESCOP INSTRUME DETECTOR CAMERA FILTER FILTER1 FILTER2 PUPIL BAND OBJECT TARGNAME DATE-OBS PROPOSID "
    "ROOTNAME PHOTFLAM PHOTPLAM PHOTFNU PHOTMODE MAGZERO FLUXMAG0 SURVEY"
).split()
_UNCERTAINTY_ROLES = {"err": ("error", 1), "var": ("variance", 2), "ivm": ("inverse_variance", -2)}
# Bits of a mask whose header names them, that make a pixel unusable.
BAD_NAMES = (
    "BAD SAT SATURATED INTRP CR COSMIC COSMICRAY EDGE NO_DATA NODATA SUSPECT UNMASKEDNAN DETECTOR FLAT DARK "
    "BLANK CTE LOW BAD_PIXEL"
).split()
# Electrons, counts: what a header calls an exposure.
_EXPOSURES = ("EXPTIME", "TEXPTIME", "XPOSURE", "EFFEXPTM", "ITIME")
_GAINS = ("GAIN", "CCDGAIN", "EGAIN", "GAINEFF", "ARAWGAIN")


def standard_planes(
    file: ImageFile,
    *,
    unit: str | u.UnitBase | None = None,
    weight: str | None = None,
    bits: BitMask | None = None,
    names: dict[str, tuple[str, ...]] | None = None,
) -> Planes:
    """Planes of a file by the names of its HDUs and keywords.

    Parameters
    ----------
    file : `ImageFile`
        The file.
    unit : str or `~astropy.units.Unit`, optional
        Unit of the pixels where BUNIT does not say.
    weight : {"exposure", "inverse_variance", "variance", "relative"}, optional
        What the archive's weight map holds. By default headers state it, or it is guessed and flagged.
    bits : `BitMask`, optional
        What the bits of the mask mean. By default the names in its header, else all that is not 0 is bad.
    names : dict, optional
        Names of HDUs by role, to look for before the usual ones.

    Returns
    -------
    planes : `Planes`

    Raises
    ------
    InputError
        If no HDU is the image, several are, or a plane does not fit.
    """
    names = names or {}
    science = file.science
    file.window, wcs = cut_file(file)
    label = file.label(science)
    planes = Planes(as_image(file.read(science), label), wcs=wcs, found={"image": label})
    planes.weight_kind, planes.bits = weight, bits
    if file.guessed is not None:
        planes.guess("hdu_guessed", file.guessed)
    if file.window is not None:
        rows, columns = file.window
        planes.found["cut"] = f"rows {rows.start} to {rows.stop}, columns {columns.start} to {columns.stop}"
        planes.meta["corner"] = [int(columns.start), int(rows.start)]
        planes.frame = shape_of(science)[-2:]
    read_keywords(planes, file)
    read_filter(planes, file)
    if planes.unit is None and unit is not None:
        planes.unit, planes.found["unit"] = unit, "the archive"
    for read in (_read_uncertainty, _read_exposure, _read_psf):
        read(planes, file, names)
    read_weight(planes, file, weight, names.get("wht", ()))
    read_mask(planes, file, bits, names.get("mask", ()))
    read_zero_point(planes, file)
    return planes


def read_keywords(planes: Planes, file: ImageFile) -> None:
    """Fill in unit, exposure, gain and what a result keeps."""
    spelled = file.keyword("BUNIT")
    if spelled is not None:
        planes.unit, planes.found["unit"] = str(spelled), f"BUNIT = {spelled}"
    exposure, name = file.numbered(*_EXPOSURES)
    if exposure is not None and exposure > 0:
        planes.exposure, planes.found["exposure"] = exposure, f"{name} = {exposure:g}"
    planes.gain, name = file.numbered(*_GAINS)
    if planes.gain is not None:
        planes.found["gain"] = f"{name} = {planes.gain:g}"
    for name in KEPT:
        value = file.keyword(name)
        if isinstance(value, (str, int, float)):
            planes.meta[name] = value


def read_filter(planes: Planes, file: ImageFile) -> None:
    """Name the filter, where FILTER does not: of several wheels the one that is not clear, or the plane."""
    if file.plane is not None and not str(file.request.band).isdigit():
        planes.meta["FILTER"] = str(file.request.band)
    if str(planes.meta.get("FILTER", "")).strip():
        wheel = str(planes.meta.get("PUPIL", "")).strip()
        # JWST has narrow filters in the wheel of the pupil.
        if file.says("TELESCOP") == "JWST" and wheel.upper().startswith("F"):
            planes.meta["FILTER"] = wheel
        return
    for name in ("FILTER1", "FILTER2", "BAND", "FILTNAM", "PUPIL"):
        value = str(file.keyword(name) or "").strip()
        if value and not value.upper().startswith(("CLEAR", "N/A", "OPEN")):
            planes.meta["FILTER"] = value
            return


def unit_of(planes: Planes) -> u.UnitBase | None:
    """The unit of the pixels, where it is known."""
    if planes.unit is None:
        return None
    with contextlib.suppress(InputError):
        return parse_unit(planes.unit)
    return None


def read_zero_point(planes: Planes, file: ImageFile) -> None:
    """Fill in the AB magnitude of one unit from the headers."""
    exposure = planes.exposure
    if isinstance(exposure, np.ndarray):
        exposure = float(np.median(exposure))
    planes.zero_point, name = zero_point_of_header(file, unit_of(planes), exposure)
    if planes.zero_point is not None:
        planes.found["zero point"] = f"{planes.zero_point:.4f} by {name}"


# ---------------------------------------------------------------- errors


def in_unit_of_image(plane: Any, spelled: Any, unit: u.UnitBase | None, power: int, name: str) -> Any:
    """An error plane in the image's unit to a power, where both units are known.

    Archives write the unit of a variance as that of the image or as its square: both are understood.
    """
    text = "" if spelled is None else str(spelled).strip()
    if not text or unit is None or unit == u.dimensionless_unscaled:
        return plane
    own = parse_unit(text)
    if own == u.dimensionless_unscaled:
        return plane
    for written in (power, 1):
        if own.is_equivalent(unit**written):
            return plane * own.to(unit**written) ** (power / written)
    raise InputError(f"{name} has BUNIT {text!r}, the image {unit}: correct one, or give unit=")


def _read_uncertainty(planes: Planes, file: ImageFile, names: dict[str, tuple[str, ...]]) -> None:
    unit = unit_of(planes)
    uncertain = next((hdu for hdu in file.hdus if hdu.name == "UNCERT" and hdu.is_image), None)
    if uncertain is not None and uncertain is not file.science:
        utype = uncertain.header.get("UTYPE", "StdDevUncertainty")
        for kind, (field, power) in UNCERTAINTIES.items():
            if kind.__name__ == utype:
                set_error(planes, file, uncertain, field, power, unit)
    for role, (field, power) in _UNCERTAINTY_ROLES.items():
        hdu = file.companion(role, names.get(role, ()))
        if hdu is not None and hdu is not file.science:
            set_error(planes, file, hdu, field, power, unit)


def set_error(
    planes: Planes, file: ImageFile, hdu: Any, field: str, power: int, unit: u.UnitBase | None
) -> None:
    """Read one plane of errors."""
    label = file.label(hdu)
    plane = float_plane(file.read(hdu))
    spelled = hdu.header.get("BUNIT")
    setattr(planes, field, in_unit_of_image(plane, spelled, unit, power, label))
    planes.found[field.replace("_", " ")] = label


def _read_exposure(planes: Planes, file: ImageFile, names: dict[str, tuple[str, ...]]) -> None:
    hdu = file.companion("exptime", names.get("exptime", ()))
    if hdu is not None and hdu is not file.science:
        planes.exposure, planes.found["exposure"] = float_plane(file.read(hdu)), file.label(hdu)


def read_weight(planes: Planes, file: ImageFile, kind: str | None, names: tuple[str, ...] = ()) -> None:
    """Read a weight map, as what the user, the archive or the headers say that it is."""
    hdu = file.companion("wht", names)
    if hdu is None or hdu is file.science:
        return
    plane, label = float_plane(file.read(hdu)), file.label(hdu)
    same_shape(plane, planes.data.shape, f"the weight map ({label})")
    stated, where = stated_kind([hdu.header, *file.headers])
    if file.request.weight_kind is not None:
        kind, where = file.request.weight_kind, "you"
    elif stated is not None:
        kind = stated
    elif kind is not None:
        where = "the archive"
    use_weight(planes, plane, kind, label, where)


def use_weight(planes: Planes, plane: Any, kind: str | None, label: str, where: str = "") -> None:
    """Make a weight map the exposure, the inverse variance or the variance; no weight hides a pixel."""
    empty = ~(np.isfinite(plane) & (plane > 0))
    if kind is None:
        seconds = planes.exposure if isinstance(planes.exposure, float) else None
        kind, where, guessed = kind_of_weight(plane, planes.data, seconds)
        if guessed and not has_error(planes):
            planes.guess("weight_guessed", f"{label} is {kind.replace('_', ' ')}: {where}")
    elif kind == "relative" and not has_error(planes):
        planes.guess("weight_guessed", f"{label} is relative: its scale is from the sky's rms")
    planes.found["weight"] = f"{label}, {kind.replace('_', ' ')} by {where}"
    if kind == "exposure" and not isinstance(planes.exposure, np.ndarray):
        planes.exposure, planes.found["exposure"] = plane, label
    elif kind == "variance" and not has_error(planes):
        planes.variance = plane
    elif kind in ("inverse_variance", "relative") and not has_error(planes):
        planes.inverse_variance = scaled_to_sky(plane, planes.data) if kind == "relative" else plane
    if planes.error is not None:  # pixels without an error are hidden, and counted, as such
        empty &= np.isfinite(planes.error) & (planes.error > 0)
    if kind != "variance":
        hide(planes, empty, f"{label} is 0")


def has_error(planes: Planes) -> bool:
    """Whether some plane of errors is there."""
    return any(getattr(planes, field) is not None for field, _ in UNCERTAINTIES.values())


# ---------------------------------------------------------------- mask, PSF


def hide(planes: Planes, hidden: Any, why: str) -> None:
    """Add pixels to the mask."""
    if not hidden.any():
        return
    planes.mask = hidden if planes.mask is None else (np.asarray(planes.mask) != 0) | hidden
    planes.meta.setdefault("hidden", {})[why] = int(hidden.sum())


def read_mask(planes: Planes, file: ImageFile, bits: BitMask | None, names: tuple[str, ...] = ()) -> None:
    """Read the plane of bits, as what its header or the archive says that they mean."""
    hdu = file.companion("mask", names)
    if hdu is not None and hdu is not file.science:
        use_mask(planes, file.read(hdu), bits_of_header(hdu.header) or bits, file.request, file.label(hdu))


def bits_of_header(header: Any) -> BitMask | None:
    """Meaning of the bits of a mask whose header names them."""
    known = named_bits(header)
    return BitMask(known, tuple(BAD_NAMES), "the header") if known else None


def use_mask(planes: Planes, plane: Any, bits: BitMask | None, request: Any, label: str) -> None:
    """Hide the pixels whose bits say that they are unusable."""
    same_shape(plane, planes.data.shape, f"the image's mask ({label})")
    hidden, told, guessed = unusable(plane, bits, request.mask_bits)
    planes.found["mask"] = f"{label}, {told}"
    planes.meta["mask_bits"] = told
    if guessed:
        planes.guess("mask_guessed", f"{label} has bits of unknown meaning: {told} hides a pixel")
    hide(planes, hidden, label)


def _read_psf(planes: Planes, file: ImageFile, names: dict[str, tuple[str, ...]]) -> None:
    hdu = file.companion("psf", names.get("psf", ()))
    if hdu is not None and hdu is not file.science:
        planes.psf, planes.found["psf"] = psf_files.StoredPSF.of_image(hdu), file.label(hdu)
        planes.found["psf"] += planes.psf.sampling
