"""The fine images of a free-form source, with errors from draws of its posterior."""

from dataclasses import replace

import numpy as np
import torch

from lenssr.reconstruction.products import FineScene, Products, ccd, window_wcs
from lenssr.reconstruction.telescope import fine_operator

__all__ = ["FineSource"]

SAMPLES = 64
AT_ONCE = 16
FINEST_SOURCE = 120  # pixels along a side


class FineSource:
    """A scene with a free-form source at a finer sampling.

    Parameters
    ----------
    problem : `~lenssr.inversion.Problem`
    solution : `~lenssr.inversion.Solution`
    observation : `~lenssr.imaging.Observation`
    settings : `~lenssr.resolver.Settings`
    widening : float
        By how much errors are wider than independent noise makes them.
    """

    def __init__(self, problem, solution, observation, settings, widening):
        self.problem, self.solution, self.observation = problem, solution, observation
        self.widening, self.rng = widening, np.random.default_rng(settings.seed)
        self.scene, self.physical = problem.scene, problem.physical(solution.parameters)
        empty = torch.zeros(self.scene.size, self.scene.size, dtype=torch.float64)
        options = {name: getattr(settings, name) for name in ("scale", "oversampling", "psf_out")}
        # The light of the lens has rays of its own, where it is steep; the source keeps plain ones.
        self.fine = FineScene(self.scene, self.physical[0], empty, observation, **options)
        self.operator = fine_operator(observation, **options)
        x, y = self.operator.x, self.operator.y
        self.rays = [axis[0].numpy() for axis in self.scene.source_positions(x, y, self.physical)]
        self.matrix = problem.mapping.matrix(*self.rays)

    def products(self):
        """All images with their errors, as `~lenssr.reconstruction.products.Products`."""
        source = self.solution.values
        lensed = self._image(torch.as_tensor(self.matrix @ source))
        light, sky = self.fine.image("lens_light"), self.fine.image("sky")
        draws = self.solution.factor.sample(self.rng.standard_normal((self.solution.factor.size, SAMPLES)))
        return Products(
            (lensed + light + sky, lensed, light),
            self._errors(source, draws),
            self._source(source, draws),
            self.fine.grid.wcs,
            self.fine.kernel,
            self.solution.determined,
        )

    def _image(self, values):
        return (self.operator(values) * self.fine.factor).numpy()

    def _errors(self, source, draws):
        totals = np.zeros((3, *self.fine.grid.shape))
        count = len(source)
        for start in range(0, SAMPLES, AT_ONCE):
            nodes, parameters = draws[:count, start : start + AT_ONCE], draws[count:, start : start + AT_ONCE]
            of_source = self._image(self._source_change(nodes, parameters))
            of_light = self._light_change(parameters)
            of_sky = self._sky_change(parameters)
            for total, change in zip(
                totals, (of_source + of_light + of_sky, of_source, of_light), strict=True
            ):
                total += (change**2).sum(0)
        return tuple(self.widening * np.sqrt(totals / SAMPLES))

    def _source_change(self, nodes, parameters):
        source, slope = self.solution.values, self.solution.slope
        change = torch.as_tensor((self.matrix @ (slope[:, None] * nodes)).T.copy())
        if self.scene.lens_moves:
            block = self.scene.blocks[0]
            keep = self.scene.free[block.slice]
            x, y = self.operator.x, self.operator.y
            _, _, d_x, d_y = self.scene.lens.deflection_jacobian_at(x, y, self.physical[:, block.slice])
            slopes = [torch.as_tensor(slope) for slope in self.problem.mapping.slope(source, *self.rays)]
            moved = slopes[0] * d_x[0, keep] + slopes[1] * d_y[0, keep]
            change = change - torch.as_tensor(parameters[: int(keep.sum())]).T @ moved
        return change

    def _light_change(self, parameters):
        rows = self.fine.rows("lens_light")
        if not rows.any():
            return np.zeros(1)
        x, y = self.fine.operator.x, self.fine.operator.y
        slopes = self.scene.light_jacobian(x, y, self.physical, cusp=self.fine.cusp)[0]
        return (self.fine.operator(torch.as_tensor(parameters)[rows].T @ slopes) * self.fine.factor).numpy()

    def _sky_change(self, parameters):
        rows = self.fine.rows("sky")
        return (parameters[rows.numpy()].sum(0) * self.fine.sky_factor)[:, None, None]

    def _source(self, values, draws):
        """The source on even pixels, as fine as its nodes where they are closest."""
        mapping = self.problem.mapping
        grid = mapping.grid
        side = min(round(2 * grid.half / grid.spacing) + 1, FINEST_SOURCE)
        even = replace(grid, side=side, stretch=0.0, half=grid.half * (1 - 1e-12))
        matrix = mapping.matrix(*even.nodes)
        changes = matrix @ (self.solution.slope[:, None] * draws[: len(values)])
        return ccd(
            (matrix @ values).reshape(side, side),
            self.observation.brightness_unit,
            wcs=window_wcs(self.observation.grid, grid.x_0, grid.y_0, even.spacing, side),
            error=self.widening * changes.std(axis=1).reshape(side, side),
            x_0=grid.x_0,
            y_0=grid.y_0,
            pixel_scale=even.spacing,
        )
