r"""
Where a lens sends light
========================

A lens is a sum of mass models. This example draws what the lens equation,
:math:`\boldsymbol{\beta} = \boldsymbol{\theta} - \boldsymbol{\alpha}(\boldsymbol{\theta})`, does to a compact
source behind an isothermal ellipsoid with external shear.
"""

import astropy.units as u
import matplotlib.pyplot as plt
import numpy as np

from lenssr.grids import PixelGrid
from lenssr.light import Sersic
from lenssr.mass import SIE, Shear

# %%
# Positions are in arcsec, with the origin at the centre of the image. Quantities go in, and quantities
# come out.
grid = PixelGrid((160, 160), 0.025 * u.arcsec)
x, y = grid.x * u.arcsec, grid.y * u.arcsec

lens = SIE(theta_E=1.2 * u.arcsec, e1=0.1, e2=-0.05) + Shear(gamma1=0.03, gamma2=0.02)
alpha_x, alpha_y = lens.deflection(x, y)
print(alpha_x.unit, np.hypot(alpha_x, alpha_y).max())

# %%
# What the telescope would see without noise and without a PSF is the brightness of the source at the
# positions that the lens equation gives. Surface brightness is conserved: nothing else happens to it.
source = Sersic(amplitude=1, r_eff=0.15, n=1, x_0=0.12, y_0=0.05, e1=0.1, e2=0.1)
arcs = source((x - alpha_x).value, (y - alpha_y).value)
unlensed = source(x.value, y.value)

# %%
# The same source without and with the lens, and the convergence that does it.
half = grid.pixel_scale * grid.shape[0] / 2
frame = {"extent": (-half, half, -half, half), "origin": "lower"}
figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained", sharey=True)
panels = {
    "the source": (unlensed, "viridis"),
    "the lensed source": (arcs, "viridis"),
    "log convergence": (np.log10(lens.convergence(x, y)), "magma"),
}
for ax, (title, (image, colours)) in zip(axes, panels.items(), strict=True):
    shown = ax.imshow(image, cmap=colours, **frame)
    figure.colorbar(shown, ax=ax, shrink=0.8)
    ax.set(title=title, xlabel="x [arcsec]")
axes[0].set_ylabel("y [arcsec]")
step = (slice(8, None, 16),) * 2
axes[2].quiver(
    x[step].value, y[step].value, -alpha_x[step].value, -alpha_y[step].value, color="white", width=0.004
)
plt.show()
