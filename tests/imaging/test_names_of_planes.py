"""Planes whose names hold a band or a detector belong together, whatever stands between the parts."""

import numpy as np
import pytest
from astropy.io import fits

from lenssr.imaging import Observation

DATA = np.random.default_rng(1).normal(size=(20, 20))


def file_of(names, **cards):
    """Images, errors 2 and 3 times as large, and flags, of two bands or detectors."""
    flags = np.zeros((20, 20), "i4")
    flags[2, 3], flags[4, 5], flags[6, 7] = 1 << 22, 1 << 24, 1 << 7  # NO_DATA, OBJECTS, BAD_COLUMN
    hdus = [fits.PrimaryHDU(header=fits.Header(cards))]
    for factor, (sci, err, mask) in zip((2.0, 3.0), names, strict=True):
        hdus += [fits.ImageHDU(factor * DATA, name=sci), fits.ImageHDU(np.full((20, 20), factor), name=err)]
        hdus += [fits.ImageHDU(flags, name=mask)]
    return fits.HDUList(hdus)


@pytest.mark.parametrize("form", ["{1}.{0}", "{1}_{0}", "{0}_{1}", "{0}-{1}"])
def test_errors_and_masks_are_found_by_the_name(form):
    bands = ("3-4-F", "3-5-F") if "." in form else ("F606W", "F814W")
    names = [[form.format(part, band) for part in ("SCI", "RMS", "FLG")] for band in bands]
    seen = Observation.from_any(file_of(names), hdus={"sci": names[1][0]}, pixel_scale=0.1, unit="adu")
    assert np.all(seen.error == 3)
    assert seen.mask.sum() == 3


def test_bits_of_euclid_are_those_of_its_documents():
    names = [[f"{one}.{part}" for part in ("SCI", "RMS", "FLG")] for one in ("1-1-E", "1-1-F")]
    given = {"hdus": {"sci": "1-1-E.SCI"}, "pixel_scale": 0.1, "unit": "adu"}
    seen = Observation.from_any(file_of(names, TELESCOP="Euclid", INSTRUME="VIS"), **given)
    assert seen.mask[2, 3] and seen.mask[6, 7] and not seen.mask[4, 5]
    # Those of NISP are others, which are not known.
    seen = Observation.from_any(file_of(names, TELESCOP="Euclid", INSTRUME="NISP"), **given)
    assert seen.mask.sum() == 3 and "mask_guessed" in seen.flags
