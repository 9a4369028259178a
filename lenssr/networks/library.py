"""The weights that come with lenssr, by name."""

from pathlib import Path

from lenssr.exceptions import InputError
from lenssr.networks.weights import load_weights

__all__ = ["available", "find", "load"]

FOLDER = Path(__file__).parent / "pretrained"


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
    return tuple(sorted(path.stem for path in FOLDER.glob("*.safetensors")))


def find(weights):
    """The file that holds weights.

    Parameters
    ----------
    weights : str or `~pathlib.Path`
        One of `available`, or a file of `save_weights`.

    Returns
    -------
    path : `~pathlib.Path`

    Raises
    ------
    InputError
        If there are none of this name, and no such file.
    """
    if isinstance(weights, str) and weights in available():
        return FOLDER / f"{weights}.safetensors"
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
        What it has to be; by default any.

    Returns
    -------
    network : `SISR`, `RelensingNetwork` or `DeflectionNetwork`
    card : `Card`
        Where it comes from, and where it holds.

    Raises
    ------
    InputError
        If there are none of this name, or as `load_weights` does.
    ImportError
        If safetensors is not installed (extra ``networks``).
    """
    return load_weights(find(weights), kind=kind)
