"""
Critical curves, caustics and images
====================================

Every lens, and every sum of lenses, is a calculator of its own; no image is needed. This one is a galaxy
with shear and a satellite. How many images a quasar behind it has depends on where it is.
"""

import astropy.units as u
import matplotlib.pyplot as plt
import numpy as np

from lenssr import SIE, SIS, Shear

# %%
# The satellite is small, and has a critical curve of its own.
lens = SIE(theta_E=1.2, q=0.7, phi=30 * u.deg) + Shear(gamma1=0.05, gamma2=0.02) + SIS(0.12, x_0=1.5, y_0=0.6)
print(lens.critical_areas())

# %%
# All images of a point source, with what an observer of a quasar wants to know.
images = lens.images(0.1, 0.05, z_lens=0.5, z_source=2.0)
print(images)

# %%
# How likely are four images? The share of the source plane in which a source has at least four.
print(f"at least two images: {lens.cross_section():.3f}, at least four: {lens.cross_section(4):.3f}")

# %%
# Convergence, critical curves, caustics, and the images of the source; then the number of images of a source,
# place by place.
figure, axes = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
lens.plot((0.1, 0.05), ax=axes[0], extent=2.4)
axes[0].set_title("a source and its images")

at = np.linspace(-0.7, 0.7, 15)
counts = [[len(lens.image_positions(x, y)[0]) for x in at] for y in at]
shown = axes[1].pcolormesh(at, at, counts, cmap="viridis", shading="nearest")
for x, y in lens.caustics():
    axes[1].plot(x, y, color="w", linewidth=1)
axes[1].set(aspect="equal", xlim=(-0.7, 0.7), ylim=(-0.7, 0.7), xlabel="x of the source (arcsec)")
axes[1].set_title("number of images")
figure.colorbar(shown, ax=axes[1], shrink=0.8)
plt.show()
