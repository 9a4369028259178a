"""
What the data allow: draws from the posterior
=============================================

A table of errors is a Gaussian. This example draws from the posterior of a lens in three ways, and shows with
a corner plot where they agree. It needs the extra ``posterior``.
"""

import astropy.units as u
import matplotlib.pyplot as plt
import numpy as np

from lenssr import SIE, Sersic, Shear, SuperResolver
from lenssr.grids import PixelGrid
from lenssr.imaging import render

# %%
# A faint image of a small source: little more than a hundred pixels say anything.
lens = SIE(1.0, e1=0.12, e2=-0.05) + Shear(0.03, 0.02)
source = Sersic(5.0, 0.2, 1.2, 0.1, -0.06, 0.1, 0.0)
grid = PixelGrid((40, 40), 0.09)
noise = 0.012
image = render(grid, lens=lens, source=source, oversampling=1)
image += np.random.default_rng(4).normal(0, noise, grid.shape)

resolver = SuperResolver(source="sersic", lens=lens, fit_lens=True, oversampling=1)
result = resolver(image * u.electron / u.s, noise=noise, pixel_scale=0.09)
print(result)

# %%
# "psis" weighs draws from the Gaussian of the errors by the posterior, with the priors of the fit. Pareto k
# says whether that is enough: it is below 0.7.
draws = result.sample_posterior(1000, seed=1)
print(draws)
print(draws.summary)

# %%
# Four independent ensembles of walkers need no Gaussian. These are short; R-hat says so.
chains = result.sample_posterior(2000, "emcee", seed=1, steps=150)
print(chains)

# %%
# Draws on top of one another, and the truth.
names = ["lens.theta_E_0", "lens.e1_0", "lens.gamma1_1", "source.r_eff", "source.n"]
truth = {
    "lens.theta_E_0": 1.0 * u.arcsec,
    "lens.e1_0": 0.12,
    "lens.gamma1_1": 0.03,
    "source.r_eff": 0.2 * u.arcsec,
    "source.n": 1.2,
}
gaussian = result.sample_posterior(4000, "laplace", seed=1)
figure = plt.figure(figsize=(9, 9))
draws.corner(names, truth=truth, others={"emcee": chains, "laplace": gaussian}, figure=figure)
plt.show()

# %%
# Draws go into the product, and come back with it.
result = result.with_draws(draws)
print(result.draws.interval("lens.theta_E_0"))
print(result.table["lens.theta_E_0", "lens.theta_E_0_err"])
