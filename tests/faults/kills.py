"""Runs that are ended at random moments: nothing is lost, half-written, left behind, or cannot go on."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import cases
import numpy as np
from astropy.io import fits

MAP = """
import sys
from lenssr import SuperResolver
if __name__ == "__main__":
    found = SuperResolver(source="interpolation").map([sys.argv[1]] * 6, jobs=2)
    for number, one in enumerate(found):
        one.write(f"map-{number}.fits", overwrite=True)
"""
WRITE = """
import sys
from lenssr import SuperResolver
found = SuperResolver(source="interpolation")(sys.argv[1])
for number in range(40):
    found.write("result.fits", overwrite=True)
"""
TRAIN = ["optimisation.steps=12", "optimisation.check_every=2", "optimisation.batch_size=2"]
TRAIN += ["data.0.size=8", "network.channels=[4, 8]", "network.side=16"]
# Cards, and entries of JSON and YAML, that differ from run to run.
CHANGING = {"DATE", "CHECKSUM", "DATASUM", "SECONDS", "HOST", "MEMORY", "COMMENT", "HISTORY"}
ENTRIES = re.compile(r'"?(seconds|minutes|checksum|memory|host|date)"?: [^,}\n]*', re.IGNORECASE)
# Seconds in which a process that was asked to ends, and in which one does that is killed with its parent.
ENDING, GONE = 15, 2
COMMANDS = ("resolve", "simulate", "train")


@dataclass
class Scenario:
    """A command, its arguments to go on, the files that it writes, and what is in them.

    ``ready`` is the file from which a run can go on, ``old`` an output that lies there before. ``seconds`` is
    how long an undisturbed run takes, ``expected`` what it leaves, ``said`` how many lines it prints.
    """

    begin: list
    names: tuple
    more: tuple = ()
    ready: str = ""
    old: str = ""
    seconds: float = 0.0
    expected: dict = field(default_factory=dict)
    said: int = 0


def _lenssr(*arguments):
    return [sys.executable, "-m", "lenssr", *arguments, "--quiet"]


def scenarios(image):
    """The scenarios by name."""
    resolve = _lenssr("resolve", str(image), "-o", "out.fits", "--source", "interpolation", "--overwrite")
    train = _lenssr("train", "relensing", "-o", "net", *(part for one in TRAIN for part in ("--set", one)))
    return {
        "resolve": Scenario(resolve, ("out.fits",), old="out.fits"),
        "map": Scenario([sys.executable, "map.py", str(image)], ("map-*.fits",)),
        "simulate": Scenario(_lenssr("simulate", "-n", "40", "-o", "sims"), ("sims/*",)),
        "train": Scenario(
            train,
            ("net/weights/*", "net/recipe.yaml", "net/checkpoints/[bl][ea]st.ckpt"),
            ("--resume",),
            "net/checkpoints/last.ckpt",
        ),
        "write": Scenario([sys.executable, "-c", WRITE, str(image)], ("result.fits",), old="result.fits"),
    }


# ---------------------------------------------------------------- what is in a file


def _content(path):
    """Sum of a file without what changes from run to run."""
    found = hashlib.sha256()
    if path.suffix == ".fits":
        with fits.open(path, checksum=True) as hdus:
            for hdu in hdus:
                cards = [card for card in hdu.header.cards if card.keyword not in CHANGING]
                found.update(repr([(card.keyword, card.value) for card in cards]).encode())
                if hdu.is_image and hdu.data is not None:
                    found.update(np.ascontiguousarray(hdu.data).tobytes())
                elif not hdu.is_image:
                    found.update(ENTRIES.sub("", repr(hdu.data.tolist())).encode())
    elif path.suffix == ".safetensors":
        from lenssr.networks.weights import _read

        about, tensors = _read(path)
        found.update(ENTRIES.sub("", json.dumps(about)).encode())
        for name in sorted(tensors):
            found.update(name.encode() + tensors[name].numpy().tobytes())
    elif path.suffix == ".ckpt":
        import torch

        state = torch.load(path, map_location="cpu", weights_only=True)
        for name, one in state["state_dict"].items():
            found.update(name.encode() + one.numpy().tobytes())
        found.update(str(state["global_step"]).encode())
    else:
        found.update(ENTRIES.sub("", path.read_text(encoding="utf-8")).encode())
    return found.hexdigest()


def _files(folder, names):
    return {
        str(path.relative_to(folder)): _content(path) for name in names for path in sorted(folder.glob(name))
    }


def _hidden(folder):
    return [path for path in Path(folder).rglob(".*") if path.is_file()]


# ---------------------------------------------------------------- processes


def _children(process):
    """Processes below one, from /proc."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            parents.setdefault(parent, []).append(int(entry.name))
    found, rest = [], [process]
    while rest:
        own = parents.get(rest.pop(), [])
        found += own
        rest += own
    return found


