"""NIRC2 at Keck: coadded counts of one exposure, with ITIME and COADDS."""

from lenssr.imaging.image_file import ImageFile
from lenssr.imaging.planes import Planes
from lenssr.imaging.readers.registry import register_reader
from lenssr.imaging.readers.standard import standard_planes

# Electrons per DN (https://www2.keck.hawaii.edu/inst/nirc2/genspecs.html).
GAIN = 4.0


@register_reader(
    "nirc2", "Keck NIRC2 exposures: DN, ITIME x COADDS", lambda file: file.says("INSTRUME") == "NIRC2"
)
def read_nirc2(file: ImageFile) -> Planes:
    """Read an exposure, or a mean of several, in DN."""
    planes = standard_planes(file, unit="DN")
    time, coadds = file.number("ITIME"), file.number("COADDS") or 1.0
    if time:
        planes.exposure, planes.found["exposure"] = time * coadds, f"ITIME x COADDS = {time * coadds:g}"
    if planes.gain is None:
        planes.gain, planes.found["gain"] = GAIN, "4 by the archive"
    if (file.number("NCOMBINE") or 1) < 2:
        planes.flags.append("single_exposure")
    return planes
