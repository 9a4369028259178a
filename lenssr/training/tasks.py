"""What is trained, and towards which objectives: one class for each kind of recipe."""

import inspect
from abc import ABC, abstractmethod

import torch
from torch import nn

from lenssr.networks import SISR, DeflectionNetwork, RelensingNetwork, SourcePlane
from lenssr.networks.deflection import as_family
from lenssr.networks.relensing import mapped_back, to_rays
from lenssr.networks.source_plane import lit_pixels
from lenssr.training import objectives as goals
from lenssr.training.profiles import SersicReader
from lenssr.training.views import Telescopes, View

__all__ = ["TASKS", "Task"]


class Task(ABC, nn.Module):
    """A network, or several, and what they are trained towards.

    Parameters
    ----------
    settings : dict
        Options of the networks; see the class.
    hidden : float
        Share of the pixels that are hidden from the network while it is trained.
    """

    # Names of the objectives that it can be trained towards, what its options build, and whether it predicts
    # a finer image.
    objectives = ()
    builds = SISR
    more_options = ()
    # Whether it has predict(view), which gives images (B, ny * scale, nx * scale) in flux per pixel.
    predicts_image = True
    # How many times finer its images are; None if it makes them as fine as one asks.
    scale = None

    def __init__(self, settings, hidden=0.0):
        super().__init__()
        self.hidden, self.telescopes = hidden, Telescopes()
        self.build(settings)

    @classmethod
    def options(cls):
        """Names of the options of the networks."""
        return (*list(inspect.signature(cls.builds).parameters), *cls.more_options)

    @abstractmethod
    def build(self, settings):
        """Make the networks from their options."""

    @abstractmethod
    def losses(self, view):
        """Functions for the objectives by name, so that only those asked for are computed."""

    def view(self, batch, generator):
        """What the network is shown; a share of the pixels hidden.

        Parameters
        ----------
        batch : `~lenssr.simulation.LensBatch`
        generator : `torch.Generator` or None
            Which pixels are hidden; None hides none.
        """
        if not self.hidden or generator is None:
            return View(batch, self.telescopes)
        return View(batch, self.telescopes, goals.draw_hidden(batch.low, self.hidden, generator))

    @property
    def networks(self):
        """The networks by name."""
        return dict(self.named_children())


class _ImageTask(Task):
    """One `SISR` that makes images finer."""

    objectives = ("target_error", "pixel_intensity", "multi_scale")

    def build(self, settings):
        self.image = SISR(**settings)
        self.scale = self.image.scale

    def finer(self, view):
        return self.image(view.image, view.sigma if self.image.with_noise else None)

    def losses(self, view):
        finer = self.finer(view)
        data = view.image, view.variance
        return {
            "target_error": lambda: goals.target_error(finer, self.target(view)),
            "pixel_intensity": lambda: goals.pixel_intensity(finer, *data),
            "multi_scale": lambda: goals.multi_scale(finer, *data),
        }

    @abstractmethod
    def target(self, view):
        """Image (B, ny * scale, nx * scale) that the finer image should be."""

    def predict(self, view):
        return self.finer(view)


class Bicubic(_ImageTask):
    """Teach an `SISR` the bicubic image: where it begins."""

    def target(self, view):
        return goals.enlarged(view.image, self.image.scale)


class Supervised(_ImageTask):
    """Teach it the true image: the bound that no method without such images should expect to pass."""

    def target(self, view):
        return view.batch.truth


class WithSource(_ImageTask):
    """LensSR with the source: a Sérsic read off the image, re-lensed, is what the finer image should be."""

    def build(self, settings):
        super().build(settings)
        self.reader = SersicReader()

    def target(self, view):
        return self.reader(view)


