"""
Simulated lenses
================

Data sets are sequences of lenses whose truth is known. A lens depends on the seed and its number alone, so
that any of them can be made again. Three kinds are shown: those of DeepLense, on which LensSR was tested,
with and without substructure; real galaxies as sources; and a broad population of telescopes.
"""

import matplotlib.pyplot as plt

from lenssr.simulation import BroadLenses, DeepLense, GalaxyLenses

# %%
# An item has the image at two resolutions, the noise-free truth, and all that made it.
item = DeepLense(lens="sie", noise=True, size=10, seed=1)[7]
print(item.low.shape, item.high.shape, item.truth.shape)
print(item.lens)
print(item.source)
print(item.noise)

# %%
# What an observer knows besides the image are keywords for a resolver: ``resolver(item.low, **item.given)``.
print(sorted(item.given))

# %%
# Six of each. Real galaxies come from a picture of the Hubble Deep Field that scikit-image ships.
sets = {
    "DeepLense": DeepLense(lens="sie+shear", noise=True, size=6, seed=3),
    "with subhalos": DeepLense(lens="sie+shear", substructure="cdm", noise=True, size=6, seed=3),
    "real galaxies": GalaxyLenses(size=6, seed=2),
    "broad": BroadLenses(size=6, seed=4),
}
figure, axes = plt.subplots(len(sets), 6, figsize=(11, 7.6), layout="constrained")
for row, (name, data) in zip(axes, sets.items(), strict=True):
    row[0].set_ylabel(name)
    for number, ax in enumerate(row):
        ax.imshow(data[number].low.data, origin="lower", cmap="magma")
        ax.set(xticks=[], yticks=[])
plt.show()
