"""
A network of your own
=====================

A network can draw the source in one pass. The ones that come with lenssr were trained on low-resolution
images alone; this example trains one further on ten images, without a finer image of any of them. It needs
the extra ``train``.
"""

import matplotlib.pyplot as plt
import numpy as np

from lenssr import NetworkSource, SuperResolver
from lenssr.metrics import bicubic, scores_t
from lenssr.simulation import DeepLense

# %%
# Images to learn from, and one that the network never sees. Their lens is known here; else each is fitted
# first.
data = DeepLense(lens="sie", noise=True, size=11, seed=21)
*seen, unseen = (data[i] for i in range(len(data)))
images, noises = [item.low for item in seen], [item.noise for item in seen]
resolver = SuperResolver(source=NetworkSource("relensing"), lens=unseen.lens, oversampling=1)
before = resolver(unseen.low, noise=unseen.noise)

# %%
# In each step some pixels of an image are hidden from the network, and the source that it draws has to
# predict them. A tenth of the pixels is held back from all steps; chi2 of these is the score, and 1 is noise
# alone.
resolver.fine_tune(images, noise=noises, steps=30)
print(resolver.training.scores)

# %%
# The image that it never saw, against the truth. All images are like those of its first training, so it
# gains little; where the scores say that, keep the old weights.
after = resolver(unseen.low, noise=unseen.noise)
drawn = {
    "bicubic": bicubic(unseen.low.data, 2),
    "as it came": before.image.data,
    "fine-tuned": after.image.data,
}
truth = unseen.truth.data
for name, image in drawn.items():
    print(f"{name:12s} {scores_t(image, unseen.truth).psnr:5.1f} dB")

# %%
# ``resolver.save("mine.safetensors")`` keeps it. What each leaves of the truth, all on one scale:
figure, axes = plt.subplots(1, 4, figsize=(13, 3.4), layout="constrained", sharex=True, sharey=True)
axes[0].imshow(truth, origin="lower", cmap="magma")
axes[0].set_title("truth")
limit = np.abs(drawn["bicubic"] - truth).max() / 2
for ax, (name, image) in zip(axes[1:], drawn.items(), strict=True):
    shown = ax.imshow(image - truth, origin="lower", cmap="RdBu_r", vmin=-limit, vmax=limit)
    ax.set_title(f"{name} - truth")
figure.colorbar(shown, ax=axes, shrink=0.8, label="electron / s")
plt.show()
