"""Batches of groups of galaxies that are fitted at once, in all their bands."""

from functools import partial

import numpy as np
import torch

from lenssr.imaging.noise import GaussianNoise
from lenssr.model.least_squares import levenberg_marquardt
from lenssr.model.scene import Scene
from lenssr.photometry.cutouts import Stamps, cut
from lenssr.photometry.parameters import MAX_MODULUS, ParameterLayout
from lenssr.photometry.robust import robust_factor

__all__ = ["TaskBatch"]

# Most iterations of a fit, and of one with three galaxies or more, which often never converges.
MAX_ITERATIONS, CROWDED_ITERATIONS = 60, 40
# Most failed iterations in a row: they multiply the damping by 2, 4, 8, ..., and the step is negligible by
# then.
FAILED_STEPS = 6
# Single precision is used for numbers within this many decades of 1, up to this tolerance on chi2.
SINGLE_DECADES, ROUGH_TOLERANCE = 25, 0.03


class TaskBatch:
    """Tasks of one shape, number of galaxies, telescope and kind of noise.

    ``operator(psf, grid, shape)`` makes that of a telescope. ``bands`` are `Stamps`, ``rough`` the
    same in single precision, None where that would overflow; ``pixels`` (B,) counts the pixels fitted in all
    bands together.
    """

    def __init__(self, tasks, settings, operator):
        self.tasks, self.settings, self.shape = tasks, settings, tasks[0].shape
        self.device = settings.torch_device
        first = tasks[0]
        self.layout = ParameterLayout(
            len(first.members), settings.n_components, len(first.bands), sky=settings.sky is not None
        )
        self._corners = np.array([task.corner for task in tasks])
        own = np.stack([task.share() for task in tasks])
        self.bands = [self._stamps(number, own, operator) for number in range(len(first.bands))]
        self.rough = self._single(operator)
        self.pixels = sum((band.weight > 0).sum(1) for band in self.bands)
        self.gaussian = all(isinstance(image.noise, GaussianNoise) for image in first.bands)
        layout = self.layout
        self._scene = Scene(
            lens=None,
            lens_free=False,
            lens_light=layout.galaxies * layout.components,
            sky=layout.sky,
            source=0,
            extent=max(self.shape) / 2,
            device=self.device,
        )

    def __len__(self):
        return len(self.tasks)

    @property
    def everything(self):
        """Numbers of all tasks."""
        return torch.arange(len(self.tasks), device=self.device)

    @property
    def weights(self):
        """Inverse variances (B, N) in each band."""
        return [band.weight for band in self.bands]

    def _stamps(self, band, own, operator):
        boxes = {"data": [], "sigma": [], "valid": []}
        for task, corner in zip(self.tasks, self._corners, strict=True):
            image = task.bands[band]
            planes = {"data": image.data, "sigma": task.sigma(band), "valid": image.valid}
            for name, fill in (("data", 0.0), ("sigma", 1.0), ("valid", False)):
                boxes[name].append(cut(planes[name], corner[None], self.shape, fill)[0])
            if task.others is not None:
                boxes["data"][-1] = boxes["data"][-1] - task.others[band]
        data, sigma, valid = (np.stack(boxes[name]) for name in ("data", "sigma", "valid"))
        weight = np.where(valid & own, sigma**-2.0, 0.0)
        image = self.tasks[0].bands[band]
        planes = (torch.as_tensor(part, device=self.device) for part in (data, weight))
        return Stamps(*planes, operator(image.psf, image.grid, self.shape))

    def _single(self, operator):
        """Stamps in single precision, or None where it would overflow."""
        for band in self.bands:
            seen = band.weight[band.weight > 0]
            numbers = (band.data.abs().amax(), seen.amin(), seen.amax()) if len(seen) else (0,)
            if not all(10.0**-SINGLE_DECADES < number < 10.0**SINGLE_DECADES for number in numbers):
                return None
        kind = partial(operator, dtype=torch.float32)
        return [
            band.rough(kind(image.psf, image.grid, self.shape))
            for band, image in zip(self.bands, self.tasks[0].bands, strict=True)
        ]

    def minimise(
        self, transform, z, weights, *, tolerance, index=None, bands=None, bounds=None, most=None, rough=False
    ):
        """Fit from z (b, Z) with weights (B, N), one tensor a band.

        ``index`` (b,) numbers the tasks, perhaps repeatedly, by default all; ``bands`` and ``bounds`` (two of
        (b, Z)) replace those of the batch and of the transform; ``rough`` fits in single precision first.
        """
        index = self.everything if index is None else index
        lower, upper = (transform.lower[index], transform.upper[index]) if bounds is None else bounds
        most = most or (MAX_ITERATIONS if self.layout.galaxies < 3 else CROWDED_ITERATIONS)
        options = {"lower": lower, "upper": upper, "max_iterations": most, "inside": transform.inside}
        options |= {"look": False, "patience": FAILED_STEPS}
        before = 0
        if rough and self.rough is not None:
            problem = self._problem(transform, [part.float() for part in weights], index, self.rough)
            first = levenberg_marquardt(problem[0], z, *problem[1:], tolerance=ROUGH_TOLERANCE, **options)
            z, before = first.parameters, first.iterations
        model, data, weight = self._problem(transform, weights, index, self.bands if bands is None else bands)
        fit = levenberg_marquardt(model, z, data, weight, tolerance=tolerance, **options)
        fit.iterations += before
        fit.at_bound |= transform.at_largest_ellipticity(fit.parameters)
        return fit

    def _problem(self, transform, weights, index, bands):
        """Model, data (b, N) and weights (b, N) of the tasks numbered ``index``."""
        function = self.function(transform, bands)
        data = torch.cat([band.data[index] for band in bands], 1)
        weight = torch.cat([part[index] for part in weights], 1)
        return (lambda parameters, which: function(parameters, index[which])), data, weight

    def function(self, transform, bands):
        """Function of z (b, Z) and index (b,): images (b, N), band after band, and derivatives (b, Z, N)."""
        template = torch.ones(len(self), self._scene.size, dtype=torch.float64, device=self.device)
        models = [band.model(self._scene, template) for band in bands]

        def evaluate(z, index):
            vectors, slopes = transform.expand(z, index)
            images, jacobians = [], []
            for model, vector, slope in zip(models, vectors, slopes, strict=True):
                image, jacobian = model(vector, index)
                images.append(torch.where(self._impossible(vector), torch.nan, image))
                jacobians.append(jacobian if slope is None else slope.mT.to(jacobian) @ jacobian)
            if len(images) == 1:
                return images[0], jacobians[0]
            return torch.cat(images, 1), torch.cat(jacobians, 2)

        return evaluate

    def _impossible(self, vectors):
        """Whether a galaxy (b, 1) is too elongated, as in the corners of the box of e1 and e2."""
        profiles = self.layout.galaxies * self.layout.components
        parts = vectors[:, : 7 * profiles].reshape(len(vectors), profiles, 7)
        return (torch.hypot(parts[..., 5], parts[..., 6]) > MAX_MODULUS).any(1, keepdim=True)

    def images(self, transform, z, bands=None):
        """Model images (B, N) of every band."""
        template = torch.ones(len(z), self._scene.size, dtype=torch.float64, device=self.device)
        vectors = transform.expand(z, self.everything)[0]
        return [
            band.image(self._scene, self._scene.to_physical(vector, template).to(band.operator.x))
            for band, vector in zip(self.bands if bands is None else bands, vectors, strict=True)
        ]

    def signal(self, smooth, weights):
        """Signal to noise (B, G) of each galaxy, all bands together, from smooth coordinates (B, C)."""
        layout, scene = self.layout, self._scene
        blocks = scene.lights
        bands = self.bands if self.rough is None else self.rough
        total = torch.zeros(len(smooth), layout.galaxies, dtype=smooth.dtype, device=smooth.device)
        for number, (band, weight) in enumerate(zip(bands, weights, strict=True)):
            template = torch.ones(len(smooth), scene.size, dtype=smooth.dtype, device=smooth.device)
            physical = scene.to_physical(smooth[:, layout.columns(number)], template).to(band.operator.x)
            for galaxy in range(layout.galaxies):
                own = blocks[galaxy * layout.components : (galaxy + 1) * layout.components]
                light = sum(band.light(physical, block) for block in own)
                total[:, galaxy] += (weight * light.square()).sum(1)
        return total.sqrt()

    def noise_weights(self, images):
        """Inverse variances (B, N) in each band, of the noise expected for model images (B, N)."""
        weights = []
        for number, (band, image) in enumerate(zip(self.bands, images, strict=True)):
            variance = [
                self._noise(task.bands[number], corner).moments(self._whole(task, number, one))[2].flatten()
                for task, corner, one in zip(self.tasks, self._corners, image, strict=True)
            ]
            weights.append(torch.where(band.weight > 0, 1 / torch.stack(variance), 0))
        return weights

    def _whole(self, task, band, image):
        """Model image (ny, nx) with the light subtracted from the data: its photons are noise, too."""
        image = image.reshape(self.shape)
        return image if task.others is None else image + torch.as_tensor(task.others[band]).to(image)

    def _noise(self, image, corner):
        noise, numbers = image.noise, []
        for name in noise.names:
            value = np.asarray(getattr(noise, name), dtype=float)
            if value.ndim:
                value = cut(value, corner[None], self.shape, float(np.median(value)))[0]
            numbers.append(torch.as_tensor(value, device=self.device))
        return noise.with_numbers(*numbers)

    def robust_weights(self, images, weights):
        """Weights with the factor of the robust loss."""
        return [
            weight * robust_factor((band.data - image) * weight.sqrt(), self.settings.loss)
            for weight, band, image in zip(weights, self.bands, images, strict=True)
        ]
