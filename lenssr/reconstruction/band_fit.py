"""One band of a lens, in one or several exposures, as the joint fit of all bands takes it."""

from dataclasses import replace

import numpy as np

from lenssr.reconstruction import decisions
from lenssr.reconstruction.freeform_fit import (
    COARSE_GAIN,
    MOST_TO_BEGIN,
    RADIUS,
    FreeFormFit,
    moments_of,
    steep_light,
)
from lenssr.source import Prior, Request, View
from lenssr.source.batching import alone

__all__ = ["BandFit", "Inversion"]

KIND = "pixelated"


class Inversion:
    """Where one band is: its `~lenssr.source.Problem` and `~lenssr.source.Solution`."""

    def __init__(self, problem, solution):
        self.problem, self.solution = problem, solution

    @property
    def count(self):
        """Number of free parameters of the scene, before those of exposures."""
        return len(self.problem.scene.free_index)

    @property
    def of_views(self):
        """Pointings and skies of exposures, in the order of the problem."""
        return self.solution.parameters[self.count :]

    @property
    def physical(self):
        """Parameters (P,) of the scene."""
        return self.problem.physical(self.solution.parameters)[0]

    @property
    def model(self):
        """Expected data (N,) of all exposures."""
        return self.problem.predict(self.solution.values, self.solution.parameters)

    def pointing(self, number, *, first_is_free):
        """Columns of the pointing of an exposure among the parameters; None where it is known."""
        column = self.count + 2 * first_is_free
        if number == 0:
            return slice(self.count, column) if first_is_free else None
        each = 2 + self.problem.sky_free
        start = column + (number - 1) * each + self.problem.sky_free
        return slice(start, start + 2)

    def arcs(self, region=None):
        """Which pixels (N,) show arcs, and the sum and number of chi2 there."""
        problem, solution = self.problem, self.solution
        if region is None:
            light = problem.lensed_source(solution.values, solution.parameters)
            region = light * np.sqrt(problem.weight) > decisions.ARC_SIGMA
        chi2 = problem.weight * (problem.data - self.model) ** 2
        return region, float(chi2[region].sum()), int(region.sum())

    @property
    def pull_of_lens(self):
        """Mean squared z-score of the lens by its own priors."""
        mean, stiffness = self.problem.parameter_prior
        pulls = stiffness * (self.solution.parameters - mean) ** 2
        return float(pulls[: self.problem.scene.count("lens")].mean())

    @property
    def signal(self):
        """Signal-to-noise of the lensed source."""
        light = self.problem.lensed_source(self.solution.values, self.solution.parameters)
        return float(np.sqrt((self.problem.weight * light**2).sum()))


class _Beside:
    """Another exposure of a band: its stacks, and variances without the temperature."""

    def __init__(self, stack, band, pointing):
        self.stacks, self.pointing = {True: stack, False: stack.sparser()}, pointing
        self.light_stack = steep_light(stack, band.bare, band.physical[None], band.settings)
        self.renew(stack.image(band.scene, band.fit.physical[None])[0].numpy())

    def renew(self, model):
        """Take the weights from the model of the image (N,)."""
        stack = self.stacks[True]
        variance, self.offset = moments_of(stack, model)
        self.weight = np.where(stack.valid[0].numpy(), 1 / variance, 0.0)


