"""Images of one lens by band and exposure, as users give them: which they are, and what belongs to each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Number
from typing import Any

from astropy.io import fits

from lenssr._files import split_band
from lenssr.exceptions import InputError

__all__ = ["exposures_of", "group_of_files", "is_group", "of_exposure"]

# Options that are lists themselves.
_LISTS = ("mask_bits", "centre", "size")


def is_group(image: Any, band: Any = None) -> bool:
    """Whether an image is a dict of several bands, or of exposures of one.

    A dict of one image by the name of its band is that image, as is one of which ``band`` names one.
    """
    if not isinstance(image, Mapping) or isinstance(image, fits.Header):
        return False
    if band is not None and not isinstance(band, Mapping):
        return False
    return len(image) > 1 or any(_is_list(one) for one in image.values())


def _is_list(image: Any) -> bool:
    """Whether an image is a list of exposures, rather than of rows of numbers."""
    if not isinstance(image, list) or isinstance(image, fits.HDUList):
        return False
    first = image[0] if image else None
    rows = isinstance(first, (Number, list)) or getattr(first, "ndim", 2) == 1
    return not rows


def exposures_of(group: Mapping[Any, Any]) -> dict[str, list[Any]]:
    """The exposures of each band, a list each.

    Raises
    ------
    InputError
        If a band has none, or two names are the same but for their type.
    """
    found = {}
    for name, images in group.items():
        some = list(images) if _is_list(images) else [images]
        if not some:
            raise InputError(f"the band {name!r} has no exposures: give one or more, or leave it out")
        if str(name) in found:
            raise InputError(f"there are two bands {str(name)!r}: give each a name of its own")
        found[str(name)] = some
    return found


def of_exposure(value: Any, name: str, bands: Mapping[str, Sequence[Any]], band: str, number: int) -> Any:
    """What an option says for one exposure: by band where it is a dict of bands, and a list for several.

    Raises
    ------
    InputError
        If a list has another number of entries than the band has exposures, or a dict names bands that are
        not there.
    """
    if isinstance(value, Mapping) and value and not isinstance(value, fits.Header):
        known = {str(key): one for key, one in value.items()}
        if any(key in bands for key in known):
            if wrong := sorted(set(known) - set(bands)):
                raise InputError(f"{name} names the band {wrong[0]!r}: there are {', '.join(bands)}")
            value = known.get(band)
    count = len(bands[band])
    if isinstance(value, list) and name not in _LISTS and not (value and isinstance(value[0], list)):
        if len(value) != count:
            raise InputError(
                f"{name} has {len(value)} entries for {count} exposures of {band}: give one each"
            )
        return value[number]
    return value


def group_of_files(names: Sequence[str], hdus: Mapping[str, Any] | None = None) -> dict[str, list[str]]:
    """Files of a command line by band: ``NAME=FILE``, or by their keyword FILTER.

    ``hdus`` are as in `~lenssr.imaging.Observation.from_any`.

    Raises
    ------
    InputError
        If a file does not say its filter.
    """
    from lenssr.imaging.planes import Request
    from lenssr.imaging.reading import read_planes

    found: dict[str, list[str]] = {}
    for given in names:
        band, path = split_band(given)
        if band is None:
            said = {str(key).lower(): value for key, value in read_planes(path, Request(hdus)).meta.items()}
            band = str(said.get("filter", "")).strip()
            if not band:
                raise InputError(f"{path} does not say its filter: give NAME={path}")
        found.setdefault(band, []).append(path)
    return found
