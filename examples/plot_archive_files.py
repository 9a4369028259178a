"""
Files as archives write them
============================

Archives call their planes by names of their own: weights that are exposure times or inverse variances,
masks whose bits mean something else everywhere. lenssr reads them by what their headers say, and tells what
it read. This example writes a file as the DAWN JWST Archive does, two bands with inverse variances, and
reads it.
"""

import tempfile
from pathlib import Path

import astropy.units as u
import matplotlib.pyplot as plt
import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from lenssr import PSF, SIE, Observation, PixelGrid, Sersic, Shear, SuperResolver, render
from lenssr.cli import main

# %%
# A cutout in units of 10 nJy, with SCI and WHT of each filter.
n, scale = 60, 0.05
lens = SIE(theta_E=0.95, e1=0.1, e2=-0.05) + Shear(0.03, 0.02)
wcs = WCS(naxis=2)
wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [150.1, 2.2], [(n + 1) / 2] * 2
wcs.wcs.cdelt = [-scale / 3600, scale / 3600]
rng, hdus = np.random.default_rng(1), [fits.PrimaryHDU()]
for band, fwhm, peak in (("F150W", 0.06, 3.0), ("F444W", 0.15, 8.0)):
    source = Sersic(amplitude=peak, r_eff=0.15, n=1, x_0=0.06, y_0=0.1, e1=0.1, e2=0.1)
    clean = render(PixelGrid((n, n), scale), lens=lens, source=source, psf=PSF.from_fwhm(fwhm * u.arcsec))
    sigma = clean.max() / 50
    header = wcs.to_header()
    header.update(TELESCOP="JWST", INSTRUME="NIRCAM", FILTER=band, BUNIT="10.0*nanoJansky")
    planes = {"SCI": clean + rng.normal(0, sigma, clean.shape), "WHT": np.full_like(clean, sigma**-2)}
    hdus += [fits.ImageHDU(plane.astype("f4"), header, name=name) for name, plane in planes.items()]
path = Path(tempfile.mkdtemp()) / "cutout.fits"
fits.HDUList(hdus).writeto(path)

# %%
# ``lenssr inspect`` says what is read, from which HDU and keyword, and what is assumed. (In a shell, that is
# ``lenssr inspect cutout.fits --band F444W --psf-fwhm 0.15arcsec``.)
main(["inspect", str(path), "--band", "F444W", "--psf-fwhm", "0.15arcsec"])

# %%
# In Python the same is an `lenssr.Observation`, or goes into the resolver as it is.
image = Observation.from_any(path, band="F444W", psf=PSF.from_fwhm(0.15 * u.arcsec))
print(image)
result = SuperResolver(source="sersic")(image)
theta_E = result.lens[0].theta_E
print(f"theta_E {theta_E.value:.4f} +- {theta_E.std:.4f} arcsec, true 0.95")
print(result.magnitudes)

# %%
# What was wrong in a file would be seen here first.
result.plot(
    panels=["data", "residual", "image"], figure=plt.figure(figsize=(14.5, 4.6), layout="constrained")
)
plt.show()
