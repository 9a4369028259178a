"""Coordinates of a fit, and the transform from its free numbers to the parameters of the profiles."""

import math

import numpy as np
import torch

from lenssr.light import sersic_flux
from lenssr.light.sersic_shape import b_and_slope

__all__ = [
    "LIMITS",
    "SHAPE",
    "ParameterLayout",
    "ParameterTransform",
    "flux_slope",
    "group_axes_from_smooth",
    "log_unit_flux",
]

# Coordinates of one component, after its brightness in each band. Brightness and r_eff are logarithms.
SHAPE = ("r_eff", "n", "x_0", "y_0", "ellip", "theta")
# The smooth ones, as in `~lenssr.light.sersic_brightness`: they have derivatives where a galaxy is round.
_SMOOTH = ("r_eff", "n", "x_0", "y_0", "e1", "e2")
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


# Sérsic index of a point: the operator integrates a profile with a cusp well, however small it is.
POINT_INDEX = 2.0


class ParameterLayout:
    """Columns of the coordinates of a group in one vector.

    A galaxy has ``components``, each with one brightness a band and one shape; ``sky`` adds a constant in
    each band.
    """

    def __init__(self, galaxies=1, components=1, bands=1, *, sky=True):
        self.galaxies, self.components, self.bands, self.sky = galaxies, components, bands, sky
        self.block = bands + len(SHAPE)
        self.size = galaxies * components * self.block + bands * sky

    def start(self, galaxy, component):
        """Where the coordinates of a component begin."""
        return (galaxy * self.components + component) * self.block

    def column(self, name, galaxy=0, component=0, band=0):
        """Column of a coordinate: "bright", "sky", or one of `SHAPE`."""
        if name == "sky":
            return self.size - self.bands + band
        if name == "bright":
            return self.start(galaxy, component) + band
        names = SHAPE if name in SHAPE else _SMOOTH
        return self.start(galaxy, component) + self.bands + names.index(name)

    @property
    def starts(self):
        """Where the coordinates of each profile begin, galaxy by galaxy."""
        return range(0, self.galaxies * self.components * self.block, self.block)

    @property
    def names(self):
        """Names of all coordinates, of the smooth kind."""
        bright = ["log_amplitude"] if self.bands == 1 else [f"log_amplitude[{b}]" for b in range(self.bands)]
        own = [*bright, "log_r_eff_circ", *_SMOOTH[1:]]
        ends = [
            (f"[galaxy {g}]" if self.galaxies > 1 else "") + (f"_{k}" if self.components > 1 else "")
            for g in range(self.galaxies)
            for k in range(self.components)
        ]
        sky = [] if not self.sky else ["sky"] if self.bands == 1 else [f"sky[{b}]" for b in range(self.bands)]
        return [name + end for end in ends for name in own] + sky

    def columns(self, band):
        """Columns that make the fit vector of a scene in a band: those of each profile, then the sky."""
        own = []
        for start in self.starts:
            own += [start + band, *range(start + self.bands, start + self.block)]
        return own + ([self.column("sky", band=band)] if self.sky else [])


def flux_slope(n):
    """Derivative of the logarithm of the flux of a profile by n, amplitude and radius held."""
    b, of_n = b_and_slope(n)
    return 1 / n + of_n - 2 * torch.log(b) - 2 * n * of_n / b + 2 * torch.digamma(2 * n)


def log_unit_flux(layout, c, start, *, axes, flux):
    """Logarithm (B,) of flux over brightness of the profile that begins at ``start`` in c (B, C)."""
    if flux:
        return c.new_zeros(len(c))
    radius, n, ellip = (c[:, start + layout.bands + k] for k in (0, 1, 4))
    circular = radius + torch.log1p(-ellip) / 2 if axes else radius
    return 2 * circular + torch.log(sersic_flux(torch.ones_like(n), 1.0, n))


