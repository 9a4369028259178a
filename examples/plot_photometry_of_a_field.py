"""
Photometry of a field
=====================

`lenssr.SersicPhotometry` fits Sérsic profiles to galaxies, with the manners of photutils: an image goes in,
a table with a row for each galaxy comes out. This example simulates a field of twenty galaxies, detects and
measures them, and compares the table with the truth.
"""

import astropy.units as u
import matplotlib.pyplot as plt
import numpy as np
from astropy.modeling.models import Sersic2D
from astropy.nddata import CCDData, StdDevUncertainty
from scipy.signal import fftconvolve

from lenssr import PSF, SersicPhotometry

# %%
# A field of galaxies of all sizes and shapes, behind a PSF of 2.5 pixels.
rng = np.random.default_rng(4)
y, x = np.indices((300, 400))
truth, sky = [], np.zeros(x.shape)
for row in range(4):
    for column in range(5):
        place = 40 + 80 * column + rng.uniform(-12, 12), 38 + 75 * row + rng.uniform(-12, 12)
        shape = {"r_eff": rng.uniform(2.5, 6), "n": rng.uniform(0.8, 3), "ellip": rng.uniform(0, 0.6)}
        galaxy = Sersic2D(
            rng.uniform(0.6, 4), x_0=place[0], y_0=place[1], theta=rng.uniform(0, np.pi), **shape
        )
        truth.append(galaxy)
        # Five samples along a pixel: Sérsics are steep.
        offsets = (np.arange(5) - 2) / 5
        sky += np.mean([galaxy(x + dx, y + dy) for dx in offsets for dy in offsets], axis=0)
kernel = PSF.from_fwhm(2.5 * u.arcsec).kernel(1.0)
sigma = 0.03
image = CCDData(
    fftconvolve(sky, kernel, mode="same") + rng.normal(0, sigma, sky.shape),
    unit="electron/s",
    uncertainty=StdDevUncertainty(np.full(sky.shape, sigma)),
)

# %%
# Galaxies are detected where no positions are given, and each is fitted in a box of 51 pixels.
phot = SersicPhotometry(psf=2.5 * u.pix)
table = phot(image)
print(table["id", "x", "y", "r_eff", "n", "ellip", "flags"][:6])

# %%
# Look at the residual before believing a row: galaxies are outlined, and flagged ones are blue.
phot.plot(figure=plt.figure(figsize=(13.8, 3.8), layout="constrained"))
plt.show()

# %%
# What was found over the truth, matched by position. The errors are those of the table.
figure, axes = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
centres = np.array([(galaxy.x_0.value, galaxy.y_0.value) for galaxy in truth])
for ax, name in zip(axes, ("r_eff", "n", "ellip"), strict=True):
    for found in table:
        distance = np.hypot(*(centres - [found["x"], found["y"]]).T)
        if distance.min() < 3:
            true = getattr(truth[np.argmin(distance)], name).value
            ax.errorbar(true, found[name], found[f"{name}_err"], fmt="o", color="C0", markersize=4)
    ax.axline((0, 0), slope=1, color="0.6", zorder=-1)
    ax.set(xlabel=f"true {name}", ylabel=f"found {name}")
plt.show()
