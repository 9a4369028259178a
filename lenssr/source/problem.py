"""One image as a function of a free-form source and of the parameters of lens, lens light and sky."""

import math

import numpy as np
import scipy.sparse as sparse
import torch

from lenssr.source.linalg import NormalMatrix
from lenssr.source.source_grid import GridMotion, SourceMap

__all__ = ["Problem", "blur_matrix", "core_response"]

# The curvature of chi2 needs no more of a PSF than its core: this share of it, in so many samples.
KERNEL_SHARE = 0.99
KERNEL_SAMPLES = 600
# While rays of the arcs move by less than this many nodes, the curvature is kept.
KEPT_REACH = 0.2


class Problem:
    """What `lenssr.source.solve` needs to know of an image.

    Model and gradient are exact; the curvature of chi2, which only says how far to step and how wide the
    posterior is, sees the PSF cut to its core.

    While the lens moves, the grid of a source follows the mean of its rays: no prior on its roughness minds
    where a source lies. On a grid that stays, Gauss-Newton takes a source that moves for one that changes,
    which the prior resists; the errors of the lens, from first derivatives, then are too small along what
    moves the source, and several times so where the data are few.

    Parameters
    ----------
    stack : `~lenssr.model.image_stack.ImageStack`
        Holding the one image; its operator traces the source, with equally many rays in all cells.
    light_stack : `~lenssr.model.image_stack.ImageStack`
        The same image with rays where the lens light is steep.
    scene : `~lenssr.model.scene.Scene`
        Lens, lens light and sky; with a source if a Sérsic multiplies the node values.
    physical : `torch.Tensor`, shape (P,)
        Parameters of the scene; the free ones are fitted.
    constraints : `~lenssr.model.constraints.Constraints`
        Their priors and bounds.
    grid : `~lenssr.source.source_grid.SourceGrid`
        Where it lies at ``physical``.
    weight, offset : `~numpy.ndarray`, shape (N,)
        Inverse variance, and by how much the noise shifts the expected data.
    anchor : `~numpy.ndarray`, shape (R,), optional
        Weights of the rays whose mean the grid follows; by default it stays, and it does beside a Sérsic,
        whose centre is a parameter.
    floor : float, optional
        Brightness below which a positive source fades to nothing (see `lenssr.source.solve`); 0 by
        default, where it may be as faint as its logarithm goes.

    Attributes
    ----------
    log_floor : float
    motion : `~lenssr.source.source_grid.GridMotion`
        How the grid follows the lens.
    """

    def __init__(
        self,
        stack,
        light_stack,
        scene,
        physical,
        constraints,
        grid,
        weight,
        offset,
        anchor=None,
        *,
        floor=0.0,
    ):
        self.stack, self.light_stack, self.scene, self.grid = stack, light_stack, scene, grid
        self.template = physical.unsqueeze(0)
        self.data, self.weight = stack.data[0].numpy() - offset, weight
        self.parameter_prior = tuple(
            part[0, scene.free].numpy() for part in (constraints.mean, constraints.stiffness)
        )
        self.bounds = tuple(scene.to_fit(end)[0].numpy() for end in (constraints.lower, constraints.upper))
        self.log_floor = math.log(floor) if floor > 0 else -math.inf
        self._gather, self._blur = _gather(stack), None
        self._traced = self._normal = None
        self.motion = self._motion(anchor)

    def physical(self, parameters):
        """Physical vector (1, P) of free parameters (K,)."""
        return self.scene.to_physical(torch.as_tensor(parameters)[None], self.template)

    def mapping(self, parameters):
        """`~lenssr.source.source_grid.SourceMap` from the nodes to rays, at free parameters (K,)."""
        return self._mapping(self.physical(parameters))

    def _mapping(self, physical):
        source = self.scene["source"]
        return SourceMap(self._grid(physical), None if source is None else physical[0, source.slice])

    def grid_at(self, parameters):
        """`~lenssr.source.source_grid.SourceGrid` where free parameters (K,) have taken it."""
        return self._grid(self.physical(parameters))

    def _grid(self, physical):
        change = (physical - self.template)[0, : len(self.motion.growth)].numpy()
        return self.motion.applied(self.grid, change)

    def _motion(self, anchor):
        block, operator = self.scene["lens"], self.stack.operator
        if anchor is None or not self.scene.lens_moves or self.scene["source"] is not None:
            return GridMotion.none(block.stop)
        bent_x, bent_y, *slopes = self.scene.lens.deflection_jacobian_at(
            operator.x, operator.y, self.template[:, block.slice]
        )
        rays = (operator.x - bent_x)[0].numpy(), (operator.y - bent_y)[0].numpy()
        slopes = [-slope[0].numpy() for slope in slopes]
        return GridMotion.following(self.grid, slopes, *rays, anchor, self.scene.free_of("lens").numpy())

    def predict(self, source, parameters):
        """Expected data (N,) of node values (n,) and free parameters (K,)."""
        physical = self.physical(parameters)
        light = self.light_stack.image(self.scene, physical, roles=("lens_light", "sky"))[0].numpy()
        return self.lensed_source(source, parameters) + light

    def lensed_source(self, source, parameters):
        """The source's part of the expected data, (N,)."""
        _, matrix = self._trace(self.physical(parameters))
        cells = torch.as_tensor(matrix @ source).reshape(self.stack.operator.cells)
        return self.stack.operator.convolve(cells).flatten().numpy()

    def chi2(self, source, parameters):
        """Chi2 of node values (n,) and free parameters (K,)."""
        return float((self.weight * (self.data - self.predict(source, parameters)) ** 2).sum())

    def adjoint(self, values, parameters):
        """Transpose of `lensed_source`: pixels (N,) or (N, m) to nodes (n,) or (n, m)."""
        operator, images = self.stack.operator, values.T.reshape(*values.shape[1:], *self.stack.grid.shape)
        cells = operator.spread(torch.as_tensor(images)).flatten(-2).numpy().T
        return self._trace(self.physical(parameters))[1].T @ cells

    def jacobian(self, source, parameters):
        """Derivatives (N, K) of the expected data."""
        physical = self.physical(parameters)
        rays, _ = self._trace(physical)
        columns = []
        if self.scene.lens_moves:
            columns.append(self._lens_columns(source, physical, rays))
        if self.scene["source"] is not None:
            columns.append(self._source_columns(source, physical, rays))
        if self.scene.lights:
            operator = self.light_stack.operator
            slopes = self.scene.light_jacobian(operator.x, operator.y, physical, cusp=self.light_stack.cusp)
            columns.append((operator(slopes)[0].flatten(-2) * self.light_stack.factor).numpy())
        if self.scene["sky"] is not None:
            columns.append(np.ones((1, len(self.data))))
        return np.concatenate(columns or [np.zeros((0, len(self.data)))]).T

    def normal(self, parameters, *, exact=False):
        """M^T W M; kept while the lens moves too little to matter, unless it has to be exact.

        Parameters
        ----------
        parameters : `~numpy.ndarray`, shape (K,)
        exact : bool, optional

        Returns
        -------
        normal : `~lenssr.source.linalg.NormalMatrix`
        """
        physical = self.physical(parameters)
        rays, matrix = self._trace(physical)
        grid, source = self._grid(physical), self.scene["source"]
        size = grid.half / self.grid.half
        place = [(rays[0] - grid.x_0) / size, (rays[1] - grid.y_0) / size]
        place += [] if source is None else [physical[0, source.slice].numpy()]
        if self._normal is not None:
            ends = zip(place, self._normal[0], strict=True)
            moved = [np.abs(new - old).max() for new, old in ends]
            reach = 0.0 if exact else KEPT_REACH * self.grid.spacing
            if max(moved[:2]) <= reach and max(moved[2:], default=0.0) == 0.0:
                return self._normal[1]
        if self.stack.kernel is not None:
            if self._blur is None:
                self._blur = blur_matrix(self.stack)
            matrix = self._blur @ matrix
        self._normal = place, NormalMatrix(matrix, self.weight)
        return self._normal[1]

    def _trace(self, physical):
        """Where the rays land, and the map (cells, n) from the source to cells; the last answer is kept."""
        scene = self.scene
        blocks = [scene[name] for name in ("lens", "source") if scene[name] is not None]
        key = tuple(value for block in blocks for value in physical[0, block.slice].tolist())
        if self._traced is None or self._traced[0] != key:
            operator = self.stack.operator
            rays = [axis[0].numpy() for axis in scene.source_positions(operator.x, operator.y, physical)]
            self._traced = key, rays, self._gather @ self._mapping(physical).matrix(*rays)
        return self._traced[1:]

    def _source_columns(self, source, physical, rays):
        slopes = self._mapping(physical).sersic_slopes(
            source, *rays, self.scene.log[self.scene["source"].slice]
        )
        keep = self.scene.free_of("source").numpy()
        return (self.stack.operator(torch.as_tensor(slopes[keep])).flatten(-2) * self.stack.factor).numpy()

    def _lens_columns(self, source, physical, rays):
        operator = self.stack.operator
        lens = physical[:, self.scene["lens"].slice]
        _, _, d_x, d_y = self.scene.lens.deflection_jacobian_at(operator.x, operator.y, lens)
        keep = self.scene.free_of("lens")
        mapping = self._mapping(physical)
        slope_x, slope_y = (torch.as_tensor(slope) for slope in mapping.slope(source, *rays))
        grid_x, grid_y = (torch.as_tensor(v) for v in self.motion.at(mapping.grid, *rays, keep.numpy()))
        moved = -(slope_x * (d_x[0, keep] + grid_x) + slope_y * (d_y[0, keep] + grid_y))
        return (operator(moved).flatten(-2) * self.stack.factor).numpy()


