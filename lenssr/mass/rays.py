"""What curves, images and times need of a lens: where rays land, and the derivatives of that."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Array", "Entries", "Limits", "Rays", "common_limits", "rays_of", "several_planes", "single_plane"]

Array: TypeAlias = NDArray[np.float64]
Entries: TypeAlias = tuple[Array, Array, Array, Array]
Limits: TypeAlias = tuple[float, float, float, float]


@dataclass(frozen=True)
class Rays:
    """A lens as a map of numbers: 1-D float64 arrays in arcsec in, arrays out.

    Parameters
    ----------
    trace : callable
        Positions x, y in the image plane to those in the source plane.
    jacobian : callable
        Positions x, y to the entries xx, xy, yx, yy of d(source) / d(image).
    centres : `~numpy.ndarray`, shape (n, 2)
        Where the map may be singular, or vary on small scales.
    limits : tuple of float, optional
        Centre x, y and half-widths along x and y of the rectangle outside which nothing is known.
    cell : float, optional
        Size of the smallest structure away from the centres; by default they have none of their own.
    symmetric : bool, optional
        Whether xy = yx, as in one plane.
    both : callable, optional
        Positions to what ``trace`` and ``jacobian`` return, where that is faster than one after the other.
    """

    trace: Callable[[Array, Array], tuple[Array, Array]]
    jacobian: Callable[[Array, Array], Entries]
    centres: Array = field(default_factory=lambda: np.zeros((0, 2)))
    limits: Limits | None = None
    cell: float | None = None
    symmetric: bool = True
    both: Callable[[Array, Array], tuple[tuple[Array, Array], Entries]] | None = None

    def all_at(self, x: Array, y: Array) -> tuple[tuple[Array, Array], Entries]:
        """What ``trace`` and ``jacobian`` say."""
        return (self.trace(x, y), self.jacobian(x, y)) if self.both is None else self.both(x, y)

    def eigenvalues(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Tangential and radial eigenvalue; equal where they would be complex."""
        xx, xy, yx, yy = self.jacobian(x, y)
        mean, square = (xx + yy) / 2, ((xx - yy) / 2) ** 2 + xy * yx
        root = np.sqrt(np.maximum(square, 0))
        return mean - root, mean + root

    def smallest(self, x: Array, y: Array) -> Array:
        """Smaller singular value of the Jacobian, with the sign of its determinant, which has poles."""
        xx, xy, yx, yy = self.jacobian(x, y)
        return (np.hypot(xx + yy, yx - xy) - np.hypot(xx - yy, xy + yx)) / 2

    def determinant(self, x: Array, y: Array) -> Array:
        """Inverse of the signed magnification."""
        xx, xy, yx, yy = self.jacobian(x, y)
        return xx * yy - xy * yx


def common_limits(*limits: Limits) -> Limits:
    """Centre and half-widths of the rectangle that several share; these are below 0 if there is none."""
    low, high = (np.array([[c[k] + sign * c[k + 2] for k in (0, 1)] for c in limits]) for sign in (-1, 1))
    (x_1, y_1), (x_2, y_2) = low.max(axis=0), high.min(axis=0)
    return (x_1 + x_2) / 2, (y_1 + y_2) / 2, (x_2 - x_1) / 2, (y_2 - y_1) / 2


def rays_of(lens: Any) -> Rays:
    """The map of a lens: what its ``_ray_map`` returns, or one made of its public methods."""
    if hasattr(lens, "_ray_map"):
        return lens._ray_map()

    def trace(x: Array, y: Array) -> tuple[Array, Array]:
        ax, ay = lens.deflection(x, y)
        return x - ax, y - ay

    def jacobian(x: Array, y: Array) -> Entries:
        rows = lens.jacobian(x, y)
        return rows[..., 0, 0], rows[..., 0, 1], rows[..., 1, 0], rows[..., 1, 1]

    return Rays(trace, jacobian, symmetric=False)


def several_planes(lens: Any, centres: Array) -> Rays:
    """The map of lenses at several redshifts, of its inner methods on numbers."""
    numbers, params = lens.vector.tolist(), lens.vector.unbind()

    def trace(x: Array, y: Array) -> tuple[Array, Array]:
        ax, ay = torch.zeros(len(x), dtype=torch.float64), torch.zeros(len(x), dtype=torch.float64)
        lens._add_deflection(ax, ay, torch.from_numpy(x), torch.from_numpy(y), *numbers)
        return x - ax.numpy(), y - ay.numpy()

    def jacobian(x: Array, y: Array) -> Entries:
        xx, xy, yx, yy = lens._jacobian(torch.from_numpy(x), torch.from_numpy(y), *params)
        return xx.numpy(), xy.numpy(), yx.numpy(), yy.numpy()

    return Rays(trace, jacobian, centres, lens._field, symmetric=False)


def single_plane(components: Any, centres: list[tuple[float, float]], limits: Limits | None) -> Rays:
    """The map of mass models that act together in one plane, without the cost of their boundary."""
    parts = [(c, [p.value for p in c.parameters], c.vector.unbind()) for c in components]
    kernels = [c._add_hessian for c in components]
    cells = [c.pixel_scale for c in components if c._field is not None]

    def trace(x: Array, y: Array) -> tuple[Array, Array]:
        tx, ty = torch.from_numpy(x), torch.from_numpy(y)
        ax, ay = torch.zeros_like(tx), torch.zeros_like(ty)
        for component, numbers, _ in parts:
            component._add_deflection(ax, ay, tx, ty, *numbers)
        return x - ax.numpy(), y - ay.numpy()

    def jacobian(x: Array, y: Array) -> Entries:
        return second(x, y, None)

    def both(x: Array, y: Array) -> tuple[tuple[Array, Array], Entries]:
        alpha = torch.zeros(len(x), dtype=torch.float64), torch.zeros(len(x), dtype=torch.float64)
        entries = second(x, y, alpha)
        return (x - alpha[0].numpy(), y - alpha[1].numpy()), entries

    def second(x: Array, y: Array, alpha: tuple[Tensor, Tensor] | None) -> Entries:
        """The Jacobian; the deflection is added to ``alpha``, which is little more work for some models."""
        tx, ty = torch.from_numpy(x), torch.from_numpy(y)
        entries = np.zeros((3, len(x)))
        sums = torch.from_numpy(entries).unbind()
        for kernel, (component, numbers, params) in zip(kernels, parts, strict=True):
            if kernel is not None:
                kernel(*sums, tx, ty, *numbers, alpha=alpha)
                continue
            if alpha is not None:
                component._add_deflection(*alpha, tx, ty, *numbers)
            for total, entry in zip(sums, component._hessian(tx, ty, *params), strict=True):
                total += entry
        np.negative(entries, out=entries)
        xx, xy, yy = entries
        xx += 1
        yy += 1
        return xx, xy, xy, yy

    places = np.unique(np.array(centres, dtype=np.float64).reshape(-1, 2), axis=0)
    return Rays(trace, jacobian, places, limits, min(cells, default=None), both=both)
