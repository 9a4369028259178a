"""The fine images of a free-form source, with errors and draws from its posterior."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from lenssr.model.scene import Scene
from lenssr.reconstruction.fine_images import FineScene, Products, fine_operator, source_ccd, surroundings
from lenssr.source import GridMotion, SourceGrid, SourceRays
from lenssr.source.evidence import LEAST_INFORMATION, information

SAMPLES, AT_ONCE = 64, 16  # draws that give the errors, and the number in memory at a time
FINEST_SOURCE = 120  # pixels along a side
# Points along a side of a cell of the source's grid, to integrate over it.
CELL_POINTS = 4


@dataclass(frozen=True)
class FreeForm:
    """A free-form source of n nodes, and lens, lens light and sky (1, P), where an inversion ended.

    ``slope`` (n,) are the derivatives of the node ``values`` with respect to the field.
    """

    grid: SourceGrid
    scene: Scene
    physical: Tensor
    values: NDArray
    slope: NDArray
    motion: GridMotion

    def rays(self, x: ArrayLike, y: ArrayLike) -> SourceRays:
        """Rays that land at x and y, each (R,), on the grid of the source."""
        block = self.scene["source"]
        sersic = None if block is None else self.physical[0, block.slice]
        return self.grid.rays(torch.as_tensor(x), torch.as_tensor(y), sersic)


class FineView:
    """A free-form source on fine pixels, with and without the lens, and how both change.

    ``options`` are ``scale``, ``oversampling`` and ``psf_out``.
    """

    def __init__(self, state, observation, options):
        self.state, self.observation = state, observation
        scene = state.scene
        empty = torch.zeros(scene.size, scene.size, dtype=torch.float64)
        # The light of the lens has rays of its own, where it is steep; the source keeps plain ones.
        self.fine = FineScene(scene, state.physical[0], empty, observation, **options)
        self.operator = fine_operator(observation, **options)
        self.rays, self.grid = self._trace(self.operator.x, self.operator.y), _even(state.grid)
        self.matrix = self.rays.matrix()

    def _trace(self, x, y):
        """`~lenssr.source.SourceRays` of places in the image."""
        state = self.state
        return state.rays(*(axis[0] for axis in state.scene.source_positions(x, y, state.physical)))

    def image(self, values):
        """Fine images (..., ny, nx) of brightness at the rays, (..., R)."""
        return (self.operator(torch.as_tensor(values)) * self.fine.factor).numpy()

    def changes(self, draws: NDArray) -> Iterator[tuple[NDArray, NDArray, NDArray]]:
        """Changes of scene, source and lens light (k, ny, nx) with vectors (n + K, m), k at a time."""
        count = len(self.state.values)
        # Skies and pointings of exposures, which follow those of the scene, change nothing in the scene.
        last = count + len(self.state.scene.free_index)
        for start in range(0, draws.shape[1], AT_ONCE):
            nodes, parameters = (
                draws[first:end, start : start + AT_ONCE] for first, end in ((0, count), (count, last))
            )
            change = (self.matrix @ (self.state.slope[:, None] * nodes)).T
            of_source = self.image(change + parameters[: len(self._moved)].T @ self._moved)
            of_light = self._light_change(parameters)
            sky = parameters[self.state.scene.fit_rows("sky").numpy()].sum(0) * self.fine.sky_factor
            everything = of_source + of_light + sky[:, None, None]
            yield everything, of_source, np.broadcast_to(of_light, of_source.shape)

    @cached_property
    def _moved(self):
        """Derivatives (L, R) of the brightness at the rays by the free parameters of lens and source."""
        return self._moved_at(self.rays, self._bent(self.operator.x, self.operator.y))

    def _bent(self, x, y):
        """Derivatives of the deflection of rays by the free parameters of the lens, along x and y."""
        scene = self.state.scene
        if not scene.lens_moves:
            return 0.0, 0.0
        *_, d_x, d_y = scene.lens.deflection_jacobian_at(x, y, self.state.physical[:, scene["lens"].slice])
        return d_x[0, scene.free_of("lens")].numpy(), d_y[0, scene.free_of("lens")].numpy()

    def _moved_at(self, rays, bent=(0.0, 0.0)):
        """Derivatives (L, M) of the brightness of rays by the free parameters of lens and source."""
        state, columns = self.state, [np.zeros((0, len(rays.x)))]
        if state.scene.lens_moves:
            carried = state.motion.at(state.grid, rays.x, rays.y, state.scene.free_of("lens"))
            moves = zip(rays.slope(torch.as_tensor(state.values)), bent, carried, strict=True)
            columns.append(-sum(slope.numpy() * (by + grid.numpy()) for slope, by, grid in moves))
        return np.concatenate([*columns, self._modulated_at(rays)])

    def _modulated_at(self, rays):
        """Derivatives (S, M) of the brightness by the free parameters of a Sérsic in the source."""
        state, block = self.state, self.state.scene["source"]
        if block is None:
            return np.zeros((0, len(rays.x)))
        slopes = rays.sersic_slopes(torch.as_tensor(state.values), state.scene.log[block.slice])
        return slopes[state.scene.free_of("source")].numpy()

    def _light_change(self, parameters):
        fine, rows = self.fine, self.state.scene.fit_rows("lens_light")
        if not rows.any():
            return np.zeros(1)
        operator = fine.operator
        slopes = fine.scene.light_jacobian(operator.x, operator.y, self.state.physical, cusp=fine.cusp)[0]
        return (operator(torch.as_tensor(parameters)[rows].T @ slopes) * fine.factor).numpy()

    def source(self, values):
        """The source on even pixels (side, side) of node values (n,), the lens taken off."""
        return (self._even_rays.matrix() @ values).reshape(self.grid.side, self.grid.side)

    @cached_property
    def _even_rays(self):
        return self.state.rays(*self.grid.nodes)

    def source_changes(self, draws):
        """Changes (m, side, side) of the source with vectors (n + K, m) of field and parameters."""
        count = len(self.state.values)
        changes = self._even_rays.matrix() @ (self.state.slope[:, None] * draws[:count])
        columns = self._moved_at(self._even_rays)
        changes = changes + columns.T @ draws[count : count + len(columns)]
        return changes.T.reshape(-1, self.grid.side, self.grid.side)

    def errors(self, draws, widening, off=None):
        """Errors of scene, source and lens light, and of the source without lens, from draws (n + K, m)."""

        def squares(vectors):
            images = sum(
                np.stack([(change**2).sum(0) for change in changes]) for changes in self.changes(vectors)
            )
            return [*images, (self.source_changes(vectors) ** 2).sum(0)]

        variances = [widening**2 / draws.shape[1] * total for total in squares(draws)]
        if off is not None:
            variances = [sum(pair) for pair in zip(variances, squares(off[:, None]), strict=True)]
        return [np.sqrt(variance) for variance in variances]

    def magnification(self, factor, widening):
        """Total magnification and its standard deviation; both fluxes are sums over the nodes."""
        state = self.state
        *beside, area = surroundings(self.observation.grid)
        x, y = (torch.as_tensor(axis) for axis in beside)
        rays = self._trace(x, y)
        share = (self.operator.shares[1] * self.operator.inside).numpy()
        seen = self.matrix.T @ share + rays.matrix().T @ area
        *points, weights = _cells(state.grid)
        cells = state.rays(*points)
        shines = cells.matrix().T @ weights
        flux = shines @ state.values
        value = (seen @ state.values) / flux
        gradient = np.zeros(factor.size)
        gradient[: factor.count] = state.slope * (seen - value * shines) / flux
        moved = self._moved @ share + self._moved_at(rays, self._bent(x, y)) @ area
        if state.scene.lens_moves:  # the flux of a source grows with its grid
            growth = state.motion.growth[state.scene.free_of("lens")].numpy()
            moved[: len(growth)] -= value * 2 * growth * flux
        modulated = self._modulated_at(cells) @ weights
        moved[len(moved) - len(modulated) :] -= value * modulated
        gradient[factor.count : factor.count + len(moved)] = moved / flux
        variance = float(gradient @ factor.solve(gradient[:, None])[:, 0])
        return float(value), widening * np.sqrt(max(variance, 0.0))


def _even(grid):
    """Even pixels over the grid of a source, as fine as its nodes where they are closest."""
    side = min(round(2 * grid.half / grid.spacing) + 1, FINEST_SOURCE)
    return replace(grid, side=side, stretch=0.0, half=grid.half * (1 - 1e-12))


def _cells(grid):
    """Points x, y in all cells of a source's grid, and their weights (M,) in an integral over it."""
    nodes, weights = np.polynomial.legendre.leggauss(CELL_POINTS)
    step = np.diff(grid.offsets)
    line = (grid.offsets[:-1, None] + step[:, None] * (nodes + 1) / 2).ravel()
    share = (step[:, None] * weights / 2).ravel()
    y, x = np.meshgrid(line + grid.y_0, line + grid.x_0, indexing="ij")
    return x.ravel(), y.ravel(), np.outer(share, share).ravel()


