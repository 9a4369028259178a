"""The fit of a batch of groups of galaxies."""

import math
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch

from lenssr.imaging.cusp_operator import (
    BEYOND_MARGIN,
    FINE_POINTS_ACROSS,
    POINTS_ACROSS,
    IntegratingOperator,
    TrackingOperator,
    effective_kernel,
)
from lenssr.photometry.fit_constraints import make_transform
from lenssr.photometry.groups import pixel_key, psf_key
from lenssr.photometry.initial import initial_coordinates, psf_fwhm_in_pixels
from lenssr.photometry.intervals import profile_intervals, wants_profile
from lenssr.photometry.parameters import ParameterLayout, group_axes_from_smooth
from lenssr.photometry.robust import sandwich
from lenssr.photometry.task_batch import TaskBatch

__all__ = ["GroupFit", "Solver", "describe_fit"]

# Chi2 by which a step may still lower a fit that counts as converged: in first passes, and in the last.
FIRST_PASS_TOLERANCE, FINAL_TOLERANCE = 0.1, 1e-3
# Number of fits with photon noise, whose weights come from the model of the one before.
NOISE_REFITS = 3
# Number of fits with a robust loss, whose weights come from the residuals of the one before.
ROBUST_REFITS = 5
# Largest root of the chi2 due to the lattice, which bounds the shift of each parameter in sigma. Chosen.
LATTICE_SIGMA = 0.1
# A fit is repeated from other radii and indices if chi2 is too high by this, in its sigma. Theory: 5 sigma.
RESTART_SIGMA = 5.0
# Most galaxies in a group that is fitted from other starts and on the fine lattice.
MOST_RESTARTED = 2
# A galaxy is a point if holding its shape raises chi2 by less than this: 5 % of a chi2 of 4 parameters. Those
# with r_eff below POINT_SHARE, in FWHM of the PSF, are tested. Factors on r_eff, and indices, of the other
# starts.
POINT_RISE, POINT_SHARE = 9.5, 0.3
OTHER_STARTS = ((1.6, 0.8), (0.6, 4.0))
# A PSF with a half width above this, in pixels, is cut to this share of its light until a fit has nearly
# converged: the wings make each step several times as slow.
CORE_RADIUS, CORE_SHARE = 8, 0.9
# Most iterations of the refinement on the finer lattice.
SHARP_ITERATIONS = 40
# Without a PSF: quadrature nodes along a pixel, on the coarse and the fine lattice.
NO_PSF_POINTS = {POINTS_ACROSS: 2, FINE_POINTS_ACROSS: 3}


