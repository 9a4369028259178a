"""What a fit is told besides the data: bounds, and weak priors on a lens that nobody has described."""

from dataclasses import dataclass, replace

import torch

from lenssr.light.profile import FAINTEST

__all__ = ["Terms"]

# Standard deviations of the priors on an unknown lens: wide against what arcs of any quality say, narrow
# enough that a lens which only mimics the halo of its galaxy does not win. Ellipticities of lens galaxies
# scatter by 0.1-0.2 (Bolton et al. 2008, ApJ 682, 964), external shears by 0.05 (Keeton et al. 1997,
# ApJ 482, 604).
LENS_PRIORS = {"e1": 0.2, "e2": 0.2, "gamma1": 0.1, "gamma2": 0.1, "x_0": 0.1, "y_0": 0.1}
SOURCE_PRIORS = {"e1": 0.3, "e2": 0.3}
# How far shapes and centres may move while the Einstein radius is still being found.
NARROW = {"e1": 0.25, "e2": 0.25, "gamma1": 0.1, "gamma2": 0.1, "x_0": 0.1, "y_0": 0.1}


@dataclass(frozen=True)
class Terms:
    """Bounds and Gaussian priors on the physical vectors of a batch.

    Attributes
    ----------
    lower, upper : `torch.Tensor`, shape (B, P)
    mean, stiffness : `torch.Tensor`, shape (B, P)
        Mean and inverse variance of the priors; an inverse variance of 0 is none. Where a scene fits the
        logarithm of a parameter, they are those of the logarithm.
    """

    lower: torch.Tensor
    upper: torch.Tensor
    mean: torch.Tensor
    stiffness: torch.Tensor

    @classmethod
    def of(cls, scene, count):
        """The bounds of a scene, and no priors."""
        lower, upper = scene.bounds(count)
        return cls(lower, upper, torch.zeros_like(lower), torch.zeros_like(lower))

    def on(self, device):
        """Return the terms on a device."""
        return Terms(*(part.to(device) for part in (self.lower, self.upper, self.mean, self.stiffness)))

    def select(self, index):
        """The terms of some problems of the batch."""
        return Terms(*(part[index] for part in (self.lower, self.upper, self.mean, self.stiffness)))

    def lit(self, scene, physical):
        """Terms with the priors that the profiles of the lens light ask for, around a start (B, P)."""
        mean, stiffness = self.mean.clone(), self.stiffness.clone()
        start = torch.where(scene.log, physical.clamp_min(FAINTEST).log(), physical)
        for block in scene.of_role("lens_light"):
            sigma = torch.tensor(block.profile.prior, dtype=mean.dtype, device=mean.device)
            mean[:, block.slice] = torch.where(sigma.isfinite(), start[:, block.slice], mean[:, block.slice])
            stiffness[:, block.slice] = sigma**-2
        return replace(self, mean=mean, stiffness=stiffness)

    def without(self, scene, role):
        """Terms for the scene that is left when all blocks of a role are taken out of ``scene``."""
        kept = torch.ones(scene.size, dtype=torch.bool, device=self.mean.device)
        for block in scene.of_role(role):
            kept[block.slice] = False
        return Terms(*(part[:, kept] for part in (self.lower, self.upper, self.mean, self.stiffness)))

    def near(self, scene, centres, reach):
        """Terms for an unknown lens: within ``reach`` of a centre (B, 2), with the weak priors."""
        lower, upper, mean, stiffness = (
            part.clone() for part in (self.lower, self.upper, self.mean, self.stiffness)
        )
        columns = scene.lens_centre_columns
        lower[:, columns], upper[:, columns], mean[:, columns] = centres - reach, centres + reach, centres
        for role, priors in (("lens", LENS_PRIORS), ("source", SOURCE_PRIORS)):
            for column, sigma in _columns(scene, role, priors):
                stiffness[:, column] = sigma**-2
        return Terms(lower, upper, mean, stiffness)

    def narrowed(self, scene, start):
        """Terms that keep a lens near its start, where far-off optima cannot tempt it."""
        lower, upper = self.lower.clone(), self.upper.clone()
        for column, reach in _columns(scene, "lens", NARROW):
            lower[:, column] = torch.maximum(lower[:, column], start[:, column] - reach)
            upper[:, column] = torch.minimum(upper[:, column], start[:, column] + reach)
        return replace(self, lower=lower, upper=upper)

    def hold(self, scene, place, within):
        """Whether a lens ends where `narrowed` has put a bound, not where another has.

        Parameters
        ----------
        scene : `~lenssr.model.scene.Scene`
        place : `torch.Tensor`, shape (B, P)
            Where it ends.
        within : Terms
            What was narrowed.

        Returns
        -------
        held : `torch.Tensor` of bool, shape (B,)
        """
        columns = [column for column, _ in _columns(scene, "lens", NARROW)]
        below = (place <= self.lower) & (self.lower > within.lower)
        above = (place >= self.upper) & (self.upper < within.upper)
        return (below | above)[:, columns].any(dim=1)

    def reaching(self, scene, place, within):
        """Terms that let a lens as far from another place (B, P) as `narrowed` does from its start."""
        lower, upper = self.lower.clone(), self.upper.clone()
        near = within.narrowed(scene, place)
        for column, _ in _columns(scene, "lens", NARROW):
            lower[:, column] = torch.minimum(lower, near.lower)[:, column]
            upper[:, column] = torch.maximum(upper, near.upper)[:, column]
        return replace(self, lower=lower, upper=upper)


def _columns(scene, role, table):
    """Columns of free parameters whose names a table knows, with its entry."""
    for block in scene.of_role(role):
        for column, name in enumerate(block.names, start=block.start):
            value = next((entry for stem, entry in table.items() if name.startswith(stem)), None)
            if value is not None and bool(scene.free[column]):
                yield column, value
