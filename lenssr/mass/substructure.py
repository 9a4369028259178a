"""Deflection by many point masses, the substructure of a lens."""

import torch

from lenssr.mass.blocks import CORE, tracked

__all__ = ["point_masses_deflection"]

# Pairs of a mass and a ray at once, on a CPU (they fit into the cache) and elsewhere; least rays at once.
_CPU_PAIRS, _GPU_PAIRS = 2**17, 2**26
_FEWEST_RAYS = 256


def point_masses_deflection(x, y, theta_E, x_0, y_0):
    """Deflection (B, R) by point masses, the sum of theta_E^2 / r; a mass on a ray does not deflect it.

    Positions of rays, broadcastable with (B, R), and ``theta_E``, ``x_0``, ``y_0`` (B, N) are in arcsec;
    theta_E = 0 is no mass. With the weights ``w_i = theta_E_i^2 / r_i^2`` the sum of ``w_i (x - x_i)`` is ``x
    sum(w_i) - sum(w_i x_i)``; both sums over masses are matrix products, and only the weights are computed
    for each pair, a block of rays at a time. In float32 a deflection is right within 2e-5 arcsec if a ray
    keeps a tenth of the Einstein radius away from each mass of 0.1" and less; in float64 within 1e-12.

    >>> import torch
    >>> from lenssr.mass.substructure import point_masses_deflection
    >>> x, x_0, zero = torch.tensor([[0.0, 2.0]]), torch.tensor([[-1.0, 1.0]]), torch.zeros(1, 2)
    >>> point_masses_deflection(x, zero, torch.tensor([[0.3, 0.3]]), x_0, zero)
    (tensor([[0.0000, 0.1200]]), tensor([[0., 0.]]))
    """
    rays = torch.broadcast_shapes(x.shape, y.shape, (theta_E.shape[0], 1))
    x, y = x.expand(rays), y.expand(rays)
    mass = theta_E * theta_E
    moments = torch.stack((mass, mass * x_0, mass * y_0), dim=-2)
    inverse = _inverse_squares if tracked(x, y, theta_E, x_0, y_0) else _inverse_squares_in_place
    sums = _in_blocks(inverse, x, y, x_0, y_0, moments)
    if not bool(torch.isfinite(sums).all()):
        # A ray meets a mass, which is too rare to check each pair from the start.
        sums = _in_blocks(_inverse_squares_or_zero, x, y, x_0, y_0, moments)
    total, towards_x, towards_y = sums.unbind(-2)
    return x * total - towards_x, y * total - towards_y


def _in_blocks(inverse, x, y, x_0, y_0, moments):
    """Sums over masses of moments over squared distances, shape (B, 3, R)."""
    x_0, y_0, x, y = x_0.unsqueeze(-1), y_0.unsqueeze(-1), x.unsqueeze(-2), y.unsqueeze(-2)
    held = _CPU_PAIRS if x.device.type == "cpu" else _GPU_PAIRS
    step = max(_FEWEST_RAYS, held // max(x_0.numel(), 1))
    blocks = zip(x.split(step, dim=-1), y.split(step, dim=-1), strict=True)
    return torch.cat([moments @ inverse(xs - x_0, ys - y_0) for xs, ys in blocks], dim=-1)


def _inverse_squares(dx, dy):
    return torch.addcmul(dx * dx, dy, dy).reciprocal()


def _inverse_squares_in_place(dx, dy):
    return dx.square_().addcmul_(dy, dy).reciprocal_()


def _inverse_squares_or_zero(dx, dy):
    square = torch.addcmul(dx * dx, dy, dy)
    return torch.where(square > CORE**2, square, torch.inf).reciprocal()
