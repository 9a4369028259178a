"""What a survey costs beside its lenses, what it survives, and how long 100 000 lenses take.

Rows: the wall time of workers over the summed time of `resolver(image)` on the same files, in the same run,
and the same of processor time, which a busy machine changes less; the scheduler's cost of a lens, on empty
tasks; peak memory of the solving process by lens, and of the client; runs that are killed at random moments
and go on; merging, writing and showing a large catalogue. The last table puts measured rates together.

`resolver(image)` runs in as many processes as the survey has workers, on half of the files before the survey
and on the others after it, so that both share the machine with the same others.

    python benchmarks/survey.py [-n 1000] [--tasks 20000] [--kills 100] [--kill-lenses 300] [--rows 100000]
"""

import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import common  # before torch: it sets the number of threads
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "faults"))

from lenssr import SuperResolver
from lenssr.simulation import GalaxyLenses, write_dataset
from lenssr.survey import Survey
from lenssr.survey.lens_list import ListedLens

WORKERS = 2
CAMERA = {"pixels": 38, "pixel_scale": 0.1, "fwhm": 0.16, "sky_rms": 0.02}
CORES = (10, 100, 1000)
# File system operations of a lens that touch metadata (create, rename, stat, unlink) are counted by hand; how
# many a parallel file system serves in a second is assumed, not measured.
METADATA_RATE = 10_000
MERGE = """
import resource, sys, time
from lenssr import SuperResolver
from lenssr.survey import Survey
survey = Survey(sys.argv[1], sys.argv[2], resolver=SuperResolver(source="interpolation"), figures=False)
began = time.perf_counter()
survey.collect()
print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2)
"""


def processor_seconds():
    """Seconds of the processor of this process and of children that ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def alone(files):
    """Wall and processor seconds of `resolver(image)`, summed over files, in this process."""
    resolver = SuperResolver(source="sersic")
    resolver(files[0])  # what is imported late is imported now
    began, used = time.perf_counter(), time.process_time()
    for file in files:
        with contextlib.suppress(Exception):  # a lens that fails takes its time, too
            resolver(file)
    return time.perf_counter() - began, time.process_time() - used


def side_by_side(files):
    """The sums of `alone` of as many processes as a survey has workers."""
    parts = [(files[k::WORKERS],) for k in range(WORKERS)]
    return np.sum(list(common.in_processes(alone, parts, WORKERS)), axis=0)


def memory_now():
    """Resident memory of this process in MB."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


# ---------------------------------------------------------------- rows


