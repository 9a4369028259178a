"""Surveys whose client, worker or scheduler is killed at random moments, and which then go on."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import cases
import numpy as np
from astropy.table import Table
from kills import _children, _gone

KINDS = ("client", "worker", "scheduler")
# What differs from run to run.
CHANGING = ("seconds", "memory", "host", "finished", "attempts")
LENSSR = [sys.executable, "-c", "from lenssr.cli import main; import sys; sys.exit(main())"]
DASK = [sys.executable, "-m", "dask"]
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
FASTEST = ["--source", "interpolation", "--figures", "none", "--quiet"]


def make_cutouts(folder, count):
    """As many cutouts, which differ by their names only."""
    folder.mkdir()
    first = cases.image_file(folder / "lens-0000.fits")
    for number in range(1, count):
        (folder / f"lens-{number:04d}.fits").write_bytes(first.read_bytes())
    return folder


def command(cutouts, run, *more):
    return [*LENSSR, "survey", str(cutouts), "-o", str(run), *FASTEST, *more]


def content(run):
    """The catalogue without what changes."""
    table = Table.read(run / "catalogue.ecsv")
    table.remove_columns(list(CHANGING))
    return [list(map(str, row)) for row in table]


def problems(run, expected):
    """What is wrong with a run that went on to its end; "right" if nothing is."""
    if content(run) != expected:
        return "lost, twice or other"
    hidden = [path for path in run.rglob(".*") if path.is_file()]
    if hidden:
        return "left behind"
    for row in Table.read(run / "catalogue.ecsv"):
        if not (run / row["product"]).stat().st_size or not (run / row["thumbnail"]).stat().st_size:
            return "half-written"
    return "right"


def _cluster(folder):
    """A scheduler and a worker with a nanny, each a process of its own."""
    file = folder / "scheduler.json"
    scheduler = subprocess.Popen(
        [
            *DASK,
            "scheduler",
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            "--no-dashboard",
            "--scheduler-file",
            str(file),
        ],
        **QUIET,
    )
    worker = subprocess.Popen(
        [*DASK, "worker", "--scheduler-file", str(file), "--host", "127.0.0.1", "--nthreads", "2"]
        + ["--no-dashboard", "--death-timeout", "10", "--local-directory", str(folder)],
        **QUIET,
    )
    end = time.monotonic() + 60
    while not file.exists() and time.monotonic() < end:
        time.sleep(0.1)
    return scheduler, worker, __import__("json").loads(file.read_text())["address"]


def kill_once(kind, cutouts, folder, expected, moment):
    """Kill one process of a run when a share of its lenses is done, and let it go on."""
    run, others, more = folder / "run", [], ["--jobs", "2"]
    if kind != "client":
        *others, address = _cluster(folder)
        more = ["--scheduler", address]
    total = len(list(cutouts.iterdir()))
    started = []
    try:
        with subprocess.Popen(
            command(cutouts, run, *more), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
        ) as one:
            while one.poll() is None and _done(run) < moment * total:
                time.sleep(0.02)
            started = _children(one.pid)
            if kind == "client":
                victim = one.pid
            elif kind == "scheduler":
                victim = others[0].pid
            else:
                victim = next(iter(_children(others[1].pid)), others[1].pid)
                started += _children(victim)
            os.kill(victim, signal.SIGKILL)
            try:
                _, told = one.communicate(timeout=120)
            except subprocess.TimeoutExpired:
                one.kill()
                return "hung"
        if kind == "scheduler" and one.returncode != 1 and _done(run) < total:
            return f"exit code {one.returncode}: {told.decode()[-200:]}"
        if kind == "worker" and one.returncode != 0:
            return f"exit code {one.returncode}: {told.decode()[-200:]}"
        if not _gone([process for process in started if process != victim], 5.0) and kind != "worker":
            return "process left"
    finally:
        for process in others:
            for child in _children(process.pid):
                _kill(child)
            process.kill()
            process.wait()
    again = subprocess.run(command(cutouts, run, "--jobs", "2"), check=False, capture_output=True, text=True)
    return f"unresumable: {again.stderr[-200:]}" if again.returncode else problems(run, expected)


def _kill(process):
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _done(run):
    return sum(path.read_bytes().count(b"}\n") for path in run.glob("rows/*.jsonl"))


def kill_surveys(count, lenses, seed, kinds=KINDS):
    """Kill as many runs, client, worker and scheduler in turn, and count what went wrong."""
    rng, counts = np.random.default_rng(seed), Counter()
    with tempfile.TemporaryDirectory() as place:
        cutouts = make_cutouts(Path(place) / "cutouts", lenses)
        undisturbed = Path(place) / "undisturbed"
        subprocess.run(command(cutouts, undisturbed), check=True, capture_output=True)
        expected = content(undisturbed)
        for number in range(count):
            kind = kinds[number % len(kinds)]
            with tempfile.TemporaryDirectory() as folder:
                found = kill_once(kind, cutouts, Path(folder), expected, float(rng.uniform(0.02, 0.95)))
            counts[found if found == "right" else f"{kind}: {found}"] += 1
    return counts


def interrupt(cutouts, run, number=signal.SIGINT):
    """Seconds until a run ends after a signal, its code, what it said, and whether its processes are gone."""
    quiet = {"stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL}
    with subprocess.Popen(command(cutouts, run), **quiet) as one:
        while one.poll() is None and _done(run) < 2:
            time.sleep(0.02)
        started = _children(one.pid)
        began = time.monotonic()
        one.send_signal(number)
        _, told = one.communicate(timeout=60)
    seconds = time.monotonic() - began
    return seconds, one.returncode, told.decode(), started and _gone(started, 30.0)
