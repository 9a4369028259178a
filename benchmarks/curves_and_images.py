"""Curves and images of random lenses: lenssr beside a brute-force search and lenstronomy, on one thread.

Sources lie anywhere inside the caustics, or within 10 mas of a fold or of a cusp. The search by brute force
maps triangles of 1 mas, and around each centre triangles in ln(r) and angle down to 1e-7 arcsec, and polishes
what they hold. Pairs closer than 3 mas, which triangles may lose, and images within 1e-7 arcsec of a centre,
are not judged.
"""

import math
import time
from dataclasses import dataclass

import common  # first: it sets one thread
import numpy as np
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LensModel.lens_model_extensions import LensModelExtensions
from lenstronomy.LensModel.Solver.lens_equation_solver import LensEquationSolver

from lenssr import EPL, NFW, SIE, SIS, ConvergenceSheet, PointMass, Shear
from lenssr.exceptions import InputError
from lenssr.mass import MassSystem

MAS = 1e-3
KINDS = ("SIE", "EPL", "NFW", "satellites", "group", "saddle")
# Corners of a cell in turn.
CORNERS_X, CORNERS_Y = [[0], [1], [1], [0]], [[0], [0], [1], [1]]
PLACES = ("anywhere", "near a fold", "near a cusp")
# Names and parameters of the same models in lenstronomy.
THEIRS = {
    SIS: ("SIS", {"theta_E": "theta_E", "x_0": "center_x", "y_0": "center_y"}),
    SIE: ("SIE", {"theta_E": "theta_E", "e1": "e1", "e2": "e2", "x_0": "center_x", "y_0": "center_y"}),
    EPL: (
        "EPL",
        {
            "theta_E": "theta_E",
            "gamma": "gamma",
            "e1": "e1",
            "e2": "e2",
            "x_0": "center_x",
            "y_0": "center_y",
        },
    ),
    NFW: ("NFW", {"r_s": "Rs", "alpha_rs": "alpha_Rs", "x_0": "center_x", "y_0": "center_y"}),
    PointMass: ("POINT_MASS", {"theta_E": "theta_E", "x_0": "center_x", "y_0": "center_y"}),
    Shear: ("SHEAR", {"gamma1": "gamma1", "gamma2": "gamma2"}),
    ConvergenceSheet: ("CONVERGENCE", {"kappa": "kappa"}),
}


# ---------------------------------------------------------------- lenses and sources


def random_lens(rng, kind):
    """A lens of a kind, with a shear."""
    modulus, angle = rng.uniform(0, 0.25), rng.uniform(0, 2 * np.pi)
    e1, e2 = modulus * np.cos(angle), modulus * np.sin(angle)
    x_0, y_0 = rng.normal(0, 0.05, 2)
    shear = Shear(*rng.normal(0, 0.04, 2))
    theta_E = rng.uniform(0.5, 1.6)
    if kind == "EPL":
        return EPL(theta_E, rng.uniform(1.6, 2.4), e1, e2, x_0, y_0) + shear
    if kind == "NFW":
        return NFW(rng.uniform(3, 8), rng.uniform(2.5, 4), x_0, y_0) + shear
    if kind == "saddle":
        kappa = rng.uniform(0, 0.6)
        gamma = 1 - kappa + rng.uniform(0.05, 0.6)
        angle = rng.uniform(0, 2 * np.pi)
        strong = Shear(gamma * np.cos(angle), gamma * np.sin(angle))
        mass = PointMass(theta_E, x_0, y_0) if rng.random() < 0.5 else SIE(theta_E, e1, e2, x_0, y_0)
        return mass + strong + ConvergenceSheet(kappa)
    if kind == "group":
        number = rng.integers(3, 7)
        places = rng.normal(0, 1.2, (number, 2))
        return MassSystem(*(SIE(rng.uniform(0.15, 0.7), e1, -e2, *place) for place in places), shear)
    lens = SIE(theta_E, e1, e2, x_0, y_0) + shear
    if kind == "satellites":
        for _ in range(rng.integers(1, 4)):
            radius, angle = rng.uniform(0.3, 2.5) * theta_E, rng.uniform(0, 2 * np.pi)
            small = 10 ** rng.uniform(-2.5, -0.7)
            lens = lens + SIS(small, radius * np.cos(angle), radius * np.sin(angle))
    return lens


