"""Legacy Surveys: cubes of bands of the viewer, images and inverse variances of bricks; nanomaggies."""

from lenssr.imaging.bit_masks import BitMask
from lenssr.imaging.fits_files import shape_of
from lenssr.imaging.image_file import ImageFile
from lenssr.imaging.planes import Planes
from lenssr.imaging.readers.registry import register_reader
from lenssr.imaging.readers.standard import standard_planes

# https://www.legacysurvey.org/dr9/bitmasks: the bits of bright stars and of neighbouring bricks are no
# defects.
_NAMES = "NPRIMARY BRIGHT SATUR_G SATUR_R SATUR_Z ALLMASK_G ALLMASK_R ALLMASK_Z WISEM1 WISEM2 BAILOUT".split()
BITS = BitMask(
    {name: 1 << bit for bit, name in enumerate(_NAMES)},
    ("SATUR_G", "SATUR_R", "SATUR_Z", "ALLMASK_G", "ALLMASK_R", "ALLMASK_Z"),
    "legacysurvey.org",
)


def _matches(file: ImageFile) -> bool:
    survey = "LEGACY" in file.says("SURVEY") or "LEGACY" in file.says("IMTYPE")
    return survey or (file.has("BRICK", "BRICKNAM") and file.has("BANDS", "FILTER", "IMAGETYP"))


@register_reader(
    "legacy-surveys", "Legacy Surveys cutouts (cubes of bands) and bricks: nanomaggies", _matches
)
def read_legacy_surveys(file: ImageFile) -> Planes:
    """Read a band; a second plane of the same shape without a name is the inverse variance."""
    images = [number for number, hdu in enumerate(file.hdus) if len(shape_of(hdu)) >= 2]
    if "sci" not in file.chosen and len(images) > 1:
        first, *others = images
        same = [i for i in others if shape_of(file.hdus[i]) == shape_of(file.hdus[first])]
        if same and not any(file.hdus[i].name for i in (first, *same) if i):
            file.chosen["sci"] = first
            file.chosen.setdefault("ivm", same[0])
    return standard_planes(file, unit="nanomaggy", bits=BITS)
