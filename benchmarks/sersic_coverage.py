"""Whether the errors of `lenssr.SersicPhotometry` are honest: how often 68 % intervals hold the truth.

Simulated galaxies behind a PSF of 2.5 pixels FWHM, drawn by GalSim on stamps of 65 pixels, 8 r_eff or more:
half of them with n of 0.5 to 2.5 and S/N of 50 to 500, half with n of 2.5 to 6 and S/N of 200 to 2000, where
S/N is the square root of the sum of model^2 / sigma^2 over the stamp. r_eff is 2 to 8 pixels, the axis ratio
0.3 to 0.95. lenssr is told where they are to a pixel, sigma and the PSF; it fits a constant sky. Every galaxy
that was fitted counts, flagged or not. The bias is the mean of (found - true) / error.

With --faint all have S/N of 20 and n of 0.5 to 4: what the profile likelihood is worth where errors are
large.

    python benchmarks/sersic_coverage.py [-n 500] [--seed 3] [--details] [--faint]
"""

import argparse
import math
import time
from collections import Counter

import astropy.units as u
import common  # first of lenssr: it sets one thread
import numpy as np
from astropy.table import QTable
from sersic_sample import Galaxy, draw, psf_kernel

from lenssr import SersicPhotometry
from lenssr.imaging import PSF
from lenssr.photometry import decode_flags

SIZE = 65
KINDS = {"n < 2.5, S/N > 50": ((0.5, 2.5), (50, 500)), "n > 2.5, S/N > 200": ((2.5, 6.0), (200, 2000))}
FAINT = {"n < 4, S/N = 20": ((0.5, 4.0), (20, 20))}
ELLIPTICITIES = (0.05, 0.2, 0.35, 0.5, 0.7)
FITTED = ("x", "y", "r_eff", "n", "ellip", "flux")
INSIDE, BIAS = (0.63, 0.73), 0.2
GOAL = "63 to 73 %, bias < 0.2"


def population(number, seed, kinds=KINDS):
    """Galaxies of the kinds in turns."""
    rng = np.random.default_rng(seed)
    centre = (SIZE - 1) / 2
    galaxies = []
    for k in range(number):
        indices, snrs = list(kinds.values())[k % len(kinds)]
        galaxy = Galaxy(
            x=centre + rng.uniform(-0.5, 0.5),
            y=centre + rng.uniform(-0.5, 0.5),
            r_eff=rng.uniform(2, 8),
            n=rng.uniform(*indices),
            ellip=rng.uniform(0.05, 0.7),
            theta=rng.uniform(0, np.pi),
            snr=math.exp(rng.uniform(*np.log(snrs))),
        )
        galaxies.append(galaxy)
    return galaxies


def fitted(sample):
    """The table of the fits to a sample."""
    middle = (SIZE - 1) / 2
    where = QTable({"x": [middle], "y": [middle]})
    phot = SersicPhotometry(psf=PSF(psf_kernel()), fit_shape=(SIZE, SIZE))
    return phot.map(list(sample.images), error=list(sample.sigma), init_params=where)


def plain(column):
    return np.asarray(u.Quantity(column).value, dtype=float)


def pulls(name, found, truth):
    """(Found - true) / error of all galaxies."""
    return (plain(found[name]) - truth) / plain(found[f"{name}_err"])


def ends(name, found):
    """Both ends of the 68 % intervals."""
    if f"{name}_lower" in found.colnames:
        return plain(found[f"{name}_lower"]), plain(found[f"{name}_upper"])
    return plain(found[name]) - plain(found[f"{name}_err"]), plain(found[name]) + plain(found[f"{name}_err"])


def inside(name, found, truth):
    """Whether the truth is between the ends of the interval."""
    low, high = ends(name, found)
    return (low <= truth) & (truth <= high)


def row_of(name, found, truth, kinds):
    """Shares within the interval and mean pulls, of all and by kind."""
    values, held = pulls(name, found, truth), inside(name, found, truth)
    fitted_, sure = np.isfinite(plain(found[name])), np.isfinite(values)
    share, bias = held[fitted_].mean(), values[sure].mean()
    good = INSIDE[0] <= share <= INSIDE[1] and abs(bias) < BIAS
    parts = [kinds == k for k in np.unique(kinds)]
    cells = [f"{held[fitted_ & part].mean():.1%}, {values[sure & part].mean():+.2f}" for part in parts]
    error = math.sqrt(share * (1 - share) / fitted_.sum())
    median = np.median(values[sure])
    return (
        name,
        f"{share:.1%} ± {error:.1%}",
        f"{bias:+.2f}",
        "yes" if good else "NO",
        f"{median:+.2f}",
        *cells,
    )


