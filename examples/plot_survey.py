"""
A survey
========

Many lenses are a table in, and a table and a page out, in a folder. A run that is stopped goes on where it
was. This survey has four simulated lenses and one file that is damaged.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
from astropy.table import Table

from lenssr import SuperResolver
from lenssr.simulation import LensPopulation
from lenssr.survey import Survey

# %%
# Four images in a folder, and a file that is none.
folder = Path(tempfile.mkdtemp())
data = LensPopulation(size=4, seed=6, lens_light=False)
files = [data.write(number, folder).name for number in range(len(data))]
(folder / "damaged.fits").write_text("no image")
names = [f"lens{number}" for number in range(len(data))]
Table({"id": [*names, "damaged"], "file": [*files, "damaged.fits"]}).write(folder / "catalogue.ecsv")

# %%
# ``jobs=4`` would take four processes; ``lenssr survey catalogue.ecsv -o run`` does the same. What fails
# costs its own row. These lenses are simulated without light of their galaxies.
resolver = SuperResolver(source="sersic", lens_light=None)
survey = Survey(folder / "catalogue.ecsv", folder / "run", resolver=resolver)
summary = survey.run()
print(summary.text())

# %%
# The catalogue has a row for each lens, with units and errors.
catalogue = Table.read(folder / "run" / "catalogue.ecsv")
print(catalogue["id", "grade", "R_E", "R_E_err", "reduced_chi2"])

# %%
# ``run/index.html`` shows these thumbnails, sorts and filters: data, lens subtracted, super-resolved, source.
strips = sorted((folder / "run" / "thumbnails").rglob("*.jpg"))
figure, axes = plt.subplots(2, 2, figsize=(10, 3), layout="constrained")
for ax, strip in zip(axes.flat, strips, strict=True):
    ax.imshow(plt.imread(strip))
    ax.set_title(strip.stem, fontsize="small")
    ax.set_axis_off()
plt.show()
