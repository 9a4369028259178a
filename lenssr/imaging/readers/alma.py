"""Interferometers that write Jy/beam: the restoring beam of the header is the PSF."""

import math

import numpy as np

from lenssr._wcs import scale_matrix
from lenssr.imaging.image_file import ImageFile
from lenssr.imaging.planes import Array, Planes
from lenssr.imaging.psf_files import StoredPSF
from lenssr.imaging.readers.registry import register_reader
from lenssr.imaging.readers.standard import standard_planes

# The beam is drawn out to this many of its major FWHM.
REACH = 2.5


@register_reader(
    "interferometer", "ALMA, VLA, ...: Jy/beam, with BMAJ, BMIN, BPA", lambda file: file.has("BMAJ")
)
def read_interferometer(file: ImageFile) -> Planes:
    """Read an image whose brightness has been convolved with its beam, pixels included."""
    planes = standard_planes(file)
    beam = [file.number(name) for name in ("BMAJ", "BMIN")]
    if planes.psf is None and planes.wcs is not None and all(beam):
        major, minor = (float(side) for side in beam if side)
        samples = beam_samples(scale_matrix(planes.wcs), major, minor, file.number("BPA") or 0.0)
        planes.psf = StoredPSF(lambda column, row: samples, includes_pixel=True)
        planes.found["psf"] = f"the beam, {3600 * major:.4g} x {3600 * minor:.4g} arcsec (BMAJ, BMIN, BPA)"
    return planes


def beam_samples(matrix: Array, major: float, minor: float, angle: float) -> Array:
    """Elliptical Gaussian on the pixels of a matrix; FWHMs in its unit, the angle in degrees from north."""
    reach = math.ceil(REACH * major / math.sqrt(abs(np.linalg.det(matrix))))
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    east, north = np.tensordot(matrix, np.stack([columns, rows]), axes=1)
    turn = math.radians(angle)
    along = east * math.sin(turn) + north * math.cos(turn)
    across = east * math.cos(turn) - north * math.sin(turn)
    return np.exp(-4 * math.log(2) * ((along / major) ** 2 + (across / minor) ** 2))
