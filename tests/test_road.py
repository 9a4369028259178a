"""The road of one image from `SuperResolver.__call__` to the first residual: short enough to be walked."""

import sys
from pathlib import Path

import pytest

import lenssr
from lenssr import NetworkSource, SuperResolver
from lenssr.model import least_squares
from lenssr.simulation import DeepLense, LensPopulation

PACKAGE = str(Path(lenssr.__file__).parent)
LONGEST = 6


class Arrived(Exception):
    """The first residual is about to be computed."""


def frames_between():
    """Frames of lenssr between `SuperResolver.__call__` and the one that computes the residual."""
    frame, names = sys._getframe(2), []
    while frame is not None:
        if frame.f_code.co_filename.startswith(PACKAGE):
            names.append(frame.f_code.co_name)
        if frame.f_code.co_name == "__call__" and frame.f_code.co_filename.endswith("resolver.py"):
            return names[:-1][::-1]
        frame = frame.f_back
    raise AssertionError("not called by a resolver")


@pytest.fixture
def walk(monkeypatch):
    """Walk to the first residual and say which way it was."""

    def walk(item, **options):
        ways = []

        def stop(*_):
            ways.append(frames_between())
            raise Arrived

        with monkeypatch.context() as patch:
            patch.setattr(least_squares._Iterates, "expand", stop)
            with pytest.raises(Arrived):
                SuperResolver(oversampling=1, **options)(item.low, noise=item.noise)
        return ways[0]

    return walk


@pytest.mark.parametrize("lens_light", [None, "mge"])
@pytest.mark.parametrize("source", ["sersic", "pixelated", "perturbed_sersic", "auto", "network"])
def test_few_frames_lie_between_a_call_and_its_first_residual(walk, source, lens_light):
    item = DeepLense(lens="sie", size=1, seed=1)[0] if lens_light is None else LensPopulation(2, 3)[0]
    way = walk(item, source=source, lens_light=lens_light)
    assert way[0] == "solve" and "find_lens" in way
    assert len(way) <= LONGEST, " -> ".join(way)


def test_a_network_start_is_no_longer_road(walk):
    item = DeepLense(lens="sie", size=1, seed=1)[0]
    assert len(walk(item, source="sersic", lens_light=None, start="network")) <= LONGEST
    assert len(walk(item, source="sersic", start="network")) <= LONGEST + 1  # the choice of the light


def test_a_known_lens_is_not_looked_for(walk):
    item = DeepLense(lens="sie", size=1, seed=1)[0]
    known = walk(item, lens=item.lens, source="sersic", lens_light=None)
    assert "find_lens" not in known and len(known) <= LONGEST
    drawn = walk(item, lens=item.lens, lens_light="sersic", source=NetworkSource("relensing"))
    assert len(drawn) <= LONGEST