def smooth_from_axes(c, *, flux):
    """Smooth coordinates (B, 7) of profiles from those with axes (B, 7), logarithms as in `SHAPE`.

    Also returns the derivatives (B, 7, 7), one row for each smooth coordinate.
    """
    bright, radius, n, x_0, y_0, ellip, theta = c.unbind(1)
    q, modulus, turned = 1 - ellip, ellip / (2 - ellip), (torch.cos(2 * theta), torch.sin(2 * theta))
    circular = radius + torch.log(q) / 2
    slopes = torch.eye(7, dtype=c.dtype, device=c.device).repeat(len(c), 1, 1)
    slopes[:, 1, 5] = -0.5 / q
    if flux:
        bright = bright - 2 * circular - torch.log(sersic_flux(torch.ones_like(n), 1.0, n))
        slopes[:, 0, 1], slopes[:, 0, 2], slopes[:, 0, 5] = -2.0, -flux_slope(n), 1 / q
    rate = 2 / (2 - ellip).square()
    slopes[:, 5, 5], slopes[:, 6, 5] = rate * turned[0], rate * turned[1]
    slopes[:, 5, 6], slopes[:, 6, 6] = -2 * modulus * turned[1], 2 * modulus * turned[0]
    smooth = [bright, circular, n, x_0, y_0, modulus * turned[0], modulus * turned[1]]
    return torch.stack(smooth, dim=1), slopes


def axes_from_smooth(c, *, flux):
    """Invert `smooth_from_axes`: (B, 7) to (B, 7)."""
    bright, circular, n, x_0, y_0, e1, e2 = c.unbind(1)
    modulus = torch.hypot(e1, e2)
    q = (1 - modulus) / (1 + modulus)
    if flux:
        bright = bright + 2 * circular + torch.log(sersic_flux(torch.ones_like(n), 1.0, n))
    theta = torch.atan2(e2, e1) / 2
    return torch.stack([bright, circular - torch.log(q) / 2, n, x_0, y_0, 1 - q, theta], dim=1)


def group_axes_from_smooth(layout, smooth, *, flux=False):
    """All coordinates (B, C) with axes, from smooth ones (B, C)."""
    axes = smooth.clone()
    for start in layout.starts:
        shape = slice(start + layout.bands, start + layout.block)
        for band in range(layout.bands):
            own = axes_from_smooth(torch.cat([smooth[:, [start + band]], smooth[:, shape]], 1), flux=flux)
            axes[:, start + band], axes[:, shape] = own[:, 0], own[:, 1:]
    return axes