def _gone(processes, seconds=GONE):
    """Whether all processes end within some seconds."""
    end = time.monotonic() + seconds
    while any(os.path.exists(f"/proc/{one}") and not _is_zombie(one) for one in processes):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def _is_zombie(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def _handlers_set(process, number):
    """Whether a process has a handler of a signal, from /proc: before, Python itself is starting."""
    try:
        told = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False
    caught = re.search(r"SigCgt:\s*([0-9a-f]+)", told)
    return caught is not None and bool(int(caught[1], 16) >> (number - 1) & 1)


# ---------------------------------------------------------------- one kill


def _start(scenario, name, folder, *more):
    """Start a run in a folder, its messages in a file."""
    if name == "map":
        (folder / "map.py").write_text(MAP, encoding="utf-8")
    with open(folder / "said.txt", "wb") as said:
        return subprocess.Popen([*scenario.begin, *more], cwd=folder, stdout=subprocess.DEVNULL, stderr=said)


def _lines(folder):
    return len((folder / "said.txt").read_bytes().splitlines())


def _prepare(scenario, folder, old):
    if scenario.old:
        shutil.copy(old, folder / scenario.old)


def kill_once(scenario, name, moment, number, folder, old):
    """End one run and let it go on; returns what went wrong, or "right"."""
    _prepare(scenario, folder, old)
    with _start(scenario, name, folder) as process:
        time.sleep(moment)
        children = _children(process.pid)
        # SIGTERM has no handler of Python's own, so that one is that of the command.
        handled = name in COMMANDS and number != signal.SIGKILL and _handlers_set(process.pid, signal.SIGTERM)
        process.send_signal(number)
        try:
            code = process.wait(ENDING)
        except subprocess.TimeoutExpired:
            process.kill()
            return "hung"
    if not _gone(children):
        return "child left"
    if handled and code not in (0, 128 + number):
        return f"exit code {code}"
    if handled and code and _lines(folder) > 1 + scenario.said:
        return "more than one line"
    if handled and _hidden(folder):
        return "left behind"
    try:
        for path in folder.rglob("[!.]*.fits"):  # what is hidden was never finished, and is swept
            _content(path)
    except Exception:  # noqa: BLE001 - whatever is wrong with half a file
        return "half-written"
    if scenario.old and _content(folder / scenario.old) not in (
        _content(old),
        scenario.expected[scenario.old],
    ):
        return "neither old nor new"
    return _go_on(scenario, name, folder)


def _go_on(scenario, name, folder):
    """Start again, from what is there, and compare."""
    finished = name == "simulate" and (folder / "sims" / "manifest.ecsv").exists()
    if not finished or (folder / "sims" / "manifest.unfinished.jsonl").exists():
        resumes = bool(scenario.ready) and (folder / scenario.ready).exists()
        with _start(scenario, name, folder, *(scenario.more if resumes else ())) as again:
            if again.wait() != 0:
                return "unresumable"
    found = _files(folder, scenario.names)
    if found != scenario.expected:
        different = sorted(
            one for one in found.keys() | scenario.expected if found.get(one) != scenario.expected.get(one)
        )
        return f"lost or other: {', '.join(different[:3])}"
    return "left behind" if _hidden(folder) else "right"


def kill_runs(count, seed, names=None):
    """End ``count`` runs at random moments, and count what became of them, by the name of the run."""
    rng, counts = np.random.default_rng(seed), Counter()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background; runs would inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
    with tempfile.TemporaryDirectory() as place:
        image = cases.image_file(Path(place) / "image.fits")
        old = cases.result_file(Path(place) / "old.fits")
        known = {name: one for name, one in scenarios(image).items() if names is None or name in names}
        for name, scenario in known.items():
            with tempfile.TemporaryDirectory() as folder:
                _prepare(scenario, Path(folder), old)
                began = time.monotonic()
                with _start(scenario, name, Path(folder)) as process:
                    if process.wait() != 0:
                        raise RuntimeError((Path(folder) / "said.txt").read_text())
                scenario.seconds = time.monotonic() - began
                scenario.expected = _files(Path(folder), scenario.names)
                scenario.said = _lines(Path(folder))
        for number in range(count):
            name = list(known)[number % len(known)]
            moment = float(rng.uniform(0.2, 1.1)) * known[name].seconds
            how = signals[rng.integers(3)]
            with tempfile.TemporaryDirectory() as folder:
                counts[name, kill_once(known[name], name, moment, how, Path(folder), old)] += 1
    return counts
