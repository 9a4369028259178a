"""Elliptical lenses of any profile, as sums over thin elliptical shells (homoeoids) by quadrature.

With w the position from the centre, zeta = w - e conj(w), n = zeta / abs(zeta), u = conj(e) n^2, and the
elliptical radius m = abs(zeta) / sqrt(1 - e^2), a shell at m t contributes kappa(m t) t dt times

- 2 zeta / sqrt(D) to the deflection, D = 1 + 2 u (1 - 2 t^2) + u^2,
- -2 (1 - e^2) n^2 (1 + u) / sqrt(D)^3 to the shear, besides kappa(m) omega / conj(omega), omega = zeta - e
conj(zeta),
- 2 m^2 ln(abs(1 + u + sqrt(D)) / 2t) to the potential, which is 0 at the centre.

These are the integrals of Bourassa & Kantowski 1975, ApJ 195, 13 (equation 13), and Schramm 1990, A&A 231,
19, without their branch cuts: abs(u) = e < 1, and 1 / sqrt(D) generates the Legendre polynomials of 2 t^2 -
1.
"""

import math
from collections.abc import Iterable
from functools import cache

import numpy as np
import torch
from torch import Tensor

from lenssr.mass.kernels import CORE, FAR, Pair, Real, Triple, elliptical, times

__all__ = [
    "Shells",
    "deflection",
    "elliptical_radius_squared",
    "gauss_nodes",
    "hessian",
    "potential",
    "precise_count",
]

Shells = Iterable[tuple[Tensor, Real]]
"""Pairs of kappa(m t) t dt and t^2 for the nodes of a quadrature over 0 < t < 1."""

PHASES = 32
"""Number of directions in which the singularity of a shell nearest to the quadrature is looked for."""


@cache
def gauss_nodes(number: int) -> list[tuple[float, float]]:
    """Nodes and weights of Gauss and Legendre on (0, 1)."""
    nodes, weights = np.polynomial.legendre.leggauss(number)
    return [((1 + float(node)) / 2, float(weight) / 2) for node, weight in zip(nodes, weights, strict=True)]


@cache
def precise_count(e: float, power: float, least: int = 16, most: int = 120) -> int:
    """Number of Gauss nodes in v for the kernel of shells with t^2 = v^power, to 1e-13.

    The kernel is singular where t^2 = (1 + u)^2 / 4u. Gauss's error falls as the square of the semi-axes' sum
    of the ellipse through it, whose foci are the ends of the interval.
    """
    if e == 0:
        return least
    u = e * np.exp(1j * np.linspace(0, np.pi, PHASES))
    z = 2 * ((1 + u) ** 2 / (4 * u)) ** (1 / power) - 1
    root = np.sqrt(z - 1) * np.sqrt(z + 1)
    size = np.maximum(np.abs(z + root), np.abs(z - root)).min()
    return int(min(max(least, math.ceil(math.log(1e-13) / (-2 * math.log(size)))), most))


def elliptical_radius_squared(x: Tensor, y: Tensor, e1: Tensor, e2: Tensor) -> Tensor:
    """Square of m = sqrt(q x^2 + y^2 / q), with x and y along the axes."""
    zx, zy = elliptical(x, y, e1, e2)
    return (zx * zx + zy * zy) / (1 - e1 * e1 - e2 * e2)


