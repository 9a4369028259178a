"""Images of one shape as functions of free-form sources and of the parameters of lens, light and sky."""

from dataclasses import dataclass

import numpy as np
import torch

from lenssr.imaging.operator import Convolution
from lenssr.light.sersic import sersic_brightness, sersic_brightness_jacobian
from lenssr.source.problem import KEPT_REACH, core_response

__all__ = ["COLUMNS_AT_ONCE", "ProblemBatch"]

# How many columns of a map to pixels pass the telescope at once.
COLUMNS_AT_ONCE = 64


class ProblemBatch:
    """What `lenssr.source.gauss_newton_batch.solve_batch` needs to know of images, as tensors on one device.

    All it does is done for the images numbered ``index`` (b,); it gives what `~lenssr.source.Problem`
    gives, image by image along the first dimension.

    Parameters
    ----------
    problems : sequence of `~lenssr.source.Problem`
        Of images of one shape behind one telescope, with the same parameters free and equally many nodes.
    device : `torch.device` or str

    Attributes
    ----------
    data, weight : `torch.Tensor`, shape (B, N)
    parameter_prior : tuple of `torch.Tensor`, shape (B, K)
        Mean and inverse variance.
    bounds : tuple of `torch.Tensor`, shape (B, K)
    log_floor : `torch.Tensor`, shape (B,)
    size : int
        Number of nodes, n.
    """

    def __init__(self, problems, device):
        first = problems[0]

        def stacked(parts):
            return torch.as_tensor(np.stack([np.asarray(part) for part in parts]), device=device)

        self.data, self.weight = stacked([p.data for p in problems]), stacked([p.weight for p in problems])
        self.parameter_prior, self.bounds = (
            tuple(stacked(parts) for parts in zip(*pairs, strict=True))
            for pairs in ([p.parameter_prior for p in problems], [p.bounds for p in problems])
        )
        self.log_floor = stacked([p.log_floor for p in problems])
        self.scene, self.size = first.scene.on(device), first.grid.size
        self._template = torch.cat([p.template for p in problems]).to(device)
        self._operator = first.stack.operator.to(torch.float64, device=device)
        self._factor, self._cusp = first.stack.factor, first.light_stack.cusp
        self._cell, self._share = self._operator.shares
        self._share = self._share * self._factor
        self._light = None
        if self.scene.lights:
            self._light = _LightRays([p.light_stack.operator for p in problems], device)
        self._grids = _Grids([p.grid for p in problems], device)
        motions = [p.motion for p in problems]
        self._drift, self._growth = stacked([m.drift for m in motions]), stacked([m.growth for m in motions])
        self._core = None if first.stack.kernel is None else _Core(first.stack.operator, device)
        self._normal = self._place = None

    def __len__(self):
        return len(self.data)

    def physical(self, parameters, index):
        """Physical vectors (b, P) of free parameters (b, K)."""
        return self.scene.to_physical(parameters, self._template[index])

    def predict(self, source, parameters, index):
        """Expected data (b, N) of node values (b, n) and free parameters (b, K)."""
        physical = self.physical(parameters, index)
        image = self._image(self._trace(physical, index).brightness(source))
        if self.scene.lights:
            x, y = self._light.rays(index)
            value = self.scene.brightness(x, y, physical, roles=("lens_light",))
            image = image + self._light.image(value, index, self._operator) * self._factor
        if (sky := self.scene["sky"]) is not None:
            image = image + physical[:, sky.slice]
        return image

    def adjoint(self, values, parameters, index):
        """Transpose of the map from the source to data: (b, m, N) to (b, m, n)."""
        images = values.unflatten(-1, self._operator.shape)
        rays = self._operator.spread(images).flatten(-2)[..., self._cell] * self._share
        return self._trace(self.physical(parameters, index), index).adjoint(rays, self.size)

    def jacobian(self, source, parameters, index):
        """Derivatives (b, K, N) of the expected data."""
        physical = self.physical(parameters, index)
        traced, scene, columns = self._trace(physical, index), self.scene, []
        if scene.lens_moves:
            columns.append(self._image(self._lens_slopes(traced, source, physical, index)))
        if traced.sersic is not None:
            logs = scene.log[scene["source"].slice]
            slopes = traced.sersic_slopes(source, logs)[:, scene.free_of("source")]
            columns.append(self._image(slopes))
        if scene.lights:
            slopes = scene.light_jacobian(*self._light.rays(index), physical, cusp=self._cusp)
            columns.append(self._light.image(slopes, index, self._operator) * self._factor)
        if scene["sky"] is not None:
            columns.append(torch.ones_like(self.data[index]).unsqueeze(1))
        if not columns:
            return self.data.new_zeros(len(index), 0, self.data.shape[1])
        return torch.cat(columns, dim=1)

    def normal(self, parameters, index, *, exact=False):
        """M^T W M of all images, shape (B, n, n), right for those numbered ``index``.

        Kept for an image while its lens moves too little to matter, unless it has to be exact.
        """
        physical = self.physical(parameters, index)
        traced = self._trace(physical, index)
        source = self._modulated(physical)
        place = torch.cat([*traced.places, *([] if source is None else [source])], dim=1)
        if self._normal is None:
            self._normal = place.new_empty(len(self), self.size, self.size)
            self._place = place.new_full((len(self), place.shape[1]), torch.nan)
        rays = 2 * traced.x.shape[1]
        moved = (place - self._place[index]).abs()
        reach = 0.0 if exact else KEPT_REACH * self._grids.spacing[index]
        # What has no place yet compares false as well.
        kept = (moved[:, :rays].amax(1) <= reach) & (moved[:, rays:] == 0).all(1)
        stale = torch.nonzero(~kept).squeeze(1)
        if len(stale):
            fresh = traced.select(stale)
            weight = self.weight[index[stale]]
            made = self._scattered(fresh, weight) if self._core is None else self._filled(fresh, weight)
            self._normal[index[stale]], self._place[index[stale]] = made, place[stale]
        return self._normal

    def _image(self, values):
        """Pixels (..., N) of brightness at rays (..., R)."""
        return self._operator(values).flatten(-2) * self._factor

    def _trace(self, physical, index):
        operator = self._operator
        x, y = self.scene.source_positions(operator.x, operator.y, physical)
        change = (physical - self._template[index])[:, : self._growth.shape[1]]
        shift = torch.einsum("bal,bl->ba", self._drift[index], change)
        size = (self._growth[index] * change).sum(1).exp()
        return self._grids.trace(x, y, index, shift, size, self._modulated(physical))

    def _modulated(self, physical):
        """Parameters (b, 7) of the Sérsic that the nodes multiply, or None."""
        return None if self.scene["source"] is None else physical[:, self.scene["source"].slice]

    def _lens_slopes(self, traced, source, physical, index):
        operator, lens = self._operator, physical[:, self.scene["lens"].slice]
        _, _, d_x, d_y = self.scene.lens.deflection_jacobian_at(operator.x, operator.y, lens)
        keep = self.scene.free_of("lens")
        slope_x, slope_y = (slope.unsqueeze(1) for slope in traced.slope(source))
        drift_x, drift_y = self._drift[index][:, :, keep, None].unbind(1)
        growth = self._growth[index][:, keep, None] * traced.size[:, None, None]
        grid_x, grid_y = (
            drift + growth * place.unsqueeze(1)
            for drift, place in zip((drift_x, drift_y), traced.places, strict=True)
        )
        return -(slope_x * (d_x[:, keep] + grid_x) + slope_y * (d_y[:, keep] + grid_y))

    def _scattered(self, traced, weight):
        """M^T W M of a sharp image: the nodes around the rays of each pixel, two and two."""
        count, cells, n = len(weight), weight.shape[1], self.size
        nodes = traced.corners.reshape(count, cells, -1)
        shares = (traced.weights * self._share[:, None]).reshape(count, cells, -1)
        shares = shares * weight.sqrt().unsqueeze(2)
        normal = shares.new_zeros(count, n * n)
        for start in range(0, nodes.shape[2], 4):  # ray by ray, to spare memory
            rows = nodes[:, :, start : start + 4, None] * n + nodes[:, :, None, :]
            products = shares[:, :, start : start + 4, None] * shares[:, :, None, :]
            normal.scatter_add_(1, rows.flatten(1), products.flatten(1))
        return normal.reshape(count, n, n)

    def _filled(self, traced, weight):
        """M^T W M behind a PSF: the response of pixels to each node, some nodes at a time."""
        count, cells, n = len(weight), self._operator.cells[0] * self._operator.cells[1], self.size
        nodes, shares = traced.corners, traced.weights * self._share[:, None]
        response = shares.new_empty(count, n, weight.shape[1])
        for start in range(0, n, COLUMNS_AT_ONCE):
            width = min(COLUMNS_AT_ONCE, n - start)
            inside = (nodes >= start) & (nodes < start + width)
            place = (nodes - start).clamp(0, width - 1) * cells + self._cell[:, None]
            columns = shares.new_zeros(count, width * cells)
            columns.scatter_add_(1, place.flatten(1), torch.where(inside, shares, 0.0).flatten(1))
            columns = columns.reshape(count, width, *self._operator.cells)
            response[:, start : start + width] = self._core(columns)
        response *= weight.sqrt().unsqueeze(1)
        return response @ response.mT


