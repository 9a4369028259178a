"""The Community Pipeline of DECam: TPV, ADU, MAGZERO; quality codes and weights in files of their own."""

from lenssr.imaging.image_file import ImageFile
from lenssr.imaging.planes import Planes
from lenssr.imaging.readers.registry import register_reader
from lenssr.imaging.readers.standard import standard_planes


@register_reader(
    "decam", "DECam Community Pipeline: ooi, ood, oow", lambda file: file.says("INSTRUME") == "DECAM"
)
def read_decam(file: ImageFile) -> Planes:
    """Read an exposure or a stack; weights are inverse variances (NOAO Data Handbook)."""
    planes = standard_planes(file, unit="adu", weight="inverse_variance")
    if not file.says("PROCTYPE").startswith("STACK") and (file.number("NCOMBINE") or 1) < 2:
        planes.flags.append("single_exposure")
    return planes
