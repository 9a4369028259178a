"""What each chosen threshold does, at half, once and twice its value, on lenses that lenstronomy renders.

Searches: the share of lenses whose Einstein radius is right within 3 %, of those that pass (``ok``), and of
those that are wrong and pass. Verdicts: the same, and the share whose flags change, where a fourth of the
images is spoiled: no lens, a PSF or errors that are wrong, a star on the ring. Masks: the share of the pixels
of lensed images, of other objects, and of neither that ``mask="auto"`` hides. A threshold that moves nothing
here decides nothing, or something that these lenses do not have.

    python benchmarks/thresholds.py [-n 40] [--seed 1] [--jobs 1] [--only HOPELESS_CHI2 IMAGE_REACH]
"""

import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

import common  # first of lenssr: it sets one thread
import numpy as np
from astropy import units as u
from rendered_lenses import RenderedLens, clumpy, sersic

from lenssr import SuperResolver
from lenssr.imaging import Observation

FACTORS = 0.5, 1.0, 2.0
RIGHT = 0.03
DECISIONS, DETECTION = "lenssr.reconstruction.decisions", "lenssr.imaging.detection"
FLAGS = "lenssr.reconstruction.verdict"
# What is run to see what a threshold does: options of the resolver, or the mask of a field.
NETWORK = {"source": "sersic", "start": "network"}
FREE_FORM = {"source": "pixelated"}
SEARCHES = {
    "network's start": NETWORK,
    "free-form": FREE_FORM,
}


@dataclass(frozen=True)
class Threshold:
    """A constant of a module by name, and what to run; or the threshold of a flag, by the flag's name."""

    module: str
    name: str
    what: str

    @property
    def is_flag(self):
        """Whether it is that of a flag."""
        return self.module == FLAGS and not self.name.isupper()

    @property
    def value(self):
        """Its value."""
        found = import_module(self.module)
        return found.FLAGS[self.name].threshold if self.is_flag else getattr(found, self.name)

    @contextmanager
    def times(self, factor):
        """Have another value for a while."""
        module, value = import_module(self.module), self.value
        changed = type(value)(max(1, round(factor * value))) if isinstance(value, int) else factor * value
        if self.is_flag:
            old = module.FLAGS[self.name]
            end = "above" if old.below is None else "below"
            module.FLAGS[self.name] = replace(old, **{end: changed})
            yield
            module.FLAGS[self.name] = old
        else:
            setattr(module, self.name, changed)
            yield
            setattr(module, self.name, value)


def listed(module, what, names):
    """Thresholds of one module that one kind of run shows."""
    return [Threshold(module, name, what) for name in names.split()]


THRESHOLDS = [
    *listed(
        DECISIONS,
        "network's start",
        "AGREES AGREES_WITH_ARCS_LEFT ARCS_LEFT_SIGMA HOPELESS_CHI2 DOUBTED_RADIUS_REACH "
        "DOUBTED_RADIUS_WIDTH",
    ),
    *listed(
        DECISIONS,
        "free-form",
        "RADIUS_REACH RADIUS_WIDTH EXPANSIONS UNLIKELY_LENS GRID_EDGE_SIGMA GRID_LEFT_SIGMA GRID_LEFT_REACH",
    ),
    *listed(
        DECISIONS,
        "mask",
        "ARC_STRETCH ARC_LENGTH_FWHM ARC_RADIUS_FWHM ARC_SIGNAL CORE_FWHM BEYOND_ARCS IMAGE_REACH "
        "BRIGHT_IMAGE INNER_FIELD ACROSS_COSINE COUNTER_IMAGE_RADIUS COUNTER_IMAGE_SIGNAL OBJECT_PEAK",
    ),
    *listed(DETECTION, "mask", "PROFILE_TRUST LEAST_PEAK CONTRAST CENTRE_REACH MAX_ELLIPTICITY"),
    *listed(
        FLAGS,
        "verdict",
        "bad_chi2 bad_arc_chi2 bad_field_chi2 residual_structure starts_disagree theta_E_uncertain no_arcs "
        "not_multiply_imaged ring_unresolved source_off_grid source_too_large flux_disagrees "
        "errors_too_small CHI2_SIGMA FEWEST_ARC_PIXELS LAG_SIGMA MOST_DETERMINED FLUX_SIGMA FAINT_SHARE "
        "WIDER CELLS",
    ),
]


# ---------------------------------------------------------------- lenses


