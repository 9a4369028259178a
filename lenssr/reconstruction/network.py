"""A trained network draws the source; the lens equation and the telescope make its image."""

from dataclasses import dataclass, replace

import torch
from astropy.stats import gaussian_fwhm_to_sigma

from lenssr.model.constraints import Terms
from lenssr.model.fit import SceneFit
from lenssr.model.initial_guess import border_level
from lenssr.networks.domain import TrainedNetwork, image_properties, trained_networks
from lenssr.networks.relensing import PredictedSource, to_rays
from lenssr.networks.sisr import SISR
from lenssr.networks.source_plane import SourcePlane, significant_pixels
from lenssr.networks.variance import variance_from_neighbours
from lenssr.reconstruction.freeform_fit import terms_around
from lenssr.reconstruction.network_fit import Drawing
from lenssr.reconstruction.parametric import SersicReconstruction, stack_of
from lenssr.reconstruction.sisr_images import FinerReconstruction
from lenssr.reconstruction.verdict import is_ok, judge

__all__ = ["Look", "NetworkReconstruction", "Pen", "arcs", "network_method"]

# A sky that is off by this much of its noise is taken off anew, and the source drawn once more.
SKY_OFF = 0.05
# It is measured where the image is dark, if that is at least this share of it.
LEAST_DARK = 0.05


def network_method(settings):
    """What solves images with the network of these settings.

    Parameters
    ----------
    settings : `~lenssr.settings.Settings`

    Returns
    -------
    method : `NetworkReconstruction` or `~lenssr.reconstruction.sisr_images.FinerReconstruction`
        The second for an `~lenssr.networks.SISR`, which knows no lens.
    """
    networks = trained_networks(settings.network.weights)
    if isinstance(networks[0].network, SISR):
        return FinerReconstruction(settings, networks[0])
    return NetworkReconstruction(settings, networks)


class NetworkReconstruction:
    """Solve images with a source that a network draws.

    Parameters
    ----------
    settings : `~lenssr.settings.Settings`
    networks : list of `~lenssr.networks.domain.TrainedNetwork`
        The first that knows images like one has its turn, or the last.
    """

    def __init__(self, settings, networks):
        self.settings, self.networks = settings, networks
        self.parametric = SersicReconstruction(settings)
        # What has to be fitted before a network can see the arcs alone, behind a lens.
        self.fits_first = bool(settings.fit_lens or settings.lens_light is not None)

    def parts(self, members):
        """Cut a list of (number, observation) into pieces: one each, for processes to share, or batches."""
        batched = self.settings.torch_device.type != "cpu"
        return self.parametric.parts(members) if batched else [[member] for member in members]

    def solve(self, observations):
        """Reconstruct a group.

        Parameters
        ----------
        observations : list of `~lenssr.imaging.Observation`
            Of one shape, pixel scale, PSF and kind of unit.

        Returns
        -------
        results : list of `~lenssr.SuperResolution` or Exception
            An exception where one of several images failed by itself.
        """
        stack, bare, fits = self.begin(observations)
        return [
            self._solve_one(stack.select([number]), bare, *pair)
            for number, pair in enumerate(zip(fits, observations, strict=True))
        ]

    def begin(self, observations):
        """Fit what has to be known of a group before the network has its turn.

        Parameters
        ----------
        observations : list of `~lenssr.imaging.Observation`
            As of `solve`.

        Returns
        -------
        stack : `~lenssr.model.image_stack.ImageStack`
        bare : `~lenssr.model.scene.Scene`
            Without a source.
        fits : list of `~lenssr.model.fit.SceneFit`
            Of its parameters, for each image.
        """
        if self.fits_first:
            stack, scene, fits = self.parametric.fit(observations)
            bare = self.parametric.scene(observations[0], stack.device, source=0)
            return stack, bare, [_without_source(scene, fit) for fit in fits]
        stack = stack_of(observations, self.settings)
        bare = self.parametric.scene(observations[0], stack.device, source=0)
        return stack, bare, _unfitted(stack, bare, self.settings.lens)

    def _solve_one(self, stack, bare, fit, observation):
        look = self.look(stack, bare, fit, observation)
        known, drawn = look.known, look.drawn
        values = look.unit * drawn.brightness[0].double().flatten().cpu().numpy()
        if stack.device.type != "cpu":
            stack, bare = stack_of([observation], replace(self.settings, device="cpu")), bare.on("cpu")
        fit = look.fit.on("cpu")
        fit.terms = terms_around(bare, fit, 1.0, self.settings)
        result = Drawing(stack, bare, fit, drawn.plane.grid(0), values, observation, self.settings).result()
        words = known.out_of_domain(look.seen)
        result.flags = judge({"unlike_training": bool(words)}, result.flags)
        result.ok = is_ok(result.flags)
        refine = self.settings.network.refine
        result.meta["network"] = {**known.describe(), "refine": int(refine), "unlike_training": words}
        return result

    def look(self, stack, bare, fit, observation):
        """Choose the network for one image, and let it draw the source.

        Parameters
        ----------
        stack : `~lenssr.model.image_stack.ImageStack`
            Holding the one image.
        bare : `~lenssr.model.scene.Scene`
        fit : `~lenssr.model.fit.SceneFit`
        observation : `~lenssr.imaging.Observation`

        Returns
        -------
        look : `Look`
        """
        below = _light_below(stack, bare, fit)
        image, variance = arcs(stack, below)
        seen = image_properties(observation, image, variance)
        known = next((one for one in self.networks if not one.out_of_domain(seen)), self.networks[-1])
        guide = fit.lensed_source if self.fits_first else None
        pen = Pen(known.network.to(stack.device), stack, bare, fit.physical, seen["psf_fwhm"], guide)
        drawn, unit = pen(image, variance)
        if not self.fits_first and bare.of_role("sky"):
            off, fit = _with_sky(stack, bare, fit, pen.lensed(drawn, unit))
            if off:
                below = _light_below(stack, bare, fit)
                drawn, unit = pen(*arcs(stack, below))
        return Look(known, seen, pen, below, fit, drawn, unit)


