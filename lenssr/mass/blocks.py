"""Sums of deflections in blocks of rays that fit into the cache, in place.

A pass over memory as large as all rays costs more than its arithmetic. So where no derivative is taken, a
model may offer a kernel ``add(ax, ay, x, y, *numbers)`` that adds its deflection in place.
"""

import math

import numpy as np
import torch
import torch.autograd.forward_ad as forward_ad

__all__ = ["BLOCK", "CORE", "lift", "plain_numbers", "sum_in_blocks", "tracked"]

CORE = 1e-9
"""Radius in arcsec inside which singular models are regularised; far below what can be measured."""

BLOCK = 32768
"""Rays in a block: ten float64 arrays of this size fit into the cache, and malloc reuses them."""


def lift(x, y, *params):
    """Positions and parameters as floating-point tensors; numbers get the type of the positions."""
    x = torch.as_tensor(x)
    x = x if x.is_floating_point() else x.to(torch.float64)
    y = torch.as_tensor(y, dtype=x.dtype, device=x.device)
    params = (
        p if isinstance(p, torch.Tensor) else torch.as_tensor(p, dtype=x.dtype, device=x.device)
        for p in params
    )
    return x, y, *params


def tracked(*tensors):
    """Whether a derivative, in either mode, is taken through one of the tensors."""
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return True
    return any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors)


def plain_numbers(x, y, *params):
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


def _has_memory(*tensors):
    """Whether numpy can read the tensors; those inside a ``torch.func.vmap`` it cannot."""
    try:
        for tensor in tensors:
            tensor.detach().numpy()
    except RuntimeError:
        return False
    return True


def _empty(flat):
    """Memory for a result: numpy gets huge pages from the system, which is six times faster."""
    return torch.from_numpy(np.empty(flat.shape, dtype=flat[:0].detach().numpy().dtype))


def sum_in_blocks(x, y, *terms):
    """Sum of deflections (in arcsec, of the shape of x and y) of several models, block by block, on the CPU.

    Each term is a kernel ``add(ax, ay, x, y, *numbers)``, which adds in place and leaves x and y alone, and
    its numbers.
    """
    flat_x, flat_y = x.reshape(-1), y.reshape(-1)
    results = _empty(flat_x), _empty(flat_x)
    # Equal blocks: a short last one would cost as many calls as a full one.
    number = math.ceil(len(flat_x) / BLOCK)
    for k in range(number):
        block = slice(k * len(flat_x) // number, (k + 1) * len(flat_x) // number)
        ax, ay = (result[block].zero_() for result in results)
        for add, numbers in terms:
            add(ax, ay, flat_x[block], flat_y[block], *numbers)
    return tuple(result.reshape(x.shape) for result in results)
