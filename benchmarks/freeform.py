"""How good the free-form source is, beside bicubic, Richardson-Lucy, the Sérsic, and each single prior.

T is the PSNR in dB against the noise-free truth in flux (see `lenssr.metrics`). Two kinds of data: the cells
of DeepLense Model I, whose sources are Sérsics; and lenses of real galaxies as two cameras see them
(`lenssr.simulation.GalaxyLenses`: shapes from the Hubble Deep Field as scikit-image has it, a stretched JPEG
good for shapes only). One pipeline gives all rows with `source="pixelated"`: prior and its strength are
chosen by the evidence, image by image; "chosen" says what it chose. The rows "prior ..." hold it to one.

"no PSF" and a width compare with the truth that is only integrated over the fine pixels, and with that behind
a Gaussian two fine pixels wide; elsewhere with that behind the telescope's PSF.

Richardson-Lucy is scikit-image's, on the low image, negative pixels set to zero; it ends at the first of some
numbers of iterations where the reduced chi2 is 1. Bicubic interpolation then makes it finer, and a
convolution brings it behind the PSF of the truth it is compared with. Without a PSF it has nothing to do.

"theta_E" is the share of the images whose Einstein radius is within 1 %. Seconds are of the processor, one
call an image, the median.

    python benchmarks/freeform.py [-n 50] [--cells "SIS clean" '0.1"'] [--seed 0] [--jobs 1] [--details]
"""

import collections
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import astropy.units as u
import common  # first: it sets one thread
import numpy as np
import torch

from lenssr import SuperResolver, metrics
from lenssr.imaging import PSF, Observation
from lenssr.imaging.operator import Convolution
from lenssr.simulation import GALAXY_CELLS, DeepLense, GalaxyLenses
from lenssr.source import PRIORS

SCALE = 2
ITERATIONS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100)
PSF_FREE = "pixel"


@dataclass(frozen=True)
class Method:
    """One row of a table.

    ``run(item, method)`` gives an image and the result it is from, or None where there is none.
    """

    name: str
    run: Callable
    settings: dict = field(default_factory=dict)
    known: bool | None = None  # whether it is given the lens; None if it needs none
    psf_out: str | None = None  # "pixel", "gaussian", or behind the telescope's
    every: int = 1  # of so many images it sees one


def gaussian(item):
    """Full width of the Gaussian that is two fine pixels wide."""
    return 2 * Observation.from_any(item.low).grid.pixel_scale / SCALE * u.arcsec


def truth_of(item, method):
    if method.psf_out is None:
        return item.truth.data
    return item.truth_behind(None if method.psf_out == PSF_FREE else gaussian(item)).data


def by_lenssr(item, method):
    settings = dict(method.settings)
    if item.psf is None:
        settings["oversampling"] = 1  # DeepLense samples at the pixels' centres
    if method.known:
        settings["lens"] = item.lens
    if method.psf_out is not None:
        settings["psf_out"] = PSF_FREE if method.psf_out == PSF_FREE else gaussian(item)
    result = SuperResolver(scale=SCALE, **settings)(item.low, **item.given)
    return result.image.data, result


def by_interpolation(item, method):
    return metrics.bicubic(item.low.data, SCALE), None


def by_richardson_lucy(item, method):
    from skimage.restoration import richardson_lucy

    observation = Observation.from_any(item.low, **item.given)
    grid = observation.grid
    kernel = item.psf.kernel(grid.pixel_scale)
    blur = Convolution(kernel, grid.shape)
    data = np.maximum(observation.data, 0.0)
    for iterations in ITERATIONS:
        sharp = richardson_lucy(data, kernel, num_iter=iterations, clip=False)
        model = blur(torch.as_tensor(sharp))
        mean, _, variance = observation.noise.moments(model.clamp_min(0))
        if float(((observation.data - mean.numpy()) ** 2 / variance.numpy()).mean()) <= 1:
            break
    fine = metrics.bicubic(sharp, SCALE)
    psf = {None: item.psf, PSF_FREE: None}.get(method.psf_out, PSF.from_any(gaussian(item)))
    if psf is not None:
        finer = grid.upsample(SCALE)
        fine = Convolution(psf.kernel(finer.pixel_scale), finer.shape)(torch.as_tensor(fine)).numpy()
    return fine, None


