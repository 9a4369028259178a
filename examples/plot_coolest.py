"""
Models for other codes: COOLEST
===============================

COOLEST is the format that lens-modelling codes share. A result becomes a template, which lenstronomy,
PyAutoLens, VKL and others read; a template of another code becomes a result. Single models also go to
lenstronomy and PyAutoLens. This example needs the extra ``coolest``.
"""

import json
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from lenssr import SuperResolution, SuperResolver
from lenssr.mass import from_coolest, from_lenstronomy
from lenssr.simulation import LensPopulation

# %%
# A lens that is resolved.
item = LensPopulation(size=1, seed=6, lens_light=False)[0]
result = SuperResolver(source="sersic")(item.low, **item.given)
print(result)

# %%
# The template, and the files beside it: data, errors, mask, PSF, and draws.
folder = Path(tempfile.mkdtemp())
result.to_coolest(folder / "lens.json", z_lens=0.5, z_source=1.5)
print(sorted(path.name for path in folder.iterdir()))
for entity in json.loads((folder / "lens.json").read_text())["lensing_entities"]:
    print(entity["type"], entity["name"], [part["type"] for part in entity.get("mass_model", [])])

# %%
# And back: the lens alone, or all of it, rendered by lenssr. The second has no errors and is not judged.
print(from_coolest(folder / "lens.json"))
again = SuperResolution.from_coolest(folder / "lens.json")
difference = np.abs(again.model_image.data - result.model_image.data).max() / result.model_image.data.max()
print(f"largest difference of the model: {difference:.1e} of its peak")

# %%
# To lenstronomy and back needs neither file nor lenstronomy.
options, kwargs = result.lens.to_lenstronomy()
print(options["lens_model_list"])
print(from_lenstronomy(options["lens_model_list"], kwargs))

# %%
# Both models beside the data.
images = {"data": result.data, "model": result.model_image, "model from the template": again.model_image}
figure, axes = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained", sharex=True, sharey=True)
for ax, (title, image) in zip(axes, images.items(), strict=True):
    ax.imshow(image.data, origin="lower", cmap="magma", vmin=0, vmax=result.data.data.max())
    ax.set_title(title)
plt.show()