def overhead(count, seed, place):
    """Rows about many small lenses, with the seconds of one."""
    write_dataset(GalaxyLenses(size=count, seed=seed, **CAMERA), place / "cutouts")
    files = sorted((place / "cutouts").glob("*.fits"))
    before = side_by_side(files[::2])
    # The same list, without the table that write_dataset leaves in the folder.
    survey = Survey(place / "cutouts", place / "run", resolver=SuperResolver(source="sersic"), figures=False)
    held, ended = [], threading.Event()
    watch = threading.Thread(
        target=lambda: [held.append(memory_now()) for _ in iter(lambda: ended.wait(0.5), True)]
    )
    watch.start()
    began, spent = time.time(), processor_seconds()
    summary = survey.run(jobs=WORKERS)
    wall, spent = time.time() - began, processor_seconds() - spent
    start = _started(place / "run", began)
    ended.set()
    watch.join()
    seconds, used = before + side_by_side(files[1::2])
    table = survey.collect()
    memory = np.asarray(table["memory"].value)
    late = memory[min(100, len(memory) // 2) :]
    yield "lenses", f"{count} of 38 x 38 pixels, {WORKERS} workers, {summary.grades}", ""
    yield "workers x wall / sum of resolver(image)", f"{WORKERS * wall / seconds:.3f}", "<= 1.10 (1.04)"
    yield "the same without the start of the processes", f"{WORKERS * (wall - start) / seconds:.3f}", ""
    yield "the same of processor seconds, start included", f"{spent / used:.3f}", ""
    yield "seconds of resolver(image), processor seconds", f"{seconds / count:.3f}, {used / count:.3f}", ""
    yield (
        "solving process: peak MB, first half and last",
        f"{late[: len(late) // 2].max():.0f}, {late.max():.0f}",
        "+ 50",
    )
    yield "client: MB at first and at last", f"{held[min(4, len(held) - 1)]:.0f}, {held[-1]:.0f}", "+ 50"
    yield "seconds until processes begin with their first lens", f"{start:.1f}", ""
    globals()["RATES"] = {"fit": spent / count, "wall": WORKERS * wall / count}


def _started(run, began):
    """Seconds from a time until processes begin with their first lens, on average."""
    firsts = [
        path.open(encoding="utf-8").readline().split("\t", 3) for path in (run / "rows").glob("*.jsonl")
    ]
    return float(np.mean([float(time) - json.loads(row)["seconds"] for _, time, _, row in firsts])) - began


def _nothing(token, batches):
    """What a worker does with lenses that take no time."""
    return [[{"id": one} for one in wanted] for _, wanted in batches], 0.0


def _alone(token, batches):
    """The same of lenses that take long: each is a task of Dask by itself."""
    return _nothing(token, batches)[0], 1.0


def _empty_batches(count):
    """Batches of one lens, as a survey hands them out."""
    for k in range(count):
        name = f"lens-{k:06d}"
        yield [ListedLens(id=name, number=k, files={"F814W": f"/data/cutouts/{name}.fits"})], [name]


def scheduling(count):
    """Milliseconds of the scheduler, the client and the workers' threads for one lens that is nothing."""
    for solve, number, what in (
        (_nothing, count, "together"),
        (_alone, count // 10, "each a task by itself"),
    ):
        wall, used = (1000 * one / number for one in _scheduled(number, solve))
        told = f"{wall:.2f} ms, {used:.2f} ms of the processor"
        yield f"scheduler, a lens of {number} empty ones, {what}", told, "<= 5 ms"
    globals()["SCHEDULER"] = used / 1000


def _scheduled(count, solve):
    """Wall and processor seconds of many lenses that are nothing, through the engine of a survey."""
    from lenssr.survey.engines import DaskEngine
    from lenssr.survey.lens_solver import Job

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "rows").mkdir()
        engine = DaskEngine(Job(SuperResolver(source="sersic"), folder), jobs=WORKERS, solve=solve)
        began, used = time.perf_counter(), processor_seconds()
        found = [row["id"] for rows in engine.run(_empty_batches(count)) for row in rows]
        wall, used = time.perf_counter() - began, processor_seconds() - used
        engine.close()
    assert len(set(found)) == len(found) == count
    return wall, used


def kills(count, lenses, seed):
    """Runs that are killed and go on."""
    from survey_kills import kill_surveys

    found = kill_surveys(count, lenses, seed)
    told = ", ".join(f"{number} {name}" for name, number in found.most_common())
    yield f"{count} kills of runs of {lenses} lenses", told, f"{count} right"


def large(count, place):
    """A catalogue of many rows: those of one lens, again and again."""
    place = place / "large"
    (place / "cutouts").mkdir(parents=True)
    from cases import image_file

    image_file(place / "cutouts" / "0.fits")
    survey = Survey(
        place / "cutouts", place / "one", resolver=SuperResolver(source="interpolation"), figures=False
    )
    survey.run()
    (line,) = (one.read_text() for one in (place / "one" / "rows").glob("*.jsonl"))
    row = json.loads(line.split("\t", 3)[3])
    numbers = (
        "R_E",
        "R_E_err",
        "theta_E",
        "theta_E_err",
        "q",
        "q_err",
        "phi",
        "slope",
        "shear",
        "magnification",
    )
    numbers += (
        "x_0",
        "y_0",
        "x_0_err",
        "y_0_err",
        "source_flux",
        "source_r_eff",
        "source_n",
        "source_magnitude",
    )
    from astropy.table import Table

    ids = [f"{k:06d}" for k in range(count)]
    Table({"id": ids, "file": [str(place / "cutouts" / "0.fits")] * count}).write(place / "large.csv")
    script = [sys.executable, "-c", MERGE, str(place / "large.csv"), str(place / "run")]
    rng = np.random.default_rng(1)
    (place / "run" / "rows").mkdir(parents=True)
    subprocess.run(script, check=True, capture_output=True)  # begins: nothing is done yet
    with open(place / "run" / "rows" / "all.jsonl", "w", encoding="utf-8") as file:
        for name in ids:
            values = dict(zip(numbers, rng.uniform(size=len(numbers)).tolist(), strict=True))
            file.write(f"{name}\t1.0\tdone\t{json.dumps(row | values | {'id': name})}\n")
    done = subprocess.run(script, check=True, capture_output=True, text=True)
    seconds, memory = map(float, done.stdout.split())
    yield (
        f"catalogue of {count} rows: merge, write, page",
        f"{seconds:.1f} s, {memory:.2f} GB",
        "<= 60 s, 2 GB",
    )


def page(count, place):
    """A page of many lenses in a browser, loaded thrice."""
    from survey_pages import load, open_browser, write_run

    write_run(place / "page", count)
    browser = open_browser(place / "browser")
    if browser is None:
        yield f"page of {count} lenses in a browser", "chromium or its driver is not installed", "<= 3 s"
        return
    seconds = [load(browser, place / "page") for _ in range(3)]
    browser.quit()
    yield (
        f"page of {count} lenses in a browser: first time, again",
        f"{seconds[0]:.2f} s, {min(seconds[1:]):.2f} s",
        "<= 3 s",
    )


def stopped(count, place):
    """Ctrl-C in the middle of a run of many lenses."""
    from survey_kills import interrupt, make_cutouts

    seconds, code, _, gone = interrupt(make_cutouts(place / "stopped", count), place / "stopped run")
    left = "no process is left" if gone else "processes are left"
    yield "Ctrl-C until the run has ended", f"{seconds:.1f} s, exit code {code}, {left}", "<= 5 s"


def system_calls(place):
    """Calls for one lens that change the metadata of the file system."""
    # Counted in the code: product and thumbnail are looked at, made and renamed; the row is appended.
    return 2 * (1 + 1 + 4) + 1 / 1000


# ---------------------------------------------------------------- the tables


def projection(seconds, scheduler, calls):
    """Rows of what limits 100 000 lenses."""
    for cores in CORES:
        hours = 1e5 * seconds / cores / 3600
        rates = {
            "the fits": cores / seconds,
            "the scheduler": 1 / (scheduler * min(seconds, 1)),  # shorter ones share a task of a second
            "the file system": METADATA_RATE / calls,
        }
        limit = min(rates, key=rates.get)
        remedy = {
            "the fits": "more cores",
            "the scheduler": "--batch, or parts",
            "the file system": "--figures none",
        }
        yield cores, f"{max(hours, 1e5 / rates[limit] / 3600):.2f}", limit, remedy[limit]


def main():
    parser = common.parser_of(__doc__, 1000, "cutouts", 1)
    parser.add_argument("--tasks", type=int, default=20_000, help="empty tasks")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--kill-lenses", type=int, default=300)
    parser.add_argument("--rows", type=int, default=100_000, help="rows of the large catalogue")
    parser.add_argument("--page", type=int, default=10_000, help="lenses of the page")
    parser.add_argument("--stopped", type=int, default=100, help="lenses of the run that is interrupted")
    options = parser.parse_args()
    common.header("Surveys", cores=os.cpu_count(), load=f"{os.getloadavg()[0]:.1f}")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        parts = [overhead(options.n, options.seed, place)] if options.n else []
        parts += [scheduling(options.tasks)] if options.tasks else []
        parts += [large(options.rows, place)] if options.rows else []
        parts += [page(options.page, place)] if options.page else []
        parts += [stopped(options.stopped, place)] if options.stopped else []
        parts += [kills(options.kills, options.kill_lenses, options.seed)] if options.kills else []
        for part in parts:
            for row in part:
                print(" ".join(map(str, row)), file=sys.stderr, flush=True)
                rows.append(row)
        common.table(("what", "measured", "to reach"), rows)
        if options.n and options.tasks:
            print("100 000 such lenses, from these rates:")
            found = projection(globals()["RATES"]["fit"], globals()["SCHEDULER"], system_calls(place))
            common.table(("cores", "hours", "what limits", "what to do"), found)


if __name__ == "__main__":
    main()