def random_source(rng, lens, place):
    """A position inside the caustics, or within 10 mas of a fold, or of a cusp; and all caustics."""
    caustics = lens.caustics()
    cuts = lens.pseudo_caustics()
    sizes = [np.hypot(np.ptp(x), np.ptp(y)) for x, y in caustics + cuts]
    if place == "anywhere" or max((size for size, _ in zip(sizes, caustics, strict=False)), default=0) < 1e-3:
        x, y = (caustics + cuts)[int(np.argmax(sizes))] if sizes else (np.zeros(1), np.zeros(1))
        half = max(np.ptp(x), np.ptp(y), 0.3) / 2
        return x.mean() + rng.uniform(-half, half), y.mean() + rng.uniform(-half, half)
    chosen = [c for c, size in zip(caustics, sizes, strict=False) if size > 1e-3]
    x, y = chosen[rng.integers(len(chosen))]
    k = rng.integers(len(x) - 1)
    if place == "near a cusp":
        steps = np.hypot(np.diff(x), np.diff(y)) / np.maximum(curve_steps(lens, x, y), 1e-12)
        cusps = np.flatnonzero((steps < np.roll(steps, 1)) & (steps <= np.roll(steps, -1)))
        k = rng.choice(cusps) if len(cusps) else k
    distance, angle = 10 ** rng.uniform(-4, -2), rng.uniform(0, 2 * np.pi)
    return x[k] + distance * np.cos(angle), y[k] + distance * np.sin(angle)


def curve_steps(lens, x, y):
    """Lengths along the critical curve of a caustic's points; ones if it is not found again."""
    for (px, py), (bx, by) in zip(lens.critical_curves(), lens.caustics(), strict=True):
        if len(bx) == len(x) and bx[0] == x[0] and by[0] == y[0]:
            return np.hypot(np.diff(px), np.diff(py))
    return np.ones(len(x) - 1)


def in_lenstronomy(lens):
    """The same lens as a `LensModel` and its arguments."""
    names, arguments = [], []
    for component in lens:
        name, words = THEIRS[type(component)]
        names.append(name)
        arguments.append({theirs: float(getattr(component, ours)) for ours, theirs in words.items()})
    return LensModel(names), arguments


# ---------------------------------------------------------------- brute force


def landed(lens, x, y, source):
    """Where rays land, from the source."""
    ax, ay = lens.deflection(x, y)
    return x - ax - source[0], y - ay - source[1]


def half_width(lens, source):
    """Half a field with room for all images: beyond it rays land further out than the source is."""
    angle = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    reach = max(math.hypot(*centre) for centre in lens._centres())
    for half in (reach + 0.5) * 1.2 ** np.arange(40):
        r = half * np.array([1.0, 1.3, 2.0, 4.0])[:, None]
        bx, by = landed(lens, r * np.cos(angle), r * np.sin(angle), (0.0, 0.0))
        if (np.hypot(bx, by) > 1.5 * math.hypot(*source) + 0.1).all() and (
            np.diff(np.hypot(bx, by), axis=0) > 0
        ).all():
            return 1.3 * half
    return half


def brute_force(lens, source):
    """Images by triangles of 1 mas, and finer ones within 30 mas of the centres, polished."""
    guesses = [*_square_triangles(lens, source), *_polar_triangles(lens, source)]
    x, y = (np.concatenate(c) for c in zip(*guesses, strict=True))
    return _newton(lens, x, y, source)


def _square_triangles(lens, source):
    half, size = half_width(lens, source), 64 * MAS
    number = math.ceil(half / size)
    x, y = (c.ravel() * size for c in np.meshgrid(np.arange(-number, number), np.arange(-number, number)))
    while True:
        # Cells that may reach the source, with a bound of twice the largest gradient at its corners.
        corners_x, corners_y = x + size * np.array(CORNERS_X), y + size * np.array(CORNERS_Y)
        if size <= MAS * 1.001:
            return [_inside(lens, corners_x, corners_y, source)]
        matrix = lens.jacobian(np.vstack((corners_x, x + size / 2)), np.vstack((corners_y, y + size / 2)))
        gradient = np.abs(matrix).sum(axis=(-1, -2)).max(axis=0)
        bx, by = landed(lens, x + size / 2, y + size / 2, source)
        keep = np.hypot(bx, by) < 2 * gradient * size
        for x_0, y_0 in lens._centres():
            keep |= np.hypot(x + size / 2 - x_0, y + size / 2 - y_0) < 2 * size
        size /= 4
        shift_x, shift_y = (c.ravel()[:, None] * size for c in np.meshgrid(np.arange(4), np.arange(4)))
        x, y = (x[keep] + shift_x).ravel(), (y[keep] + shift_y).ravel()


