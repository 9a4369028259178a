"""How far a source on a grid reaches, and whether the grid holds it."""

import numpy as np
import torch

from lenssr.reconstruction import decisions

__all__ = ["half_light_radius", "is_cut", "off_grid"]

WIDER, CELLS = 2.5, 25  # sizes of the grid of a source within which light beyond it is looked for, in cells
NEARLY = 0.9  # of the limit of a source's size, which a grid that is cut there has at least


def off_grid(run):
    """Light on the rim of the grid of a `~lenssr.reconstruction.verdict.Run`, or beyond it, in sigma."""
    problem, solution = run.inversion
    grid = problem.grid_at(solution.parameters)
    rows, columns = np.divmod(np.arange(grid.size), grid.side)
    rim = (np.minimum(rows, columns) == 0) | (np.maximum(rows, columns) == grid.side - 1)
    on_rim = problem.lensed_source(np.where(rim, solution.values, 0.0), solution.parameters)[
        : run.weight.size
    ]
    # Errors that are too small turn noise into significant spots.
    beyond = _beyond(run, grid) / (run.widening * max(run.noise.rms_ratio, 1.0))
    return max(float((on_rim * np.sqrt(run.weight.ravel())).max()), beyond)


def is_cut(run):
    """Whether the grid ends at the limit that is set to sources beside lens light, behind a free lens."""
    if run.theta_E is None or not run.scene.lights or not bool(run.scene.free[run.scene.radius]):
        return False
    problem, solution = run.inversion
    limit = decisions.LARGEST_SOURCE * run.theta_E
    return bool(problem.grid_at(solution.parameters).half > NEARLY * limit)


def _beyond(run, grid):
    """Significance of the brightest spot that the data would have in the source plane, off the grid."""
    problem, solution = run.inversion
    x, y = (torch.as_tensor(axis.ravel()) for axis in (run.observation.grid.x, run.observation.grid.y))
    rays = problem.scene.source_positions(x, y, problem.physical(solution.parameters))
    across, along = (rays[0][0].numpy() - grid.x_0) / grid.half, (rays[1][0].numpy() - grid.y_0) / grid.half
    outside = (np.maximum(np.abs(across), np.abs(along)) > 1) & (np.hypot(across, along) < WIDER)
    cell = [np.floor((axis[outside] + WIDER) / (2 * WIDER) * CELLS).astype(int) for axis in (across, along)]
    where = cell[1] * CELLS + cell[0]
    weight, residual = run.weight.ravel()[outside], run.residual.ravel()[outside]
    signal = np.bincount(where, weight * residual, minlength=CELLS**2)
    information = np.bincount(where, weight, minlength=CELLS**2)
    return float((signal / np.sqrt(np.maximum(information, np.finfo(float).tiny))).max())


def half_light_radius(problem, solution):
    """Radius around the centre of light that holds half of the light of a source on a grid, in arcsec."""
    grid = problem.grid_at(solution.parameters)
    brightness = problem.node_brightness(solution.values, solution.parameters)
    step = np.gradient(grid.offsets)
    light = np.maximum(brightness, 0) * np.outer(step, step).ravel()
    light /= max(light.sum(), np.finfo(float).tiny)
    x, y = grid.nodes
    radius = np.hypot(x - light @ x, y - light @ y)
    order = np.argsort(radius)
    return float(radius[order][np.searchsorted(light[order].cumsum(), 0.5).clip(max=grid.size - 1)])
