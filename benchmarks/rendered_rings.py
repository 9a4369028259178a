"""Double rings that lenstronomy renders: one lens, two sources, of which the first deflects the second.

Lens equation of both planes, light, integration over pixels and convolution are lenstronomy's. Tests and
`double_rings.py` use them.
"""

import warnings
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from astropy.cosmology import Planck18
from astropy.nddata import CCDData
from lenstronomy.Data.pixel_grid import PixelGrid
from lenstronomy.Data.psf import PSF
from lenstronomy.ImSim.image_model import ImageModel
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LightModel.light_model import LightModel
from scipy.special import gammaincinv

from lenssr import SIE, DoubleSourcePlane, Sersic, Shear, SourcePlanes

__all__ = ["FWHM", "PIXEL", "DoubleRing", "difference", "radius"]

SIDE, PIXEL, FWHM, RAYS = 56, 0.08, 0.16, 7


@dataclass(frozen=True)
class DoubleRing:
    """One system, drawn from a seed."""

    seed: int

    @cached_property
    def rng(self):
        """Draws of this system, then of its noise."""
        return np.random.default_rng([24, self.seed])

    @cached_property
    def numbers(self):
        """Redshifts, lens, mass of the first source, and both sources, in arcsec."""
        draw = self.rng
        z = draw.uniform(0.2, 0.4), draw.uniform(0.55, 0.9), draw.uniform(1.5, 3.0)
        lens = (draw.uniform(1.3, 1.6), *draw.normal(0, 0.08, 2), *draw.normal(0, 0.02, 2))
        sources = [
            (
                draw.uniform(0.1, 0.2),
                draw.uniform(0.8, 2.0),
                *draw.normal(0, place, 2),
                *draw.normal(0, 0.1, 2),
            )
            for place in (0.05, 0.08)
        ]
        return z, lens, draw.normal(0, 0.03, 2), draw.uniform(0.05, 0.25), sources

    @property
    def planes(self):
        """The source planes by redshift."""
        z, *_ = self.numbers
        return SourcePlanes(z_lens=z[0], z_sources=z[1:], cosmology=Planck18)

    @property
    def lens(self):
        """What lenstronomy renders, as lenssr's model."""
        _, lens, shear, mass, (first, _) = self.numbers
        x_0, y_0 = first[2:4]
        return DoubleSourcePlane(SIE(*lens) + Shear(*shear), self.planes, theta_E=mass, x_0=x_0, y_0=y_0)

    @cached_property
    def image(self):
        """The image (ny, nx) without noise, the brightest pixel of each source 1 and 0.6."""
        z, lens, shear, mass, sources = self.numbers
        keys = ("theta_E", "e1", "e2", "center_x", "center_y")
        first = sources[0]
        masses = [
            dict(zip(keys, lens, strict=True)),
            {"gamma1": shear[0], "gamma2": shear[1], "ra_0": 0.0, "dec_0": 0.0},
            {"theta_E": mass, "center_x": first[2], "center_y": first[3]},
        ]
        options = {"lens_redshift_list": [z[0], z[0], z[1]], "z_source": z[2], "cosmo": Planck18}
        with warnings.catch_warnings(action="ignore"):
            model = LensModel(["SIE", "SHEAR", "SIS"], multi_plane=True, **options)
        margin = int(np.ceil(4 * FWHM / PIXEL))
        number = SIDE + 2 * margin
        corner = -(number - 1) / 2 * PIXEL
        grid = PixelGrid(number, number, np.eye(2) * PIXEL, corner, corner)
        psf = PSF("GAUSSIAN", fwhm=FWHM, pixel_size=PIXEL, truncation=5)
        numerics = {"supersampling_factor": RAYS, "supersampling_convolution": True}
        # Lights of one redshift alone would be put at that of the lens model.
        lights = LightModel(["SERSIC_ELLIPSE"] * 2, source_redshift_list=z[1:])
        scene = ImageModel(grid, psf, model, lights, kwargs_numerics=numerics)
        names = ("R_sersic", "n_sersic", "center_x", "center_y", "e1", "e2")
        images = []
        for shining in range(2):
            keywords = [
                {"amp": float(k == shining), **dict(zip(names, source, strict=True))}
                for k, source in enumerate(sources)
            ]
            image = scene.image(masses, keywords)[margin:-margin, margin:-margin]
            images.append((image, (1.0, 0.6)[shining] / image.max()))
        return images

    @cached_property
    def sigma(self):
        """Noise of a pixel: the brighter source is 25 to 50 times as bright."""
        return 1 / np.random.default_rng([25, self.seed]).uniform(25, 50)

    def draw(self):
        """The image with noise, as a `CCDData`."""
        noise = np.random.default_rng([26, self.seed]).normal(0, self.sigma, (SIDE, SIDE))
        return CCDData(sum(image * scale for image, scale in self.image) + noise, unit="electron/s")

    @property
    def sources(self):
        """Both sources as lenssr's models; lenstronomy's b_n is an approximation."""
        models = []
        for (radius, n, x, y, e1, e2), (_, scale) in zip(self.numbers[-1], self.image, strict=True):
            exact, theirs = gammaincinv(2 * n, 0.5), 1.9992 * n - 0.3271
            q = (1 - np.hypot(e1, e2)) / (1 + np.hypot(e1, e2))
            half = radius * (exact / theirs) ** n / np.sqrt(q)
            amplitude = scale * np.exp(theirs - exact)
            models.append(Sersic(amplitude, half, n, x, y, e1, e2))
        return models


def difference(plane, truth):
    """How far the image of a source is off, over its norm."""
    ny, nx = plane.shape
    side, x_0, y_0 = (plane.meta[name] for name in ("pixel_scale", "x_0", "y_0"))
    y, x = np.indices((ny, nx), dtype=float)
    right = truth(x_0 + (x - (nx - 1) / 2) * side, y_0 + (y - (ny - 1) / 2) * side)
    return float(np.linalg.norm(plane.data - right) / np.linalg.norm(right))


def radius(lens, source):
    """Effective Einstein radius for one of the sources, in arcsec."""
    return lens.of_source(source).einstein_radius().value
