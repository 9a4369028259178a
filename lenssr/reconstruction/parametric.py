"""The parametric source: a Sérsic or any other light profile behind the lens, fitted to all pixels."""

import logging
from dataclasses import replace

import numpy as np

from lenssr.grids import conserves_sum
from lenssr.imaging.render_scene import kernel_options
from lenssr.light.lens_light import light_profiles
from lenssr.model.fit import fit_known_lens, polish
from lenssr.model.image_stack import ImageStack
from lenssr.model.scene import Scene
from lenssr.networks.network_source import LensNetwork
from lenssr.options import ISOTHERMAL, NETWORK, SEARCH
from lenssr.reconstruction import decisions
from lenssr.reconstruction.assemble import Solved, flux_unit
from lenssr.reconstruction.fine_images import fine_scene, source_image
from lenssr.reconstruction.freeform_fit import FreeFormFit
from lenssr.reconstruction.lens_search import (
    find_lens,
    refine_with_freeform_source,
    two_sources,
    unknown_lens,
)
from lenssr.reconstruction.lens_slope import free_slope
from lenssr.source.batching import alone

__all__ = ["ParametricReconstruction", "kind_of", "stack_of"]

log = logging.getLogger(__name__)

# Images are solved together as long as their Jacobians stay below about this many values: few enough for the
# cache of a CPU, and for processes to share; many enough to fill a GPU.
CPU_VALUES, GPU_VALUES = 2**22, 2**26
PARAMETERS = 20
LENS_WEIGHTS = "deflection"
# Steps of the look behind a trial lens: which of them leads to the likeliest source shows before its end.
BRIEFLY = {"max_iterations": 25}
# Free-form sources, and the factor of the gains in chi2 at which the Sérsic fit from a trial lens ends: one
# on a grid only begins there, the others keep the Sérsic.
FREE_FORM = {"pixelated": 100.0, "perturbed_sersic": 1.0, "auto": 1.0}


