"""README and docs hold code that runs: blocks of Python in the order of their page, and command lines.

Blocks behind ``>>>`` are doctests. These are the others: they run in a folder that has the files which pages
speak of, all of them small.
"""

import re
import shlex
import shutil
import textwrap
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.table import Table
from astropy.wcs import WCS

import lenssr
from lenssr import PSF, SIE, PixelGrid, Sersic, Shear, SuperResolution, SuperResolver, cli, render
from lenssr.simulation import DeepLense

ROOT = Path(__file__).parents[1]
FILES = (ROOT / "README.md", *sorted(ROOT.glob("docs/*.rst")), *sorted(ROOT.glob("docs/user/*.rst")))
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in FILES}
# Blocks that need what a test does not have, by a word of theirs; they are compiled.
NOT_HERE = {
    "hst_lens()": "the demo on the real lens takes minutes; test_readme.py compares it with the command",
    "SLURMCluster": "it needs a cluster",
    "import caustics": "the package is none of the extra 'test'",
    '__name__ == "__main__"': "processes import the script that starts them, and there is none here",
    "my_cutouts": "it needs a folder of galaxies",
    "model_of_another_code": "it needs a file of another code; tests/exchange has some",
}
# Numbers that take long and could be any: the test takes these instead.
QUICKER = {
    "jobs=8": "jobs=1",
    'sample_posterior(2000, "emcee", jobs=-1, progress=True)': 'sample_posterior(100, "laplace")',
    "fine_tune(images,": "fine_tune(images, steps=2,",
    "sample_posterior(300)": "sample_posterior(50)",
    # Exposures of a band are fitted in tests/reconstruction/test_bands.py.
    'result = resolver({"F606W": "a.fits", "F814W": ["exposure_1.fits", "exposure_2.fits"]})': "",
}


def python_blocks(page):
    """The blocks of Python of a page that are no doctests."""
    if page.endswith(".md"):
        return re.findall(r"^```python\n(.*?)^```$", PAGES[page], flags=re.MULTILINE | re.DOTALL)
    found = re.findall(
        r"^( *)\.\. code-block:: python\n\n((?:\1   .*\n|\n)+)", PAGES[page], flags=re.MULTILINE
    )
    return [textwrap.dedent(block) for _, block in found]


def commands(page):
    """The command lines of a page that begin with lenssr, their ends of line joined."""
    text = PAGES[page]
    if page.endswith(".md"):
        blocks = re.findall(r"^```bash\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    else:
        blocks = re.findall(r"^ *\.\. code-block:: bash\n\n((?: +.*\n|\n)+)", text, flags=re.MULTILINE)
    lines = [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    inline = re.findall(r"``(lenssr (?:resolve|demo|survey|inspect|sersic|simulate|train) [^`]+)``", text)
    inline = [
        re.sub(r"\s+", " ", line)
        for line in inline
        if not re.search(r"\bPSF\b|\bFILE\b|\bDIR\b|CATALOGUE|FOLDER", line)
    ]
    return [line for line in lines + inline if line.startswith("lenssr ")]


COMMANDS = [(page, line) for page in PAGES for line in commands(page)]
WITH_BLOCKS = [page for page in PAGES if python_blocks(page)]


def simulated(shape=30, peak=5.0, seed=1):
    """A small lens, as an image of its own."""
    lens = SIE(theta_E=0.9, e1=0.1, e2=-0.05) + Shear(gamma1=0.03, gamma2=0.02)
    source = Sersic(amplitude=peak, r_eff=0.15, n=1, x_0=0.06, y_0=0.1, e1=0.1, e2=0.1)
    galaxy = Sersic(amplitude=peak, r_eff=0.25, n=2)
    grid = PixelGrid((shape, shape), 0.1 * u.arcsec)
    psf = PSF.from_fwhm(0.2 * u.arcsec)
    light = render(grid, lens=lens, source=source, lens_light=galaxy, psf=psf)
    noise = np.random.default_rng(seed).normal(0, 0.01, light.shape)
    sigma = StdDevUncertainty(np.full(light.shape, 0.01))
    meta = {"FILTER": "F606W", "OBJECT": "a lens"}
    return CCDData(light + noise, unit="electron/s", uncertainty=sigma, meta=meta), lens


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """What pages speak of: files in a folder, and names."""
    folder = tmp_path_factory.mktemp("page")
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], [150.1, 2.2]
    wcs.wcs.crpix, wcs.wcs.cdelt = [15.5, 15.5], [-0.1 / 3600, 0.1 / 3600]
    for seed, name in enumerate(("cutout", "a", "b", "exposure_1", "exposure_2")):
        image, lens = simulated(seed=seed)
        image.wcs = wcs
        image.write(folder / f"{name}.fits")
    image, _ = simulated(shape=61)
    image.wcs = wcs
    image.write(folder / "field.fits")
    Table({"id": ["one"], "file": ["cutout.fits"]}).write(folder / "catalogue.ecsv")
    result = SuperResolver(source="sersic", lens_light="sersic", psf=0.2 * u.arcsec)(
        folder / "cutout.fits", theta_E=0.9
    )
    result.write(folder / "resolved.fits")
    items = [DeepLense(size=2, seed=1)[k] for k in range(2)]
    names = {
        "lenssr": lenssr,
        "SuperResolver": SuperResolver,
        "SuperResolution": SuperResolution,
        "lens": lens,
        "image": image,
        "paths": [folder / "a.fits", folder / "b.fits"],
        "images": [item.low for item in items],
        "noises": [item.noise for item in items],
        "psfs": [None, None],
        "result": result,
        "results": [result],
        "data": DeepLense(size=2, seed=1),
    }
    return folder, names


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::astropy.utils.exceptions.AstropyUserWarning")
@pytest.mark.parametrize("page", WITH_BLOCKS)
def test_blocks_of_python_run(page, known, tmp_path, monkeypatch):
    folder, names = known
    monkeypatch.chdir(shutil.copytree(folder, tmp_path / "page"))
    seen = dict(names, __name__="page")
    for number, block in enumerate(python_blocks(page)):
        compile(block, f"{page}, block {number}", "exec")
        if any(word in block for word in NOT_HERE):
            continue
        for old, new in QUICKER.items():
            block = block.replace(old, new)
        for name in re.findall(r"\.(?:write|to_coolest)\(\"([^\"]+)\"", block):
            Path(name).unlink(missing_ok=True)  # there for those who read it
        code = compile(block, f"{page}, block {number}", "exec")
        exec(code, seen)  # noqa: S102 - it is ours


def test_what_is_left_out_is_there():
    """Exceptions and replacements name what pages hold: none of them outlives its block."""
    together = "\n".join(block for page in WITH_BLOCKS for block in python_blocks(page))
    assert [word for word in (*NOT_HERE, *QUICKER) if word not in together] == []


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_command_lines_are_right(page, line):
    """Their options are known, and have the values that the command takes."""
    words = shlex.split(re.sub(r"\$\{?\w+\}?", "1", line), comments=True)[1:]  # variables of the shell
    cli._parser().parse_args(words)
