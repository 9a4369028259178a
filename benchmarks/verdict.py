"""Whether a verdict can be trusted: the share of good and of spoiled lenses that are flagged.

The good ones, all with the lens unknown: of every ten, six of a `LensPopulation` (lens light fitted where
there is some), one of each DeepLense cell (SIS and SIE, clean and noisy). The spoiled ones: all kinds of
`spoiled.spoiled`, in equal numbers. Flagged means that ``ok`` is False.

    python benchmarks/verdict.py [-n 100] [--seed 1] [--source sersic] [--jobs 1] [--details]
"""

import sys
from collections import Counter

import common
from spoiled import SPOILED_KINDS, spoiled

from lenssr.reconstruction.verdict import FLAGS
from lenssr.simulation import DeepLense, LensPopulation

POPULATION = "LensPopulation"
CHUNK = 10


def good_case(number, seed, i):
    """Kind, image, what comes with it, settings and item of a good lens."""
    cells = common.deep_lense_cells()
    kind = ([POPULATION] * 6 + list(cells))[i % 10]
    if kind == POPULATION:
        item = LensPopulation(size=number, seed=seed)[i]
        settings = {} if item.lens_light is None else {"lens_light": "sersic"}
    else:
        item, settings = DeepLense(**cells[kind], size=number, seed=seed)[i], {"oversampling": 1}
    return kind, item.low, item.given, settings, item


def spoiled_case(seed, i):
    """The same of a spoiled one; it has no item."""
    kind = SPOILED_KINDS[i % len(SPOILED_KINDS)]
    case = spoiled(kind, seed=1000 * seed + i // len(SPOILED_KINDS))
    return kind, case.image, case.given, case.settings, None


def judge(number, seed, source, start, stop):
    """Of some cases, first the good: kind, whether it is good, ok, serious flags, all in words."""
    cases = [
        good_case(number, seed, i) if i < number else spoiled_case(seed, i - number)
        for i in range(start, stop)
    ]
    results = common.resolve([(image, given, {**own, "source": source}) for _, image, given, own, _ in cases])
    found = []
    for place, (case, result) in enumerate(zip(cases, results, strict=True), start=start):
        item = case[4]
        serious = [flag for flag in result.flags if FLAGS[flag].serious]
        right = "" if item is None else ("right" if common.right_lens(result, item) else "WRONG")
        words = f"{place:4} {case[0]:14} {right:5} ok={result.ok} {result.flags} {common.numbers_of(result)}"
        found.append((case[0], item is not None, result.ok, serious, words))
    return found


def main():
    parser = common.parser_of(__doc__, 100, "good lenses, and as many spoiled ones", 1)
    parser.add_argument("--source", default="sersic", help='"sersic" or "pixelated", which takes far longer')
    parser.add_argument("--details", action="store_true", help="a line for each verdict that is wrong")
    arguments = parser.parse_args()
    number, seed = arguments.n, arguments.seed
    common.header("Verdicts on good and spoiled lenses", source=arguments.source, seed=seed)
    tasks = [
        (number, seed, arguments.source, start, min(start + CHUNK, 2 * number))
        for start in range(0, 2 * number, CHUNK)
    ]
    found = []
    for part in common.in_processes(judge, tasks, arguments.jobs):
        found += part
        for _, good, ok, _, words in part if arguments.details else ():
            if good != ok:
                print(words, file=sys.stderr, flush=True)
    rows = []
    for good in (True, False):
        group = [case for case in found if case[1] == good]
        for kind in dict.fromkeys(case[0] for case in group):
            rows.append(_row(kind, [case for case in group if case[0] == kind]))
        rows.append(_row(f"all {'good, <= 5 %' if good else 'spoiled, >= 95 %'}", group))
    common.table(["kind", "number", "flagged", "serious flags"], rows)


def _row(name, cases):
    flagged = sum(not ok for _, _, ok, _, _ in cases)
    flags = Counter(flag for case in cases for flag in case[3]).most_common()
    return name, len(cases), f"{flagged / len(cases):.0%}", ", ".join(f"{flag} {n}" for flag, n in flags)


if __name__ == "__main__":
    main()
