"""Speed of deflection: lenssr beside lenstronomy and caustics, in one run on one thread, in float64.

Times are of the processor, so that waiting for it does not count. The codes take turns, so that whatever
else the machine does hits all of them; a time is the median over the rounds, a ratio the median of the ratios
within a round, with the lowest of them beside it. Compilation (numba) is not counted. A row of a code that
is not installed (caustics) is left out.

Freed memory is kept by the process (glibc), so that no code pays for new pages in some runs and not in
others; without that, codes that make many arrays, as lenstronomy does, take up to twice as long.

    python benchmarks/deflection.py [--points 1000000] [--rounds 9]
"""

import argparse
import ctypes
import importlib.util
import time
import warnings

import common  # first: it sets one thread
import numpy as np
import torch
from astropy.cosmology import FlatLambdaCDM
from lenstronomy.LensModel.lens_model import LensModel
from scipy.special import beta, gammaincinv

from lenssr.mass import (
    DPIE,
    EPL,
    NFW,
    SIE,
    CoredPowerLaw,
    EllipticalMultipole,
    EllipticalNFW,
    GaussianMass,
    MassSystem,
    MultiPlane,
    Multipole,
    SersicMass,
    Shear,
    TruncatedNFW,
)

SHAPE = {"e1": 0.12, "e2": -0.08}
CENTRE = {"center_x": 0.03, "center_y": -0.02}
AT = {"x_0": 0.03, "y_0": -0.02}
SIE_SHEAR = {"theta_E": 1.2, **SHAPE}
SHEAR = {"gamma1": 0.03, "gamma2": -0.02}
GAMMA, CORE, EDGE = 2.1, 0.1, 5.0
Z_SOURCE, REDSHIFTS = 2.0, (0.3, 0.5, 0.9)
OTHER = {"theta_E": 0.2, "e1": -0.1, "e2": 0.05}
# Numbers of glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
# What is compared, and the ratio that is asked for: of lenstronomy's families 2, where no other is named.
TARGETS = {
    ("SIE + shear", "caustics SIE"): 1.5,
    ("EPL + shear", "lenstronomy EPL"): 5.0,
}


def sersic(n):
    """A round Sérsic mass, and lenstronomy's with its approximation of b_n, for the same convergence."""
    exact, theirs = gammaincinv(2 * n, 0.5), 1.9992 * n - 0.3271
    kwargs = {"k_eff": 0.4 * np.exp(exact - theirs), "R_sersic": (theirs / exact) ** n, "n_sersic": n}
    return SersicMass(0.4, 1.0, n, **AT), {"SERSIC": kwargs}


def multipoles(m):
    """A round and an elliptical multipole, along the axes as lenstronomy's; its uniform shift may differ."""
    turn, q = {"a1": 0.05 * np.cos(0.3 * m), "a2": 0.05 * np.sin(0.3 * m)}, 0.7
    kwargs = {"m": m, "a_m": 0.05, "phi_m": 0.3}
    round_one = Multipole(m, **turn, **AT), {"MULTIPOLE": kwargs}
    flat = EllipticalMultipole(m, **turn, e1=(1 - q) / (1 + q), **AT)
    return round_one, (flat, {"MULTIPOLE_ELL": {**kwargs, "q": q}})


def families():
    """Our lens, and lenstronomy's by the name of its model, for each row."""
    nfw, core = {"Rs": 5.0, "alpha_Rs": 1.0}, {"theta_E": 1.2, "s_scale": CORE}
    (round_3, elliptical_3), (round_4, elliptical_4) = multipoles(3), multipoles(4)
    # Strengths of lenstronomy's Jaffe profile and power law.
    jaffe = 0.6 * (1 / CORE - 1 / EDGE)
    law = (3 - GAMMA) / 2 * (1.2 / CORE) ** (GAMMA - 1) / beta((GAMMA - 1) / 2, 0.5)
    return {
        "NFW": (NFW(5.0, 1.0, **AT), {"NFW": nfw}),
        "elliptical NFW": (EllipticalNFW(5.0, 1.0, **SHAPE, **AT), {"NFW_ELLIPSE_CSE": {**nfw, **SHAPE}}),
        "truncated NFW": (TruncatedNFW(5.0, 1.0, 10.0, **AT), {"TNFW": {**nfw, "r_trunc": 10.0}}),
        "dPIE, round": (DPIE(1.2, CORE, EDGE, **AT), {"PJAFFE": {"sigma0": jaffe, "Ra": CORE, "Rs": EDGE}}),
        "dPIE": (
            DPIE(1.2, CORE, EDGE, **SHAPE, **AT),
            {"NIE": {**core, **SHAPE}, "NIE ": {"theta_E": -1.2, "s_scale": EDGE, **SHAPE}},
        ),
        "cored law, round": (
            CoredPowerLaw(1.2, GAMMA, CORE, **AT),
            {"SPL_CORE": {"sigma0": law, "r_core": CORE, "gamma": GAMMA}},
        ),
        "cored law, 2": (CoredPowerLaw(1.2, 2.0, CORE, **SHAPE, **AT), {"NIE": {**core, **SHAPE}}),
        "cored law": (CoredPowerLaw(1.2, GAMMA, CORE, **SHAPE, **AT), {}),
        "Sérsic 1, round": sersic(1.0),
        "Sérsic 4, round": sersic(4.0),
        "Sérsic 4": (SersicMass(0.4, 1.0, 4.0, **SHAPE, **AT), {}),
        "multipole 3": round_3,
        "multipole 4": round_4,
        "ell. multipole 3": elliptical_3,
        "ell. multipole 4": elliptical_4,
        "Gaussian": (
            GaussianMass(0.5, 1.0, **SHAPE, **AT),
            {"GAUSSIAN_ELLIPSE_KAPPA": {"amp": np.pi, "sigma": 1.0, **SHAPE}},
        ),
    }


