"""The planes of a `~lenssr.SuperResolution`: declared with their fields, for its FITS form."""

from dataclasses import MISSING, dataclass, field, fields

__all__ = ["Plane", "plane", "planes_of"]


@dataclass(frozen=True)
class Plane:
    """The FITS form of one plane: the names of its HDUs and what a header says about it.

    Attributes
    ----------
    hdu, error, mask, psf : str
        HDUs of its pixels; and of a `~astropy.nddata.CCDData` also of its uncertainty, its mask and its PSF.
    comment : str
    beside : bool
        Whether uncertainty and mask follow it directly in the file; else they come at the end.
    array : bool
        Whether it is a plain array.
    wcs_of : str or None
        Of a plain array, the field whose WCS it has.
    """

    hdu: str
    error: str
    mask: str
    psf: str
    comment: str
    beside: bool = False
    array: bool = False
    wcs_of: str | None = None


def plane(hdu, comment, *, default=MISSING, error=None, mask=None, psf=None, **more):
    """Declare a field of a dataclass as a plane; HDUs of what belongs to it are named after its own."""
    names = (given or f"{hdu}_{end}" for given, end in ((error, "ERR"), (mask, "MASK"), (psf, "PSF")))
    factory = {"default_factory": default} if callable(default) else {"default": default}
    return field(**factory, metadata={"plane": Plane(hdu, *names, comment, **more)})


def planes_of(result):
    """The planes of a result or its class, by field, in the order of their declaration."""
    return {one.name: one.metadata["plane"] for one in fields(result) if "plane" in one.metadata}
