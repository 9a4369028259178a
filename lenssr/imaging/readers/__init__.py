"""Readers of archives: one small file a layout, found by what its headers say.

A file is asked for by each reader, the last registered first; where none knows it, the names of its HDUs and
keywords decide (`standard_planes`). To add an archive, add a file here with a function under
`register_reader`, and its name to the import below; in a program of one's own the decorator is enough.
"""

from lenssr.imaging.bit_masks import BitMask
from lenssr.imaging.image_file import ImageFile
from lenssr.imaging.planes import Planes
from lenssr.imaging.readers.registry import READERS, ArchiveReader, find_reader, register_reader
from lenssr.imaging.readers.standard import standard_planes

# Each registers its reader; the first are asked last.
from lenssr.imaging.readers import (  # noqa: I001, F401  isort: skip
    muse,
    alma,
    kids,
    cfht,
    nirc2,
    vega,
    decam,
    des,
    legacy_surveys,
    panstarrs,
    sdss,
    euclid,
    hst,
    jwst,
    dja,
    rubin,
)

__all__ = [
    "READERS",
    "ArchiveReader",
    "BitMask",
    "ImageFile",
    "Planes",
    "find_reader",
    "register_reader",
    "standard_planes",
]