def with_shear():
    """SIE and EPL with shear, as above."""
    theirs = {"gamma1": 0.03, "gamma2": -0.02, "ra_0": 0.0, "dec_0": 0.0}
    epl = {**SIE_SHEAR, "gamma": GAMMA}
    return {
        "SIE + shear": (SIE(**SIE_SHEAR, **AT) + Shear(**SHEAR), {"SIE": SIE_SHEAR, "SHEAR": theirs}),
        "EPL + shear": (EPL(gamma=GAMMA, **SIE_SHEAR, **AT) + Shear(**SHEAR), {"EPL": epl, "SHEAR": theirs}),
    }


def lenstronomy(models, x, y, **planes):
    names = [name.strip() for name in models]
    lens = LensModel(names, **planes)
    pairs = zip(names, models.values(), strict=True)
    kwargs = [values if name == "SHEAR" else {**values, **CENTRE} for name, values in pairs]
    return lambda: lens.alpha(x, y, kwargs)


def caustics_sie(x, y):
    import caustics

    cosmology = caustics.FlatLambdaCDM()
    e = np.hypot(*SHAPE.values())
    numbers = {
        "x0": CENTRE["center_x"],
        "y0": CENTRE["center_y"],
        "q": (1 - e) / (1 + e),
        "phi": np.arctan2(SHAPE["e2"], SHAPE["e1"]) / 2,
        "Rein": SIE_SHEAR["theta_E"],
    }
    sie = caustics.SIE(cosmology, name="sie", **numbers)
    gammas = {"gamma_1": SHEAR["gamma1"], "gamma_2": SHEAR["gamma2"]}
    shear = caustics.ExternalShear(cosmology, x0=0.0, y0=0.0, name="shear", **gammas)
    lens = caustics.SinglePlane(cosmology, lenses=[sie, shear], z_l=0.5, z_s=1.0, name="lens")
    lens.to(dtype=torch.float64)
    return lambda: lens.reduced_deflection_angle(x, y)


def three_planes(x, y, tensors):
    """Three ellipsoids with shear at three redshifts, at one redshift, and lenstronomy's at three."""
    models = [
        SIE(**SIE_SHEAR, **AT) + Shear(**SHEAR),
        SIE(**OTHER, x_0=0.3) + Shear(**SHEAR),
        SIE(**OTHER, y_0=0.4) + Shear(**SHEAR),
    ]
    cosmology = FlatLambdaCDM(70, 0.3)
    planes = MultiPlane(list(zip(REDSHIFTS, models, strict=True)), Z_SOURCE, cosmology=cosmology)
    single = MassSystem(*models)
    shapes = [{**SIE_SHEAR, **CENTRE}, {**OTHER, "center_x": 0.3}, {**OTHER, "center_y": 0.4}]
    kwargs = [part for shape in shapes for part in (shape, SHEAR)]
    options = {"lens_redshift_list": [z for z in REDSHIFTS for _ in range(2)], "z_source": Z_SOURCE}
    with warnings.catch_warnings(action="ignore"):
        lens = LensModel(["SIE", "SHEAR"] * 3, multi_plane=True, cosmo=cosmology, **options)
    return {
        ("3 planes", "lenssr"): lambda: planes.deflection(*tensors),
        ("3 planes", "lenssr, one plane"): lambda: single.deflection(*tensors),
        ("3 planes", "lenstronomy"): lambda: lens.alpha(x, y, kwargs),
    }


def contenders(points):
    x, y = np.random.default_rng(0).uniform(-2.5, 2.5, size=(2, points))
    tensors = torch.from_numpy(x), torch.from_numpy(y)
    calls = {}
    for row, (ours, theirs) in {**with_shear(), **families()}.items():
        calls[row, "lenssr"] = lambda ours=ours: ours.deflection(*tensors)
        if row == "SIE + shear" and importlib.util.find_spec("caustics"):
            calls[row, "caustics SIE"] = caustics_sie(*tensors)
        if row == "EPL + shear":
            numba = {"EPL_NUMBA": theirs["EPL"], "SHEAR": theirs["SHEAR"]}
            calls[row, "lenstronomy EPL_NUMBA"] = lenstronomy(numba, x, y)
        if theirs:
            calls[row, f"lenstronomy {next(iter(theirs))}"] = lenstronomy(theirs, x, y)
    return {**calls, **three_planes(x, y, tensors)}


def target(key):
    """The ratio that is asked for."""
    return TARGETS.get(key, 2.0 if key[1].startswith("lenstronomy") else None)


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


def keep_memory():
    """Let malloc keep what is freed, and take arrays of up to 32 MB from that."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 32 << 20)
        mallopt(M_TRIM_THRESHOLD, 1 << 30)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    calls = contenders(arguments.points)
    differences = compare(calls)
    seconds = measure(calls, arguments.rounds)
    print(f"Deflection at {arguments.points} points, float64, one thread\n")
    rows = []
    for key, values in seconds.items():
        ratios = values / seconds[key[0], "lenssr"]
        asked = f"{target(key):.1f} x" if target(key) else ""
        faster = f"{np.median(ratios):.1f} x", f"{ratios.min():.1f} x", asked
        rows.append((*key, f"{np.median(values) * 1e3:.1f}", *faster, f'{differences[key]:.1e}"'))
    common.table(("model", "code", "ms", "lenssr is faster", "lowest", "to reach", "difference"), rows)


if __name__ == "__main__":
    main()
