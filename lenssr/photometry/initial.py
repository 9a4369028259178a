"""Initial parameters of the fits of galaxies."""

import numpy as np
import torch

from lenssr.light.sersic import sersic_flux
from lenssr.photometry.moments import border_median, moments

__all__ = ["initial_coordinates", "psf_fwhm_in_pixels"]

# Sérsic index that a fit starts with: in the middle of those of discs and ellipticals. Chosen.
START_INDEX = 2.0
# Initial radius, in radii of the whole galaxy, and Sérsic index of a bulge and of a disc. Chosen.
BULGE_AND_DISC = ((0.5, 2.5), (1.3, 1.0))


def initial_coordinates(batch):
    """Initial smooth coordinates (B, C): what was given, and estimates from moments for the rest."""
    layout, tasks = batch.layout, batch.tasks
    c, centres = np.zeros((len(tasks), layout.size)), np.stack([task.centres for task in tasks])
    guessed = [_band_moments(batch, band, centres) for band in range(layout.bands)]
    # The shape comes from the band with the highest signal to noise.
    signal = [(b.weight * b.data**2).sum(1).cpu().numpy() for b in batch.bands]
    best = np.argmax(np.stack(signal), axis=0)
    shape = np.stack([guessed[band][1][i] for i, band in enumerate(best)])
    for galaxy in range(layout.galaxies):
        own = _InitialGuess(tasks, [task.members[galaxy] for task in tasks], shape[:, galaxy])
        for component, template in enumerate(batch.settings.templates):
            radius, index, share = own.part(component, layout.components)
            index = own.given("n", template.value_if_fixed("n", index))
            column = layout.column("r_eff", galaxy, component)
            c[:, column : column + 6] = np.stack(
                [np.log(radius), index, *centres[:, galaxy].T, own.e1, own.e2], axis=1
            )
            unit_flux = sersic_flux(1.0, *(torch.as_tensor(part) for part in (radius, index))).numpy()
            for band in range(layout.bands):
                flux = share * own.given("flux", guessed[band][1][:, galaxy, 0])
                c[:, layout.column("bright", galaxy, component, band)] = np.log(
                    own.given("amplitude", np.maximum(flux / unit_flux, 1e-60))
                )
    for band in range(layout.bands if layout.sky else 0):
        c[:, layout.column("sky", band=band)] = guessed[band][0]
    return torch.as_tensor(c, device=batch.device)


def _band_moments(batch, band, centres):
    stamps = batch.bands[band]
    data = stamps.data.reshape(-1, *batch.shape).cpu().numpy()
    weight = stamps.weight.reshape(data.shape).cpu().numpy()
    level = border_median(data, weight > 0) if batch.layout.sky else np.zeros(len(data))
    fwhm = psf_fwhm_in_pixels(batch.tasks[0].bands[band])
    found = [
        moments(one - sky, weights, place, fwhm)
        for one, sky, weights, place in zip(data, level, weight, centres, strict=True)
    ]
    return level, np.stack(found)


class _InitialGuess:
    """Initial guess of one galaxy of each task: what was given, else the moments."""

    def __init__(self, tasks, members, shape):
        self._sources = [(task.sources, member) for task, member in zip(tasks, members, strict=True)]
        q = 1 - self.given("ellip", np.full(len(tasks), np.nan))
        theta = self.given("theta", np.full(len(tasks), np.nan))
        modulus = (1 - q) / (1 + q)
        moments_modulus = np.hypot(shape[:, 2], shape[:, 3])
        modulus = np.where(np.isfinite(modulus), modulus, moments_modulus)
        twice = np.where(np.isfinite(theta), 2 * theta, np.arctan2(shape[:, 3], shape[:, 2]))
        self.e1, self.e2 = modulus * np.cos(twice), modulus * np.sin(twice)
        self.radius = shape[:, 1]
        given = self.given("r_eff", np.full(len(tasks), np.nan))
        self.radius = np.where(
            np.isfinite(given), given * np.sqrt((1 - modulus) / (1 + modulus)), self.radius
        )

    def given(self, name, other):
        """Guesses (B,) that were given, else ``other``."""
        values = np.array([sources.guess(name)[member] for sources, member in self._sources], dtype=float)
        return np.where(np.isfinite(values), values, other)

    def part(self, component, components):
        """Mean radius, index and share of the light of one component."""
        if components == 1:
            return self.radius, np.full(len(self.radius), START_INDEX), 1.0
        radius, index = BULGE_AND_DISC[component]
        return self.radius * radius, np.full(len(self.radius), index), 0.5


def psf_fwhm_in_pixels(image):
    """FWHM of the PSF of an observation in pixels; 1 without a PSF."""
    if image.psf is None:
        return 1.0
    return image.psf_fwhm / image.grid.pixel_scale
