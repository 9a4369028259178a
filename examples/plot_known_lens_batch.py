"""
Many images behind a lens that is known
=======================================

When the lens is known, only the source has to be found, and many images are solved together. This example
takes lenses from the DeepLense simulations, resolves them in one call, and scores them.
"""

import time

import matplotlib.pyplot as plt
import numpy as np

from lenssr import SuperResolver
from lenssr.metrics import bicubic, scores_t
from lenssr.simulation import DeepLense

# %%
# A data set is a sequence: an item holds an image at two resolutions, the noise-free truth, and what made it.
data = DeepLense(lens="sie", noise=True, size=24, seed=5)
items = [data[i] for i in range(len(data))]
print(items[0].low.shape, items[0].truth.shape, items[0].lens)

# %%
# DeepLense samples light at pixel centres, hence ``oversampling=1``. The lens is the same for all; the noise
# is not, for every image has its own exposure. ``map`` solves images of one shape together, and returns
# results in order.
resolver = SuperResolver(scale=2, source="sersic", lens=items[0].lens, oversampling=1)
start = time.perf_counter()
results = resolver.map([item.low for item in items], noise=[item.noise for item in items])
seconds = time.perf_counter() - start
print(f"{1000 * seconds / len(items):.0f} ms an image")
print(f"ok: {sum(result.ok for result in results)} of {len(items)}")

# %%
# Scores against the noise-free truth, beside bicubic interpolation.
ours = [scores_t(result.image.data, item.truth).psnr for result, item in zip(results, items, strict=True)]
plain = [scores_t(bicubic(item.low, 2), item.truth).psnr for item in items]
print(f"lenssr  {np.mean(ours):.1f} dB, worst {min(ours):.1f}")
print(f"bicubic {np.mean(plain):.1f} dB, worst {min(plain):.1f}")

# %%
# Errors should say how far off the results are. Here is where the sources were found, in units of their own
# errors: about two thirds should lie within 1 of zero.
pulls = {}
for name in ("x_0", "y_0", "r_eff", "n"):
    fitted = [getattr(result.source_model, name) for result in results]
    true = [getattr(item.source, name).value for item in items]
    pulls[name] = np.array([(f.value - t) / f.std for f, t in zip(fitted, true, strict=True)])

figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
axes[0].plot(plain, ours, "o")
axes[0].set(xlabel="bicubic [dB]", ylabel="lenssr [dB]", title="PSNR against the truth")
for row, pull in enumerate(pulls.values()):
    axes[1].plot(pull, np.full(len(pull), row), "|", markersize=14)
axes[1].axvspan(-1, 1, color="0.9", zorder=-1)
axes[1].set(
    yticks=range(len(pulls)),
    yticklabels=list(pulls),
    xlabel="(found - true) / error",
    title="sources",
)
plt.show()
