"""Evaluate the pure functions of mass models in blocks that stay in the processor's cache."""

import math

import numpy as np
import torch
import torch.autograd.forward_ad as forward_ad

__all__ = ["BLOCK", "CORE", "in_blocks", "lift", "plain_numbers", "tracked"]

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
    """Parameters as floats where a kernel on numbers may be used, otherwise None.

    It may where there is one model, on the CPU, and nothing is being differentiated.
    """
    if x.device.type != "cpu" or x.shape != y.shape or any(p.numel() != 1 for p in params):
        return None
    if any(p.ndim > x.ndim for p in params) or tracked(x, y, *params):
        return None
    return tuple(p.item() for p in params)


def _empty_like(flat):
    """Memory for a result: numpy asks the system for huge pages, which are six times faster to get."""
    return torch.from_numpy(np.empty(flat.shape, dtype=flat[:0].detach().numpy().dtype))


def in_blocks(function, x, y, *params):
    """Evaluate a function that acts on each ray alone, block by block where that pays.

    Parameters
    ----------
    function : callable
        Takes x, y and parameters, returns a tuple of tensors.
    x, y : `torch.Tensor`
        Positions in arcsec.
    *params : `torch.Tensor`
        Parameters that broadcast with the positions.

    Returns
    -------
    results : tuple of `torch.Tensor`
    """
    if x.numel() <= BLOCK or x.dtype == torch.bfloat16 or plain_numbers(x, y, *params) is None:
        return function(x, y, *params)
    flat_x, flat_y = x.reshape(-1), y.reshape(-1)
    params = [p.reshape(()) for p in params]
    results = None
    # equal blocks: a short last one would cost as many calls as a full one
    size = math.ceil(len(flat_x) / math.ceil(len(flat_x) / BLOCK))
    for start in range(0, len(flat_x), size):
        block = slice(start, start + size)
        parts = function(flat_x[block], flat_y[block], *params)
        if results is None:
            results = tuple(_empty_like(flat_x) for _ in parts)
        for result, part in zip(results, parts, strict=True):
            result[block] = part
    return tuple(result.reshape(x.shape) for result in results)
