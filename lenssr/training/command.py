"""What ``lenssr train`` does."""

from pathlib import Path

import yaml

from lenssr.exceptions import InputError
from lenssr.training.loop import train
from lenssr.training.recipe import Recipe

__all__ = ["read_changes", "run"]


def run(source, folder=None, changes=(), *, resume=False, progress=False):
    """Train by a recipe.

    Parameters
    ----------
    source : str
        A recipe's file or name.
    folder : str, optional
        By default ``train-`` and the name.
    changes : list of str, optional
        Such as ``"optimisation.steps=100"``.
    resume, progress : bool, optional
        As for `~lenssr.training.train`.

    Returns
    -------
    trained : `~lenssr.training.Trained`
    """
    recipe = Recipe.load(source, read_changes(changes))
    folder = folder or f"train-{Path(source).stem}"
    return train(recipe, folder, resume=resume, progress=progress)


def read_changes(texts):
    """Read ``KEY=VALUE``, values as YAML has them.

    Parameters
    ----------
    texts : list of str

    Returns
    -------
    changes : dict of str to object

    Raises
    ------
    InputError
        If a text has no key or no value, or the value is no YAML.

    Examples
    --------
    >>> from lenssr.training.command import read_changes
    >>> read_changes(["optimisation.steps=100", "network.channels=[8, 16]"])
    {'optimisation.steps': 100, 'network.channels': [8, 16]}
    """
    changes = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise InputError(f"--set {text}: write KEY=VALUE, for example optimisation.steps=100")
        try:
            changes[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InputError(f"--set {text}: {' '.join(str(error).split())}") from error
    return changes