def baselines(psf_out=None, *, blurred=True):
    end = {None: "", PSF_FREE: ", no PSF", "gaussian": ", 2-pixel Gaussian"}[psf_out]
    yield Method(f"bicubic{end}", by_interpolation, psf_out=psf_out)
    if blurred:
        yield Method(f"Richardson-Lucy + bicubic{end}", by_richardson_lucy, psf_out=psf_out)


def fitted(name, source, known, **options):
    extra = {key: options.pop(key) for key in ("psf_out", "every") if key in options}
    return Method(name, by_lenssr, {"source": source, **options}, known, **extra)


def of_known_lens(slow=1):
    """Rows of every kind of cell; a prior whose matrix is dense takes one image of so many."""
    yield fitted("Sérsic, known lens", "sersic", True)
    yield fitted("pixelated, known lens", "pixelated", True)
    for prior in PRIORS:
        every = slow if prior == "matern32" else 1
        yield fitted(f"prior {prior}, known lens", "pixelated", True, prior=prior, every=every)
    yield fitted("perturbed Sérsic, known lens", "perturbed_sersic", True)
    yield fitted("auto, known lens", "auto", True)


DEEP_LENSE = (
    *baselines(blurred=False),
    *of_known_lens(slow=5),  # without a PSF all others are banded
    fitted("Sérsic, unknown lens", "sersic", False),
    fitted("pixelated, unknown lens", "pixelated", False),
    fitted("perturbed Sérsic, unknown lens", "perturbed_sersic", False),
    fitted("auto, unknown lens", "auto", False),
)
REAL = (
    *baselines(),
    *of_known_lens(),
    fitted("Sérsic, unknown lens", "sersic", False),
    fitted("pixelated, unknown lens", "pixelated", False),
    *baselines(PSF_FREE),
    fitted("pixelated, known lens, no PSF", "pixelated", True, psf_out=PSF_FREE),
    *baselines("gaussian"),
    fitted("pixelated, known lens, 2-pixel Gaussian", "pixelated", True, psf_out="gaussian"),
)
KINDS = {
    "DeepLense": {
        name: (lambda size, seed, options=options: DeepLense(**options, size=size, seed=seed, scale=SCALE))
        for name, options in common.deep_lense_cells().items()
    },
    "Real shapes": {
        name: (lambda size, seed, options=options: GalaxyLenses(size=size, seed=seed, scale=SCALE, **options))
        for name, options in GALAXY_CELLS.items()
    },
}
METHODS = {"DeepLense": DEEP_LENSE, "Real shapes": REAL}
# Mean T to reach, and share of Einstein radii within 1 %.
KNOWN, UNKNOWN = "pixelated, known lens", "pixelated, unknown lens"
TARGETS = {
    **{(f"{lens} clean", KNOWN): (48.8, None) for lens in ("SIS", "SIE")},
    **{(f"{lens} noisy", KNOWN): (44.8, None) for lens in ("SIS", "SIE")},
    **{(f"{lens} clean", UNKNOWN): (48.0, 0.98) for lens in ("SIS", "SIE")},
    **{(f"{lens} noisy", UNKNOWN): (44.0, 0.98) for lens in ("SIS", "SIE")},
    ('0.05"', KNOWN): (44.5, None),
    ('0.1"', KNOWN): (45.5, None),
    ('0.05"', UNKNOWN): (42.5, None),
    ('0.1"', UNKNOWN): (43.0, None),
    ('0.05"', f"{KNOWN}, no PSF"): (38.0, None),
    ('0.1"', f"{KNOWN}, no PSF"): (36.5, None),
}


@dataclass(frozen=True)
class Score:
    """What one method made of one image."""

    t: metrics.Scores
    seconds: float
    right: bool | None = None
    ok: bool | None = None
    chosen: str = ""
    words: str = ""


def score(cell, number, seed, index, methods=None):
    """Scores of one image of a cell by all methods, or by those named; None where one takes no part."""
    kind = kind_of(cell)
    item = KINDS[kind][cell](number, seed)[index]
    found = {}
    for method in METHODS[kind]:
        if index % method.every == 0 and (methods is None or method.name in methods):
            try:
                found[method.name] = _score(item, method)
            except Exception as error:  # noqa: BLE001 - the column "images" and this line tell of it
                print(f"FAILED: {cell} {index}, {method.name}: {type(error).__name__}: {error}", flush=True)
    return found


