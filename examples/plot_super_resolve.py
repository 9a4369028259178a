r"""
Super-resolve a lens that nobody has modelled
=============================================

A telescope sees a lens with pixels of 0.08 arcsec. This example simulates such an image, super-resolves it
without being told anything about the lens, and compares the result with the truth and with bicubic
interpolation.
"""

import astropy.units as u
import matplotlib.pyplot as plt
import numpy as np

from lenssr import PSF, SIE, PixelGrid, Sersic, Shear, SuperResolver, render
from lenssr.imaging import PoissonNoise
from lenssr.metrics import bicubic, scores_t

# %%
# The lens is an isothermal ellipsoid with external shear, the source compact. The truth is the same scene
# with pixels of half the size, behind the same telescope, without noise.
lens = SIE(theta_E=1.15 * u.arcsec, e1=0.12, e2=-0.06) + Shear(gamma1=0.04, gamma2=-0.02)
source = Sersic(amplitude=60, r_eff=0.12, n=1.2, x_0=0.05, y_0=0.12, e1=0.2, e2=0.1)
psf = PSF.from_fwhm(0.16 * u.arcsec)
grid = PixelGrid((50, 50), 0.08 * u.arcsec)
scene = {"lens": lens, "source": source, "psf": psf}
truth = render(grid, **scene, scale=2)

noise = PoissonNoise(exposure=2000, background_rms=0.004)
low = noise.draw(render(grid, **scene), np.random.default_rng(3)) * u.electron / u.s

# %%
# Only the image, the PSF and the noise go in. Look at the verdict before anything else.
resolver = SuperResolver(scale=2, source="sersic")
result = resolver(low, psf=psf, noise=noise, pixel_scale=0.08 * u.arcsec)
print(result.summary())

# %%
# The lens was found, with errors that hold it:
for component, true_component in zip(result.lens, lens, strict=True):
    for name, found in zip(component.param_names, component.parameters, strict=True):
        if not found.fixed:
            off = (found.value - getattr(true_component, name).value) / found.std
            print(f"{name:8s} {found.value:8.4f} +- {found.std:.4f}   off by {off:+.1f} sigma")

# %%
# How close is the image? PSNR against the truth, in dB: 20 dB are a factor of ten in the error.
images = {"bicubic": bicubic(low.value, 2), "lenssr": result.image.data}
for name, image in images.items():
    print(f"{name:8s} {scores_t(image, truth).psnr:5.1f} dB")

# %%
# Seen beside each other, and what each of them leaves of the truth. The lower right panels share one colour
# bar: bicubic interpolation keeps the noise and misses the core of the arcs.
half = 2.0
frame = {"extent": (-half, half, -half, half), "origin": "lower"}
bright = {**frame, "cmap": "magma", "vmin": 0, "vmax": truth.max()}
limit = np.abs(images["bicubic"] - truth).max() / 2
signed = {**frame, "cmap": "RdBu_r", "vmin": -limit, "vmax": limit}

figure, axes = plt.subplots(2, 3, figsize=(10, 6.2), layout="constrained", sharex=True, sharey=True)
axes[0, 0].imshow(low.value / 4, **bright)
axes[0, 0].set_title("data over 4, 0.08 arcsec pixels")
axes[1, 0].imshow(truth, **bright)
axes[1, 0].set_title("truth, 0.04 arcsec pixels")
for column, (name, image) in enumerate(images.items(), start=1):
    shown = axes[0, column].imshow(image, **bright)
    axes[0, column].set_title(name)
    left = axes[1, column].imshow(image - truth, **signed)
    axes[1, column].set_title(f"{name} - truth")
figure.colorbar(shown, ax=axes[0], label="electron / s", shrink=0.85)
figure.colorbar(left, ax=axes[1], label="electron / s", shrink=0.85)
figure.supxlabel("x [arcsec]")
figure.supylabel("y [arcsec]")
plt.show()

# %%
# ``result.plot()`` draws all that a run returns, with the critical curves on the image and the caustics on
# the source. Its residual is against the *data*, the only one that there is when the truth is not known.
result.plot(figure=plt.figure(figsize=(15, 9.2), layout="constrained"))
plt.show()
