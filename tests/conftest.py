"""What all tests share: real images, random numbers, and examples that are the same in every run."""

import os
import shutil
import subprocess
import zlib
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

REAL_DATA = "LENSSR_REAL_DATA"

# The same examples in every run, and no deadline: the first call of a torch function may take seconds.
hypothesis.settings.register_profile("lenssr", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("lenssr")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Let slow tests begin first, and what a module makes for its tests be made once, in one process."""

    def haste(item):
        real = "real_data" in getattr(item, "fixturenames", ())  # these take longest
        return item.get_closest_marker("slow") is None, not real

    items.sort(key=haste)
    for item in items:
        shared = getattr(item, "_fixtureinfo", None)
        made = {} if shared is None else shared.name2fixturedefs
        if any(one.scope == "module" for found in made.values() for one in found):
            if item.get_closest_marker("xdist_group") is None:
                item.add_marker(pytest.mark.xdist_group(item.nodeid.split("::")[0]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A test on real images that skips although they were promised has failed."""
    report = yield
    if report.skipped and os.environ.get(REAL_DATA) and not hasattr(report, "wasxfail"):
        if "real_data" in getattr(item, "fixturenames", ()) or REAL_DATA in str(report.longrepr):
            report.outcome = "failed"
            report.longrepr = f"skipped although {REAL_DATA} is set: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def real_data():
    """The folder of real images (a `pathlib.Path`), named by the environment variable LENSSR_REAL_DATA."""
    folder = os.environ.get(REAL_DATA)
    if not folder:
        pytest.skip(f"{REAL_DATA} does not name the folder of real images")
    folder = Path(folder)
    if not folder.is_dir():
        pytest.fail(f"{REAL_DATA} = {folder} is no folder")
    return folder


@pytest.fixture(scope="session")
def fitsverify():
    """Function that checks a file by the program fitsverify: no error and no warning."""
    program = shutil.which("fitsverify")
    if program is None:
        pytest.skip("fitsverify is not installed: .ci/run installs it")

    def verify(path):
        told = subprocess.run([program, str(path)], capture_output=True, text=True).stdout
        assert "found 0 warning(s) and 0 error(s)" in told, told

    return verify


@pytest.fixture
def rng(request):
    """A `numpy.random.Generator`: the same in every run, another for every test; torch is seeded too."""
    seed = zlib.crc32(request.node.nodeid.encode())
    torch.manual_seed(seed)
    return np.random.default_rng(seed)


@pytest.fixture
def exact_trace(monkeypatch):
    """Let the inversion behind a band count its determined nodes without probes, as whole matrices do."""

    from lenssr.source.linalg import BandedFactors

    def trace(self, prior, probes):
        def of(factor):
            inverse = factor.solve(np.eye(factor.size)[:, : factor.count])[: factor.count]
            return (inverse * prior.of_one.dense).sum()

        return self._each(of, np.nan)

    monkeypatch.setattr(BandedFactors, "trace", trace)
