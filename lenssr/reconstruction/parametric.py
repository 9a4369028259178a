"""The parametric source: a Sérsic behind the lens, fitted to all pixels at once."""

from dataclasses import replace

import numpy as np
import torch

from lenssr.grids import conserves_sum
from lenssr.imaging.render_scene import kernel_options
from lenssr.light.lens_light import light_profiles
from lenssr.mass import SIE, Shear
from lenssr.model.fit import fit_known_lens, fit_unknown_lens, polish
from lenssr.model.image_stack import ImageStack
from lenssr.model.scene import Scene
from lenssr.reconstruction.assemble import assemble, flux_unit
from lenssr.reconstruction.fine_images import FineScene, source_image
from lenssr.reconstruction.freeing import with_free_source
from lenssr.reconstruction.network_start import start_of

__all__ = ["SersicReconstruction"]

# Images are solved together as long as their Jacobians stay below about this many values: few enough for the
# cache of a CPU, and for processes to share; many enough to fill a GPU.
CPU_VALUES, GPU_VALUES = 2**22, 2**26
PARAMETERS = 20
# How far a lens may lie from the image centre, or from its light where that is fitted, in arcsec.
CENTRE_BOUND = 0.3


class SersicReconstruction:
    """Solve images of equal shape behind the same telescope with Sérsic sources.

    Parameters
    ----------
    settings : `~lenssr.options.Settings`
    """

    def __init__(self, settings):
        self.settings, self.start = settings, start_of(settings.start)

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

    def solve(self, observations):
        """Fit a group and make its results.

        Parameters
        ----------
        observations : list of `~lenssr.imaging.Observation`
            Of one shape, pixel scale, PSF and kind of unit.

        Returns
        -------
        results : list of `~lenssr.SuperResolution`
        """
        stack, scene, fits = self.fit(observations)
        return [self.result(scene, *pair) for pair in zip(fits, observations, strict=True)]

    def fit(self, observations):
        """Fit a group.

        Parameters
        ----------
        observations : list of `~lenssr.imaging.Observation`

        Returns
        -------
        stack : `~lenssr.model.image_stack.ImageStack`
        scene : `~lenssr.model.scene.Scene`
        fits : list of `~lenssr.model.fit.SceneFit`
        """
        settings = self.settings
        stack = stack_of(observations, settings)
        scene = self.scene(observations[0], stack.device)
        if settings.lens is None:
            rng = np.random.default_rng(settings.seed)

            def start(*place):
                return _lens_start(rng, *place)

            fit = fit_unknown_lens if self.start is None else self.start.fit
            fits = fit(stack, scene, start, centre_bound=CENTRE_BOUND)
        else:
            vectors = settings.lens.vector.to(stack.device).expand(len(stack), -1)
            fits = fit_known_lens(stack, scene, vectors)
        # Whose noise has been refitted near its end; a search may have come from far.
        brief = self.start is not None
        fits = [polish(stack, scene, i, fit, brief=brief) for i, fit in enumerate(fits)]
        for i, (fit, observation) in enumerate(zip(fits, observations, strict=True)):
            if fit.elsewhere:
                fits[i] = self._freed(scene, fit, observation)
        return stack, scene, fits

    def _freed(self, scene, fit, observation):
        """The fit of an image whose lens is in doubt, after a look with a free source, on the CPU."""
        stack = stack_of([observation], replace(self.settings, device="cpu"))
        bare = self.scene(observation, "cpu", source=0)
        freed = with_free_source(stack, scene.on("cpu"), bare, fit.on("cpu"), observation, self.settings)
        return freed.on(fit.physical.device)

    def result(self, scene, fit, observation):
        """Make the result of one fit.

        Parameters
        ----------
        scene : `~lenssr.model.scene.Scene`
        fit : `~lenssr.model.fit.SceneFit`
        observation : `~lenssr.imaging.Observation`

        Returns
        -------
        result : `~lenssr.SuperResolution`
        """
        settings = self.settings

        def products(widening):
            covariance = fit.covariance * widening**2
            options = {name: getattr(settings, name) for name in ("scale", "oversampling", "psf_out")}
            fine = FineScene(scene, fit.physical, covariance, observation, **options)
            place = scene.of_role("source")[0].slice
            source = source_image(fit.physical[place], covariance[place, place], observation)
            return fine.products(source, place.stop - place.start)

        return assemble(scene, fit, observation, settings, products)

    def scene(self, observation, device, *, source=1):
        """Return the scene that the settings ask for, with so many Sérsic sources."""
        settings = self.settings
        lens, field = settings.lens, min(observation.grid.shape) * observation.grid.pixel_scale
        extent = 0.5 * max(observation.grid.shape) * observation.grid.pixel_scale
        if lens is None:
            lens = SIE(theta_E=0.2 * field, e1=0.0, e2=0.0) + Shear(gamma1=0.0, gamma2=0.0)
            lens[0].theta_E.bounds = (min(0.05, 0.05 * field), 0.5 * field)
        return Scene(
            lens=lens,
            lens_free=settings.fit_lens,
            lens_light=light_profiles(
                settings.lens_light, observation.grid.pixel_scale, extent, flux_unit(observation)
            ),
            sky=settings.sky is not None,
            extent=extent,
            source=source,
            device=device,
        )


def stack_of(observations, settings):
    """Put observations of one group into an `~lenssr.model.image_stack.ImageStack`."""
    first = observations[0]
    oversampling = settings.oversampling
    kernel, options = kernel_options(first.psf, first.grid.pixel_scale, oversampling=oversampling)
    return ImageStack(
        np.stack([o.data for o in observations]),
        np.stack([~o.mask for o in observations]),
        [o.noise for o in observations],
        first.grid,
        kernel,
        oversampling=oversampling,
        surface_brightness=not conserves_sum(first.unit),
        device=settings.torch_device,
        **options,
    )


def _lens_start(rng, theta_E, x_0, y_0):
    """SIE + shear near the round lens; the small random shapes keep starts from sharing one symmetry."""
    e1, e2, gamma1, gamma2 = rng.normal(0, 0.02, 4)
    return torch.tensor([theta_E, e1, e2, x_0, y_0, gamma1, gamma2, 0.0, 0.0], dtype=torch.float64)
