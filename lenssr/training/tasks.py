"""Training tasks: networks and their objectives, one class for each kind of recipe."""

import hashlib
import inspect
from abc import ABC, abstractmethod

import torch
from torch import nn

from lenssr.imaging.detection import significant_pixels
from lenssr.imaging.render_scene import kernel_options
from lenssr.light.sersic import sersic_brightness
from lenssr.model.fit import fit_known_lens
from lenssr.model.image_stack import ImageStack
from lenssr.model.scene import Scene
from lenssr.networks import SISR, DeflectionNetwork, RelensingNetwork
from lenssr.networks.deflection import as_family
from lenssr.networks.relensing import gridded_image, to_rays
from lenssr.source import SourceGrid
from lenssr.training import objectives as goals
from lenssr.training.data import View

__all__ = ["TASKS", "SersicFitter", "TrainingTask", "batch_psnr", "weighted_sum"]


class TrainingTask(ABC, nn.Module):
    """Networks and the objectives of their training; ``hidden`` is the share of hidden pixels."""

    # Names of the objectives and of the networks, the class of these, and options besides those of the class.
    objectives = ()
    names = ("image",)
    builds = SISR
    more_options = ()
    # Magnification of the images; None if it is free.
    scale = None

    def __init__(self, settings, hidden=0.0):
        super().__init__()
        self.hidden = hidden
        for name in self.names:
            setattr(self, name, self.builds(**settings))

    @classmethod
    def options(cls):
        """Names of the options of the networks."""
        return (*inspect.signature(cls.builds).parameters, *cls.more_options)

    @abstractmethod
    def losses(self, view):
        """Functions that compute the objectives, by name."""

    def predict(self, view):
        """Images (B, ny * scale, nx * scale) in flux per pixel; None where a task makes none."""
        return None

    def view(self, batch, generator):
        """The inputs of the network, with random pixels hidden unless ``generator`` is None."""
        hides = self.hidden and generator is not None
        return View(batch, goals.draw_hidden(batch.low, self.hidden, generator) if hides else None)

    @property
    def networks(self):
        """The networks by name."""
        return dict(self.named_children())


class ImageTask(TrainingTask):
    """One `SISR` that predicts finer images, towards a ``target`` (B, ny * scale, nx * scale)."""

    objectives = ("target_error", "pixel_intensity", "multi_scale")

    @property
    def scale(self):
        return self.image.scale

    def predict(self, view):
        return self.image(view.image, view.sigma if self.image.with_noise else None)

    def losses(self, view):
        return self._losses(view, self.predict(view))

    def _losses(self, view, finer):
        data = view.image, view.variance
        return {
            "target_error": lambda: goals.target_error(finer, self.target(view)),
            "pixel_intensity": lambda: goals.pixel_intensity(finer, *data),
            "multi_scale": lambda: goals.multi_scale(finer, *data),
        }


class Bicubic(ImageTask):
    """Train an `SISR` on the bicubic image, as a start."""

    def target(self, view):
        return goals.enlarged(view.image, self.image.scale)


class Supervised(ImageTask):
    """Train an `SISR` on the true image: the bound of methods without such images."""

    def target(self, view):
        return view.batch.truth


class WithSource(ImageTask):
    """LensSR with source: the target is a Sérsic fitted to the image, lensed at the finer resolution."""

    def __init__(self, settings, hidden=0.0):
        super().__init__(settings, hidden)
        self.target = SersicFitter()


class NoSource(ImageTask):
    """LensSR without source: an `SISR` for the image and one for the source, tied by the lens.

    The input of the second is the image gridded in the source plane. Options: those of `SISR` for both, and
    ``side``, the nodes along a side of that grid, 38 by default.
    """

    objectives = ("lens_equation", "source_intensity", "pixel_intensity", "multi_scale")
    names = ("image", "source")
    more_options = ("side",)

    def __init__(self, settings, hidden=0.0):
        super().__init__({name: value for name, value in settings.items() if name != "side"}, hidden)
        self.side = settings.get("side", 38)

    def _losses(self, view, finer):
        relensed = self.relensed(view)
        return super()._losses(view, finer) | {
            "lens_equation": lambda: goals.lens_equation(finer, relensed, view.image),
            "source_intensity": lambda: goals.source_intensity(finer, relensed, view.image),
        }

    def relensed(self, view):
        """Finer image (B, ny * scale, nx * scale) of the lensed source."""
        significant = to_rays(significant_pixels(view.image, view.sigma), view.operator)
        plane = SourceGrid.around_significant(*view.rays, significant, self.side)
        bilinear = plane.rays(*view.rays)
        brightness, error, _ = gridded_image(view.image, view.sigma, view.operator, bilinear)
        # The network conserves flux per pixel; here the pixels hold brightness, which finer nodes do not
        # dilute.
        factor = self.source.scale**2
        nodes = factor * self.source(brightness, error if self.source.with_noise else None)
        fine = SourceGrid(plane.x_0, plane.y_0, plane.half, nodes.shape[-1])
        return view.fine_operator(fine.rays(*view.fine_rays).interpolate(nodes))


