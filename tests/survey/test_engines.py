"""Dask hands out the work of a survey, and the same comes of it as of a loop."""

import pytest
from astropy.table import Table

from lenssr.exceptions import InputError
from lenssr.survey import Survey, engines
from lenssr.survey.lens_solver import Job

CHANGING = ["seconds", "memory", "host", "finished"]
distributed = pytest.importorskip("distributed")

# Sockets and loops of a cluster that has just been closed are collected later.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Dask asks the system which address would reach the internet, which tests must not do."""
    monkeypatch.setattr(distributed.utils, "_get_ip", lambda *_, **__: "127.0.0.1")


def run(folder, place, resolver, **options):
    survey = Survey(folder, place, resolver=resolver, figures=False)
    summary = survey.run(**options)
    table = Table.read(place / "catalogue.ecsv")
    return summary, {name: list(map(str, table[name])) for name in table.colnames if name not in CHANGING}


def test_workers_give_what_a_loop_gives(folder, tmp_path, resolver, idle):
    (folder / "b.fits").write_bytes(b"no FITS")
    _, loop = run(folder, tmp_path / "loop", resolver)
    summary, workers = run(folder, tmp_path / "workers", resolver, jobs=2)
    assert workers == loop
    assert summary.grades == {"probable": 4, "failed": 1}
    assert sorted(idle.asked) == sorted(2 * list("abcde"))
    assert engines._pools == {}


def test_a_run_that_has_to_stop_says_why(folder, tmp_path, resolver, monkeypatch):
    class Full:
        def __init__(self, job, **limits):
            pass

        def solve(self, lenses, wanted):
            raise engines.Stopped("x.fits cannot be written (No space left on device)")

        def close(self):
            pass

    monkeypatch.setattr(engines, "SolverPool", Full)
    with pytest.raises(InputError, match="No space left on device.; what is done is kept"):
        run(folder, tmp_path / "run", resolver, jobs=2)


def test_workers_of_another_scheduler_do_the_work(folder, tmp_path, resolver, idle):
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0", protocol="tcp"
    ) as cluster:
        summary, _ = run(folder, tmp_path / "run", resolver, scheduler=cluster.scheduler_address)
        assert summary.grades == {"probable": 5}
    assert engines._pools == {}


def test_without_dask_the_extra_is_named(folder, tmp_path, resolver, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "dask", None)
    with pytest.raises(InputError, match=r"pip install 'lenssr\[survey\]'"):
        Survey(folder, tmp_path / "run", resolver=resolver).run(jobs=2)


@pytest.mark.parametrize(("seconds", "largest"), [(0.0, 50), (0.25, 4), (3.0, 1)])
def test_short_lenses_go_together_and_long_ones_by_themselves(tmp_path, resolver, seconds, largest):
    def solve(token, batches):
        return [[{"id": name, "together": len(batches)}] for _, (name,) in batches], seconds

    (tmp_path / "rows").mkdir()
    engine = engines.DaskEngine(Job(resolver, str(tmp_path)), jobs=2, solve=solve)
    try:
        rows = [row for found in engine.run(([], [str(k)]) for k in range(400)) for row in found]
    finally:
        engine.close()
    assert sorted(int(row["id"]) for row in rows) == list(range(400))
    sizes = [row["together"] for row in rows]
    assert sizes[0] == 1 and max(sizes) == largest
