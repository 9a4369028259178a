"""The fit of a batch of groups of galaxies."""

import math
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch

from lenssr.imaging.integrating_operator import IntegratingOperator
from lenssr.imaging.tracking_operator import (
    BEYOND_MARGIN,
    FINE_POINTS_ACROSS,
    POINTS_ACROSS,
    FollowingOperator,
    effective_kernel,
)
from lenssr.photometry.fit_constraints import make_space
from lenssr.photometry.groups import psf_key
from lenssr.photometry.initial import psf_fwhm, start
from lenssr.photometry.intervals import profile_intervals, wants_profile
from lenssr.photometry.parameters import Layout, theta_turned
from lenssr.photometry.robust import sandwich
from lenssr.photometry.task_batch import Batch

__all__ = ["GroupFit", "Solver", "describe_fit"]

EARLY_TOLERANCE, LAST_TOLERANCE = 0.1, 1e-3
# Photon noise follows the model: its weights are refitted so often.
NOISE_REFITS = 3
# Weights of a robust loss follow the residuals so often; they settle within a few.
ROBUST_REFITS = 5
# Root of the chi2 that the error of the lattice may make: it shifts no parameter by more sigma than this.
LATTICE_SIGMA = 0.1
# A fit that is worse than this many sigma of chi2 begins once more from other radii and indices.
POOR_SIGMA = 5.0
MOST_RESTARTED = 2
# A point is no worse than the same galaxy with a shape if its chi2 is higher by no more than this: the four
# numbers of a shape fit so much of the noise 1 time in 20. What is below this share of the FWHM is compared.
POINT_RISE, POINT_SHARE = 9.5, 0.3
OTHER_STARTS = ((1.6, 0.8), (0.6, 4.0))
# A PSF whose wings reach farther than this many pixels is cut to this share of its light until a fit is near
# its end: the wings make each step several times as slow.
NARROW, CORE_SHARE = 8, 0.9
SHARP_ITERATIONS = 40
# Without a PSF pixels are integrated from so many nodes along each.
NO_PSF_POINTS = {POINTS_ACROSS: 2, FINE_POINTS_ACROSS: 3}


@dataclass
class GroupFit:
    """Where the fit of one group ended.

    Attributes
    ----------
    task : `~lenssr.photometry.groups.Task`
    layout : `~lenssr.photometry.parameters.Layout`
    coordinates : `torch.Tensor`, shape (C,)
        With e1 and e2, and the mean radius.
    covariance : `torch.Tensor`, shape (C, C)
    chi2 : float
    pixels : int
    parameters : int
        How many were free.
    iterations : int
    converged : bool
    at_bound : tuple of int
        Columns that ended on a bound.
    held : tuple of int
        Columns of the shapes of points, which mean nothing.
    widening : float
        Factor on all errors, because the noise of neighbouring pixels correlates.
    intervals : dict
        Ends from the profile likelihood, by (name, galaxy, component, band).
    signal : list of float
        Signal to noise of each galaxy, ``sqrt(sum(model^2 / sigma^2))``.
    fwhm : float
        Of the PSF in pixels.
    """

    task: object
    layout: Layout
    coordinates: torch.Tensor
    covariance: torch.Tensor
    chi2: float
    pixels: int
    parameters: int
    iterations: int
    converged: bool
    at_bound: tuple
    held: tuple
    signal: list
    fwhm: float
    widening: float = 1.0
    intervals: dict = field(default_factory=dict)

    def is_point(self, galaxy, component):
        """Whether a component is held as a point."""
        return self.layout.column("r_eff", galaxy, component) in self.held


def describe_fit(fit):
    """What a user may want to know of the fit of a group.

    Parameters
    ----------
    fit : `GroupFit`

    Returns
    -------
    info : dict
    """
    names, layout = fit.layout.names, fit.layout
    covariance = fit.covariance.numpy()
    scale = np.sqrt(np.diag(covariance))
    scale = np.where(scale > 0, scale, 1.0)
    return {
        "parameters": names,
        "values": fit.coordinates.numpy(),
        "covariance": covariance,
        "correlation": covariance / np.outer(scale, scale),
        "chi2": fit.chi2,
        "n_free": fit.parameters,
        "n_pixels": fit.pixels,
        "iterations": fit.iterations,
        "converged": fit.converged,
        "at_bound": [names[column] for column in fit.at_bound],
        "n_galaxies": layout.galaxies,
    }


