"""Damage inputs by the thousand, and print what becomes of them: one table.

``python benchmarks/faults.py`` takes hours with the counts of the issue of each kind; ``--share 0.02`` takes
a fiftieth of them. ``--kills N`` ends runs at random moments and looks what is left. The engines are those of
``tests/faults``.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "faults"))

import numpy as np
from cases import KINDS, make_case
from judges import OUTCOMES, Judge
from kills import kill_runs


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="share of the mutants (default: 1)")
    parser.add_argument("--only", nargs="*", default=list(KINDS), help="kinds (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=300, help="number of killed runs (default: 300)")
    parser.add_argument("--show", type=int, default=5, help="bad outcomes to print for each kind")
    options = parser.parse_args()
    print(f"{'':10}" + "".join(f"{name:>18}" for name in ("mutants", *OUTCOMES)))
    for kind in options.only:
        with tempfile.TemporaryDirectory() as folder:
            case = make_case(kind, Path(folder))
            rng = np.random.default_rng([options.seed, list(KINDS).index(kind)])
            judge = Judge(case.read, folder, case.expected)
            count = max(1, round(KINDS[kind] * options.share))
            judge.run(case.mutants(rng, count))
        numbers = [sum(judge.counts.values()), *(judge.counts[name] for name in OUTCOMES)]
        print(f"{kind:10}" + "".join(f"{number:18}" for number in numbers), flush=True)
        for bad in judge.bad[: options.show]:
            print("   ", json.dumps(bad), file=sys.stderr)
    if options.kills:
        counts = kill_runs(options.kills, options.seed)
        print("kills     " + ", ".join(f"{name} {number}" for name, number in counts.items()))


if __name__ == "__main__":
    main()