def _directions(x: Tensor, y: Tensor, e1: Tensor, e2: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """zeta, and u = conj(e) n^2, which is conj(e) at the centre."""
    zx, zy = elliptical(x, y, e1, e2)
    square = zx * zx + zy * zy
    central = square <= CORE**2
    inverse = 1 / square.where(~central, FAR)
    cos = ((zx * zx - zy * zy) * inverse).where(~central, 1.0)
    sin = (2 * zx * zy * inverse).where(~central, 0.0)
    return zx, zy, e1 * cos + e2 * sin, e1 * sin - e2 * cos


def _fixed(ux: Tensor, uy: Tensor) -> Tensor:
    """Part of D that all shells share."""
    return 1 + ux * ux - uy * uy


def _roots(ux: Tensor, uy: Tensor, fixed: Tensor, t_square: Real) -> Triple:
    """Square root of D, and the inverse of the modulus of D; ``fixed`` is 1 + Re(u^2).

    Inverse roots take a third of the time of roots.
    """
    side = 2 * t_square
    re = torch.addcmul(fixed, ux, 2 - 2 * side) if isinstance(side, Tensor) else fixed + (2 - 2 * side) * ux
    im = uy * (ux + (1 - side))
    square = torch.addcmul(re * re, im, im, value=4)
    inverse = torch.rsqrt(square)
    half = torch.addcmul(re, square, inverse) / 2
    other = torch.rsqrt(half)
    return half * other, im * other, inverse


def deflection(x: Tensor, y: Tensor, e1: Tensor, e2: Tensor, shells: Shells) -> Pair:
    """Deflection by shells, for positions from the centre."""
    zx, zy, ux, uy = _directions(x, y, e1, e2)
    fixed = _fixed(ux, uy)
    sx, sy = torch.zeros_like(ux), torch.zeros_like(ux)
    for weight, t_square in shells:
        rx, ry, inverse = _roots(ux, uy, fixed, t_square)
        share = weight * inverse
        sx, sy = torch.addcmul(sx, share, rx), torch.addcmul(sy, share, ry, value=-1)
    ax, ay = times(zx, zy, sx, sy)
    return 2 * ax, 2 * ay


def hessian(x: Tensor, y: Tensor, e1: Tensor, e2: Tensor, kappa: Tensor, shells: Shells) -> Triple:
    """Second derivatives xx, xy, yy of the potential of shells; kappa is the convergence at the positions."""
    zx, zy, ux, uy = _directions(x, y, e1, e2)
    fixed = _fixed(ux, uy)
    sx, sy = torch.zeros_like(ux), torch.zeros_like(ux)
    for weight, t_square in shells:
        rx, ry, inverse = _roots(ux, uy, fixed, t_square)
        # conj(sqrt(D)) cubed, over its modulus to the sixth power.
        px, py = times(rx, -ry, rx * rx - ry * ry, -2 * rx * ry)
        share = weight * inverse * inverse * inverse
        sx, sy = sx + share * px, sy + share * py
    sx, sy = times(1 + ux, uy, sx, sy)
    mean1, mean2 = times(*_squared_phase(zx, zy), sx, sy)
    own1, own2 = _squared_phase(*_omega(zx, zy, e1, e2))
    factor = 2 * (1 - e1 * e1 - e2 * e2)
    gamma1, gamma2 = kappa * own1 - factor * mean1, kappa * own2 - factor * mean2
    return kappa + gamma1, gamma2, kappa - gamma1


def potential(x: Tensor, y: Tensor, e1: Tensor, e2: Tensor, shells: Shells) -> Tensor:
    """Potential of shells, 0 at the centre, for positions from there."""
    _, _, ux, uy = _directions(x, y, e1, e2)
    total, fixed = torch.zeros_like(ux), _fixed(ux, uy)
    for weight, t_square in shells:
        rx, ry, _ = _roots(ux, uy, fixed, t_square)
        square = (1 + ux + rx) ** 2 + (uy + ry) ** 2
        total = total + weight * torch.log(square / (4 * t_square))
    return elliptical_radius_squared(x, y, e1, e2) * total


def _omega(zx: Tensor, zy: Tensor, e1: Tensor, e2: Tensor) -> Pair:
    """Omega = zeta - e conj(zeta); over 1 - e^2 it is half the gradient of m^2."""
    return zx - e1 * zx - e2 * zy, zy + e1 * zy - e2 * zx


def _squared_phase(x: Tensor, y: Tensor) -> Pair:
    """(w / abs(w))^2, 0 at the centre."""
    square = x * x + y * y
    inverse = 1 / square.where(square > CORE**2, FAR)
    return (x * x - y * y) * inverse, 2 * x * y * inverse
