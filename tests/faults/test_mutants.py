"""Damaged inputs are accepted as they are, or refused in one line: nothing else happens."""

import numpy as np
import pytest
from cases import KINDS, make_case
from judges import OUTCOMES, Judge

# Mutants of each kind in the fast tests, a hundredth of the long runs or so.
FEW = {"FITS": 60, "headers": 20, "PSF": 8, "lens YAML": 30, "recipes": 10, "weights": 15, "results": 15}
FEW |= {"tables": 20, "commands": 6}


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_mutants_are_accepted_or_refused(kind, tmp_path):
    case = make_case(kind, tmp_path)
    judge = Judge(case.read, tmp_path, case.expected)
    counts = judge.run(case.mutants(np.random.default_rng(2026), FEW[kind]))
    assert sum(counts.values()) == FEW[kind]
    assert not judge.bad, judge.bad[:5]
    assert counts["refused"] > 0 and set(counts) <= set(OUTCOMES)


def test_a_judge_sees_what_must_not_happen(tmp_path):
    import time

    from mutations import Mutant

    def read(path):
        word = path.read_text()
        if word == "hang":
            time.sleep(100)
        if word == "fail":
            raise TypeError("no")
        return word

    class Quick(Judge):
        pass

    import judges

    before, judges.SECONDS = judges.SECONDS, 1.0
    try:
        judge = Quick(read, tmp_path, "good")
        words = ["good", "fail", "hang", "other", "good"]
        counts = judge.run([Mutant(word, word, betrayed=True) for word in words])
    finally:
        judges.SECONDS = before
    assert counts == {"accepted": 2, "other exception": 1, "hung": 1, "silently changed": 1}
