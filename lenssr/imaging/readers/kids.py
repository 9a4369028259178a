"""KiDS coadds of AstroWISE: fluxes whose zero point is 0, weights in a file of their own."""

from lenssr.imaging.image_file import ImageFile
from lenssr.imaging.planes import Planes
from lenssr.imaging.readers.registry import register_reader
from lenssr.imaging.readers.standard import standard_planes


def _matches(file: ImageFile) -> bool:
    return file.says("INSTRUME") == "OMEGACAM" and file.says("OBJECT").startswith("KIDS")


@register_reader("kids", "KiDS coadds (OmegaCAM): one unit is AB magnitude 0", _matches)
def read_kids(file: ImageFile) -> Planes:
    """Read a coadd; its weight is an inverse variance (de Jong et al. 2015)."""
    planes = standard_planes(file, weight="inverse_variance")
    if planes.zero_point is None:
        planes.zero_point, planes.found["zero point"] = 0.0, "0 by the archive"
    return planes
