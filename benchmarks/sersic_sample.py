"""Simulated galaxies for the Sérsic benchmarks, drawn by GalSim, which shares no code with lenssr.

GalSim makes the light in Fourier space, exact for a Sérsic behind a PSF and integrated over pixels.
"""

import dataclasses
import math

import galsim
import numpy as np

__all__ = ["FWHM", "Galaxy", "Sample", "draw", "psf_kernel", "render"]

FWHM = 2.5
# Wings so steep that a kernel of 31 pixels holds all but 4e-5 of the light.
PSF_BETA, PSF_SIZE = 4.0, 31
# By its default GalSim loses up to 0.5 % of the light of n = 6 to aliasing.
ACCURACY = galsim.GSParams(
    folding_threshold=1e-3, maxk_threshold=1e-4, kvalue_accuracy=1e-6, maximum_fft_size=16384
)


@dataclasses.dataclass(frozen=True)
class Galaxy:
    """A Sérsic: zero-based pixels, theta counter-clockwise from +x, S/N = sqrt(sum model^2 / sigma^2)."""

    x: float
    y: float
    r_eff: float
    n: float
    ellip: float
    theta: float
    snr: float
    flux: float = 1000.0


@dataclasses.dataclass(frozen=True)
class Sample:
    """Galaxies, their images (N, ny, nx), and the noise (N,), which is the same in all pixels of an image."""

    galaxies: list
    images: np.ndarray
    sigma: np.ndarray

    def truth(self, name):
        return np.array([getattr(galaxy, name) for galaxy in self.galaxies])

    def __getitem__(self, part):
        """Some of the galaxies, by a slice."""
        return Sample(self.galaxies[part], self.images[part], self.sigma[part])

    def __len__(self):
        return len(self.galaxies)


def _psf():
    return galsim.Moffat(beta=PSF_BETA, fwhm=FWHM, gsparams=ACCURACY)


def psf_kernel(*, pixel=False):
    """The PSF (31, 31) at the centres of pixels, or integrated over them."""
    method = "auto" if pixel else "no_pixel"
    kernel = _psf().drawImage(nx=PSF_SIZE, ny=PSF_SIZE, scale=1.0, method=method, dtype=float).array
    return kernel / kernel.sum()


def render(galaxy, shape):
    """The light of a galaxy in every pixel, behind the PSF, free of noise."""
    q = 1 - galaxy.ellip
    radius = galaxy.r_eff * math.sqrt(q)
    light = galsim.Sersic(galaxy.n, half_light_radius=radius, flux=galaxy.flux, gsparams=ACCURACY)
    seen = galsim.Convolve(light.shear(q=q, beta=galaxy.theta * galsim.radians), _psf(), gsparams=ACCURACY)
    ny, nx = shape
    offset = galsim.PositionD(galaxy.x - (nx - 1) / 2, galaxy.y - (ny - 1) / 2)
    return seen.drawImage(nx=nx, ny=ny, scale=1.0, offset=offset, dtype=float).array


def draw(galaxies, size, seed):
    """Images of galaxies on square stamps with Gaussian noise."""
    rng = np.random.default_rng(seed)
    clean = np.array([render(galaxy, (size, size)) for galaxy in galaxies])
    sigma = np.sqrt((clean**2).sum((1, 2))) / [galaxy.snr for galaxy in galaxies]
    return Sample(galaxies, clean + sigma[:, None, None] * rng.standard_normal(clean.shape), sigma)
