"""Lenses that lenstronomy renders, so that what lenssr finds in them is checked by another code.

Lens equation, light profiles, integration over pixels and convolution are lenstronomy's; the PSF is an array,
or a Gaussian, of which both codes are told the FWHM only. Sources are a Sérsic, or a disc with clumps, which
no Sérsic explains. Tests and `thresholds.py` use it; `foreign_sample.py` draws lenses as HST sees them.
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

from lenssr import EPL, SIE, SIS, Shear

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


class Lights(LightModel):
    """Profiles of lenstronomy, whose isophotes a keyword ``boxiness`` makes boxy (below 0) or discy."""

    def surface_brightness(self, x, y, kwargs_list, k=None):
        """Surface brightness per arcsec2 of all profiles; ``k`` is not used."""
        total = np.zeros(np.shape(x))
        for profile, keywords in zip(self.func_list, kwargs_list, strict=True):
            keywords = dict(keywords)
            boxiness = keywords.pop("boxiness", 0.0)
            where = reshaped(x, y, boxiness, keywords) if boxiness else (x, y)
            total += profile.function(*where, **keywords)
        return total


def reshaped(x, y, boxiness, keywords):
    """Positions at which an elliptical profile has the brightness that a boxy one has at (x, y).

    Isophotes at r become those at r (1 + boxiness cos 4 psi), psi from the major axis, where they are round.
    """
    x, y = x - keywords["center_x"], y - keywords["center_y"]
    phi, e = np.arctan2(keywords["e2"], keywords["e1"]) / 2, np.hypot(keywords["e1"], keywords["e2"])
    along, across = x * np.cos(phi) + y * np.sin(phi), y * np.cos(phi) - x * np.sin(phi)
    psi = np.arctan2(across * (1 + e), along * (1 - e))
    larger = 1 + boxiness * np.cos(4 * psi)
    return keywords["center_x"] + x / larger, keywords["center_y"] + y / larger


@dataclass(frozen=True)
class RenderedLens:
    """A power-law lens with shear, in front of one source; lengths in arcsec, fluxes per pixel.

    Attributes
    ----------
    lens : tuple of float
        theta_E, e1, e2, x_0, y_0, gamma1, gamma2.
    slope : float
        Of the density of the lens: 2 where it is isothermal.
    satellites : list of (float, float, float)
        theta_E, x, y of isothermal spheres beside the lens.
    source, light, others : list of (str, dict)
        lenstronomy's profiles by name, and their keywords: of the source, of the lens galaxy, and of
        objects that are not lensed either.
    size, pixel_scale, fwhm, sky, snr : int, float, float, float, float
        Pixels along a side and their side, FWHM of the PSF, sky of a pixel, and the brightest pixel of the
        arcs over the noise.
    rays : int
        Along the side of half a pixel.
    kernel : array, odd sides, or None
        The PSF, sampled at every ray, instead of the Gaussian.
    """

    lens: tuple = (1.0, 0.1, -0.05, 0.02, -0.01, 0.02, -0.03)
    slope: float = 2.0
    satellites: list = field(default_factory=list)
    source: list = field(default_factory=lambda: sersic(10.0, 0.18, 1.3, 0.09, -0.06, 0.1, 0.05))
    light: list = field(default_factory=list)
    others: list = field(default_factory=list)
    size: int = 40
    pixel_scale: float = 0.1
    fwhm: float = 0.2
    sky: float = 0.01
    snr: float = 40.0
    rays: int = 6
    kernel: np.ndarray | None = None

    @property
    def main(self):
        """The lens without satellites, with its shear, as lenssr's model."""
        theta_E, *shape = self.lens[:5]
        galaxy = SIE(theta_E, *shape) if self.slope == 2 else EPL(theta_E, self.slope, *shape)
        return galaxy + Shear(*self.lens[5:])

    @property
    def mass(self):
        """All that deflects, as lenssr's model."""
        mass = self.main
        for satellite in self.satellites:
            mass = mass + SIS(*satellite)
        return mass

    @property
    def half(self):
        """Half the side of the image."""
        return self.size * self.pixel_scale / 2

    def plane(self, part, scale=1):
        """Noise-free flux of a part of the light in pixels, or in scale x scale (1 or 2) parts of each.

        ``part`` is "source", "light", "others", "sky", or "all".
        """
        fine = sum(plane for name, plane in self._fine.items() if part in (name, "all"))
        return binned(fine, 2 // scale) if scale < 2 else fine

    @cached_property
    def _fine(self):
        """Light in pixels of half the side, from a frame that is wide enough for the PSF."""
        side = self.pixel_scale / 2
        if self.kernel is None:
            margin = int(np.ceil(4 * self.fwhm / self.pixel_scale)) * 2
        else:
            margin = int(np.ceil(len(self.kernel) / (2 * self.rays)))
        number = 2 * self.size + 2 * margin
        corner = -(number - 1) / 2 * side
        inner = slice(margin, margin + 2 * self.size)
        masses, masses_keywords = self._lenstronomy_lens

        def image(lights, lens):
            if not lights:
                return np.zeros((2 * self.size,) * 2)
            names, values = zip(*lights, strict=True)
            where = {"source_model_class" if lens else "lens_light_model_class": Lights(list(names))}
            numerics = {"supersampling_factor": self.rays, "supersampling_convolution": True}
            pixels = PixelGrid(number, number, np.eye(2) * side, corner, corner)
            model = ImageModel(
                pixels, self._lenstronomy_psf, LensModel(masses), **where, kwargs_numerics=numerics
            )
            given = {"kwargs_source" if lens else "kwargs_lens_light": list(values)}
            return model.image(masses_keywords, **given)[inner, inner]

        return {
            "source": image(self.source, True),
            "light": image(self.light, False),
            "others": image(self.others, False),
            "sky": np.full((2 * self.size,) * 2, self.sky / 4),
        }

    @property
    def _lenstronomy_psf(self):
        if self.kernel is not None:
            return PSF("PIXEL", kernel_point_source=self.kernel, point_source_supersampling_factor=self.rays)
        side = self.pixel_scale / 2
        return PSF("GAUSSIAN", fwhm=self.fwhm, pixel_size=side, truncation=5) if self.fwhm else PSF("NONE")

    @property
    def _lenstronomy_lens(self):
        """Names of lenstronomy's mass models, and their keywords."""
        names = "theta_E", "e1", "e2", "center_x", "center_y"
        keywords = [
            {**dict(zip(names, self.lens[:5], strict=True)), "gamma": self.slope},
            {"gamma1": self.lens[5], "gamma2": self.lens[6], "ra_0": 0.0, "dec_0": 0.0},
        ]
        keywords += [{"theta_E": theta_E, "center_x": x, "center_y": y} for theta_E, x, y in self.satellites]
        return ["EPL", "SHEAR"] + ["SIS"] * len(self.satellites), keywords

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
