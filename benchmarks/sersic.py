"""Sérsic fits: lenssr beside astropy, statmorph, AstroPhot and pysersic, on the same galaxies in one run.

The peers are no dependencies of lenssr, and need not fit with its own; give all an environment of their own:

    python -m venv peers
    peers/bin/pip install -c constraints.txt -e ".[peers]"
    peers/bin/python benchmarks/sersic.py [-n 50] [--few 4] [--seed 5]

A peer that is missing or does not run is a row that says why.

GalSim draws the galaxies: stamps of 64 x 64 pixels, a Moffat PSF of 2.5 pixels (FWHM) that everybody is
given on native pixels, Gaussian noise of known sigma, no sky (statmorph fits none, so nobody does). r_eff,
n, axis ratio and S/N are spread over what surveys fit; see `population`.

Everybody who takes starts is given the same: centroid, shape, half-light radius and flux of the pixels
above the noise by photutils, and n = 2; making them is not timed. statmorph starts from its own
measurements, pysersic from its own priors. statmorph computes more than a Sérsic (concentration,
asymmetry, Gini, M20, ...), and fits none without; what it says its Sérsic fit alone takes stands below the
table. astropy has no PSF: its row shows what neglecting it costs. lenssr and "AstroPhot, batch" fit all
galaxies at a time, the others one after another. "lenssr, its defaults" is told positions alone, and finds
profile likelihoods besides where the intervals of a Gaussian may be off; "lenssr" has Gaussian errors, as
AstroPhot has.

Seconds are of the processor, on one thread, after one galaxy of another sample has warmed everybody up.
What else runs on a machine slows even these, so lenssr runs once more after each of the others, and its
seconds are the median of all.
A fit fails if it raises, says so itself, finds no number, or misses the centre by a pixel or r_eff by a
factor of 2. The errors are those of the others.
"""

import argparse
import importlib.metadata
import math
import os
import time

import common  # first: it sets one thread

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import astropy.units as u
import numpy as np
import sersic_peers as peers
from astropy.convolution import convolve
from photutils.segmentation import SegmentationImage, SourceCatalog, detect_sources
from sersic_sample import Galaxy, draw, psf_kernel

from lenssr import SersicPhotometry
from lenssr.imaging import PSF

SIZE = 64
FITTED = ("x", "y", "r_eff", "n", "ellip")
STARTS = (*FITTED, "theta", "flux")
MEASURED = ("r_eff", "n", "ellip", "position")
FORMATS = {"r_eff": ".4f", "n": ".3f", "ellip": ".4f", "position": ".4f"}


def population(number, seed):
    """Galaxies with r_eff of 2 to 6 pixels, n of 0.7 to 5, axis ratios of 0.3 to 0.95, S/N of 60 to 300."""
    rng = np.random.default_rng(seed)
    centre = (SIZE - 1) / 2

    def logarithmic(low, high):
        return math.exp(rng.uniform(math.log(low), math.log(high)))

    return [
        Galaxy(
            x=centre + rng.uniform(-1, 1),
            y=centre + rng.uniform(-1, 1),
            r_eff=rng.uniform(2, 6),
            n=logarithmic(0.7, 5),
            ellip=rng.uniform(0.05, 0.7),
            theta=rng.uniform(0, np.pi),
            snr=logarithmic(60, 300),
        )
        for _ in range(number)
    ]


def starts_of(sample):
    """Where fits begin, and the segmentation map: a dictionary for every galaxy."""
    kernel = psf_kernel(pixel=True)[8:-8, 8:-8]
    return [_start(*row, kernel) for row in zip(sample.images, sample.sigma, strict=True)]


