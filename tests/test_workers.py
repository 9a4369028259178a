"""Processes side by side: the same results in order, and what happens when one of them ends."""

import os
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from astropy.wcs import WCS

from lenssr import InputError, SuperResolver
from lenssr._workers import count_jobs, dumps, solve_parts

# What an image is called says what becomes of it.
METHOD = """
import json, os, signal, sys, time, types
from lenssr._workers import solve_parts

class Odd(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")

class Method:
    def solve(self, images):
        for image in images:
            if image == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            if image == "leaves":
                os._exit(3)
            if image == "exits":
                sys.exit("enough")
            if image == "raises":
                raise Odd("this", "that")
            if image == "waits":
                os.write(1, b"%d\\n" % os.getpid())  # at once, whatever others write
                time.sleep(300)
        value = (lambda: 0) if "unsendable" in images else os.environ.get("OMP_NUM_THREADS")
        return [types.SimpleNamespace(value=(image, value)) for image in images]

def run(groups, jobs):
    names = [image for group in groups for image in group]
    numbers = iter(range(len(names)))
    parts = [[(next(numbers), image) for image in group] for group in groups]
    found = {}
    for part, results in solve_parts(Method().solve, parts, jobs):
        found |= dict(zip(part, results))
    return [str(found[k]) if isinstance(found[k], Exception) else found[k].value for k in range(len(names))]
"""


def script(tmp_path, code):
    path = tmp_path / "script.py"
    path.write_text(METHOD + code)
    return [sys.executable, str(path)]


def environment(**options):
    kept = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    return {**kept, **options}


def run(command, **options):
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=environment(**options), check=False
    )


def test_only_guilty_images_fail(tmp_path):
    groups = [["a", "b"], ["dies"], ["c", "raises"], ["d", "leaves", "e"], ["exits", "g"], ["unsendable"]]
    code = f'if __name__ == "__main__":\n    print(json.dumps(run({groups!r}, 2)))'
    done = run(script(tmp_path, code))
    assert done.returncode == 0, done.stderr
    found = eval(done.stdout.replace("null", "None"))
    images = [image for group in groups for image in group]
    for image, result in zip(images, found, strict=True):
        # Each process has one thread, though nobody asked for it.
        expected = {
            "dies": "signal 9",
            "leaves": "exit code 3",
            "exits": "exit code 1",
            "raises": "Odd: this and that",
            "unsendable": "cannot be sent",
        }.get(image, [image, "1"])
        assert result == expected or isinstance(expected, str) and expected in result


LOGGED = """
import logging

class Talks:
    def solve(self, images):
        logger = logging.getLogger("lenssr.room")
        logger.debug("looking at %s", images[0])
        logger.info("solving %s", images[0])
        return images

if __name__ == "__main__":
    logger = logging.getLogger("lenssr")
    logger.setLevel(sys.argv[1])
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    for _ in solve_parts(Talks().solve, [[(0, "a")], [(1, "b")]], 2):
        pass
"""


@pytest.mark.parametrize("level, said", [("INFO", ["INFO solving"]), ("WARNING", [])])
def test_what_processes_log_reaches_the_handlers_of_this_one(tmp_path, level, said):
    done = run([*script(tmp_path, LOGGED), level])
    assert done.returncode == 0, done.stderr
    expected = [f"lenssr.room {one} {image}" for one in said for image in "ab"]
    assert sorted(done.stdout.splitlines()) == expected and not done.stderr


def test_a_script_without_a_guard_is_told(tmp_path):
    done = run(script(tmp_path, 'print(run([["a"], ["b"]], 2))'))
    assert done.returncode == 1
    assert done.stderr.rstrip().splitlines()[-1].startswith("lenssr.exceptions.InputError")
    assert '__name__ == "__main__"' in done.stderr.splitlines()[-1]


def test_classes_that_processes_do_not_know_are_refused():
    done = run([sys.executable, "-c", METHOD + 'run([["a"], ["b"]], 2)'])
    assert done.returncode == 1
    assert "define its classes in a module" in done.stderr.splitlines()[-1]


