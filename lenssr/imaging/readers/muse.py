"""MUSE at the VLT: DATA and STAT, a variance, in 1e-20 erg/s/cm2/Angstrom; images, and planes of cubes."""

from lenssr.imaging.image_file import ImageFile
from lenssr.imaging.planes import Planes
from lenssr.imaging.readers.registry import register_reader
from lenssr.imaging.readers.standard import standard_planes


@register_reader("muse", "MUSE images and cubes: DATA, STAT", lambda file: "MUSE" in file.says("INSTRUME"))
def read_muse(file: ImageFile) -> Planes:
    """Read an image, or one plane of a cube."""
    return standard_planes(file)
