"""Intervals from the profile likelihood, where Gaussian errors may be wrong."""

import math

import numpy as np
import torch

from lenssr.photometry.fit_constraints import make_transform
from lenssr.photometry.measure import MEASURED, measured
from lenssr.photometry.parameters import LIMITS

__all__ = ["PROFILED", "profile_intervals", "wants_profile"]

# Parameters whose likelihood is profiled. Errors of positions are Gaussian for every galaxy that is detected.
PROFILED = ("flux", "r_eff", "n", "ellip")
# Where Gaussian errors are trusted: signal to noise above the first number up to the first index, above the
# second up to the second; r_eff in FWHM of the PSF; ellip in its errors. From the coverage measured on
# simulated stamps.
LOW_INDEX, LOW_SIGNAL = 2.5, 45.0
HIGH_INDEX, HIGH_SIGNAL = 6.0, 180.0
MIN_RADIUS_IN_FWHM = 0.75
ROUND_SIGMA = 3.0
# Tolerance on the rise of chi2 by 1 that defines an end, and most values that are tried for it.
RISE_TOLERANCE, MAX_TRIES = 0.04, 8
# Root of the rise below and above which a point is far from its end, and least ratio of the distances of a
# point outside and a point far inside. Chosen.
SHORT, LONG, STEEP = 0.5, 1.5, 1.2
# The other parameters are fitted until a step would lower chi2 by less than this, within this many
# iterations.
REFIT_TOLERANCE, REFIT_ITERATIONS = 0.02, 8
# A chi2 lower than that of the fit by this much belongs to another minimum.
OTHER_MINIMUM = 0.1
# Largest distance, in sigma, between the minima on the coarse lattice and on that of the fit.
ASTRAY_SIGMA = 1.0
# Most galaxies in a group with profiled intervals: in larger ones they dominate the time of a run.
MOST_GALAXIES = 2
# Step of a coordinate whose Gaussian error is 0, as on a bound. Chosen.
FIRST_STEP = 0.1
# First trial of the upper limit on the size of a point, in FWHM of the PSF.
LIMIT_SHARE = 0.3
# Largest logarithm of the factor between an end and the best fit of flux or r_eff.
FARTHEST = 5.0
# Longest step towards an end that is not bracketed, relative to the last one.
LONGEST_STEP = 3.0


def wants_profile(fit, settings):
    """Names of `PROFILED` whose Gaussian errors cannot be trusted in a fit."""
    if (
        settings.intervals == "gaussian"
        or settings.loss
        or any(one.involves_amplitude for one in settings.templates)
    ):
        return ()
    if settings.intervals == "profile":
        return PROFILED
    if fit.layout.galaxies > MOST_GALAXIES:
        return ()
    layout, names = fit.layout, ()
    for galaxy in range(layout.galaxies):
        for component in range(layout.components):
            if fit.is_point(galaxy, component):
                return PROFILED
            values, errors = _values_and_errors(fit, galaxy, component)
            radius, n, ellip = (values[MEASURED.index(name)] for name in ("r_eff", "n", "ellip"))
            signal = fit.signal[galaxy]
            known = signal >= LOW_SIGNAL if n <= LOW_INDEX else signal >= HIGH_SIGNAL and n <= HIGH_INDEX
            wide = 8 * radius <= min(fit.task.fit_shape) and radius >= MIN_RADIUS_IN_FWHM * fit.fwhm
            if not (known and wide):
                return PROFILED
            if ellip < ROUND_SIGMA * errors[MEASURED.index("ellip")]:
                names = ("ellip",)
    return names


def _values_and_errors(fit, galaxy, component, band=0):
    columns = _component_columns(fit.layout, galaxy, component, band)
    values, slopes = measured(fit.coordinates.numpy()[None, columns])
    covariance = fit.covariance.numpy()[np.ix_(columns, columns)]
    return values[0], np.sqrt(np.einsum("ij,jk,ik->i", slopes[0], covariance, slopes[0]).clip(0))


def _component_columns(layout, galaxy, component, band=0):
    first = layout.column("r_eff", galaxy, component)
    return [layout.column("bright", galaxy, component, band), *range(first, first + 6)]


