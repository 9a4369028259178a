"""Speed of deflection: lenssr beside lenstronomy and caustics, in one run on one thread, in float64.

Times are of the processor, so that waiting for it does not count. The codes take turns, so that whatever
else the machine does hits all of them; a time is the median over the rounds, a ratio the median of the ratios
within a round, with the lowest of them beside it. Compilation (numba) is not counted.

    python benchmarks/deflection.py [--points 1000000] [--rounds 9]
"""

import argparse
import os
import time

# One thread for everybody; read when numpy and torch are imported.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[name] = "1"

import caustics
import numpy as np
import torch
from lenstronomy.LensModel.lens_model import LensModel

from lenssr.mass import EPL, SIE, Shear

LENS = {"theta_E": 1.2, "e1": 0.12, "e2": -0.08}
CENTRE = (0.03, -0.02)
SHEAR = {"gamma1": 0.03, "gamma2": -0.02}
GAMMA = 2.1
# what is compared, and the ratio that is asked for
TARGETS = {
    ("SIE + shear", "lenstronomy SIE"): 2.0,
    ("SIE + shear", "caustics SIE"): 1.5,
    ("EPL + shear", "lenstronomy EPL"): 5.0,
    ("EPL + shear", "lenstronomy EPL_NUMBA"): 2.0,
}


def lenstronomy(model, x, y, **extra):
    lens = LensModel([model, "SHEAR"])
    kwargs = [{**LENS, **extra, "center_x": CENTRE[0], "center_y": CENTRE[1]}, SHEAR]
    return lambda: lens.alpha(x, y, kwargs)


def caustics_sie(x, y):
    cosmology = caustics.FlatLambdaCDM()
    e = np.hypot(LENS["e1"], LENS["e2"])
    numbers = {
        "x0": CENTRE[0],
        "y0": CENTRE[1],
        "q": (1 - e) / (1 + e),
        "phi": np.arctan2(LENS["e2"], LENS["e1"]) / 2,
        "Rein": LENS["theta_E"],
    }
    sie = caustics.SIE(cosmology, name="sie", **numbers)
    gammas = {"gamma_1": SHEAR["gamma1"], "gamma_2": SHEAR["gamma2"]}
    shear = caustics.ExternalShear(cosmology, x0=0.0, y0=0.0, name="shear", **gammas)
    lens = caustics.SinglePlane(cosmology, lenses=[sie, shear], z_l=0.5, z_s=1.0, name="lens")
    lens.to(dtype=torch.float64)
    return lambda: lens.reduced_deflection_angle(x, y)


def contenders(points):
    x, y = np.random.default_rng(0).uniform(-2.5, 2.5, size=(2, points))
    tensors = torch.from_numpy(x), torch.from_numpy(y)
    ours = {
        "theta_E": LENS["theta_E"],
        "e1": LENS["e1"],
        "e2": LENS["e2"],
        "x_0": CENTRE[0],
        "y_0": CENTRE[1],
    }
    sie, epl = SIE(**ours) + Shear(**SHEAR), EPL(gamma=GAMMA, **ours) + Shear(**SHEAR)
    return {
        ("SIE + shear", "lenssr"): lambda: sie.deflection(*tensors),
        ("SIE + shear", "lenstronomy SIE"): lenstronomy("SIE", x, y),
        ("SIE + shear", "caustics SIE"): caustics_sie(*tensors),
        ("EPL + shear", "lenssr"): lambda: epl.deflection(*tensors),
        ("EPL + shear", "lenstronomy EPL"): lenstronomy("EPL", x, y, gamma=GAMMA),
        ("EPL + shear", "lenstronomy EPL_NUMBA"): lenstronomy("EPL_NUMBA", x, y, gamma=GAMMA),
    }


def compare(calls):
    """Largest difference of each result from lenssr's, in arcsec; also compiles what has to be."""
    results = {key: np.stack([np.asarray(a) for a in call()]) for key, call in calls.items()}
    return {key: np.abs(result - results[key[0], "lenssr"]).max() for key, result in results.items()}


def measure(calls, rounds):
    seconds = {key: [] for key in calls}
    for _ in range(rounds):
        for key, call in calls.items():
            start = time.process_time()
            call()
            seconds[key].append(time.process_time() - start)
    return {key: np.array(values) for key, values in seconds.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    calls = contenders(arguments.points)
    differences = compare(calls)
    seconds = measure(calls, arguments.rounds)
    print(f"Deflection at {arguments.points} points, float64, one thread\n")
    columns = f"{'lenssr is faster':>17} {'lowest':>8} {'to reach':>9} {'difference':>12}"
    print(f"{'model':<12} {'code':<22} {'ms':>8} {columns}")
    for key, values in seconds.items():
        ratios = values / seconds[key[0], "lenssr"]
        target = f"{TARGETS[key]:.1f} x" if key in TARGETS else ""
        print(
            f"{key[0]:<12} {key[1]:<22} {np.median(values) * 1e3:8.1f} {np.median(ratios):15.1f} x "
            f"{ratios.min():6.1f} x {target:>9} "
            f'{differences[key]:11.1e}"'
        )


if __name__ == "__main__":
    main()
