"""A trained network draws the source; the lens equation and the telescope make its image."""

import logging
from dataclasses import dataclass, replace

import torch
from astropy.stats import gaussian_fwhm_to_sigma

from lenssr.imaging.detection import significant_pixels, variance_from_neighbours
from lenssr.model.fit import Constraints, Fit
from lenssr.model.initial_guess import border_level
from lenssr.networks.network_source import TrainedNetwork, image_properties, trained_networks
from lenssr.networks.relensing import PredictedSource, to_rays
from lenssr.networks.sisr import SISR
from lenssr.reconstruction import decisions
from lenssr.reconstruction.freeform import as_fit, solved_freeform
from lenssr.reconstruction.freeform_fit import constraints_around
from lenssr.reconstruction.model_free import SISRReconstruction
from lenssr.reconstruction.network_fit import NetworkSourceFit
from lenssr.reconstruction.parametric import ParametricReconstruction, stack_of
from lenssr.source import SourceGrid

log = logging.getLogger(__name__)


def network_method(settings):
    """The reconstruction with the network of these settings: model-free for an `~lenssr.networks.SISR`."""
    networks = trained_networks(settings.network.weights)
    if isinstance(networks[0].network, SISR):
        return SISRReconstruction(settings, networks[0])
    return NetworkReconstruction(settings, networks)


class NetworkReconstruction:
    """Solve images with a source that a network draws: the first trained on such images, or the last."""

    def __init__(self, settings, networks):
        self.settings, self.networks = settings, networks
        self.parametric = ParametricReconstruction(settings)
        # A network needs the arcs alone and a lens: unknown ones, and lens light, are fitted first.
        self.fits_first = bool(settings.fit_lens or settings.lens_light is not None)
        self.begin = self.parametric.fit if self.fits_first else self._unfitted

    def with_light(self, light):
        """The reconstruction with the same networks and another light of the lens galaxy."""
        return NetworkReconstruction(replace(self.settings, lens_light=light), self.networks)

    def parts(self, members):
        """Cut a list of (number, observation) into pieces: one each, for processes to share, or batches."""
        batched = self.settings.torch_device.type != "cpu"
        return self.parametric.parts(members) if batched else [[member] for member in members]

    def solve(self, observations, finish):
        """Results of ``finish(solved, observation)``, called as soon as an image is solved.

        The observations have one shape, pixel scale, PSF and kind of unit.
        """
        stack, scene, fits = self.begin(observations)
        pairs = self.parametric.with_slopes(stack, scene, fits)
        return [
            finish(self._solve_one(stack.select([number]), *pair, one), one)
            for number, (pair, one) in enumerate(zip(pairs, observations, strict=True))
        ]

    def _unfitted(self, observations):
        """Stack, scene without a source, and fits behind a given lens: only the sky is measured."""
        stack = stack_of(observations, self.settings)
        bare = self.parametric.scene(observations[0], stack.device).without("source")
        return stack, bare, _sky_fits(stack, bare, self.settings.lens)

    def _solve_one(self, stack, scene, fit, observation):
        prediction = self.predict(stack, scene, fit, observation)
        bare = scene.without("source")
        known, drawn = prediction.known, prediction.drawn
        log.info("the network %s draws the source", known.name)
        values = prediction.unit * drawn.brightness[0].double().flatten().cpu().numpy()
        if stack.device.type != "cpu":
            stack, bare = stack_of([observation], self.settings, "cpu"), bare.on("cpu")
        fit = prediction.fit.on("cpu")
        fit = replace(fit, constraints=constraints_around(bare, fit, 1.0, self.settings))
        drawing = NetworkSourceFit(stack, bare, fit, drawn.plane.one(0), values, observation, self.settings)
        problem, solution = drawing.run()
        found = replace(as_fit(problem, fit, solution, stack, drawing), converged=True)
        words, refine = known.out_of_domain(prediction.seen), int(self.settings.network.refine)
        return solved_freeform(
            problem,
            solution,
            found,
            observation,
            self.settings,
            drawing,
            # Draws are around the network's source, which is not the maximum of the posterior.
            off=solution.next_step,
            facts={"unlike_training": bool(words)},
            meta={"network": {**known.describe(), "refine": refine, "unlike_training": words}},
        )

    def predict(self, stack, scene, fit, observation):
        """Choose the network for one image, and let it draw the source: a `Prediction`."""
        bare, fit = scene.without("source"), fit.without(scene, "source")
        foreground = _foreground(stack, bare, fit)
        image, variance = subtract_foreground(stack, foreground)
        seen = image_properties(observation, image, variance)
        known = next((one for one in self.networks if not one.out_of_domain(seen)), self.networks[-1])
        guide = fit.lensed_source if self.fits_first else None
        network = known.network.to(stack.device)
        predictor = SourcePredictor(network, stack, bare, fit.physical, seen["psf_fwhm"], guide)
        drawn, unit = predictor(image, variance)
        if not self.fits_first and bare["sky"] is not None:
            shifted, fit = _with_sky(stack, bare, fit, predictor.lensed(drawn, unit))
            if shifted:
                foreground = _foreground(stack, bare, fit)
                drawn, unit = predictor(*subtract_foreground(stack, foreground))
        return Prediction(known, seen, predictor, foreground, fit, drawn, unit)