class FreeFormPosterior:
    """Draws of image and free-form source; the images are made when they are asked for.

    The `~lenssr.source.Factor` is kept in single precision, which is enough for draws.
    """

    def __init__(self, state, factor, observation, options, widening):
        self.state, self.observation, self.options, self.widening = state, observation, options, widening
        self._factor = copy.copy(factor)
        self._factor.lower = factor.lower.astype(np.float32, order="F")

    def changes(self, count, rng):
        """Differences of draws from the most likely image and source, (count, ny, nx) and (count, my, mx)."""
        factor = self.factor()
        draws = self.widening * factor.sample(rng.standard_normal((count, factor.size)).T)
        view = FineView(self.state, self.observation, self.options)
        images = np.concatenate([everything for everything, *_ in view.changes(draws)])
        return images, view.source_changes(draws)

    def factor(self):
        """The `~lenssr.source.Factor`, in double precision again."""
        factor = copy.copy(self._factor)
        factor.lower = factor.lower.astype(np.float64)
        return factor


def freeform_products(problem, solution, observation, settings, widening, off=None):
    """`~lenssr.reconstruction.fine_images.Products` of a scene with a free-form source, errors from draws.

    ``widening`` is the factor of errors over those of independent noise. Where the solution is not the most
    likely one, ``off`` (n + K,) is its distance in field and parameters: errors then are root mean squares.
    """
    source, physical = (place(solution.parameters) for place in (problem.grid_at, problem.physical))
    state = FreeForm(source, problem.scene, physical, solution.values, solution.slope, problem.motion)
    options = {name: getattr(settings, name) for name in ("scale", "oversampling", "psf_out")}
    view, factor = FineView(state, observation, options), solution.factor
    grid = view.grid
    lensed = view.image(view.matrix @ state.values)
    light, sky = view.fine.image("lens_light"), view.fine.image("sky")
    known = (source.matrix(*grid.nodes) @ information(solution)).reshape(grid.side, grid.side)
    normals = np.random.default_rng(settings.seed).standard_normal((factor.size, SAMPLES))
    *errors, source_error = view.errors(factor.sample(normals), widening, off)
    place, mask = (grid.x_0, grid.y_0, grid.spacing), known < LEAST_INFORMATION
    magnification, magnification_error = view.magnification(factor, widening)
    fields = {
        "source": source_ccd(view.source(state.values), source_error, observation, *place, mask),
        "information": known,
        "posterior": FreeFormPosterior(state, factor, observation, options, widening),
        "magnification": magnification,
        "magnification_error": magnification_error,
    }
    # Several exposures determine the nodes together: the pixels of the first have their share in it.
    used = problem.weight > 0
    share = used[: observation.data.size].sum() / max(used.sum(), 1)
    parameters = share * solution.determined + state.scene.count("source")
    images = (lensed + light + sky, lensed, light)
    return Products(images, tuple(errors), view.fine.grid.wcs, view.fine.kernel, parameters, fields)