class _Core:
    """The core of a telescope's response, from cells (..., cy, cx) to pixels (..., N)."""

    def __init__(self, operator, device):
        rows, columns, values = core_response(operator)
        half_y, half_x = int(np.abs(rows).max()), int(np.abs(columns).max())
        kernel = np.zeros((2 * half_y + 1, 2 * half_x + 1))
        # A pixel collects with the kernel turned around.
        kernel[half_y - rows, half_x - columns] = values
        self._step = operator.cells[0] // (operator.shape[0] + 2 * operator.margin)
        margin = operator.margin * self._step
        self._convolution = Convolution(kernel, operator.cells, margin=margin, device=device)

    def __call__(self, cells):
        return self._convolution(cells)[..., :: self._step, :: self._step].flatten(-2)


class _LightRays:
    """Rays of the lens light, more of them where it is steep, in every image of a batch its own."""

    def __init__(self, operators, device):
        parts = [(operator.x, operator.y, *operator.shares) for operator in operators]
        longest = max(len(part[0]) for part in parts)
        # Images with fewer rays are filled up with some that count for nothing.
        parts = [[torch.cat([one, one[-1:].expand(longest - len(one))]) for one in part] for part in parts]
        for part, operator in zip(parts, operators, strict=True):
            part[3][len(operator.x) :] = 0.0
        self._x, self._y, self._cell, self._share = (
            torch.stack(part).to(device) for part in zip(*parts, strict=True)
        )

    def rays(self, index):
        """Positions x, y, each (b, R)."""
        return self._x[index], self._y[index]

    def image(self, values, index, operator):
        """Pixels (b, ..., N) of brightness at the rays, (b, ..., R)."""
        shape = index.shape[0], *[1] * (values.ndim - 2), -1
        share, cell = self._share[index].reshape(shape), self._cell[index].reshape(shape)
        cells = values.new_zeros(*values.shape[:-1], operator.cells[0] * operator.cells[1])
        cells.scatter_add_(-1, cell.expand_as(values), values * share)
        return operator.convolve(cells.unflatten(-1, operator.cells)).flatten(-2)


