"""Batches of groups of galaxies that are fitted at once, in all their bands."""

from dataclasses import dataclass

import numpy as np
import torch

from lenssr.imaging.cusp_operator import CuspOperator
from lenssr.imaging.noise import GaussianNoise
from lenssr.light.sersic import sersic_brightness, sersic_brightness_jacobian
from lenssr.model.least_squares import levenberg_marquardt, masked_inverse
from lenssr.photometry.groups import GroupTask
from lenssr.photometry.parameters import MAX_MODULUS, ParameterLayout

__all__ = ["LOSSES", "Stamps", "TaskBatch", "profile_images", "robust_factor", "sandwich"]

# Most iterations of a fit, and of one with three galaxies or more, which often never converges.
MAX_ITERATIONS, CROWDED_ITERATIONS = 60, 40
# Chi2 by which a step may still lower a fit that counts as converged.
FINAL_TOLERANCE = 1e-3
# Most failed iterations in a row: they multiply the damping by 2, 4, 8, ..., and the step is negligible by
# then.
FAILED_STEPS = 6
# Single precision is used for numbers within this many decades of 1, up to this tolerance on chi2.
SINGLE_DECADES, ROUGH_TOLERANCE = 25, 0.03
# Scales of the robust losses in sigma: efficiency of 95 % for Gaussian noise (Holland & Welsch 1977).
LOSSES = {"huber": 1.345, "cauchy": 2.385}


@dataclass
class Stamps:
    """B stamps of one band with their weights, and the operator that makes their model images.

    ``data`` and ``weight`` are (B, N): flux and inverse variance, 0 for a hidden pixel. A model is a vector
    of the smooth coordinates of each profile and, where one is fitted, the sky. Lengths are in pixels from
    the middle of the stamps.
    """

    data: torch.Tensor
    weight: torch.Tensor
    operator: CuspOperator

    def behind(self, operator):
        """The same stamps with another operator, in its precision."""
        kind = operator.x.dtype
        return Stamps(self.data.to(kind), self.weight.to(kind), operator)

    def image(self, vectors):
        """Model images (b, N) from vectors (b, F)."""
        image = sum(profile_images(self.operator, vectors)).flatten(1)
        return image + vectors[:, -1:].to(image) if vectors.shape[1] % 7 else image

    def image_and_jacobian(self, vectors):
        """Model images (b, N) from vectors (b, F), and their derivatives (b, F, N)."""
        profiles = _profiles(self.operator, vectors)
        jacobian = profiles[0].new_empty(*vectors.shape, self.data.shape[1])
        for k, one in enumerate(profiles):
            part = jacobian[:, 7 * k : 7 * k + 7].unflatten(2, self.operator.shape)
            part.copy_(_observed(self.operator, _log_derivatives, one))
        # The derivative of a profile by the logarithm of its amplitude is the profile.
        image = jacobian[:, : 7 * len(profiles) : 7].sum(1)
        if vectors.shape[1] % 7:
            image += vectors[:, -1:]
            jacobian[:, -1] = 1
        return image, jacobian


def profile_images(operator, vectors):
    """Images (b, ny, nx) of each profile of models (b, F), behind the operator of a telescope."""
    profiles = _profiles(operator, vectors)
    return [_observed(operator, _brightness, one).squeeze(1) for one in profiles]


