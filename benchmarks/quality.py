"""How good the images are: T, M and the Cramér-Rao bound beside bicubic interpolation and the oracle.

T is the PSNR in dB against the noise-free truth in flux, M the score of the original LensSR test (see
`lenssr.metrics`). The cells are DeepLense Model I with an SIS or SIE lens, clean or noisy; the last one
is 100 mixed lenses (`lenssr.simulation.LensPopulation`), half of them with lens light, the lens unknown.

The bound is that of the parameters at the truth, carried to the fine pixels: with the Fisher matrix
F = J^T W J of the low image and the derivatives G of the N fine pixels, the mean squared error of an unbiased
estimate is at least trace(G F^-1 G^T) / N. "bound" is the PSNR of that; "efficient" is the mean PSNR of an
estimate that reaches it with normal errors, somewhat higher since T averages logarithms: that is the number
to compare T with.

    python benchmarks/quality.py [-n 50] [--cells "SIS clean" mixed] [--seed 0] [--jobs 1] [--details]
"""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass

import common
import numpy as np
import torch

from lenssr import metrics
from lenssr.imaging import GaussianNoise, Observation
from lenssr.model.image_stack import ImageStack
from lenssr.model.scene import Scene
from lenssr.simulation import DeepLense, LensPopulation

CHUNK = 10
SCALE = 2
MIXED = "mixed"
SERSIC = {"source": "sersic"}


@dataclass(frozen=True)
class Method:
    """One row of the tables: its name, the settings of its resolver for an item, whether there is a bound."""

    name: str
    settings: Callable
    lens: Callable | None = None  # the lens of the fit at the truth, for the bound


BICUBIC = Method("bicubic", lambda item: {"source": "interpolation"})
KNOWN = Method(
    "Sérsic, known lens", lambda item: SERSIC | {"lens": item.lens, "oversampling": 1}, lambda item: item.lens
)
UNKNOWN = Method(
    "Sérsic, unknown SIE + shear",
    lambda item: SERSIC | {"oversampling": 1},
    lambda item: common.as_fitted(item.lens),
)
FREE = Method("Sérsic, unknown SIE + shear", lambda item: SERSIC)


@dataclass(frozen=True)
class Cell:
    """One data set, and what is tried on it."""

    dataset: Callable
    methods: tuple
    number: int | None = None  # fixed, whatever -n says


CELLS = {
    name: Cell(
        lambda size, seed, options=options: DeepLense(**options, size=size, seed=seed, scale=SCALE),
        (BICUBIC, KNOWN, UNKNOWN),
    )
    for name, options in common.deep_lense_cells().items()
} | {MIXED: Cell(lambda size, seed: LensPopulation(size, seed, scale=SCALE), (BICUBIC, FREE), 100)}


@dataclass(frozen=True)
class Score:
    """What one method made of one image."""

    t: metrics.Scores
    m: metrics.Scores
    oracle: metrics.Scores
    right: bool
    ok: bool
    bound: float
    efficient: float
    words: str


def score(cell, row, size, seed, start, stop):
    """Scores of some images of a cell by one of its methods; None where there is no result."""
    dataset, method = CELLS[cell].dataset(size, seed), CELLS[cell].methods[row]
    items = [dataset[i] for i in range(start, stop)]
    cases = [(item.low, item.given, {"scale": SCALE, **method.settings(item)}) for item in items]
    return [_score(method, item, result) for item, result in zip(items, common.resolve(cases), strict=True)]


def _score(method, item, result):
    if not result:
        return None
    image, truth, high = result.image.data, item.truth.data, item.high.data
    fitted = result.lens is not None
    bound, efficient = (math.nan, math.nan) if method.lens is None else cramer_rao(item, method.lens(item))
    return Score(
        t=metrics.scores_t(image, truth),
        m=metrics.scores_m(image, high),
        oracle=metrics.oracle(truth, high),
        right=common.right_lens(result, item) if fitted else True,
        ok=result.ok,
        bound=bound,
        efficient=efficient,
        words=f"{item.index:4} flags {result.flags} {_lens_words(result, item)} {common.numbers_of(result)}",
    )


def _lens_words(result, item):
    if result.lens is None:
        return ""
    return f"theta_E {result.lens.theta_E.value:.4f} instead of {item.lens.theta_E.value:.4f}"


def cramer_rao(item, lens):
    """PSNR of the bound, and the mean PSNR of normal errors that reach it.

    Parameters
    ----------
    item : `~lenssr.simulation.SimulatedLens`
        Without PSF or lens light, sampled at pixel centres.
    lens : `~lenssr.mass.MassModel`
        The lens with its true values; free unless it is the item's own.
    """
    free = lens is not item.lens
    observation = Observation.from_any(item.low, **item.given)
    extent = 0.5 * max(observation.grid.shape) * observation.grid.pixel_scale
    scene = Scene(lens=lens, lens_free=free, lens_light=0, sky=True, extent=extent)
    vector = torch.cat([lens.vector, item.source.vector, torch.zeros(1)])[None]
    low = _derivatives(scene, vector, observation.grid, observation.noise, item.low_truth.data, free)
    curvature = low @ low.mT
    unit_noise = GaussianNoise(1.0)
    fine = _derivatives(scene, vector, observation.grid.upsample(SCALE), unit_noise, item.truth.data, False)
    fine[-1] /= SCALE**2  # the sky of an input pixel, shared by its parts
    # Errors z of unit variance make the mean squared error sum(spread z^2).
    root = torch.linalg.inv(torch.linalg.cholesky(curvature))
    spread = torch.linalg.eigvalsh(root @ (fine @ fine.mT / fine.shape[1]) @ root.mT).clamp_min(0).numpy()
    draws = np.random.default_rng(0).chisquare(1, (10_000, len(spread))) @ spread
    peak = 20 * math.log10(item.truth.data.max())
    return peak - 10 * math.log10(spread.sum()), peak - 10 * float(np.log10(draws).mean())


