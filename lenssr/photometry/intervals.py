"""Intervals from the profile likelihood, where Gaussian errors may be wrong."""

import math

import numpy as np
import torch

from lenssr.photometry.fit_constraints import make_transform
from lenssr.photometry.parameters import LIMITS, MEASURED

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
# A chi2 lower than the fit's by this much belongs to another minimum.
OTHER_MINIMUM = 0.1
# Largest distance, in sigma, between the minima on the coarse lattice and on that of the fit.
ASTRAY_SIGMA = 1.0
# Most galaxies in a group with profiled intervals: in larger ones they dominate the time of a run.
MOST_GALAXIES = 2
# Step of a coordinate whose Gaussian error is 0, as on a bound. Chosen.
FIRST_STEP = 0.1
# First trial of the upper limit on the size of a point, in FWHM of the PSF.
LIMIT_SHARE = 0.3
# Coordinates that are logarithms, and largest logarithm of the factor between an end and their best fit.
LOGARITHMS, FARTHEST = ("flux", "r_eff"), 5.0
# Longest step towards an end that is not bracketed, relative to the last one.
LONGEST_STEP = 3.0


def wants_profile(fit, settings):
    """Names of `PROFILED` whose Gaussian errors cannot be trusted in a fit."""
    involved = any(one.involves_amplitude for one in settings.templates)
    if settings.intervals == "gaussian" or settings.loss or involved:
        return ()
    if settings.intervals == "profile":
        return PROFILED
    if fit.layout.galaxies > MOST_GALAXIES:
        return ()
    radius, n, ellip = (fit.values[:, :, 0, MEASURED.index(name)] for name in ("r_eff", "n", "ellip"))
    signal = np.array(fit.signal)[:, None]
    trusted = np.where(n <= LOW_INDEX, signal >= LOW_SIGNAL, (signal >= HIGH_SIGNAL) & (n <= HIGH_INDEX))
    trusted &= (8 * radius <= min(max(fit.task.boxes))) & (radius >= MIN_RADIUS_IN_FWHM * fit.fwhm)
    if not trusted.all() or any(fit.is_point(*place) for place in np.ndindex(n.shape)):
        return PROFILED
    nearly_round = ellip < ROUND_SIGMA * fit.errors[:, :, 0, MEASURED.index("ellip")]
    return ("ellip",) if nearly_round.any() else ()


def profile_intervals(batch, number, fit, weights, names, *, lattices):
    """Find the 68 % intervals of task ``number`` of a batch, and enter them into its ``fit``.

    Each parameter is held at a value, all others are fitted, and the value is moved until chi2 is higher by 1
    than at the best fit, or a bound is met. ``lattices`` lists the bands (`Stamps`) on coarser lattices, used
    if their best fit is near, and last on the lattice of the fit. Returns smooth coordinates (1, C) near a
    lower minimum if one turned up, else None.
    """
    for bands in lattices:
        search = _IntervalSearch(batch, number, fit, weights, names, bands, moved=bands is not lattices[-1])
        if not search.astray:
            break
    if search.wanted:
        for (*place, _), ends in zip(search.wanted, search.run().tolist(), strict=True):
            fit.intervals[tuple(place)] = np.exp(ends) if place[0] in LOGARITHMS else ends
    return search.better


