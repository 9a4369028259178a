"""Whether the slope of a lens is found with a free-form source and all else free.

Real galaxies as two cameras see them (`lenssr.simulation.GalaxyLenses`), behind elliptical power laws whose
slope is uniform in 1.85 to 2.15. Each lens is refined with `source="pixelated"` from a round isothermal one
without shear; its Einstein radius begins half a percent off. A pull is (found - true) / error.

    python benchmarks/slope.py [-n 20] [--seed 5] [--jobs 1] [--details]
"""

import common  # first: it sets one thread
import numpy as np

from lenssr import EPL, Shear, SuperResolver
from lenssr.simulation import GALAXY_CELLS, GalaxyLenses

SLOPES = (1.85, 2.15)
OFFSET = 1.005
# Largest rms of the pulls of the slope, and their mean in errors of a lens.
TARGET = (1.3, 0.5)


class SlopedLenses(GalaxyLenses):
    """Real galaxies behind power laws."""

    def _draw_lens(self, rng):
        sie, shear = super()._draw_lens(rng)
        theta_E, *shape = (float(sie.vector[k]) for k in range(5))
        return EPL(theta_E, rng.uniform(*SLOPES), *shape) + shear


def measure(cell, number, seed, i):
    """Pulls of the free parameters by name, the offset of the slope, and its error."""
    item = SlopedLenses(size=number, seed=seed, **GALAXY_CELLS[cell])[i]
    start = EPL(item.lens.theta_E.value * OFFSET, 2.0) + Shear(0.0, 0.0)
    result = SuperResolver(source="pixelated", lens=start, fit_lens=True)(item.low, **item.given)
    true = dict(zip(item.lens.param_names, item.lens.vector.tolist(), strict=True)) | {"sky": 0.0}
    rows = [row for row in result.parameters if not row["fixed"]]
    pulls = {row["name"]: (row["value"] - true[row["name"]]) / row["error"] for row in rows}
    slope = next(row for row in rows if row["name"] == "gamma_0")
    return pulls, slope["value"] - true["gamma_0"], slope["error"], result.flags


def main():
    parser = common.parser_of(__doc__, 20, "lenses a cell", 5)
    parser.add_argument("--details", action="store_true", help="print every lens")
    arguments = parser.parse_args()
    number, seed = arguments.n, arguments.seed
    common.header("Slopes refined with a free-form source and all else free", lenses=number, seed=seed)
    rows = []
    for cell in GALAXY_CELLS:
        tasks = [(cell, number, seed, i) for i in range(number)]
        found = list(common.in_processes(measure, tasks, arguments.jobs))
        if arguments.details:
            for pulls, offset, error, flags in found:
                words = ", ".join(f"{name} {pull:+.1f}" for name, pull in pulls.items())
                print(f"slope off by {offset:+.3f} +- {error:.3f}; pulls {words} {flags}")
        rows += [row(cell, name, found) for name in found[0][0]]
    common.table(["pixels", "parameter", "rms of pulls", "mean pull", "median pull", "reached"], rows)


def row(cell, name, found):
    pulls = np.array([each[0][name] for each in found])
    rms, mean = np.sqrt((pulls**2).mean()), pulls.mean()
    error = pulls.std(ddof=1) / np.sqrt(len(pulls))
    reached = ""
    if name == "gamma_0":
        reached = "yes" if rms < TARGET[0] and abs(mean) < TARGET[1] else "NO"
        offset, error_of_one = np.mean([each[1] for each in found]), np.median([each[2] for each in found])
        name = f"gamma (mean offset {offset:+.3f}, median error {error_of_one:.3f})"
    return cell, name, f"{rms:.2f}", f"{mean:+.2f} ± {error:.2f}", f"{np.median(pulls):+.2f}", reached


if __name__ == "__main__":
    main()
