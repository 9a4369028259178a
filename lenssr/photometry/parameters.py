"""Coordinates of a fit, and the transform from its free numbers to the parameters of the profiles."""

import math

import numpy as np
import torch

from lenssr.light import sersic_flux
from lenssr.light.sersic_shape import b_and_slope

__all__ = ["MEASURED", "ParameterLayout", "ParameterTransform", "group_axes_from_smooth", "measured"]

# Coordinates of a profile: the smooth ones, which have derivatives where a galaxy is round, and those with
# axes. Brightness (amplitude or flux) and r_eff (the mean radius, or the semi-major axis) are logarithms.
SMOOTH = ("bright", "r_eff", "n", "x_0", "y_0", "e1", "e2")
AXES = (*SMOOTH[:5], "ellip", "theta")
# What the table has of a profile.
MEASURED = ("x", "y", "amplitude", "flux", "r_eff", "n", "ellip", "theta")
# Largest modulus of the ellipticity, (1 - q) / (1 + q): an axis ratio of 0.08.
MAX_MODULUS = 0.85
LIMITS = {
    "r_eff": (math.log(0.02), math.inf),
    "n": (0.3, 8.0),
    "e1": (-MAX_MODULUS, MAX_MODULUS),
    "e2": (-MAX_MODULUS, MAX_MODULUS),
    # A little rounder than MAX_MODULUS, where an image counts as impossible.
    "ellip": (0.0, 2 * MAX_MODULUS / (1 + MAX_MODULUS) - 1e-9),
}
# Shape of a point in columns 1, 2, 5 and 6, smooth or with axes. The operator integrates a profile with a
# cusp well, however small it is.
POINT_COLUMNS, POINT = (1, 2, 5, 6), (LIMITS["r_eff"][0], 2.0, 0.0, 0.0)


class ParameterLayout:
    """Columns of the coordinates of a group in one vector.

    A galaxy has ``components``, each with one brightness a band and one shape; ``sky`` adds a constant in
    each band. ``profiles`` (galaxies, components, bands, 7), or ``flat`` (profiles, bands, 7), holds the
    columns of each profile in the order of `SMOOTH` and `AXES`, ``skies`` those of the constants.
    """

    def __init__(self, galaxies=1, components=1, bands=1, *, sky=True):
        self.galaxies, self.components, self.bands, self.sky = galaxies, components, bands, sky
        block = bands + len(SMOOTH) - 1
        first = block * np.arange(galaxies * components).reshape(galaxies, components, 1, 1)
        self.profiles = first + np.array([[band, *range(bands, block)] for band in range(bands)])
        self.skies = galaxies * components * block + np.arange(bands * sky)
        self.size = galaxies * components * block + bands * sky
        self.flat = self.profiles.reshape(-1, bands, len(SMOOTH))

    def column(self, name, galaxy=0, component=0, band=0):
        """Column of "sky", or of one of `SMOOTH` or `AXES`."""
        if name == "sky":
            return int(self.skies[band])
        names = AXES if name in AXES else SMOOTH
        return int(self.profiles[galaxy, component, band, names.index(name)])

    def columns(self, band):
        """Columns of the vector of a band: those of each profile, then the sky."""
        return [*self.profiles[:, :, band].flat, *self.skies[band : band + 1]]

    @property
    def names(self):
        """Names of all smooth coordinates."""
        ends = [""] if self.bands == 1 else [f"[{band}]" for band in range(self.bands)]
        own = [*(f"log_amplitude{end}" for end in ends), "log_r_eff_circ", *SMOOTH[2:]]
        place = "[galaxy {0}]" * (self.galaxies > 1) + "_{1}" * (self.components > 1)
        places = [place.format(*one) for one in np.ndindex(self.galaxies, self.components)]
        skies = [f"sky{end}" for end in ends] if self.sky else []
        return [name + place for place in places for name in own] + skies


def log_flux(circular, n):
    """Logarithm of flux over amplitude, from the logarithm of the mean radius and the index."""
    return 2 * circular + torch.log(sersic_flux(torch.ones_like(n), 1.0, n))


def flux_slope(n):
    """Derivative of the logarithm of the flux of a profile by n, amplitude and radius held."""
    b, of_n = b_and_slope(n)
    return 1 / n + of_n - 2 * torch.log(b) - 2 * n * of_n / b + 2 * torch.digamma(2 * n)