def kind_of(cell):
    return next(kind for kind, cells in KINDS.items() if cell in cells)


def _score(item, method):
    start = time.process_time()
    image, result = method.run(item, method)
    seconds = time.process_time() - start
    t = metrics.scores_t(image, truth_of(item, method))
    if result is None:
        return Score(t, seconds)
    offset = result.lens.theta_E.value / item.lens.theta_E.value - 1
    words = f"{item.index:4} T {t.psnr:.2f} theta_E {offset:+.2%} {chosen(result)} {result.flags}"
    right = None if method.known else abs(offset) < common.WITHIN
    return Score(t, seconds, right, result.ok, chosen(result), f"{words} {common.numbers_of(result)}")


def chosen(result):
    """What the evidence chose: the source where it had the choice, and the prior."""
    if "candidates" not in result.meta:
        return ""
    if result.meta["source"] != "auto":
        return result.meta["prior"]
    source, prior, _ = max(result.meta["candidates"], key=lambda candidate: candidate[2])
    return f"{source}, {prior}" if prior else source


def row(cell, name, scores):
    summary = metrics.summarize([each.t.psnr for each in scores])
    bar, share = TARGETS.get((cell, name), (None, None))
    right = [each.right for each in scores if each.right is not None]
    ok = [each.ok for each in scores if each.ok is not None]
    met = "" if bar is None else "yes" if summary.mean >= bar else "NO"
    if share is not None and np.mean(right) < share:
        met = "NO"
    return (
        cell,
        name,
        len(scores),
        f"{summary.mean:.2f}"
        + ("" if math.isnan(summary.standard_error) else f" ± {summary.standard_error:.2f}"),
        f"{summary.worst:.2f}",
        "" if bar is None else f">= {bar}",
        met,
        f"{np.mean([each.t.ssim for each in scores]):.4f}",
        f"{np.mean(right):.0%}" if right else "",
        f"{np.mean(ok):.0%}" if ok else "",
        f"{np.median([each.seconds for each in scores]):.2f}",
    )


def choices(found):
    """Rows that count what the evidence chose."""
    for (cell, name), scores in found.items():
        counts = collections.Counter(each.chosen for each in scores if each.chosen)
        if counts and not name.startswith("prior "):
            yield cell, name, ", ".join(f"{count} {what}" for what, count in counts.most_common())


def tables(kind, found):
    columns = ["cell", "method", "images", "T (dB)", "worst", "to reach", "met"]
    columns += ["SSIM", "theta_E", "ok", "seconds"]
    print(f"{kind}\n")
    common.table(columns, [row(cell, name, scores) for (cell, name), scores in found.items()])
    common.table(["cell", "method", "the evidence chose"], list(choices(found)))


def gathered(cells, number, seed, jobs, methods):
    """Scores by cell and method, in the order of the tables."""
    tasks = [(cell, number, seed, index, methods) for cell, index in itertools.product(cells, range(number))]
    found = {}
    for (cell, *_), scores in zip(tasks, common.in_processes(score, tasks, jobs), strict=True):
        for name, each in scores.items():
            found.setdefault((cell, name), []).append(each)
    return found


def main():
    parser = common.parser_of(__doc__, 50, "images of a cell", 0)
    every = [cell for cells in KINDS.values() for cell in cells]
    parser.add_argument("--cells", nargs="+", choices=every, default=every)
    names = list(dict.fromkeys(method.name for methods in METHODS.values() for method in methods))
    parser.add_argument(
        "--methods", nargs="+", choices=names, default=names, metavar="NAME", help="only these"
    )
    parser.add_argument("--details", action="store_true", help="list flagged images with their measures")
    arguments = parser.parse_args()
    common.header("The free-form source", seed=arguments.seed, scale=SCALE)
    for kind, cells in KINDS.items():
        asked = [cell for cell in cells if cell in arguments.cells]
        if not asked:
            continue
        found = gathered(asked, arguments.n, arguments.seed, arguments.jobs, arguments.methods)
        tables(kind, found)
        for (cell, name), scores in found.items() if arguments.details else ():
            for each in scores:
                if each.ok is False or each.right is False:
                    print(f"{cell}, {name}: {each.words}")


if __name__ == "__main__":
    main()