def _polar_triangles(lens, source):
    """As on squares, in ln(r) and angle; cells that may hold the source are divided into 8 x 24."""
    found = []
    log_r, angle = np.linspace(math.log(1e-7), math.log(0.03), 41), np.linspace(0, 2 * np.pi, 61)
    step, turn = log_r[1] - log_r[0], angle[1] - angle[0]
    u, v = (c.ravel() for c in np.meshgrid(log_r[:-1], angle[:-1]))
    for x_0, y_0 in lens._centres():

        def place(u, v, x_0=x_0, y_0=y_0):
            return x_0 + np.exp(u) * np.cos(v), y_0 + np.exp(u) * np.sin(v)

        bx, by = landed(lens, *place(u + step * np.array(CORNERS_X), v + turn * np.array(CORNERS_Y)), source)
        middle_x, middle_y = landed(lens, *place(u + step / 2, v + turn / 2), source)
        reach = np.hypot(bx - middle_x, by - middle_y).max(axis=0)
        keep = np.hypot(middle_x, middle_y) < 2 * reach
        part_u, part_v = (c.ravel()[:, None] for c in np.meshgrid(np.arange(8) / 8, np.arange(24) / 24))
        fine_u, fine_v = (u[keep] + step * part_u).ravel(), (v[keep] + turn * part_v).ravel()
        corners = place(fine_u + step / 8 * np.array(CORNERS_X), fine_v + turn / 24 * np.array(CORNERS_Y))
        found.append(_inside(lens, *corners, source))
    return found


def _inside(lens, x, y, source):
    """Middles of the triangles, two a cell, that hold the source."""
    bx, by = landed(lens, x, y, source)
    found_x, found_y = [], []
    for corners in ([0, 1, 2], [0, 2, 3], [0, 1, 3], [1, 2, 3]):
        px, py = bx[corners], by[corners]
        turns = np.stack([px[k - 2] * py[k - 1] - px[k - 1] * py[k - 2] for k in range(3)])
        inside = (turns >= 0).all(axis=0) | (turns <= 0).all(axis=0)
        found_x.append(x[corners][:, inside].mean(axis=0))
        found_y.append(y[corners][:, inside].mean(axis=0))
    return np.concatenate(found_x), np.concatenate(found_y)


def _newton(lens, x, y, source):
    """Solutions near guesses, each once; steps are up to a tenth of the way to the next centre, and 1 mas."""
    centres = np.array(lens._centres())
    for _ in range(200):
        bx, by = landed(lens, x, y, source)
        matrix = lens.jacobian(x, y)
        xx, xy, yx, yy = matrix[:, 0, 0], matrix[:, 0, 1], matrix[:, 1, 0], matrix[:, 1, 1]
        determinant = xx * yy - xy * yx
        determinant = np.where(np.abs(determinant) < 1e-12, 1e-12, determinant)
        dx, dy = -(yy * bx - xy * by) / determinant, -(xx * by - yx * bx) / determinant
        near = np.hypot(x[:, None] - centres[:, 0], y[:, None] - centres[:, 1]).min(axis=1)
        shorten = np.minimum(1, np.minimum(MAS, 0.1 * near + 1e-9) / np.maximum(np.hypot(dx, dy), 1e-300))
        x, y = x + shorten * dx, y + shorten * dy
        if np.hypot(dx, dy).max(initial=0) < 1e-13:
            break
    bx, by = landed(lens, x, y, source)
    good = (np.hypot(bx, by) < 1e-11) & (np.hypot(dx, dy) < 1e-8)
    found = []
    for px, py in zip(x[good], y[good], strict=True):
        if near_centre(lens, px, py) > 1e-7 and all(math.hypot(px - qx, py - qy) > 3e-8 for qx, qy in found):
            found.append((px, py))
    return np.array(found).reshape(-1, 2)


def near_centre(lens, x, y):
    """Distance to the next centre."""
    return min(math.hypot(x - x_0, y - y_0) for x_0, y_0 in lens._centres())


# ---------------------------------------------------------------- comparisons