class _IntervalSearch:
    """Search for the ends of the intervals of a fit.

    ``wanted`` lists (name, galaxy, component, band, free number), each with a low and a high end; ``moved``
    says that the bands are not those of the fit, whose minimum may be elsewhere.
    """

    def __init__(self, batch, number, fit, weights, names, bands, *, moved):
        self.batch, self.weights, self.bands, self.moved = batch, weights, bands, moved
        smooth = fit.coordinates[None].to(batch.device).expand(len(batch), -1)
        self.transform, self.scale = make_transform(batch, smooth, flux=True), fit.task.widening
        self.fitted = self.transform.start()[number]
        self.wanted = self._wanted(fit, names, number)
        self.lower, self.upper = self.transform.lower[number], self.transform.upper[number]
        self.index = torch.full((2 * len(self.wanted),), number, device=batch.device)
        self.place = torch.tensor([one[-1] for one in self.wanted], dtype=torch.long, device=batch.device)
        self.place = self.place.repeat_interleave(2)

        # Fit again in these coordinates, for the chi2 to compare with and the covariance.
        options = {"index": torch.tensor([number], device=batch.device), "bands": bands}
        again = batch.minimise(self.transform, self.fitted[None], weights, **options)
        self.best, self.chi2, covariance = again.parameters[0], float(again.chi2[0]), again.covariance()[0]
        self.better, self._lowest = None, -OTHER_MINIMUM
        if not moved and self.chi2 - fit.chi2 < -OTHER_MINIMUM:
            self.better = self._smooth(self.best, number)

        sigma = torch.diagonal(covariance).clamp_min(0).sqrt()
        # A coordinate that ended on a bound has error 0.
        sigma = torch.where(sigma > 1e-6, sigma, FIRST_STEP)
        self.astray = moved and bool(((self.best - self.fitted).abs() > ASTRAY_SIGMA * sigma).any())
        covariance = covariance + torch.diag((sigma == FIRST_STEP) * sigma**2)
        self.direction = (covariance / sigma)[self.place] / sigma[self.place, None]
        sizes = [name == "r_eff" and fit.is_point(*place[:2]) for name, *place in self.wanted]
        self.point = torch.tensor(sizes, dtype=torch.bool, device=batch.device).repeat_interleave(2)
        farther = max(math.log(LIMIT_SHARE * fit.fwhm) - LIMITS["r_eff"][0], FIRST_STEP)
        side = sigma.new_tensor([-1.0, 1.0]).repeat(len(self.wanted))
        self.step = side * torch.where(self.point, farther, sigma[self.place])

    def _wanted(self, fit, names, number):
        """Intervals to find; the shapes of points, which mean nothing, are held, except for their size."""
        layout, transform = fit.layout, self.transform
        profiles = list(np.ndindex(layout.galaxies, layout.components))
        points = [place for place in profiles if fit.is_point(*place)]
        shapes = {layout.column(name, *place) for place in points for name in ("n", "ellip", "theta")}
        places = {column: place for place, column in enumerate(transform.index.tolist())}
        held = [places.pop(column) for column in shapes & places.keys()]
        for ends in (transform.lower, transform.upper):
            ends[number, held] = self.fitted[held]
        return [
            (name, galaxy, component, band, places[column])
            for galaxy, component in profiles
            for name in names
            for band in range(layout.bands if name == "flux" else 1)
            for column in [layout.column("bright" if name == "flux" else name, galaxy, component, band)]
            if column in places
        ]

    def _smooth(self, z, number):
        """Smooth coordinates (1, C) of free numbers (Z,)."""
        return self.transform.smooth(z[None], torch.tensor([number], device=z.device))[0]

    def run(self):
        """Values (W, 2) of the coordinates at the ends, low and high."""
        centre, fitted = self.best[self.place], self.fitted[self.place]
        low, high = self.lower[self.place], self.upper[self.place]
        reach = [FARTHEST if name in LOGARITHMS else math.inf for name, *_ in self.wanted]
        reach = centre.new_tensor(reach).repeat_interleave(2)
        low, high = torch.maximum(low, centre - reach), torch.minimum(high, centre + reach)
        value = (centre + self.step * self.scale).clamp(low, high)
        start = self.best + self.direction * (value - centre).unsqueeze(1)
        # Distances and roots of the rise of the nearest points to each end, inside and outside.
        near, far = centre.new_zeros(2, len(centre)), centre.new_full((2, len(centre)), torch.nan)
        active = torch.arange(len(centre), device=centre.device)
        for _ in range(MAX_TRIES):
            rise, found = self._rise(value[active], start[active], active)
            # The root of the rise is almost linear in the distance, which gives the next one.
            root, away = rise.clamp_min(0).sqrt() / self.scale, (value - centre)[active]
            # For the size of a point it is linear in the size itself, not in its logarithm.
            point = self.point[active]
            trial = torch.stack([torch.where(point, torch.expm1(away), away), root])
            near[:, active] = torch.where(root < 1, trial, near[:, active])
            far[:, active] = torch.where(root < 1, far[:, active], trial)
            # No likelihood is as steep as this: the fit of the point outside had not converged.
            steep = (root < SHORT) & (trial[0].abs() * STEEP > far[0, active].abs())
            far[1, active[steep]] = torch.nan
            ahead = _next_distance(near[:, active], far[:, active], trial)
            ahead = centre[active] + torch.where(point, torch.log1p(ahead.clamp_min(-0.5)), ahead)
            ahead = ahead.clamp(low[active], high[active])
            done = ((root.square() - 1).abs() < RISE_TOLERANCE) | (ahead == value[active])
            share = torch.where(away.abs() > 0, (ahead - centre[active]) / away, 1.0).unsqueeze(1)
            start[active] = self.best + (found - self.best) * share
            value[active] = torch.where(done, value[active], ahead)
            active = active[~done]
            if not len(active):
                break
        if self.moved:
            value = torch.where((value > low) & (value < high), value + fitted - centre, value)
        # The fitted value lies between its ends, also where the search found a better minimum.
        value[0::2] = torch.minimum(value[0::2], fitted[0::2])
        value[1::2] = torch.maximum(value[1::2], fitted[1::2])
        return value.clamp(low, high).reshape(-1, 2)

    def _rise(self, value, start, active):
        """Rise of chi2 (b,) with parameters held at values (b,), and where the others end, z (b, Z)."""
        held = torch.arange(start.shape[1], device=start.device) == self.place[active].unsqueeze(1)
        parts = self.lower, self.upper, start
        lower, upper, start = (torch.where(held, value.unsqueeze(1), part) for part in parts)
        start = start.clamp(lower, upper)
        options = {"tolerance": REFIT_TOLERANCE * self.scale**2, "max_iterations": REFIT_ITERATIONS}
        options |= {"index": self.index[active], "bands": self.bands, "bounds": (lower, upper)}
        fit = self.batch.minimise(self.transform, start, self.weights, **options)
        # An impossible shape counts as far outside: the next trial is half as far away.
        lost = ~torch.isfinite(fit.chi2)
        rise = torch.where(lost, 4 * self.scale**2, fit.chi2 - self.chi2)
        found = torch.where(lost.unsqueeze(1), start, fit.parameters)
        lowest = int(rise.argmin())
        if float(rise[lowest]) < self._lowest:
            self._lowest = float(rise[lowest])
            self.better = self._smooth(found[lowest], int(self.index[0]))
        return rise, found


def _next_distance(near, far, trial):
    """Distance from the best fit to try next: between the points inside and outside, or farther out.

    Points are distances and roots of the rise (2, b).
    """
    share = (1 - near[1]) / (far[1] - near[1])
    # Bisect if a line from far outside fell short the last time.
    share = torch.where((trial[1] < SHORT) & (far[1] > LONG), 0.5, share)
    between = near[0] + (far[0] - near[0]) * share
    return torch.where(torch.isfinite(between), between, trial[0] / trial[1].clamp_min(1 / LONGEST_STEP))