def _gather(stack):
    """Brightness at rays to flux in cells, a sparse array (cells, R)."""
    cells = stack.operator.cells[0] * stack.operator.cells[1]
    rays = len(stack.operator.x)
    share = stack.operator.shares[1].double().numpy() * stack.factor
    starts = np.arange(0, rays + 1, rays // cells)
    return sparse.csr_array((share, np.arange(rays), starts), shape=(cells, rays))


def core_response(operator):
    """What a pixel collects, cut to the strongest samples, which then count for the whole.

    Parameters
    ----------
    operator : `~lenssr.imaging.operator.ImagingOperator`

    Returns
    -------
    rows, columns, values : `~numpy.ndarray`, shape (S,)
        As its ``response``.
    """
    rows, columns, values = operator.response
    order = np.argsort(-np.abs(values))
    total = np.abs(values[order]).cumsum()
    count = min(KERNEL_SAMPLES, int(np.searchsorted(total, KERNEL_SHARE * total[-1])) + 1)
    kept = order[:count]
    return rows[kept], columns[kept], values[kept] * (values.sum() / values[kept].sum())


def blur_matrix(stack):
    """The telescope as a sparse array from cells to pixels, cut to the core of its response.

    Parameters
    ----------
    stack : `~lenssr.model.image_stack.ImageStack`

    Returns
    -------
    matrix : sparse array, shape (N, cells)
    """
    operator = stack.operator
    rows, columns, values = core_response(operator)
    (ny, nx), (cy, cx) = stack.grid.shape, operator.cells
    y, x = np.divmod(np.arange(ny * nx), nx)
    step = cy // (ny + 2 * operator.margin)
    row = (y[:, None] + operator.margin) * step + rows
    column = (x[:, None] + operator.margin) * step + columns
    inside = (row >= 0) & (row < cy) & (column >= 0) & (column < cx)
    starts = np.concatenate([[0], inside.sum(axis=1).cumsum()])
    index = (row * cx + column)[inside]
    return sparse.csr_array(
        (np.broadcast_to(values, inside.shape)[inside], index, starts), shape=(ny * nx, cy * cx)
    )
