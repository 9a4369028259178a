"""The fit of a batch of groups of galaxies."""

import math
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
import torch

from lenssr.imaging import cusp_operator
from lenssr.imaging.cusp_operator import FINE_POINTS_ACROSS, POINTS_ACROSS
from lenssr.imaging.operator import reach_of
from lenssr.photometry.fit_constraints import make_transform
from lenssr.photometry.groups import GroupTask, telescope
from lenssr.photometry.intervals import PROFILED, profile_intervals, wants_profile
from lenssr.photometry.parameters import MEASURED, ParameterLayout, group_axes_from_smooth, measured
from lenssr.photometry.sources import initial_coordinates, psf_fwhm_in_pixels
from lenssr.photometry.task_batch import FINAL_TOLERANCE, TaskBatch

__all__ = ["GroupFit", "Solver"]

# Chi2 by which a step may still lower fits that count as converged, with photon noise: the weights of each
# come from the model of the one before.
PHOTON_TOLERANCES = (0.1, 0.1, FINAL_TOLERANCE)
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
SHARP_STEPS = 40
# Variance of a parameter below which it is held, over that of its coordinates if nothing cancels. Chosen.
ROUND_OFF = 1e-12
# Width of an interval, over its value, at which it is round-off: a parameter on a bound has no other. Chosen.
NO_WIDTH = 1e-9
# Without a PSF: quadrature nodes along a pixel, on the coarse and the fine lattice.
NO_PSF_POINTS = {POINTS_ACROSS: 2, FINE_POINTS_ACROSS: 3}


@dataclass
class GroupFit:
    """Result of the fit of one group.

    ``coordinates`` (C,) are smooth, with ``covariance`` (C, C); ``parameters`` is the number of free ones.
    ``at_bound`` and ``held`` list columns on a bound, and columns of the shapes of points, which mean
    nothing. ``intervals`` holds pairs of ends by (name, galaxy, component, band), ``signal`` the signal to
    noise of each galaxy, sqrt(sum(model^2 / sigma^2)); ``blended`` lists galaxies that overlap with others.
    ``values`` (galaxies, components, bands, 8) are those of `MEASURED`, in pixels of the image and radians;
    ``fwhm`` is that of the PSF in pixels, ``free`` the number of degrees of freedom.
    """

    task: GroupTask
    layout: ParameterLayout
    coordinates: torch.Tensor
    covariance: torch.Tensor
    chi2: float
    pixels: int
    parameters: int
    iterations: int
    converged: bool
    at_bound: list
    held: list
    signal: list
    intervals: dict = field(default_factory=dict)
    blended: list = field(default_factory=list)

    def __post_init__(self):
        self.fwhm, self.free = psf_fwhm_in_pixels(self.task.bands[0]), max(self.pixels - self.parameters, 1)
        self.values, self._slopes = measured(self.coordinates.numpy()[self.layout.profiles])
        self.values[..., :2] += self.task.middle
        self.values[..., MEASURED.index("theta")] %= math.pi

    @cached_property
    def errors(self):
        """Errors of ``values``, 0 for what was not fitted or ended on a bound."""
        columns, slopes = self.layout.profiles, self._slopes
        covariance = self.covariance.numpy()[columns[..., :, None], columns[..., None, :]]
        variance = np.einsum("...ij,...jk,...ik->...i", slopes, covariance, slopes)
        sigma = np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1))
        # Where a parameter is held, only the round-off of its coordinates is left.
        most = np.einsum("...ij,...j->...i", np.abs(slopes), sigma) ** 2
        return np.sqrt(np.where(variance > ROUND_OFF * most, variance, 0))

    def total_flux(self, galaxy, band):
        """Flux of all components of a galaxy in a band, and its error, NaN if it is not known."""
        place, slope = MEASURED.index("flux"), np.zeros(self.layout.size)
        slope[self.layout.profiles[galaxy, :, band]] = self._slopes[galaxy, :, band, place]
        variance = slope @ self.covariance.numpy() @ slope
        return self.values[galaxy, :, band, place].sum(), np.sqrt(variance) if variance > 0 else np.nan

    def sky(self, band):
        """The sky of a band, and its error."""
        column = self.layout.column("sky", band=band)
        return float(self.coordinates[column]), float(self.covariance[column, column].sqrt())

    def is_point(self, galaxy, component):
        """Whether a component is held as a point."""
        return self.layout.column("r_eff", galaxy, component) in self.held

    def interval(self, name, galaxy, component, band):
        """Value of one of `MEASURED`, and the ends of its 68 % interval.

        The ends are NaN for what was not fitted, ended on a bound, or is the shape of a point; the size of a
        point has an upper end alone.
        """
        place = galaxy, component, band, MEASURED.index(name)
        value, error = float(self.values[place]), float(self.errors[place]) or np.nan
        low, high = value - error, value + error
        found = self.intervals.get((name, galaxy, component, band if name == "flux" else 0))
        if found is not None:
            low, high = min(found[0], value), max(found[1], value)
        if name == "r_eff" and self.is_point(galaxy, component):
            low = np.nan
        if name in PROFILED and high - low <= NO_WIDTH * abs(value):
            low = high = np.nan
        return value, low, high

    def describe(self):
        """The entry of ``fit_info``."""
        names, covariance = self.layout.names, self.covariance.numpy()
        scale = np.sqrt(np.diag(covariance))
        scale = np.where(scale > 0, scale, 1.0)
        return {
            "parameters": names,
            "values": self.coordinates.numpy(),
            "covariance": covariance,
            "correlation": covariance / np.outer(scale, scale),
            "chi2": self.chi2,
            "n_free": self.parameters,
            "n_pixels": self.pixels,
            "iterations": self.iterations,
            "converged": self.converged,
            "at_bound": [names[column] for column in self.at_bound],
            "n_galaxies": self.layout.galaxies,
        }


