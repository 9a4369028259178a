"""The picture of README and docs: the real lens of `lenssr demo`.

It writes docs/_static/demo.png and, beside it, the text that the command prints, less its time and paths.
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


def make():
    """Run the command; keep the picture and the text."""
    printed = io.StringIO()
    STATIC.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as out:
        with contextlib.redirect_stdout(printed):
            status = main(["demo", "-o", out])
        if status:
            sys.exit(status)
        shutil.copy(f"{out}/demo.png", STATIC)
    lines = [line for line in printed.getvalue().splitlines() if not line.startswith(("seconds", "written"))]
    text = "\n".join(["$ lenssr demo", *lines]) + "\n"
    (STATIC / "demo.txt").write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    make()
