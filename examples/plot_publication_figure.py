"""
A figure for a paper
====================

Panels go into a figure by name, and each into axes of yours. Object and band are in the title, with a scale
bar and, where there is a WCS of the sky, a compass. Vector files stay below 1 MB, for images are kept as
their pixels.
"""

import astropy.units as u
import matplotlib.pyplot as plt
import numpy as np

from lenssr import PixelGrid, SuperResolver
from lenssr.datasets import hst_lens

resolver = SuperResolver(source="sersic", lens_light="sersic", mask="auto")
result = resolver(hst_lens()["F475X"], theta_E=1.3 * u.arcsec)

# %%
# Six panels of the width of a page. ``path="lens.pdf"`` saves them.
result.plot(
    panels=["data", "lens_subtracted", "model", "residual", "image", "source"],
    figure=plt.figure(figsize=(12.5, 7.6), layout="constrained"),
)
plt.show()

# %%
# Or one panel in axes of your own, beside anything else: here the lensed light by the angle around the lens.
figure, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained", width_ratios=(1, 1.2))
result.plot_panel("lens_subtracted", ax=axes[0])

grid = PixelGrid(result.image.shape, 0.02)
x_0, y_0 = result.lens[0].x_0.value, result.lens[0].y_0.value
radius, angle = np.hypot(grid.x - x_0, grid.y - y_0), np.degrees(np.arctan2(grid.y - y_0, grid.x - x_0))
ring, edges = (radius > 0.8) & (radius < 1.8), np.arange(-180, 181, 6)
light = np.histogram(angle[ring], edges, weights=result.lensed_source.data[ring])[0]
axes[1].stairs(light, edges, fill=True, color="C1", alpha=0.6)
axes[1].set(
    xlabel="angle around the lens, from +x (degree)", ylabel="lensed light, 0.8 to 1.8 arcsec (electron / s)"
)
axes[1].set(xlim=(-180, 180), xticks=range(-180, 181, 60))
plt.show()