class _Grids:
    """Grids of equally many nodes in the source plane, one for each image."""

    def __init__(self, grids, device):
        self.side = grids[0].side
        self._middle = torch.tensor([[g.x_0, g.y_0] for g in grids], dtype=torch.float64, device=device)
        self._offsets = torch.as_tensor(np.stack([g.offsets for g in grids]), device=device)
        self.spacing = self._offsets.diff(dim=1).amin(1)
        self._around = torch.tensor([0, 1, self.side, self.side + 1], device=device)

    def trace(self, x, y, index, shift, size, sersic):
        """Where rays (b, R) land, as `_Traced`.

        The grids have moved by ``shift`` (b, 2), and are ``size`` (b,) times as large.
        """
        offsets, middle = self._offsets[index], self._middle[index] + shift
        distances = [(position - middle[:, k, None]) / size[:, None] for k, position in enumerate((x, y))]
        places = []
        for distance in distances:
            cell = torch.searchsorted(offsets, distance, right=True).sub_(1).clamp_(0, self.side - 2)
            start = offsets.gather(1, cell)
            step = offsets.gather(1, cell + 1) - start
            inside = (distance >= offsets[:, :1]) & (distance <= offsets[:, -1:])
            places.append((cell, (distance - start) / step, step, inside))
        (left, right, step_x, inside_x), (below, up, step_y, inside_y) = places
        inside = (inside_x & inside_y).to(x)
        weights = torch.stack([(1 - right) * (1 - up), right * (1 - up), (1 - right) * up, right * up], dim=2)
        profile = None
        if sersic is not None:
            profile = sersic_brightness(x, y, *sersic.unsqueeze(2).unbind(1))
            weights = weights * profile.unsqueeze(2)
        corners = (below * self.side + left).unsqueeze(2) + self._around
        slopes = tuple(inside / (step * size[:, None]) for step in (step_x, step_y))
        weights = weights * inside.unsqueeze(2)
        return _Traced(x, y, distances, size, corners, weights, (right, up), slopes, profile, sersic)


