"""Real lenses of which nothing is told, beside a published model of each.

The lenses of the folder real_lenses in LENSSR_REAL_DATA, in one band each: F606W, F475X or F555W where there
is one, else F814W; with ``--bands all`` in all their bands together, and those that have several also apart
(``several``). No lens is given, the mask is "auto", and nothing is hinted at; with ``--hints`` the Einstein
radius that is expected is, 1.1 or 0.9 times the published one in turn, and the field that holds lens and
arcs, of 1.7 times the published radius. published.json holds an elliptical power law with
shear for each, fitted to all bands with masks made by hand; R_E is the radius of the circle with the area
inside the tangential critical curve, of both models, which does not depend on how a family counts. Values in
brackets are the published ones; "PA off" is the position angle of the mass in degrees, ours less the
published. Published angles run from east to north, as in lenstronomy, where x is the right ascension: the
light of the lens galaxies lies along them so, and not from north to east. Means of the differences in q and
shear are over the lenses whose R_E is within 5 %. A lens that cannot be solved is a
row with the reason. Rows go to stderr as they come. ``--figures`` draws each into a folder.

    python benchmarks/real_sample.py [--bands one] [--lenses SL2SJ0226-0406 SL2SJ0849-0251] [--jobs 1]
                                     [--lens sie] [--source auto] [--lens-light auto] [--hints]
                                     [--figures FOLDER]
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
from lenssr.options import FAMILIES
from lenssr.reconstruction.verdict import FLAGS
from lenssr.result.grade import OK_GRADES

BANDS = ("F606W", "F475X", "F555W", "F814W")
PANELS = ("data", "lens_subtracted", "residual", "source")
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
    "grade",
    "flags that leave less than secure",
    "seconds",
)


@dataclass(frozen=True)
class Row:
    """One lens: its cells, R_E over the published one (nan: it failed), offs of q, shear, grade, seconds."""

    cells: tuple[str, ...]
    ratio: float
    shape_off: tuple[float, float]
    grade: str
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


def hints_of(number, radius):
    """What is told of a lens with a published radius in arcsec, the radius a tenth too large or too small."""
    return {"theta_E": radius * (0.9 if number % 2 else 1.1) * u.arcsec, "radius": 1.7 * radius * u.arcsec}


def row_of(number, name, folder, entry, options, bands="one", hints=False, figures=None):
    """Resolve a lens, in one band or in all, and compare it; draw it where a folder of figures is given."""
    used = entry["bands"] if bands == "all" else [band_of(entry["bands"])]
    band, start = "+".join(used), time.perf_counter()
    radius = published_lens(entry).einstein_radius().value
    told = hints_of(number, radius) if hints else {}
    resolver = SuperResolver(**options)
    try:
        result = resolver({one: folder / f"{name}_{one}.fits" for one in used}, **told)
        cells, ratio, grade = compared(result, entry, radius), result.R_E.value / radius, result.grade
        off = shape_off(result, entry)
    except Exception as error:  # whatever it is, other lenses go on
        cells, ratio, grade, off = failed(error, folder), math.nan, "failed", (math.nan, math.nan)
    seconds = time.perf_counter() - start
    row = Row((name, band, f"{radius:.3f}", *cells, f"{seconds:.0f}"), ratio, off, grade, seconds)
    print(" | ".join(row.cells), file=sys.stderr, flush=True)
    if figures and grade != "failed":
        for one, part in getattr(result, "bands", {band: result}).items():
            title = f"{name} {one}: {ratio:.3f} of the published R_E, {grade}"
            draw(part, figures / f"{name}_{one}.jpg", title)
    return row


def draw(result, path, title):
    """Data, data less the galaxy's light, residual and source of a lens, as a small picture."""
    import matplotlib.pyplot as plt

    with plt.rc_context({"font.size": 7}):
        figure, axes = plt.subplots(1, len(PANELS), figsize=(9.6, 2.5), layout="constrained")
        for panel, ax in zip(PANELS, axes, strict=True):
            result.plot_panel(panel, ax=ax, colorbar=False).set_title("", loc="left")
        figure.suptitle(title)
        figure.savefig(path, dpi=90, pil_kwargs={"quality": 75})
        plt.close(figure)


