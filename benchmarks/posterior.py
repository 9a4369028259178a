"""What draws from posteriors are worth: calibration, agreement of the methods, seconds.

Calibration: every parameter of a simulated lens is drawn from the very prior of its fit, which is flat
between bounds in the variables of the fit (logarithms of amplitude and r_eff). A power law with shear in
front of a Sérsic, on point-sampled pixels with Gaussian noise and a free sky; bounds are given with lens and
source, and the fit starts 1 % beside the truth: it is the posterior that is tested, not the search. Truths
then rank uniformly among draws. The rank of a lens is the weight of the draws below the truth; KS is the
probability that uniform ranks scatter as much; "68 %" is the share of central intervals that hold the truth,
which scatters by 3 % for 200 lenses. The rows "all" select nothing. Bounds are narrow beside what these data
say, so that many fits end on one of them, where no Gaussian is good: the rows below are those without, and
those that "psis" does not flag (k is at most 0.7).

The first of the same lenses (--sampler) go through emcee, too, and the first (--free) are fitted with a
source on a grid, whose prior they are not drawn from; the flux of that source is left out.

With --real FOLDER real lenses, unknown, are fitted with a Sérsic, and the methods stand side by side: mean
and standard deviation of theta_E, axis ratio and shear.

    python benchmarks/posterior.py [-n 200] [--sampler 10] [--free 5] [--draws 300] [--seed 11] [--jobs 1]
                                   [--real FOLDER] [--lenses NAME ...] [--steps 400]
"""

import sys
import time
from pathlib import Path

import common  # first: it sets one thread
import numpy as np
from scipy import stats

from lenssr import EPL, Sersic, Shear, SuperResolver, register_source
from lenssr.grids import PixelGrid
from lenssr.imaging import render
from lenssr.light.sersic import SersicProfile, sersic_flux

SHAPE, PIXEL, SIGMA = (44, 44), 0.08, 0.012
# Ends of the flat priors; of the logarithm for amplitude and r_eff.
LENS = {"theta_E": (0.9, 1.3), "gamma": (1.5, 2.5), "e1": (-0.25, 0.25), "e2": (-0.25, 0.25)}
LENS |= {"x_0": (-0.1, 0.1), "y_0": (-0.1, 0.1)}
SHEAR = {"gamma1": (-0.12, 0.12), "gamma2": (-0.12, 0.12)}
SOURCE = {"amplitude": (2.0, 10.0), "r_eff": (0.12, 0.5), "n": (0.5, 4.0), "x_0": (-0.25, 0.25)}
SOURCE |= {"y_0": (-0.25, 0.25), "e1": (-0.3, 0.3), "e2": (-0.3, 0.3)}
LOGARITHMIC = ("amplitude", "r_eff")
COLUMNS = ("theta_E", "q", "shear", "slope", "source flux")
REAL = ("SL2SJ0226-0406", "SDSSJ0737+3216", "SDSSJ0029-0055", "SDSSJ0728+3835", "SDSSJ0912+0029")


def bounded_sersic():
    """The source with the bounds that are its prior."""
    return SersicProfile(Sersic(4.0, 0.25, 1.2, bounds=SOURCE))


SOURCE_NAME = register_source("bounded_sersic", bounded_sersic)


def drawn(ends, rng):
    """Parameters from their priors."""
    found = {}
    for name, (low, high) in ends.items():
        if name in LOGARITHMIC:
            found[name] = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        else:
            found[name] = float(rng.uniform(low, high))
    return found


def bounded_lens(lens, shear):
    """The lens with the bounds that are its prior."""
    model = EPL(**lens) + Shear(**shear)
    for part, ends in zip(model.components, (LENS, SHEAR), strict=True):
        for name, pair in ends.items():
            getattr(part, name).bounds = pair
    return model


def beside(values, ends, rng):
    """A start 1 % of the range beside the truth, within the bounds."""
    return {
        name: float(np.clip(values[name] + 0.01 * (high - low) * rng.standard_normal(), low, high))
        for name, (low, high) in ends.items()
    }


def derived(draws):
    """The quantities of COLUMNS, arrays by name; those that there are."""
    columns = dict(zip(draws.names, np.transpose(draws.values), strict=True))
    shape = {name: columns[f"lens.{name}_0"] for name in ("e1", "e2")}
    found = {"theta_E": columns["lens.theta_E_0"], "q": axis_ratio(shape)}
    found["shear"] = np.hypot(columns["lens.gamma1_1"], columns["lens.gamma2_1"])
    if "lens.gamma_0" in columns:
        found["slope"] = columns["lens.gamma_0"]
    if "source.r_eff" in columns:
        found["source flux"] = flux({name: columns[f"source.{name}"] for name in SOURCE})
    return found


def axis_ratio(ellipse):
    """Minor over major axis."""
    modulus = np.hypot(ellipse["e1"], ellipse["e2"])
    return (1 - modulus) / (1 + modulus)


def flux(source):
    """Flux of a Sérsic whose r_eff is the semi-major axis."""
    r_eff_circ = source["r_eff"] * np.sqrt(axis_ratio(source))
    return sersic_flux(source["amplitude"], r_eff_circ, source["n"]).numpy()