def _start(image, sigma, kernel):
    smooth = convolve(image, kernel, normalize_kernel=True)
    # The noise of the smoothed image is a fifth of the image's: this is a threshold of 3 sigma.
    found = detect_sources(smooth, 0.6 * sigma, n_pixels=8).data
    segment = (found == found[SIZE // 2, SIZE // 2]).astype(int)
    catalog = SourceCatalog(image, SegmentationImage(segment))
    ellip = float(catalog.ellipticity[0])
    return {
        "x": float(catalog.x_centroid[0]),
        "y": float(catalog.y_centroid[0]),
        "r_eff": float(catalog.flux_radius(0.5)[0].value) / math.sqrt(1 - ellip),
        "n": 2.0,
        "ellip": ellip,
        "theta": float(catalog.orientation[0].to_value("rad")),
        "flux": float(catalog.segment_flux[0]),
        "segment": segment,
    }


def failed(fit, galaxy):
    if isinstance(fit, Exception) or not all(math.isfinite(fit[name]) for name in FITTED):
        return True
    ratio = fit["r_eff"] / galaxy.r_eff
    return math.hypot(fit["x"] - galaxy.x, fit["y"] - galaxy.y) > 1 or not 0.5 < ratio < 2


def errors_of(fits, galaxies):
    """Absolute errors (N,) by name, relative for r_eff; NaN where a fit failed."""
    kept = [fit if not failed(fit, galaxy) else None for fit, galaxy in zip(fits, galaxies, strict=True)]
    found = {name: np.array([fit[name] if fit else np.nan for fit in kept]) for name in FITTED}
    true = {name: np.array([getattr(galaxy, name) for galaxy in galaxies]) for name in FITTED}
    return {
        "r_eff": np.abs(found["r_eff"] / true["r_eff"] - 1),
        "n": np.abs(found["n"] - true["n"]),
        "ellip": np.abs(found["ellip"] - true["ellip"]),
        "position": np.hypot(found["x"] - true["x"], found["y"] - true["y"]),
    }


def ran(fit, sample, starts):
    """Fits of a sample, and the seconds of the processor a galaxy took."""
    start = time.process_time()
    fits = list(fit(sample, starts))
    return fits, (time.process_time() - start) / len(sample)


def row_of(name, fits, seconds, galaxies):
    failures = sum(failed(*pair) for pair in zip(fits, galaxies, strict=True))
    if failures == len(fits):
        return [name, f"{seconds:.4f}", *["-"] * len(MEASURED), f"{failures} of {len(fits)}"]
    errors = errors_of(fits, galaxies)
    cells = [
        ", ".join(f"{value:{FORMATS[quantity]}}" for value in np.nanpercentile(errors[quantity], (50, 90)))
        for quantity in MEASURED
    ]
    return [name, f"{seconds:.4f}", *cells, f"{failures} of {len(fits)}"]


def by_lenssr(sample, starts, *, names=STARTS, intervals="gaussian"):
    """All galaxies at once; without the name of a start it is lenssr's to find."""
    tables = [{name: np.array([start[name]]) for name in names} for start in starts]
    phot = SersicPhotometry(
        psf=PSF(psf_kernel()), fit_shape=(SIZE + 1, SIZE + 1), sky=None, intervals=intervals
    )
    found = phot.map(list(sample.images), error=list(sample.sigma), init_params=tables)
    columns = zip(*(np.asarray(u.Quantity(found[name]).value).tolist() for name in FITTED), strict=True)
    return [dict(zip(FITTED, row, strict=True)) for row in columns]


def lenssr_defaults(sample, starts):
    return by_lenssr(sample, starts, names=("x", "y"), intervals="auto")


METHODS = {
    "lenssr": ("lenssr", by_lenssr),
    "lenssr, its defaults": ("lenssr", lenssr_defaults),
    "astropy TRFLSQFitter, no PSF": ("astropy", peers.astropy_trf),
    "statmorph": ("statmorph", peers.statmorph_fit),
    "AstroPhot LM": ("astrophot", peers.astrophot_lm),
    "AstroPhot, batch": ("astrophot", peers.astrophot_batch),
    "pysersic MAP": ("pysersic", peers.pysersic_map),
}
SLOW = ("pysersic MAP",)


def compare(names, sample, warm):
    """Rows of the table, and what went wrong; fits and seconds by name."""
    starts, before = starts_of(sample), starts_of(warm)
    rows, done, notes, turns = [], {}, [], []
    for name in names:
        package, fit = METHODS[name]
        try:
            list(fit(warm, before))
            fits, seconds = ran(fit, sample, starts)
        except Exception as error:  # noqa: BLE001 - a peer that does not run is a row
            rows.append([name, "-", *["-"] * len(MEASURED), "did not run"])
            notes.append(f"{name}: {one_line(error)}")
            continue
        if "lenssr" in done:
            turns.append(ran(METHODS["lenssr"][1], sample, starts)[1])
        label = name if package == "lenssr" else f"{name} ({importlib.metadata.version(package)})"
        rows.append(row_of(label, fits, seconds, sample.galaxies))
        notes += [f"{name}: {line}" for line in {one_line(fit) for fit in fits if isinstance(fit, Exception)}]
        done[name] = fits, seconds
    if turns:
        median = float(np.median([done["lenssr"][1], *turns]))
        done["lenssr"] = done["lenssr"][0], median
        rows[names.index("lenssr")] = row_of("lenssr", *done["lenssr"], sample.galaxies)
    return rows, done, notes


def one_line(error):
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def print_table(rows, notes):
    columns = ("fit", "s a galaxy", "r_eff, relative", "n", "ellip", "position, pixel", "failures")
    common.table(columns, rows)
    if notes:
        print("\n".join(notes) + "\n")


def print_ratios(done):
    """What lenssr is held to: time over time, and its errors over the best of the peers'."""
    if "lenssr" not in done:
        return
    for name in ("AstroPhot LM", "AstroPhot, batch", "statmorph"):
        if name in done:
            print(f"{name} takes {done[name][1] / done['lenssr'][1]:.1f} times as long as lenssr")
    if "statmorph" in done:
        alone = [fit["seconds"] for fit in done["statmorph"][0] if not isinstance(fit, Exception)]
        print(f"statmorph says that its Sérsic fit alone takes {np.median(alone):.4f} s, by the clock")
    print()


def print_best(done, galaxies):
    """The errors of lenssr over those of the peer that comes closest, on galaxies that neither failed on."""
    errors = {name: errors_of(fits, galaxies) for name, (fits, _) in done.items()}
    others = [name for name in errors if not name.startswith("lenssr")]
    if "lenssr" not in errors or not others:
        return
    rows = []
    for quantity in MEASURED:
        ratios = {name: over(errors["lenssr"][quantity], errors[name][quantity]) for name in others}
        best = [max(ratios, key=lambda name: ratios[name][k]) for k in range(2)]  # noqa: B023 - used at once
        rows.append([quantity, *(f"{ratios[best[k]][k]:.2f} ({best[k]})" for k in range(2))])
    common.table(("error of lenssr over the best peer's", "median", "90th percentile"), rows)


def over(own, other):
    """Median and 90th percentile of some errors over those of others, where there are both."""
    both = np.isfinite(own) & np.isfinite(other)
    return np.percentile(own[both], (50, 90)) / np.percentile(other[both], (50, 90))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=50, help="galaxies")
    parser.add_argument("--few", type=int, default=4, help="galaxies for the slow ones")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS), metavar="NAME")
    options = parser.parse_args()
    title = "Sérsic fits to simulated galaxies: median and 90th percentile of absolute errors"
    common.header(title, galaxies=options.n, seed=options.seed)
    sample = draw(population(options.n, options.seed), SIZE, options.seed)
    warm = draw(population(1, options.seed + 1), SIZE, options.seed + 1)
    rows, done, notes = compare([name for name in options.only if name not in SLOW], sample, warm)
    print_table(rows, notes)
    print_ratios(done)
    print_best(done, sample.galaxies)
    slow = [name for name in options.only if name in SLOW]
    if slow and options.few:
        print(f"The slow, on the first {options.few} of these galaxies, the others' fits to them beside\n")
        few = sample[: options.few]
        rows, _, notes = compare(slow, few, warm)
        for name, (fits, seconds) in done.items():
            rows.append(row_of(name, fits[: options.few], seconds, few.galaxies))
        print_table(rows, notes)


if __name__ == "__main__":
    main()
