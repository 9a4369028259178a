"""A survey that is stopped ends at once and goes on; benchmarks/survey.py kills more, and others."""

import signal

import pytest
from astropy.table import Table
from survey_kills import interrupt, make_cutouts

from lenssr import SuperResolver
from lenssr.survey import Survey, engines
from lenssr.survey.lens_solver import LensSolver

LENSES = 150  # so many that some are left when a busy machine gets to the signal


class HerePool:
    """Solves the rest in this process, which takes no seconds to start."""

    def __init__(self, job, **limits):
        self.solver = LensSolver(job)

    def solve(self, lenses, wanted):
        return self.solver.solve(lenses, wanted, 1)

    def close(self):
        self.solver.journal.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "expected"), [(signal.SIGINT, (130, ["lenssr: interrupted"])), (signal.SIGKILL, (-9, []))]
)
def test_a_survey_that_is_stopped_ends_at_once_and_goes_on(tmp_path, monkeypatch, number, expected):
    cutouts, run = make_cutouts(tmp_path / "cutouts", LENSES), tmp_path / "run"
    seconds, code, told, gone = interrupt(cutouts, run, number)
    assert seconds < 60 and gone  # how soon it is on a quiet machine benchmarks/survey.py prints: under 5
    assert (code, told.splitlines()) == expected
    monkeypatch.setattr(engines, "SolverPool", HerePool)
    survey = Survey(cutouts, run, resolver=SuperResolver(source="interpolation"), figures=False)
    assert survey.run().grades == {"probable": LENSES}
    table = Table.read(run / "catalogue.ecsv")
    assert list(table["id"]) == [f"lens-{number:04d}" for number in range(LENSES)]
    assert [path for path in run.rglob(".*") if path.is_file()] == []
