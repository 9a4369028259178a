"""Speed of training: milliseconds an image that a recipe's step takes, and how long it waits for data.

Batches are simulated in a thread of their own while the network learns from those before. Recipes run as they
are, on the CPU, with as many threads as they ask for, or else two. Medians of the steps that are logged; what
all steps of the recipe would take at that pace is told too.

    python benchmarks/training.py [--steps 100] [--recipes deflection relensing]
"""

import argparse
import csv
import tempfile
from pathlib import Path

import common
import numpy as np
import torch

from lenssr.training import Recipe, recipe_names, train

THREADS = 2
# The first steps that are logged make tables and cameras.
LEFT_OUT = 2


def measure(name, steps):
    changes = {"steps": steps, "check_every": steps, "warmup": 0}
    changes = {f"optimisation.{key}": value for key, value in changes.items()}
    recipe = Recipe.load(name, {**changes, "hardware.accelerator": "cpu"})
    every = Recipe.load(name).optimisation.steps
    with tempfile.TemporaryDirectory() as folder:
        train(recipe, folder)
        (log,) = Path(folder).rglob("metrics.csv")
        rows = [row for row in csv.DictReader(log.open(encoding="utf-8")) if row["seconds"]]
    seconds, waited = (
        np.array([float(row[key]) for row in rows[LEFT_OUT:]]) for key in ("seconds", "waited")
    )
    size = recipe.optimisation.batch_size
    each = 1000 * np.median(seconds) / size, 1000 * np.median(waited) / size
    return (
        *(name, recipe.hardware.threads or THREADS, size),
        *(f"{value:.1f}" for value in each),
        f"{np.sum(waited) / np.sum(seconds):.0%}",
        *(every, f"{np.median(seconds) * every / 60:.1f}"),
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100)
    every = recipe_names()
    small = [name for name in every if not name.startswith("seed-")]  # those want a GPU
    parser.add_argument("--recipes", nargs="+", default=small, choices=every)
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    common.header("Training beside simulation", threads="two cores", steps=arguments.steps)
    rows = [measure(name, arguments.steps) for name in arguments.recipes]
    columns = ["recipe", "threads", "batch", "ms an image", "of these waiting for data", "share of all steps"]
    common.table([*columns, "steps", "minutes"], rows)


if __name__ == "__main__":
    main()
