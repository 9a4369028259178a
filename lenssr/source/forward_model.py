"""Images as functions of free-form sources and of the parameters of lens, lens light, sky and pointing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sparse
import torch
from numpy.typing import NDArray
from torch import Tensor

from lenssr.imaging.operator import ImagingOperator
from lenssr.model.scene import Scene
from lenssr.source.linalg import NormalMatrix
from lenssr.source.source_grid import GridMotion, SourceGrid

__all__ = ["ForwardModel"]

Place = tuple[Tensor, Tensor]

# Share of the curvature that is left out, in pixels, behind a PSF with a core of more than 200 cells: three
# quarters of the pixels of an HST cutout (ln evidence of a lens with 24 parameters changed by 0.4).
FAINT_SHARE, WIDE_CORE = 1e-4, 200
# Motion of the rays of the arcs, in nodes, below which the curvature is kept.
KEPT_REACH = 0.2
# Nodes above which the curvature for a step is found in single precision.
LARGE = 2000
# Nodes above which steps beside lens light are those of the whole matrix: behind one that is nearly all of it
# they end too soon (a real lens: after 6 steps, chi2 14158, and not 13910).
COARSE = 1000
LARGEST_LOG_STEP = 1.0  # of a parameter whose logarithm is fitted


class ForwardModel:
    """The images of a batch of lenses, as tensors on one device.

    All methods act on the lenses numbered ``index`` (b,), along the first dimension.

    Parameters
    ----------
    problems : sequence of `~lenssr.source.Problem`
        Of images of one shape behind one telescope, with the same parameters free and equally many nodes.
    device : `torch.device` or str, optional
        By default the CPU.
    dense : bool, optional
        Whether matrices are tensors on the device rather than bands and sparse arrays of a CPU; by default
        where it is another device.

    Attributes
    ----------
    data, weight : `torch.Tensor`, shape (B, N)
    parameter_prior : tuple of `torch.Tensor`, shape (B, K)
        Mean and inverse variance.
    bounds : tuple of `torch.Tensor`, shape (B, K)
    bright : `torch.Tensor`, shape (K,)
        Whether a parameter is the logarithm of a flux, or an amplitude, of lens light.
    reach : `torch.Tensor`, shape (K,)
        By how much one step may change the others.
    log_floor : `torch.Tensor`, shape (B,)
    size : int
        Number of nodes, n.
    everything : `torch.Tensor`, shape (B,)
        The numbers of all lenses.
    """

    def __init__(
        self, problems: Sequence[Any], device: torch.device | str = "cpu", *, dense: bool | None = None
    ) -> None:
        first, self.device = problems[0], torch.device(device)
        self.dense = self.device.type != "cpu" if dense is None else dense

        def stacked(parts: Iterable[Any]) -> Tensor:
            parts = [torch.as_tensor(part, dtype=torch.float64) for part in parts]
            return torch.stack(parts).to(self.device)

        self.data, self.weight = stacked([p.data for p in problems]), stacked([p.weight for p in problems])
        self.parameter_prior, self.bounds = (
            tuple(stacked(parts) for parts in zip(*pairs, strict=True))
            for pairs in ([p.parameter_prior for p in problems], [p.bounds for p in problems])
        )
        self.log_floor = stacked([p.log_floor for p in problems])
        self.everything = torch.arange(len(problems), device=self.device)
        self.scene, self.size = first.scene.on(self.device), first.grid.size
        self._template = torch.cat([p.template for p in problems]).to(self.device)
        self._grid = SourceGrid.batch([p.grid for p in problems], self.device)
        motions = [p.motion for p in problems]
        self._motion = GridMotion(stacked([m.drift for m in motions]), stacked([m.growth for m in motions]))
        self._views, column = list[_View](), len(self.scene.free_index)
        for number in range(len(first.views)):
            view = _View([p.views[number] for p in problems], self.scene, self.device)
            column = view.take_columns(column, own_sky=number > 0 and first.sky_free)
            self._views.append(view)
        free, unbounded = self.scene.free_index, torch.full_like(self.bounds[0][0], torch.inf)
        self.reach, self.bright = unbounded, torch.zeros_like(unbounded, dtype=torch.bool)
        self.reach[: len(free)] = torch.where(self.scene.log, LARGEST_LOG_STEP, torch.inf)[free]
        self.bright[: len(free)] = self.scene.bright[free]
        self._placed: tuple[Tensor, ...] | None = None
        self._traced: tuple[Tensor, Tensor, list[_Traced]] | None = None
        self._kept: list[Any] = [None] * len(problems)

    def __len__(self) -> int:
        return len(self.data)

    def physical(self, parameters: Tensor, index: Tensor) -> Tensor:
        """Physical vectors (b, P) of free parameters (b, K); the last answer is kept."""
        last = self._placed
        if last is None or not (torch.equal(parameters, last[0]) and torch.equal(index, last[1])):
            of_scene = parameters[:, : len(self.scene.free_index)]
            physical = self.scene.to_physical(of_scene, self._template[index])
            last = self._placed = parameters.clone(), index.clone(), physical
        return last[2]

    def predict(self, source: Tensor, parameters: Tensor, index: Tensor) -> Tensor:
        """Expected data (b, N) of node values (b, n) and free parameters (b, K)."""
        physical, sky = self.physical(parameters, index), self.scene["sky"]
        images = []
        for traced in self._trace(parameters, index):
            view, image = traced.view, traced.image_of(source)
            if self.scene.lights:
                x, y = view.light_rays(index, parameters)
                light = self.scene.brightness(x, y, physical, roles=("lens_light",))
                image = image + view.light_image(light, index)
            if view.sky_column is not None:
                image = image + parameters[:, view.sky_column, None]
            elif sky is not None:
                image = image + physical[:, sky.slice]
            images.append(image)
        return torch.cat(images, dim=-1)

    def lensed_source(self, source: Tensor, parameters: Tensor, index: Tensor) -> Tensor:
        """The source's part of the expected data, (b, N)."""
        return torch.cat([one.image_of(source) for one in self._trace(parameters, index)], dim=-1)

    def adjoint(self, values: Tensor, parameters: Tensor, index: Tensor) -> Tensor:
        """Transpose of the map from the source to data: (b, m, N) to (b, m, n)."""
        parts = values.split([view.pixels for view in self._views], dim=-1)
        pairs = zip(self._trace(parameters, index), parts, strict=True)
        sums: Any = sum(one.nodes_of(one.view.cells_behind(part)) for one, part in pairs)
        return sums

    def jacobian(self, source: Tensor, parameters: Tensor, index: Tensor) -> Tensor:
        """Derivatives (b, K, N) of the expected data."""
        traced = self._trace(parameters, index)
        return torch.cat([self._columns(one, source, parameters, index) for one in traced], dim=-1)

    @property
    def refines_steps(self) -> bool:
        """Whether steps need the whole matrix, of which `normal` is only nearly all.

        Light of a lens and of its source make up for each other nearly everywhere: what is left out between
        distant nodes is then as large as what is left over. Coarse grids do without.
        """
        return not self.dense and self.size > COARSE and bool(self.bright.any())

    def normal(
        self, parameters: Tensor, index: Tensor, *, exact: bool = False, loosely: bool = False
    ) -> list[Any]:
        """M^T W M of lenses, a list of `NormalMatrix` or (n, n).

        They are kept while the lens hardly moves, or until `forget` if ``loosely``, unless they have to be
        ``exact``.
        """
        traced, source = self._trace(parameters, index), self._sersic(self.physical(parameters, index))
        place = torch.cat([one.place() for one in traced], dim=1)
        fixed = place[:, :0] if source is None else source
        spacings = 0.0 if exact else torch.inf if loosely else KEPT_REACH
        reach = spacings * self._grid.spacing[index]
        for row, number in enumerate(index.tolist()):
            here, kept = (place[row], fixed[row]), self._kept[number]
            rough = exact and kept is not None and kept[1].dtype == np.float32
            if rough or not _is_near(here, kept, reach[row]):
                self._kept[number] = kept = None  # before the next one is made
                self._kept[number] = here, self._made(traced, row, number, exact=exact)
        return [self._kept[number][1] for number in index.tolist()]

    def forget(self, index: Tensor) -> None:
        """Make the matrices of lenses anew when they are next asked for."""
        for number in index.tolist():
            self._kept[number] = None

    def _made(self, traced: list[_Traced], row: int, number: int, *, exact: bool) -> Any:
        """M^T W M of one lens; where large in single precision, which steps can do with."""
        weights = self.weight[number].split([view.pixels for view in self._views])
        parts = list(zip(traced, weights, strict=True))
        if self.dense:
            responses = (one.view.response(one, row) * weight.sqrt() for one, weight in parts)
            return sum(response @ response.mT for response in responses)
        rough = self.refines_steps and not exact
        maps = [one.view.weighted(one.matrices[row], weight.numpy(), thin=rough) for one, weight in parts]
        both = maps[0] if len(maps) == 1 else sparse.vstack(maps, "csr")
        single = rough or (self.size > LARGE and not exact)
        return NormalMatrix(both, self._grid.side, np.float32 if single else np.float64)

    def _trace(self, parameters: Tensor, index: Tensor) -> list[_Traced]:
        """Where the rays of all views land, a list of `_Traced`; the last answer is kept."""
        physical, scene = self.physical(parameters, index), self.scene
        if self._traced is not None and physical is self._traced[0]:
            return self._traced[2]
        moving = [physical[:, scene[n].slice] for n in ("lens", "source") if scene[n] is not None]
        moving += [parameters[:, view.pointing_columns] for view in self._views]
        key = torch.cat([index[:, None].to(physical), *moving], dim=1)
        found = [] if self._traced is None or not torch.equal(key, self._traced[1]) else self._traced[2]
        if not found:
            change = (physical - self._template[index])[:, : self._motion.growth.shape[-1]]
            motion = GridMotion(self._motion.drift[index], self._motion.growth[index])
            grid = motion.applied(self._grid.select(index), change)
            size, sersic = grid.half / self._grid.half[index], self._sersic(physical)
            for view in self._views:
                x, y = scene.source_positions(*view.rays(parameters), physical)
                rays = grid.rays(x, y, sersic)
                found.append(_Traced(view, rays, grid, size, motion, sparse_maps=not self.dense))
        self._traced = physical, key, found
        return found

    def _sersic(self, physical: Tensor) -> Tensor | None:
        """Parameters (b, 7) of the Sérsic that the nodes multiply, or None."""
        return None if self.scene["source"] is None else physical[:, self.scene["source"].slice]

    def _columns(self, traced, source, parameters, index):
        """Derivatives (b, K, N_v) of one view."""
        view, scene, physical = traced.view, self.scene, self.physical(parameters, index)
        slope = traced.rays.slope(source) if scene.lens_moves or view.pointing_columns else None
        columns = []
        if scene.lens_moves:
            columns.append(view.image(self._by_lens(traced, slope, parameters, physical)))
        if scene["source"] is not None:
            slopes = traced.rays.sersic_slopes(source, scene.log[scene["source"].slice])
            columns.append(view.image(slopes[:, scene.free_of("source")]))
        if scene.lights:
            slopes = scene.light_jacobian(*view.light_rays(index, parameters), physical, cusp=view.cusp)
            columns.append(view.light_image(slopes, index))
        zero = self.data.new_zeros(len(index), 1, view.pixels)
        if scene["sky"] is not None and self.scene.count("sky"):
            columns.append(zero if view.sky_column is not None else zero + 1)
        for other in self._views:
            mine = other is view
            columns += [] if other.sky_column is None else [zero + 1 if mine else zero]
            if other.pointing_columns:
                moved = self._by_pointing(view, slope, parameters, physical, index) if mine else zero
                columns.append(moved.expand(-1, 2, -1))
        return torch.cat(columns, dim=1) if columns else zero[:, :0]

    def _by_lens(self, traced, slope, parameters, physical):
        """Derivatives (b, L, R) of the brightness at rays by the free parameters of the lens."""
        lens, keep = physical[:, self.scene["lens"].slice], self.scene.free_of("lens")
        *_, d_x, d_y = self.scene.lens.deflection_jacobian_at(*traced.view.rays(parameters), lens)
        grid_x, grid_y = traced.carried(keep)
        slope_x, slope_y = (part.unsqueeze(1) for part in slope)
        return -(slope_x * (d_x[:, keep] + grid_x) + slope_y * (d_y[:, keep] + grid_y))

    def _by_pointing(self, view, slope, parameters, physical, index):
        """Derivatives (b, 2, N_v) of an image by where its exposure points."""
        lens = physical[:, self.scene["lens"].slice]
        xx, xy, yx, yy = self.scene.lens.jacobian_at(*view.rays(parameters), lens)
        slope_x, slope_y = slope
        along = slope_x * xx + slope_y * yx, slope_y * yy + slope_x * xy
        moved = view.image(torch.stack(along, dim=1))
        x, y = view.light_rays(index, parameters)
        for block in self.scene.lights:
            _, *slopes, _ = self.scene.light_derivatives(block, x, y, physical, view.cusp)
            moved = moved + view.light_image(torch.stack(slopes, dim=1), index)
        return moved