class BandFit(FreeFormFit):
    """The way of one band from its parametric fit to its part of a joint fit.

    ``stacks`` and ``observations`` are those of its exposures; ``fit`` and everything else that is parametric
    is of the first. ``pointings`` are the standard deviations of their places in the frame, 0 where it is
    known.
    """

    def __init__(self, stacks, scene, fit, observations, settings, *, pointings, radius=RADIUS):
        super().__init__(stacks[0], scene, fit, observations[0], settings, radius=radius)
        self.observations, self.pointings, self.down = observations, pointings, 1.0
        self.beside = [
            _Beside(stack, self, pointing) for stack, pointing in zip(stacks[1:], pointings[1:], strict=True)
        ]

    def views(self, stack):
        """All exposures, with rays as those of a stack of the first."""
        (first,) = super().views(stack)
        found = [replace(first, pointing=self.pointings[0])]
        for one in self.beside:
            weight = one.weight / self.temperature
            rays = one.stacks[stack is self.stack]
            found.append(View(rays, one.light_stack, weight, one.offset, one.pointing))
        return found

    def share(self, reference, tie):
        """Take the priors and bounds of the lens from another band, and hold the lens light at its centre.

        ``tie`` is the standard deviation of the distance of both centres, in arcsec.
        """
        part = self.parts[KIND]
        mine = [one.clone() for one in vars(part.constraints).values()]
        lens = part.scene["lens"].slice
        for own, other in zip(mine, vars(reference.parts[KIND].constraints).values(), strict=True):
            own[:, lens] = other[:, lens]
        _, _, mean, stiffness = mine
        pairs = zip(part.scene.lights, reference.parts[KIND].scene.lights, strict=True)
        for block, other in pairs:
            for here, there in zip(block.profile.centre, other.profile.centre, strict=True):
                if part.scene.free[block.start + here]:
                    mean[:, block.start + here] = reference.physical[other.start + there]
                    stiffness[:, block.start + here] = tie**-2
        self.parts[KIND] = replace(part, constraints=type(part.constraints)(*mine))

    def is_bound(self, found):
        """Whether the lens of an inversion ends where only its distance from the parametric fit stops it."""
        part = self.parts[KIND]
        return bool(part.constraints.binding(part.scene, found.physical[None], self._within))

    def widen(self, found):
        """Let the lens go as far from where an inversion has it as it could from the parametric fit."""
        part = self.parts[KIND]
        constraints = part.constraints.widened(part.scene, found.physical[None], self._within)
        self.parts[KIND] = replace(part, constraints=constraints)

    @property
    def _within(self):
        return self.fit.constraints.without(self.scene, "source")

    def behind_held_lens(self):
        """The `Inversion` on a coarse grid, the lens held, with the likeliest prior."""
        side = min(self._coarse_grid().side, MOST_TO_BEGIN)
        _, problem, solution = alone(self._compare(KIND, self.grid.refined(side)))
        return Inversion(problem, solution)

    def at_temperature_of(self, other):
        """Let chi2 count as it does for another fit of the same band."""
        self.weight = self.weight * (self.temperature / other.temperature)
        self.temperature, self.excess = other.temperature, other.excess

    def measure_temperature(self, found):
        """Let chi2 count less where noise is correlated or beyond its errors, by what an inversion leaves."""
        self._set_temperature(found.problem, found.solution)

    def weigh_down(self, factor):
        """Let chi2 count less by a factor, as if errors were larger."""
        self.temperature, self.weight = self.temperature * factor, self.weight / factor
        self.excess, self.down = self.excess * factor**0.5, self.down * factor

    def renew_weights(self, found):
        """Take the weights from the model, where noise depends on it and the parametric one is no guide.

        Returns whether they have changed.
        """
        if self.stack.gaussian or not self._explains_more(found):
            return False
        parts = np.split(
            found.model, np.cumsum([len(self.weight)] + [len(one.weight) for one in self.beside])
        )
        shown, (variance, self.offset) = self.weight > 0, moments_of(self.stack, parts[0])
        self.weight = np.where(shown, 1 / (self.temperature * variance), 0.0)
        for one, model in zip(self.beside, parts[1:], strict=False):
            one.renew(model)
        return True

    def _explains_more(self, found):
        first, problem = slice(0, len(self.weight)), found.problem
        chi2 = (problem.weight[first] * (problem.data[first] - found.model[first]) ** 2).sum()
        gain = self.fit.chi2 / self.temperature - chi2
        return gain >= decisions.BETTER_THAN_PARAMETRIC * found.solution.nearly_determined

    def request(self, found, *, free, **options):
        """A `~lenssr.source.Request` to go on from, with present weights; the lens free or held."""
        scene = self.parts[KIND].scene
        scene = scene if free else scene.with_lens_held()
        physical, solution = found.physical, found.solution
        grid = found.problem.grid_at(solution.parameters)
        problem = self.problem(KIND, scene, physical, grid)
        parameters = np.concatenate([scene.to_fit(physical[None])[0].numpy(), found.of_views])
        options = {**solution.options, **options}
        return Request(problem, solution.prior, solution.strength, solution.field, parameters, options)

    def finer_request(self, found, **options):
        """The same on the fine grid."""
        solution = found.solution
        coarse = found.problem.grid_at(solution.parameters)
        fine = coarse.refined(self.grid.side)
        # Nodes on the rim of both grids are inside but for rounding.
        rim, centre = coarse.half * (1 - 1e-12), (coarse.x_0, coarse.y_0)
        nodes = [np.clip(axis, at - rim, at + rim) for axis, at in zip(fine.nodes, centre, strict=True)]
        field = coarse.matrix(*nodes) @ solution.field
        problem = self.problem(KIND, found.problem.scene, found.physical, fine)
        prior = Prior(solution.prior.name, fine.side)
        strength = solution.strength * solution.prior.finer(fine.side)
        options = {**solution.options, **options}
        return Request(problem, prior, strength, field, solution.parameters, options)


COARSE = {"tolerance": COARSE_GAIN}
