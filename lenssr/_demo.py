"""The demonstration behind ``lenssr demo``: a lens simulated, super-resolved without its lens, and scored."""

from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.nddata import CCDData, StdDevUncertainty

from lenssr import metrics
from lenssr._result_text import number_text
from lenssr.imaging import PSF, PoissonNoise
from lenssr.imaging.render import render
from lenssr.light import Sersic
from lenssr.mass import SIE, Shear
from lenssr.resolver import SuperResolver
from lenssr.simulation.item import sky_grid

SCALE = 2
SHAPE = (80, 80)
PIXEL_SCALE = 0.06
SEED = 2
EXPOSURE = 2000.0
BACKGROUND_RMS = 0.004
UNIT = u.electron / u.s


@dataclass(frozen=True)
class Scene:
    """A simulated lens: what a telescope would give, and the truth behind it.

    Parameters
    ----------
    data : `~astropy.nddata.CCDData`
        The noisy image with errors.
    truth : `~astropy.nddata.CCDData`
        The scene at the finer sampling, without noise.
    lens : `~lenssr.mass.MassSystem`
    psf : `~lenssr.imaging.PSF`
    """

    data: CCDData
    truth: CCDData
    lens: object
    psf: PSF


def simulate():
    """Simulate a lens with shear, a PSF and noise; the same one every time."""
    grid, psf = sky_grid(SHAPE, PIXEL_SCALE), PSF.from_fwhm(0.13 * u.arcsec)
    lens = SIE(1.25, 0.12, -0.08, 0.03, -0.02) + Shear(0.03, 0.04)
    source = Sersic(
        12 * UNIT / u.arcsec**2, 0.22 * u.arcsec, 1.2, 0.09 * u.arcsec, -0.06 * u.arcsec, -0.1, 0.15
    )
    scene = {"lens": lens, "source": source, "psf": psf}
    noise = PoissonNoise(EXPOSURE, BACKGROUND_RMS)
    expected = render(grid, **scene).to_value(UNIT)
    error = np.sqrt(expected / EXPOSURE + BACKGROUND_RMS**2)
    return Scene(
        data=CCDData(
            noise.draw(expected, np.random.default_rng(SEED)), unit=UNIT, wcs=grid.wcs,
            uncertainty=StdDevUncertainty(error), meta={"OBJECT": "simulated lens", "EXPTIME": EXPOSURE},
        ),
        truth=CCDData(render(grid, scale=SCALE, **scene), unit=UNIT, wcs=grid.upsample(SCALE).wcs),
        lens=lens, psf=psf,
    )  # fmt: skip


def resolve(scene):
    """Super-resolve the simulated lens, with the lens unknown."""
    return SuperResolver(scale=SCALE, psf=scene.psf)(scene.data)


def table(scene, result):
    """Compare with the truth: lines of text.

    Parameters
    ----------
    scene : `Scene`
    result : `~lenssr.SuperResolution`

    Returns
    -------
    lines : list of str
    """
    images = {"lenssr": result.image, "bicubic": metrics.bicubic(scene.data.data, SCALE)}
    lines = ["against the truth      PSNR (dB)    SSIM"]
    for name, image in images.items():
        scores = metrics.scores_t(np.asarray(getattr(image, "data", image)), scene.truth.data)
        lines.append(f"  {name:<18}{scores.psnr:>10.1f}{scores.ssim:>10.4f}")
    lines.append("lens                   truth        found")
    for name in ("theta_E", "e1", "e2", "gamma1", "gamma2"):
        true, found = getattr(scene.lens, name), getattr(result.lens, name)
        lines.append(f"  {name:<18}{true.value:>8.4f}    {number_text(found.value, found.std)}")
    return lines