class ParametricReconstruction:
    """Solve images of equal shape behind the same telescope with parametric sources.

    Parameters
    ----------
    settings : `~lenssr.options.Settings`
    """

    def __init__(self, settings):
        self.settings = settings
        weights = LENS_WEIGHTS if settings.start == NETWORK else settings.start
        self.lens_network = None if settings.start == SEARCH else LensNetwork(weights)

    def parts(self, members):
        """Cut a list of (number, observation) into pieces that fit into memory together."""
        values = np.prod(members[0][1].shape) * 4 * PARAMETERS
        on_cpu = self.settings.torch_device.type == "cpu"
        size = int(max(1, (CPU_VALUES if on_cpu else GPU_VALUES) // values))
        # A given model of the light means another number in every unit.
        by_unit = {}
        for member in members:
            by_unit.setdefault(str(member[1].unit), []).append(member)
        return [group[i : i + size] for group in by_unit.values() for i in range(0, len(group), size)]

    def solve(self, observations, finish):
        """Fit a group of observations of one shape, pixel scale, PSF and kind of unit.

        Parameters
        ----------
        observations : list of `~lenssr.imaging.Observation`
        finish : callable
            ``finish(solved, observation)`` makes a result of a `Solved`; called as soon as there is one.

        Returns
        -------
        results : list
            What ``finish`` returns, for every image.
        """
        pairs = self.with_slopes(*self.fit(observations))  # the stack is large, and not needed any more
        return [finish(self.solved(*pair, one), one) for pair, one in zip(pairs, observations, strict=True)]

    def with_slopes(self, stack, scene, fits):
        """Scene and fit of each image, a list of pairs, the slope of its lens free if it is to be."""
        family = self.settings.family
        return [free_slope(stack, scene, fit, number, family) for number, fit in enumerate(fits)]

    def fit(self, observations, *, thorough=True):
        """Fit a group, the slope of an unknown lens held.

        Parameters
        ----------
        observations : list of `~lenssr.imaging.Observation`
        thorough : bool, optional
            Whether every start has a turn where the best one leaves more than noise, by default True.

        Returns
        -------
        stack : `~lenssr.model.image_stack.ImageStack`
        scene : `~lenssr.model.scene.Scene`
        fits : list of `~lenssr.model.fit.Fit`
        """
        settings = self.settings
        stack = stack_of(observations, settings)
        scene = self.scene(observations[0], stack.device)
        number = "one image" if len(stack) == 1 else f"{len(stack)} images"
        log.info("fitting %s of %d x %d pixels", number, *stack.grid.shape[::-1])
        if not settings.knows_lens:

            def look(number, fit, others):
                return self._look(scene, fit, others, observations[number])

            def begin(number, fit):
                own = stack if len(stack) == 1 and stack.device.type == "cpu" else None
                return self.begin(scene.on("cpu"), fit, observations[number], own, "curvature", **BRIEFLY)

            options = {"seed": settings.seed, "network": self.lens_network, "look": look, "begin": begin}
            options |= {"freeform": FREE_FORM.get(settings.source), "thorough": thorough}
            return stack, scene, find_lens(stack, scene, **options)
        fits = fit_known_lens(stack, scene, scene.lens.vector.to(stack.device).expand(len(stack), -1))
        return stack, scene, [polish(stack, scene, number, fit) for number, fit in enumerate(fits)]

    def _look(self, scene, fit, others, observation):
        """The fit of an image whose lens is in doubt, after a look with a free-form source, on the CPU."""
        stack, scene = stack_of([observation], self.settings, "cpu"), scene.on("cpu")

        def begin(start):
            return self.begin(scene, start, observation, stack)

        others = [lens.cpu() for lens in others]
        found = refine_with_freeform_source(stack, scene, fit.on("cpu"), others, begin)
        return found.on(fit.physical.device)

    def begin(self, scene, fit, observation, stack=None, prior="auto", compares_light=False, **steps):
        """The `~lenssr.reconstruction.freeform_fit.CoarseFit` that starts from a fit, on the CPU."""
        stack = stack_of([observation], self.settings, "cpu") if stack is None else stack
        settings = replace(self.settings, source="pixelated", prior=prior, positive=True)
        radius = decisions.DOUBTED_RADIUS_REACH, decisions.DOUBTED_RADIUS_WIDTH
        options = {"radius": radius, "compares_light": compares_light}
        return alone(
            FreeFormFit(stack, scene, fit.on("cpu"), observation, settings, **options).begin(**steps)
        )

    def solved(self, scene, fit, observation, **meta):
        """What a result is made of, from one fit."""
        settings = self.settings

        def products(widening):
            covariance = fit.covariance * widening**2
            options = {name: getattr(settings, name) for name in ("scale", "oversampling", "psf_out")}
            fine = fine_scene(scene, fit.physical, covariance, observation, **options)
            seen = fit.physical, covariance, observation
            return fine.products(*(source_image(block, *seen) for block in scene.sources))

        return Solved(scene, fit, products, meta=meta)

    def scene(self, observation, device):
        """The scene that the settings ask for, with one parametric source."""
        settings = self.settings
        scale, shape = observation.grid.pixel_scale, observation.grid.shape
        extent = 0.5 * max(shape) * scale
        lens = settings.lens
        if not settings.knows_lens:
            lens = unknown_lens(min(shape) * scale, settings.family == ISOTHERMAL)
        if settings.source_planes is not None:
            lens = two_sources(lens, settings.source_planes, settings.fit_lens)
        return Scene(
            lens=lens,
            lens_free=settings.fit_lens or settings.source_planes is not None,
            lens_light=light_profiles(settings.lens_light, scale, extent, flux_unit(observation)),
            sky=settings.sky is not None,
            extent=extent,
            source=[settings.profile().in_unit(flux_unit(observation)) for _ in range(settings.sources)],
            follows_light=settings.mass_follows_light,
            theta_E=observation.meta.get("hints", {}).get("theta_E"),
            device=device,
        )


def kind_of(observation):
    """Images of one kind are solved together: of one shape, sampling, PSF, kind of unit and of noise."""
    psf, matrix = observation.psf, observation.grid.matrix
    kernel = None if psf is None else (psf.kernel(matrix).tobytes(), psf.includes_pixel)
    pixels = tuple(matrix.round(9).ravel().tolist())
    hint = observation.meta.get("hints", {}).get("theta_E")
    return observation.shape, pixels, kernel, observation.conserves_sum, type(observation.noise), hint


def stack_of(observations, settings, device=None):
    """An `~lenssr.model.image_stack.ImageStack` of one group, on a device or that of the settings."""
    first = observations[0]
    oversampling = settings.oversampling
    kernel, options = kernel_options(first.psf, first.grid.matrix, oversampling=oversampling)
    return ImageStack(
        np.stack([o.data for o in observations]),
        np.stack([~o.mask for o in observations]),
        [o.noise for o in observations],
        first.grid,
        kernel,
        oversampling=oversampling,
        surface_brightness=not conserves_sum(first.unit),
        device=settings.torch_device if device is None else device,
        **options,
    )
