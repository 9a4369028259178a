"""One lens as the free-form fit takes it: its exposures, a scene, and a grid for the source."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lenssr.model.fit import Constraints
from lenssr.model.image_stack import ImageStack
from lenssr.model.scene import Scene
from lenssr.source.forward_model import ForwardModel
from lenssr.source.source_grid import GridMotion, SourceGrid

__all__ = ["Problem", "View"]


@dataclass(frozen=True)
class View:
    """One exposure of a lens.

    Attributes
    ----------
    stack : ``lenssr.model.image_stack.ImageStack``
        Holding the one image; its operator traces the source, with equally many rays in all cells. Its pixels
        are in the frame of the lens, see `~lenssr.grids.PixelGrid.seen_from`.
    light_stack : ``lenssr.model.image_stack.ImageStack``
        The same image with rays where the lens light is steep.
    weight, offset : `~numpy.ndarray`, shape (N,)
        Inverse variance, and the shift of the expected data by the noise.
    pointing : float
        Standard deviation of its place in the frame, in arcsec along each axis; 0 (the default) where it is
        known, as is that of the exposure which defines the frame.
    """

    stack: ImageStack
    light_stack: ImageStack
    weight: NDArray
    offset: NDArray
    pointing: float = 0.0


class Problem:
    """One lens for `lenssr.source.solve`: a source on a grid, and a few parameters.

    Model and gradient are exact; the curvature of chi2, which gives the steps and the width of the posterior,
    is that of the PSF cut to its core.

    While the lens moves, the grid of a source follows the mean of its rays, as no prior on its roughness
    depends on the position of a source. On a fixed grid Gauss-Newton takes a source that moves for one that
    changes, which the prior resists: errors of the lens, from first derivatives, are then too small along
    directions that move the source, and several times so where the data are few.

    Parameters
    ----------
    views : sequence of `View`
        Exposures that share source and lens light. The sky of the scene is that of the first; others have
        their own, and may be off in their pointing.
    scene : ``lenssr.model.scene.Scene``
        Lens, lens light and sky; with a source if a Sérsic multiplies the node values.
    physical : `torch.Tensor`, shape (P,)
        Parameters of the scene; the free ones are fitted.
    constraints : ``lenssr.model.fit.Constraints``
        Their priors and bounds.
    grid : `~lenssr.source.SourceGrid`
        The grid at ``physical``.
    anchor : `~numpy.ndarray`, shape (R,), optional
        Weights of the rays of the first view whose mean the grid follows; by default it stays, as it does
        beside a Sérsic, whose centre is a parameter.
    floor : float, optional
        Brightness below which a positive source fades to nothing (see `lenssr.source.solve`); 0 by
        default, where its logarithm has no lower end.

    Attributes
    ----------
    data, weight : `~numpy.ndarray`, shape (N,)
        Of all views, one after the other.
    parameter_prior, bounds : tuple of `~numpy.ndarray`, shape (K,)
        Mean and inverse variance, lower and upper end, of the free parameters: those of the scene, then the
        pointing (x, y) of the first view where it is not known, sky and pointing of the second, and so on.
    log_floor : float
    motion : `~lenssr.source.GridMotion`
        How the grid follows the lens.
    """

    def __init__(
        self,
        views: Sequence[View],
        scene: Scene,
        physical: Tensor,
        constraints: Constraints,
        grid: SourceGrid,
        anchor: NDArray | None = None,
        *,
        floor: float = 0.0,
    ) -> None:
        self.views, self.scene, self.grid = tuple(views), scene, grid
        self.template = physical.unsqueeze(0)
        self.data = np.concatenate([view.stack.data[0].numpy() - view.offset for view in views])
        self.weight = np.concatenate([view.weight for view in views])
        self.sky_free = scene.count("sky") > 0
        mean, stiffness, lower, upper = self._of_views()
        prior = (constraints.mean[0, scene.free], constraints.stiffness[0, scene.free])
        ends = (scene.to_fit(constraints.lower)[0], scene.to_fit(constraints.upper)[0])
        self.parameter_prior = _joined(prior, (mean, stiffness))
        self.bounds = _joined(ends, (lower, upper))
        self.log_floor = math.log(floor) if floor > 0 else -math.inf
        self.motion = self._motion(anchor)

    def _of_views(self) -> NDArray:
        """Prior means, stiffnesses and bounds of pointings, and of the skies of views after the first."""
        rows = []
        for number, view in enumerate(self.views):
            rows += [(0.0, 0.0, -np.inf, np.inf)] if number and self.sky_free else []
            rows += [(0.0, view.pointing**-2, -np.inf, np.inf)] * 2 if view.pointing else []
        return np.array(rows).reshape(-1, 4).T

    @cached_property
    def model(self) -> ForwardModel:
        """`~lenssr.source.ForwardModel` of this lens by itself, on the CPU."""
        return ForwardModel([self])

    def physical(self, parameters: NDArray) -> Tensor:
        """Physical vector (1, P) of free parameters (K,)."""
        return self.model.physical(torch.as_tensor(parameters)[None], self.model.everything)

    def start(self) -> NDArray:
        """The free parameters (K,) at the template."""
        of_scene = self.scene.to_fit(self.template)[0].numpy()
        return np.concatenate([of_scene, np.zeros(len(self.bounds[0]) - len(of_scene))])

    def grid_at(self, parameters: NDArray) -> SourceGrid:
        """`~lenssr.source.SourceGrid` where free parameters (K,) have taken it."""
        change = (self.physical(parameters) - self.template)[0, : len(self.motion.growth)]
        return self.motion.applied(self.grid, change)

    def node_brightness(self, values: NDArray, parameters: NDArray) -> NDArray:
        """Brightness at the nodes of node values (n,): these, or beside a Sérsic its multiples."""
        block = self.scene["source"]
        if block is None:
            return values
        nodes = (torch.as_tensor(axis) for axis in self.grid_at(parameters).nodes)
        return values * block.profile.brightness(*nodes, self.physical(parameters)[:, block.slice])[0].numpy()

    def _motion(self, anchor: NDArray | None) -> GridMotion:
        block, operator = self.scene["lens"], self.views[0].stack.operator
        if anchor is None or not self.scene.lens_moves or self.scene["source"] is not None:
            return GridMotion.none(block.stop)
        bent_x, bent_y, *slopes = self.scene.lens.deflection_jacobian_at(
            operator.x, operator.y, self.template[:, block.slice]
        )
        rays = (operator.x - bent_x)[0], (operator.y - bent_y)[0]
        slopes, free = [-slope[0] for slope in slopes], self.scene.free_of("lens")
        return GridMotion.following(self.grid, slopes, *rays, torch.as_tensor(anchor), free)

    def predict(self, source: NDArray, parameters: NDArray) -> NDArray:
        """Expected data (N,) of node values (n,) and free parameters (K,)."""
        return self._one(self.model.predict, source, parameters)

    def lensed_source(self, source: NDArray, parameters: NDArray) -> NDArray:
        """The source's part of the expected data, (N,)."""
        return self._one(self.model.lensed_source, source, parameters)

    def jacobian(self, source: NDArray, parameters: NDArray) -> NDArray:
        """Derivatives (N, K) of the expected data."""
        return self._one(self.model.jacobian, source, parameters).T

    def chi2(self, source: NDArray, parameters: NDArray) -> float:
        """Chi2 of node values (n,) and free parameters (K,)."""
        return float((self.weight * (self.data - self.predict(source, parameters)) ** 2).sum())

    def _one(self, function, source, parameters):
        values, place = (torch.as_tensor(part)[None] for part in (source, parameters))
        return function(values, place, self.model.everything)[0].numpy()


def _joined(of_scene: tuple[Tensor, Tensor], of_views: tuple[NDArray, NDArray]) -> tuple[NDArray, ...]:
    return tuple(np.concatenate([a.numpy(), b]) for a, b in zip(of_scene, of_views, strict=True))
