"""Images and settings that a resolver has to flag, to test verdicts."""

import math
from dataclasses import dataclass, field

import astropy.units as u
import numpy as np
import torch
from astropy.nddata import CCDData
from astropy.stats import gaussian_fwhm_to_sigma

from lenssr.exceptions import InputError
from lenssr.imaging.noise import PoissonNoise
from lenssr.imaging.psf import PSF
from lenssr.light.sersic import sersic_brightness
from lenssr.simulation import LensPopulation, SimulatedLens
from lenssr.simulation.camera import render_steep, sky_grid
from lenssr.simulation.population import BACKGROUND_RMS, FWHM, PIXEL_SCALE
from lenssr.simulation.scenes import image
from lenssr.units import positive_integer

__all__ = ["SPOILED_KINDS", "Spoiled", "spoiled"]

# Side of an image in pixels, and exposure in seconds.
_IMAGE_SIDE = 100
_EXPOSURE = 2000.0
_STREAM = 3


@dataclass(frozen=True, eq=False)
class Spoiled:
    """One case that a resolver has to flag.

    Attributes
    ----------
    kind : str
        Which kind, see `spoiled`.
    image : `~astropy.nddata.CCDData`
        The image, in electron / s.
    given : dict
        What comes with the image: keywords ``noise`` and ``psf`` for a resolver's call.
    settings : dict
        Keywords for `lenssr.SuperResolver` itself: ``lens_light``, and ``lens`` where a wrong one is imposed.
    item : `~lenssr.simulation.SimulatedLens` or None
        The good lens that was spoiled, where there is one.
    """

    kind: str
    image: CCDData
    given: dict
    settings: dict = field(default_factory=dict)
    item: SimulatedLens | None = None


def _star(rng, grid, psf):
    """A star of S/N 100 to 1000 within 0.1 arcsec of the centre."""
    x_0, y_0 = rng.uniform(-0.1, 0.1, 2)
    flux = 10 ** rng.uniform(1.0, 2.5)
    sigma = FWHM * gaussian_fwhm_to_sigma
    edges = (np.arange(_IMAGE_SIDE + 1) - _IMAGE_SIDE / 2) * PIXEL_SCALE
    fractions = [
        np.diff(torch.special.ndtr(torch.as_tensor((edges - c) / sigma)).numpy()) for c in (x_0, y_0)
    ]
    return flux * np.outer(fractions[1], fractions[0])


def _spiral(rng, grid, psf):
    """A disc with two logarithmic arms and a bulge, inclined, 30 to 120 electron / s."""
    q, phi, scale = rng.uniform(0.4, 0.9), rng.uniform(0, math.pi), rng.uniform(0.5, 0.9)
    pitch, arms, turn = math.radians(rng.uniform(15, 30)), rng.uniform(0.6, 0.9), rng.uniform(0, 2 * math.pi)
    bulge, flux = rng.uniform(0.2, 1.0), rng.uniform(30, 120)

    def brightness(x, y):
        along = x * math.cos(phi) + y * math.sin(phi)
        across = (y * math.cos(phi) - x * math.sin(phi)) / q
        radius = torch.sqrt(along**2 + across**2).clamp(min=1e-3)
        angle = 2 * (torch.atan2(across, along) - torch.log(radius) / math.tan(pitch)) + turn
        # The arms fade towards the centre, where they would wind up endlessly.
        wave = arms * radius**2 / (radius**2 + 0.04) * torch.cos(angle)
        return torch.exp(-radius / scale) * (1 + wave) + sersic_brightness(x, y, bulge, 0.2, 2.0, 0, 0, 0, 0)

    galaxy = render_steep(grid, psf, brightness)[0]
    return flux / galaxy.sum() * galaxy


def _empty_sky(rng, grid, psf):
    return np.zeros(grid.shape)


_SCENES = {"star": _star, "spiral": _spiral, "noise": _empty_sky}


def _from_scene(kind, rng):
    grid, psf = sky_grid((_IMAGE_SIDE, _IMAGE_SIDE), PIXEL_SCALE), PSF.from_fwhm(FWHM * u.arcsec)
    noise = PoissonNoise(_EXPOSURE, BACKGROUND_RMS)
    if kind == "constant":
        values = np.full(grid.shape, rng.uniform(0.0, 1.0))
    else:
        values = noise.draw(_SCENES[kind](rng, grid, psf), rng)
    return Spoiled(kind, image(values, grid, _EXPOSURE), {"noise": noise, "psf": psf})


def _wide_psf(item, rng):
    return {"psf": PSF.from_fwhm(2 * FWHM * u.arcsec)}, {}


def _small_errors(item, rng):
    # Nine times the counts and a third of the background make all errors a third of the true ones.
    return {"noise": PoissonNoise(9 * item.noise.exposure, item.noise.background_rms / 3)}, {}


def _wrong_lens(item, rng):
    factor = 1 + rng.choice([-1, 1]) * rng.uniform(0.1, 0.2)
    vector = item.lens.vector.clone()
    vector[item.lens.param_names.index("theta_E_0")] *= factor
    return {}, {"lens": item.lens.with_vector(vector)}


_CHANGES = {"psf_wide": _wide_psf, "errors_third": _small_errors, "wrong_lens": _wrong_lens}
SPOILED_KINDS = ("star", "spiral", "noise", "constant", *_CHANGES)


def spoiled(kind, seed=0):
    """Make an image, or a lens with wrong settings, that a resolver must flag.

    Parameters
    ----------
    kind : str
        One of `SPOILED_KINDS`.

        - ``"star"``: one star near the centre.
        - ``"spiral"``: a spiral galaxy that lenses nothing.
        - ``"noise"``: empty sky.
        - ``"constant"``: one value in all pixels.
        - ``"psf_wide"``: a good lens, with a PSF twice too wide.
        - ``"errors_third"``: a good lens, with errors a third of the true ones.
        - ``"wrong_lens"``: a good lens, to be kept at a theta_E that is 10 to 20 % off.
    seed : int, optional
        Which of its kind; 0 by default. The good lenses are those of a `LensPopulation`, one for each seed.

    Returns
    -------
    case : `Spoiled`
    """
    seed = positive_integer(seed, "seed", 0)
    if kind not in SPOILED_KINDS:
        raise InputError(f"kind = {kind!r} is not known: give one of {', '.join(SPOILED_KINDS)}")
    rng = np.random.default_rng([seed, SPOILED_KINDS.index(kind), _STREAM])
    if kind not in _CHANGES:
        return _from_scene(kind, rng)
    # A seed of its own keeps these lenses apart from those of a benchmark's good ones.
    item = LensPopulation(size=seed + 1, seed=20_000 + SPOILED_KINDS.index(kind))[seed]
    given, settings = _CHANGES[kind](item, rng)
    if item.lens_light is not None:
        settings["lens_light"] = "sersic"
    return Spoiled(kind, item.low, {**item.given, **given}, settings, item)
