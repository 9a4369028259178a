"""Processes that solve lenses: one that dies, hangs or eats memory costs its own lens a row, nobody else."""

import sys
import textwrap
import time
from types import SimpleNamespace

import pytest

from lenssr.survey import solver_pool
from lenssr.survey.lens_solver import Stopped
from lenssr.survey.solver_pool import SolverPool

# Stands for the process that solves, and starts at once: lenses do what their names say.
PROCESS = """
import os, pickle, signal, struct, sys, threading, time, types
length = struct.Struct("!Q")

def take():
    start = sys.stdin.buffer.read(8)
    if len(start) < 8:
        os._exit(0)
    return pickle.loads(sys.stdin.buffer.read(*length.unpack(start)))

def give(message):
    content = pickle.dumps(message)
    sys.stdout.buffer.write(length.pack(len(content)) + content)
    sys.stdout.buffer.flush()

take()
give(("ready", None))
while True:
    lenses, wanted, attempt = take()
    for lens in lenses:
        kind = lens.id.split("-")[0]
        if kind == "kill" or (kind == "once" and attempt == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "exit":
            sys.exit("out of luck")
        if kind == "hang":
            time.sleep(60)
        if kind == "eat":
            held = bytearray(200_000_000)
            time.sleep(60)
        if kind == "full":
            give(("stopped", "no space"))
            break
    else:
        give(("done", [{"id": one, "failure": "", "process": os.getpid()} for one in wanted]))
"""


@pytest.fixture
def pool(monkeypatch, tmp_path):
    monkeypatch.setattr(solver_pool, "COMMAND", [sys.executable, "-c", textwrap.dedent(PROCESS)])
    monkeypatch.setattr(solver_pool, "dumps", lambda job: solver_pool.pickle.dumps(None))
    (tmp_path / "rows").mkdir()
    made = SolverPool(SimpleNamespace(folder=str(tmp_path)), timeout=60.0, memory=150e6)
    yield made
    made.close()


def lens(name):
    return SimpleNamespace(id=name, ra=1.0, dec=2.0, files={"": "x.fits"}, z_lens=float("nan"), z_source=0.0)


def solve(pool, *names):
    return pool.solve([lens(name) for name in names], names)


@pytest.mark.parametrize(
    ("name", "stage", "reason"),
    [
        ("kill", "process", "its process ended (signal 9), 2 times"),
        ("exit", "process", "its process ended (exit code 1): out of luck, 2 times"),
        ("hang", "time limit", "it was not done within 1 s, 2 times"),
        ("eat", "memory limit", "the limit is 150 MB, 2 times"),
    ],
)
def test_a_lens_that_ends_its_process_twice_has_failed(pool, name, stage, reason):
    pool.timeout = 1.0 if name == "hang" else 60.0  # a busy machine may take seconds to eat
    (row,) = solve(pool, name)
    assert (row["id"], row["stage"]) == (name, stage)
    assert row["failure"].endswith(reason)
    assert pool.folder.done()[name].failed
    pool.timeout = 60.0
    assert solve(pool, "good")[0]["failure"] == ""


def test_one_retry_is_enough_for_bad_luck(pool):
    assert solve(pool, "once")[0]["failure"] == ""
    assert pool.folder.done() == {}


def test_the_others_of_a_batch_are_solved(pool):
    found = solve(pool, "a", "kill", "b")
    assert [(one["id"], bool(one["failure"])) for one in found] == [
        ("a", False),
        ("kill", True),
        ("b", False),
    ]


def test_a_process_is_used_again(pool):
    assert solve(pool, "a")[0]["process"] == solve(pool, "b")[0]["process"]


def test_a_process_that_cannot_write_stops_the_run(pool):
    with pytest.raises(Stopped, match="no space"):
        solve(pool, "full")


def test_nothing_runs_after_the_end(pool):
    solve(pool, "a")
    (process,) = pool.processes()
    started = time.monotonic()
    pool.close()
    assert time.monotonic() - started < 1
    with pytest.raises(ProcessLookupError):
        solver_pool.os.kill(process, 0)
    with pytest.raises(Stopped, match="was stopped"):
        solve(pool, "b")


def test_a_process_that_does_not_start_stops_the_run(pool, monkeypatch):
    monkeypatch.setattr(solver_pool, "COMMAND", [sys.executable, "-c", "raise SystemExit('no torch')"])
    with pytest.raises(Stopped, match="no process can be started: its process ended .*: no torch"):
        solve(pool, "a")