def faint_row(name, found, truth):
    """What is printed of a parameter of faint galaxies."""
    pull, held = pulls(name, found, truth), inside(name, found, truth)
    low, high = ends(name, found)
    sure = np.isfinite(pull)
    share = held[sure].mean()
    error = math.sqrt(share * (1 - share) / sure.sum())
    sides = (f"{part[sure].mean():.0%}" for part in (truth < low, truth > high))
    return (
        name,
        f"{share:.1%} ± {error:.1%}",
        *sides,
        f"{pull[sure].mean():+.2f}",
        f"{np.median(pull[sure]):+.2f}",
    )


def print_faint(found, sample):
    """Coverage of faint galaxies, and by how much what is found of their ellipticity is too large."""
    rows = [faint_row(name, found, sample.truth(name)) for name in FITTED]
    common.table(
        ("quantity", "inside 68 %", "truth below", "truth above", "bias, sigma", "median pull"), rows
    )
    truth, ellip, held = (
        sample.truth("ellip"),
        plain(found["ellip"]),
        inside("ellip", found, sample.truth("ellip")),
    )
    error, rows = plain(found["ellip_err"]), []
    for low, high in zip(ELLIPTICITIES[:-1], ELLIPTICITIES[1:], strict=True):
        part = (truth >= low) & (truth < high) & np.isfinite(error)
        off = ellip[part] - truth[part]
        rows.append([f"{low} to {high}", part.sum(), f"{off.mean():+.3f}", f"{error[part].mean():.3f}",
                     f"{held[part].mean():.0%}"])  # fmt: skip
    common.table(("true ellip", "galaxies", "found - true, mean", "ellip_err, mean", "inside 68 %"), rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=500, help="galaxies")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--details", action="store_true", help="list fits off by more than 3 sigma")
    parser.add_argument("--faint", action="store_true", help="S/N of 20")
    options = parser.parse_args()
    common.header(
        "How often 68 % intervals hold the truth, Sérsic fits", galaxies=options.n, seed=options.seed
    )
    groups = FAINT if options.faint else KINDS
    sample = draw(population(options.n, options.seed, groups), SIZE, options.seed)
    kinds = np.arange(options.n) % len(groups)
    start = time.process_time()
    found = fitted(sample)
    seconds = time.process_time() - start
    values = {name: pulls(name, found, sample.truth(name)) for name in FITTED}
    kept = np.isfinite(plain(found["flux"]))
    flags = Counter(flag for row in found["flags"] for flag in decode_flags(row))
    listed = ", ".join(f"{flag} {count}" for flag, count in flags.most_common()) or "none"
    print(f"{kept.sum()} of {options.n} galaxies fitted, {seconds / options.n:.3f} s each; flags: {listed}\n")
    if options.faint:
        print_faint(found, sample)
    else:
        rows = [row_of(name, found, sample.truth(name), kinds) for name in FITTED]
        common.table(("quantity", "inside 68 %", "bias, sigma", f"{GOAL}?", "median pull", *KINDS), rows)
    if options.details:
        print_details(found, values, sample)


def print_details(found, values, sample):
    """The galaxies whose fits are off by more than 3 sigma, or that have none."""
    rows = []
    for k, galaxy in enumerate(sample.galaxies):
        pull = {name: values[name][k] for name in FITTED}
        if not all(abs(value) < 3 for value in pull.values()):
            true = [f"{getattr(galaxy, name):.3g}" for name in ("r_eff", "n", "ellip", "snr")]
            rows.append(
                [
                    k,
                    *true,
                    *(f"{value:+.1f}" for value in pull.values()),
                    ", ".join(decode_flags(found["flags"][k])),
                ]
            )
    common.table(
        ("galaxy", "r_eff", "n", "ellip", "S/N", *(f"{name}, pull" for name in FITTED), "flags"), rows
    )


if __name__ == "__main__":
    main()