def _profiles(operator, vectors):
    """Parameters (b, 7) of each profile as `sersic_brightness` takes them."""
    parts = vectors[:, : vectors.shape[1] // 7 * 7].unflatten(1, (-1, 7))
    return torch.cat([parts[..., :2].exp(), parts[..., 2:]], 2).to(operator.x).unbind(1)


def _observed(operator, function, profile):
    """Images (b, P, ny, nx) of ``function(x, y, *parameters)`` (b, P, R) of one profile (b, 7)."""
    centre = profile[:, 3, None], profile[:, 4, None]
    x, y, share = operator.rays(*centre)
    values = function(x, y, *profile.unsqueeze(-1).unbind(1))
    return operator.convolve(operator.collect(values, *centre, share))


def _brightness(x, y, *parameters):
    return sersic_brightness(x, y, *parameters).unsqueeze(1)


def _log_derivatives(x, y, amplitude, r_eff_circ, *shape):
    """Derivatives (b, 7, R) of a profile by its smooth coordinates."""
    slopes = sersic_brightness_jacobian(x, y, amplitude, r_eff_circ, *shape)[3]
    slopes[:, 0] *= amplitude
    slopes[:, 1] *= r_eff_circ
    return slopes


class TaskBatch:
    """Tasks of one shape, number of galaxies, telescope and kind of noise.

    ``operator(image, shape)`` makes that of a telescope. ``bands`` are `Stamps`, ``rough`` the same in single
    precision unless that would overflow; ``weights`` are the inverse variances (B, N) in each band, and
    ``pixels`` (B,) counts the pixels fitted in all bands together.
    """

    def __init__(self, tasks, settings, operator):
        self.tasks, self.settings, self.shape = tasks, settings, tasks[0].shape
        self.device, images = settings.torch_device, tasks[0].bands
        components, sky = settings.n_components, settings.sky is not None
        self.layout = ParameterLayout(len(tasks[0].members), components, len(images), sky=sky)
        self.bands = []
        for band, image in enumerate(images):
            planes = ([kind(task, band) for task in tasks] for kind in (GroupTask.data, GroupTask.weight))
            self.bands.append(Stamps(*map(self._stack, planes), operator(image, self.shape)))
        self.rough = self.bands
        if all(map(_fits_single, self.bands)):
            operators = (operator(image, self.shape, dtype=torch.float32) for image in images)
            self.rough = [band.behind(one) for band, one in zip(self.bands, operators, strict=True)]
        self.weights = [band.weight for band in self.bands]
        self.pixels = sum((weight > 0).sum(1) for weight in self.weights)
        self.gaussian = all(isinstance(image.noise, GaussianNoise) for image in images)
        self.everything = torch.arange(len(tasks), device=self.device)

    def __len__(self):
        return len(self.tasks)

    def _stack(self, planes):
        """Planes (ny, nx) of all tasks as (B, N)."""
        return torch.as_tensor(np.stack(list(planes)), device=self.device).flatten(1)

    def minimise(self, transform, z, weights, *, index=None, bands=None, bounds=None, rough=False, **options):
        """Fit from z (b, Z) with weights (B, N), one tensor a band; ``options`` of `levenberg_marquardt`.

        ``index`` (b,) numbers the tasks, perhaps repeatedly, by default all; ``bands`` and ``bounds`` (two of
        (b, Z)) replace those of the batch and of the transform; ``rough`` fits in single precision first.
        """
        index = self.everything if index is None else index
        lower, upper = (transform.lower[index], transform.upper[index]) if bounds is None else bounds
        usual = {"lower": lower, "upper": upper, "inside": transform.inside, "tolerance": FINAL_TOLERANCE}
        most = MAX_ITERATIONS if self.layout.galaxies < 3 else CROWDED_ITERATIONS
        options = usual | {"max_iterations": most, "look": False, "patience": FAILED_STEPS} | options

        def fit(z, bands, **more):
            model, kind = self.function(transform, bands), bands[0].data.dtype
            data = torch.cat([band.data[index] for band in bands], 1)
            weight = torch.cat([part[index].to(kind) for part in weights], 1)
            return levenberg_marquardt(lambda z, own: model(z, index[own]), z, data, weight, **options | more)

        before = 0
        if rough and self.rough is not self.bands:
            first = fit(z, self.rough, tolerance=ROUGH_TOLERANCE)
            z, before = first.parameters, first.iterations
        found = fit(z, self.bands if bands is None else bands)
        found.iterations += before
        found.at_bound |= transform.at_largest_ellipticity(found.parameters)
        return found

    def function(self, transform, bands):
        """Function of z (b, Z) and index (b,): images (b, N), band after band, and derivatives (b, Z, N)."""

        def evaluate(z, index):
            images, jacobians = [], []
            for band, (vector, slope) in zip(bands, transform.expand(z, index), strict=True):
                image, jacobian = band.image_and_jacobian(vector)
                images.append(torch.where(_impossible(vector), torch.nan, image))
                jacobians.append(slope.mT.to(jacobian) @ jacobian)
            return torch.cat(images, 1), torch.cat(jacobians, 2)

        return evaluate

    def images(self, transform, z, bands=None):
        """Model images (B, N) of every band."""
        vectors = transform.expand(z, self.everything)
        bands = self.bands if bands is None else bands
        return [band.image(vector) for band, (vector, _) in zip(bands, vectors, strict=True)]

    def signal(self, smooth, weights):
        """Signal to noise (B, G) of each galaxy, all bands together, from smooth coordinates (B, C)."""
        squares, layout = 0, self.layout
        for number, (band, weight) in enumerate(zip(self.rough, weights, strict=True)):
            lights = torch.stack(profile_images(band.operator, smooth[:, layout.columns(number)]), 1)
            lights = lights.flatten(2).unflatten(1, (layout.galaxies, layout.components)).sum(2)
            squares = squares + (weight.unsqueeze(1) * lights.square()).sum(2)
        return squares.sqrt()

    def noise_weights(self, images):
        """Inverse variances (B, N) in each band, of the noise expected for model images (B, N)."""
        weights = []
        for number, (band, image) in enumerate(zip(self.bands, images, strict=True)):
            numbers = zip(*(task.noise_numbers(number) for task in self.tasks), strict=True)
            noise = self.tasks[0].bands[number].noise.with_numbers(*map(self._stack, numbers))
            # The photons of the light that was taken from the data are noise, too.
            if self.tasks[0].others is not None:
                image = image + self._stack(task.others[number] for task in self.tasks)
            weights.append(torch.where(band.weight > 0, 1 / noise.moments(image)[2], 0))
        return weights

    def robust_weights(self, images, weights):
        """Weights with the factor of the robust loss."""
        return [
            weight * robust_factor((band.data - image) * weight.sqrt(), self.settings.loss)
            for weight, band, image in zip(weights, self.bands, images, strict=True)
        ]

    def robust_covariance(self, transform, fit, weights):
        """Covariance (B, Z, Z) of a fit with the robust loss."""
        image, jacobian = self.function(transform, self.bands)(fit.parameters, self.everything)
        weight, data = torch.cat(weights, 1), torch.cat([band.data for band in self.bands], 1)
        residual = (data - image) * weight.sqrt()
        return sandwich(jacobian, residual, weight, self.settings.loss, fit.at_bound)


def _fits_single(band):
    """Whether single precision holds all numbers of some stamps."""
    seen = band.weight[band.weight > 0]
    numbers = (band.data.abs().amax(), seen.amin(), seen.amax()) if len(seen) else (0,)
    return all(10.0**-SINGLE_DECADES < number < 10.0**SINGLE_DECADES for number in numbers)


def _impossible(vectors):
    """Whether a galaxy (b, 1) is too elongated, as in the corners of the box of e1 and e2."""
    parts = vectors[:, : vectors.shape[1] // 7 * 7].unflatten(1, (-1, 7))
    return (torch.hypot(parts[..., 5], parts[..., 6]) > MAX_MODULUS).any(1, keepdim=True)


# ---------------------------------------------------------------- robust losses


def robust_factor(residual, loss):
    """Weight of a residual (in sigma) relative to least squares: 1 for small ones, falling to 0.

    Holland & Welsch 1977, Communications in Statistics A6, 813.
    """
    scale = LOSSES[loss]
    if loss == "huber":
        return scale / residual.abs().clamp_min(scale)
    return 1 / (1 + (residual / scale).square())


def _influence_slope(residual, loss):
    """Derivative of residual times weight, the influence function."""
    scale = LOSSES[loss]
    if loss == "huber":
        return (residual.abs() < scale).to(residual)
    squared = (residual / scale).square()
    return (1 - squared) / (1 + squared).square()


def sandwich(jacobian, residual, weight, loss, held):
    """Covariance (B, Z, Z) of a robust fit, from the scatter of its residuals.

    The Jacobian is (B, Z, N); residuals in sigma and inverse variances are (B, N); ``held`` (B, Z) marks
    parameters on a bound, whose rows are zero. Huber 1981, "Robust Statistics", section 7.6.
    """
    bread = (jacobian * (weight * _influence_slope(residual, loss)).unsqueeze(1)) @ jacobian.mT
    pull = residual * robust_factor(residual, loss)
    filling = (jacobian * (weight * pull.square()).unsqueeze(1)) @ jacobian.mT
    inverse = masked_inverse(bread, held)
    return inverse @ filling @ inverse