def profile_intervals(batch, number, fit, weights, names=PROFILED, *, lattices=None):
    """Find the 68 % intervals of task ``number`` of a batch, and enter them into its ``fit``.

    Each parameter is held at a value, all others are fitted, and the value is moved until chi2 is higher by 1
    than at the best fit; all ends run as one batch. A bound that comes first is the end. Correlated noise
    widens intervals as it does errors. ``lattices`` lists the bands (`Stamps`) on coarser lattices, which
    serve if their best fit is near, and last on that of the fit. Returns smooth coordinates (1, C) near a
    lower minimum if one turned up, whose chi2 is to be confirmed, else None.
    """
    lattices = lattices or [batch.bands]
    for bands in lattices:
        search = _IntervalSearch(batch, number, fit, weights, names, bands, moved=bands is not lattices[-1])
        if not search.astray:
            break
    ends = search.run()
    for k, (name, galaxy, component, band, _) in enumerate(search.wanted):
        low, high = (float(ends[2 * k + side]) for side in (0, 1))
        if name in ("flux", "r_eff"):
            low, high = np.exp(low), np.exp(high)
        fit.intervals[name, galaxy, component, band] = low, high
    return search.better


class _IntervalSearch:
    def __init__(self, batch, number, fit, weights, names, bands, *, moved):
        self.batch, self.weights, self.bands, layout = batch, weights, bands, batch.layout
        self.moved = moved
        smooth = fit.coordinates[None].to(batch.device).expand(len(batch), -1).clone()
        self.transform = make_transform(batch, smooth, flux=True)
        base = self.transform.base
        meaningless = self._hold_points(number, fit)
        self.wanted = []
        for galaxy in range(layout.galaxies):
            for component in range(layout.components):
                for name in names:
                    for band in range(layout.bands if name == "flux" else 1):
                        coordinate = "bright" if name == "flux" else name
                        column = layout.column(coordinate, galaxy, component, band)
                        if bool(self.transform.free[column]) and column not in meaningless:
                            place = int((self.transform.index == column).nonzero()[0])
                            self.wanted.append((name, galaxy, component, band, place))
        self.number = 2 * len(self.wanted)
        index = torch.full((self.number,), number, device=batch.device)
        self.index, self.best = index, base[index][:, self.transform.index]
        self.fitted = self.best
        self.place = torch.tensor([w[-1] for w in self.wanted], device=batch.device).repeat_interleave(2)
        self.every = torch.arange(self.number, device=batch.device)
        side = torch.tensor([-1.0, 1.0], dtype=base.dtype, device=batch.device).repeat(len(self.wanted))
        self.better, self._lowest = None, -OTHER_MINIMUM
        covariance, self.chi2 = self._refit(number)
        if not moved:
            self._remember(torch.tensor([self.chi2 - fit.chi2]), self.best[:1], index[:1])
            self._lowest = -OTHER_MINIMUM
        self.scale = fit.widening
        sigma = torch.diagonal(covariance).clamp_min(0).sqrt()
        # A coordinate that ended on a bound has error 0.
        sigma = torch.where(sigma > 1e-6, sigma, FIRST_STEP)
        covariance = covariance + torch.diag((sigma == FIRST_STEP) * sigma**2)
        self.direction = (covariance / sigma)[self.place] / sigma[self.place, None]
        self.step = side * sigma[self.place]
        sizes = [name == "r_eff" and fit.is_point(*where[:2]) for name, *where in self.wanted]
        self.point = torch.tensor(sizes, device=batch.device).repeat_interleave(2)
        farther = max(math.log(LIMIT_SHARE * fit.fwhm) - LIMITS["r_eff"][0], FIRST_STEP)
        self.step = torch.where(self.point, side * farther, self.step)
        self.lower, self.upper = (end[index] for end in (self.transform.lower, self.transform.upper))

        away = (self.best[0] - self.fitted[0]).abs()
        self.astray = moved and bool((away > ASTRAY_SIGMA * sigma).any())

    def _hold_points(self, number, fit):
        """Hold the shapes of points, except for their size; returns these columns."""
        layout, held = self.transform.layout, []
        for galaxy in range(layout.galaxies):
            for component in range(layout.components):
                if fit.is_point(galaxy, component):
                    held += [layout.column(name, galaxy, component) for name in ("n", "ellip", "theta")]
        for place, column in enumerate(self.transform.index.tolist()):
            if column in held:
                for ends in (self.transform.lower, self.transform.upper):
                    ends[number, place] = self.transform.base[number, column]
        return held

    def _refit(self, number):
        """Fit again in these coordinates: covariance, and the chi2 to compare with."""
        index = torch.tensor([number], device=self.batch.device)
        options = {"tolerance": 1e-3, "index": index, "bands": self.bands}
        fit = self.batch.minimise(self.transform, self.best[:1], self.weights, **options)
        self.best = fit.parameters.expand(self.number, -1).clone()
        return fit.covariance()[0], float(fit.chi2[0])

    def _remember(self, rise, z, index):
        """Keep the place (1, C) with the lowest chi2, if it is lower than that of the fit."""
        lowest = int(rise.argmin())
        if float(rise[lowest]) < self._lowest:
            self._lowest = float(rise[lowest])
            own = slice(lowest, lowest + 1)
            self.better = self.transform.smooth(self.transform.coordinates(z[own], index[own]))[0]

    def run(self):
        """Values (2 W,) of the coordinates at the ends, low and high in turn."""
        centre = self.best[self.every, self.place]
        low, high = (end[self.every, self.place] for end in (self.lower, self.upper))
        logarithm = torch.tensor([name in ("flux", "r_eff") for name, *_ in self.wanted], device=low.device)
        farthest = torch.where(logarithm, FARTHEST, torch.inf).repeat_interleave(2)
        low, high = torch.maximum(low, centre - farthest), torch.minimum(high, centre + farthest)
        value = (centre + self.step * self.scale).clamp(low, high)
        start = self.best + self.direction * (value - centre).unsqueeze(1)
        nothing = torch.zeros_like(value)
        near, far = (nothing, nothing.clone()), (nothing + torch.nan, nothing + torch.nan)
        active = self.every
        for _ in range(MAX_TRIES):
            rise, found = self._rise(value[active], start[active], active)
            self._remember(rise, found, self.index[active])
            # The root of the rise is almost linear in the distance, which gives the next one.
            root, away = rise.clamp_min(0).sqrt() / self.scale, (value - centre)[active]
            # For the size of a point it is linear in the size itself, not in its logarithm.
            point = self.point[active]
            moved = torch.where(point, torch.expm1(away), away)
            inside = root < 1
            for ends, which in ((near, inside), (far, ~inside)):
                for end, new in zip(ends, (moved, root), strict=True):
                    end[active] = torch.where(which, new, end[active])
            # No likelihood is as steep as this: the fit of the point outside had not converged.
            steep = (root < SHORT) & (moved.abs() * STEEP > far[0][active].abs())
            far[1][active[steep]] = torch.nan
            ahead = self._move(near, far, active, moved, root)
            ahead = centre[active] + torch.where(point, torch.log1p(ahead.clamp_min(-0.5)), ahead)
            ahead = ahead.clamp(low[active], high[active])
            done = (root.square() - 1).abs() < RISE_TOLERANCE
            done |= ahead == value[active]
            share = torch.where(away.abs() > 0, (ahead - centre[active]) / away, 1.0).unsqueeze(1)
            start[active] = self.best[active] + (found - self.best[active]) * share
            value[active] = torch.where(done, value[active], ahead)
            active = active[~done]
            if not len(active):
                break
        fitted = self.fitted[self.every, self.place]
        if self.moved:
            value = torch.where((value > low) & (value < high), value + fitted - centre, value)
        # The fitted value lies between its ends, also where the search found a better minimum.
        value[0::2], value[1::2] = (
            torch.minimum(value[0::2], fitted[0::2]),
            torch.maximum(value[1::2], fitted[1::2]),
        )
        return value.clamp(low, high)

    @staticmethod
    def _move(near, far, active, moved, root):
        """Distance from the best fit to try next: between the points inside and outside, or farther out."""
        (near_at, near_root), (far_at, far_root) = ([end[active] for end in ends] for ends in (near, far))
        share = (1 - near_root) / (far_root - near_root)
        # Bisect if a line from far outside fell short the last time.
        share = torch.where((root < SHORT) & (far_root > LONG), 0.5, share)
        between = near_at + (far_at - near_at) * share
        return torch.where(torch.isfinite(between), between, moved / root.clamp_min(1 / LONGEST_STEP))

    def _rise(self, value, start, active):
        lower, upper, start = self.lower[active].clone(), self.upper[active].clone(), start.clone()
        every = torch.arange(len(active), device=active.device)
        for part in (lower, upper, start):
            part[every, self.place[active]] = value
        options = {"index": self.index[active], "bands": self.bands, "bounds": (lower, upper)}
        start, tolerance = start.clamp(lower, upper), REFIT_TOLERANCE * self.scale**2
        fit = self.batch.minimise(
            self.transform, start, self.weights, tolerance=tolerance, most=REFIT_ITERATIONS, **options
        )
        # An impossible shape counts as far outside: the next trial is half as far away.
        lost = ~torch.isfinite(fit.chi2)
        rise = torch.where(lost, 4 * self.scale**2, fit.chi2 - self.chi2)
        return rise, torch.where(lost.unsqueeze(1), start, fit.parameters)
