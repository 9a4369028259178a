"""Tensors: where they live, and Jacobians of functions of them by forward-mode differentiation."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor

from lenssr._quiet import quiet
from lenssr.exceptions import InputError


@contextlib.contextmanager
def usual_torch() -> Iterator[None]:
    """Have torch work here as it does by default, whatever the modes of the caller; they come back after.

    Arithmetic needs derivatives, and makes its tensors on the CPU unless it says otherwise.
    """
    with contextlib.ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        if not torch.is_grad_enabled():
            stack.enter_context(torch.enable_grad())
        if torch.is_autocast_enabled("cpu"):
            stack.enter_context(torch.autocast("cpu", enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        yield


def choose_device(name: str) -> torch.device:
    """Device that an option names: "auto" is CUDA where there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # there are devices without values, such as "meta"
    except (RuntimeError, AssertionError, TypeError, ImportError) as error:
        raise InputError(f"device = {name!r} is not available here: give 'cpu' or 'auto'") from error
    return device


def forward_jacobian(function: Callable[..., Any], parameters: Tensor) -> tuple[Any, Any]:
    """Value (B, R) and derivatives (B, P, R) of a function of P tensors (B, 1), at ``parameters`` (B, P).

    A function that returns a tuple of tensors gives tuples. One pass computes all derivatives: the parameters
    are repeated along a new leading axis, each copy with the tangent of another parameter. There is no
    ``vmap``, so the function may branch on the values of its parameters.
    """
    number = parameters.shape[1]
    repeated = parameters.unsqueeze(0).expand(number, *parameters.shape).contiguous()
    tangents = torch.eye(number, dtype=parameters.dtype, device=parameters.device)
    tangents = tangents.unsqueeze(1).expand_as(repeated).contiguous()
    with forward_ad.dual_level():
        # The first call in a process imports a part of torch that uses what torch itself deprecates.
        with quiet(DeprecationWarning):
            dual = forward_ad.make_dual(repeated, tangents)
        results = function(*(dual[..., k : k + 1] for k in range(number)))
        single = isinstance(results, Tensor)
        pairs = [forward_ad.unpack_dual(result) for result in ((results,) if single else results)]
    values = tuple(pair.primal[0] for pair in pairs)
    slopes = (torch.zeros_like(one.primal) if one.tangent is None else one.tangent for one in pairs)
    jacobians = tuple(slope.movedim(0, 1) for slope in slopes)
    return (values[0], jacobians[0]) if single else (values, jacobians)
