"""Lenses that lenstronomy renders, so that what lenssr finds in them is checked by another code.

Lens equation, light profiles, integration over pixels and convolution are lenstronomy's; the PSF is a
Gaussian, of which both codes are told the FWHM only. Sources are a Sérsic, or a disc with clumps, which no
Sérsic explains. Tests and `thresholds.py` use it.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from astropy.nddata import CCDData
from lenstronomy.Data.pixel_grid import PixelGrid
from lenstronomy.Data.psf import PSF
from lenstronomy.ImSim.image_model import ImageModel
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LightModel.light_model import LightModel

from lenssr import SIE, Shear

__all__ = ["RenderedLens", "clumpy", "sersic"]

SERSIC = ("amp", "R_sersic", "n_sersic", "center_x", "center_y", "e1", "e2")
GAUSSIAN = ("amp", "sigma", "center_x", "center_y")


def sersic(*values):
    """A Sérsic: amplitude at R_sersic per arcsec2, R_sersic (arcsec, mean of both axes), n, x, y, e1, e2."""
    return [("SERSIC_ELLIPSE", dict(zip(SERSIC, values, strict=True)))]


def clumpy(x, y, flux=1.0):
    """A disc at (x, y) with a bulge off its middle and three clumps, in arcsec; flux scales them all."""
    clumps = (
        (0.25, 0.05, 0.02, 0.03),
        (0.2, 0.03, 0.16, 0.05),
        (0.12, 0.03, -0.12, 0.12),
        (0.15, 0.04, -0.05, -0.15),
    )
    lights = sersic(8.0 * flux, 0.2, 1.0, x, y, 0.15, -0.1)
    for share, width, dx, dy in clumps:
        lights.append(("GAUSSIAN", dict(zip(GAUSSIAN, (share * flux, width, x + dx, y + dy), strict=True))))
    return lights


@dataclass(frozen=True)
class RenderedLens:
    """An isothermal lens with shear, in front of one source; lengths in arcsec, fluxes per pixel.

    Attributes
    ----------
    lens : tuple of float
        theta_E, e1, e2, x_0, y_0, gamma1, gamma2.
    source, light : list of (str, dict)
        lenstronomy's profiles by name, and their keywords.
    size, pixel_scale, fwhm, sky, snr : int, float, float, float, float
        Pixels along a side and their side, FWHM of the PSF, sky of a pixel, and the brightest pixel of the
        arcs over the noise.
    rays : int
        Along the side of half a pixel.
    """

    lens: tuple = (1.0, 0.1, -0.05, 0.02, -0.01, 0.02, -0.03)
    source: list = field(default_factory=lambda: sersic(10.0, 0.18, 1.3, 0.09, -0.06, 0.1, 0.05))
    light: list = field(default_factory=list)
    size: int = 40
    pixel_scale: float = 0.1
    fwhm: float = 0.2
    sky: float = 0.01
    snr: float = 40.0
    rays: int = 6

    @property
    def mass(self):
        """The lens as lenssr's model."""
        return SIE(*self.lens[:5]) + Shear(*self.lens[5:])

    @property
    def half(self):
        """Half the side of the image."""
        return self.size * self.pixel_scale / 2

    def plane(self, part, scale=1):
        """Noise-free flux of a part of the light in pixels, or in scale x scale (1 or 2) parts of each.

        ``part`` is "source", "light", "sky", or "all".
        """
        fine = sum(self._fine[name] for name in ("source", "light", "sky") if part in (name, "all"))
        return binned(fine, 2 // scale) if scale < 2 else fine

    @cached_property
    def _fine(self):
        """Light in pixels of half the side, from a frame that is wide enough for the PSF."""
        side, margin = self.pixel_scale / 2, int(np.ceil(4 * self.fwhm / self.pixel_scale)) * 2
        number = 2 * self.size + 2 * margin
        corner = -(number - 1) / 2 * side
        inner = slice(margin, margin + 2 * self.size)

        def image(lights, lens):
            if not lights:
                return np.zeros((2 * self.size,) * 2)
            names, values = zip(*lights, strict=True)
            kernel = (
                PSF("GAUSSIAN", fwhm=self.fwhm, pixel_size=side, truncation=5) if self.fwhm else PSF("NONE")
            )
            where = {"source_model_class" if lens else "lens_light_model_class": LightModel(list(names))}
            numerics = {"supersampling_factor": self.rays, "supersampling_convolution": True}
            pixels = PixelGrid(number, number, np.eye(2) * side, corner, corner)
            lens_model = LensModel(["EPL", "SHEAR"])
            model = ImageModel(pixels, kernel, lens_model, **where, kwargs_numerics=numerics)
            given = {"kwargs_source" if lens else "kwargs_lens_light": list(values)}
            return model.image(self._lens_keywords, **given)[inner, inner]

        return {
            "source": image(self.source, True),
            "light": image(self.light, False),
            "sky": np.full((2 * self.size,) * 2, self.sky / 4),
        }

    @property
    def _lens_keywords(self):
        names = "theta_E", "e1", "e2", "center_x", "center_y"
        return [
            {**dict(zip(names, self.lens[:5], strict=True)), "gamma": 2.0},
            {"gamma1": self.lens[5], "gamma2": self.lens[6], "ra_0": 0.0, "dec_0": 0.0},
        ]

    @property
    def sigma(self):
        """Standard deviation of the noise of a pixel."""
        return self.plane("source").max() / self.snr

    def draw(self, seed=0, noise=None):
        """The image (`CCDData`) with white noise, or with noise (size, size) in units of sigma."""
        shape = (self.size, self.size)
        noise = np.random.default_rng(seed).normal(size=shape) if noise is None else noise
        return CCDData(self.plane("all") + self.sigma * noise, unit="electron/s")


def binned(image, factor):
    """Sums of factor x factor pixels."""
    ny, nx = (side // factor for side in image.shape)
    return image.reshape(ny, factor, nx, factor).sum((1, 3))
