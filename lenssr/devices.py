"""Where tensors live."""

import torch

from lenssr.exceptions import InputError

__all__ = ["choose_device"]


def choose_device(name):
    """Find the device that an option names.

    Parameters
    ----------
    name : str
        "auto" is CUDA where there is one, else the CPU.

    Returns
    -------
    device : `torch.device`

    Raises
    ------
    InputError
        If it is not there.

    Examples
    --------
    >>> from lenssr.devices import choose_device
    >>> choose_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise InputError(f"device = {name!r} is not available here: give 'cpu' or 'auto'") from error
    return device