def drawn(seed, number):
    """A rendered lens: every second source is clumpy, every second pair has a lens that shines."""
    rng = np.random.default_rng([seed, number])
    theta_E, turn = rng.uniform(0.6, 1.4), rng.uniform(0, 2 * np.pi)
    away = rng.uniform(0.02, 0.35) * theta_E
    x, y = away * np.cos(turn), away * np.sin(turn)
    centre = rng.normal(0, 0.03, 2)
    lens = (theta_E, *rng.normal(0, 0.1, 2).clip(-0.25, 0.25), *centre, *rng.normal(0, 0.04, 2))
    plain = sersic(10.0, rng.uniform(0.1, 0.25), rng.uniform(0.7, 3), x, y, *rng.normal(0, 0.1, 2))
    galaxy = sersic(8.0, rng.uniform(0.3, 0.6), rng.uniform(1.5, 3), *centre, *rng.normal(0, 0.08, 2))
    return RenderedLens(
        lens=lens,
        source=clumpy(x, y) if number % 2 else plain,
        light=galaxy if number // 2 % 2 else [],
        fwhm=rng.uniform(0.15, 0.3),
        snr=float(np.exp(rng.uniform(np.log(10), np.log(60)))),
        rays=3,
    )


def result_of(lens, seed, options, *, image=None, fwhm=None, sigma=None):
    """What the resolver makes of a lens, whose image, FWHM and errors it is told unless others are given."""
    light = "sersic" if lens.light else None
    resolver = SuperResolver(lens_light=light, scale=1, **options)
    image = lens.draw(seed) if image is None else image
    given = {"psf": (fwhm or lens.fwhm) * u.arcsec, "noise": sigma or lens.sigma}
    (result,) = resolver.map([image], pixel_scale=lens.pixel_scale, **given)
    return result


def is_right(result, lens):
    """Whether an Einstein radius is right."""
    return bool(result) and abs(float(result.lens[0].theta_E.value) / lens.lens[0] - 1) < RIGHT


def percent(rights, oks):
    """Right, passed, and wrong but passed, in percent."""
    right, ok = np.array(rights, dtype=bool), np.array(oks, dtype=bool)
    return " / ".join(f"{100 * share.mean():.0f}" for share in (right, ok, ok & ~right))


# ---------------------------------------------------------------- what a threshold does


def search(threshold, factor, number, seed):
    """A row of shares over lenses whose search, or free-form fit, runs with a changed threshold.

    In a process of its own: modules that bind the constant when they are imported are imported here.
    """
    assert "lenssr.reconstruction.freeform_fit" not in sys.modules
    with threshold.times(factor):
        lenses = [drawn(seed, k) for k in range(number)]
        found = [result_of(lens, k, SEARCHES[threshold.what]) for k, lens in enumerate(lenses)]
    rights = [is_right(result, lens) for result, lens in zip(found, lenses, strict=True)]
    return percent(rights, [result.ok for result in found])


def spoiled(lens, number):
    """What is wrong with every fourth lens, in turn: keywords of `result_of`, and whether there is a lens."""
    kind = number // 4 % 4 if number % 4 == 3 else None
    if kind == 0:
        straight = replace(lens, lens=(1e-6, *lens.lens[1:5], 0.0, 0.0))
        return {"image": straight.draw(number)}, False
    if kind == 1:
        return {"fwhm": 2.0 * lens.fwhm}, True
    if kind == 2:
        return {"sigma": lens.sigma / 1.5}, True
    if kind == 3:
        x = lens.lens[0]
        star = replace(lens, light=[*lens.light, ("GAUSSIAN", star_at(x, 0.3, 0.5))])
        return {"image": star.draw(number)}, True
    return {}, True


def star_at(x, y, flux):
    """Keywords of lenstronomy's Gaussian for a point."""
    return {"amp": flux, "sigma": 0.01, "center_x": x, "center_y": y}


def verdicts(chosen, number, seed):
    """Rows of thresholds of the verdict: every lens is solved once and judged again with each."""
    from lenssr.reconstruction import assemble, verdict

    runs, rights = [], []
    judge = assemble.judge
    assemble.judge = lambda run: runs.append(run) or judge(run)
    for k in range(number):
        lens = drawn(seed, k)
        told, is_lens = spoiled(lens, k)
        for options in ({"source": "sersic"}, {"source": "pixelated"}):
            before = len(runs)
            result = result_of(lens, k, options, **told)
            if len(runs) == before + 1:
                rights.append(is_lens and is_right(result, lens))
    assemble.judge = judge
    usual, rows = [verdict.judge(run).flags for run in runs], {}
    for threshold in chosen:
        for factor in FACTORS:
            with threshold.times(factor):
                found = [verdict.judge(run) for run in runs]
            others = np.mean([one.flags != flags for one, flags in zip(found, usual, strict=True)])
            shares = percent(rights, [one.ok for one in found])
            rows[threshold.name, factor] = f"{shares} / {100 * others:.0f}"
    return rows


