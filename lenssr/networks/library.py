"""The weights that come with lenssr, by name."""

from pathlib import Path

from lenssr.exceptions import InputError
from lenssr.networks.weights import load_weights

__all__ = ["available", "find", "load"]

PRETRAINED_FOLDER = Path(__file__).parent / "pretrained"


def available():
    """Names of the weights that come with lenssr.

    Returns
    -------
    names : tuple of str

    Examples
    --------
    >>> from lenssr.networks import available
    >>> isinstance(available(), tuple)
    True
    """
    return tuple(sorted(path.stem for path in PRETRAINED_FOLDER.glob("*.safetensors")))


def find(weights):
    """Path of the file of weights: one of `available`, or a file; `InputError` if there is none."""
    if isinstance(weights, str) and weights in available():
        return PRETRAINED_FOLDER / f"{weights}.safetensors"
    if isinstance(weights, str | Path) and Path(weights).is_file():
        return Path(weights)
    raise InputError(
        f"weights = {str(weights)!r}: no file, and none that come with lenssr; these are "
        f"{', '.join(map(repr, available())) or 'not installed'}"
    )


def load(weights, *, kind=None):
    """Read a network that comes with lenssr, or one from a file.

    Parameters
    ----------
    weights : str or `~pathlib.Path`
        One of `available`, or a file of `save_weights`.
    kind : {"SISR", "RelensingNetwork", "DeflectionNetwork"}, optional
        Required kind; by default any.

    Returns
    -------
    network : `SISR`, `RelensingNetwork` or `DeflectionNetwork`
    card : `Card`
        Its origin, and the ranges of its training data.

    Raises
    ------
    InputError
        If there are none of this name, or as `load_weights` does.
    ImportError
        If safetensors is not installed (extra ``networks``).
    """
    return load_weights(find(weights), kind=kind)
