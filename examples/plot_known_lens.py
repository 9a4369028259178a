"""
A real lens that somebody has modelled
======================================

Many lenses have a published model. Give it as ``lens=``: only the source is then free, on a grid here. In
the first band the arc is bright, in the second the galaxy outshines it; so the lens of one band serves the
other.
"""

import matplotlib.pyplot as plt

from lenssr import SIE, Shear, SuperResolver
from lenssr.datasets import hst_lens

# %%
# A model of the lens, as :ref:`sphx_glr_gallery_plot_real_lens.py` or a paper gives it. Ellipticities may
# also be written as ``q=`` and ``phi=``.
lens = SIE(theta_E=1.284, e1=0.239, e2=0.056, x_0=-0.24, y_0=-0.058) + Shear(gamma1=0.078, gamma2=0.028)

# %%
# With a lens that is held, ``source="pixelated"`` is one inversion for each prior that is tried.
resolver = SuperResolver(source="pixelated", prior="curvature", lens=lens, lens_light="sersic", mask="auto")
result = resolver(hst_lens()["F475X"])
print(result)
print("flags:", ", ".join(result.flags))

# %%
# Data without the galaxy, what the lens makes of the source, and the source. Hatched is what the data do not
# tell.
result.plot(
    panels=["lens_subtracted", "image", "source"],
    figure=plt.figure(figsize=(14.5, 4.6), layout="constrained"),
)
plt.show()