def lens_of(number, seed, methods, draws, steps, source):
    """Ranks of the truth by method and quantity, k, and CPU seconds by method, of one lens."""
    rng = np.random.default_rng([seed, number])
    priors = {"lens": LENS, "shear": SHEAR, "source": SOURCE}
    truth = {role: drawn(ends, rng) for role, ends in priors.items()}
    lens = EPL(**truth["lens"]) + Shear(**truth["shear"])
    image = render(PixelGrid(SHAPE, PIXEL), lens=lens, source=Sersic(**truth["source"]), oversampling=1)
    image = image + rng.normal(0, SIGMA, SHAPE)
    start = bounded_lens(beside(truth["lens"], LENS, rng), beside(truth["shear"], SHEAR, rng))
    began = time.process_time()
    resolver = SuperResolver(source=source, lens=start, fit_lens=True, oversampling=1)
    result = resolver(image, noise=SIGMA, pixel_scale=PIXEL, unit="electron/s")
    seconds = {"fit": time.process_time() - began}
    given = truth["lens"]
    right = {"theta_E": given["theta_E"], "q": axis_ratio(given), "slope": given["gamma"]}
    right |= {"shear": np.hypot(*truth["shear"].values()), "source flux": float(flux(truth["source"]))}
    ranks, k, converged = {}, np.nan, True
    for method in methods:
        began = time.process_time()
        found = result.sample_posterior(draws, method, seed=number, steps=steps)
        seconds[method] = time.process_time() - began
        k = found.pareto_k if method == "psis" else k
        converged &= found.diagnostics.get("converged", True)
        below = {name: found.weights @ (values < right[name]) for name, values in derived(found).items()}
        ranks[method] = {name: float(rank) for name, rank in below.items()}
    on_bound = any(name.endswith("_at_bound") for name in result.flags)
    return ranks, k, seconds, converged, on_bound


def show_calibration(title, answers, methods):
    """Print ranks, intervals and seconds of many lenses."""
    ks = np.array([answer[1] for answer in answers])
    told = f"Pareto k {np.median(ks):.2f} (median), above 0.7 in {(ks > 0.7).sum()}"
    told += f"; {sum(answer[4] for answer in answers)} ended on a bound"
    print(f"{title}: {len(answers)} lenses; {told}")
    if "emcee" in methods:
        print(f"emcee converged (R-hat < 1.01, 50 autocorrelation times) for {sum(a[3] for a in answers)}")
    print(flush=True)
    within = [answer for answer in answers if not answer[4]]
    parts = {"all": answers, "off bounds": within, "off bounds, k <= 0.7": [a for a in within if a[1] <= 0.7]}
    rows = [row for part in parts.items() for method in methods for row in calibration_rows(*part, method)]
    common.table(("lenses", "number", "method", "quantity", "KS p", "68 % hold"), rows)
    names = ("fit", *methods)
    common.table(
        ("CPU seconds", "median", "worst"),
        [(n, *(f"{f([a[2][n] for a in answers]):.1f}" for f in (np.median, np.max))) for n in names],
    )


def calibration_rows(part, answers, method):
    """Cells of the quantities of one method, for a part of the lenses."""
    for name in COLUMNS:
        ranks = np.array([answer[0][method][name] for answer in answers if name in answer[0][method]])
        if len(ranks):
            share = f"{100 * np.mean(np.abs(ranks - 0.5) < 0.34):.0f} %"
            yield part, len(ranks), method, name, f"{stats.kstest(ranks, 'uniform').pvalue:.3f}", share


def calibrate(title, count, options, methods, source):
    """Run and print one calibration."""
    if not count:
        return
    tasks = [(number, options.seed, methods, options.draws, options.steps, source) for number in range(count)]
    answers = list(common.in_processes(lens_of, tasks, options.jobs))
    show_calibration(title, answers, methods)


def show_real(options):
    """Print what the methods say of real lenses."""
    rows = []
    for name in options.lenses:
        folder = Path(options.real)
        files = sorted(folder.glob(f"{name}*F814W*.fits")) or sorted(folder.glob(f"{name}*.fits"))
        result = SuperResolver(source="sersic", lens_light="sersic")(files[0], mask="auto")
        for method in ("laplace", "psis", *(("emcee",) if options.sampler_real else ())):
            began = time.process_time()
            draws = result.sample_posterior(options.draws, method, steps=options.steps)
            cells = []
            for values in list(derived(draws).values())[:3]:
                mean = draws.weights @ values
                cells.append(f"{mean:.4f} +- {np.sqrt(draws.weights @ (values - mean) ** 2):.4f}")
            k = f"{draws.pareto_k:.2f}" if method == "psis" else ""
            about = draws.diagnostics
            r_hat = f"{max(about['r_hat'].values()):.3f}" if "r_hat" in about else ""
            seconds = f"{time.process_time() - began:.0f}"
            rows.append((files[0].stem if method == "laplace" else "", method, *cells, k, r_hat, seconds))
            print(rows[-1], file=sys.stderr, flush=True)
    columns = ("lens", "method", "theta_E", "q", "shear", "k", "R-hat", "CPU s")
    common.table(columns, rows)


def main():
    """Run everything."""
    parser = common.parser_of(__doc__, 200, "lenses with a Sérsic", 11)
    parser.add_argument("--sampler", type=int, default=10, help="of these, how many go through emcee")
    parser.add_argument("--free", type=int, default=5, help="lenses with a source on a grid")
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--steps", type=int, default=400, help="most steps of a walker")
    parser.add_argument("--real", help="folder of real lenses")
    parser.add_argument("--lenses", nargs="+", default=REAL)
    parser.add_argument("--sampler-real", action="store_true", help="emcee on the real lenses, too")
    options = parser.parse_args()
    common.header("Posteriors", draws=options.draws, seed=options.seed, steps=options.steps)
    calibrate("Sérsic source", options.n, options, ("laplace", "psis"), SOURCE_NAME)
    every = ("laplace", "psis", "emcee")
    calibrate("the first of them, with the sampler", options.sampler, options, every, SOURCE_NAME)
    calibrate("source on a grid", options.free, options, ("laplace", "psis"), "pixelated")
    if options.real:
        show_real(options)


if __name__ == "__main__":
    main()