@dataclass(frozen=True)
class Look:
    """What a network saw of one image, and what it drew.

    Attributes
    ----------
    known : `~lenssr.networks.domain.TrainedNetwork`
        Which network it was.
    seen : dict of str to float
        Of `~lenssr.networks.domain.image_properties`.
    pen : `Pen`
    below : `torch.Tensor`, shape (1, ny * nx)
        Sky and lens light, which were taken off, in the unit of the data.
    fit : `~lenssr.model.fit.SceneFit`
        With the sky that the source leaves.
    drawn : `~lenssr.networks.PredictedSource`
    unit : float
        Of its brightness.
    """

    known: TrainedNetwork
    seen: dict
    pen: "Pen"
    below: torch.Tensor
    fit: SceneFit
    drawn: PredictedSource
    unit: float


class Pen:
    """A network in front of one image, in single precision and units of its noise.

    Images in other units may leave the range of single precision.

    Parameters
    ----------
    network : `~lenssr.networks.RelensingNetwork`
    stack : `~lenssr.model.image_stack.ImageStack`
        Holding the one image.
    bare : `~lenssr.model.scene.Scene`
    physical : `torch.Tensor`, shape (P,)
        Its parameters.
    fwhm : float
        Of the PSF, in arcsec; 0 where there is none.
    guide : `torch.Tensor`, shape (ny * nx,), optional
        What a fit has for the arcs, in the unit of the data: the source is drawn where that would stand out
        of the noise, and where the image does not far from there. By default wherever the image does, which
        noise of a field's corners and other galaxies do, too.
    """

    def __init__(self, network, stack, bare, physical, fwhm, guide=None):
        self.guide = None if guide is None else (guide / stack.factor).reshape(1, *stack.grid.shape)
        self.network, self.operator, self.factor = network, stack.single().operator, stack.factor
        rays = bare.source_positions(stack.operator.x, stack.operator.y, physical[None])
        self.rays = [axis.float() for axis in rays]
        self.psf_sigma = fwhm * gaussian_fwhm_to_sigma

    def __call__(self, image, variance):
        """Draw the source.

        Parameters
        ----------
        image, variance : `torch.Tensor`, shape (1, ny, nx)
            As `arcs` gives them; infinite variance hides a pixel.

        Returns
        -------
        drawn : `~lenssr.networks.PredictedSource`
        unit : float
            That of its brightness.
        """
        used = variance.isfinite()
        unit = float(variance[used].mean().sqrt()) if used.any() else 1.0
        planes = (image / unit).float(), (variance.sqrt() / unit).float()
        options = {"psf_sigma": self.psf_sigma, "plane": self._plane(*planes, unit)}
        return self.network(*planes, self.operator, *self.rays, **options), unit

    def _plane(self, image, sigma, unit):
        """The grid around what the guide shows, and what else the image shows near it; None without one."""
        if self.guide is None:
            return None
        sure = significant_pixels((self.guide / unit).to(image), sigma)
        if not sure.any():
            return None
        size = self.network.side, self.network.stretch
        lit, sure = (to_rays(one, self.operator) for one in (significant_pixels(image, sigma), sure))
        plane = SourcePlane.around(*self.rays, sure, *size)
        x, y = self.rays[0] - plane.x_0[:, None], self.rays[1] - plane.y_0[:, None]
        return SourcePlane.around(*self.rays, sure | lit & (torch.hypot(x, y) < plane.half), *size)

    def lensed(self, drawn, unit):
        """Return the image of a drawn source.

        Parameters
        ----------
        drawn : `~lenssr.networks.PredictedSource`
        unit : float

        Returns
        -------
        image : `torch.Tensor`, shape (1, ny * nx)
            In the unit of the data.
        """
        return drawn.image(self.operator, *self.rays).double().flatten(1) * (unit * self.factor)


