"""Bounds and priors of a fit: the user's, those of profiles, and weak ones on a lens that is unknown."""

from dataclasses import dataclass, replace

import torch

from lenssr.light.profile import FAINTEST

__all__ = ["Constraints"]

# Standard deviations of the priors on an unknown lens: wide against what arcs of any quality say, narrow
# enough that a lens which only mimics the halo of its galaxy does not win. Ellipticities of lens galaxies
# scatter by 0.1-0.2 (Bolton et al. 2008, ApJ 682, 964), external shears by 0.05 (Keeton et al. 1997,
# ApJ 482, 604).
LENS_PRIORS = {"e1": 0.2, "e2": 0.2, "gamma1": 0.1, "gamma2": 0.1, "x_0": 0.1, "y_0": 0.1}
# How far shapes and centres may move while the Einstein radius is still being found.
NARROW = {"e1": 0.25, "e2": 0.25, "gamma1": 0.1, "gamma2": 0.1, "x_0": 0.1, "y_0": 0.1}


@dataclass(frozen=True)
class Constraints:
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
        """Return the constraints on a device."""
        return Constraints(*(part.to(device) for part in self._parts))

    def select(self, index):
        """Constraints of some problems of the batch."""
        return Constraints(*(part[index] for part in self._parts))

    def without(self, scene, role):
        """Constraints of `Scene.without`: those that are left when ``scene`` loses the blocks of a role."""
        kept = scene.keep(role)
        return Constraints(*(part[:, kept] for part in self._parts))

    @property
    def _parts(self):
        return self.lower, self.upper, self.mean, self.stiffness

    def with_light_priors(self, scene, physical):
        """Constraints with the priors that the profiles of the lens light ask for, around a start (B, P)."""
        mean, stiffness = self.mean.clone(), self.stiffness.clone()
        start = torch.where(scene.log, physical.clamp_min(FAINTEST).log(), physical)
        for block in scene.lights:
            sigma = torch.tensor(block.profile.prior, dtype=mean.dtype, device=mean.device)
            mean[:, block.slice] = torch.where(sigma.isfinite(), start[:, block.slice], mean[:, block.slice])
            stiffness[:, block.slice] = sigma**-2
        return replace(self, mean=mean, stiffness=stiffness)

    def centred_on(self, scene, centres, reach):
        """Constraints of an unknown lens: within ``reach`` arcsec of a centre (B, 2), with weak priors."""
        lower, upper, mean, stiffness = (part.clone() for part in self._parts)
        columns = scene.lens_centre_columns
        lower[:, columns], upper[:, columns], mean[:, columns] = centres - reach, centres + reach, centres
        source = scene["source"]
        tables = [(scene["lens"], LENS_PRIORS), (source, source.profile.shape_priors if source else {})]
        for block, priors in tables:
            for column, sigma in _free_columns(scene, block, priors):
                stiffness[:, column] = sigma**-2
        return Constraints(lower, upper, mean, stiffness)

    def narrowed(self, scene, start):
        """Constraints that keep a lens near its start (B, P), where far-off modes cannot tempt it."""
        lower, upper = self.lower.clone(), self.upper.clone()
        for column, reach in _free_columns(scene, scene["lens"], NARROW):
            lower[:, column] = torch.maximum(lower[:, column], start[:, column] - reach)
            upper[:, column] = torch.minimum(upper[:, column], start[:, column] + reach)
        return replace(self, lower=lower, upper=upper)

    def binding(self, scene, place, within):
        """Whether a lens ends where `narrowed` has put a bound, not where another has.

        Parameters
        ----------
        scene : `~lenssr.model.scene.Scene`
        place : `torch.Tensor`, shape (B, P)
            Where it ends.
        within : Constraints
            What was narrowed.

        Returns
        -------
        binding : `torch.Tensor` of bool, shape (B,)
        """
        columns = [column for column, _ in _free_columns(scene, scene["lens"], NARROW)]
        below = (place <= self.lower) & (self.lower > within.lower)
        above = (place >= self.upper) & (self.upper < within.upper)
        return (below | above)[:, columns].any(dim=1)

    def widened(self, scene, place, within):
        """Constraints that let a lens as far from another place (B, P) as `narrowed` does from its start."""
        lower, upper = self.lower.clone(), self.upper.clone()
        near = within.narrowed(scene, place)
        for column, _ in _free_columns(scene, scene["lens"], NARROW):
            lower[:, column] = torch.minimum(lower, near.lower)[:, column]
            upper[:, column] = torch.maximum(upper, near.upper)[:, column]
        return replace(self, lower=lower, upper=upper)


def _free_columns(scene, block, table):
    """Columns of a block's free parameters that a table names, each with its entry; a block may be None."""
    for name, entry in table.items() if block is not None else ():
        for column in block.columns(name):
            if bool(scene.free[column]):
                yield column, entry
