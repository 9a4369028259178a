"""Damage inputs by the thousand, and end runs at random moments: what becomes of them, in two tables.

    python benchmarks/faults.py [--share 0.02] [--only FITS weights] [--kills 300]

With the counts of each kind that ``tests/faults/cases.py`` has it takes an hour; ``--share 0.02`` takes a
fiftieth of them. The engines are those of ``tests/faults``.
"""

import argparse
import json
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "faults"))

import common
import numpy as np
from cases import KINDS, make_case
from judges import MEMORY, OUTCOMES, SECONDS, Judge
from kills import kill_runs, scenarios


def judge(kind, options):
    """Counts of all mutants of a kind, and of each outcome."""
    with tempfile.TemporaryDirectory() as folder:
        case = make_case(kind, Path(folder))
        rng = np.random.default_rng([options.seed, list(KINDS).index(kind)])
        judge = Judge(case.read, folder, case.expected)
        judge.run(case.mutants(rng, max(1, round(KINDS[kind] * options.share))))
    for bad in judge.bad[: options.show]:
        print("   ", kind, json.dumps(bad), file=sys.stderr, flush=True)
    return [sum(judge.counts.values()), *(judge.counts[name] for name in OUTCOMES)]


def main():
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="share of the mutants (default: 1)")
    parser.add_argument("--only", nargs="*", default=list(KINDS), help="kinds (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=300, help="number of killed runs (default: 300)")
    parser.add_argument("--show", type=int, default=5, help="bad outcomes to print for each kind")
    options = parser.parse_args()
    common.header("Damaged inputs and killed runs", seed=options.seed)
    if options.only:
        told = f"hung: more than {SECONDS:g} s, waits for a busy processor apart"
        print(f"{told.capitalize()}; over 2 GB: more than {MEMORY / 1e9:g} GB in the process.\n")
        rows = []
        for kind in options.only:
            rows.append([kind, *judge(kind, options)])
            print(*rows[-1], file=sys.stderr, flush=True)
        total = [sum(column) for column in zip(*(row[1:] for row in rows), strict=True)]
        common.table(["damaged", "number", *OUTCOMES], [*rows, ["all", *total]])
    if options.kills:
        counts = kill_runs(options.kills, options.seed)
        rows = []
        for name in scenarios(""):
            own = Counter({how: number for (one, how), number in counts.items() if one == name})
            wrong = ", ".join(f"{how} {number}" for how, number in own.items() if how != "right") or "nothing"
            rows.append([name, own.total(), own["right"], wrong])
        common.table(["killed", "number", "as if undisturbed", "what was wrong"], rows)


if __name__ == "__main__":
    main()
