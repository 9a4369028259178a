"""Jacobians of the pure functions by forward-mode differentiation."""

import warnings

import torch
import torch.autograd.forward_ad as forward_ad

__all__ = ["forward_jacobian"]


def forward_jacobian(function, parameters):
    """Value and derivatives of a function of a few parameters and many points.

    One pass computes all derivatives: the parameters are repeated along a new leading axis, each copy
    carrying the tangent of another parameter. No ``vmap`` is involved, so the function may branch on
    the values of its parameters.

    Parameters
    ----------
    function : callable
        Takes P tensors of shape (B, 1), returns a tensor of shape (B, R), or a tuple of them.
    parameters : `torch.Tensor`, shape (B, P)
        Where to differentiate.

    Returns
    -------
    value : `torch.Tensor`, shape (B, R), or a tuple of them
    jacobian : `torch.Tensor`, shape (B, P, R), or a tuple of them
    """
    number = parameters.shape[1]
    repeated = parameters.unsqueeze(0).expand(number, *parameters.shape).contiguous()
    tangents = torch.eye(number, dtype=parameters.dtype, device=parameters.device)
    tangents = tangents.unsqueeze(1).expand_as(repeated).contiguous()
    with forward_ad.dual_level():
        with warnings.catch_warnings():
            # The first call in a process imports a part of torch that uses what torch itself deprecates.
            warnings.simplefilter("ignore", DeprecationWarning)
            dual = forward_ad.make_dual(repeated, tangents)
        results = function(*(dual[..., k : k + 1] for k in range(number)))
        single = isinstance(results, torch.Tensor)
        pairs = [forward_ad.unpack_dual(result) for result in ((results,) if single else results)]
    values = tuple(pair.primal[0] for pair in pairs)
    jacobians = tuple(
        (torch.zeros_like(pair.primal) if pair.tangent is None else pair.tangent).movedim(0, 1)
        for pair in pairs
    )
    return (values[0], jacobians[0]) if single else (values, jacobians)