def _derivatives(scene, vector, grid, noise, truth, hide_centre):
    """Derivatives (F, N) of the expected data by the fit vector, over the true errors."""
    stack = ImageStack(truth[None], np.ones((1, *truth.shape), bool), [noise], grid, None, oversampling=1)
    jacobian = stack.model(scene, vector)(scene.to_fit(vector), torch.arange(1))[1][0]
    weight = stack.weights(torch.as_tensor(truth).reshape(1, -1))[0]
    if hide_centre:  # as the fit does: a pixel on a lens that moves
        weight = weight * torch.as_tensor(np.hypot(grid.x, grid.y).ravel() > 1.4 * grid.pixel_scale)
    return jacobian * weight.sqrt()


def plus_minus(values, digits=2):
    summary = metrics.summarize(values)
    return f"{summary.mean:.{digits}f} ± {summary.standard_error:.{digits}f}"


def t_row(cell, name, scores):
    psnr = [each.t.psnr for each in scores]
    worst = metrics.summarize(psnr)
    has_lens = name != BICUBIC.name
    has_bound = not math.isnan(scores[0].bound)
    return (
        cell,
        name,
        len(scores),
        plus_minus(psnr),
        f"{worst.worst:.2f}",
        f"{np.mean([each.t.ssim for each in scores]):.5f}",
        f"{np.mean([each.bound for each in scores]):.2f}" if has_bound else "",
        f"{np.mean([each.efficient for each in scores]):.2f}" if has_bound else "",
        f"{np.mean([each.right for each in scores]):.0%}" if has_lens else "",
        f"{np.mean([each.ok for each in scores]):.0%}" if has_lens else "",
    )


def m_row(cell, name, scores):
    psnr, ssim = [each.psnr for each in scores], [each.ssim for each in scores]
    mse = [each.mse for each in scores]
    return cell, name, f"{np.mean(mse):.3e}", plus_minus(psnr), f"{min(psnr):.2f}", plus_minus(ssim, 3)


def t_table(found):
    rows = [t_row(cell, name, scores) for (cell, name), scores in found.items()]
    columns = ["cell", "method", "images", "T (dB)", "worst", "SSIM", "bound", "efficient", "right", "ok"]
    common.table(columns, rows)


def m_table(found):
    rows, last = [], {}
    for (cell, name), scores in found.items():
        last[cell] = scores
        oracle = m_row(cell, "", [each.oracle for each in scores])
        row = m_row(cell, name, [each.m for each in scores])
        gap = (
            np.mean([each.m.psnr - each.oracle.psnr for each in scores]),
            np.mean([each.m.ssim - each.oracle.ssim for each in scores]),
        )
        rows.append((*row, f"{gap[0]:+.2f}", f"{gap[1]:+.3f}"))
        if name == CELLS[cell].methods[-1].name:
            rows.append((cell, "oracle", *oracle[2:], "", ""))
    columns = ["cell", "method", "MSE", "M (dB)", "worst", "SSIM", "to oracle (dB)", "SSIM to oracle"]
    common.table(columns, rows)


def mixed_table(scores, failed):
    rest = [each for each in scores if not each.right]
    right = [each for each in scores if each.right]
    total = len(scores) + failed
    common.table(
        ["mixed lenses", "number", "share"],
        [
            ("all", total, ""),
            ("right: theta_E within 1 %, chi2 fine", len(right), f"{len(right) / total:.0%}"),
            ("wrong and flagged", failed + sum(not e.ok for e in rest), ""),
            ("wrong and not flagged", sum(e.ok for e in rest), ""),
            ("right but flagged", sum(not e.ok for e in right), f"{np.mean([not e.ok for e in right]):.0%}"),
        ],
    )


def main():
    parser = common.parser_of(__doc__, 50, "images of a DeepLense cell", 0)
    parser.add_argument("--mixed", type=int, default=CELLS[MIXED].number, help="mixed lenses")
    parser.add_argument("--cells", nargs="+", choices=list(CELLS), default=list(CELLS))
    parser.add_argument("--details", action="store_true", help="list the wrong and the flagged")
    arguments = parser.parse_args()
    common.header("Quality of the super-resolved images", seed=arguments.seed, scale=SCALE)
    tasks = []
    for cell in arguments.cells:
        size = arguments.mixed if cell == MIXED else arguments.n
        for row in range(len(CELLS[cell].methods)):
            chunks = range(0, size, CHUNK)
            tasks += [(cell, row, size, arguments.seed, i, min(i + CHUNK, size)) for i in chunks]
    found = {}
    for task, scores in zip(tasks, common.in_processes(score, tasks, arguments.jobs), strict=True):
        key = task[0], CELLS[task[0]].methods[task[1]].name
        found.setdefault(key, []).extend(scores)
        for each in scores if arguments.details else ():
            if each is not None and not (each.right and each.ok):
                print(*key, each.words, file=sys.stderr, flush=True)
    failed = {key: sum(each is None for each in scores) for key, scores in found.items()}
    found = {key: [each for each in scores if each is not None] for key, scores in found.items()}
    t_table(found)
    m_table({key: scores for key, scores in found.items() if key[0] != MIXED})
    if MIXED in arguments.cells:
        mixed_table(found[MIXED, FREE.name], failed[MIXED, FREE.name])


if __name__ == "__main__":
    main()
