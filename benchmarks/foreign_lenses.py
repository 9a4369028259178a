"""Lenses that lenstronomy renders as HST sees them, of which lenssr is told nothing.

`foreign_sample.py` says what they are: 160 drawn as the priors have them, 40 drawn against one of these, and
50 galaxies without any lens. R_E is the radius of the circle with the area inside the tangential critical
curve of the main lens in its shear, satellites left out; a value in brackets is the true one. "image" is the
PSNR in dB of the super-resolved image, lens galaxy and arcs, against the noise-free one of lenstronomy with
the same PSF, where no other object and no cosmic ray is; "known" is the PSNR of the same fit with the true
lens and satellites, and with the pixels of other objects and cosmic rays masked. Intervals of 68 % are the
value and its standard error: for R_E, for q along the fitted ellipticity, and for each component of the
shear. Rows go to stderr as they come; a lens that cannot be solved is a row with the reason.

    python benchmarks/foreign_lenses.py [-n 160] [--against 40] [--no-lensing 50] [--seed 0] [--jobs 1]
                                        [--lens sie] [--source auto] [--lens-light auto]
                                        [--figure cutouts.png]
"""

import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import common  # before torch: it sets the number of threads
import numpy as np
from foreign_sample import GROUPS, drawn

from lenssr import InputError, Shear, SuperResolver, metrics
from lenssr.reconstruction.verdict import FLAGS

RIGHT = 0.02  # R_E is right within this share
SCALE = 2
# What the resolver is told of the mass, by the name of its family.
FAMILIES = {"sie": {}, "epl": {"lens": "epl"}}
COLUMNS = (
    "lens",
    "kind",
    "beside it",
    "S/N",
    'R_E "',
    "ratio",
    "q",
    "shear",
    "slope",
    "ok",
    "serious flags",
    "image",
    "known",
    "seconds",
)


@dataclass(frozen=True)
class Row:
    """One image: its cells as text, and what the summary counts.

    ``ratio`` is R_E over the true one (nan where there is none), ``off`` holds lists of errors over their
    standard deviations by what they are of, ``gap`` is the image's PSNR less that with the known lens.
    """

    group: str
    cells: tuple[str, ...]
    ok: bool
    ratio: float = math.nan
    off: dict | None = None
    gap: float = math.nan
    seconds: float = 0.0

    @property
    def right(self):
        """Whether R_E is."""
        return abs(self.ratio - 1) <= RIGHT


def row_of(group, number, seed, family, source, lens_light):
    """Draw an image, resolve it and compare it."""
    lens = drawn(group, number, seed)
    options = {"source": source, "lens_light": lens_light, "psf": lens.psf, "scale": SCALE}
    start = time.perf_counter()
    result, failure = resolved(lens, mask="auto", **FAMILIES[family], **options)
    seconds = time.perf_counter() - start
    found, cells = {}, ["-"] * 4
    if group != "none":
        found, cells = compared(result, lens.scene)
        if result:
            best, _ = resolved(lens, mask=lens.hidden, lens=lens.scene.mass, **options)
            psnr, known = image_psnr(result, lens), image_psnr(best, lens)
            cells += [f"{psnr:.1f}", f"{known:.1f}"]
            found["gap"] = psnr - known
    elif result:
        cells[0] = f"{result.R_E.value:.3f} +- {result.R_E_error.value:.3f}"
    if result:
        flags, ok = ", ".join(flag for flag in result.flags if FLAGS[flag].serious), bool(result.ok)
    else:
        flags, ok = failure, False
    R_E, *shape = cells[:4]
    ratio = found.get("ratio", math.nan)
    cells = (
        *(f"{group} {number}", lens.kind, lens.extras, f"{lens.snr:.0f}"),
        *(R_E, "-" if math.isnan(ratio) else f"{ratio:.3f}", *shape),
        *("yes" if ok else "no", flags, *(cells[4:] or ("-", "-")), f"{seconds:.0f}"),
    )
    print(" | ".join(cells), file=sys.stderr, flush=True)
    return Row(group, cells, ok, **found, seconds=seconds)


def resolved(drawing, *, mask, **options):
    """The result of the image with a mask and None, or None and why there is no result."""
    try:
        return SuperResolver(**options)(drawing.image, mask=mask), None
    except Exception as error:  # whatever it is, other lenses go on
        return None, " ".join(f"{type(error).__name__}: {error}".split())[:80].replace("|", "/")


def compared(result, scene):
    """Ratio and offs of a `Row`, and the cells of R_E, q, shear and slope; without a result the true ones."""
    true, shear = scene.main[0], scene.main[1]
    radius = scene.main.einstein_radius().value
    truth = radius, true.q, modulus(shear), true.gamma.value
    if not result:
        cells = [f"- ({value:.{digits}f})" for value, digits in zip(truth, (3, 2, 2, 2), strict=True)]
        return {}, cells
    mass, fitted = result.lens[0], next(part for part in result.lens if isinstance(part, Shear))
    slope = mass.gamma.value if "gamma" in mass.param_names else 2.0
    found = {
        "ratio": result.R_E.value / radius,
        "off": {
            "R_E": [sigmas(result.R_E.value, radius, result.R_E_error.value)],
            "q": [sigmas(mass.q, true.q, q_error(result))],
            "shear": [
                sigmas(fit.value, given.value, fit.std)
                for fit, given in zip(fitted.parameters, shear.parameters, strict=True)
                if fit.name in ("gamma1", "gamma2")
            ],
        },
    }
    cells = [
        f"{result.R_E.value:.3f} +- {result.R_E_error.value:.3f} ({radius:.3f})",
        f"{mass.q:.2f} +- {q_error(result):.2f} ({true.q:.2f})",
        f"{modulus(fitted):.2f} ({truth[2]:.2f})",
        f"{slope:.2f} ({truth[3]:.2f})",
    ]
    return found, cells