@dataclass(frozen=True)
class Prediction:
    """The input of a network from one image, and the source that it drew, its brightness in ``unit``.

    ``seen`` are the `~lenssr.networks.network_source.image_properties`; ``foreground`` (1, ny * nx), sky and
    lens light in the unit of the data, was subtracted; ``fit`` has the sky that the source leaves.
    """

    known: TrainedNetwork
    seen: dict
    predictor: "SourcePredictor"
    foreground: torch.Tensor
    fit: Fit
    drawn: PredictedSource
    unit: float


class SourcePredictor:
    """A network applied to one image, in single precision and units of its noise, which keep it in range.

    ``physical`` (P,) are the parameters of the scene ``bare``, and ``fwhm`` is that of the PSF in arcsec, 0
    without one. ``guide`` (ny * nx,) is the lensed source of a fit, in the unit of the data: the source is
    drawn where that stands out of the noise, and where the image does not far from there. Without it,
    wherever the image does, which noise in the corners of a field and other galaxies do, too.
    """

    def __init__(self, network, stack, bare, physical, fwhm, guide=None):
        self.guide = None if guide is None else (guide / stack.factor).reshape(1, *stack.grid.shape)
        self.network, self.operator, self.factor = network, stack.single().operator, stack.factor
        rays = bare.source_positions(stack.operator.x, stack.operator.y, physical[None])
        self.rays = [axis.float() for axis in rays]
        self.psf_sigma = fwhm * gaussian_fwhm_to_sigma

    def __call__(self, image, variance):
        """The `~lenssr.networks.PredictedSource`, and the unit of its brightness.

        ``image`` and ``variance`` (1, ny, nx) are from `subtract_foreground`.
        """
        used = variance.isfinite()
        unit = float(variance[used].mean().sqrt()) if used.any() else 1.0
        planes = (image / unit).float(), (variance.sqrt() / unit).float()
        options = {"psf_sigma": self.psf_sigma, "plane": self._plane(*planes, unit)}
        return self.network(*planes, self.operator, *self.rays, **options), unit

    def _plane(self, image, sigma, unit):
        """The grid around the light of the guide, and that of the image near it; None without a guide."""
        if self.guide is None:
            return None
        sure = significant_pixels((self.guide / unit).to(image), sigma)
        if not sure.any():
            return None
        size = self.network.side, self.network.stretch
        lit, sure = (to_rays(one, self.operator) for one in (significant_pixels(image, sigma), sure))
        plane = SourceGrid.around_significant(*self.rays, sure, *size)
        x, y = self.rays[0] - plane.x_0[:, None], self.rays[1] - plane.y_0[:, None]
        return SourceGrid.around_significant(*self.rays, sure | lit & (torch.hypot(x, y) < plane.half), *size)

    def lensed(self, drawn, unit):
        """The image (1, ny * nx) of a drawn source, in the unit of the data."""
        return drawn.image(self.operator, *self.rays).double().flatten(1) * (unit * self.factor)


def subtract_foreground(stack, foreground, hidden=None):
    """Lensed source in flux per pixel and its variance (1, ny, nx), as a network sees them.

    ``foreground`` (1, ny * nx) is sky and lens light in the unit of the data. The variance is made without
    the pixels that are ``hidden`` (1, ny, nx), and is infinite where the image is masked.
    """
    shape = (1, *stack.grid.shape)
    valid = stack.valid.reshape(shape)
    seen = valid if hidden is None else valid & ~hidden
    variance = variance_from_neighbours(stack.data.reshape(shape), stack.noise, seen) / stack.factor**2
    image = torch.where(stack.valid, stack.data - foreground, 0) / stack.factor
    return image.reshape(shape), variance.masked_fill(~valid, torch.inf)


def _foreground(stack, bare, fit):
    """Sky and lens light (1, N) of one image, in the unit of the data."""
    return stack.image(bare, fit.physical[None], roles=("lens_light", "sky"))


def _sky_fits(stack, bare, lens):
    """Fits behind a given lens without a source: sky from the border of the images."""
    level, dark = border_level(stack), torch.zeros_like(stack.data[:, :1])
    level = level - stack.moments(dark.expand_as(stack.data))[0].mean(1)
    zeros = torch.zeros_like(stack.data)
    return [
        Fit(
            physical=torch.cat([lens.vector.to(level), level[number : number + 1]])[: bare.size],
            covariance=torch.zeros(bare.size, bare.size, dtype=torch.float64, device=stack.device),
            chi2=float(stack.valid[number].sum()),
            model=zeros[number],
            lensed_source=zeros[number],
            weight=stack.first_weights[number],
            converged=True,
            at_bound=(),
            iterations=0,
            constraints=Constraints.of(bare, 1),
        )
        for number in range(len(stack))
    ]


def _with_sky(stack, bare, fit, lensed):
    """Whether the sky under a drawn source (1, N) has shifted, and the fit with that sky."""
    place = bare["sky"].start
    mean, slope, variance = stack.moments(lensed + fit.physical[place])
    weight = torch.where(stack.valid, 1 / variance.clamp_min(torch.finfo(variance.dtype).tiny), 0)
    dark = weight * (lensed * weight.sqrt() < 1)
    # Use all pixels if too few are dark.
    weight = dark if (dark > 0).sum() > decisions.LEAST_DARK * (weight > 0).sum() else weight
    total = (weight * slope.square()).sum()
    change = float((weight * slope * (stack.data - mean)).sum() / total)
    physical, covariance = fit.physical.clone(), fit.covariance.clone()
    physical[place] += change
    covariance[place, place] = 1 / total
    shifted = abs(change) * float(weight.max().sqrt()) > decisions.SKY_SHIFT
    return shifted, replace(fit, physical=physical, covariance=covariance)
