"""
Two bands of one lens
=====================

A lens bends light of all colours alike. Images in several bands therefore share the lens, and each has a
source of its own. Here the source is red in the middle and blue outside, and the second telescope has a
wider PSF.
"""

import astropy.units as u
import matplotlib.pyplot as plt
import numpy as np
from astropy.nddata import CCDData, StdDevUncertainty

from lenssr import PSF, SIE, PixelGrid, Sersic, Shear, SuperResolver, render

# %%
# Two images of one lens, simulated.
lens = SIE(theta_E=1.0, e1=0.1, e2=-0.05) + Shear(gamma1=0.03, gamma2=0.02)
grid = PixelGrid((44, 44), 0.08 * u.arcsec)
disc = Sersic(amplitude=4, r_eff=0.25, n=1, x_0=0.06, y_0=0.1, e1=0.2, e2=0.1)
bulge = Sersic(amplitude=20, r_eff=0.06, n=1.5, x_0=0.06, y_0=0.1)
psf = {"F606W": 0.1 * u.arcsec, "F160W": 0.16 * u.arcsec}
sources = {"F606W": [disc], "F160W": [disc, bulge]}

rng, images = np.random.default_rng(1), {}
for band, parts in sources.items():
    light = sum(render(grid, lens=lens, source=part, psf=PSF.from_fwhm(psf[band])) for part in parts)
    noisy = light + rng.normal(0, 0.003, light.shape)
    sigma = StdDevUncertainty(np.full(light.shape, 0.003))
    images[band] = CCDData(noisy, unit="electron/s", uncertainty=sigma)

# %%
# A dict of images is one lens. ``theta_E=`` says where the search begins.
resolver = SuperResolver(source="pixelated", prior="curvature")
result = resolver(images, psf=psf, pixel_scale=0.08 * u.arcsec, theta_E=1.0)
print(result.summary())

# %%
# The lens is shared, with errors of both bands; each band has an image and a source of its own.
theta_E = result.lens[0].theta_E
print(f"theta_E {theta_E.value:.4f} +- {theta_E.std:.4f} arcsec, true 1")
for band, one in result.bands.items():
    print(band, one.image.shape, one.source.unit, f"reduced chi2 {one.reduced_chi2:.3f}")

# %%
# A row for each band, and one in colour.
result.plot(figure=plt.figure(figsize=(13, 12), layout="constrained"), panels=["data", "image", "source"])
plt.show()