class Relensing(TrainingTask):
    """Train a `RelensingNetwork` on hidden pixels."""

    objectives = ("hidden_pixels", "data_consistency", "source_smoothness", "target_error")
    names, builds = ("source",), RelensingNetwork

    def draw(self, view):
        """`~lenssr.networks.PredictedSource` of a view."""
        return self.source(view.image, view.sigma, view.operator, *view.rays, psf_sigma=view.psf_sigma)

    def losses(self, view):
        drawn = self.draw(view)
        # Noise may shift the mean of the data.
        expected = view.batch.noise.moments(drawn.image(view.operator, *view.rays))[0]
        data = view.image, view.variance
        return {
            "hidden_pixels": lambda: goals.data_consistency(expected, *data, view.hidden),
            "data_consistency": lambda: goals.data_consistency(expected, *data),
            "source_smoothness": lambda: goals.source_smoothness(drawn.log_brightness),
            "target_error": lambda: goals.target_error(
                drawn.image(view.fine_operator, *view.fine_rays), view.batch.truth
            ),
        }

    def predict(self, view):
        return self.draw(view).image(view.fine_operator, *view.fine_rays)


class Deflection(TrainingTask):
    """Train a `DeflectionNetwork` on the lenses of simulations."""

    objectives = "lens_error lens_likelihood deflection_error variation_density positive_convergence".split()
    names, builds = ("lens",), DeflectionNetwork

    def losses(self, view):
        batch = view.batch
        views = 1 if self.training else 8
        estimate = self.lens(view.image, view.sigma, batch.pixel_scale, views=views)
        truth = as_family(batch.scenes.lens, batch.scenes.lens_vector)
        grid = [torch.as_tensor(place).reshape(1, -1).to(batch.low) for place in (batch.grid.x, batch.grid.y)]

        def maps(lenses):
            return torch.stack(lenses.deflection(*grid)).unflatten(-1, batch.grid.shape)

        return {
            "lens_error": lambda: goals.lens_error(estimate, truth),
            "lens_likelihood": lambda: goals.lens_likelihood(estimate, truth),
            "deflection_error": lambda: goals.target_error(maps(estimate), maps(batch.scenes)),
            "variation_density": lambda: goals.variation_density(*maps(estimate), batch.pixel_scale),
            "positive_convergence": lambda: goals.positive_convergence(estimate.convergence(*grid)),
        }


class SersicFitter:
    """Fit a Sérsic behind the known lens of each image, once, and lens it at the finer resolution."""

    def __init__(self):
        self._fitted_vectors = {}

    def __call__(self, view):
        """Lensed profiles (B, ny * scale, nx * scale) in flux per finer pixel."""
        x, y = view.fine_rays
        vectors = self.vectors(view.batch).to(x)
        return view.fine_operator(sersic_brightness(x, y, *vectors.T.unsqueeze(-1)))

    def vectors(self, batch):
        """Parameters (B, 7) of the profiles, as `~lenssr.light.sersic_brightness` takes them."""
        keys = [hashlib.blake2b(image.cpu().numpy().tobytes()).digest() for image in batch.low]
        new = [row for row, key in enumerate(keys) if key not in self._fitted_vectors]
        if new:
            for row, vector in zip(new, _fitted(batch, new), strict=True):
                self._fitted_vectors[keys[row]] = vector
        return torch.stack([self._fitted_vectors[key] for key in keys])


def _fitted(batch, rows):
    grid, oversampling = batch.grid, batch.oversampling
    kernel, options = kernel_options(batch.psf, grid.pixel_scale, oversampling=oversampling)
    data = batch.low[rows].double()
    options |= {"oversampling": oversampling, "device": batch.device}
    noise = batch.noise.select(torch.tensor(rows, device=batch.device))
    stack = ImageStack(data, torch.ones_like(data, dtype=torch.bool), noise, grid, kernel, **options)
    known = {"lens_free": False, "lens_light": 0, "sky": False, "device": batch.device}
    scene = Scene(lens=batch.scenes.lens, extent=0.5 * max(grid.shape) * grid.pixel_scale, **known)
    fits = fit_known_lens(stack, scene, batch.scenes.lens_vector[rows].double())
    source = scene["source"].slice
    return [fit.physical[source].cpu() for fit in fits]


TASKS: dict[str, type[TrainingTask]] = {
    "bicubic": Bicubic,
    "lenssr-no-source": NoSource,
    "lenssr-with-source": WithSource,
    "relensing": Relensing,
    "deflection": Deflection,
    "supervised": Supervised,
}


def batch_psnr(image, truth):
    """PSNR in dB (T) of each of images (B, ny, nx), the peak of the truth as range."""
    error = (image - truth).square().mean((-2, -1))
    return 20 * truth.amax((-2, -1)).log10() - 10 * error.log10()


def weighted_sum(losses, weights):
    """Weighted sum of objectives, and each of them without gradient."""
    values = {name: losses[name]() for name in weights}
    total = sum(weight * values[name] for name, weight in weights.items())
    return total, {name: value.detach() for name, value in values.items()}
