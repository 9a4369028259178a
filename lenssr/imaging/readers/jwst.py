"""JWST: i2d mosaics and cal exposures; a pixel is unusable where DQ says DO_NOT_USE."""

from lenssr.imaging.bit_masks import BitMask
from lenssr.imaging.image_file import ImageFile
from lenssr.imaging.planes import Planes
from lenssr.imaging.readers.registry import register_reader
from lenssr.imaging.readers.standard import standard_planes

# jwst.datamodels.dqflags: jumps, warm pixels and partial saturation were corrected.
BITS = BitMask(
    {
        "DO_NOT_USE": 1, "SATURATED": 2, "JUMP_DET": 4, "DROPOUT": 8, "OUTLIER": 16, "PERSISTENCE": 32,
        "NON_SCIENCE": 512, "DEAD": 1024, "HOT": 2048, "WARM": 4096,
    },
    ("DO_NOT_USE", "NON_SCIENCE"),
    "jwst.datamodels.dqflags",
)  # fmt: skip


@register_reader("jwst", "JWST i2d and cal: SCI, ERR, DQ, WHT", lambda file: file.says("TELESCOP") == "JWST")
def read_jwst(file: ImageFile) -> Planes:
    """Read a mosaic or one calibrated exposure."""
    planes = standard_planes(file, bits=BITS)
    names = {hdu.name for hdu in file.hdus}
    if "DQ" in names and not names & {"WHT", "CON"}:
        planes.flags.append("single_exposure")
    return planes
