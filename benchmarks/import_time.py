"""How long `import lenssr` takes beside torch and astropy: medians over fresh interpreters, taken in turn."""

import statistics
import subprocess
import sys
import time

CODES = {
    "torch, astropy": "import torch, astropy",
    "torch and the parts of astropy that an image needs": (
        "import torch, astropy.units, astropy.modeling, astropy.nddata, astropy.io.fits, astropy.wcs, "
        "astropy.cosmology"
    ),
    "lenssr": "import lenssr",
    "lenssr, every public name": "from lenssr import *; import lenssr.imaging, lenssr.simulation",
}


def seconds(code):
    """Wall-clock seconds of one fresh interpreter."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


def main(repeats=9):
    times = {name: [] for name in ("", *CODES)}
    for _ in range(repeats):
        for name, values in times.items():
            values.append(seconds(CODES.get(name, "pass")))
    median = {name: statistics.median(values) for name, values in times.items()}
    python = median.pop("")
    first = next(iter(median.values())) - python
    print("| import | seconds | against the first |")
    print("|---|---|---|")
    for name, value in median.items():
        print(f"| {name} | {value - python:.2f} | {(value - python) / first:.2f} |")


if __name__ == "__main__":
    main()