class Solver:
    """Fit batches of groups of galaxies; operators and kernels are made once."""

    def __init__(self, settings):
        self.settings = settings
        self._kernels, self._operators = {}, {}

    def operator(self, image, shape, points_across=POINTS_ACROSS, *, whole=True, dtype=torch.float64):
        """Operator of the telescope of an image for stamps of one shape, with the whole PSF or its core."""
        key = telescope(image), points_across, whole, tuple(shape), dtype
        if key not in self._operators:
            options = {"dtype": dtype, "device": self.settings.torch_device}
            if image.psf is None:
                points = NO_PSF_POINTS[points_across]
                made = cusp_operator.IntegratingOperator(shape, points=points, **options)
            else:
                kernel, subsampling = self._kernel(image, points_across, whole=whole)
                made = cusp_operator.TrackingOperator(shape, kernel, subsampling=subsampling, **options)
            self._operators[key] = made
        return self._operators[key]

    def _kernel(self, image, points_across, *, whole=True):
        """Pixel response, and points of its lattice along a pixel."""
        key = telescope(image), points_across, whole
        if key not in self._kernels:
            kernel, subsampling = cusp_operator.effective_kernel(image.psf, image.grid.matrix, points_across)
            self._kernels[key] = kernel if whole else _core(kernel, subsampling), subsampling
        return self._kernels[key]

    def psf_reach(self, image):
        """Half width of the PSF of an image in pixels."""
        if image.psf is None:
            return 1.0
        kernel, subsampling = self._kernel(image, POINTS_ACROSS)
        return max(kernel.shape) / 2 / subsampling

    def finer(self, batch, bands):
        """Bands of a batch on a finer lattice behind the whole PSF."""
        # In larger groups the error of the lattice is small beside other residuals, unlike that of a cut PSF.
        points = FINE_POINTS_ACROSS if batch.layout.galaxies <= MOST_RESTARTED else POINTS_ACROSS
        return [
            band.behind(self.operator(image, batch.shape, points, dtype=band.operator.x.dtype))
            for band, image in zip(bands, batch.tasks[0].bands, strict=True)
        ]

    def solve(self, tasks, *, profile=True):
        """Fits of tasks that one `TaskBatch` can hold, except those with fewer pixels than parameters.

        ``profile`` says whether intervals may come from the profile likelihood.
        """
        operator = partial(self.operator, whole=False)
        batch = TaskBatch(tasks, self.settings, operator)
        enough = batch.pixels > batch.layout.size
        if not enough.any():
            return []
        if not enough.all():
            tasks = [tasks[i] for i in torch.nonzero(enough).flatten().tolist()]
            batch = TaskBatch(tasks, self.settings, operator)
        return _BatchFit(batch, self).run(profile=profile)


