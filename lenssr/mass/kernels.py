"""Shared parts of the pure functions of mass models: regularisation, ellipses, sums over blocks of rays.

A pass over memory as large as all rays costs more than its arithmetic. So where no derivative is taken, a
model may offer a kernel ``add(ax, ay, x, y, *numbers)`` that adds its deflection in place, block by block,
and one ``add(xx, xy, yy, x, y, *numbers, alpha=None)`` that adds second derivatives and, if ``alpha`` is a
pair of tensors, its deflection to them.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor

Real = Tensor | float
Pair = tuple[Tensor, Tensor]
Triple = tuple[Tensor, Tensor, Tensor]
WithJacobian = tuple[Tensor, Tensor, Tensor, Tensor]

CORE = 1e-9
"""Radius in arcsec inside which singular models are regularised; far below what can be measured."""

FAR = 1e30
"""Squared radius in arcsec2 that stands for infinity."""

BLOCK = 32768
"""Rays in a block: ten float64 arrays of this size fit into the cache, and malloc reuses them."""


def lift(x: Real, y: Real, *params: Real) -> tuple[Tensor, ...]:
    """Positions and parameters as floating-point tensors; numbers get the type of the positions."""
    x = torch.as_tensor(x)
    x = x if x.is_floating_point() else x.to(torch.float64)
    kind: Any = {"dtype": x.dtype, "device": x.device}
    others = (p if isinstance(p, Tensor) else torch.as_tensor(p, **kind) for p in params)
    return x, torch.as_tensor(y, **kind), *others


def centred(x: Real, y: Real, *params: Real) -> tuple[Tensor, ...]:
    """Positions relative to the centre and the other parameters, for the pure function of a mass model.

    Parameters
    ----------
    x, y : `torch.Tensor` or float
        Positions in arcsec.
    *params : `torch.Tensor` or float
        Parameters, the last two of which are the centre in arcsec.

    Returns
    -------
    x, y, *others : `torch.Tensor`
        All but the centre; numbers get the type of the positions.

    Examples
    --------
    >>> from lenssr.mass import centred
    >>> centred(1.0, 2.0, 1.2, 0.5, 0.0)
    (tensor(0.5000), tensor(2.), tensor(1.2000))
    """
    x, y, *others, x_0, y_0 = lift(x, y, *params)
    return x - x_0, y - y_0, *others


def safe_divisor(square: Tensor) -> Tensor:
    """Squared radius to divide by: very large inside the core, where the quotient then vanishes."""
    return torch.nn.functional.threshold(square, CORE**2, FAR)


# ---------------------------------------------------------------- ellipses without angles


def times(ax: Tensor, ay: Tensor, bx: Tensor, by: Tensor) -> Pair:
    """Product of complex numbers in real arithmetic."""
    return ax * bx - ay * by, ax * by + ay * bx


def elliptical(x: Tensor, y: Tensor, e1: Tensor, e2: Tensor) -> Pair:
    """Real and imaginary part of zeta = w - e conj(w), for w = x + i y and e = e1 + i e2.

    Its modulus is the elliptical radius times sqrt(1 - e^2). Without angles it is smooth at e = 0.
    """
    return (1 - e1) * x - e2 * y, (1 + e1) * y - e2 * x


def argument(nx: Tensor, ny: Tensor, e1: Tensor, e2: Tensor) -> Triple:
    """Real and imaginary part of v = -conj(e) n^2, and its squared modulus e^2, for a unit vector n."""
    cos, sin = nx * nx - ny * ny, 2 * nx * ny
    return -(e1 * cos + e2 * sin), e2 * cos - e1 * sin, e1 * e1 + e2 * e2


def e_range(e1: Tensor, e2: Tensor) -> tuple[float, float]:
    """Smallest and largest ellipticity of a batch."""
    square = (e1 * e1 + e2 * e2).detach()
    return math.sqrt(square.min().item()), math.sqrt(square.max().item())


def number_of_terms(largest: float, dtype: torch.dtype) -> int:
    """Real of terms of a power series in u for the precision of dtype, with |u| at most ``largest``."""
    if largest == 0:
        return 2
    return max(2, math.ceil(math.log(torch.finfo(dtype).eps / 2) / math.log(min(largest, 0.999))))


def power_series(coefficients: Sequence[Real], re: Tensor, im: Tensor, square: Tensor) -> Pair:
    """Sum of a_k z^k, a_k real, z = re + i im, square = |z|^2, by Clenshaw's recurrence, real arithmetic."""
    twice = 2 * re
    b0, b1 = coefficients[-1] + torch.zeros_like(re), torch.zeros_like(re)
    for a in reversed(coefficients[:-1]):
        b0, b1 = torch.addcmul(a - square * b1, twice, b0), b0
    return b0 - re * b1, im * b1


