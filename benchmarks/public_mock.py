"""The simulated HST lens on whose pixels PyAutoLens publishes its timings, resolved with nothing known of it.

An isothermal ellipsoid with shear, a Sérsic as lens light, and a cored Sérsic behind it, which no model of
lenssr is (github.com/PyAutoLabs/autolens_profiling, MIT licence, dataset/imaging/hst). First the published
pixels: what came out, and by how many of its errors each lens parameter is off. Then fresh draws of the same
lens: numpy and lenstronomy render it, with the counts of 300 s and a sky of 0.1 as published, so that a bias
shows apart from the noise of one draw; their offsets go to stderr as they come. "true family" is the
least-squares fit of the very model that was drawn, linearised at the truth: by how much it is off on the
published pixels is what their noise does.

    python benchmarks/public_mock.py [-n 30] [--seed 0] [--folder $LENSSR_REAL_DATA/autolens_hst]
"""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import common  # before torch: it sets the number of threads
import numpy as np
from astropy.io import fits
from lenstronomy.LensModel.lens_model import LensModel
from scipy.signal import fftconvolve
from scipy.special import gammaincinv

from lenssr import SuperResolver

PIXEL_SCALE, SIDE, MARGIN, SUBPIXELS = 0.05, 141, 10, 4
EXPOSURE, SKY = 300.0, 0.1  # seconds, and counts a second in a pixel
E = 1 / 19
# What was drawn, and steps for derivatives. e1, e2 are components as everywhere in lenssr.
TRUTH = {
    "lens": {"theta_E": 1.6 * (1 - E**2) ** 0.5, "e1": 0.0, "e2": E, "x_0": 0.0, "y_0": 0.0},
    "shear": {"gamma1": 0.05, "gamma2": 0.05},
    "light": {"amplitude": 2.0, "r_eff": 0.6, "n": 3.0, "x_0": 0.0, "y_0": 0.0, "e1": 0.0, "e2": E},
    "source": {"amplitude": 4.0, "r_eff": 0.1, "n": 1.0, "x_0": 0.0, "y_0": 0.0, "e1": -0.0556, "e2": 0.0962},
    "sky": {"level": 0.0},
}
CORE = {"radius": 0.025, "gamma": 0.25, "alpha": 3.0}
STEPS = {"theta_E": 1e-4, "x_0": 1e-4, "y_0": 1e-4, "r_eff": 1e-4}
NAMES = ("theta_E_0", "e1_0", "e2_0", "x_0_0", "y_0_0", "gamma1_1", "gamma2_1")
SETTINGS = {
    "pixelated, Sérsic light": {"source": "pixelated", "lens_light": "sersic"},
    "Sérsic, Sérsic light": {"source": "sersic", "lens_light": "sersic"},
}
# As the simulation's authors print them (September 2026), for an unknown lens. They sample a posterior.
PUBLISHED = (
    ("PyAutoLens, pixelated source, one blind search", "A100", "2768", 'wrong lens (0.867")'),
    ("PyAutoLens, pixelated source, chain of five searches *", "A100", "2571-2863", "within 1.3 sigma"),
    ("PyAutoLens, source of Gaussians", "A100", "657-831", "right"),
)


# ---------------------------------------------------------------- an independent render


def elliptical_radius(x, y, e1, e2):
    """Radius on the intermediate axis."""
    e, phi = np.hypot(e1, e2), np.arctan2(e2, e1) / 2
    q = (1 - e) / (1 + e)
    along, across = x * np.cos(phi) + y * np.sin(phi), y * np.cos(phi) - x * np.sin(phi)
    return np.sqrt(q * along**2 + across**2 / q)


def sersic(radius, amplitude, r_eff, n):
    return amplitude * np.exp(-gammaincinv(2 * n, 0.5) * ((radius / r_eff) ** (1 / n) - 1))


def cored_sersic(radius, amplitude, r_eff, n):
    """The core-Sérsic of Trujillo et al. 2004, AJ 127, 1917, equation 5; amplitude as PyAutoLens has it."""
    core, gamma, alpha = CORE.values()
    b, power = gammaincinv(2 * n, 0.5), 1 / (alpha * n)
    outer = amplitude * 2 ** (-gamma / alpha) * np.exp(b * 2**power * (core / r_eff) ** (1 / n))
    radius = np.maximum(radius, 1e-9)
    fall = np.exp(-b * ((radius**alpha + core**alpha) / r_eff**alpha) ** power)
    return outer * (1 + (core / radius) ** alpha) ** (gamma / alpha) * fall


