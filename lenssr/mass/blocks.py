"""Sum deflections in blocks of rays that stay in the processor's cache, in place.

A pass over memory as large as all rays costs more than the arithmetic in it. So where nothing is being
differentiated a model may offer a kernel ``add(ax, ay, x, y, *numbers)`` that adds its deflection in place.
"""

import math

import numpy as np
import torch
import torch.autograd.forward_ad as forward_ad

__all__ = ["BLOCK", "CORE", "lift", "plain_numbers", "sum_in_blocks", "tracked"]

CORE = 1e-9
"""Radius in arcsec inside which singular models are regular: no angle there can be measured."""

BLOCK = 32768
"""Rays a block: ten float64 arrays of this size stay in the cache, and malloc keeps them for the next."""


def lift(x, y, *params):
    """Make floating-point tensors of positions and parameters; numbers follow the positions."""
    x = torch.as_tensor(x)
    x = x if x.is_floating_point() else x.to(torch.float64)
    y = torch.as_tensor(y, dtype=x.dtype, device=x.device)
    params = (
        p if isinstance(p, torch.Tensor) else torch.as_tensor(p, dtype=x.dtype, device=x.device)
        for p in params
    )
    return x, y, *params


def tracked(*tensors):
    """Whether a derivative, in either direction, is being taken through one of the tensors."""
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return True
    return any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors)


def plain_numbers(x, y, *params):
    """Parameters as floats where kernels on numbers may be used, otherwise None.

    They may where there is one model, on the CPU, in a type that numpy computes with, and nothing is being
    differentiated.
    """
    if x.device.type != "cpu" or x.shape != y.shape or any(p.numel() != 1 for p in params):
        return None
    if x.dtype not in (torch.float32, torch.float64) or y.dtype != x.dtype:
        return None
    if any(p.ndim > x.ndim for p in params) or tracked(x, y, *params) or not _has_memory(x, y):
        return None
    return tuple(p.item() for p in params)


def _has_memory(*tensors):
    """Whether numpy can see the tensors; those inside a ``torch.func.vmap`` it cannot."""
    try:
        for tensor in tensors:
            tensor.detach().numpy()
    except RuntimeError:
        return False
    return True


def _empty(flat):
    """Memory for a result: numpy asks the system for huge pages, which are six times faster to get."""
    return torch.from_numpy(np.empty(flat.shape, dtype=flat[:0].detach().numpy().dtype))


def sum_in_blocks(x, y, *terms):
    """Sum deflections at each ray, block by block.

    Parameters
    ----------
    x, y : `torch.Tensor`
        Positions in arcsec, of one shape, on the CPU.
    *terms : tuple of (callable, tuple of float)
        For each model the kernel ``add(ax, ay, x, y, *numbers)``, which adds a deflection to ax and ay in
        place and leaves x and y alone, and its numbers.

    Returns
    -------
    alpha_x, alpha_y : `torch.Tensor`
        Of the shape of the positions, in arcsec.
    """
    flat_x, flat_y = x.reshape(-1), y.reshape(-1)
    results = _empty(flat_x), _empty(flat_x)
    # equal blocks: a short last one would cost as many calls as a full one
    number = math.ceil(len(flat_x) / BLOCK)
    for k in range(number):
        block = slice(k * len(flat_x) // number, (k + 1) * len(flat_x) // number)
        ax, ay = (result[block].zero_() for result in results)
        for add, numbers in terms:
            add(ax, ay, flat_x[block], flat_y[block], *numbers)
    return tuple(result.reshape(x.shape) for result in results)