def masks(chosen, number, seed):
    """Rows of thresholds of the mask."""
    from lenssr.reconstruction.field_mask import auto_mask

    fields, rows = [crowded(seed, k) for k in range(number)], {}
    for threshold in chosen:
        for factor in FACTORS:
            with threshold.times(factor):
                hidden = [shares_of(auto_mask(image), where) for image, *where in fields]
            shares = (f"{100 * share:.1f}" for share in np.nanmean(hidden, axis=0))
            rows[threshold.name, factor] = " / ".join(shares)
    return rows


def shares_of(mask, where):
    """Shares of some sets of pixels that a mask hides; nan of a set without any."""
    return [mask[pixels].mean() if pixels.any() else np.nan for pixels in where]


def crowded(seed, number):
    """A shining lens among stars and galaxies: the image, and the pixels of images, of others, of neither."""
    rng = np.random.default_rng([seed, number, 7])
    lens = replace(drawn(seed, number), size=80, rays=2)
    x, y = lens.lens[3:5]
    galaxy = sersic(8.0, rng.uniform(0.3, 0.6), rng.uniform(1.5, 3), x, y, *rng.normal(0, 0.08, 2))
    others = []
    for k in range(rng.integers(2, 7)):
        away, turn = rng.uniform(1.8 * lens.lens[0], 3.8), rng.uniform(0, 2 * np.pi)
        place, flux = (away * np.cos(turn), away * np.sin(turn)), 10 ** rng.uniform(-0.7, 1)
        if k % 2:
            others.append(("GAUSSIAN", star_at(*place, flux)))
        else:
            size = rng.uniform(0.1, 0.35)
            others += sersic(flux / size**2 / 8, size, rng.uniform(0.8, 2), *place, *rng.normal(0, 0.15, 2))
    lens, sigma = replace(lens, light=galaxy + others), lens.sigma
    beside, lensed = replace(lens, light=others).plane("light") / sigma, lens.plane("source") / sigma
    image = Observation.from_any(
        lens.draw(number), psf=lens.fwhm * u.arcsec, noise=sigma, pixel_scale=lens.pixel_scale
    )
    where = lensed > 2, (beside > 2) & (lensed < 0.5), (beside < 0.1) & (lensed < 0.1)
    return image, *where


# ---------------------------------------------------------------- the table


def work(chosen, factor, number, seed):
    """A task of one process: rows by name of the threshold and factor, of thresholds of one kind."""
    if chosen[0].what == "verdict":
        return verdicts(chosen, number, seed)
    if chosen[0].what == "mask":
        return masks(chosen, number, seed)
    return {(chosen[0].name, factor): search(chosen[0], factor, number, seed)}


def tasks_for(chosen, number, seed):
    """One for all verdicts, one for all masks, and one for each search with each value."""
    groups = [[t for t in chosen if t.what == what] for what in ("mask", "verdict")]
    tasks = [(group, None, number, seed) for group in groups if group]
    seen = set()
    for threshold in chosen:
        if threshold.what not in SEARCHES:
            continue
        for factor in FACTORS:
            # With the usual value all thresholds of one kind of search give the same.
            if factor != 1 or threshold.what not in seen:
                tasks.append(([threshold], factor, number, seed))
        seen.add(threshold.what)
    return tasks


def main():
    parser = common.parser_of(__doc__, 40, "lenses", 1)
    parser.add_argument("--only", nargs="+", help="names of thresholds")
    arguments = parser.parse_args()
    chosen = [t for t in THRESHOLDS if not arguments.only or t.name in arguments.only]
    common.header("Thresholds at half, once and twice their value", lenses=arguments.n, seed=arguments.seed)
    tasks, rows = tasks_for(chosen, arguments.n, arguments.seed), {}
    for found in fresh_processes(work, tasks, arguments.jobs):
        rows |= found
        print(found, file=sys.stderr, flush=True)  # a run takes hours
    usual = {t.what: rows[t.name, 1.0] for t in chosen if (t.name, 1.0) in rows and t.what in SEARCHES}
    lines = []
    for threshold in chosen:
        cells = [rows.get((threshold.name, factor), usual.get(threshold.what)) for factor in FACTORS]
        moved = "" if len(set(cells)) == 1 else "yes"
        place = Path(import_module(threshold.module).__file__).stem
        lines.append([threshold.name, place, threshold.what, f"{threshold.value:.3g}", *cells, moved])
    print(
        "Percent. Searches: right / ok / wrong and ok; verdicts: flags change, too.\n"
        "Masks: hidden of images / other objects / neither.\n"
    )
    common.table(["threshold", "file", "run", "value", "half", "as it is", "twice", "moves"], lines)


def fresh_processes(function, tasks, jobs):
    """Yield results, each from a process that has imported nothing for another task."""
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from multiprocessing import get_context

    from tqdm import tqdm

    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        futures = [pool.submit(function, *task) for task in tasks]
        for future in tqdm(as_completed(futures), total=len(futures), disable=None):
            yield future.result()


if __name__ == "__main__":
    main()