def sigmas(value, truth, error):
    """By how many standard errors a value is off; inf where there is no error."""
    return (value - truth) / error if error > 0 else math.inf


def modulus(shear):
    """Of a shear."""
    return math.hypot(shear.gamma1.value, shear.gamma2.value)


def q_error(result):
    """Standard error of the axis ratio of the first component, from the covariance of e1 and e2."""
    mass = result.lens[0]
    e = np.array([mass.e1.value, mass.e2.value])
    where = [result.lens.param_names.index(name) for name in ("e1_0", "e2_0")]
    size = max(float(np.hypot(*e)), 1e-9)
    variance = (e / size) @ result.lens.covariance[np.ix_(where, where)] @ (e / size)
    return 2 / (1 + size) ** 2 * math.sqrt(max(variance, 0.0))


def image_psnr(result, lens):
    """PSNR of the super-resolved image where no other object is; nan where there is no result."""
    if not result:
        return math.nan
    seen = ~np.kron(lens.hidden, np.ones((SCALE, SCALE), bool))
    return metrics.psnr(result.image.data[seen], lens.truth(SCALE)[seen])


def summary(rows):
    """What the rows say together, as (what, value)."""
    lines = []
    for group, words in (("priors", "as the priors"), ("against", "against one")):
        some = [row for row in rows if row.group == group]
        lines += [
            (f"{words}: R_E within {RIGHT:.0%}", share([row.right for row in some])),
            (f"{words}: image less known lens, median dB", middle([row.gap for row in some], "+.1f")),
        ]
    lensed = [row for row in rows if row.group != "none"]
    for what in ("R_E", "q", "shear"):
        offs = [off for row in lensed if row.off for off in row.off[what]]
        lines.append((f"68 % intervals that hold {what}", share([abs(off) <= 1 for off in offs])))
    return [
        *lines,
        ("ok and right", share([row.ok and row.right for row in lensed])),
        ("ok and wrong", share([row.ok and not row.right for row in lensed])),
        ("right, but not ok", share([row.right and not row.ok for row in lensed])),
        ("no lens, but ok", share([row.ok for row in rows if row.group == "none"])),
        ("seconds, median", middle([row.seconds for row in rows], ".0f")),
        ("seconds, worst", f"{max(row.seconds for row in rows):.0f}"),
    ]


def share(trues):
    """How many of how many."""
    return f"{sum(trues)} of {len(trues)}" + (f" ({np.mean(trues):.0%})" if trues else "")


def middle(values, form):
    """The median of those that are not nan."""
    values = [value for value in values if not math.isnan(value)]
    return f"{np.median(values):{form}}" if values else "-"


def draw_figure(path, cutouts, across=8):
    """Draw cutouts with an arcsinh stretch, and save them."""
    from matplotlib.figure import Figure

    down = math.ceil(len(cutouts) / across)
    figure = Figure((1.6 * across, 1.75 * down), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, (name, *task) in zip(axes, cutouts, strict=False):
        lens = drawn(name, *task)
        sky = float(np.median(lens.image.uncertainty.array))
        high = np.percentile(lens.image.data, 99.7)
        image = np.arcsinh(lens.image.data / (2 * sky))
        axis.imshow(image, origin="lower", vmin=-0.7, vmax=np.arcsinh(high / (2 * sky)), cmap="magma")
        theta_E = f', {lens.scene.lens[0]:.1f}"' if name != "none" else ""
        axis.set_title(f"{name} {task[0]}{theta_E}, S/N {lens.snr:.0f}", fontsize=6)
    figure.savefig(path, dpi=130)


def main():
    """Run what is asked for."""
    parser = common.parser_of(__doc__, 160, "lenses drawn as the priors have them", 0)
    parser.add_argument("--against", type=int, default=40, help="lenses drawn against one of these")
    parser.add_argument("--no-lensing", type=int, default=50, help="galaxies without a lens")
    parser.add_argument("--lens", choices=list(FAMILIES), default="sie", help="mass, each with shear")
    parser.add_argument("--source", default="auto")
    parser.add_argument("--lens-light", nargs="+", default=["auto"])
    parser.add_argument("--figure", type=Path, help="draw cutouts into this file, and do nothing else")
    chosen = parser.parse_args()
    counts = dict(zip(GROUPS, (chosen.n, chosen.against, chosen.no_lensing), strict=True))
    tasks = [(group, k, chosen.seed) for group, count in counts.items() for k in range(count)]
    light = common.one_or_more(chosen.lens_light)
    if not tasks:
        parser.error("there is nothing to draw: ask for one image or more")
    if chosen.figure:
        draw_figure(chosen.figure, tasks)
        return
    try:
        SuperResolver(**FAMILIES[chosen.lens], source=chosen.source, lens_light=light)
    except InputError as error:
        parser.error(str(error))
    common.header(
        "Lenses that lenstronomy renders, without a hint",
        seed=chosen.seed,
        lens=chosen.lens,
        source=chosen.source,
        lens_light="+".join(chosen.lens_light),
    )
    options = chosen.lens, chosen.source, light
    rows = list(common.in_processes(row_of, [(*task, *options) for task in tasks], chosen.jobs))
    common.table(COLUMNS, [row.cells for row in rows])
    common.table(("all", "number"), summary(rows))


if __name__ == "__main__":
    main()
