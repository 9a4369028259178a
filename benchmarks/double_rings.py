"""Double rings that lenstronomy renders: one lens, two sources, of which the first deflects the second.

Lens equation of both planes, light, integration over pixels and convolution are lenstronomy's. Each is
fitted without any hint: the lens (SIE and shear), the mass of the first source, both sources, and beta, the
scaling of the two planes, with a prior of 0.1 whose middle is off by a draw of that width. Right is a fit
whose Einstein radii of both sources are within 1 %, both sources within 10 % of the truth (the norm of what
is off, over that of the source's image), beta within 3 of its errors, and chi2 that of noise. "held" are the
same with beta of redshifts and cosmology.

    python benchmarks/double_rings.py [-n 20] [--held 5] [--jobs 1]
"""

import time

import astropy.units as u
import common  # first: it sets one thread
import numpy as np
from rendered_rings import FWHM, PIXEL, DoubleRing, difference, radius

from lenssr import SourcePlanes, SuperResolver

PRIOR = 0.1
RADIUS_WITHIN, SOURCE_WITHIN, SIGMAS, WORST_CHI2 = 0.01, 0.1, 3.0, 1.1
COLUMNS = ("ring", "R_E 1", "R_E 2", "off 1", "off 2", "mass of first", "beta", "true", "pull", "chi2")
COLUMNS += ("right", "flags", "s")
LINE = "{:<8} {:>6} {:>6} {:>5} {:>5}  {:<18} {:<17} {:>6} {:>5} {:>6} {:>5}  {:<16} {:>3}"


def solve(seed, held=False):
    """What a fit finds, beside the truth."""
    ring = DoubleRing(seed)
    right = ring.planes.beta
    planes = ring.planes
    if not held:
        middle = right + np.random.default_rng([27, seed]).normal(0, PRIOR)
        planes = SourcePlanes(beta=float(np.clip(middle, 0.3, 0.95)), beta_error=PRIOR)
    start = time.process_time()
    resolver = SuperResolver(source="sersic", source_planes=planes)
    result = resolver(ring.draw(), noise=ring.sigma, psf=FWHM * u.arcsec, pixel_scale=PIXEL)
    truths = ring.sources
    beta = result.lens.beta
    return {
        "seconds": time.process_time() - start,
        "radii": [radius(result.lens, k) / radius(ring.lens, k) for k in (1, 2)],
        "off": [
            difference(plane, truth)
            for plane, truth in zip((result.source, result.second_source), truths, strict=True)
        ],
        "mass": (
            float(result.lens.sphere.theta_E.value - ring.numbers[3]),
            float(result.lens.sphere.theta_E.std),
        ),
        "beta": (float(beta.value), float(beta.std or 0.0), right),
        "chi2": float(result.reduced_chi2),
        "flags": [flag for flag in result.flags if flag != "no_wcs"],
        "ok": bool(result.ok),
    }


def is_right(found):
    """Whether lens, both sources and beta are right."""
    value, error, right = found["beta"]
    beta = abs(value - right) <= max(SIGMAS * error, 1e-9)
    lens = all(abs(ratio - 1) < RADIUS_WITHIN for ratio in found["radii"])
    return beta and lens and max(found["off"]) < SOURCE_WITHIN and found["chi2"] < WORST_CHI2


def row(name, found):
    value, error, right = found["beta"]
    mass, mass_error = found["mass"]
    pull = f"{(value - right) / error:+.1f}" if error else ""
    return (
        name,
        *(f"{ratio:.4f}" for ratio in found["radii"]),
        *(f"{off:.1%}" for off in found["off"]),
        f"{mass:+.4f} +- {mass_error:.4f}",
        f"{value:.4f} +- {error:.4f}" if error else f"{value:.4f}",
        f"{right:.4f}",
        pull,
        f"{found['chi2']:.3f}",
        "yes" if is_right(found) else "NO",
        ", ".join(found["flags"]) or "none",
        f"{found['seconds']:.0f}",
    )


def main():
    parser = common.parser_of(__doc__, 20, "systems", 0)
    parser.add_argument("--held", type=int, default=5, help="systems that are fitted with beta held, too")
    arguments = parser.parse_args()
    seeds = range(arguments.seed, arguments.seed + arguments.n)
    common.header("Double rings, rendered by lenstronomy", systems=arguments.n, pixel=PIXEL, FWHM=FWHM)
    tasks = [(seed, False) for seed in seeds] + [(seed, True) for seed in seeds[: arguments.held]]
    found = []
    print(LINE.format(*COLUMNS))
    for (seed, held), one in zip(tasks, common.in_processes(solve, tasks, arguments.jobs), strict=True):
        found.append(one)
        print(LINE.format(*row(f"{seed}{', held' if held else ''}", one)), flush=True)
    free = (one["beta"] for one in found[: arguments.n])
    pulls = np.array([(value - right) / error for value, error, right in free])
    right, ok = (sum(map(test, found)) for test in (is_right, lambda one: one["ok"]))
    spread, worst = np.sqrt(np.mean(pulls**2)), np.abs(pulls).max()
    print(f"\nright {right} of {len(found)}, ok {ok}; pulls of beta: rms {spread:.2f}, largest {worst:.1f}")


if __name__ == "__main__":
    main()
