"""The golden run: 24 results that a change of the code either keeps or records anew, with its reasons.

Every kind of source on a lens of DeepLense, on one of a real galaxy behind a PSF, on the HST cutout and on
Euclid VIS, the lens always unknown. The last two are read from the folder that LENSSR_REAL_DATA names, and
left out where it is unset. Kept of each: a ninth of the pixels of image and errors, T where there is a
truth, theta_E and its error, ln evidence, the flags, and seconds of the processor.

    python benchmarks/golden.py record            # writes golden/*.npz and golden.txt
    python benchmarks/golden.py compare           # runs again; ends with 1 where a run has changed
    python benchmarks/golden.py time REVISION     # paired: each run here and there, in turn

A change that is to change nothing keeps 0.1 sigma in the image and in theta_E, 0.05 dB, 0.5 in ln evidence,
the flags, and the seconds of a paired run within 15 %.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import common  # first: it sets one thread
import numpy as np

FOLDER = Path(__file__).parent / "golden"
TABLE = FOLDER / "golden.txt"
SOURCES = ("interpolation", "sersic", "pixelated", "perturbed_sersic", "auto", "network")
EVERY = 3  # pixels of an image along an axis, of which one is kept
KEPT = {"sigma": 0.1, "theta_E": 0.1, "db": 0.05, "evidence": 0.5, "seconds": 0.15}
REAL = "LENSSR_REAL_DATA"


@dataclass(frozen=True)
class Image:
    """One image: what a resolver is called with, its options, and the truth where there is one."""

    image: object
    given: dict
    options: dict
    truth: np.ndarray | None = None


def deep_lense():
    from lenssr.simulation import DeepLense

    item = DeepLense(lens="sie", noise=True, size=3, seed=5)[2]
    return Image(item.low, item.given, {"oversampling": 1}, item.truth.data)


def galaxies():
    from lenssr.simulation import GALAXY_CELLS, GalaxyLenses

    item = GalaxyLenses(**GALAXY_CELLS['0.1"'], size=2, seed=5)[1]
    return Image(item.low, item.given, {}, item.truth.data)


def hst():
    path = Path(os.environ[REAL]) / "hst_f475x.fits"
    return Image(path, {}, {"lens_light": "mge", "mask": "auto"})


def euclid():
    hdus = {"sci": "VIS_BGSUB", "err": "VIS_RMS", "psf": "VIS_PSF"}
    path = Path(os.environ[REAL]) / "euclid_q1_des.fits"
    return Image(path, {"hdus": hdus}, {"lens_light": "mge", "mask": "auto"})


IMAGES = {"DeepLense": deep_lense, "galaxies": galaxies, "HST": hst, "Euclid": euclid}
SIMULATED = ("DeepLense", "galaxies")


def runs(images=None):
    """Image and source of each run; real images only where they are."""
    names = IMAGES if REAL in os.environ else SIMULATED
    return [(name, source) for name in names for source in SOURCES if images is None or name in images]


def run(name, source):
    """Make one result: arrays, and what JSON can hold."""
    from lenssr import SuperResolver, metrics

    case = IMAGES[name]()
    options = dict(case.options)
    if source == "interpolation":
        options.pop("lens_light", None)
    start = time.process_time()
    result = SuperResolver(source=source, **options)(case.image, **case.given)
    seconds = time.process_time() - start
    planes = result.image.data, result.image.uncertainty.array
    image, error = (np.float32(plane[::EVERY, ::EVERY]) for plane in planes)
    theta_E = np.nan, np.nan
    if result.lens is not None:
        parameter = getattr(result.lens, "components", (result.lens,))[0].theta_E
        theta_E = float(parameter.value), float(np.nan if parameter.std is None else parameter.std)
    evidence = result.meta.get("evidence", np.nan)
    if np.isnan(evidence) and result.meta.get("candidates"):
        evidence = max(value for *_, value in result.meta["candidates"])
    t = np.nan if case.truth is None else metrics.scores_t(result.image.data, case.truth).psnr
    chosen = result.meta.get("chosen", "")
    words = {
        "t": float(t),
        "theta_E": theta_E,
        "evidence": float(evidence),
        "chosen": chosen,
        "flags": list(result.flags),
        "seconds": seconds,
    }
    return {"image": image, "error": error}, words


def file_of(name, source, folder=FOLDER):
    return folder / f"{name.lower()}-{source}.npz"


def save(path, arrays, words):
    np.savez_compressed(path, words=json.dumps(words), **arrays)


def load(path):
    with np.load(path, allow_pickle=False) as kept:
        return {"image": kept["image"], "error": kept["error"]}, json.loads(str(kept["words"]))


def differences(old, new):
    """How far two runs are apart, by the names of `KEPT`; and whether the flags are the same."""
    (before, words), (after, now) = old, new
    apart = np.abs(after["image"] - before["image"]) / before["error"]
    error = words["theta_E"][1]
    return {
        "sigma": float(np.nanmax(apart)),
        "theta_E": abs(now["theta_E"][0] - words["theta_E"][0]) / error if error > 0 else 0.0,
        "db": _apart(now["t"], words["t"]),
        "evidence": _apart(now["evidence"], words["evidence"]),
    }, now["flags"] == words["flags"]


def _apart(new, old):
    return 0.0 if np.isnan(new) and np.isnan(old) else abs(new - old)


def has_changed(found, flags_kept):
    return not flags_kept or any(not value <= KEPT[name] for name, value in found.items())


def _numbers(words):
    theta_E = words["theta_E"]
    return (
        "" if np.isnan(words["t"]) else f"{words['t']:.2f}",
        "" if np.isnan(theta_E[0]) else f"{theta_E[0]:.4f} ± {theta_E[1]:.4f}",
        "" if np.isnan(words["evidence"]) else f"{words['evidence']:.1f}",
        words["chosen"],
        f"{words['seconds']:.1f}",
        ", ".join(words["flags"]),
    )


def record(images):
    FOLDER.mkdir(exist_ok=True)
    rows = []
    for name, source in runs(images):
        arrays, words = run(name, source)
        save(file_of(name, source), arrays, words)
        rows.append((name, source, *_numbers(words)))
        print(*rows[-1], file=sys.stderr, flush=True)
    columns = ("image", "source", "T (dB)", 'theta_E "', "ln evidence", "chosen", "seconds", "flags")
    common.header("The golden run")
    common.table(columns, rows)
    return 0


def compare(images):
    rows, changed = [], 0
    for name, source in runs(images):
        old, new = load(file_of(name, source)), run(name, source)
        found, flags_kept = differences(old, new)
        bad = has_changed(found, flags_kept)
        changed += bad
        flags = "kept" if flags_kept else " ".join(_flag_changes(old[1]["flags"], new[1]["flags"]))
        numbers = (f"{value:.2g}" for value in found.values())
        seconds = f"{old[1]['seconds']:.1f}, {new[1]['seconds']:.1f}"
        rows.append((name, source, *numbers, flags, seconds, "CHANGED" if bad else "kept"))
        print(*rows[-1], file=sys.stderr, flush=True)
    columns = ("image", "source", "sigma", "theta_E, sigma", "dB", "ln evidence", "flags", "seconds", "")
    common.header("The golden run, compared with the record")
    common.table(columns, rows)
    return int(changed > 0)


def _flag_changes(old, new):
    return [f"-{flag}" for flag in old if flag not in new] + [f"+{flag}" for flag in new if flag not in old]


def time_against(revision, images):
    """Every run in the tree of a revision and in this one, in turn, each in a process of its own."""
    here = Path(__file__).parents[1]
    rows, total = [], np.zeros(2)
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder) / "tree"
        subprocess.run(["git", "worktree", "add", "-f", "--detach", there, revision], cwd=here, check=True)
        try:
            for name, source in runs(images):
                pair = np.array([_seconds_in(tree, name, source) for tree in (there, here)])
                total += pair
                rows.append((name, source, *(f"{value:.2f}" for value in pair), f"{pair[1] / pair[0]:.2f}"))
                print(*rows[-1], file=sys.stderr, flush=True)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", there], cwd=here, check=True)
    rows.append(("all", "", *(f"{value:.1f}" for value in total), f"{total[1] / total[0]:.2f}"))
    common.header(f"Seconds of the golden run, paired with {revision}")
    common.table(("image", "source", "there", "here", "ratio"), rows)
    return int(total[1] > (1 + KEPT["seconds"]) * total[0])


def _seconds_in(tree, name, source):
    """Seconds of the processor that the second of two runs takes: the first one imports and fills caches."""
    first = "" if name in ("HST", "Euclid") and source != "interpolation" else "golden.run(*case); "
    code = f"import golden; case = {name!r}, {source!r}; {first}print(golden.run(*case)[1]['seconds'])"
    path = os.pathsep.join([str(tree), str(Path(__file__).parent)])
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, cwd=tree, check=True, capture_output=True, text=True
    )
    return float(done.stdout.split()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("record", "compare", "time"))
    parser.add_argument("revision", nargs="?", default="HEAD", help="to pair the seconds with")
    parser.add_argument("--images", nargs="+", choices=list(IMAGES), help="only these")
    arguments = parser.parse_args()
    if arguments.what == "time":
        return time_against(arguments.revision, arguments.images)
    return {"record": record, "compare": compare}[arguments.what](arguments.images)


if __name__ == "__main__":
    sys.exit(main())