def _is_near(here: Place, kept: tuple[Place, Any] | None, reach: Tensor) -> bool:
    """Whether rays have moved by no more than a reach, and all else not at all, since a matrix was made."""
    if kept is None:
        return False
    (place, fixed), (old, old_fixed) = here, kept[0]
    return bool((place - old).abs().amax() <= reach) and torch.equal(fixed, old_fixed)


class _Traced:
    """The rays of one view in the source planes of a batch, and the maps between nodes and cells.

    Maps are gathers, or sparse arrays (C, n) of each lens, ``matrices``, several times faster on a CPU.
    """

    def __init__(self, view, rays, grid, size, motion, *, sparse_maps):
        self.view, self.rays, self.grid, self.size, self.motion = view, rays, grid, size, motion
        self.matrices = rays.matrices(view.share, view.cells) if sparse_maps else None

    def place(self) -> Tensor:
        """Where rays lie on the grid, in arcsec of its first size, (b, 2 R)."""
        centres = ((self.rays.x, self.grid.x_0), (self.rays.y, self.grid.y_0))
        return torch.cat([(at - centre[:, None]) / self.size[:, None] for at, centre in centres], dim=1)

    def carried(self, keep: Tensor) -> tuple[Tensor, ...]:
        """Motion of rays with the grid by each free parameter of the lens, two tensors (b, L, R)."""
        return self.motion.at(self.grid, self.rays.x, self.rays.y, keep)

    def image_of(self, source: Tensor) -> Tensor:
        """Pixels (b, N_v) of node values (b, n)."""
        if self.matrices is None:
            return self.view.image(self.rays.brightness(source))
        pairs = zip(self.matrices, source.numpy(), strict=True)
        return self.view.image_of(torch.as_tensor(np.stack([matrix @ one for matrix, one in pairs])))

    def nodes_of(self, cells: Tensor) -> Tensor:
        """Transpose of the map from nodes to the flux in cells, (b, m, C) to (b, m, n)."""
        if self.matrices is None:
            values, nodes = cells[..., self.view.cell] * self.view.share, self.rays.side**2
            found = [self.rays.adjoint(one).reshape(-1, 1, nodes) for one in values.unbind(1)]
            return torch.cat([values.new_zeros(len(values), 0, nodes), *found], dim=1)
        pairs = zip(self.matrices, cells.numpy(), strict=True)
        return torch.as_tensor(np.stack([(matrix.T @ one.T).T for matrix, one in pairs]))