@dataclass
class Score:
    """What one system came to."""

    images: int = 0
    missed: int = 0
    spurious: int = 0
    error: float = 0.0
    curve_error: float = 0.0
    milliseconds: float = 0.0
    their_missed: int = 0
    their_spurious: int = 0
    their_milliseconds: float = 0.0
    their_curve_milliseconds: float = math.nan


def compared(found, right, tolerance):
    """Numbers of images missed and spurious, and the largest distance of the others.

    Pairs closer than 3 mas may be missing on either side.
    """
    if not len(right) or not len(found):
        return len(right), len(found), 0.0
    distance = np.hypot(*(right[:, None] - found[None]).transpose(2, 0, 1))
    missed = [k for k in range(len(right)) if distance[k].min() > tolerance and not paired(right, right[k])]
    spurious = [
        k for k in range(len(found)) if distance[:, k].min() > tolerance and not paired(found, found[k])
    ]
    matched = distance.min(axis=1)
    return len(missed), len(spurious), matched[matched <= tolerance].max(initial=0.0)


def paired(places, place):
    """Whether another one of the places is within 3 mas."""
    return (np.hypot(*(places - place).T) < 3 * MAS).sum() > 1


def curve_error(lens, curves):
    """Largest distance of points from where the determinant vanishes, in units of the largest radius."""
    worst, size = 0.0, max(np.ptp(x) for x, _ in curves) / 2
    for x, y in curves:
        # Through the centre of an isothermal lens curves go straight.
        outside = np.min([np.hypot(x - x_0, y - y_0) for x_0, y_0 in lens._centres()], axis=0) > 1e-6
        x, y = x[outside], y[outside]
        near = [np.hypot(x - x_0, y - y_0) for x_0, y_0 in lens._centres()]
        step = 1e-4 * np.minimum(np.min(near, axis=0), np.ptp(x))

        def value(px, py):
            return np.linalg.det(lens.jacobian(px, py))

        slope = np.hypot(value(x + step, y) - value(x - step, y), value(x, y + step) - value(x, y - step))
        worst = max(worst, np.max(np.abs(value(x, y)) / slope * 2 * step) / size)
    return worst


def timed(function, *args, **kwargs):
    """What a function returns, and the milliseconds of the processor that it took."""
    start = time.process_time()
    value = function(*args, **kwargs)
    return value, 1e3 * (time.process_time() - start)


def judged(lens, source, *, their_curves=False):
    """The score of one system."""
    (x, y), ms = timed(lens.image_positions, *source)
    curves, curve_ms = timed(lens.critical_curves)
    right = brute_force(lens, source)
    seen = np.array([near_centre(lens, *place) > 1e-7 for place in zip(x, y, strict=True)], dtype=bool)
    score = Score(images=len(right), milliseconds=ms + curve_ms)
    score.missed, score.spurious, score.error = compared(np.stack((x, y), axis=1)[seen], right, 1e-6)
    score.curve_error = curve_error(lens, curves) if curves else 0.0
    model, arguments = in_lenstronomy(lens)
    window = 2 * half_width(lens, source)
    (tx, ty), score.their_milliseconds = timed(
        LensEquationSolver(model).image_position_from_source,
        *source,
        arguments,
        min_distance=0.05,
        search_window=window,
        precision_limit=1e-10,
        num_iter_max=100,
    )
    found = np.stack((np.atleast_1d(tx), np.atleast_1d(ty)), axis=1)
    score.their_missed, score.their_spurious, _ = compared(found, right, 1e-4)
    if their_curves:
        extensions = LensModelExtensions(model)
        _, score.their_curve_milliseconds = timed(
            extensions.critical_curve_caustics, arguments, compute_window=window, grid_scale=0.02
        )
    return score


