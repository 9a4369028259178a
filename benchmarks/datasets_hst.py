"""Make the files of `lenssr.datasets`: both HST bands of one lens, cropped about it.

Run it where LENSSR_REAL_DATA names the folder with the real images. It prints the size of what it writes.
"""

import os
import sys
from pathlib import Path

from astropy.io import fits

FOLDER = Path(__file__).parents[1] / "lenssr" / "datasets" / "hst"
NAMES = ("hst_f475x", "hst_f600lp")
# Side in pixels of what is kept: 4.5", room for the arc at 1.35" and for sky around it.
SIDE = 112
PLANES = ("SCI", "ERR", "EXPTIME")


def crop(hdus):
    """Cut the middle of every plane, and move the WCS along; the PSF stays whole."""
    for name in PLANES:
        hdu = hdus[name]
        margins = [(side - SIDE) // 2 for side in hdu.data.shape]
        y, x = (slice(margin, margin + SIDE) for margin in margins)
        hdu.data = hdu.data[y, x]
        if "CRPIX1" in hdu.header:
            hdu.header["CRPIX1"] -= margins[1]
            hdu.header["CRPIX2"] -= margins[0]
    hdus["SCI"].header["HISTORY"] = f"The middle {SIDE} x {SIDE} pixels, cut out for lenssr.datasets."
    return hdus


def make(folder):
    """Write the cropped files."""
    total = 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        with fits.open(f"{folder}/{name}.fits") as hdus:
            crop(hdus).writeto(FOLDER / f"{name}.fits", overwrite=True)
        size = (FOLDER / f"{name}.fits").stat().st_size
        print(f"{name}.fits {size / 1000:.0f} kB")
        total += size
    print(f"together {total / 1000:.0f} kB")


if __name__ == "__main__":
    if "LENSSR_REAL_DATA" not in os.environ:
        sys.exit("LENSSR_REAL_DATA is unset: it names the folder with hst_f475x.fits")
    make(os.environ["LENSSR_REAL_DATA"])
