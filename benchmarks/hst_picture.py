"""The picture of README and docs: the HST lens in F475X, resolved with one command.

Run it where LENSSR_REAL_DATA names the folder with the real images. It writes docs/_static/hst_f475x.png and,
beside it, the summary that the command prints.
"""

import contextlib
import io
import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from lenssr.cli import main

STATIC = Path(__file__).parents[1] / "docs" / "_static"
NAME = "hst_f475x"


def arguments(folder, out):
    """What follows `lenssr` on the command line."""
    return [
        *("resolve", f"{folder}/{NAME}.fits", "-o", f"{out}/{NAME}_sr.fits"),
        *("--lens-light", "sersic", "--mask", "auto", "--plot", f"{out}/{NAME}.png"),
    ]


def make(folder):
    """Run the command; keep the picture, and the text without the time and the paths."""
    printed = io.StringIO()
    STATIC.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as out:
        with contextlib.redirect_stdout(printed):
            status = main(arguments(folder, out))
        if status:
            sys.exit(status)
        shutil.copy(f"{out}/{NAME}.png", STATIC)
    lines = [line for line in printed.getvalue().splitlines() if not line.startswith(("seconds", "written"))]
    command = " ".join(["lenssr", *arguments(".", ".")]).replace("./", "")
    text = "\n".join([f"$ {command}", *lines]) + "\n"
    (STATIC / f"{NAME}.txt").write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    if "LENSSR_REAL_DATA" not in os.environ:
        sys.exit("LENSSR_REAL_DATA is unset: it names the folder with hst_f475x.fits")
    make(os.environ["LENSSR_REAL_DATA"])
