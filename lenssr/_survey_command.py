"""The options of ``lenssr survey``, and what the command does; heavy imports wait for the run."""

import argparse
import shlex
import sys
from functools import partial

from lenssr._option import memory_text, whole_number
from lenssr.exceptions import InputError

__all__ = ["add_arguments", "run"]


def add_arguments(parser, add):
    """Add the options that other commands do not have."""
    what = "a table (ECSV, FITS, CSV, VOTable, Parquet), or a folder of cutouts"
    add("input", metavar="CATALOGUE", help=what)
    folder = "the folder of the survey; goes on with it (default: survey-NAME, of CATALOGUE)"
    add("-o", "--output", metavar="DIR", help=folder)
    pattern = "pattern of the files, such as {id}_{band}.fits, relative to CATALOGUE"
    add("--files", metavar="PATTERN", help=pattern)
    add("--keep", metavar="COLUMN", action="append", default=[], help="let a column through; * for all")
    jobs = partial(whole_number, least=-1)
    add("--jobs", metavar="N", type=jobs, default=1, help="processes, -1: one for each core (default: 1)")
    add("--scheduler", metavar="ADDRESS", help="a Dask scheduler whose workers do it: tcp://host:8786")
    add("--part", metavar="K/N", type=_part, help="only the K-th of N parts, as in a job array")
    add("--timeout", metavar="SECONDS", type=_seconds, help="most seconds for a lens")
    add("--memory", metavar="SIZE", type=memory_text, help="most memory for a lens, such as 2GB")
    again = "do again what failed, everything (all), or lenses by id (with commas)"
    add("--redo", metavar="failed|all|ID", help=again)
    add("--batch", metavar="N", type=whole_number, default=1, help="lenses solved together (default: 1)")
    add("--figures", choices=("all", "none"), default="all", help="figures of each lens (default: all)")
    add("--dashboard", metavar=":PORT", help="address of Dask's dashboard (needs bokeh)")
    add(
        "--collect", action="store_true", help="only write catalogue and page of what is done, as after parts"
    )


def _part(text):
    try:
        number, count = (int(one) for one in text.split("/"))
    except ValueError:
        number, count = 0, 0
    if not 1 <= number <= count:
        raise argparse.ArgumentTypeError(f"{text!r} is no part: write 3/100 for the third of a hundred")
    return number, count


def _seconds(text):
    try:
        seconds = float(text.removesuffix("s"))
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write a number of seconds")
    return seconds


def run(arguments, resolver, reading):
    """Run a survey; ``resolver`` and ``reading`` are made of the options that ``resolve`` has, too."""
    from lenssr.survey import Survey

    reading = {name: value for name, value in reading.items() if value is not None}
    size = reading.pop("size", None)
    survey = Survey(
        arguments.input,
        arguments.output,
        resolver=resolver,
        files=arguments.files,
        size=size,
        keep=arguments.keep,
        reading=reading,
        figures=arguments.figures == "all",
        batch=arguments.batch,
    )
    survey.repeat_by(_again(sys.argv))
    if arguments.collect:
        told = [name for name in ("part", "redo", "scheduler") if getattr(arguments, name) is not None]
        if told:
            raise InputError(f"--{told[0]} with --collect, which solves nothing: leave one of both out")
        print(f"lenses         {len(survey.collect())} in the catalogue")
    else:
        summary = survey.run(
            jobs=arguments.jobs,
            scheduler=arguments.scheduler,
            part=arguments.part,
            timeout=arguments.timeout,
            memory=arguments.memory,
            redo=_redo(arguments.redo),
            dashboard=arguments.dashboard,
            progress=sys.stderr.isatty() and not arguments.quiet,
        )
        print(summary.text())
    written = "" if arguments.part else f": {arguments.output}/index.html, catalogue.ecsv"
    print(f"written        {arguments.output}{written}")


def _redo(text):
    return text if text in (None, "failed", "all") else text.split(",")


def _again(argv):
    """The command that repeats one lens: this one without what chooses others."""
    words, skip = [], False
    for word in argv[1:]:
        if skip:
            skip = False
            continue
        name = word.partition("=")[0]
        if name in ("--part", "--redo", "--scheduler", "--jobs", "--dashboard"):
            skip = "=" not in word
            continue
        if word != "--collect":
            words.append(word)
    return f"lenssr {' '.join(map(shlex.quote, words))} --redo ID"
