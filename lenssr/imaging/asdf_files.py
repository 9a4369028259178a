"""Images in ASDF files, as those of Roman, with their gwcs; the extra ``jwst`` installs what reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from os import PathLike
from typing import Any

import astropy.units as u
import numpy as np
from astropy.nddata import NDData, StdDevUncertainty, VarianceUncertainty

from lenssr._files import local_file
from lenssr._limits import check_memory
from lenssr.exceptions import InputError

__all__ = ["read_asdf"]

# Bytes in memory for one of the file: arrays as stored, and in double precision.
MEMORY_FACTOR = 4
_ERRORS = {"err": StdDevUncertainty, "var": VarianceUncertainty}


def read_asdf(path: str | PathLike[str]) -> NDData:
    """Image of an ASDF file: the node with ``data``, with its ``err``, ``dq``, unit and WCS.

    Raises
    ------
    InputError
        If asdf is not installed, or the file has no such node or cannot be read.
    """
    try:
        import asdf
    except ImportError as error:
        raise InputError(f"{path} is an ASDF file: install lenssr[jwst], which reads them") from error
    place = local_file(path)
    check_memory(MEMORY_FACTOR * place.stat().st_size, str(place), "give a smaller file")
    try:
        with asdf.open(place, memmap=False, lazy_load=False) as file:
            node = next(_nodes(file.tree), None)
            if node is None:
                raise InputError(
                    f"{path} has no image: an ASDF file needs a node with data, such as roman.data"
                )
            return _as_nddata(node)
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 - asdf raises what its many converters do
        raise InputError(f"{path} is not a readable ASDF file ({str(error)[:120]}): give one") from error


def _nodes(tree: Any, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """Nodes of a tree that hold an image."""
    if not isinstance(tree, Mapping) or depth > 4:
        return
    if "data" in tree and np.ndim(tree["data"]) == 2:
        yield tree
    for value in tree.values():
        yield from _nodes(value, depth + 1)


def _as_nddata(node: Mapping[str, Any]) -> NDData:
    meta = node.get("meta", {})
    wcs = node.get("wcs", meta.get("wcs") if isinstance(meta, Mapping) else None)
    values = node["data"]
    unit = getattr(values, "unit", None) or node.get("unit")
    uncertainty = None
    for name, kind in _ERRORS.items():
        if uncertainty is None and name in node and np.shape(node[name]) == np.shape(values):
            uncertainty = kind(np.asarray(u.Quantity(node[name]).value))
    quality = node.get("dq")
    # Bit 0 of JWST's and Roman's flags is DO_NOT_USE.
    mask = None if quality is None else (np.asarray(quality) & 1) != 0
    data = np.asarray(u.Quantity(values).value)
    return NDData(data, unit=unit, wcs=wcs, mask=mask, uncertainty=uncertainty)