class _View:
    """One exposure of each lens of a batch: pixels, telescope, rays, and its columns of the parameters."""

    def __init__(self, views: Sequence[Any], scene: Scene, device: torch.device | str) -> None:
        first = views[0].stack
        self.operator = first.operator.to(torch.float64, device=device)
        self.factor, self.cusp = first.factor, views[0].light_stack.cusp
        self.cell, share = self.operator.shares
        self.share = share * self.factor
        self.cells, self.pixels = int(np.prod(self.operator.cells)), int(np.prod(self.operator.shape))
        self._lights = _LightRays([view.light_stack.operator for view in views], device)
        self._sharp, self._pointing = first.kernel is None, views[0].pointing
        self.sky_column: int | None = None
        self.pointing_columns: list[int] = []

    def take_columns(self, column: int, *, own_sky: bool) -> int:
        """Claim the free parameters from a column on that are this view's own; returns the next column."""
        if own_sky:
            self.sky_column, column = column, column + 1
        if self._pointing:
            self.pointing_columns, column = [column, column + 1], column + 2
        return column

    def rays(self, parameters: Tensor) -> tuple[Tensor, ...]:
        """Positions x, y of the rays of the source, (R,), or (b, R) where the pointing is free."""
        return self._pointed(self.operator.x, self.operator.y, parameters)

    def light_rays(self, index: Tensor, parameters: Tensor) -> tuple[Tensor, ...]:
        """Positions x, y of the rays of the lens light, each (b, R')."""
        return self._pointed(*self._lights.rays(index), parameters)

    def _pointed(self, x: Tensor, y: Tensor, parameters: Tensor) -> tuple[Tensor, ...]:
        if not self.pointing_columns:
            return x, y
        return tuple(
            axis + parameters[:, column, None]
            for axis, column in zip((x, y), self.pointing_columns, strict=True)
        )

    def image(self, values: Tensor) -> Tensor:
        """Pixels (..., N) of brightness (..., R) at the rays of the source."""
        return self.operator(values).flatten(-2) * self.factor

    def image_of(self, cells: Tensor) -> Tensor:
        """Pixels (..., N) of flux (..., C) in cells."""
        return self.operator.convolve(cells.unflatten(-1, self.operator.cells)).flatten(-2)

    def light_image(self, values: Tensor, index: Tensor) -> Tensor:
        """Pixels (b, ..., N) of brightness (b, ..., R') at the rays of the lens light."""
        return self._lights.image(values, index, self.operator) * self.factor

    def cells_behind(self, images: Tensor) -> Tensor:
        """Transpose of `image_of`, (..., N) to (..., C)."""
        return self.operator.spread(images.unflatten(-1, self.operator.shape)).flatten(-2)

    def weighted(self, matrix: sparse.csr_array, weight: NDArray, *, thin: bool = False) -> sparse.csr_array:
        """Sparse map from nodes to pixels in sigma, behind the core of the PSF, of that to cells (C, n).

        Only of pixels that count: the wings of a PSF contribute little to most of an image. ``thin`` lets
        every other pixel, as on a chessboard, stand for its neighbours too.
        """
        if thin:
            weight = 2 * weight * (np.indices(self.operator.shape).sum(0) % 2).ravel()
        light = matrix @ np.ones(matrix.shape[1])
        counts = weight * (light if self._sharp else self.operator.core_matrix @ light) ** 2
        rows, least = np.argsort(counts), 0.0
        if not self._sharp and len(self.operator.core[0]) > WIDE_CORE:
            least = FAINT_SHARE * counts.sum()
        rows = np.sort(rows[np.searchsorted(counts[rows].cumsum(), least, side="right") :])
        if self._sharp:
            return sparse.diags_array(np.sqrt(weight[rows])) @ matrix[rows]
        matrix.sum_duplicates()
        return sparse.diags_array(np.sqrt(weight[rows])) @ (self.operator.core_matrix[rows] @ matrix)

    def response(self, traced: _Traced, row: int) -> Tensor:
        """The same as a tensor (n, N), of one lens."""
        rays, size = traced.rays, traced.rays.side**2
        nodes = rays.index[row].flatten()
        cells = self.cell[:, None].expand(-1, 4).flatten()
        shares = (rays.weights[row] * self.share[:, None]).flatten()
        response = shares.new_zeros(size, self.cells)
        response.index_put_((nodes, cells), shares, accumulate=True)
        if self._sharp:
            return response
        core = self.operator.core_matrix.tocoo()
        core = torch.sparse_coo_tensor(
            np.stack(core.coords), core.data, core.shape, device=shares.device, check_invariants=True
        )
        return (core @ response.mT).mT