@dataclass(frozen=True)
class _Traced:
    """Rays (b, R) of a batch in its source planes.

    Attributes
    ----------
    x, y : `torch.Tensor`, shape (b, R)
    places : sequence of `torch.Tensor`, shape (b, R)
        Distances from the middle of the grid along x and y, in arcsec where the grid has its first size.
    size : `torch.Tensor`, shape (b,)
        So many times that it is as large.
    corners, weights : `torch.Tensor`, shape (b, R, 4)
        The nodes around each ray, and what a value there adds to its brightness.
    shares, slopes : tuple of `torch.Tensor`, shape (b, R)
        Where it lies in its cell along x and y, and how fast that changes; 0 outside the grid.
    profile, sersic : `torch.Tensor`, shapes (b, R), (b, 7), or None
        What the interpolated values are multiplied with, and its parameters.
    """

    x: torch.Tensor
    y: torch.Tensor
    places: tuple
    size: torch.Tensor
    corners: torch.Tensor
    weights: torch.Tensor
    shares: tuple
    slopes: tuple
    profile: torch.Tensor | None
    sersic: torch.Tensor | None

    def select(self, index):
        """The same of some images, without what only slopes need."""
        x, y, size, corners, weights = (
            part[index] for part in (self.x, self.y, self.size, self.corners, self.weights)
        )
        return _Traced(x, y, (), size, corners, weights, (), (), None, None)

    def _around(self, source):
        return source.gather(1, self.corners.flatten(1)).unflatten(1, self.corners.shape[1:])

    def brightness(self, source):
        """Brightness (b, R) of node values (b, n)."""
        return (self._around(source) * self.weights).sum(2)

    def adjoint(self, values, size):
        """Transpose of `brightness`, (b, m, R) to (b, m, n)."""
        nodes = values.new_zeros(*values.shape[:2], size)
        for corner, weight in zip(self.corners.unbind(2), self.weights.unbind(2), strict=True):
            nodes.scatter_add_(2, corner.unsqueeze(1).expand_as(values), values * weight.unsqueeze(1))
        return nodes

    def slope(self, source):
        """Slopes of the brightness along x and y, each (b, R)."""
        lower_left, lower_right, upper_left, upper_right = self._around(source).unbind(2)
        right, up = self.shares
        along_x = (1 - up) * (lower_right - lower_left) + up * (upper_right - upper_left)
        along_y = (1 - right) * (upper_left - lower_left) + right * (upper_right - lower_right)
        along_x, along_y = along_x * self.slopes[0], along_y * self.slopes[1]
        if self.sersic is None:
            return along_x, along_y
        profile, d_x, d_y, _ = self._sersic_jacobian()
        between = self._between(source)
        return profile * along_x + d_x * between, profile * along_y + d_y * between

    def sersic_slopes(self, source, log):
        """Derivatives (b, 7, R) by the parameters of the Sérsic; ``log`` (7,): by their logarithms."""
        derivative = self._sersic_jacobian()[3]
        scale = torch.where(log, self.sersic, torch.ones_like(self.sersic))
        return derivative * scale.unsqueeze(2) * self._between(source).unsqueeze(1)

    def _sersic_jacobian(self):
        return sersic_brightness_jacobian(self.x, self.y, *self.sersic.unsqueeze(2).unbind(1))

    def _between(self, source):
        """Interpolated values (b, R), not multiplied with the Sérsic."""
        right, up = self.shares
        weights = torch.stack([(1 - right) * (1 - up), right * (1 - up), (1 - right) * up, right * up], dim=2)
        return (self._around(source) * weights).sum(2) * (self.slopes[0] != 0)