def rendered(truth, psf):
    """Counts a second in the pixels, (SIDE, SIDE), first row at the bottom, without noise."""
    number = SIDE + 2 * MARGIN
    axis = (np.arange(number * SUBPIXELS) - (number * SUBPIXELS - 1) / 2) * PIXEL_SCALE / SUBPIXELS
    x, y = (grid.ravel() for grid in np.meshgrid(axis, axis))
    mass = {name: value for name, value in truth["lens"].items() if name not in ("x_0", "y_0")}
    mass |= {"gamma": 2.0, "center_x": truth["lens"]["x_0"], "center_y": truth["lens"]["y_0"]}
    alpha = LensModel(["EPL", "SHEAR"]).alpha(x, y, [mass, truth["shear"]])
    total = 0.0
    for name, profile, (px, py) in (
        ("light", sersic, (x, y)),
        ("source", cored_sersic, (x - alpha[0], y - alpha[1])),
    ):
        amplitude, r_eff, n, x_0, y_0, e1, e2 = truth[name].values()
        total = total + profile(elliptical_radius(px - x_0, py - y_0, e1, e2), amplitude, r_eff, n)
    pixels = total.reshape(number, SUBPIXELS, number, SUBPIXELS).mean(axis=(1, 3))
    inner = slice(MARGIN, -MARGIN)
    return fftconvolve(pixels, psf, mode="same")[inner, inner] + truth["sky"]["level"]


def changed(part, name, step):
    """The truth with one number changed."""
    return {**TRUTH, part: {**TRUTH[part], name: TRUTH[part][name] + step}}


def derivatives(psf):
    """Derivatives of the render by all numbers of the truth, (pixels, numbers)."""
    columns = []
    for part, values in TRUTH.items():
        for name in values:
            step = STEPS.get(name, 1e-3)
            high, low = (rendered(changed(part, name, sign * step), psf) for sign in (1, -1))
            columns.append((high - low).ravel() / (2 * step))
    return np.stack(columns, axis=1)


def true_family(data, mean, slopes):
    """Offsets over their errors of the lens parameters, by least squares with the true model."""
    weights = 1 / np.sqrt((mean.ravel() + SKY) / EXPOSURE)
    covariance = np.linalg.inv((slopes * weights[:, None] ** 2).T @ slopes)
    offsets = covariance @ (slopes.T @ ((data - mean).ravel() * weights**2))
    return (offsets / np.sqrt(np.diag(covariance)))[: len(NAMES)]


# ---------------------------------------------------------------- lenssr


@dataclass(frozen=True)
class Row:
    """One fit: values, errors and pulls of the lens parameters, chi2, verdict, seconds of one core."""

    values: np.ndarray
    errors: np.ndarray
    pulls: np.ndarray
    chi2: float
    ok: bool
    seconds: float


def resolved(data, sigma, psf, settings):
    """Resolve an image of which only pixel scale, errors and PSF are told."""
    start = time.process_time()
    result = SuperResolver(psf=psf, **settings)(data, noise=sigma, pixel_scale=PIXEL_SCALE)
    seconds = time.process_time() - start
    found = [getattr(result.lens, name) for name in NAMES]
    values, errors = np.array([one.value for one in found]), np.array([one.std for one in found])
    truth = np.array([*TRUTH["lens"].values(), *TRUTH["shear"].values()])
    return Row(values, errors, (values - truth) / errors, result.reduced_chi2, bool(result.ok), seconds)


def drawn(mean, rng):
    """Counts a second with their noise, and the errors that follow them, as published."""
    data = rng.poisson((mean + SKY) * EXPOSURE) / EXPOSURE - SKY
    return data, np.sqrt(np.maximum(data + SKY, 1 / EXPOSURE) / EXPOSURE)


