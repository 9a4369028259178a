"""What is read in files as 26 archives write them, and whether the lens in them comes out right.

python benchmarks/archives.py > docs/benchmarks/archives.txt
"""

import argparse
import contextlib
import io
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
from archive_layouts import DEC, LAYOUTS, RA, tan
from astropy.io import fits
from common import header, table

from lenssr import SuperResolution, cli
from lenssr.grids import conserves_sum
from lenssr.imaging import inspection

COLUMNS = ("archive", "planes", "unit", "arcsec", "PSF", "AB zero", "says", "theta_E", "flux", "fitsverify")


def run(*arguments):
    """Run the command; its exit code, and what it wrote to standard output and error."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main([str(one) for one in arguments])
    return code, out.getvalue(), err.getvalue()


def verified(path):
    """Number of warnings and errors that fitsverify finds."""
    if shutil.which("fitsverify") is None:
        return "not installed"
    told = subprocess.run(["fitsverify", str(path)], capture_output=True, text=True).stdout
    found = re.search(r"found (\d+) warning\(s\) and (\d+) error\(s\)", told)
    return "passes" if found and found.groups() == ("0", "0") else told[-200:]


def row(layout, folder):
    """Cells of one layout."""
    made = layout.make(folder)
    output = folder / "out.fits"
    code, _, err = run("resolve", made.path, "-o", output, *made.options)
    if code:
        reason = err.strip().splitlines()[-1].removeprefix("lenssr: error: ")
        print(f"{layout.name}: refused: {reason}")
        return [layout.name, "refused", *[""] * (len(COLUMNS) - 2)]
    result = SuperResolution.read(output)
    found = result.meta["reading"]
    planes = [name for name in inspection.PLANES if name in found]
    zero = result.meta.get("zero_point")
    flux = float(result.lensed_source.data.sum())
    flux /= 1 if conserves_sum(result.data.unit) else result.meta["scale"] ** 2
    guesses = [name for name in result.flags if name in inspection.GUESSES]
    right = (result.lens[0].theta_E.value / made.theta_E, flux / made.flux)
    told = run("inspect", made.path, *made.options)[1]
    psf = re.search(r"^PSF .*FWHM (\S+ arcsec)", told, flags=re.M)
    return [
        layout.name,
        ", ".join(planes),
        str(result.data.unit) or "none",
        f"{result.meta['pixel_scale']:.4g}",
        "none" if psf is None else psf[1],
        "none" if zero is None else f"{zero:.2f}",
        ", ".join(guesses) or "nothing",
        *(f"{100 * (one - 1):+.2f} %" for one in right),
        verified(output),
    ]


CUT = """
import pathlib, re, sys, time
from lenssr import Observation
started = time.perf_counter()
seen = Observation.from_any(sys.argv[1], centre=sys.argv[2], size=6.0, noise=1.0)
spent = time.perf_counter() - started
peak = re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]
print(*seen.shape, spent, int(peak) * 1.024e-3)
"""


def large_mosaic(side=16384, scale=0.05):
    """Seconds and memory of a cut of 6 arcsec from a mosaic, in a process of its own."""
    sky = tan(side, scale, 0)
    names = {"SIMPLE": True, "BITPIX": -32, "NAXIS": 2, "NAXIS1": side, "NAXIS2": side, "BUNIT": "nJy"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mosaic.fits"
        block = np.random.default_rng(1).normal(size=(256, side)).astype(">f4").tobytes()
        with open(path, "wb") as file:
            file.write(fits.Header(list((names | sky).items())).tostring().encode())
            for _ in range(side // 256):
                file.write(block)
            file.write(bytes(-file.tell() % 2880))
        command = [sys.executable, "-c", CUT, str(path), f"{RA} {DEC}"]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return f"{told[0]} x {told[1]} pixels of {side} x {side}: {float(told[2]):.2f} s, {float(told[3]):.0f} MB"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="layouts (default: all)")
    names = parser.parse_args().names or list(LAYOUTS)
    header("Files as archives write them", layouts=len(names))
    rows: list[list[str]] = []
    for name in names:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rows.append(row(LAYOUTS[name], Path(folder)))
    table(COLUMNS, rows)
    fitted = np.array([[float(cell.split()[0]) for cell in one[7:9]] for one in rows if one[7]])
    print(f"{len(fitted)} of {len(rows)} read and fitted, the others refused with the remedy")
    print(f"largest deviation: theta_E {abs(fitted[:, 0]).max():.2f} %, flux {abs(fitted[:, 1]).max():.2f} %")
    print(f"a cut of a mosaic, with all that the process imports: {large_mosaic()}")


if __name__ == "__main__":
    main()