class _LightRays:
    """Rays of the lens light, more of them where it is steep, in every image of a batch its own."""

    def __init__(self, operators: Sequence[ImagingOperator], device: torch.device | str) -> None:
        self._only = operators[0].to(torch.float64, device=device) if len(operators) == 1 else None
        parts = [[operator.x, operator.y, *operator.shares] for operator in operators]
        longest = max(len(part[0]) for part in parts)
        # Images with fewer rays are filled up with rays of no weight.
        parts = [[torch.cat([one, one[-1:].expand(longest - len(one))]) for one in part] for part in parts]
        for part, operator in zip(parts, operators, strict=True):
            part[3][len(operator.x) :] = 0.0
        self._x, self._y, self._cell, self._share = (
            torch.stack(part).to(device) for part in zip(*parts, strict=True)
        )

    def rays(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Positions x, y, each (b, R)."""
        return self._x[index], self._y[index]

    def image(self, values: Tensor, index: Tensor, operator: ImagingOperator) -> Tensor:
        """Pixels (b, ..., N) of brightness at the rays, (b, ..., R)."""
        if self._only is not None:
            return self._only(values).flatten(-2)
        shape = index.shape[0], *[1] * (values.ndim - 2), -1
        share, cell = self._share[index].reshape(shape), self._cell[index].reshape(shape)
        cells = values.new_zeros(*values.shape[:-1], operator.cells[0] * operator.cells[1])
        cells.scatter_add_(-1, cell.expand_as(values), values * share)
        return operator.convolve(cells.unflatten(-1, operator.cells)).flatten(-2)