class ParameterTransform:
    """The free numbers of a fit, their bounds (B, Z), and the transform to the fit vectors of the scenes.

    ``base`` (B, C) holds all coordinates, ``free`` (C,) says which vary. With ``axes`` the coordinates are
    semi-major axis, ellip and theta; otherwise mean radius, e1 and e2, smooth where a galaxy is round. With
    ``flux`` the brightness is the logarithm of the flux instead of the amplitude. ``alias`` maps columns to
    columns that they equal; ``ties`` lists (column, function), with ``function(coordinates (b, C), index
    (b,))`` giving (b,).
    """

    def __init__(self, layout, base, free, *, axes=False, flux=False, alias=None, ties=()):
        self.layout, self.base, self.axes, self.flux, self.ties = layout, base, axes, flux, tuple(ties)
        source = np.arange(layout.size)
        for column, other in (alias or {}).items():
            source[column] = other
        self.source = torch.as_tensor(source, device=base.device)
        free = free.clone()
        for column in [*(alias or {}), *(column for column, _ in self.ties)]:
            free[column] = False
        self.free = free
        self.index = torch.nonzero(free).squeeze(1)
        eye = torch.eye(layout.size, dtype=base.dtype, device=base.device)
        self._selection = eye[:, self.index][self.source]
        self.lower = torch.full_like(self.start(), -torch.inf)
        self.upper = -self.lower
        places = {column: k for k, column in enumerate(self.index.tolist())}
        pairs = ([start + layout.bands + 4, start + layout.bands + 5] for start in layout.starts)
        # In the corners of the box of e1 and e2 the modulus is above 1; with axes there are no such corners.
        self._ellipticities = [
            [places[column] for column in pair]
            for pair in pairs
            if not axes and all(column in places for column in pair)
        ]
        self._plain = not axes and not self.ties and layout.bands == 1 and bool(free.all())

    def restart(self, factor, n):
        """Free numbers (B, Z) of another start: radii times ``factor`` and index ``n``, the flux kept."""
        layout, other = self.layout, self.base.clone()
        for start in layout.starts:
            radius = start + layout.bands
            old = other[:, radius + 1]
            new = torch.full_like(old, n) if bool(self.free[radius + 1]) else old
            growth = math.log(factor) if bool(self.free[radius]) else 0.0
            before = self._unit_flux(other, start)
            other[:, radius] += growth
            other[:, radius + 1] = new
            other[:, start:radius] += (before - self._unit_flux(other, start)).unsqueeze(1)
        return torch.minimum(torch.maximum(other[:, self.index], self.lower), self.upper)

    def _unit_flux(self, c, start):
        return log_unit_flux(self.layout, c, start, axes=self.axes, flux=self.flux)

    def inside(self, z):
        """Free numbers (b, Z) with the ellipticities that are too large reduced to the largest."""
        z = z.clone()
        for pair in self._ellipticities:
            modulus = torch.hypot(*z[:, pair].unbind(1)).unsqueeze(1)
            z[:, pair] *= (MAX_MODULUS * (1 - 1e-9) / modulus.clamp_min(1e-9)).clamp_max(1)
        return z

    def at_largest_ellipticity(self, z):
        """Which free numbers (b, Z) are ellipticities at the upper limit."""
        found = torch.zeros_like(z, dtype=torch.bool)
        for pair in self._ellipticities:
            found[:, pair] = (torch.hypot(*z[:, pair].unbind(1)) > MAX_MODULUS * (1 - 1e-6)).unsqueeze(1)
        return found

    def as_points(self, z, index, which):
        """Turn profiles ``which`` (b, profiles) into points of equal flux: z (b, Z), and which are held."""
        c, layout = self.coordinates(z, index), self.layout
        point = torch.tensor([LIMITS["r_eff"][0], POINT_INDEX, 0, 0], dtype=c.dtype, device=c.device)
        held = torch.zeros_like(c, dtype=torch.bool)
        for own, start in zip(which.T, layout.starts, strict=True):
            radius = start + layout.bands
            shape = [radius, radius + 1, radius + 4, radius + 5]
            held[:, shape] = own.unsqueeze(1)
            old = c[:, shape]
            new = torch.where(self.free[shape] & own.unsqueeze(1), point, old)
            before = self._unit_flux(c, start)
            c[:, shape] = new
            c[:, start:radius] += (before - self._unit_flux(c, start)).unsqueeze(1)
        inside = torch.minimum(torch.maximum(c[:, self.index], self.lower[index]), self.upper[index])
        return inside, held[:, self.index]

    def start(self):
        """The free numbers (B, Z) of the base."""
        return self.base[:, self.index]

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
        slope, here = slope.clone(), self.coordinates(z, index)
        step = 1e-5
        for k in range(z.shape[1]):
            moved = z.clone()
            moved[:, k] += step
            there = self.coordinates(moved, index)
            for column, _ in self.ties:
                slope[:, column, k] = (there[:, column] - here[:, column]) / step
        return slope

    def expand(self, z, index):
        """Fit vectors (b, F) of the scene in each band from z (b, Z), and their derivatives (b, F, Z).

        A derivative is None where the vector is z itself.
        """
        if self._plain:
            return [z], [None]
        c, slope = self.coordinates(z, index), self.slope(z, index)
        vectors, slopes = [], []
        for band in range(self.layout.bands):
            columns = self.layout.columns(band)
            own, turned = c[:, columns], slope[:, columns]
            if self.axes:
                own, turned = self._to_smooth(own, turned)
            vectors.append(own)
            slopes.append(turned)
        return vectors, slopes

    def _to_smooth(self, own, turned):
        profiles = self.layout.galaxies * self.layout.components
        parts = own[:, : 7 * profiles].reshape(-1, 7)
        value, inner = smooth_from_axes(parts, flux=self.flux)
        inner = inner.reshape(len(own), profiles, 7, 7)
        ends = turned[:, : 7 * profiles].reshape(len(own), profiles, 7, -1)
        top = (inner @ ends).reshape(len(own), 7 * profiles, -1)
        own = torch.cat([value.reshape(len(own), -1), own[:, 7 * profiles :]], 1)
        return own, torch.cat([top, turned[:, 7 * profiles :]], 1)

    def smooth(self, c):
        """Smooth coordinates (B, C) of all coordinates, and the derivatives (B, C, C) of one by the other."""
        layout = self.layout
        turn = torch.eye(layout.size, dtype=c.dtype, device=c.device).expand(len(c), -1, -1)
        if not self.axes:
            return c, turn
        smooth, turn = c.clone(), turn.clone()
        for start in layout.starts:
            shape = list(range(start + layout.bands, start + layout.block))
            for band in range(layout.bands):
                columns = torch.tensor([start + band, *shape], device=c.device)
                value, inner = smooth_from_axes(c[:, columns], flux=self.flux)
                smooth[:, columns] = value
                turn[:, columns[:, None], columns] = inner
        return smooth, turn