def _light_below(stack, bare, fit):
    """Sky and lens light (1, N) of one image, in the unit of the data."""
    return stack.image(bare, fit.physical[None], roles=("lens_light", "sky"))


def arcs(stack, below, hidden=None):
    """What a network sees of one image: the lensed source alone.

    Parameters
    ----------
    stack : `~lenssr.model.image_stack.ImageStack`
        Holding the one image.
    below : `torch.Tensor`, shape (1, ny * nx)
        Sky and lens light, in the unit of the data.
    hidden : `torch.Tensor` of bool, shape (1, ny, nx), optional
        Pixels that the variance may not know of; none by default.

    Returns
    -------
    image : `torch.Tensor`, shape (1, ny, nx)
        Flux per pixel.
    variance : `torch.Tensor`, shape (1, ny, nx)
        Infinite where the image is masked.
    """
    shape = (1, *stack.grid.shape)
    valid = stack.valid.reshape(shape)
    seen = valid if hidden is None else valid & ~hidden
    variance = variance_from_neighbours(stack.data.reshape(shape), stack.noise, seen) / stack.factor**2
    image = torch.where(stack.valid, stack.data - below, 0) / stack.factor
    return image.reshape(shape), variance.masked_fill(~valid, torch.inf)


def _without_source(scene, fit):
    """The fit of a scene as that of the scene without its source."""
    keep = torch.ones(scene.size, dtype=torch.bool, device=fit.physical.device)
    for block in scene.of_role("source"):
        keep[block.slice] = False
    place = (keep.cumsum(0) - 1).tolist()
    return replace(
        fit,
        physical=fit.physical[keep],
        covariance=fit.covariance[keep][:, keep],
        terms=fit.terms.without(scene, "source"),
        at_bound=tuple(place[k] for k in fit.at_bound if keep[k]),
        rivals=[(worse, where[keep]) for worse, where in fit.rivals],
    )


def _unfitted(stack, bare, lens):
    """What is known behind a given lens without a fit: sky from the border of the images."""
    level, dark = border_level(stack), torch.zeros_like(stack.data[:, :1])
    level = level - stack.moments(dark.expand_as(stack.data))[0].mean(1)
    zeros = torch.zeros_like(stack.data)
    fits = []
    for number in range(len(stack)):
        physical = torch.cat([lens.vector.to(level), level[number : number + 1]])[: bare.size]
        covariance = torch.zeros(bare.size, bare.size, dtype=torch.float64, device=stack.device)
        planes = zeros[number], zeros[number], stack.first_weights[number]
        chi2 = float(stack.valid[number].sum())
        terms = Terms.of(bare, 1).select([0])
        fits.append(SceneFit(physical, covariance, chi2, *planes, True, (), 0, terms))
    return fits


def _with_sky(stack, bare, fit, lensed):
    """The fit with the sky that a drawn source (1, N) leaves, and whether it is another one."""
    sky = fit.physical[bare.of_role("sky")[0].start]
    mean, slope, variance = stack.moments(lensed + sky)
    weight = torch.where(stack.valid, 1 / variance.clamp_min(torch.finfo(variance.dtype).tiny), 0)
    dark = weight * (lensed * weight.sqrt() < 1)
    # Where arcs are everywhere, what they leave has to do.
    weight = dark if (dark > 0).sum() > LEAST_DARK * (weight > 0).sum() else weight
    total = (weight * slope.square()).sum()
    change = float((weight * slope * (stack.data - mean)).sum() / total)
    physical, covariance = fit.physical.clone(), fit.covariance.clone()
    place = bare.of_role("sky")[0].start
    physical[place] += change
    covariance[place, place] = 1 / total
    off = abs(change) * float(weight.max().sqrt()) > SKY_OFF
    return off, replace(fit, physical=physical, covariance=covariance)
