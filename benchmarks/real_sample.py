"""Real lenses of which nothing is told, beside a published model of each.

The lenses of the folder real_lenses in LENSSR_REAL_DATA, in one band each: F606W, F475X or F555W where there
is one, else F814W; with ``--bands all`` in all their bands together, and those that have several also apart
(``several``). No lens is given, no hint and no mask. published.json holds an elliptical power law with
shear for each, fitted to all bands with masks made by hand; R_E is the radius of the circle with the area
inside the tangential critical curve, of both models, which does not depend on how a family counts. Values in
brackets are the published ones; "PA off" is the position angle of the mass in degrees, ours less the
published. Published angles run from east to north, as in lenstronomy, where x is the right ascension: the
light of the lens galaxies lies along them so, and not from north to east. A lens that cannot be solved is a
row with the reason. Rows go to stderr as they come.

    python benchmarks/real_sample.py [--bands one] [--lenses SL2SJ0226-0406 SL2SJ0849-0251] [--jobs 1]
                                     [--source pixelated] [--lens-light mge mge]
"""

import argparse
import json
import math
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import astropy.units as u
import common  # before torch: it sets the number of threads
import numpy as np

from lenssr import EPL, Shear, SuperResolver
from lenssr.reconstruction.verdict import FLAGS

BANDS = ("F606W", "F475X", "F555W", "F814W")
COLUMNS = (
    "lens",
    "band",
    'published R_E "',
    'R_E "',
    "ratio",
    "q",
    "shear",
    "PA off",
    "slope",
    "ok",
    "serious flags",
    "seconds",
)


@dataclass(frozen=True)
class Row:
    """One lens: its cells as text, R_E over the published one (nan where it failed), ok, and seconds."""

    cells: tuple[str, ...]
    ratio: float
    ok: bool
    seconds: float


def band_of(bands):
    """The band to take of those that a lens has."""
    return next(band for band in BANDS if band in bands)


def shear_of(gamma, angle):
    """A shear of a modulus, along an angle from +x in degrees."""
    return Shear(gamma * math.cos(2 * math.radians(angle)), gamma * math.sin(2 * math.radians(angle)))


def published_lens(entry):
    """The published model, in a frame in which x is east and y is north, as its angles have it.

    Against the frame of an image it is turned and mirrored, which leaves R_E as it is.
    """
    value = {name: entry[name][0] for name in ("theta_E", "gamma", "q", "pa", "shear", "shear_pa")}
    mass = EPL.from_q_phi(value["theta_E"], value["gamma"], q=value["q"], phi=value["pa"] * u.deg)
    return mass + shear_of(value["shear"], value["shear_pa"])


def angle_off(mass, wcs, north_of_east):
    """Position angle of a mass, in the WCS of its image, less a published one; within 90 degrees."""
    return (mass.position_angle(wcs).deg - (90 - north_of_east) + 90) % 180 - 90


def row_of(name, folder, entry, source, lens_light, bands="one"):
    """Resolve a lens, in one band or in all, and compare it."""
    used = entry["bands"] if bands == "all" else [band_of(entry["bands"])]
    band, start = "+".join(used), time.perf_counter()
    radius = published_lens(entry).einstein_radius().value
    resolver = SuperResolver(source=source, lens_light=lens_light, mask="auto")
    try:
        result = resolver({one: folder / f"{name}_{one}.fits" for one in used})
        cells, ratio, ok = compared(result, entry, radius), result.R_E.value / radius, result.ok
    except Exception as error:  # whatever it is, other lenses go on
        cells, ratio, ok = failed(error, folder), math.nan, False
    seconds = time.perf_counter() - start
    row = Row((name, band, f"{radius:.3f}", *cells, f"{seconds:.0f}"), ratio, bool(ok), seconds)
    print(" | ".join(row.cells), file=sys.stderr, flush=True)
    return row


def compared(result, entry, radius):
    """Cells from R_E to the serious flags."""
    first = next(iter(result.bands.values())) if hasattr(result, "bands") else result
    mass, shear = result.lens[0], next(part for part in result.lens if isinstance(part, Shear))
    gamma = mass.gamma.value if "gamma" in mass.param_names else 2.0
    modulus = math.hypot(shear.gamma1.value, shear.gamma2.value)
    return (
        f"{result.R_E.value:.3f} +- {result.R_E_error.value:.3f}",
        f"{result.R_E.value / radius:.3f}",
        f"{mass.q:.2f} ({entry['q'][0]:.2f})",
        f"{modulus:.2f} ({entry['shear'][0]:.2f})",
        f"{angle_off(mass, first.data.wcs, entry['pa'][0]):+.0f}",
        f"{gamma:.2f} ({entry['gamma'][0]:.2f})",
        "yes" if result.ok else "no",
        ", ".join(flag for flag in result.flags if FLAGS[flag.split(": ")[-1]].serious),
    )


def failed(error, folder):
    """The same cells for a lens that cannot be solved, the reason in place of flags."""
    reason = " ".join(str(error).split()).replace(f"{folder}{os.sep}", "").replace("|", "/")
    return ("-",) * 6 + ("no", f"{type(error).__name__}: {reason}"[:80])


def summary(rows):
    """Counts over all lenses, as (what, value); R_E is wrong where it is more than 5 % off, or nan."""
    off = np.array([abs(row.ratio - 1) for row in rows])
    ok = np.array([row.ok for row in rows])
    seconds = [row.seconds for row in rows]
    return [
        ("lenses", len(rows)),
        ("R_E within 5 %", int((off <= 0.05).sum())),
        ("R_E within 10 %", int((off <= 0.10).sum())),
        ("ok", int(ok.sum())),
        ("ok, and wrong by more than 5 %", int((ok & ~(off <= 0.05)).sum())),
        ("seconds, median", f"{np.median(seconds):.0f}"),
        ("seconds, worst", f"{max(seconds):.0f}"),
    ]


def main(folder):
    """Run the lenses that are asked for."""
    published = json.loads((folder / "published.json").read_text(encoding="utf-8"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lenses", nargs="+", default=list(published), choices=list(published), metavar="L")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--source", default="pixelated")
    parser.add_argument("--bands", default="one", choices=("one", "all"), help="of each lens")
    parser.add_argument("--lens-light", nargs="+", default=["mge", "mge"])
    chosen = parser.parse_args()
    light = "+".join(chosen.lens_light)
    common.header("Real lenses without a hint", source=chosen.source, lens_light=light, processes=chosen.jobs)
    how = chosen.source, chosen.lens_light, chosen.bands
    tasks = [(name, folder, published[name], *how) for name in chosen.lenses]
    rows = list(common.in_processes(row_of, tasks, chosen.jobs))
    common.table(COLUMNS, [row.cells for row in rows])
    common.table(("all", "number"), summary(rows))
    several = [row for row in rows if len(published[row.cells[0]]["bands"]) > 1]
    if several:
        common.table(("several bands", "number"), summary(several))


if __name__ == "__main__":
    if "LENSSR_REAL_DATA" not in os.environ:
        sys.exit("LENSSR_REAL_DATA is unset: it names the folder with the real images")
    main(Path(os.environ["LENSSR_REAL_DATA"]) / "real_lenses")