class NoSource(Task):
    """LensSR without the source: an `SISR` for the image and one for the source, which the lens binds.

    The second sees the image mapped back to the source plane. Options: those of `SISR` for both, and
    ``side``, the nodes along a side of what it sees, 38 by default.
    """

    objectives = ("lens_equation", "source_intensity", "pixel_intensity", "multi_scale")
    more_options = ("side",)

    def build(self, settings):
        settings = dict(settings)
        self.side = settings.pop("side", 38)
        self.image, self.source = SISR(**settings), SISR(**settings)
        self.scale = self.image.scale

    def losses(self, view):
        finer, relensed = self.finer(view), self.relensed(view)
        data = view.image, view.variance
        return {
            "lens_equation": lambda: goals.lens_equation(finer, relensed, view.image),
            "source_intensity": lambda: goals.source_intensity(finer, relensed, view.image),
            "pixel_intensity": lambda: goals.pixel_intensity(finer, *data),
            "multi_scale": lambda: goals.multi_scale(finer, *data),
        }

    def finer(self, view):
        return self.image(view.image, view.sigma if self.image.with_noise else None)

    def relensed(self, view):
        """The finer image (B, ny * scale, nx * scale) that follows from the source."""
        lit = to_rays(lit_pixels(view.image, view.sigma), view.operator)
        plane = SourcePlane.around(*view.rays, lit, self.side)
        footprint = plane.footprint(*view.rays)
        brightness, error, _ = mapped_back(view.image, view.sigma, view.operator, footprint)
        # Flux per pixel for the network is brightness at nodes here, which does not shrink with them.
        factor = self.source.scale**2
        nodes = factor * self.source(brightness, error if self.source.with_noise else None)
        fine = SourcePlane(plane.x_0, plane.y_0, plane.half, nodes.shape[-1])
        return view.fine_operator(fine.footprint(*view.fine_rays).interpolate(nodes))

    def predict(self, view):
        return self.finer(view)


class Relensing(Task):
    """A `RelensingNetwork`, taught by the pixels that it does not see."""

    objectives = ("hidden_pixels", "data_consistency", "source_smoothness", "target_error")
    builds = RelensingNetwork

    def build(self, settings):
        self.source = RelensingNetwork(**settings)

    def draw(self, view):
        """`~lenssr.networks.DrawnSource` of a view."""
        return self.source(view.image, view.sigma, view.operator, *view.rays, psf_sigma=view.psf_sigma)

    def losses(self, view):
        drawn = self.draw(view)
        expected = view.expected(drawn.image(view.operator, *view.rays))
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


class Deflection(Task):
    """A `DeflectionNetwork`, taught the lenses of simulations."""

    objectives = (
        "lens_error",
        "lens_likelihood",
        "deflection_error",
        "variation_density",
        "positive_convergence",
    )
    builds = DeflectionNetwork
    predicts_image = False

    def build(self, settings):
        self.lens = DeflectionNetwork(**settings)

    def losses(self, view):
        batch = view.batch
        views = 1 if self.training else 8
        estimate = self.lens(view.image, view.sigma, batch.pixel_scale, views=views)
        truth = as_family(batch.scenes.lens, batch.scenes.lens_vector)
        grid = [torch.as_tensor(place).reshape(1, -1).to(batch.low) for place in (batch.grid.x, batch.grid.y)]

        def maps():
            return torch.stack(estimate.deflection(*grid)).unflatten(-1, batch.grid.shape)

        def true_maps():
            return torch.stack(batch.scenes.deflection(*grid)).unflatten(-1, batch.grid.shape)

        return {
            "lens_error": lambda: goals.lens_error(estimate, truth),
            "lens_likelihood": lambda: goals.lens_likelihood(estimate, truth),
            "deflection_error": lambda: goals.target_error(maps().flatten(0, 1), true_maps().flatten(0, 1)),
            "variation_density": lambda: goals.variation_density(*maps(), batch.pixel_scale),
            "positive_convergence": lambda: goals.positive_convergence(estimate.convergence(*grid)),
        }


TASKS = {
    "bicubic": Bicubic,
    "lenssr-no-source": NoSource,
    "lenssr-with-source": WithSource,
    "relensing": Relensing,
    "deflection": Deflection,
    "supervised": Supervised,
}


def psnr(image, truth):
    """T of images (B, ny, nx), each: PSNR in dB against the truth, whose peak is the range."""
    error = (image - truth).square().mean((-2, -1))
    return 20 * truth.amax((-2, -1)).log10() - 10 * error.log10()


def weighted(losses, weights):
    """Sum of objectives with their weights, and each of them.

    Parameters
    ----------
    losses : dict of str to callable
    weights : dict of str to float

    Returns
    -------
    total : `torch.Tensor`, scalar
    parts : dict of str to `torch.Tensor`
        Without gradient.
    """
    values = {name: losses[name]() for name in weights}
    total = sum(weight * values[name] for name, weight in weights.items())
    return total, {name: value.detach() for name, value in values.items()}