def smooth_from_axes(c, *, flux):
    """Smooth coordinates (..., 7) from those with axes (..., 7), and the derivatives (..., 7, 7).

    ``flux`` says that the brightness is the flux. A row holds the derivatives of one smooth coordinate.
    """
    bright, radius, n, x_0, y_0, ellip, theta = c.unbind(-1)
    q, modulus, cos, sin = 1 - ellip, ellip / (2 - ellip), torch.cos(2 * theta), torch.sin(2 * theta)
    circular = radius + torch.log(q) / 2
    slopes = torch.eye(7, dtype=c.dtype, device=c.device).repeat(*c.shape[:-1], 1, 1)
    slopes[..., 1, 5] = -0.5 / q
    if flux:
        bright = bright - log_flux(circular, n)
        slopes[..., 0, 1], slopes[..., 0, 2], slopes[..., 0, 5] = -2.0, -flux_slope(n), 1 / q
    rate = 2 / (2 - ellip).square()
    slopes[..., 5, 5], slopes[..., 5, 6] = rate * cos, -2 * modulus * sin
    slopes[..., 6, 5], slopes[..., 6, 6] = rate * sin, 2 * modulus * cos
    return torch.stack([bright, circular, n, x_0, y_0, modulus * cos, modulus * sin], -1), slopes


def axes_from_smooth(c, *, flux):
    """Invert `smooth_from_axes`: (..., 7) to (..., 7)."""
    bright, circular, n, x_0, y_0, e1, e2 = c.unbind(-1)
    modulus = torch.hypot(e1, e2)
    q = (1 - modulus) / (1 + modulus)
    bright = bright + log_flux(circular, n) if flux else bright
    theta = torch.atan2(e2, e1) / 2
    return torch.stack([bright, circular - torch.log(q) / 2, n, x_0, y_0, 1 - q, theta], -1)


def group_axes_from_smooth(layout, smooth, *, flux=False):
    """All coordinates (B, C) with axes, from smooth ones (B, C)."""
    axes = smooth.clone()
    axes[:, layout.flat] = axes_from_smooth(smooth[:, layout.flat], flux=flux)
    return axes


def measured(coordinates):
    """Values (..., 8) of `MEASURED`, and derivatives (..., 8, 7), from smooth coordinates (..., 7)."""
    smooth = torch.as_tensor(coordinates, dtype=torch.float64)
    axes = axes_from_smooth(smooth, flux=False)
    bright, radius, n, x, y, ellip, theta = axes.unbind(-1)
    amplitude, major, flux = bright.exp(), radius.exp(), (bright + log_flux(smooth[..., 1], n)).exp()
    # A round galaxy has no theta: its derivative grows without limit nearby.
    elongated = torch.stack([bright, radius, n, x, y, ellip.clamp_min(1e-9), theta], -1)
    inverse = torch.linalg.inv(smooth_from_axes(elongated, flux=False)[1])
    slopes = dict(zip(AXES, inverse.unbind(-2), strict=True))
    of_flux = torch.zeros_like(smooth)
    of_flux[..., 0], of_flux[..., 1], of_flux[..., 2] = 1, 2, flux_slope(n)
    slopes |= {"flux": of_flux * flux[..., None], "amplitude": slopes["bright"] * amplitude[..., None]}
    slopes |= {"r_eff": slopes["r_eff"] * major[..., None], "x": slopes["x_0"], "y": slopes["y_0"]}
    values = torch.stack([x, y, amplitude, flux, major, n, ellip, theta], -1)
    return values.numpy(), torch.stack([slopes[name] for name in MEASURED], -2).numpy()


