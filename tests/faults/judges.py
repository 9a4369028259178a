"""What becomes of a damaged input: accepted, refused, or one of the four things that must not happen."""

import contextlib
import hashlib
import io
import itertools
import json
import os
import signal
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

from lenssr import InputError, SuperResolution
from lenssr._limits import limited
from lenssr._yaml import read_yaml

OUTCOMES = ("accepted", "refused", "other exception", "hung", "over 2 GB", "silently changed")
# Seconds, without those in which others had the processor, and bytes.
SECONDS, MEMORY = 10.0, 2e9
# Mutants that one process judges, which are in memory together.
AT_ONCE = 250


def digest(planes):
    """Sum of everything that was read from a file."""
    found = hashlib.sha256()
    for plane in planes:
        found.update(b"none" if plane is None else np.ascontiguousarray(plane, dtype=float).tobytes())
    return found.hexdigest()


def read_image(path):
    """Planes of an image."""
    from lenssr.imaging import Observation

    seen = Observation.from_any(path)
    return digest(
        [seen.data, seen.mask, seen.error, None if seen.psf is None else seen.psf.array, seen.grid.matrix]
    )


def read_psf(path):
    """Array of a PSF."""
    from lenssr import PSF

    return digest([PSF.from_fits(path).array])


def read_lens(path):
    """Parameters of a lens."""
    from lenssr._files import read_text
    from lenssr.mass import from_dict

    return repr(from_dict(read_yaml(read_text(path, 2**22), str(path))))


def read_recipe(path):
    """Values of a recipe."""
    from lenssr.training import Recipe

    return json.dumps(Recipe.load(path).to_dict())


def read_weights(path):
    """Sum of a network."""
    from lenssr.networks import load_weights
    from lenssr.networks.weights import checksum_of

    return checksum_of(load_weights(path)[0])


def read_result(path):
    """Planes of a result."""
    found = SuperResolution.read(path)
    found.summary()
    error = found.image.uncertainty
    return digest([found.image.data, None if error is None else error.array, found.residual.data]) + str(
        found.flags
    )


def read_table(path):
    """Positions of a table, on a small image."""
    from lenssr.imaging import Observation
    from lenssr.photometry.positions import read_positions
    from lenssr.photometry.sources import find_sources

    image = np.random.default_rng(0).normal(0, 1, (20, 20))
    found = find_sources(read_positions(path), Observation.from_any(image, noise=1.0, pixel_scale=1.0))
    return digest([found.x, found.y])


class Refused(InputError):
    """A command that said why it does not run, in one line."""


def run_command(arguments, folder):
    """Exit code of a command."""
    from lenssr.cli import main

    said = io.StringIO()
    os.chdir(folder)  # a fork of its own, where hostile names of logs and figures do no harm
    out = str(Path(folder) / "out.fits")
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = main([*arguments, "-o", out, "--overwrite", "--source", "interpolation"])
        except SystemExit as end:
            code = end.code
    lines = [line for line in said.getvalue().splitlines() if "error: " in line]
    if code and (
        len(lines) != 1 or any(f"error: {name}:" in lines[0] for name in ("TypeError", "AttributeError"))
    ):
        raise RuntimeError(f"exit {code}: {said.getvalue()[-300:]}")
    if code:
        raise Refused(lines[0])
    return "done"


def outcome(read, mutant, path, expected):
    """One of `OUTCOMES` (hanging and memory are seen from outside), and the message."""
    try:
        with warnings.catch_warnings(), limited(memory=MEMORY):
            warnings.simplefilter("ignore")
            found = read(path)
    except InputError as error:
        line = str(error)
        return ("refused" if "\n" not in line and 5 < len(line) < 500 else "other exception"), line
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - whatever it is, it should not have been
        return "other exception", f"{type(error).__name__}: {error}"
    return ("silently changed" if mutant.betrayed and found != expected else "accepted"), ""


class Judge:
    """Judge mutants in a process of its own, which is ended where it hangs or takes too much memory."""

    def __init__(self, read, folder, expected=None):
        self.read, self.folder, self.expected = read, Path(folder), expected
        self.counts, self.bad = Counter(), []

    def run(self, mutants):
        """Judge all of them, in order."""
        numbered = enumerate(mutants)
        while rest := list(itertools.islice(numbered, AT_ONCE)):
            while rest:
                rest = rest[self._child(rest) :]
        return self.counts

    def _note(self, result, mutant, message):
        self.counts[result] += 1
        if result not in ("accepted", "refused"):
            self.bad.append((result, mutant.how, message[:200]))

    def _child(self, rest):
        """Judge in a fork until it ends; returns how many were judged."""
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            self._judge(rest, writing)
            os._exit(0)
        os.close(writing)
        done, began, pending = 0, _clock(child), b""
        os.set_blocking(reading, False)
        while True:
            with contextlib.suppress(BlockingIOError):
                data = os.read(reading, 65536)
                if not data:
                    break
                pending += data
                began = _clock(child)
            *lines, pending = pending.split(b"\n")
            for line in lines:
                result, message = json.loads(line)
                self._note(result, rest[done][1], message)
                done += 1
            stuck = "hung" if _clock(child) - began > SECONDS else None
            stuck = "over 2 GB" if _memory(child) > MEMORY else stuck
            if stuck and done < len(rest):
                os.kill(child, signal.SIGKILL)
                self._note(stuck, rest[done][1], "")
                done += 1
                break
            time.sleep(0.002)
        os.close(reading)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        if done >= len(rest) or code in (0, -signal.SIGKILL):
            return done
        self._note("other exception", rest[done][1], f"exit code {code}")
        return done + 1

    def _judge(self, rest, writing):
        for number, mutant in rest:
            if isinstance(mutant.content, list):
                found = outcome(
                    lambda content: self.read(content, self.folder), mutant, mutant.content, self.expected
                )
            else:
                path = self.folder / f"mutant-{number}{mutant.suffix}"
                content = mutant.content
                path.write_bytes(
                    content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape")
                )
                found = outcome(self.read, mutant, path, self.expected)
                path.unlink()
            os.write(writing, json.dumps([found[0], found[1][:300]]).encode() + b"\n")


def _clock(process):
    """Seconds of a clock that stands while a process waits for a processor that others have."""
    waited = 0
    with contextlib.suppress(OSError, IndexError, ValueError):
        waited = int(Path(f"/proc/{process}/schedstat").read_text().split()[1])
    return time.monotonic() - waited / 1e9


def _memory(process):
    with contextlib.suppress(OSError, IndexError, ValueError):
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0
