"""A network says where the fit of an unknown lens begins."""

import torch

from lenssr.exceptions import InputError
from lenssr.model.fit import POOR_CHI2, cost, fit_unknown_lens
from lenssr.model.initial_guess import light_start, without_light
from lenssr.networks.library import load
from lenssr.networks.variance import variance_from_neighbours

__all__ = ["SEARCH", "NetworkStart", "agreement_wanted", "start_of"]

SEARCH, NETWORK = "search", "network"
WEIGHTS = "deflection"
# A fit that leaves more than noise is believed while it ends within so many standard deviations of what the
# network says, all parameters together: two that know nothing of each other agree.
AGREES = 5.0
# One that leaves arcs, within so many: there a Sérsic moves the lens for what it cannot do, and a look with a
# free source takes but a second or two. Of seven parameters that agree, one in four lies off by more.
AGREES_NEARLY = 3.0
# Where arcs are, how many standard deviations more than noise makes of chi2 a Sérsic may leave there, and a
# reduced chi2 that is so far from a Sérsic's that nothing makes its lens credible.
ARC_SIGMA, LEFT_SIGMA, HOPELESS_CHI2 = 3.0, 4.0, 15.0


def start_of(option):
    """What an option ``start`` stands for.

    Parameters
    ----------
    option : str or path
        "search", "network", or a file of weights.

    Returns
    -------
    start : `NetworkStart` or None
        None for the search.

    Raises
    ------
    InputError
        If the weights are those of another network.
    """
    return None if option == SEARCH else NetworkStart(WEIGHTS if option == NETWORK else option)


class NetworkStart:
    """Fit an unknown lens from where a `~lenssr.networks.DeflectionNetwork` sees it.

    Parameters
    ----------
    weights : str or path
    """

    def __init__(self, weights):
        try:
            self.network, _ = load(weights, kind="DeflectionNetwork")
        except InputError as error:
            raise InputError(f"start: {error}") from error
        self.network.requires_grad_(False)

    def fit(self, stack, scene, lens_start, centre_bound):
        """Fit as `~lenssr.model.fit.fit_unknown_lens` does, which helps where the end is in doubt.

        Parameters
        ----------
        stack, scene, lens_start, centre_bound
            As there.

        Returns
        -------
        fits : list of `~lenssr.model.fit.SceneFit`
            Each says what found its lens, and where else a source that is free on a grid should look.
        """
        estimate = self.estimate(stack, scene)
        starts = _with_origin(estimate.likely())
        fits = fit_unknown_lens(stack, scene, lens_start, centre_bound=centre_bound, starts=starts)
        for fit in fits:
            fit.start = NETWORK
        doubted = self._doubted(scene, fits, estimate)
        if doubted:
            # Coarse pixels tell whether the network errs.
            options = {"centre_bound": centre_bound, "beside": [fits[number] for number in doubted]}
            others = fit_unknown_lens(stack.select(doubted), scene, lens_start, **options)
            for number, other in zip(doubted, others, strict=True):
                fits[number] = min(fits[number], other, key=lambda fit: cost(scene, fit))
        distances = self._distances(scene, fits, estimate)
        for number, (fit, distance) in enumerate(zip(fits, distances, strict=True)):
            if distance > agreement_wanted(fit, stack.data[number]):
                fit.elsewhere = [starts[number, 0].to(fit.physical)]
        return fits

    @torch.no_grad()
    def estimate(self, stack, scene):
        """`~lenssr.networks.LensEstimate` of all images, the light of the lens and the sky taken off."""
        shape = (len(stack), *stack.grid.shape)
        valid = stack.valid.reshape(shape)
        arcs = without_light(stack, scene, light_start(stack, scene)).reshape(shape)
        variance = variance_from_neighbours(stack.data.reshape(shape), stack.noise, valid)
        # Other units may leave the range of single precision.
        unit = torch.where(valid, variance, 0).mean((-2, -1), keepdim=True).sqrt()
        sigma = (variance.sqrt() / unit).masked_fill(~valid, torch.inf)
        network = self.network.to(stack.device)
        return network((arcs / unit).float(), sigma.float(), stack.grid.pixel_scale)

    def _distances(self, scene, fits, estimate):
        vectors = torch.stack([fit.physical[scene.blocks[0].slice] for fit in fits])[:, :7]
        return estimate.distance(vectors.to(estimate.free)).tolist()

    def _doubted(self, scene, fits, estimate):
        lens, distances = scene.blocks[0], self._distances(scene, fits, estimate)
        return [
            number
            for number, fit in enumerate(fits)
            if any(k < lens.stop for k in fit.at_bound)
            or (distances[number] > AGREES and fit.chi2 > POOR_CHI2 * float((fit.weight > 0).sum()))
        ]


def _with_origin(vectors):
    """Parameters (B, S, 7) with the origin of the shear, (B, S, 9)."""
    return torch.cat([vectors, torch.zeros_like(vectors[..., :2])], -1).double()


def agreement_wanted(fit, data):
    """Within how many standard deviations of the network a fit is believed without a look by a free source.

    Parameters
    ----------
    fit : `~lenssr.model.fit.SceneFit`
    data : `torch.Tensor`, shape (N,)

    Returns
    -------
    agreement : float
        The less, the more of the arcs the fit leaves.
    """
    arcs = fit.lensed_source * fit.weight.sqrt() > ARC_SIGMA
    chi2, number = float((fit.weight * (data - fit.model) ** 2)[arcs].sum()), int(arcs.sum())
    if chi2 > HOPELESS_CHI2 * number:
        return 0.0
    return AGREES_NEARLY if chi2 > number + LEFT_SIGMA * (2 * number) ** 0.5 else AGREES