class ParameterTransform:
    """The free numbers of a fit, their bounds (B, Z), and the transform to the coordinates of the profiles.

    ``base`` (B, C) holds all coordinates, ``free`` (C,) says which vary. With ``axes`` the coordinates are
    those of `AXES`, otherwise those of `SMOOTH`. With ``flux`` the brightness is the flux instead of the
    amplitude. ``alias`` maps columns to columns that they equal; ``ties`` lists (column, function), with
    ``function(coordinates (b, C), index (b,))`` giving (b,).
    """

    def __init__(self, layout, base, free, *, axes, flux, alias, ties):
        self.layout, self.base, self.axes, self.flux, self.ties = layout, base, axes, flux, ties
        source = torch.arange(layout.size, device=base.device)
        source[list(alias)] = torch.tensor(list(alias.values()), dtype=source.dtype, device=base.device)
        self.source, self.free = source, free.clone()
        self.free[[*alias, *(column for column, _ in self.ties)]] = False
        self.index = torch.nonzero(self.free).squeeze(1)
        eye = torch.eye(layout.size, dtype=base.dtype, device=base.device)
        self._selection = eye[:, self.index][self.source]
        # In the corners of the box of e1 and e2 the modulus is above 1; with axes there are no such corners.
        places = {column: k for k, column in enumerate(self.index.tolist())}
        pairs = [] if axes else layout.flat[:, 0, 5:].tolist()
        pairs = [[places[column] for column in pair] for pair in pairs if set(pair) <= set(places)]
        self._ellipticities = torch.tensor(pairs, dtype=torch.long, device=base.device).reshape(-1, 2)

    def start(self):
        """The free numbers (B, Z) of the base."""
        return self.base[:, self.index]

    def keep_flux(self, c, old):
        """Change the brightness in coordinates (B, C), in place, to keep the fluxes of old ones."""
        bright = torch.as_tensor(self.layout.flat[:, :, 0], device=c.device)
        c[:, bright] += (self._log_flux(old) - self._log_flux(c)).unsqueeze(2)

    def _log_flux(self, c):
        """Logarithm (B, profiles) of flux over brightness."""
        radius, n, ellip = (c[:, self.layout.flat[:, 0, k]] for k in (1, 2, 5))
        if self.flux:
            return torch.zeros_like(n)
        return log_flux(radius + torch.log1p(-ellip) / 2 if self.axes else radius, n)

    def restart(self, factor, n):
        """Free numbers (B, Z) of another start: radii times ``factor`` and index ``n``, the flux kept."""
        c, (radii, indices) = self.base.clone(), self.layout.flat[:, 0, 1:3].T
        c[:, radii] += self.free[radii] * math.log(factor)
        c[:, indices] = torch.where(self.free[indices], n, c[:, indices])
        self.keep_flux(c, self.base)
        return c[:, self.index].clamp(self.lower, self.upper)

    def as_points(self, z, index, which):
        """Turn profiles ``which`` (b, profiles) into points of equal flux: z (b, Z), and which are held."""
        c, shape = self.coordinates(z, index), self.layout.flat[:, 0, POINT_COLUMNS]
        held, old = torch.zeros_like(c, dtype=torch.bool), c.clone()
        held[:, shape] = which.unsqueeze(2)
        c[:, shape] = torch.where(held[:, shape] & self.free[shape], c.new_tensor(POINT), c[:, shape])
        self.keep_flux(c, old)
        return c[:, self.index].clamp(self.lower[index], self.upper[index]), held[:, self.index]

    def inside(self, z):
        """Free numbers (b, Z) with the ellipticities that are too large reduced to the largest."""
        z, modulus = z.clone(), self._moduli(z)
        z[:, self._ellipticities] *= (MAX_MODULUS * (1 - 1e-9) / modulus.clamp_min(1e-9)).clamp_max(1)
        return z

    def at_largest_ellipticity(self, z):
        """Which free numbers (b, Z) are ellipticities at the upper limit."""
        found = torch.zeros_like(z, dtype=torch.bool)
        found[:, self._ellipticities] = self._moduli(z) > MAX_MODULUS * (1 - 1e-6)
        return found

    def _moduli(self, z):
        return torch.hypot(*z[:, self._ellipticities].unbind(2)).unsqueeze(2)

    def coordinates(self, z, index):
        """All coordinates (b, C) from free ones (b, Z) of the problems numbered ``index``."""
        c = self.base[index].clone()
        c[:, self.index] = z
        c = c[:, self.source]
        for column, function in self.ties:
            c[:, column] = function(c, index)
        return c

    def slope(self, z, index):
        """Derivatives (b, C, Z) of all coordinates by the free ones."""
        slope = self._selection.expand(len(z), -1, -1)
        if not self.ties:
            return slope
        slope, here, step = slope.clone(), self.coordinates(z, index), 1e-5
        tied = [column for column, _ in self.ties]
        for k in range(z.shape[1]):
            moved = z.clone()
            moved[:, k] += step
            slope[:, tied, k] = (self.coordinates(moved, index)[:, tied] - here[:, tied]) / step
        return slope

    def smooth(self, z, index):
        """Smooth coordinates (b, C) from z (b, Z), and their derivatives (b, C, Z)."""
        c, slope = self.coordinates(z, index), self.slope(z, index)
        if not self.axes:
            return c, slope
        columns = torch.as_tensor(self.layout.flat.reshape(-1, len(AXES)), device=c.device)
        smooth, turn = c.clone(), torch.eye(c.shape[1], dtype=c.dtype, device=c.device).repeat(len(c), 1, 1)
        smooth[:, columns], inner = smooth_from_axes(c[:, columns], flux=self.flux)
        turn[:, columns[:, :, None], columns[:, None, :]] = inner
        return smooth, turn @ slope

    def expand(self, z, index):
        """Vectors (b, F) of each band from z (b, Z), and their derivatives (b, F, Z)."""
        smooth, slope = self.smooth(z, index)
        columns = [self.layout.columns(band) for band in range(self.layout.bands)]
        return [(smooth[:, own], slope[:, own]) for own in columns]