class Solver:
    """Fit batches of groups of galaxies.

    Parameters
    ----------
    settings : `~lenssr.photometry.fit_settings.FitSettings`
    """

    def __init__(self, settings):
        self.settings = settings
        self._kernels, self._operators = {}, {}

    def operator(
        self, psf, pixel_scale, shape, points_across=POINTS_ACROSS, *, whole=True, dtype=torch.float64
    ):
        """The operator of a telescope for stamps of one shape, behind the whole PSF or its core."""
        options = {"dtype": dtype, "device": self.settings.torch_device}
        if psf is None:
            key = NO_PSF_POINTS[points_across], shape, dtype
            if key not in self._operators:
                self._operators[key] = IntegratingOperator(shape, points=key[0], **options)
            return self._operators[key]
        key = psf_key(psf), pixel_scale, points_across, whole
        kernel, subsampling = self._kernel(psf, key)
        if (*key, shape, dtype) not in self._operators:
            self._operators[*key, shape, dtype] = FollowingOperator(
                shape, kernel, subsampling=subsampling, **options
            )
        return self._operators[*key, shape, dtype]

    def _kernel(self, psf, key):
        """Response of a pixel, and points of its lattice along a pixel."""
        _, pixel_scale, points_across, whole = key
        if key not in self._kernels:
            kernel, subsampling = effective_kernel(psf, pixel_scale, points_across=points_across)
            self._kernels[key] = kernel if whole else core(kernel, subsampling), subsampling
        return self._kernels[key]

    def psf_reach(self, psf, pixel_scale):
        """How far light is scattered, in pixels."""
        if psf is None:
            return 1.0
        kernel, subsampling = self._kernel(psf, (psf_key(psf), pixel_scale, POINTS_ACROSS, True))
        return max(kernel.shape) / 2 / subsampling

    def solve(self, tasks):
        """Fit a batch.

        Parameters
        ----------
        tasks : list of `~lenssr.photometry.groups.Task`
            Of one shape, number of galaxies, telescope and kind of noise.

        Returns
        -------
        fits : list of `GroupFit` or None
            None where there are fewer pixels than parameters.
        """
        operator = partial(self.operator, whole=False)
        batch = Batch(tasks, self.settings, operator)
        enough = torch.nonzero(batch.pixels > batch.layout.size).squeeze(1).tolist()
        fits = [None] * len(tasks)
        if not enough:
            return fits
        if len(enough) < len(tasks):
            batch = Batch([tasks[i] for i in enough], self.settings, operator)
        for i, fit in zip(enough, self._fit(batch), strict=True):
            fits[i] = fit
        return fits

    def _fit(self, batch):
        settings, space = self.settings, make_space(batch, start(batch))
        z, weights = space.start(), batch.weights
        iterations = torch.zeros(len(z), dtype=torch.long, device=batch.device)
        passes = 1 if batch.gaussian else NOISE_REFITS
        for number in range(passes):
            last = number == passes - 1
            tolerance = LAST_TOLERANCE if last else EARLY_TOLERANCE
            fit = batch.minimise(space, z, weights, tolerance=tolerance, rough=not number)
            if not number:
                points = self._try_points(batch, space, fit, weights)
                self._try_others(batch, space, fit, weights, points)
            z, iterations = fit.parameters, iterations + fit.iterations
            if not last:
                weights = batch.noise_weights(batch.images(space, z))
        plain = weights
        for _ in range(ROBUST_REFITS if settings.loss else 0):
            weights = batch.robust_weights(batch.images(space, z), plain)
            fit = batch.minimise(space, z, weights, tolerance=LAST_TOLERANCE)
            z, iterations = fit.parameters, iterations + fit.iterations
        sharpened, more = self._sharpen(batch, space, fit, weights)
        fit.iterations = iterations + more
        covariance = self._robust_covariance(batch, space, fit, plain) if settings.loss else fit.covariance()
        fits = self._collect(batch, space, fit, weights, covariance)
        better = self._profile(batch, fits, weights, sharpened)
        improved = [
            i for i, c in better.items() if self._adopted(batch, space, fit, weights, i, c, sharpened)
        ]
        if improved:
            again = self._collect(batch, space, fit, weights, fit.covariance())
            fits = [again[i] if i in improved else one for i, one in enumerate(fits)]
            self._profile(batch, fits, weights, sharpened, improved)
        return fits

    def _try_points(self, batch, space, fit, weights):
        """Fit what ended near a point again as one, and hold the shapes of those that are; returns which.

        The shape of a point means nothing, and a fit may wander through shapes for ever.
        """
        radii = [start + batch.layout.bands for start in batch.layout.starts]
        least = math.log(POINT_SHARE * psf_fwhm(batch.tasks[0].bands[0]))
        smooth = space.smooth(space.coordinates(fit.parameters, batch.everything))[0]
        small = smooth[:, radii] < least
        index, points = torch.nonzero(small.any(1)).squeeze(1), torch.zeros_like(fit.converged)
        if len(index):
            z, held = space.as_points(fit.parameters[index], index, small[index])
            bounds = [torch.where(held, z, ends[index]) for ends in (space.lower, space.upper)]
            options = {"tolerance": LAST_TOLERANCE, "index": index, "bounds": bounds}
            # Noise that correlates raises chi2 by so much more.
            wide = torch.tensor([batch.tasks[i].widening for i in index.tolist()], dtype=torch.float64)
            rise = POINT_RISE * wide.to(fit.chi2).square()
            good = adopt(fit, batch.minimise(space, z, weights, **options), index, rise)
            points[index[good]] = True
            space.lower[index[good]], space.upper[index[good]] = (ends[good] for ends in bounds)
        return points

    def _try_others(self, batch, space, fit, weights, points):
        """Fit poor ones again from other starts, and keep what is better."""
        free = (batch.pixels - fit.parameters.shape[1]).clamp_min(1)
        if batch.layout.galaxies > MOST_RESTARTED:
            # Moving all galaxies of a crowd at once finds nothing.
            return
        poor = (fit.chi2 - free > POOR_SIGMA * (2 * free).sqrt()) | fit.at_bound.any(1)
        # No galaxy is as small as a point, from where it has been tried already.
        poor = poor & ~points | ~fit.converged
        index = torch.nonzero(poor).squeeze(1)
        for radius, n in OTHER_STARTS if len(index) else ():
            options = {"tolerance": LAST_TOLERANCE, "index": index, "rough": True}
            other = batch.minimise(space, space.started(radius, n)[index], weights, **options)
            adopt(fit, other, index, -LAST_TOLERANCE)

    def _sharpen(self, batch, space, fit, weights):
        """Fit again on a finer lattice, behind the whole PSF, those whose image that changes.

        Returns which those are, and how many iterations it took.
        """
        more, sharpened = torch.zeros_like(fit.iterations), torch.zeros_like(fit.converged)
        coarse = batch.bands if batch.rough is None else batch.rough
        fine = self._fine(batch, coarse)
        sizes = [[np.prod(band.operator.lattice) for band in bands] for bands in (coarse, fine)]
        if sizes[0] == sizes[1]:
            return sharpened, more
        images = (batch.images(space, fit.parameters, bands) for bands in (coarse, fine))
        pairs = zip(weights, *images, strict=True)
        change = sum((weight * (a - b).square()).sum(1) for weight, a, b in pairs)
        sharpened = change.sqrt() > LATTICE_SIGMA
        index = torch.nonzero(sharpened).squeeze(1)
        fine = self._fine(batch) if len(index) else fine
        # The finer lattice has so many times the points: fewer stamps at once hold as many values.
        size = max(1, int(len(batch) * sum(sizes[0]) / sum(sizes[1])))
        for part in index.split(size) if len(index) else ():
            again = batch.minimise(
                space,
                fit.parameters[part],
                weights,
                tolerance=LAST_TOLERANCE,
                index=part,
                bands=fine,
                most=SHARP_ITERATIONS,
            )
            for name in ("parameters", "chi2", "curvature", "converged", "at_bound"):
                getattr(fit, name)[part] = getattr(again, name)
            more[part] = again.iterations
        return sharpened, more

    def _fine(self, batch, bands=None):
        """The same bands on a finer lattice behind the whole PSF; by default those of the batch."""
        # The errors of a lattice are small beside what a crowd leaves unexplained, those of a PSF are not.
        points = FINE_POINTS_ACROSS if batch.layout.galaxies <= MOST_RESTARTED else POINTS_ACROSS
        bands = batch.bands if bands is None else bands
        return [
            band.behind(
                self.operator(i.psf, i.grid.pixel_scale, batch.shape, points, dtype=band.operator.x.dtype)
            )
            for band, i in zip(bands, batch.tasks[0].bands, strict=True)
        ]

    def _robust_covariance(self, batch, space, fit, weights):
        image, jacobian = batch.function(space, batch.bands)(fit.parameters, batch.everything)
        weight, data = torch.cat(weights, 1), torch.cat([band.data for band in batch.bands], 1)
        residual = (data - image) * weight.sqrt()
        return sandwich(jacobian, residual, weight, self.settings.loss, fit.at_bound)

    def _collect(self, batch, space, fit, weights, covariance):
        c = space.coordinates(fit.parameters, batch.everything)
        slope = space.slope(fit.parameters, batch.everything)
        smooth, turn = space.smooth(c)
        slope = turn @ slope
        covariance = slope @ covariance @ slope.mT
        columns, signal = space.index.tolist(), batch.signal(smooth, weights)
        held = space.lower == space.upper
        bound = fit.at_bound & ~held

        def named(which):
            return tuple(column for column, one in zip(columns, which.tolist(), strict=True) if one)

        return [
            GroupFit(
                task,
                batch.layout,
                smooth[i].cpu(),
                covariance[i].cpu() * task.widening**2,
                float(fit.chi2[i]),
                int(batch.pixels[i]),
                len(columns),
                int(fit.iterations[i]),
                bool(fit.converged[i]),
                named(bound[i]),
                named(held[i]),
                signal[i].tolist(),
                psf_fwhm(task.bands[0]),
                task.widening,
            )
            for i, task in enumerate(batch.tasks)
        ]

    def _profile(self, batch, fits, weights, sharpened, which=None):
        """Intervals from the profile likelihood for those fits whose errors may be no Gaussian's.

        How wide they are hardly depends on the lattice, and the coarse one is many times as fast. Returns
        coordinates near lower minima that turned up, by the number of the fit.
        """
        found = {}
        for i in range(len(fits)) if which is None else which:
            names = wants_profile(fits[i], self.settings)
            if names:
                lattices = [batch.bands, *([self._fine(batch)] if sharpened[i] else [])]
                found[i] = profile_intervals(batch, i, fits[i], weights, names, lattices=lattices)
        return {i: better for i, better in found.items() if better is not None}

    def _adopted(self, batch, space, fit, weights, number, smooth, sharpened):
        """Fit one task again from elsewhere, and keep what is better; returns whether it is."""
        index = torch.tensor([number], device=batch.device)
        bands = self._fine(batch) if bool(sharpened[number]) else None
        c = theta_turned(batch.layout, smooth, flux=False) if space.axes else smooth
        options = {"tolerance": LAST_TOLERANCE, "index": index, "bands": bands}
        other = batch.minimise(space, c[:, space.index], weights, **options)
        return bool(adopt(fit, other, index, -LAST_TOLERANCE)[0])


def adopt(fit, other, index, margin):
    """Put those fits in place that are better, or have converged and are hardly worse; returns which."""
    lower = other.chi2 - fit.chi2[index]
    better = (lower < -LAST_TOLERANCE) | (lower < margin) & (other.converged >= fit.converged[index])
    for name in ("parameters", "chi2", "curvature", "converged", "at_bound"):
        getattr(fit, name)[index[better]] = getattr(other, name)[better]
    fit.iterations[index] += other.iterations
    return better


def core(kernel, subsampling):
    """Cut a kernel with wide wings to what holds most of its light, and keep its sum; others stay."""
    rows, columns = (np.abs(np.arange(size) - size // 2) for size in kernel.shape)
    distance = np.maximum(rows[:, None], columns)
    inside = np.cumsum(np.bincount(distance.ravel(), kernel.ravel()))
    if np.argmax(inside > (1 - BEYOND_MARGIN) * inside[-1]) <= NARROW * subsampling:
        return kernel
    radius = int(np.argmax(inside > CORE_SHARE * inside[-1]))
    rows, columns = (slice(max(0, size // 2 - radius), size // 2 + radius + 1) for size in kernel.shape)
    return kernel[rows, columns] / inside[radius] * inside[-1]