def published_pixels(folder):
    """Data, errors and PSF with the first row at the bottom."""
    names = ("data", "noise_map", "psf")
    return [np.ascontiguousarray(fits.getdata(folder / f"{name}.fits")[::-1], dtype=float) for name in names]


def cells(pulls, digits=1):
    return [f"{pull:+.{digits}f}" for pull in pulls]


def main():
    parser = common.parser_of(__doc__, 30, "fresh draws", 0)
    home = Path(os.environ.get("LENSSR_REAL_DATA", "data")) / "autolens_hst"
    parser.add_argument("--folder", type=Path, default=home)
    options = parser.parse_args()
    data, sigma, psf = published_pixels(options.folder)
    mean, slopes = rendered(TRUTH, psf), derivatives(psf)
    common.header("A public simulation, nothing known of the lens", draws=options.n, seed=options.seed)
    rows = {name: resolved(data, sigma, psf, settings) for name, settings in SETTINGS.items()}
    timing = [
        (f"lenssr, {name}", "one core", f"{row.seconds:.0f}", f"within {np.abs(row.pulls).max():.1f} sigma")
        for name, row in rows.items()
    ]
    common.table(("source", "machine", "seconds", "lens"), [*timing, *PUBLISHED])
    print("Those of lenssr are a maximum and Laplace errors, which is less than a sampled posterior.")
    print("* On a fresh simulation of the same lens.\n")
    print("Published pixels: offsets from the truth over their errors")
    columns = ("source", *NAMES, "reduced chi2", "ok")
    pulls = [
        (name, *cells(row.pulls), f"{row.chi2:.3f}", "yes" if row.ok else "no") for name, row in rows.items()
    ]
    common.table(columns, [*pulls, ("true family", *cells(true_family(data, mean, slopes)), "", "")])
    best = rows["pixelated, Sérsic light"]
    pairs = zip(NAMES, best.values, best.errors, [*TRUTH["lens"].values(), 0.05, 0.05], strict=True)
    common.table(
        ("parameter", "pixelated, Sérsic light", "error", "truth"),
        [(name, f"{value:.5f}", f"{error:.5f}", f"{truth:.5f}") for name, value, error, truth in pairs],
    )
    fresh(options, mean, slopes, psf)


def fresh(options, mean, slopes, psf):
    """Table of mean pulls and their scatter over fresh draws."""
    rng = np.random.default_rng(options.seed)
    pulls, seconds = {name: [] for name in (*SETTINGS, "true family")}, {name: [] for name in SETTINGS}
    for _ in range(options.n):
        data, sigma = drawn(mean, rng)
        for name in SETTINGS:
            row = resolved(data, sigma, psf, SETTINGS[name])
            pulls[name].append(row.pulls)
            seconds[name].append(row.seconds)
            print(name, *cells(row.pulls, 2), f"{row.seconds:.0f} s", file=sys.stderr, flush=True)
        pulls["true family"].append(true_family(data, mean, slopes))
        print("true family", *cells(pulls["true family"][-1], 2), file=sys.stderr, flush=True)
    print(f"{options.n} fresh draws: mean offset over its error, and in brackets the scatter")
    rows = []
    for name, found in pulls.items():
        means, scatter = np.mean(found, axis=0), np.std(found, axis=0, ddof=1)
        pairs = [f"{m:+.2f} ({s:.2f})" for m, s in zip(means, scatter, strict=True)]
        time_of = f"{np.mean(seconds[name]):.0f}" if name in seconds else ""
        rows.append((name, *pairs, f"{np.abs(found).max():.1f}", time_of))
    common.table(("source", *NAMES, "largest", "seconds"), rows)
    print(f"A mean of {options.n} has an error of {options.n**-0.5:.2f}.\n")
    print("The same less the offset of the true family on the same noise, which leaves what lenssr adds")
    rows = []
    for name in SETTINGS:
        gaps = np.subtract(pulls[name], pulls["true family"])
        errors = np.std(gaps, axis=0, ddof=1) / len(gaps) ** 0.5
        pairs = zip(gaps.mean(axis=0), errors, strict=True)
        rows.append((name, *(f"{mean:+.2f} +- {error:.2f}" for mean, error in pairs)))
    common.table(("source", *NAMES), rows)


if __name__ == "__main__":
    main()
