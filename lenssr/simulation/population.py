"""A mixed population of lenses with PSF, noise and lens light."""

import math

import astropy.units as u
import numpy as np
from scipy.optimize import brentq

from lenssr.imaging.noise import PoissonNoise
from lenssr.imaging.psf import PSF
from lenssr.light.sersic import Sersic, sersic_brightness
from lenssr.mass import SIE, Shear
from lenssr.mass.parameter import ellipticity
from lenssr.simulation.camera import binned, lensed, render_steep, sky_grid
from lenssr.simulation.dataset import LensDataset, SimulatedLens, check_count, observed
from lenssr.simulation.scenes import UNIT

__all__ = ["LensPopulation"]

# Side of a low pixel and FWHM of the PSF, in arcsec, and noise of the sky, in electron / s.
PIXEL_SCALE = 0.05
FWHM = 0.1
BACKGROUND_RMS = 0.01
# Sides of the images in pixels, and the field they must span in Einstein radii. Few shapes: equal ones share
# a batch.
_IMAGE_SIDES = (100, 150, 200)
_FIELD = 5.0


class LensPopulation(LensDataset):
    """Mixed galaxy-galaxy lenses with PSF, noise, and for half of them the light of the lens.

    The lens is an SIE with theta_E uniform in 0.5" to 2", q in 0.6 to 1 and its centre within 0.2" of the
    image centre in x and y, plus a shear of up to 0.08 in any direction. The source is a Sérsic with n in 0.5
    to 4, r_eff in 0.08 to 0.25 theta_E (but at least 0.06") and q in 0.5 to 1, within 0.35 theta_E of the
    optical axis, where it has several images. Half of the lenses shine: a Sérsic at the centre of the mass
    with n in 2 to 5, r_eff in 0.5 to 1.5 theta_E, the shape of the mass within a scatter of 0.05 in q and 10
    degrees, and 0.5 to 3 times the flux of the arcs.

    The low image has pixels of 0.05" and spans at least five Einstein radii: 100, 150 or 200 pixels a side.
    The PSF is a Gaussian of FWHM 0.1". The exposure is ``10**U(3, 3.5)`` seconds; to the Poisson noise comes
    a Gaussian background of 0.01 electron / s. The flux of the source gives its arcs the signal-to-noise
    ratio ``sqrt(sum(arcs**2 / variance))``, drawn between 150 and 500 evenly in the logarithm
    (``item.settings["snr"]``).

    Parameters
    ----------
    size : int, optional
        How many lenses; 100 by default.
    seed : int, optional
        Which ones; 0 by default.
    lens_light : bool or None, optional
        Whether all lenses shine, none does, or, the default, those with odd numbers.
    scale : int, optional
        How many high pixels lie along a low one; 2 by default.

    Notes
    -----
    The truth is the scene behind the telescope's PSF, integrated over the high pixels; the low image is its
    sum over ``scale`` x ``scale`` pixels. Pixels are sampled adaptively.

    Examples
    --------
    >>> from lenssr.simulation import LensPopulation
    >>> item = LensPopulation(size=10, seed=1)[2]
    >>> item.lens.param_names
    ('theta_E_0', 'e1_0', 'e2_0', 'x_0_0', 'y_0_0', 'gamma1_1', 'gamma2_1', 'x_0_1', 'y_0_1')
    >>> item.lens_light is None, item.psf.fwhm
    (True, <Quantity 0.1 arcsec>)
    """

    _settings = ("size", "seed", "lens_light", "scale")
    _stream = 2

    def __init__(self, size=100, seed=0, *, lens_light=None, scale=2):
        super().__init__(size, seed)
        self.lens_light = None if lens_light is None else bool(lens_light)
        self.scale = check_count(scale, "scale", 1)

    def _draw_lens(self, rng):
        """Draw the lens, and the axis ratio and direction of its SIE."""
        theta_E, q, phi = rng.uniform(0.5, 2.0), rng.uniform(0.6, 1.0), rng.uniform(0, math.pi)
        x_0, y_0 = rng.uniform(-0.2, 0.2, 2)
        gamma, phi_gamma = rng.uniform(0, 0.08), rng.uniform(0, math.pi)
        shear = Shear(gamma * math.cos(2 * phi_gamma), gamma * math.sin(2 * phi_gamma))
        e1, e2 = ellipticity(q, phi)
        return SIE(theta_E, e1, e2, x_0, y_0) + shear, q, phi

    def _draw_source(self, rng, lens):
        """Parameters of the source with amplitude 1, as `sersic_brightness` takes them."""
        galaxy, shear = lens[0], lens[1]
        theta_E, x, y = (getattr(galaxy, name).value for name in ("theta_E", "x_0", "y_0"))
        n, q, phi = rng.uniform(0.5, 4.0), rng.uniform(0.5, 1.0), rng.uniform(0, math.pi)
        r_eff = max(theta_E * rng.uniform(0.08, 0.25), 0.06)
        reach, angle = 0.35 * theta_E * math.sqrt(rng.uniform()), rng.uniform(0, 2 * math.pi)
        # On the optical axis through the lens only the shear deflects.
        alpha_x, alpha_y = shear.deflection(x, y)
        x_0 = x - float(alpha_x) + reach * math.cos(angle)
        y_0 = y - float(alpha_y) + reach * math.sin(angle)
        return np.array([1.0, r_eff * math.sqrt(q), n, x_0, y_0, *ellipticity(q, phi)])

    @staticmethod
    def _draw_light(rng, lens, q, phi):
        """Parameters of the lens galaxy's light with amplitude 1, and its flux over that of the arcs."""
        galaxy = lens[0]
        theta_E, x, y = (getattr(galaxy, name).value for name in ("theta_E", "x_0", "y_0"))
        n, r_eff = rng.uniform(2.0, 5.0), theta_E * rng.uniform(0.5, 1.5)
        q = float(np.clip(q + 0.05 * rng.standard_normal(), 0.5, 1.0))
        phi = phi + math.radians(10) * rng.standard_normal()
        vector = np.array([1.0, r_eff * math.sqrt(q), n, x, y, *ellipticity(q, phi)])
        return vector, 10 ** rng.uniform(math.log10(0.5), math.log10(3.0))

    def _item(self, index):
        rng = self.rng(index)
        lens, q, phi = self._draw_lens(rng)
        source = self._draw_source(rng, lens)
        light, light_ratio = self._draw_light(rng, lens, q, phi)
        shines = index % 2 == 1 if self.lens_light is None else self.lens_light
        exposure, snr = 10 ** rng.uniform(3.0, 3.5), 10 ** rng.uniform(math.log10(150), math.log10(500))
        field = _FIELD * lens[0].theta_E.value
        pixels = next(n for n in _IMAGE_SIDES if n * PIXEL_SCALE >= field)
        grid = sky_grid((pixels, pixels), PIXEL_SCALE)
        psf = PSF.from_fwhm(FWHM * u.arcsec)

        arcs, glow = render_steep(
            grid.upsample(self.scale),
            psf,
            lensed(lens, lambda x, y: sersic_brightness(x, y, *source)),
            lambda x, y: sersic_brightness(x, y, *light),
        )
        # Both have amplitude 1 so far; scale the lens light relative to the source.
        light[0] = light_ratio * arcs.sum() / glow.sum() if shines else 0.0
        glow *= light[0]
        source[0] = _amplitude(binned(arcs, self.scale), binned(glow, self.scale), exposure, snr)
        light[0] *= source[0]
        noise = PoissonNoise(exposure, BACKGROUND_RMS)
        return SimulatedLens(
            index=index,
            **observed(source[0] * (arcs + glow), grid, self.scale, noise, rng),
            lens=lens,
            source=Sersic.from_vector(source, unit=UNIT),
            lens_light=Sersic.from_vector(light, unit=UNIT) if shines else None,
            psf=psf,
            settings={"snr": float(snr)},
        )


def _amplitude(arcs, glow, exposure, snr):
    """Amplitude that gives the arcs a signal-to-noise ratio, with all other light in proportion."""

    def excess(log_amplitude):
        amplitude = math.exp(log_amplitude)
        variance = amplitude * (arcs + glow) / exposure + BACKGROUND_RMS**2
        return math.log(np.sum((amplitude * arcs) ** 2 / variance)) / 2 - math.log(snr)

    return math.exp(brentq(excess, math.log(1e-6), math.log(1e8)))