def one(seed, number):
    """Kind and score of system ``number``; a failure shows its numbers."""
    rng = np.random.default_rng((seed, number))
    kind, place = KINDS[number % len(KINDS)], PLACES[number // len(KINDS) % len(PLACES)]
    lens = random_lens(rng, kind)
    source = random_source(rng, lens, place)
    score = judged(lens, source, their_curves=number % 10 == 0)
    if score.missed or score.spurious:
        print(f"system {number}, source {source[0]!r} {source[1]!r}: {score}\n{lens!r}", flush=True)
    return kind, place, score


def row(name, scores):
    """One line of the table."""

    def worst(values):
        return f"{max(values, default=0):.0e}"

    theirs = [s.their_curve_milliseconds for s in scores if np.isfinite(s.their_curve_milliseconds)]
    return (
        name,
        len(scores),
        sum(s.images for s in scores),
        sum(s.missed for s in scores),
        sum(s.spurious for s in scores),
        worst(s.error for s in scores),
        worst(s.curve_error for s in scores),
        f"{np.median([s.milliseconds for s in scores]):.1f}",
        f"{np.percentile([s.milliseconds for s in scores], 95):.1f}",
        sum(s.their_missed for s in scores),
        sum(s.their_spurious for s in scores),
        f"{np.median([s.their_milliseconds for s in scores]):.0f}",
        f"{np.median(theirs):.0f}" if theirs else "",
    )


COLUMNS = ("lens", "systems", "images", "missed", "spurious", 'worst image (")', "worst curve (R_E)")
COLUMNS += ("ms", "ms, 95 %", "lenstronomy missed", "spurious", "ms, images", "ms, curves")


# ---------------------------------------------------------------- cases with a known answer


def area(curve):
    """Area inside a polygon."""
    x, y = curve
    return abs(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) / 2


def known_cases():
    """Rows of the cases whose right values are known: name, right value, ours."""
    for gamma in (1.8, 1.95, 1.99, 1.999):
        r = (2 - gamma) ** (1 / (gamma - 1))
        right = math.pi * (r - r ** (2 - gamma)) ** 2
        ours = EPL(1.0, gamma).caustic_areas(kind="radial")[0].value
        yield f"area of the radial caustic, gamma {gamma}", f"{right:.8f}", f"{ours:.8f}"
    for lens, radius in ((SIE(1.0), 1.0), (PointMass(0.7), 0.7)):
        try:
            answer = len(lens.image_positions(0.0, 0.0)[0])
        except InputError as error:
            answer = str(error).split("radius ")[1].split(" around")[0]
        yield f"ring of {lens!r}", f"{radius} arcsec", answer
    for kappa, gamma, b in ((0.3, 0.3, 0.15), (0.45, 0.6, 0.7), (0.55, 0.55, 0.7), (0.0, 1.05, 0.7)):
        lens = PointMass(1.0) + Shear(gamma, 0.0) + ConvergenceSheet(kappa)
        name = f"images of a saddle, kappa {kappa} gamma {gamma} source {b}"
        yield name, chang_refsdal(kappa, gamma, b), len(lens.image_positions(b, 0.0)[0])
    for distance, small in ((2.0, 0.003), (3.0, 0.003), (3.0, 0.0003)):
        # To first order in its size, in the shear and convergence of the main lens, 1.2 / (2 d) each.
        lens = SIS(1.2) + SIS(small, distance, 0.0)
        radii = [
            math.sqrt(area(c) / math.pi) for c in lens.critical_curves() if abs(c[0].mean() - distance) < 0.3
        ]
        s = 1 - 1.2 / distance
        right = small * math.sqrt(3 / 8 * (1 + 1 / s**2) + 1 / (4 * s))
        yield (
            f'critical radius of an SIS of {small}" at {distance}"',
            f"{right:.6f}",
            ", ".join(f"{r:.6f}" for r in radii),
        )


def chang_refsdal(kappa, gamma, b):
    """Number of images of a source on the axis behind a point mass in shear and convergence, exactly."""
    a, c = 1 - kappa - gamma, 1 - kappa + gamma
    on_axis = sum(abs(root.imag) < 1e-12 for root in np.roots([a, -b, -1]))
    x = b / (a - c)
    return on_axis + (2 if c > 0 and 1 / c - x * x > 0 else 0)


def main():
    """Print the tables."""
    args = common.parser_of(__doc__, 1000, "systems", 1).parse_args()
    common.header("Critical curves and images of a point", systems=args.n, seed=args.seed)
    results = list(common.in_processes(one, [(args.seed, k) for k in range(args.n)], args.jobs))
    rows = [row(kind, [s for k, _, s in results if k == kind]) for kind in KINDS]
    rows += [row(place, [s for _, p, s in results if p == place]) for place in PLACES]
    common.table(COLUMNS, [*rows, row("all", [s for _, _, s in results])])
    common.table(("known case", "right", "lenssr"), known_cases())


if __name__ == "__main__":
    main()
