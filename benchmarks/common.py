"""What the benchmarks share: tables, and many images put through a resolver. Import it before torch."""

import os

# One thread for everybody; read when numpy and torch are imported.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[name] = "1"

import argparse
import importlib.metadata
import json
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch
from tqdm import tqdm

from lenssr import SIE, Shear, SuperResolver
from lenssr.mass import MassSystem

__all__ = [
    "as_fitted",
    "deep_lense_cells",
    "header",
    "in_processes",
    "numbers_of",
    "parser_of",
    "peak_memory",
    "resolve",
    "right_lens",
    "table",
]

torch.set_num_threads(1)
# How far an Einstein radius may be off.
WITHIN = 0.01
CHI2_FLAGS = {"bad_chi2", "bad_arc_chi2"}
MEMORY_SCRIPT = """
import os, sys
os.environ["OMP_NUM_THREADS"] = "1"

def high_water():
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024**2
    except OSError:  # not Linux; there it is in bytes
        import resource
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**3

import torch
from lenssr import *
import lenssr.imaging, lenssr.simulation, lenssr.reconstruction.{module}
for name, value in {constants}.items():
    setattr(lenssr.reconstruction.{module}, name, value)
torch.set_num_threads(1)
before = high_water()
result = SuperResolver(scale=2, **eval(sys.argv[2]))(sys.argv[1])
print(high_water() - before, result.image.shape)
"""


def table(columns, rows):
    """Print rows of text as a markdown table whose columns line up; an empty line follows."""
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(line[k]) for line in (columns, *rows)) for k in range(len(columns))]
    rule = ["-" * width for width in widths]
    for line in (columns, rule, *rows):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |")
    print(flush=True)


def header(title, *, threads="one thread", **settings):
    """Print what ran: a title, the settings, the versions, and on how many threads."""
    versions = (f"{name} {importlib.metadata.version(name)}" for name in ("lenssr", "torch", "numpy"))
    print(title)
    print(", ".join([*(f"{name} {value}" for name, value in settings.items()), *versions, threads]))
    print(flush=True)


def parser_of(doc, number, what, seed):
    """Options that scripts share: how many of what, the seed, processes."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("-n", type=int, default=number, help=what)
    parser.add_argument("--seed", type=int, default=seed)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    return parser


def in_processes(function, tasks, jobs=1):
    """Yield the results of a function for many arguments, in order, from one process or from several."""
    bar = {"total": len(tasks), "disable": None}  # shown where somebody watches
    if jobs == 1:
        yield from (function(*task) for task in tqdm(tasks, **bar))
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(function, *task) for task in tasks]
        yield from (future.result() for future in tqdm(futures, **bar))


def resolve(cases):
    """Super-resolve many images, those with equal settings together.

    Parameters
    ----------
    cases : list of (image, given, settings)
        An image, the keywords ``noise`` and ``psf`` that come with it, and the options of its resolver.

    Returns
    -------
    results : list
        In the order of the cases.
    """
    groups = {}
    for number, (_, _, settings) in enumerate(cases):
        groups.setdefault(repr(sorted(settings.items())), []).append(number)
    results = [None] * len(cases)
    for numbers in groups.values():
        images, given, settings = zip(*(cases[number] for number in numbers), strict=True)
        extras = {name: [each.get(name) for each in given] for name in ("noise", "psf")}
        for number, result in zip(numbers, SuperResolver(**settings[0]).map(images, **extras), strict=True):
            results[number] = result
    return results


def deep_lense_cells():
    """Settings of the four cells of Model I by name."""
    return {
        f"{lens.upper()} {'noisy' if noise else 'clean'}": {"lens": lens, "noise": noise}
        for lens in ("sis", "sie")
        for noise in (False, True)
    }


def as_fitted(lens):
    """The true lens as the family that is fitted where it is unknown: SIE + shear."""
    if isinstance(lens, MassSystem):
        return lens
    values = dict(zip(lens.param_names, lens.vector.tolist(), strict=True))
    return SIE(**{"e1": 0.0, "e2": 0.0, **values}) + Shear(0.0, 0.0)


def right_lens(result, item):
    """Whether a fitted Einstein radius is right, and the image explained."""
    if not result:
        return False
    offset = abs(result.lens.theta_E.value / item.lens.theta_E.value - 1)
    return offset < WITHIN and not CHI2_FLAGS & set(result.flags)


def numbers_of(result):
    """The measures behind a verdict as one line of text."""
    if not result:
        return str(result)
    measures = result.meta.get("measures", {})
    return json.dumps({name: _rounded(value) for name, value in measures.items()})


def peak_memory(path, options, module, constants=None):
    """Memory above the import, in GB, that super-resolving a file takes in a process of its own.

    Parameters
    ----------
    path : path
    options : dict
        Of the resolver.
    module : str
        The module of `lenssr.reconstruction` that is part of the import.
    constants : dict, optional
        Values that constants of this module are to have, by name.
    """
    script = MEMORY_SCRIPT.replace("{module}", module).replace("{constants}", repr(constants or {}))
    command = [sys.executable, "-c", script, str(path), repr(options)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[0])


def _rounded(value):
    return [_rounded(v) for v in value] if isinstance(value, list) else float(f"{value:.3g}")


def one_or_more(words):
    """The only one of some words, or all of them."""
    return words[0] if len(words) == 1 else words
