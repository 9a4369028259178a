"""The ``lenssr train`` command."""

from pathlib import Path

import yaml

from lenssr.exceptions import InputError
from lenssr.training.loop import train
from lenssr.training.recipe import Recipe

__all__ = ["read_changes", "run"]


def run(source, folder=None, changes=(), *, resume=False, progress=False):
    """Train by a recipe (file or name); options and result are those of `~lenssr.training.train`."""
    recipe = Recipe.load(source, read_changes(changes))
    folder = folder or f"train-{Path(source).stem}"
    return train(recipe, folder, resume=resume, progress=progress)


def read_changes(texts):
    """Changes of a recipe from texts ``KEY=VALUE``, values in YAML.

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