@pytest.mark.skipif(os.name != "posix", reason="signals of a terminal")
def test_an_interrupt_ends_all_processes(tmp_path):
    # Whoever started the tests may ignore interrupts, and processes inherit that.
    heed = "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    command = script(tmp_path, heed + 'if __name__ == "__main__":\n    run([["waits"], ["waits"]], 2)')
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=environment(),
    )
    with process:
        workers = [int(process.stdout.readline()) for _ in range(2)]
        os.killpg(process.pid, signal.SIGINT)
        try:
            _, errors = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert errors.rstrip().endswith("KeyboardInterrupt")
    deadline = time.monotonic() + 10
    while any(map(_runs, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(_runs, workers))


def _runs(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


SAME = """
import numpy as np
from astropy.nddata import CCDData, StdDevUncertainty
from lenssr import PSF, SIE, PixelGrid, Sersic, SuperResolver, render
from lenssr.imaging import GaussianNoise
from astropy.wcs import WCS
import astropy.units as u

def image(seed, shape):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], [150 + 1 / 3, 2 + 1 / 7]
    wcs.wcs.crpix, wcs.wcs.cd = [10 / 3, 20 / 3], np.array([[-0.1, 0], [0, 0.1]]) / 3600
    lens, source = SIE(0.8, e1=0.1), Sersic(5, 0.2, 1, 0.1, 0.05)
    light = render(PixelGrid(shape, 0.1), lens=lens, source=source, psf=PSF.from_fwhm(0.2 * u.arcsec))
    data = light + np.random.default_rng(seed).normal(0, 0.002, shape)
    error = StdDevUncertainty(np.full(shape, 0.002))
    return CCDData(data, unit="electron/s", uncertainty=error, wcs=wcs), lens

def content(result):
    images = [result.image, result.lensed_source, result.source, result.model_image, result.residual]
    found = [one.data.tobytes() for one in images] + [one.uncertainty.array.tobytes() for one in images[:3]]
    found += [repr(one.wcs.wcs.cd.tolist()) + repr(one.wcs.wcs.crval.tolist()) for one in images[:3]]
    meta = {name: value for name, value in result.meta.items() if name != "seconds"}
    found += [result.covariance.tobytes(), result.lens.vector.numpy().tobytes(), result.flags, repr(meta)]
    draws = result.sample(2, seed=5)
    found += [draws.image.value.tobytes(), draws.source.value.tobytes()]
    return [*found, repr(result.image.wcs), str(result.parameters)]

if __name__ == "__main__":
    images = [image(seed, shape)[0] for seed, shape in enumerate([(24, 24), (26, 24), (24, 24)])]
    images.insert(1, "missing.fits")
    resolver = SuperResolver(source=sys.argv[1], lens=image(0, (24, 24))[1], psf=0.2 * u.arcsec)
    one, two = (resolver.map(images, jobs=jobs) for jobs in (1, 2))
    print([bool(result) for result in two])
    print([content(a) == content(b) for a, b in zip(one, two) if a])
    single = resolver(images[2])
    print(content(single) == content(two[2]))
    [result.write(f"{sys.argv[2]}/{k}.fits") for k, result in enumerate(two) if result]
"""


@pytest.mark.slow
@pytest.mark.parametrize("source", ["sersic", "pixelated"])
def test_results_do_not_depend_on_the_number_of_processes(tmp_path, source):
    done = run([*script(tmp_path, SAME), source, str(tmp_path)], OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[True, False, True, True]", "[True, True, True]", "True"]


# ---------------------------------------------------------------- without processes


@pytest.mark.parametrize("jobs", [0, -2, 1.5, "2", True, False])
def test_numbers_of_processes_are_checked(jobs):
    with pytest.raises(InputError, match="jobs = "):
        count_jobs(jobs, torch.device("cpu"))


def test_map_checks_the_number_of_processes():
    with pytest.raises(InputError, match="jobs = 0"):
        SuperResolver(source="sersic").map([], jobs=0)
    assert SuperResolver(source="pixelated").map([], jobs=-1) == []


@pytest.mark.parametrize("jobs", [None, -1])
def test_all_cores(jobs):
    assert 1 <= count_jobs(jobs, torch.device("cpu")) <= os.cpu_count()
    assert count_jobs(jobs, torch.device("cuda")) == 1


@pytest.mark.parametrize("jobs", [1, 3, np.int64(2)])
def test_a_number_of_processes(jobs):
    assert count_jobs(jobs, torch.device("cpu")) == jobs


def test_processes_do_not_share_a_gpu():
    assert count_jobs(1, torch.device("cuda")) == 1
    with pytest.raises(InputError, match="batches"):
        count_jobs(2, torch.device("cuda"))


def test_what_cannot_be_sent_is_refused_before_processes_start():
    parts = [[(0, "a")], [(1, "b")]]
    with pytest.raises(InputError, match="cannot be sent to other processes"):
        next(solve_parts(lambda observations: None, parts, 2))


def test_one_part_needs_no_process():
    (numbers, results), *rest = solve_parts(
        lambda images: [f"{name}!" for name in images], [[(4, "a"), (7, "b")]], 8
    )
    assert numbers == [4, 7] and results == ["a!", "b!"] and not rest


@pytest.mark.parametrize("matrix", ["cd", "pc"])
def test_wcs_keep_all_digits(matrix):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = [150 + 1 / 3, 2 + 1 / 7], [100 / 3, 200 / 7]
    turn = np.array([[-0.8, 0.6], [0.6, 0.8]])
    if matrix == "cd":
        wcs.wcs.cd = turn / 3.1e4
    else:
        wcs.wcs.pc, wcs.wcs.cdelt = turn, [1 / 3.1e4, 1 / 3.1e4]
    wcs.pixel_shape = (30, 40)
    copy = pickle.loads(dumps({"wcs": wcs}))["wcs"]
    for name in ("crpix", "crval", matrix):
        assert getattr(copy.wcs, name).tobytes() == getattr(wcs.wcs, name).tobytes()
    assert copy.pixel_shape == wcs.pixel_shape
    assert copy.wcs.compare(wcs.wcs)
    assert copy.wcs.has_cd() == wcs.wcs.has_cd()