class _BatchFit:
    """The fit of a batch: its last result, the weights (B, N) of each band, and which fits are sharpened."""

    def __init__(self, batch, solver):
        self.batch, self.solver, self.weights = batch, solver, batch.weights
        self.transform = make_transform(batch, initial_coordinates(batch))
        self.fit, self.sharpened = None, torch.zeros(len(batch), dtype=torch.bool, device=batch.device)

    def run(self, *, profile):
        """Fit all tasks; ``profile`` says whether intervals may come from the profile likelihood."""
        batch, loss = self.batch, self.batch.settings.loss
        first, *later = (FINAL_TOLERANCE,) if batch.gaussian else PHOTON_TOLERANCES
        self.fit = self._minimise(self.transform.start(), tolerance=first, rough=True)
        self._try_others(self._try_points())
        for tolerance in later:
            self.weights = batch.noise_weights(batch.images(self.transform, self.fit.parameters))
            self._refit(tolerance)
        plain = self.weights
        for _ in range(ROBUST_REFITS if loss else 0):
            self.weights = batch.robust_weights(batch.images(self.transform, self.fit.parameters), plain)
            self._refit()
        self._sharpen()
        covariance = batch.robust_covariance(self.transform, self.fit, plain) if loss else None
        fits = self._collect(covariance)
        better = self._profile(fits, range(len(fits))) if profile else {}
        improved = [i for i, smooth in better.items() if self._adopt_from(i, smooth)]
        if improved:
            again = self._collect()
            fits = [again[i] if i in improved else one for i, one in enumerate(fits)]
            self._profile(fits, improved)
        return fits

    def _minimise(self, z, **options):
        return self.batch.minimise(self.transform, z, self.weights, **options)

    def _refit(self, tolerance=FINAL_TOLERANCE):
        """Fit again from where the last fit ended."""
        before, self.fit = self.fit, self._minimise(self.fit.parameters, tolerance=tolerance)
        self.fit.iterations += before.iterations

    def _try_points(self):
        """Fit what ended near a point again as a point of fixed shape; returns which (B,) are points."""
        batch, fit, transform = self.batch, self.fit, self.transform
        least = math.log(POINT_SHARE * psf_fwhm_in_pixels(batch.tasks[0].bands[0]))
        smooth, _ = transform.smooth(fit.parameters, batch.everything)
        small = smooth[:, batch.layout.flat[:, 0, 1]] < least
        index, points = torch.nonzero(small.any(1)).squeeze(1), torch.zeros_like(fit.converged)
        if len(index):
            z, held = transform.as_points(fit.parameters[index], index, small[index])
            bounds = [torch.where(held, z, ends[index]) for ends in (transform.lower, transform.upper)]
            # Correlated noise widens the distribution of chi2 by this factor.
            wide = fit.chi2.new_tensor([batch.tasks[i].widening for i in index.tolist()])
            points_fit = self._minimise(z, index=index, bounds=bounds)
            good = self._adopt(points_fit, index, POINT_RISE * wide.square())
            points[index[good]] = True
            transform.lower[index[good]], transform.upper[index[good]] = (ends[good] for ends in bounds)
        return points

    def _try_others(self, points):
        """Fit poor ones again from other starts, and keep the better fit; points (B,) have been tried."""
        if self.batch.layout.galaxies > MOST_RESTARTED:
            # In larger groups, changing all galaxies at once does not help.
            return
        fit = self.fit
        free = (self.batch.pixels - fit.parameters.shape[1]).clamp_min(1)
        poor = (fit.chi2 - free > RESTART_SIGMA * (2 * free).sqrt()) | fit.at_bound.any(1)
        index = torch.nonzero(poor & ~points | ~fit.converged).squeeze(1)
        for factor, n in OTHER_STARTS if len(index) else ():
            start = self.transform.restart(factor, n)[index]
            self._adopt(self._minimise(start, index=index, rough=True), index)

    def _sharpen(self):
        """Refine on a finer lattice with the whole PSF if that changes the image."""
        batch, fit = self.batch, self.fit
        lattices = batch.rough, self.solver.finer(batch, batch.rough)
        coarse, fine = (sum(math.prod(band.operator.lattice) for band in bands) for bands in lattices)
        if coarse == fine:
            return
        images = (batch.images(self.transform, fit.parameters, bands) for bands in lattices)
        pairs = zip(self.weights, *images, strict=True)
        change = sum((weight * (a - b).square()).sum(1) for weight, a, b in pairs)
        self.sharpened = change.sqrt() > LATTICE_SIGMA
        index = torch.nonzero(self.sharpened).squeeze(1)
        # The finer lattice has more points: fewer stamps fit into the same memory.
        for part in index.split(max(1, int(len(batch) * coarse / fine))) if len(index) else ():
            bands = self.solver.finer(batch, batch.bands)
            again = self._minimise(fit.parameters[part], index=part, bands=bands, max_iterations=SHARP_STEPS)
            self._replace(part, again)

    def _collect(self, covariance=None):
        """Results of all tasks; the covariance (B, Z, Z) is by default that of least squares."""
        batch, fit, transform = self.batch, self.fit, self.transform
        smooth, slope = transform.smooth(fit.parameters, batch.everything)
        covariance = slope @ (fit.covariance() if covariance is None else covariance) @ slope.mT
        signal, held = batch.signal(smooth, self.weights), transform.lower == transform.upper
        bound = fit.at_bound & ~held
        return [
            GroupFit(
                task=task,
                layout=batch.layout,
                coordinates=smooth[i].cpu(),
                covariance=covariance[i].cpu() * task.widening**2,
                chi2=float(fit.chi2[i]),
                pixels=int(batch.pixels[i]),
                parameters=len(transform.index),
                iterations=int(fit.iterations[i]),
                converged=bool(fit.converged[i]),
                at_bound=transform.index[bound[i]].tolist(),
                held=transform.index[held[i]].tolist(),
                signal=signal[i].tolist(),
            )
            for i, task in enumerate(batch.tasks)
        ]

    def _profile(self, fits, which):
        """Profile intervals for the fits whose Gaussian errors cannot be trusted, of those numbered.

        Their width hardly depends on the lattice, and the coarse one is many times as fast. Returns smooth
        coordinates near lower minima that turned up, by the number of the fit.
        """
        batch, found = self.batch, {}
        for i in which:
            names = wants_profile(fits[i], batch.settings)
            if names:
                lattices = [batch.bands]
                if self.sharpened[i]:
                    lattices.append(self.solver.finer(batch, batch.bands))
                found[i] = profile_intervals(batch, i, fits[i], self.weights, names, lattices=lattices)
        return {i: better for i, better in found.items() if better is not None}

    def _adopt_from(self, number, smooth):
        """Fit a task again from smooth coordinates, keep the better fit, and return whether it is new."""
        batch, index = self.batch, torch.tensor([number], device=self.batch.device)
        bands = self.solver.finer(batch, batch.bands) if self.sharpened[number] else None
        c = group_axes_from_smooth(batch.layout, smooth) if self.transform.axes else smooth
        other = self._minimise(c[:, self.transform.index], index=index, bands=bands)
        return bool(self._adopt(other, index)[0])

    def _adopt(self, other, index, margin=-FINAL_TOLERANCE):
        """Replace fits by better, or converged and hardly worse, ones; returns which were replaced."""
        fit, lower = self.fit, other.chi2 - self.fit.chi2[index]
        better = (lower < -FINAL_TOLERANCE) | (lower < margin) & (other.converged >= fit.converged[index])
        self._replace(index, other, better)
        return better

    def _replace(self, index, other, which=slice(None)):
        """Replace the fits numbered ``index`` by others, or by those of them that ``which`` marks."""
        for name in ("parameters", "chi2", "curvature", "converged", "at_bound"):
            getattr(self.fit, name)[index[which]] = getattr(other, name)[which]
        self.fit.iterations[index] += other.iterations


def _core(kernel, subsampling):
    """Cut a kernel with wide wings to its core and keep its sum; others stay."""
    if reach_of(kernel, 1 - cusp_operator.BEYOND_MARGIN) <= CORE_RADIUS * subsampling:
        return kernel
    radius = reach_of(kernel, CORE_SHARE)
    starts = [max(size // 2 - radius, 0) for size in kernel.shape]
    core = kernel[tuple(slice(start, size - start) for start, size in zip(starts, kernel.shape, strict=True))]
    return core / core.sum() * kernel.sum()
