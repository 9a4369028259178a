"""The demonstration behind ``lenssr demo``: a lens simulated, super-resolved without its lens, and scored."""

import numpy as np

from lenssr import metrics
from lenssr.resolver import SuperResolver
from lenssr.result.text import number_text
from lenssr.simulation import LensPopulation

SCALE = 2
# a long arc and its counter-image behind a PSF of 0.1": the same one every time
SEED = 6


def simulate():
    """Simulate the lens: an `~lenssr.simulation.SimulatedLens` with shear, a PSF and noise."""
    return LensPopulation(size=1, seed=SEED, lens_light=False, scale=SCALE)[0]


def resolve(item):
    """Super-resolve it with the lens unknown."""
    item.low.meta["OBJECT"] = "simulated lens"
    return SuperResolver(scale=SCALE)(item.low, psf=item.psf, noise=item.noise)


def table(item, result):
    """Compare with the truth.

    Parameters
    ----------
    item : `~lenssr.simulation.SimulatedLens`
    result : `~lenssr.SuperResolution`

    Returns
    -------
    lines : list of str
        Scores of the image beside those of bicubic interpolation, and the lens beside the true one.
    """
    images = {"lenssr": result.image.data, "bicubic": metrics.bicubic(np.asarray(item.low.data), SCALE)}
    lines = ["against the truth     PSNR (dB)      SSIM"]
    for name, image in images.items():
        scores = metrics.scores_t(image, item.truth.data)
        lines.append(f"  {name:<19}{scores.psnr:>10.1f}{scores.ssim:>10.4f}")
    lines.append("lens                      truth     found")
    for name in ("theta_E", "e1", "e2", "gamma1", "gamma2"):
        true, found = getattr(item.lens, name), getattr(result.lens, name)
        lines.append(f"  {name:<19}{true.value:>10.4f}     {number_text(found.value, found.std)}")
    return lines