# ---------------------------------------------------------------- without derivatives, block by block

WIDE = torch.backends.cpu.get_cpu_capability() == "AVX512"
"""Whether numpy's transcendental functions are two to three times faster than torch's, rather than slower."""


def in_place(name: str, values: Tensor) -> Tensor:
    """A function by its name in numpy and torch, in place, by the one that is faster on this machine."""
    # numpy's square root is always the faster one.
    if WIDE or name == "sqrt":
        array = values.numpy()
        getattr(np, name)(array, out=array)
        return values
    return getattr(torch, name)(values, out=values)


def tracked(*tensors: Tensor) -> bool:
    """Whether a derivative, in either mode, is taken through one of the tensors."""
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return True
    return any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors)


def plain_numbers(x: Tensor, y: Tensor, *params: Tensor) -> tuple[float, ...] | None:
    """Parameters as floats, for kernels on numbers; None where these cannot be used.

    They need one model, on the CPU, in float32 or float64, and no derivatives.
    """
    if x.device.type != "cpu" or x.shape != y.shape or any(p.numel() != 1 for p in params):
        return None
    if x.dtype not in (torch.float32, torch.float64) or y.dtype != x.dtype:
        return None
    if any(p.ndim > x.ndim for p in params) or tracked(x, y, *params) or not _has_memory(x, y):
        return None
    return tuple(p.item() for p in params)


def _has_memory(*tensors: Tensor) -> bool:
    """Whether numpy can read the tensors, which it cannot inside a ``torch.func.vmap``."""
    try:
        for tensor in tensors:
            tensor.detach().numpy()
    except RuntimeError:
        return False
    return True


def sum_in_blocks(x: Tensor, y: Tensor, *terms: tuple[Callable[..., None], Sequence[float]]) -> Pair:
    """Sum of deflections (in arcsec, of the shape of x and y) of several models, block by block, on the CPU.

    Each term is a kernel ``add(ax, ay, x, y, *numbers)``, which adds in place and leaves x and y alone, and
    its numbers.
    """
    flat_x, flat_y = x.reshape(-1), y.reshape(-1)
    # numpy gets huge pages from the system, which is six times faster; memory of one array is used again.
    kind = flat_x[:0].detach().numpy().dtype
    alpha_x, alpha_y = torch.from_numpy(np.empty((2, len(flat_x)), dtype=kind)).unbind()
    # Blocks of equal length: a short last one would cost as many calls as a full one.
    number = math.ceil(len(flat_x) / BLOCK)
    for k in range(number):
        block = slice(k * len(flat_x) // number, (k + 1) * len(flat_x) // number)
        ax, ay = alpha_x[block].zero_(), alpha_y[block].zero_()
        for add, numbers in terms:
            add(ax, ay, flat_x[block], flat_y[block], *numbers)
    return alpha_x.reshape(x.shape), alpha_y.reshape(x.shape)


def in_blocks(formula: Callable[..., Pair], x: Real, y: Real, *params: Real) -> Pair:
    """Deflection by a formula ``(x, y, *params)``, block by block where no derivative is taken."""
    x, y, *lifted = lift(x, y, *params)
    numbers = plain_numbers(x, y, *lifted)
    if numbers is None:
        return formula(x, y, *lifted)

    def add(ax: Tensor, ay: Tensor, x: Tensor, y: Tensor, *numbers: float) -> None:
        dx, dy = formula(x, y, *(x.new_tensor(number) for number in numbers))
        ax.add_(dx)
        ay.add_(dy)

    return sum_in_blocks(x, y, (add, numbers))