@dataclass
class GroupFit:
    """Result of the fit of one group.

    ``coordinates`` (C,) are smooth, with ``covariance`` (C, C); ``parameters`` is the number of free ones.
    ``at_bound`` and ``held`` list columns on a bound, and columns of the shapes of points, which mean
    nothing. ``intervals`` holds pairs of ends by (name, galaxy, component, band), ``signal`` the signal to
    noise of each galaxy, sqrt(sum(model^2 / sigma^2)), ``fwhm`` that of the PSF in pixels; ``widening`` is
    the factor on all errors for correlated noise.
    """

    task: object
    layout: ParameterLayout
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
    """Entry of ``fit_info`` for the fit of a group, as a dict."""
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
    """Fit batches of groups of galaxies; operators and kernels are made once."""

    def __init__(self, settings):
        self.settings = settings
        self._kernels, self._operators = {}, {}

    def operator(self, psf, grid, shape, points_across=POINTS_ACROSS, *, whole=True, dtype=torch.float64):
        """Operator of a telescope for stamps of one shape, with the whole PSF or its kernel_core.

        ``grid`` is that of an image, for the size and the stretch of its pixels.
        """
        options = {"dtype": dtype, "device": self.settings.torch_device}
        if psf is None:
            key = NO_PSF_POINTS[points_across], shape, dtype
            if key not in self._operators:
                self._operators[key] = IntegratingOperator(shape, points=key[0], **options)
            return self._operators[key]
        key = psf_key(psf), pixel_key(grid), points_across, whole
        kernel, subsampling = self._kernel(psf, key)
        if (*key, shape, dtype) not in self._operators:
            self._operators[*key, shape, dtype] = TrackingOperator(
                shape, kernel, subsampling=subsampling, **options
            )
        return self._operators[*key, shape, dtype]

    def _kernel(self, psf, key):
        """Pixel response, and points of its lattice along a pixel."""
        _, matrix, points_across, whole = key
        if key not in self._kernels:
            kernel, subsampling = effective_kernel(psf, matrix, points_across=points_across)
            self._kernels[key] = kernel if whole else kernel_core(kernel, subsampling), subsampling
        return self._kernels[key]

    def psf_reach(self, psf, grid):
        """Half width of the PSF in pixels."""
        if psf is None:
            return 1.0
        kernel, subsampling = self._kernel(psf, (psf_key(psf), pixel_key(grid), POINTS_ACROSS, True))
        return max(kernel.shape) / 2 / subsampling

    def solve(self, tasks):
        """Fits of tasks that one `TaskBatch` can hold; None where there are fewer pixels than parameters."""
        operator = partial(self.operator, whole=False)
        batch = TaskBatch(tasks, self.settings, operator)
        enough = torch.nonzero(batch.pixels > batch.layout.size).squeeze(1).tolist()
        fits = [None] * len(tasks)
        if not enough:
            return fits
        if len(enough) < len(tasks):
            batch = TaskBatch([tasks[i] for i in enough], self.settings, operator)
        for i, fit in zip(enough, self._fit(batch), strict=True):
            fits[i] = fit
        return fits

    def _fit(self, batch):
        settings, transform = self.settings, make_transform(batch, initial_coordinates(batch))
        z, weights = transform.start(), batch.weights
        iterations = torch.zeros(len(z), dtype=torch.long, device=batch.device)
        passes = 1 if batch.gaussian else NOISE_REFITS
        for number in range(passes):
            last = number == passes - 1
            tolerance = FINAL_TOLERANCE if last else FIRST_PASS_TOLERANCE
            fit = batch.minimise(transform, z, weights, tolerance=tolerance, rough=not number)
            if not number:
                points = self._try_points(batch, transform, fit, weights)
                self._try_others(batch, transform, fit, weights, points)
            z, iterations = fit.parameters, iterations + fit.iterations
            if not last:
                weights = batch.noise_weights(batch.images(transform, z))
        plain = weights
        for _ in range(ROBUST_REFITS if settings.loss else 0):
            weights = batch.robust_weights(batch.images(transform, z), plain)
            fit = batch.minimise(transform, z, weights, tolerance=FINAL_TOLERANCE)
            z, iterations = fit.parameters, iterations + fit.iterations
        sharpened, more = self._sharpen(batch, transform, fit, weights)
        fit.iterations = iterations + more
        covariance = (
            self._robust_covariance(batch, transform, fit, plain) if settings.loss else fit.covariance()
        )
        fits = self._collect(batch, transform, fit, weights, covariance)
        better = self._profile(batch, fits, weights, sharpened)
        improved = [
            i for i, c in better.items() if self._adopted(batch, transform, fit, weights, i, c, sharpened)
        ]
        if improved:
            again = self._collect(batch, transform, fit, weights, fit.covariance())
            fits = [again[i] if i in improved else one for i, one in enumerate(fits)]
            self._profile(batch, fits, weights, sharpened, improved)
        return fits

    def _try_points(self, batch, transform, fit, weights):
        """Fit what ended near a point again as a point of fixed shape; returns which (B,) are points."""
        radii = [start + batch.layout.bands for start in batch.layout.starts]
        least = math.log(POINT_SHARE * psf_fwhm_in_pixels(batch.tasks[0].bands[0]))
        smooth = transform.smooth(transform.coordinates(fit.parameters, batch.everything))[0]
        small = smooth[:, radii] < least
        index, points = torch.nonzero(small.any(1)).squeeze(1), torch.zeros_like(fit.converged)
        if len(index):
            z, held = transform.as_points(fit.parameters[index], index, small[index])
            bounds = [torch.where(held, z, ends[index]) for ends in (transform.lower, transform.upper)]
            options = {"tolerance": FINAL_TOLERANCE, "index": index, "bounds": bounds}
            # Correlated noise widens the distribution of chi2 by this factor.
            wide = torch.tensor([batch.tasks[i].widening for i in index.tolist()], dtype=torch.float64)
            rise = POINT_RISE * wide.to(fit.chi2).square()
            good = adopt_better(fit, batch.minimise(transform, z, weights, **options), index, rise)
            points[index[good]] = True
            transform.lower[index[good]], transform.upper[index[good]] = (ends[good] for ends in bounds)
        return points

    def _try_others(self, batch, transform, fit, weights, points):
        """Fit poor ones again from other starts, and keep the better fit."""
        free = (batch.pixels - fit.parameters.shape[1]).clamp_min(1)
        if batch.layout.galaxies > MOST_RESTARTED:
            # In larger groups, changing all galaxies at once does not help.
            return
        poor = (fit.chi2 - free > RESTART_SIGMA * (2 * free).sqrt()) | fit.at_bound.any(1)
        # A point has been tried already.
        poor = poor & ~points | ~fit.converged
        index = torch.nonzero(poor).squeeze(1)
        for radius, n in OTHER_STARTS if len(index) else ():
            options = {"tolerance": FINAL_TOLERANCE, "index": index, "rough": True}
            other = batch.minimise(transform, transform.restart(radius, n)[index], weights, **options)
            adopt_better(fit, other, index, -FINAL_TOLERANCE)

    def _sharpen(self, batch, transform, fit, weights):
        """Refine on a finer lattice with the whole PSF if that changes the image: where, and iterations."""
        more, sharpened = torch.zeros_like(fit.iterations), torch.zeros_like(fit.converged)
        coarse = batch.bands if batch.rough is None else batch.rough
        fine = self._fine(batch, coarse)
        sizes = [[np.prod(band.operator.lattice) for band in bands] for bands in (coarse, fine)]
        if sizes[0] == sizes[1]:
            return sharpened, more
        images = (batch.images(transform, fit.parameters, bands) for bands in (coarse, fine))
        pairs = zip(weights, *images, strict=True)
        change = sum((weight * (a - b).square()).sum(1) for weight, a, b in pairs)
        sharpened = change.sqrt() > LATTICE_SIGMA
        index = torch.nonzero(sharpened).squeeze(1)
        fine = self._fine(batch) if len(index) else fine
        # The finer lattice has more points: fewer stamps fit into the same memory.
        size = max(1, int(len(batch) * sum(sizes[0]) / sum(sizes[1])))
        for part in index.split(size) if len(index) else ():
            again = batch.minimise(
                transform,
                fit.parameters[part],
                weights,
                tolerance=FINAL_TOLERANCE,
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
        # In larger groups the error of the lattice is small beside other residuals, unlike that of a cut PSF.
        points = FINE_POINTS_ACROSS if batch.layout.galaxies <= MOST_RESTARTED else POINTS_ACROSS
        bands = batch.bands if bands is None else bands
        return [
            band.behind(self.operator(i.psf, i.grid, batch.shape, points, dtype=band.operator.x.dtype))
            for band, i in zip(bands, batch.tasks[0].bands, strict=True)
        ]

    def _robust_covariance(self, batch, transform, fit, weights):
        image, jacobian = batch.function(transform, batch.bands)(fit.parameters, batch.everything)
        weight, data = torch.cat(weights, 1), torch.cat([band.data for band in batch.bands], 1)
        residual = (data - image) * weight.sqrt()
        return sandwich(jacobian, residual, weight, self.settings.loss, fit.at_bound)

    def _collect(self, batch, transform, fit, weights, covariance):
        c = transform.coordinates(fit.parameters, batch.everything)
        slope = transform.slope(fit.parameters, batch.everything)
        smooth, turn = transform.smooth(c)
        slope = turn @ slope
        covariance = slope @ covariance @ slope.mT
        columns, signal = transform.index.tolist(), batch.signal(smooth, weights)
        held = transform.lower == transform.upper
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
                psf_fwhm_in_pixels(task.bands[0]),
                task.widening,
            )
            for i, task in enumerate(batch.tasks)
        ]

    def _profile(self, batch, fits, weights, sharpened, which=None):
        """Profile intervals for the fits whose Gaussian errors cannot be trusted.

        Their width hardly depends on the lattice, and the coarse one is many times as fast. Returns
        coordinates near lower minima that turned up, by the number of the fit.
        """
        found = {}
        for i in range(len(fits)) if which is None else which:
            names = wants_profile(fits[i], self.settings)
            if names:
                lattices = [batch.bands, *([self._fine(batch)] if sharpened[i] else [])]
                found[i] = profile_intervals(batch, i, fits[i], weights, names, lattices=lattices)
        return {i: better for i, better in found.items() if better is not None}

    def _adopted(self, batch, transform, fit, weights, number, smooth, sharpened):
        """Fit one task again from other coordinates, keep the better fit, and return whether it is new."""
        index = torch.tensor([number], device=batch.device)
        bands = self._fine(batch) if bool(sharpened[number]) else None
        c = group_axes_from_smooth(batch.layout, smooth, flux=False) if transform.axes else smooth
        options = {"tolerance": FINAL_TOLERANCE, "index": index, "bands": bands}
        other = batch.minimise(transform, c[:, transform.index], weights, **options)
        return bool(adopt_better(fit, other, index, -FINAL_TOLERANCE)[0])


def adopt_better(fit, other, index, margin):
    """Replace fits by better, or converged and hardly worse, ones; returns which were replaced."""
    lower = other.chi2 - fit.chi2[index]
    better = (lower < -FINAL_TOLERANCE) | (lower < margin) & (other.converged >= fit.converged[index])
    for name in ("parameters", "chi2", "curvature", "converged", "at_bound"):
        getattr(fit, name)[index[better]] = getattr(other, name)[better]
    fit.iterations[index] += other.iterations
    return better


def kernel_core(kernel, subsampling):
    """Cut a kernel with wide wings to its kernel_core and keep its sum; others stay."""
    rows, columns = (np.abs(np.arange(size) - size // 2) for size in kernel.shape)
    distance = np.maximum(rows[:, None], columns)
    inside = np.cumsum(np.bincount(distance.ravel(), kernel.ravel()))
    if np.argmax(inside > (1 - BEYOND_MARGIN) * inside[-1]) <= CORE_RADIUS * subsampling:
        return kernel
    radius = int(np.argmax(inside > CORE_SHARE * inside[-1]))
    rows, columns = (slice(max(0, size // 2 - radius), size // 2 + radius + 1) for size in kernel.shape)
    return kernel[rows, columns] / inside[radius] * inside[-1]