def modulus_of(lens):
    """Modulus of the shear of a lens."""
    shear = next(part for part in lens if isinstance(part, Shear))
    return math.hypot(shear.gamma1.value, shear.gamma2.value)


def shape_off(result, entry):
    """Axis ratio and shear of a result, both less the published ones."""
    return result.lens[0].q - entry["q"][0], modulus_of(result.lens) - entry["shear"][0]


def compared(result, entry, radius):
    """Cells from R_E to the flags that count."""
    first = next(iter(result.bands.values())) if hasattr(result, "bands") else result
    mass, modulus = result.lens[0], modulus_of(result.lens)
    gamma = mass.gamma.value if "gamma" in mass.param_names else 2.0
    return (
        f"{result.R_E.value:.3f} +- {result.R_E_error.value:.3f}",
        f"{result.R_E.value / radius:.3f}",
        f"{mass.q:.2f} ({entry['q'][0]:.2f})",
        f"{modulus:.2f} ({entry['shear'][0]:.2f})",
        f"{angle_off(mass, first.data.wcs, entry['pa'][0]):+.0f}",
        f"{gamma:.2f} ({entry['gamma'][0]:.2f})",
        result.grade,
        ", ".join(flag for flag in result.flags if FLAGS[flag.split(": ")[-1]].cap != "secure"),
    )


def failed(error, folder):
    """The same cells for a lens that cannot be solved, the reason in place of flags."""
    reason = " ".join(str(error).split()).replace(f"{folder}{os.sep}", "").replace("|", "/")
    return ("-",) * 6 + ("failed", f"{type(error).__name__}: {reason}"[:80])


def summary(rows):
    """Counts over all lenses, as (what, value); R_E is wrong where it is more than 5 % off, or nan."""
    off = np.array([abs(row.ratio - 1) for row in rows])
    secure = np.array([row.grade == "secure" for row in rows])
    ok = np.array([row.grade in OK_GRADES for row in rows])
    seconds = [row.seconds for row in rows]
    right = np.array([row.shape_off for row, far in zip(rows, off, strict=True) if far <= 0.05]).reshape(
        -1, 2
    )
    return [
        ("lenses", len(rows)),
        ("R_E within 5 %", int((off <= 0.05).sum())),
        ("R_E within 10 %", int((off <= 0.10).sum())),
        ("graded secure", int(secure.sum())),
        ("secure, and wrong by more than 5 %", int((secure & ~(off <= 0.05)).sum())),
        ("ok: secure or probable", int(ok.sum())),
        ("ok, and wrong by more than 5 %", int((ok & ~(off <= 0.05)).sum())),
        ("mean absolute difference of q, shear", "{:.2f}, {:.2f}".format(*np.abs(right).mean(axis=0))),
        ("seconds, median", f"{np.median(seconds):.0f}"),
        ("seconds, worst", f"{max(seconds):.0f}"),
    ]


def main(folder):
    """Run the lenses that are asked for."""
    published = json.loads((folder / "published.json").read_text(encoding="utf-8"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lenses", nargs="+", default=list(published), choices=list(published), metavar="L")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--lens", default="sie", choices=FAMILIES)
    parser.add_argument("--source", default="auto")
    parser.add_argument("--bands", default="one", choices=("one", "all"), help="of each lens")
    parser.add_argument("--lens-light", nargs="+", default=["auto"])
    parser.add_argument("--figures", type=Path, metavar="FOLDER", help="draw each lens into it")
    parser.add_argument("--hints", action="store_true", help="tell Einstein radius and field")
    chosen = parser.parse_args()
    if chosen.figures:
        chosen.figures.mkdir(parents=True, exist_ok=True)
    light = "+".join(chosen.lens_light)
    title = "Real lenses, Einstein radius and field told" if chosen.hints else "Real lenses without a hint"
    about = {"lens": chosen.lens, "source": chosen.source, "lens_light": light, "processes": chosen.jobs}
    common.header(title, **about)
    options = {
        "lens": chosen.lens,
        "source": chosen.source,
        "lens_light": common.one_or_more(chosen.lens_light),
    }
    how = options, chosen.bands, chosen.hints, chosen.figures
    tasks = [
        (number, name, folder, published[name], *how)
        for number, name in enumerate(published)
        if name in chosen.lenses
    ]
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
