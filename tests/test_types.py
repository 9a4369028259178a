"""What type checkers say of a user's script: a right one passes strictly, a wrong option is named."""

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from lenssr.options import OWN_SOURCES, SourceKind

ROOT = Path(__file__).parents[1]
SCRIPT = '''
"""Super-resolve every cutout of a folder, with a profile of one's own behind the lens."""

from pathlib import Path

import astropy.units as u
import numpy as np

from lenssr import PSF, FailedResolution, InputError, Observation, PixelGrid, SuperResolver, register_source
from lenssr.imaging import GaussianNoise, measure_sky
from lenssr.light import LightProfile
from lenssr.metrics import bicubic, summarize
from lenssr.options import SourceName


def resolver_of(source: SourceName, fwhm: float) -> SuperResolver:
    """Resolver for a registered source behind a Gaussian PSF."""
    psf = PSF.from_fwhm(fwhm * u.arcsec)
    return SuperResolver(source=source, psf=psf, prior="auto", lens_light=["sersic", "mge"], mask="auto")


def resolve(folder: Path, profile: type[LightProfile]) -> list[float]:
    """Scores of the fits that succeed."""
    resolver = resolver_of(register_source("ring", profile, help="a ring"), 0.1)
    paths = [str(path) for path in sorted(folder.glob("*.fits"))]
    scores = []
    for path, result in zip(paths, resolver.map(paths, jobs=2, pixel_scale=0.05), strict=True):
        if isinstance(result, FailedResolution):
            print(path, result.error)
            continue
        print(path, result.ok, ", ".join(result.flags))
        scores.append(float(result.reduced_chi2))
    return scores


def simulate(shape: tuple[int, int] = (40, 40)) -> Observation:
    """An image of noise alone, checked."""
    grid = PixelGrid(shape, 0.05 * u.arcsec)
    noise = GaussianNoise(0.1)
    image = noise.draw(np.zeros(grid.upsample(1).shape), np.random.default_rng(1))
    return Observation.from_any(image, noise=noise, pixel_scale=grid.pixel_scale, unit="electron/s")


if __name__ == "__main__":
    try:
        print(measure_sky(simulate()).factor, bicubic(simulate().data, 2).shape)
        print(summarize([SuperResolver(source="pixelated")(simulate()).reduced_chi2]))
    except InputError as error:
        print(error)
'''
WRONG = """
from lenssr import SuperResolver

SuperResolver(source="sersik")
SuperResolver(prior="curved")
SuperResolver(sky="gradient")
SuperResolver()("image.fits", pixel_scal=0.05)
"""


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    """What mypy says of both scripts, by file, with the settings of pyproject.toml."""
    pytest.importorskip("mypy")
    folder = tmp_path_factory.mktemp("types")
    (folder / "right.py").write_text(SCRIPT.lstrip(), encoding="utf-8")
    (folder / "wrong.py").write_text(WRONG.lstrip(), encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--hide-error-context", "--no-error-summary"]
    command += ["--config-file", ROOT / "pyproject.toml", "--cache-dir", folder / "cache"]
    command += [folder / "right.py", folder / "wrong.py"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=600)
    assert not done.stderr
    said = [line for line in done.stdout.splitlines() if ": error: " in line]
    return {name: [line for line in said if f"{name}.py" in line] for name in ("right", "wrong")}


@pytest.mark.slow
def test_a_right_script_passes_strictly(lines):
    assert lines["right"] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "words"),
    [
        (3, ['"source"', "Literal['sersik']", "'sersic'", "SourceName", "NetworkSource"]),
        (4, ['"prior"', "Literal['curved']", "'curvature'"]),
        (5, ['"sky"', "Literal['gradient']", "'constant'"]),
        (6, ['Unexpected keyword argument "pixel_scal"']),
    ],
    ids=["source", "prior", "sky", "keyword"],
)
def test_a_wrong_option_is_named(lines, number, words):
    (line,) = [line for line in lines["wrong"] if f"wrong.py:{number}:" in line]
    assert [word for word in words if word not in line] == []


def test_the_names_of_sources_are_those_of_the_registry():
    assert set(get_args(SourceKind)) == OWN_SOURCES
