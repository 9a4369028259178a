"""
One real lens
=============

HST saw this lens with pixels of 0.04 arcsec. The image comes with lenssr. Nothing is known of the lens but
that its arc lies some 1.3 arcsec from the galaxy, which anybody sees.
"""

import astropy.units as u
import matplotlib.pyplot as plt

from lenssr import Observation, SuperResolver
from lenssr.datasets import hst_lens

# %%
# Look at what is in the file first: unit, noise, PSF, and what had to be guessed.
image = Observation.from_any(hst_lens()["F475X"])
print(image)

# %%
# The lens galaxy shines, so its light is fitted, and other objects are masked. ``theta_E=`` is where the
# search begins; without it the search looks at every radius, which takes longer.
resolver = SuperResolver(source="sersic", lens_light="sersic", mask="auto")
result = resolver(image, theta_E=1.3 * u.arcsec)

# %%
# The verdict comes first. Here it is "not ok": one Sérsic for the source does not explain the arc
# (``bad_arc_chi2``), which has structure. The Einstein radius is right nevertheless.
print(result.summary())

# %%
# The residual shows what is left. ``source="pixelated"`` or ``"perturbed_sersic"``, and Gaussians
# for the galaxy (``lens_light=["mge", "mge"]``), explain it, and take a minute: ``lenssr demo`` does.
result.plot(figure=plt.figure(figsize=(15, 9.2), layout="constrained"))
plt.show()
