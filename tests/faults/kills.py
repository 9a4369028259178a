"""Runs that are ended at random moments: nothing is lost, half-written, left behind, or cannot go on."""

import hashlib
import os
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
from astropy.table import Table

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
TRAIN = [
    "--set",
    "optimisation.steps=12",
    "--set",
    "optimisation.check_every=2",
    "--set",
    "optimisation.batch_size=2",
]
TRAIN += ["--set", "data.0.size=8", "--set", "network.channels=[4, 8]", "--set", "network.side=16"]
# What differs from run to run.
CHANGING = ("DATE", "CHECKSUM", "DATASUM", "SECONDS")


@dataclass
class Scenario:
    """A command, how it goes on, its files, and what tells that an output is whole."""

    begin: list
    resume: list
    names: tuple
    ready: str = ""
    seconds: float = 0.0
    expected: dict = field(default_factory=dict)


def _lenssr(*arguments):
    return [sys.executable, "-c", "from lenssr.cli import main; import sys; sys.exit(main())", *arguments]


def scenarios(image):
    """The scenarios by name."""
    script = [sys.executable, "-c", WRITE, str(image)]
    resolve = _lenssr("resolve", str(image), "-o", "out.fits", "--source", "interpolation", "--overwrite")
    simulate = _lenssr("simulate", "-n", "40", "-o", "sims", "--quiet")
    train = _lenssr("train", "relensing", "-o", "net", "--quiet", *TRAIN)
    return {
        "resolve": Scenario(resolve, resolve, ("out.fits",)),
        "map": Scenario(
            [sys.executable, "map.py", str(image)], [sys.executable, "map.py", str(image)], ("map-*.fits",)
        ),
        "simulate": Scenario(simulate, simulate, ("sims/*",)),
        "train": Scenario(
            train, [*train, "--resume"], ("net/weights/*.safetensors",), "net/checkpoints/last.ckpt"
        ),
        "write": Scenario(script, script, ("result.fits",)),
    }


def _content(path):
    """What is in a file, without what changes from run to run."""
    found = hashlib.sha256()
    if path.suffix == ".fits":
        with fits.open(path, checksum=True) as hdus:
            for hdu in hdus:
                found.update(hdu.name.encode())
                if hdu.is_image and hdu.data is not None:
                    found.update(np.ascontiguousarray(hdu.data).tobytes())
    elif path.suffix == ".ecsv":
        table = Table.read(path)
        found.update(repr(table.colnames).encode() + table.as_array().tobytes())
    elif path.suffix == ".safetensors":
        from lenssr.networks import load_weights
        from lenssr.networks.weights import checksum_of

        found.update(checksum_of(load_weights(path)[0]).encode())
    return found.hexdigest()


def _files(folder, names):
    return {
        str(path.relative_to(folder)): _content(path) for name in names for path in sorted(folder.glob(name))
    }


def _hidden(folder):
    return [path for path in Path(folder).rglob(".*") if path.is_file()]


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


def _gone(processes, seconds=2.0):
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


def kill_once(scenario, name, moment, number, folder):
    """End one run and let it go on; returns what went wrong, or "right"."""
    quiet = {"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    if name == "map":
        (folder / "map.py").write_text(MAP, encoding="utf-8")
    with subprocess.Popen(scenario.begin, **quiet) as process:
        time.sleep(moment)
        children = _children(process.pid)
        process.send_signal(number)
        try:
            code = process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            return "hung"
    if not _gone(children):
        return "child left"
    command = name in ("resolve", "simulate", "train")
    handled = command and number != signal.SIGKILL and moment > 0.5 * scenario.seconds
    if handled and code not in (0, 128 + number):
        return f"exit code {code}"
    if handled and _hidden(folder):
        return "left behind"
    for path in folder.rglob("*.fits"):
        try:
            _content(path)
        except Exception:  # noqa: BLE001 - whatever is wrong with half a file
            return "half-written"
    finished = name == "simulate" and (folder / "sims" / "manifest.ecsv").exists()
    resume = bool(scenario.ready) and (folder / scenario.ready).exists()
    again = (
        None
        if finished
        else subprocess.run(scenario.resume if resume else scenario.begin, check=False, **quiet)
    )
    if again is not None and again.returncode != 0:
        return "unresumable"
    if _files(folder, scenario.names) != scenario.expected:
        return "lost"
    return "left behind" if _hidden(folder) else "right"


def kill_runs(count, seed, names=None):
    """End ``count`` runs at random moments, and count what went wrong."""
    rng, counts = np.random.default_rng(seed), Counter()
    with tempfile.TemporaryDirectory() as place:
        image = cases.image_file(Path(place) / "image.fits")
        known = {name: one for name, one in scenarios(image).items() if names is None or name in names}
        for name, scenario in known.items():
            with tempfile.TemporaryDirectory() as folder:
                if name == "map":
                    Path(folder, "map.py").write_text(MAP, encoding="utf-8")
                began = time.monotonic()
                subprocess.run(scenario.begin, cwd=folder, check=True, capture_output=True)
                scenario.seconds = time.monotonic() - began
                scenario.expected = _files(Path(folder), scenario.names)
        for number in range(count):
            name = list(known)[number % len(known)]
            moment = float(rng.uniform(0.2, 1.1)) * known[name].seconds
            signals = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
            with tempfile.TemporaryDirectory() as folder:
                found = kill_once(known[name], name, moment, signals[rng.integers(3)], Path(folder))
            counts[found if found == "right" else f"{name}: {found}"] += 1
    return counts
